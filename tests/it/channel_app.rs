//! The application of the channel tests: a room that does one of everything, and a channel over a log in memory.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, atomic::AtomicU64, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use axum::http::StatusCode;
use bytes::Bytes;
use rejoin::{
    auth::Identity,
    channel::{self, Channel, Context, Cursor, Host, Joined, Leave, Next, Page, Refusal, ReplayError, Router},
    presence::{self, Flusher, Tracked, Tracker},
    protocol::{Broadcast, Payload, Reply},
    pubsub::{Kind, PubSub, Published},
    transport::{self, Refused, State},
};
use serde_json::{Map, Value, json};
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    real_clients::foreign,
    support::{
        form::Form,
        ws::{TestClient, within},
    },
};

/// What the channels of one app share with its test.
#[derive(Default)]
pub(crate) struct Hooks {
    /// A push `wait`, a join with `{"wait":true}` or a replay of a log goes on when this is rung.
    pub(crate) gate: Notify,
    /// How many channels have ended, by how.
    pub(crate) ended: Mutex<Vec<(String, Leave)>>,
    pub(crate) log: Mutex<Vec<String>>,
    /// How many late answers were given.
    pub(crate) late: AtomicU64,
    /// The next so many replays are refused.
    pub(crate) unavailable: AtomicU64,
}

impl Hooks {
    pub(crate) fn ended(&self, topic: &str) -> Vec<Leave> {
        let ended = self.ended.lock().unwrap();
        ended.iter().filter(|(name, _)| name == topic).map(|(_, leave)| *leave).collect()
    }
}

/// A server on a port of its own.
pub(crate) struct App {
    pub(crate) address: SocketAddr,
    pub(crate) host: Host,
    pub(crate) state: State,
    pub(crate) hooks: Arc<Hooks>,
    pub(crate) presence: Tracker,
    flusher: Flusher,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

impl App {
    pub(crate) async fn start() -> Self {
        Self::start_with(channel::Options::default(), transport::Options::default()).await
    }

    pub(crate) async fn start_with(options: channel::Options, transport: transport::Options) -> Self {
        // Clients that a test no longer polls answer no close frame.
        let transport = transport::Options { close_timeout: Duration::from_millis(100), ..transport };
        let hooks = Arc::new(Hooks::default());
        let pubsub = PubSub::new();
        let (presence, flusher) = Tracker::start(pubsub.clone(), presence_options());
        let host = Host::new(router(&hooks, &presence), pubsub, options);
        let connect: transport::Connect = Arc::new(|client| match client.get("token") {
            Some("busy") => Err(Refused::new(StatusCode::TOO_MANY_REQUESTS).with_body("come back later")).into(),
            _ => Identity::open(client.get("user_id"), client.get("name")).map_err(|_| Refused::default()).into(),
        });
        let state = State::new(host.clone(), connect, transport);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let (routes, lobby) = (transport::routes(state.clone()), state.lobby().clone());
        let serving = tokio::spawn(transport::serve(listener, routes, lobby, shutdown.clone()));
        Self { address, host, state, hooks, presence, flusher, shutdown, serving }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/socket/websocket?vsn=2.0.0", self.address)
    }

    /// A client in a form, as nobody in particular.
    pub(crate) async fn client(&self, form: Form) -> TestClient {
        TestClient::open(self.address, form, "").await
    }

    pub(crate) fn publish(&self, topic: &str, kind: Kind, event: &str, payload: Value) -> usize {
        let broadcast = Broadcast::new(topic, event, Payload::json(&payload));
        self.host.pubsub().publish(topic, Published { kind, from: None, broadcast })
    }

    /// Appends one record of about `size` bytes to the log and publishes it.
    pub(crate) fn append(&self, topic: &str, size: usize) {
        let mut log = self.hooks.log.lock().unwrap();
        let seq = log.len() as u64 + 1;
        log.push(json!({ "seq": seq, "pad": "x".repeat(size) }).to_string());
        let payload = Payload::raw(page_of(&log, seq - 1, seq));
        // Published under the lock of the log, so that it is published in its order.
        let broadcast = Broadcast::new(topic, "events", payload);
        let kind = Kind::Logged { first: seq, last: seq };
        self.host.pubsub().publish(topic, Published { kind, from: None, broadcast });
    }

