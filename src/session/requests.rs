//! What people ask of a session: send, cancel, retry, update. Checked here once, for every transport.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use tokio::time;
use utoipa::{
    ToSchema,
    openapi::schema::{ObjectBuilder, Schema, SchemaType, Type},
};

use super::{Error, Inner, Sessions, owner::Stop, wake};
use crate::{
    ids,
    model::{
        EndReason, Part, PartKind, TurnStatus,
        machine::{Applied, Asker, Done, NewTurn, Op, WhenBusy},
    },
    protocol::{compacted, complaint, strict},
};

/// A cancel is answered at latest this long after its intent was durable.
const CANCEL_PATIENCE: Duration = Duration::from_secs(7);
/// After this long others than the owner may carry it out (T6).
const FORCE_AFTER: Duration = super::recovery::INTENT_PATIENCE;
/// Pauses between looks at a turn that runs on another node.
const LOOKS: [Duration; 3] = [Duration::from_millis(300), Duration::from_millis(700), Duration::from_secs(2)];
const MAX_METADATA: usize = 16 * 1024;
const MAX_TITLE: usize = 1_000;

/// A message to send.
#[derive(Debug, Clone)]
pub struct Send {
    /// The client's own id, unique in the session; a fresh one if it gave none.
    pub id: String,
    /// What it says.
    pub parts: Parts,
    /// The agent that answers; the server's default if not said.
    pub agent: Option<String>,
    /// Whether an answer is asked for.
    pub answer: bool,
    /// What to do where no slot is free.
    pub when_busy: WhenBusy,
}

/// The checked parts of a message: at least one, of known kinds, each with what its kind needs.
#[derive(Debug, Clone)]
pub struct Parts(Vec<Part>);

/// The answer to a send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SendAnswer {
    /// The message's id.
    pub message_id: String,
    /// The turn that answers it.
    #[schema(required = true)]
    pub turn_id: Option<String>,
    /// Its seq.
    pub seq: u64,
    /// Whether an earlier send had put it there.
    pub duplicate: bool,
}

/// The answer to a cancel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct CancelAnswer {
    /// `cancelled` or `already_ended`.
    pub outcome: &'static str,
    /// How the turn ended.
    #[schema(value_type = String)]
    pub status: TurnStatus,
    /// Why, if it was cancelled.
    #[schema(value_type = Option<String>, required = true)]
    pub reason: Option<EndReason>,
}

/// The answer to a retry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RetryAnswer {
    /// The new turn, or the one that is queued or running already.
    pub turn_id: String,
    /// Its number among the prompt's turns.
    pub attempt: u32,
    /// Whether it was there already.
    pub duplicate: bool,
}

/// A change of the session itself. What is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct Update {
    /// `Some(None)` clears it.
    pub title: Option<Option<String>>,
    /// A JSON object of at most 16 KiB.
    pub metadata: Option<Box<RawValue>>,
    /// 1 to 32.
    pub max_running: Option<u32>,
}

/// Reads a JSON object into its fields.
///
/// # Errors
/// [`Error::Invalid`] where it is no object, a field has the wrong type, or it holds what others would stumble over
/// ([`strict::check`]).
pub(crate) fn fields<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, Error> {
    strict::check(json).map_err(|unsound| Error::Invalid(unsound.to_string()))?;
    lenient_fields(json)
}

/// As [`fields`], for what is looked at and neither kept nor passed on.
///
/// # Errors
/// [`Error::Invalid`] where it is no object, or a field has the wrong type.
pub(crate) fn lenient_fields<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, Error> {
    if !json.trim_start().starts_with('{') {
        return Err(Error::Invalid("the payload must be a JSON object".to_owned()));
    }
    serde_json::from_str(json)
        .map_err(|error| Error::Invalid(format!("the payload is not as expected: {}", complaint(&error))))
}

