//! A client of one session that records and folds all that it is sent, and fails on any gap or repeat.

use rejoin::model::{View, ViewTurn};
use serde_json::{Value, json};

use super::{
    server::TestServer,
    ws::{TestClient, within},
};

/// One session joined on one connection.
pub(crate) struct SessionClient {
    pub(crate) raw: TestClient,
    pub(crate) topic: String,
    /// What it holds.
    pub(crate) view: View,
    /// The reply to its last join.
    pub(crate) joined: Value,
    /// Every event in the order of arrival, replayed ones of joins included.
    pub(crate) events: Vec<Value>,
    /// How many pushes had more events than live ones have: pages of the log.
    pub(crate) pages: usize,
    /// Presence states and diffs, in the order of arrival.
    pub(crate) presence: Vec<Value>,
    /// Replies that nobody has asked for yet.
    replies: Vec<Value>,
    /// Every other push.
    pub(crate) others: Vec<Value>,
}

impl SessionClient {
    /// Connects and joins without a cursor.
    pub(crate) async fn join(url: &str, session: &str) -> Self {
        Self::join_with(url, session, json!({})).await
    }

    /// Joins on a connection without a cursor.
    pub(crate) async fn join_on(raw: TestClient, session: &str) -> Self {
        let mut client = Self::on(raw, session);
        client.rejoin(json!({})).await;
        client
    }

    /// Connects and joins with these parameters.
    pub(crate) async fn join_with(url: &str, session: &str, params: Value) -> Self {
        let mut client = Self::connect(url, session).await;
        client.rejoin(params).await;
        client
    }

    /// Comes back over a new connection with the cursor of what it holds.
    pub(crate) async fn return_to(&mut self, url: &str) {
        self.raw = TestClient::connect(url).await;
        self.replies.clear();
        let cursor = json!({ "last_seq": self.view.last_seq, "epoch": self.view.epoch });
        self.rejoin(cursor).await;
    }

    /// Connects to a server as a user and joins without a cursor.
    pub(crate) async fn join_at(server: &TestServer, user: &str, session: &str) -> Self {
        Self::join(&server.ws(user), session).await
    }

    async fn connect(url: &str, session: &str) -> Self {
        Self::on(TestClient::connect(url).await, session)
    }

    fn on(raw: TestClient, session: &str) -> Self {
        Self {
            raw,
            topic: format!("session:{session}"),
            view: View::default(),
            joined: Value::Null,
            events: Vec::new(),
            pages: 0,
            presence: Vec::new(),
            replies: Vec::new(),
            others: Vec::new(),
        }
    }

    async fn rejoin(&mut self, params: Value) {
        self.raw.frame(json!(["11", "1", self.topic, "phx_join", params])).await;
        let reply = self.raw.next().await;
        assert_eq!((&reply[1], &reply[3]), (&"1".into(), &"phx_reply".into()), "the reply is the first frame: {reply}");
        assert_eq!(reply[4]["status"], "ok", "{reply}");
        self.joined = reply[4]["response"].clone();
        let replay = &self.joined["replay"];
        if replay["mode"] == "replay" {
            assert_eq!(replay["from"], self.view.last_seq, "the replay continues what is held");
            self.events.extend(replay["events"].as_array().unwrap().iter().cloned());
        }
        self.view.join(&self.joined.to_string()).unwrap();
    }

    /// Takes in one frame.
    pub(crate) async fn step(&mut self) {
        let frame = self.raw.next().await;
        self.take(frame);
    }

    /// Takes in a frame that was read elsewhere.
    pub(crate) fn take(&mut self, frame: Value) {
        match frame[3].as_str().unwrap() {
            "events" => {
                self.view.push(&frame[4].to_string()).unwrap_or_else(|error| panic!("{error}: {frame}"));
                let events = frame[4]["events"].as_array().unwrap();
                self.pages += usize::from(events.len() > 2);
                self.events.extend(events.iter().cloned());
            }
            "presence_state" | "presence_diff" => self.presence.push(frame),
            "phx_reply" => self.replies.push(frame),
            _ => self.others.push(frame),
        }
    }

    /// Takes in frames until `ready`.
    pub(crate) async fn until(&mut self, what: &str, ready: impl Fn(&Self) -> bool) {
        within(what, async {
            while !ready(self) {
                self.step().await;
            }
        })
        .await;
    }

    /// Pushes and waits for the answer, taking in what comes before it: status and response.
    pub(crate) async fn ask(&mut self, event: &str, payload: Value) -> (String, Value) {
        let reference = self.push(event, payload).await;
        self.answer(&reference).await
    }

    /// Pushes without waiting.
    pub(crate) async fn push(&mut self, event: &str, payload: Value) -> String {
        let topic = self.topic.clone();
        self.raw.push(&topic, event, payload).await
    }

    /// The answer to a push.
    pub(crate) async fn answer(&mut self, reference: &str) -> (String, Value) {
        let is_it = |frame: &Value| frame[1] == reference;
        within("an answer", async {
            loop {
                if let Some(place) = self.replies.iter().position(is_it) {
                    let reply = self.replies.remove(place);
                    return (reply[4]["status"].as_str().unwrap().to_owned(), reply[4]["response"].clone());
                }
                self.step().await;
            }
        })
        .await
    }

    /// Asks, and expects it to work.
    pub(crate) async fn ok(&mut self, event: &str, payload: Value) -> Value {
        let (status, response) = self.ask(event, payload).await;
        assert_eq!(status, "ok", "{event}: {response}");
        response
    }

    /// Asks, and expects a refusal: its reason.
    pub(crate) async fn refused(&mut self, event: &str, payload: Value) -> String {
        let (status, response) = self.ask(event, payload.clone()).await;
        assert_eq!(status, "error", "{event} {payload}: {response}");
        assert!(response["message"].as_str().is_some_and(|text| text.len() > 5), "a text for a person: {response}");
        response["reason"].as_str().unwrap().to_owned()
    }

    /// Sends a text: the response.
    pub(crate) async fn send(&mut self, text: &str) -> Value {
        self.ok("send", json!({ "text": text })).await
    }

    /// The text of the answer that a turn has made so far; `None` if there is no such answer.
    pub(crate) fn answer_of(&self, turn_id: &Value) -> Option<String> {
        let is_it = |id: &Option<String>| id.as_deref() == turn_id.as_str();
        self.view.messages.iter().find(|message| is_it(&message.turn_id)).map(|message| message.plain_text())
    }

    /// A turn that has ended, if it is the newest of its prompt.
    pub(crate) fn ended(&self, turn_id: &Value) -> Option<&ViewTurn> {
        self.view.ended.values().find(|turn| turn_id == turn.id.as_str())
    }

    /// Waits until a turn has ended: its status.
    pub(crate) async fn end_of(&mut self, turn_id: &Value) -> String {
        self.until("the end of a turn", |client| client.ended(turn_id).is_some()).await;
        self.ended(turn_id).unwrap().status.clone()
    }

    /// The types of the events so far.
    pub(crate) fn types(&self) -> Vec<&str> {
        self.events.iter().map(|event| event["type"].as_str().unwrap()).collect()
    }
}