    /// Drains, and waits until nothing runs any more.
    pub(crate) async fn stop(self) {
        self.state.connections().drain(Duration::ZERO, |_| false).await;
        within("all connections to go", self.state.connections().all_gone()).await;
        assert!(self.host.finished(Duration::from_secs(10)).await, "a channel's task has not ended");
        self.shutdown.cancel();
        within("the server to end", self.serving).await.unwrap();
        within("presence to be told", self.flusher.stop()).await;
        assert_eq!(self.host.counts().channels, 0);
        assert_eq!(self.host.pubsub().topics(), 0);
    }
}

fn router(hooks: &Arc<Hooks>, presence: &Tracker) -> Router {
    let router = foreign::routes(Router::new(), presence);
    let (rooms, logs, control, presence) = (Arc::clone(hooks), Arc::clone(hooks), Arc::clone(hooks), presence.clone());
    router
        .route("room:*", move || Box::new(Room { hooks: Arc::clone(&rooms) }))
        .route("__absinthe__:control", move || Box::new(Room { hooks: Arc::clone(&control) }))
        .route("log:*", move || Box::new(Log { hooks: Arc::clone(&logs) }))
        .route("pres:*", move || Box::new(Present { presence: presence.clone(), tracked: Vec::new() }))
}

struct Room {
    hooks: Arc<Hooks>,
}

#[async_trait]
impl Channel for Room {
    async fn join(&mut self, _: &mut Context, params: Payload) -> Result<Joined, Refusal> {
        let params: Value = params.parse().unwrap_or_default();
        if params["deny"] == true {
            return Err(Refusal(Payload::json(&json!({ "reason": "unauthorized" }))));
        }
        assert!(params["crash"] != true, "a crash that was asked for");
        if params["wait"] == true {
            self.hooks.gate.notified().await;
        }
        match &params["response"] {
            Value::Null => Ok(Joined::default()),
            response => Ok(Joined { response: Payload::json(response), cursor: None }),
        }
    }

    async fn joined(&mut self, cx: &mut Context) {
        let user = cx.identity().person.id.clone();
        let user = if user.starts_with("guest-") { Value::Null } else { user.into() };
        cx.broadcast("user_entered", Payload::json(&json!({ "user": user })));
        cx.push("joined", &Payload::json(&json!({ "status": "connected", "user_id": user })));
    }

    async fn handle_in(&mut self, cx: &mut Context, event: &str, payload: Payload) -> Next {
        match event {
            "new_msg" | "shout" => cx.broadcast(event, payload),
            "from" => {
                cx.broadcast_from(event, payload);
                return Next::NoReply;
            }
            "echo" | "broadcast" => return Next::Reply(Reply::ok(payload)),
            "err" => return Next::Reply(Reply::error(Payload::json(&json!({ "reason": "nope" })))),
            "status" => return Next::Reply(Reply { status: "teapot".into(), response: Payload::empty() }),
            "silent" => return Next::NoReply,
            "binary_event" => {
                let Payload::Binary(bytes) = payload else { panic!("bytes were promised") };
                if let Err(error) = cx.try_push(event, &Payload::Binary(Bytes::from_static(&[0, 1]))) {
                    return Next::Reply(Reply::error(Payload::json(&json!({ "push": error.to_string() }))));
                }
                return Next::Reply(Reply::ok(Payload::Binary([&bytes[..], &[3, 4]].concat().into())));
            }
            "to_binary" => return Next::Reply(Reply::ok(Payload::Binary(Bytes::from_static(&[7])))),
            "to_json" => return Next::Reply(Reply::ok(Payload::json(&json!({ "bytes": payload.len() })))),
            "shout_binary" => cx.broadcast(event, Payload::Binary(Bytes::from_static(&[1, 2, 3]))),
            "push_binary" => {
                let name = "e".repeat(payload.parse::<usize>().unwrap());
                let pushed = cx.try_push(&name, &Payload::Binary(Bytes::from_static(&[9])));
                return Next::Reply(Reply::ok(Payload::json(&json!({ "pushed": pushed.is_ok() }))));
            }
            "later" => {
                let (handle, hooks) = (cx.reply_later(), Arc::clone(&self.hooks));
                tokio::spawn(async move {
                    hooks.gate.notified().await;
                    handle.send(&Reply::ok(payload));
                    hooks.late.fetch_add(1, Ordering::SeqCst);
                });
                return Next::NoReply;
            }
            "given_up" => {
                drop(cx.reply_later());
                return Next::NoReply;
            }
            "twice" => cx.reply_later().send(&Reply::ok(Payload::empty())),
            "wait" => self.hooks.gate.notified().await,
            "stop" => return Next::Stop,
            "stop_reply" => return Next::StopReply(Reply::ok(Payload::json(&json!({ "bye": 1 })))),
            other => panic!("nobody handles {other}"),
        }
        Next::Reply(Reply::ok(Payload::empty()))
    }

    fn intercepts(&self) -> &'static [&'static str] {
        &["new_msg"]
    }