/// A field that may be there as `null`, which is not the same as not being there.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A message to send. It says something by `text`, or by `parts`, not both.
#[derive(Deserialize, ToSchema)]
#[schema(as = Send, example = json!({"id": "m1", "text": "What should we do first?"}))]
pub(crate) struct SendFields {
    /// The client's own id, unique in the session: repeated with it, a send is the same send. No control characters.
    #[schema(min_length = 1, max_length = 128)]
    id: Option<String>,
    /// What it says.
    #[schema(min_length = 1)]
    text: Option<String>,
    /// What it says, in parts.
    #[schema(min_items = 1)]
    parts: Option<Vec<PartFields>>,
    /// The agent that answers; the server's default if left out.
    agent: Option<String>,
    /// Whether an answer is asked for; true if left out.
    answer: Option<bool>,
    /// What to do where as many turns run as may: `queue` if left out.
    #[schema(schema_with = when_busy)]
    when_busy: Option<String>,
}

/// A part of a message to send.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewPart)]
struct PartFields {
    /// What it holds.
    #[schema(value_type = PartKind)]
    kind: String,
    /// The text of a part of kind `text` or `reasoning`, which must have one.
    text: Option<String>,
    /// The value of a part of another kind, which must have one, or a text.
    #[schema(value_type = Option<serde_json::Value>)]
    value: Option<Box<RawValue>>,
}

/// What a session is to be like. What is left out stays, or is as it is by default.
#[derive(Deserialize, ToSchema)]
#[schema(as = Update, example = json!({"title": "Plans", "max_running": 2}))]
pub(crate) struct UpdateFields {
    /// Its title; null clears it.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, max_length = 1000)]
    title: Option<Option<String>>,
    /// Its users' own data, at most 16 KiB as JSON; replaced whole.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Box<RawValue>>,
    /// How many turns may run at once. A whole number, however it is written: 2.0 is one.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 32)]
    max_running: Option<f64>,
}

fn when_busy() -> Schema {
    let kinds = [Type::String, Type::Null];
    let words = [Some("queue"), Some("reject"), Some("interrupt"), None];
    ObjectBuilder::new().schema_type(SchemaType::from_iter(kinds)).enum_values(Some(words)).build().into()
}

impl Parts {
    /// Plain text.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is empty.
    pub fn text(text: String) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(Error::Invalid("text is empty; a message says something".to_owned()));
        }
        Ok(Self(vec![Part::text(text)]))
    }

    fn check(fields: Vec<PartFields>) -> Result<Self, Error> {
        if fields.is_empty() {
            return Err(Error::Invalid("parts is empty; a message has at least one part".to_owned()));
        }
        fields.into_iter().map(PartFields::check).collect::<Result<_, _>>().map(Self)
    }

    fn size(&self) -> usize {
        self.0.iter().map(Part::size).sum()
    }
}

impl PartFields {
    fn check(self) -> Result<Part, Error> {
        let kind = match self.kind.as_str() {
            "text" => PartKind::Text,
            "reasoning" => PartKind::Reasoning,
            "tool_call" => PartKind::ToolCall,
            "tool_result" => PartKind::ToolResult,
            "data" => PartKind::Data,
            other => {
                let known = PartKind::NAMES;
                return Err(Error::Invalid(format!("unknown part kind {other:?}; known kinds are {known}")));
            }
        };
        let needs_text = matches!(kind, PartKind::Text | PartKind::Reasoning);
        if needs_text && self.text.is_none() {
            return Err(Error::Invalid(format!("a part of kind {} needs \"text\"", self.kind)));
        }
        if self.text.is_none() && self.value.is_none() {
            return Err(Error::Invalid(format!("a part of kind {} needs \"value\" or \"text\"", self.kind)));
        }
        Ok(Part { kind, text: self.text, value: self.value.map(compacted) })
    }
}

impl Send {
    /// Reads `{"id"?, "text" or "parts", "agent"?, "answer"?, "when_busy"?}`.
    ///
    /// # Errors
    /// [`Error::Invalid`], saying which field is wrong and what would be right.
    pub fn parse(json: &str) -> Result<Self, Error> {
        let fields: SendFields = fields(json)?;
        let parts = match (fields.text, fields.parts) {
            (Some(text), None) => Parts::text(text)?,
            (None, Some(parts)) => Parts::check(parts)?,
            _ => return Err(Error::Invalid("a send needs either \"text\" or \"parts\"".to_owned())),
        };
        let when_busy = match fields.when_busy.as_deref() {
            None | Some("queue") => WhenBusy::Queue,
            Some("reject") => WhenBusy::Reject,
            Some("interrupt") => WhenBusy::Interrupt,
            Some(other) => {
                return Err(Error::Invalid(format!("unknown when_busy {other:?}; use queue, reject or interrupt")));
            }
        };
        let id = fields.id.unwrap_or_else(ids::fresh);
        if !ids::is_client_id(&id) {
            return Err(Error::Invalid(
                "id must have 1 to 128 characters, none of them a control character".to_owned(),
            ));
        }
        Ok(Self { id, parts, agent: fields.agent, answer: fields.answer.unwrap_or(true), when_busy })
    }
}

