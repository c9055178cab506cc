//! Topic `session:<id>`: the durable session.
//!
//! Turns pushes into requests and requests' answers into replies, and shows who is here. It knows no SQL and no
//! transport; what is durable is the business of [`crate::session`]. Its invariant: a push is answered in the
//! contract's words, and what takes long is awaited beside the channel, so that the next push does not wait for it.

use std::sync::Arc;

use async_trait::async_trait;
use dashmap::DashMap;
use serde::Deserialize;
use serde_json::{Map, value::RawValue};
use tokio_util::task::TaskTracker;

use super::{
    announce::as_broadcast,
    later::answer_later,
    shown::{Shown, Stage},
};
use crate::{
    auth::Access,
    channel::{Channel, Context, Cursor, Joined, Leave, Next, Page, Refusal, ReplayError},
    clock,
    model::{Person, Turn, machine::Asker},
    presence::{Tracked, Tracker},
    protocol::{Payload, Reply},
    session::{Error, Send, Sessions, TOPIC_PREFIX, TurnObserver, Update, fields, lenient_fields, topic_of},
    store::{From, SnapshotReason},
};

/// How many messages a page of history has if the client does not say, and at most.
const PAGE: (usize, usize) = (100, 500);

/// What all session channels share. Cheap to clone.
#[derive(Clone)]
pub struct Shared {
    sessions: Sessions,
    stage: Stage,
    tasks: TaskTracker,
}

impl Shared {
    /// For channels that show their clients on `stage`. `tasks` keeps the answers that are on their way.
    pub fn new(sessions: Sessions, stage: Stage, tasks: TaskTracker) -> Self {
        Self { sessions, stage, tasks }
    }

    /// A channel for one joined topic.
    pub fn channel(&self) -> Box<dyn Channel> {
        Box::new(SessionChannel { shared: self.clone(), epoch: String::new(), shown: Shown::new(&self.stage) })
    }
}

/// One session joined on one connection.
struct SessionChannel {
    shared: Shared,
    /// The epoch of the log that the client holds.
    epoch: String,
    shown: Shown,
}

#[derive(Deserialize)]
struct JoinParams<'a> {
    #[serde(borrow, default)]
    last_seq: Option<&'a RawValue>,
    #[serde(borrow, default)]
    epoch: Option<&'a RawValue>,
    create: Option<bool>,
    #[serde(borrow, default)]
    presence: Option<&'a RawValue>,
}

/// The cursor in join parameters. Whatever is no cursor gives a snapshot and its reason, never an error (L9).
fn cursor<'a>(last_seq: Option<&'a RawValue>, epoch: Option<&'a RawValue>) -> From {
    let given = |value: Option<&'a RawValue>| value.filter(|value| value.get() != "null");
    let Some(last_seq) = given(last_seq) else {
        let reason = if given(epoch).is_some() { SnapshotReason::CursorInvalid } else { SnapshotReason::FirstJoin };
        return From::Start(reason);
    };
    let seq = serde_json::from_str::<u64>(last_seq.get()).ok();
    let epoch = epoch.and_then(|epoch| serde_json::from_str::<String>(epoch.get()).ok());
    match seq.zip(epoch) {
        Some((seq, epoch)) => From::Cursor { seq, epoch },
        None => From::Start(SnapshotReason::CursorInvalid),
    }
}

#[async_trait]
impl Channel for SessionChannel {
    async fn join(&mut self, cx: &mut Context, params: Payload) -> Result<Joined, Refusal> {
        let topic = cx.topic().to_owned();
        let text = params.as_json().unwrap_or("[]");
        let text = if text.trim() == "null" { "{}" } else { text };
        let params: JoinParams<'_> = lenient_fields(text).map_err(|error| refusal(&error))?;
        let identity = cx.identity();
        let access = identity.access(&topic);
        if access < Access::Read {
            return Err(refusal(&Error::Unauthorized("this token does not open this session")));
        }
        // Who only listens is not shown to the others either.
        let shows = !cx.only_listens();
        if shows {
            self.shown.take(&identity.person, params.presence).map_err(|error| refusal(&error))?;
        }
        let create = params.create.unwrap_or(true) && access >= Access::Write;
        let from = cursor(params.last_seq, params.epoch);
        let joined = self.shared.sessions.join(id(cx), from, create).await.map_err(|error| refusal(&error))?;
        self.epoch = joined.epoch;
        if shows {
            self.shown.enter(cx).map_err(|error| refusal(&error))?;
        }
        Ok(Joined {
            response: Payload::raw(joined.reply),
            cursor: Some(Cursor { position: joined.position, complete: joined.complete, log: Some(joined.log) }),
        })
    }