    async fn handle_out(&mut self, cx: &mut Context, event: &str, payload: &Payload) {
        let mut payload: Value = payload.parse().unwrap();
        if payload["not_for"] == *cx.identity().person.id {
            return;
        }
        payload["transport"] = ":websocket".into();
        cx.push(event, &Payload::json(&payload));
    }

    async fn terminate(&mut self, cx: &mut Context, reason: Leave) {
        cx.push("you_left", &Payload::json(&json!({ "message": "bye!" })));
        self.hooks.ended.lock().unwrap().push((cx.topic().to_owned(), reason));
    }
}

/// How many records a page has.
const PAGE: u64 = 16;

struct Log {
    hooks: Arc<Hooks>,
}

#[async_trait]
impl Channel for Log {
    /// Joins at the record `after`, or at the end.
    async fn join(&mut self, _: &mut Context, params: Payload) -> Result<Joined, Refusal> {
        let params: Value = params.parse().unwrap_or_default();
        let head = self.hooks.log.lock().unwrap().len() as u64;
        let position = params["after"].as_u64().unwrap_or(head);
        Ok(Joined {
            response: Payload::empty(),
            cursor: Some(Cursor { position, complete: position == head, log: None }),
        })
    }

    async fn handle_in(&mut self, _: &mut Context, _: &str, _: Payload) -> Next {
        Next::Reply(Reply::ok(Payload::empty()))
    }

    async fn replay(&mut self, _: &mut Context, after: u64) -> Result<Page, ReplayError> {
        let refuse = self.hooks.unavailable.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if refuse.is_ok() {
            return Err(ReplayError::Unavailable);
        }
        let log = self.hooks.log.lock().unwrap();
        let head = log.len() as u64;
        if after > head {
            return Err(ReplayError::Restart);
        }
        let last = head.min(after + PAGE);
        let payload = (last > after).then(|| Payload::raw(page_of(&log, after, last)));
        Ok(Page { payload, last, complete: last == head })
    }
}

fn page_of(log: &[String], after: u64, last: u64) -> String {
    format!(r#"{{"prev":{after},"events":[{}]}}"#, log[after as usize..last as usize].join(","))
}

/// On topics that begin with `pres:fetch` each key has its length beside its metas.
fn presence_options() -> presence::Options {
    let fetch = |topic: &str, keys: &[&str]| {
        let extra = |key: &str| Map::from_iter([("length".to_owned(), key.len().into())]);
        let keys = keys.iter().filter(|_| topic.starts_with("pres:fetch"));
        keys.map(|key| ((*key).to_owned(), extra(key))).collect()
    };
    presence::Options { fetch: Some(Arc::new(fetch)), ..presence::Options::default() }
}

/// Presence as an application has it: shows its client under the key `user` of the join parameters.
struct Present {
    presence: Tracker,
    tracked: Vec<Tracked>,
}

impl Present {
    fn track(&mut self, cx: &Context, params: &Value) -> Result<(), presence::Error> {
        let (topic, none) = (cx.topic(), Map::new());
        let fields = params["meta"].as_object().unwrap_or(&none);
        self.tracked.push(match &params["user"] {
            Value::Number(number) => self.presence.track(topic, number, fields)?,
            Value::String(text) => self.presence.track(topic, text, fields)?,
            _ => self.presence.track(topic, &cx.identity().person.id, fields)?,
        });
        Ok(())
    }
}

#[async_trait]
impl Channel for Present {
    async fn join(&mut self, cx: &mut Context, params: Payload) -> Result<Joined, Refusal> {
        let params = params.parse().unwrap_or_default();
        self.track(cx, &params).map_err(|error| Refusal::because("invalid", &error.to_string()))?;
        cx.push("presence_state", &self.presence.state(cx.topic()));
        Ok(Joined::default())
    }

    async fn handle_in(&mut self, cx: &mut Context, event: &str, payload: Payload) -> Next {
        let params: Value = payload.parse().unwrap_or_default();
        match event {
            "track" => match self.track(cx, &params) {
                Ok(()) => {}
                Err(error) => return Next::Reply(Reply::refuse("invalid", &error.to_string())),
            },
            "update" => self.tracked[0].update(params.as_object().unwrap()),
            "untrack" => self.tracked.remove(0).untrack(),
            "list" => {
                let state = json!({ "list": self.presence.list(cx.topic()), "count": self.presence.count(cx.topic()) });
                return Next::Reply(Reply::ok(Payload::json(&state)));
            }
            "boom" => panic!("a crash that was asked for"),
            _ => {}
        }
        Next::Reply(Reply::ok(Payload::empty()))
    }

    async fn presence_state(&mut self, cx: &mut Context) -> Option<Payload> {
        Some(Payload::clone(&self.presence.state(cx.topic())))
    }
}