impl Update {
    /// Reads `{"title"?, "metadata"?, "max_running"?}`.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::TooLarge`], saying which field is wrong and what would be right.
    pub fn parse(json: &str) -> Result<Self, Error> {
        let fields: UpdateFields = fields(json)?;
        if let Some(Some(title)) = &fields.title
            && title.chars().count() > MAX_TITLE
        {
            return Err(Error::TooLarge(format!("title is longer than {MAX_TITLE} characters; shorten it")));
        }
        let metadata = fields.metadata.map(compacted);
        if let Some(metadata) = &metadata {
            if !metadata.get().starts_with('{') {
                return Err(Error::Invalid("metadata must be a JSON object".to_owned()));
            }
            if metadata.get().len() > MAX_METADATA {
                return Err(Error::TooLarge(format!("metadata is larger than {MAX_METADATA} bytes; shorten it")));
            }
        }
        let max_running = fields.max_running.map(slots).transpose()?;
        Ok(Self { title: fields.title, metadata, max_running })
    }
}

/// An error for what no turn is called, which not every store can even be asked for: it would fail a batch of others.
fn check_turn(turn_id: &str) -> Result<(), Error> {
    if ids::is_client_id(turn_id) { Ok(()) } else { Err(Error::NotFound("this session has no turn with this id")) }
}

/// How many turns may run at once, of a number that may be written as any JSON number is.
fn slots(number: f64) -> Result<u32, Error> {
    let found = (1..=32).find(|slots| f64::from(*slots).total_cmp(&number).is_eq());
    found.ok_or_else(|| Error::Invalid(format!("max_running is {number}; use a whole number from 1 to 32")))
}

impl Sessions {
    /// Whether a send can be taken by any session of this server, whatever goes on in it.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Invalid`] for an agent that is not there, [`Error::Draining`].
    pub fn admits(&self, send: &Send) -> Result<(), Error> {
        let limit = self.inner.options.max_message_bytes;
        if send.parts.size() > limit {
            return Err(Error::TooLarge(format!("the message is larger than {limit} bytes; send less at once")));
        }
        if send.answer {
            self.inner.agent_name(send.agent.as_deref())?;
        }
        if self.is_draining() { Err(Error::Draining) } else { Ok(()) }
    }

    /// Sends a message, and asks for an answer unless the send says otherwise. The returned future is ready when the
    /// item has its place in the log's order; what it yields is ready when the item is durable. Dropping either leaves
    /// open whether the message is there: the same id finds out.
    ///
    /// # Errors
    /// As the contract lists them for `send`. A refused send leaves no trace.
    pub async fn send(
        &self,
        session: &str,
        asker: Asker,
        send: Send,
    ) -> Result<impl Future<Output = Result<SendAnswer, Error>> + std::marker::Send + use<>, Error> {
        self.admits(&send)?;
        let inner = self.inner.clone();
        let turn = if send.answer { Some(inner.new_turn(send.agent.as_deref())?) } else { None };
        let op = Op::Send {
            message_id: send.id,
            parts: send.parts.0,
            turn,
            when_busy: send.when_busy,
            max_queue: inner.options.max_queue,
            asker,
        };
        let pending = inner.submit(&Arc::from(session), op).await;
        Ok(async move {
            let applied = pending.await?;
            let Done::Sent { message_id, turn_id, seq, duplicate, interrupted } = applied.done else {
                return Err(Error::Unavailable);
            };
            for turn_id in &interrupted {
                inner.signal_intent(turn_id);
            }
            Ok(SendAnswer { message_id, turn_id, seq, duplicate })
        })
    }