    async fn handle_in(&mut self, cx: &mut Context, event: &str, payload: Payload) -> Next {
        let Some(text) = payload.as_json() else {
            return refuse(&Error::Invalid("a binary payload means nothing here; send a JSON object".to_owned()));
        };
        let access = cx.identity().access(cx.topic());
        let needed = if event == "history" || event == "presence" { Access::Read } else { Access::Write };
        if access < needed && event != "access_token" {
            return refuse(&Error::Unauthorized("this token does not allow this"));
        }
        let asker = Asker { person: cx.identity().person.clone(), admin: access >= Access::Admin };
        let answer = match event {
            "send" => self.send(cx, asker, text).await,
            "cancel" => self.cancel(cx, asker, text),
            "retry" => self.retry(cx, asker, text).await,
            "update" => self.update(cx, asker, text).await,
            "history" => self.history(cx, text).await,
            "broadcast" => broadcast(cx, &asker.person, text),
            "presence" => self.shown.replace(&asker.person, text).map(done),
            "access_token" => self.shown.renewals().renew(cx, text).await.map(done),
            other => Err(Error::Invalid(format!("there is no event {other:?} on this topic"))),
        };
        answer.unwrap_or_else(|error| refuse(&error))
    }

    async fn replay(&mut self, cx: &mut Context, after: u64) -> Result<Page, ReplayError> {
        match self.shared.sessions.page(id(cx), &self.epoch, after).await {
            Ok(Some(page)) => {
                Ok(Page { payload: page.payload.map(Payload::raw), last: page.last, complete: page.complete })
            }
            Ok(None) => Err(ReplayError::Restart),
            Err(_) => Err(ReplayError::Unavailable),
        }
    }

    async fn presence_state(&mut self, cx: &mut Context) -> Option<Payload> {
        Some(self.shown.state(cx))
    }

    async fn terminate(&mut self, _cx: &mut Context, _reason: Leave) {
        self.shown.leave();
    }
}

/// The session's id in the topic's name.
fn id(cx: &Context) -> &str {
    cx.topic().strip_prefix(TOPIC_PREFIX).unwrap_or_default()
}

fn refusal(error: &Error) -> Refusal {
    Refusal::because(error.reason(), &error.to_string())
}

fn done((): ()) -> Next {
    Next::Reply(Reply::ok(Payload::empty()))
}

fn refuse(error: &Error) -> Next {
    Next::Reply(Reply::refuse(error.reason(), &error.to_string()))
}

#[derive(Deserialize)]
struct TurnId {
    turn_id: String,
}

impl SessionChannel {
    async fn send(&self, cx: &Context, asker: Asker, text: &str) -> Result<Next, Error> {
        let send = Send::parse(text)?;
        // The place in the log's order is taken before the next push is looked at.
        let pending = self.shared.sessions.send(id(cx), asker, send).await?;
        Ok(answer_later(&self.shared.tasks, cx, pending))
    }

    fn cancel(&self, cx: &Context, asker: Asker, text: &str) -> Result<Next, Error> {
        let TurnId { turn_id } = fields(text)?;
        let (sessions, session) = (self.shared.sessions.clone(), id(cx).to_owned());
        Ok(answer_later(&self.shared.tasks, cx, async move { sessions.cancel(&session, asker, turn_id).await }))
    }

    async fn retry(&self, cx: &Context, asker: Asker, text: &str) -> Result<Next, Error> {
        let TurnId { turn_id } = fields(text)?;
        let pending = self.shared.sessions.retry(id(cx), asker, turn_id).await?;
        Ok(answer_later(&self.shared.tasks, cx, pending))
    }

