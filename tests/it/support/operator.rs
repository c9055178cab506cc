//! An operator who watches the topic `admin`.

use serde_json::{Map, Value, json};

use super::ws::{TestClient, within};

/// One who watches.
pub(crate) struct Operator {
    client: TestClient,
    /// Everything that it holds, by part.
    pub(crate) held: Map<String, Value>,
    /// The parts of each push so far.
    pub(crate) pushes: Vec<Vec<String>>,
}

impl Operator {
    /// Connects and joins.
    pub(crate) async fn watch(url: &str) -> Self {
        let mut client = TestClient::connect(url).await;
        client.frame(json!(["11", "1", "admin", "phx_join", {}])).await;
        let reply = client.next().await;
        assert_eq!((&reply[1], &reply[4]["status"]), (&"1".into(), &"ok".into()), "{reply}");
        let held = reply[4]["response"].as_object().unwrap().clone();
        Self { client, held, pushes: Vec::new() }
    }

    /// Takes frames in until `ready`.
    pub(crate) async fn until(&mut self, what: &str, ready: impl Fn(&Map<String, Value>) -> bool) {
        within(what, async {
            while !ready(&self.held) {
                let frame = self.client.next().await;
                self.take(&frame);
            }
        })
        .await;
    }

    fn take(&mut self, frame: &Value) {
        assert_eq!((&frame[2], &frame[3]), (&"admin".into(), &"overview".into()), "{frame}");
        let change = frame[4].as_object().unwrap();
        self.pushes.push(change.keys().cloned().collect());
        self.held.extend(change.clone());
    }

    /// Takes in the next push.
    pub(crate) async fn next(&mut self) {
        let frame = self.client.next().await;
        self.take(&frame);
    }

    /// Asks for a cancel: status and response.
    pub(crate) async fn cancel(&mut self, session: &str, turn_id: &Value) -> (String, Value) {
        self.ask("cancel", json!({ "session": session, "turn_id": turn_id })).await
    }

    /// Asks, and takes in what comes before the answer.
    pub(crate) async fn ask(&mut self, event: &str, payload: Value) -> (String, Value) {
        let reference = self.client.push("admin", event, payload).await;
        within("an answer", async {
            loop {
                let frame = self.client.next().await;
                if frame[1] == reference {
                    return (frame[4]["status"].as_str().unwrap().to_owned(), frame[4]["response"].clone());
                }
                self.take(&frame);
            }
        })
        .await
    }

    /// The next frame that is no push of the overview.
    pub(crate) async fn other(&mut self) -> Value {
        within("another frame", async {
            loop {
                let frame = self.client.next().await;
                if frame[3] != "overview" {
                    return frame;
                }
            }
        })
        .await
    }
}

/// The turns of this status that an operator holds.
pub(crate) fn turns<'a>(held: &'a Map<String, Value>, status: &str) -> Vec<&'a Value> {
    held["turns"].as_array().unwrap().iter().filter(|entry| entry["turn"]["status"] == status).collect()
}
