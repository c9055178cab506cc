//! A client that stays: it joins, applies what it is sent by the client's rules, comes back by itself with its cursor
//! whatever ends its connection, and remembers everything.

use std::time::Duration;

use rejoin::model::View;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{fleet::Fleet, ws::TestClient};

/// How long a server may be silent before the client asks whether it is there; twice that, and it goes elsewhere.
const SILENCE: Duration = Duration::from_secs(2);
/// How long a new connection may take, with its join.
const PATIENCE: Duration = Duration::from_secs(9);

/// An event as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) event: Value,
}

impl Seen {
    pub(crate) fn is(&self, turn: &str, kind: &str) -> bool {
        self.event["turn_id"] == turn && self.event["type"] == kind
    }

    /// Whether it ends this turn.
    pub(crate) fn ends(&self, turn: &str) -> bool {
        let kinds = ["turn_completed", "turn_failed", "turn_cancelled"];
        self.event["turn_id"] == turn && kinds.iter().any(|kind| self.event["type"] == *kind)
    }
}

/// All that a recorder knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    pub(crate) view: View,
    /// In the order of arrival, replayed ones included.
    pub(crate) events: Vec<Seen>,
    /// The mode of each join and, of a snapshot, its reason.
    pub(crate) joins: Vec<String>,
    /// Events that end a channel, in the order of arrival: `phx_error`, `phx_close`, `draining`.
    pub(crate) endings: Vec<String>,
    /// What no server may do to a client.
    pub(crate) problems: Vec<String>,
    pub(crate) is_joined: bool,
}

impl Record {
    /// The answer of a turn, as far as it has come.
    pub(crate) fn answer(&self, turn: &str) -> String {
        let message = self.view.messages.iter().find(|message| message.turn_id.as_deref() == Some(turn));
        message.map(|message| message.plain_text()).unwrap_or_default()
    }

    /// The event that ended a turn.
    pub(crate) fn end(&self, turn: &str) -> Option<&Seen> {
        self.events.iter().find(|seen| seen.ends(turn))
    }

    /// How a turn ended: `completed`, `cancelled owner_gone`, ….
    pub(crate) fn ended(&self, turn: &str) -> Option<String> {
        let event = &self.end(turn)?.event;
        let kind = event["type"].as_str().unwrap().trim_start_matches("turn_").to_owned();
        Some(event["data"]["reason"].as_str().map_or(kind.clone(), |reason| format!("{kind} {reason}")))
    }
}

/// A recorder of one session; it leaves with this value.
pub(crate) struct Recorder {
    pub(crate) session: String,
    user: String,
    record: watch::Receiver<Record>,
    task: JoinHandle<()>,
}

impl Recorder {
    /// Joins at the first of these nodes; it goes round them when a connection ends.
    pub(crate) async fn start(cluster: &Fleet, nodes: &[usize], session: &str, user: &str) -> Self {
        Self::at(nodes.iter().map(|node| cluster.ws(*node, user)).collect(), session, user).await
    }

    /// The same at addresses of WebSockets.
    pub(crate) async fn at(urls: Vec<String>, session: &str, user: &str) -> Self {
        let (sender, record) = watch::channel(Record::default());
        let topic = format!("session:{session}");
        let task = tokio::spawn(Life { topic, urls, record: sender }.live());
        let recorder = Self { session: session.to_owned(), user: user.to_owned(), record, task };
        recorder.until("the first join", |record| record.is_joined).await;
        recorder
    }

    pub(crate) fn name(&self) -> String {
        format!("{} in {}", self.user, self.session)
    }

    /// What it knows at this moment.
    pub(crate) fn now(&self) -> Record {
        self.record.borrow().clone()
    }

    /// Waits until what it knows is so.
    pub(crate) async fn until(&self, what: &str, ready: impl FnMut(&Record) -> bool) {
        let mut record = self.record.clone();
        let found = timeout(Duration::from_secs(30), record.wait_for(ready)).await.map(|found| found.is_ok());
        if found != Ok(true) {
            let record = self.now();
            let last: Vec<_> = record.events.iter().rev().take(5).map(|seen| &seen.event).collect();
            panic!("{}: {what}: not so; at {}, {last:?}, {:?}", self.name(), record.view.last_seq, record.problems);
        }
    }