    async fn update(&self, cx: &Context, asker: Asker, text: &str) -> Result<Next, Error> {
        let pending = self.shared.sessions.update(id(cx), asker, Update::parse(text)?).await;
        Ok(answer_later(&self.shared.tasks, cx, async move { pending.await.map(|()| Map::new()) }))
    }

    async fn history(&self, cx: &Context, text: &str) -> Result<Next, Error> {
        #[derive(Deserialize)]
        struct Fields {
            before: u64,
            limit: Option<usize>,
        }
        let Fields { before, limit } = fields(text)?;
        let limit = limit.unwrap_or(PAGE.0);
        if limit == 0 {
            return Err(Error::Invalid(format!("limit is 0; use 1 to {}", PAGE.1)));
        }
        let history = self.shared.sessions.history(id(cx), before, limit.min(PAGE.1)).await?;
        Ok(Next::Reply(Reply::ok(Payload::raw(history.reply))))
    }
}

fn broadcast(cx: &Context, by: &Person, text: &str) -> Result<Next, Error> {
    #[derive(Deserialize)]
    struct Fields {
        event: String,
        payload: Option<Box<RawValue>>,
    }
    let Fields { event, payload } = fields(text)?;
    let nothing = RawValue::from_string("{}".to_owned()).unwrap_or_default();
    cx.broadcast_from("broadcast", as_broadcast(by, &event, payload.as_deref().unwrap_or(&nothing))?);
    Ok(done(()))
}

/// Shows the turns that run on this node as presences of their agents.
pub struct AgentsAtWork {
    presence: Tracker,
    node: Arc<str>,
    turns: DashMap<String, Tracked>,
}

impl AgentsAtWork {
    /// Nothing runs yet.
    pub fn new(presence: Tracker, node: &str) -> Self {
        Self { presence, node: node.into(), turns: DashMap::new() }
    }
}

impl TurnObserver for AgentsAtWork {
    fn started(&self, session: &str, turn: &Turn) {
        let agent = Person::agent(&turn.agent);
        let meta = Map::from_iter([
            ("name".to_owned(), agent.name.into()),
            ("joined_at".to_owned(), clock::now().to_string().into()),
            ("node".to_owned(), (*self.node).into()),
            ("status".to_owned(), "running".into()),
            ("turn_id".to_owned(), turn.id.clone().into()),
        ]);
        match self.presence.track(&topic_of(session), &agent.id, &meta) {
            Ok(tracked) => drop(self.turns.insert(turn.id.clone(), tracked)),
            Err(error) => tracing::error!(session, %error, "an agent at work is not shown"),
        }
    }

    fn ended(&self, _session: &str, turn: &Turn) {
        // Taken out first and dropped after: its drop publishes, which must not happen under the map's lock.
        let ended = self.turns.remove(&turn.id);
        drop(ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l9_whatever_is_no_cursor_gives_a_snapshot_with_its_reason() {
        let start = |json: &str| {
            let params: JoinParams<'_> = serde_json::from_str(json).unwrap();
            cursor(params.last_seq, params.epoch)
        };
        let invalid = From::Start(SnapshotReason::CursorInvalid);
        assert_eq!(start("{}"), From::Start(SnapshotReason::FirstJoin));
        assert_eq!(start(r#"{"last_seq":null,"epoch":null}"#), From::Start(SnapshotReason::FirstJoin));
        assert_eq!(start(r#"{"last_seq":4,"epoch":"e"}"#), From::Cursor { seq: 4, epoch: "e".into() });
        for bad in ["-1", "\"4\"", "4.5", "1e300", "99999999999999999999999", "true", "[4]", "{}"] {
            assert_eq!(start(&format!(r#"{{"last_seq":{bad},"epoch":"e"}}"#)), invalid, "{bad}");
        }
        for bad in [r#"{"last_seq":4}"#, r#"{"last_seq":4,"epoch":7}"#] {
            assert_eq!(start(bad), invalid, "{bad}");
        }
    }
}