    /// Asks for another answer to the prompt of an ended turn. As with a send, the returned future is ready when the item
    /// has its place, and what it yields when that is durable.
    ///
    /// # Errors
    /// As the contract lists them for `retry`.
    pub async fn retry(
        &self,
        session: &str,
        asker: Asker,
        turn_id: String,
    ) -> Result<impl Future<Output = Result<RetryAnswer, Error>> + std::marker::Send + use<>, Error> {
        if self.is_draining() {
            return Err(Error::Draining);
        }
        check_turn(&turn_id)?;
        let turn = NewTurn { id: ids::fresh(), reply_id: ids::fresh(), agent: String::new() };
        let op = Op::Retry { turn_id, turn, max_queue: self.inner.options.max_queue, asker };
        let pending = self.inner.submit(&Arc::from(session), op).await;
        Ok(async move {
            match pending.await?.done {
                Done::Retried { turn_id, attempt, duplicate } => Ok(RetryAnswer { turn_id, attempt, duplicate }),
                _ => Err(Error::Unavailable),
            }
        })
    }

    /// Cancels a turn and waits until it has ended, at most seven seconds after the intent was durable. Works on a
    /// node that drains, and whoever owns the turn.
    ///
    /// # Errors
    /// As the contract lists them for `cancel`.
    pub async fn cancel(&self, session: &str, asker: Asker, turn_id: String) -> Result<CancelAnswer, Error> {
        check_turn(&turn_id)?;
        let session: Arc<str> = Arc::from(session);
        let ask = || Op::Cancel { turn_id: turn_id.clone(), asker: asker.clone() };
        let ended = self.inner.log.end_of(&turn_id);
        let term = match self.inner.write(&session, ask()).await? {
            Applied { done: Done::Ended { status, reason, now }, .. } => return Ok(cancel_answer(status, reason, now)),
            Applied { done: Done::Intended { term }, .. } => term,
            _ => return Err(Error::Unavailable),
        };
        let runs_here = self.inner.signal_intent(&turn_id);
        let looks = Box::pin(async {
            // Another node's word that it has ended may be lost.
            for pause in LOOKS.into_iter().filter(|_| !runs_here) {
                time::sleep(pause).await;
                if let Ok(Applied { done: Done::Ended { .. }, .. }) = self.inner.write(&session, ask()).await {
                    return;
                }
            }
            std::future::pending::<()>().await;
        });
        let force = Box::pin(async {
            time::sleep(FORCE_AFTER).await;
            let op = Op::Force { turn_id: turn_id.clone(), term };
            if let Err(error) = self.inner.write(&session, op).await {
                tracing::warn!(turn = %turn_id, %error, "a cancel could not be carried out for the owner");
            }
            std::future::pending::<()>().await;
        });
        let waited = time::timeout(CANCEL_PATIENCE, async {
            tokio::select! {
                () = ended => {}
                () = looks => {}
                () = force => {}
            }
        });
        // Ended or not, the turn's row says what really happened.
        let _in_time = waited.await;
        match self.inner.write(&session, ask()).await?.done {
            Done::Ended { status, reason, .. } => Ok(cancel_answer(status, reason, status == TurnStatus::Cancelled)),
            _ => Err(Error::Unavailable),
        }
    }

    /// Changes title, metadata or slots. The future that this yields, once the change has its place in the log's order,
    /// is ready when it is durable; it has the errors that the contract lists for `update`.
    pub async fn update(
        &self,
        session: &str,
        asker: Asker,
        update: Update,
    ) -> impl Future<Output = Result<(), Error>> + std::marker::Send + use<> {
        let Update { title, metadata, max_running } = update;
        let op = Op::Update { title, metadata, max_running, asker };
        let pending = self.inner.submit(&Arc::from(session), op).await;
        async move { pending.await.map(drop) }
    }

    /// Makes a session. With `must_be_new`, one that is there already is a conflict.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an id that cannot be one, [`Error::Conflict`], [`Error::Unavailable`].
    pub async fn create(&self, session: &str, update: Update, must_be_new: bool) -> Result<(), Error> {
        if !ids::is_session_id(session) {
            return Err(Error::Invalid(ids::SESSION_ID_RULE.to_owned()));
        }
        let op = Op::Create {
            epoch: ids::short(),
            title: update.title.flatten(),
            metadata: update.metadata,
            max_running: update.max_running,
            must_be_new,
        };
        self.inner.write(&Arc::from(session), op).await.map(drop)
    }
}