    /// Waits until a turn has said more than so many bytes.
    pub(crate) async fn words(&self, turn: &str, more_than: usize) {
        self.until("words of a turn", |record| record.answer(turn).len() > more_than).await;
    }

    /// Waits until a turn has ended: how.
    pub(crate) async fn end(&self, turn: &str) -> String {
        self.until("the end of a turn", |record| record.end(turn).is_some()).await;
        self.now().ended(turn).unwrap()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Life {
    topic: String,
    urls: Vec<String>,
    record: watch::Sender<Record>,
}

impl Life {
    async fn live(self) {
        let mut attempt = 0;
        loop {
            self.connection(&self.urls[attempt % self.urls.len()]).await;
            self.record.send_modify(|record| record.is_joined = false);
            attempt += 1;
            // A broken network is not asked a thousand times a second.
            sleep(Duration::from_millis(25)).await;
        }
    }

    /// One connection from its beginning to its end.
    async fn connection(&self, url: &str) {
        let Ok(Ok(mut raw)) = timeout(PATIENCE, TestClient::try_connect(url)).await else { return };
        let cursor = {
            let view = &self.record.borrow().view;
            let cursor = json!({ "last_seq": view.last_seq, "epoch": view.epoch });
            if view.epoch.is_empty() { json!({}) } else { cursor }
        };
        if !raw.try_frame(json!(["1", "join", self.topic, "phx_join", cursor])).await {
            return;
        }
        let mut asked = 0;
        loop {
            match timeout(SILENCE, raw.try_next()).await {
                Ok(Some(frame)) => {
                    asked = 0;
                    if !self.take(&frame) {
                        return;
                    }
                }
                Ok(None) => return,
                Err(_) if asked == 2 => return,
                Err(_) => {
                    asked += 1;
                    if !raw.try_frame(json!([null, "hb", "phoenix", "heartbeat", {}])).await {
                        return;
                    }
                }
            }
        }
    }

    /// Takes in a frame; false if the channel has ended with it.
    fn take(&self, frame: &Value) -> bool {
        let kind = frame[3].as_str().unwrap_or_default();
        match kind {
            "events" => {
                self.events(&frame[4]);
                true
            }
            "phx_reply" if frame[1] == "join" => self.joined(&frame[4]),
            "phx_error" | "phx_close" | "draining" => {
                self.record.send_modify(|record| record.endings.push(kind.to_owned()));
                kind == "draining"
            }
            _ => true,
        }
    }

    fn joined(&self, reply: &Value) -> bool {
        if reply["status"] != "ok" {
            let reason = reply["response"]["reason"].as_str().unwrap_or_default();
            if !["unavailable", "join crashed"].contains(&reason) {
                self.record.send_modify(|record| record.problems.push(format!("a join was refused: {reply}")));
            }
            return false;
        }
        let (response, at) = (&reply["response"], Instant::now());
        let replay = &response["replay"];
        self.record.send_modify(|record| {
            let mode = replay["mode"].as_str().unwrap_or_default();
            record.joins.push(replay["reason"].as_str().unwrap_or(mode).to_owned());
            record.is_joined = true;
            if mode == "replay" {
                if replay["from"] != record.view.last_seq {
                    record.problems.push(format!("held {}, replayed from {}", record.view.last_seq, replay["from"]));
                }
                remember(record, replay["events"].as_array().map_or(&[], Vec::as_slice), at);
            }
            if let Err(error) = record.view.join(&response.to_string()) {
                record.problems.push(format!("a join reply: {error}"));
            }
        });
        true
    }

    fn events(&self, payload: &Value) {
        let at = Instant::now();
        self.record.send_modify(|record| {
            remember(record, payload["events"].as_array().map_or(&[], Vec::as_slice), at);
            if let Err(error) = record.view.push(&payload.to_string()) {
                record.problems.push(error.to_string());
            }
        });
    }
}

/// Keeps events, each of which must be newer than all before.
fn remember(record: &mut Record, events: &[Value], at: Instant) {
    let mut last = record.view.last_seq;
    for event in events {
        let seq = event["seq"].as_u64().unwrap_or_default();
        if seq <= last {
            record.problems.push(format!("{seq} was sent after {last}"));
        }
        last = seq;
        record.events.push(Seen { at, event: event.clone() });
    }
}