impl Inner {
    /// A cancel for a turn is durable: tells its runner, or the node that has it. Whether it runs here.
    fn signal_intent(&self, turn_id: &str) -> bool {
        let here = self.runners.has(turn_id);
        if here {
            self.runners.stop(turn_id, Stop::Intent);
        } else {
            wake::intent(&self.pubsub, turn_id);
        }
        here
    }

    /// The agent of that name, or the one that answers where none is named.
    fn agent_name(&self, asked: Option<&str>) -> Result<String, Error> {
        let name = asked.unwrap_or_else(|| self.agents.default_name());
        if self.agents.get(name).is_none() {
            let known = self.agents.names().collect::<Vec<_>>().join(", ");
            return Err(Error::Invalid(format!("this server has no agent {name:?}; it has {known}")));
        }
        Ok(name.to_owned())
    }

    fn new_turn(&self, agent: Option<&str>) -> Result<NewTurn, Error> {
        Ok(NewTurn { id: ids::fresh(), reply_id: ids::fresh(), agent: self.agent_name(agent)? })
    }
}

fn cancel_answer(status: TurnStatus, reason: Option<EndReason>, cancelled: bool) -> CancelAnswer {
    CancelAnswer { outcome: if cancelled { "cancelled" } else { "already_ended" }, status, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason<T: std::fmt::Debug>(result: Result<T, Error>) -> &'static str {
        result.unwrap_err().reason()
    }

    #[test]
    fn a_send_is_text_or_parts_and_every_wrong_field_is_named() {
        assert!(Send::parse(r#"{"text":"hi","unknown":1}"#).unwrap().answer);
        let parts = r#"{"parts":[{"kind":"text","text":"a"},{"kind":"data","value":{"b": 1.50}}]}"#;
        let send = Send::parse(parts).unwrap();
        assert_eq!(send.parts.0[1].value.as_ref().unwrap().get(), r#"{"b":1.50}"#, "compact, and no number changed");
        for bad in [
            "[]",
            "null",
            "\"hi\"",
            "{}",
            r#"{"text":""}"#,
            r#"{"text":5}"#,
            r#"{"text":"a","parts":[]}"#,
            r#"{"parts":[]}"#,
            r#"{"parts":[{"kind":"picture","text":"a"}]}"#,
            r#"{"parts":[{"kind":"text","value":1}]}"#,
            r#"{"parts":[{"kind":"data"}]}"#,
            r#"{"text":"a","when_busy":"now"}"#,
            r#"{"text":"a","id":""}"#,
            r#"{"text":"a\u0000b"}"#,
            r#"{"parts":[{"kind":"data","value":{"a\u0000":1}}]}"#,
        ] {
            assert_eq!(reason(Send::parse(bad)), "invalid", "{bad}");
        }
        assert!(Send::parse(r#"{"text":"a\\u0000b"}"#).is_ok(), "an escaped backslash is no NUL");
    }

    #[test]
    fn an_update_tells_clearing_from_leaving_alone() {
        assert!(Update::parse("{}").unwrap().title.is_none());
        assert_eq!(Update::parse(r#"{"title":null}"#).unwrap().title, Some(None));
        assert_eq!(Update::parse(r#"{"title":"x","max_running":32}"#).unwrap().max_running, Some(32));
        assert_eq!(Update::parse(r#"{"max_running":2.0}"#).unwrap().max_running, Some(2));
        for bad in [
            r#"{"max_running":0}"#,
            r#"{"max_running":33}"#,
            r#"{"max_running":1.5}"#,
            r#"{"metadata":[]}"#,
            r#"{"title":1}"#,
        ] {
            assert_eq!(reason(Update::parse(bad)), "invalid", "{bad}");
        }
        let long = format!(r#"{{"metadata":{{"a":"{}"}}}}"#, "x".repeat(MAX_METADATA));
        assert_eq!(reason(Update::parse(&long)), "too_large");
    }
}
