//! A client's view of a session, as a fold of what it was sent.
//!
//! The twin of `client-js/src/fold.ts`: `protocol/vectors/fold` holds both to the same results. Programs that follow a
//! session in Rust use it, and tests that compare what two clients hold. An event of an unknown type only advances it;
//! an event that it holds already changes nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, value::RawValue};

use super::{
    fold::{self, Delta},
    message::{Message, MessageStatus},
};
use crate::clock::Timestamp;

/// Why a view cannot take in what it was sent.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// It is not what the protocol describes.
    #[error("this is not what the protocol describes: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Something is missing between what is held and what was sent: join anew with the cursor.
    #[error("a push continues {prev}, but {held} is held: leave and join with the cursor")]
    Gap {
        /// What the push continues.
        prev: u64,
        /// What is held.
        held: u64,
    },
}

/// A turn as far as a view needs it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ViewTurn {
    /// Its id.
    pub id: String,
    /// `queued`, `running`, or how it ended.
    pub status: String,
    /// The message that it answers.
    pub prompt_id: String,
    /// The id of its answer.
    pub reply_id: String,
    /// The agent that answers.
    pub agent: String,
    /// Its place in the queue, from 1.
    pub position: Option<usize>,
    /// Why it was cancelled.
    pub reason: Option<String>,
    /// Why it failed.
    pub error: Option<Value>,
}

/// What a client holds of a session.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    /// The log that it is a view of.
    pub epoch: String,
    /// The seq of the last event in it; with the epoch the cursor of the next join.
    pub last_seq: u64,
    /// Ordered by seq.
    pub messages: Vec<Message>,
    /// The running turns by start, then the queued ones in the order in which they will run.
    pub turns: Vec<ViewTurn>,
    /// By prompt: its newest turn, if that has ended.
    pub ended: BTreeMap<String, ViewTurn>,
}

#[derive(Deserialize)]
struct JoinReply {
    session: JoinSession,
    turns: Vec<ViewTurn>,
    replay: Replay,
}

#[derive(Deserialize)]
struct JoinSession {
    epoch: String,
    last_seq: u64,
}

#[derive(Deserialize)]
struct Replay {
    to: u64,
    events: Option<Vec<Box<RawValue>>>,
    #[serde(default)]
    messages: Vec<Message>,
    #[serde(default)]
    ended: Vec<ViewTurn>,
}

#[derive(Deserialize)]
struct EventsPush {
    prev: u64,
    events: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    seq: u64,
    r#type: &'a str,
    at: Timestamp,
    turn_id: Option<String>,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct MessageData {
    message: Message,
}

#[derive(Deserialize)]
struct TurnData {
    turn: ViewTurn,
}

#[derive(Deserialize)]
struct EndData {
    message: Option<Message>,
    reason: Option<String>,
    error: Option<Value>,
}

impl View {
    /// Takes in the reply to a join: a snapshot replaces everything, a replay continues what is held.
    ///
    /// # Errors
    /// [`ViewError::Malformed`].
    pub fn join(&mut self, reply: &str) -> Result<(), ViewError> {
        let JoinReply { session, turns, replay } = serde_json::from_str(reply)?;
        match replay.events {
            None => {
                let ended = replay.ended.into_iter().map(|turn| (turn.prompt_id.clone(), turn)).collect();
                let mut messages = replay.messages;
                messages.sort_by_key(|message| message.seq);
                *self = Self { epoch: session.epoch, last_seq: replay.to, messages, turns, ended };
            }
            Some(events) => {
                for event in &events {
                    self.apply(event.get())?;
                }
                self.epoch = session.epoch;
                self.last_seq = self.last_seq.max(replay.to);
                if replay.to >= session.last_seq {
                    self.turns = turns;
                }
            }
        }
        Ok(())
    }

    /// Takes in an `events` push.
    ///
    /// # Errors
    /// [`ViewError::Gap`] if it does not continue what is held; nothing is applied then.
    pub fn push(&mut self, payload: &str) -> Result<(), ViewError> {
        let EventsPush { prev, events } = serde_json::from_str(payload)?;
        if prev != self.last_seq {
            return Err(ViewError::Gap { prev, held: self.last_seq });
        }
        events.iter().try_for_each(|event| self.apply(event.get()))
    }

    /// Applies one event.
    ///
    /// # Errors
    /// [`ViewError::Malformed`].
    pub fn apply(&mut self, event: &str) -> Result<(), ViewError> {
        let Envelope { seq, r#type, at, turn_id, data } = serde_json::from_str(event)?;
        if seq <= self.last_seq {
            return Ok(());
        }
        self.last_seq = seq;
        let data = data.get();
        match r#type {
            "message_added" => self.put(serde_json::from_str::<MessageData>(data)?.message),
            "turn_queued" => {
                let TurnData { turn } = serde_json::from_str(data)?;
                let running = self.running();
                let place = turn.position.map_or(usize::MAX, |position| running + position - 1);
                self.accept(turn, place);
            }
            "turn_started" => self.start(serde_json::from_str::<TurnData>(data)?.turn, seq, at),
            "turn_delta" => self.stream(turn_id.as_deref(), &serde_json::from_str(data)?),
            "turn_completed" => self.end("completed", turn_id.as_deref(), serde_json::from_str(data)?),
            "turn_failed" => self.end("failed", turn_id.as_deref(), serde_json::from_str(data)?),
            "turn_cancelled" => self.end("cancelled", turn_id.as_deref(), serde_json::from_str(data)?),
            _ => drop(serde_json::from_str::<IgnoredAny>(data)?),
        }
        Ok(())
    }

    /// The message of that id.
    pub fn message(&self, id: &str) -> Option<&Message> {
        self.messages.iter().find(|message| message.id == id)
    }

    fn running(&self) -> usize {
        self.turns.iter().filter(|turn| turn.status == "running").count()
    }

    fn put(&mut self, message: Message) {
        match self.messages.iter_mut().find(|held| held.id == message.id) {
            Some(held) => *held = message,
            None => {
                let place =
                    self.messages.iter().rposition(|held| held.seq < message.seq).map_or(0, |before| before + 1);
                self.messages.insert(place, message);
            }
        }
    }

    /// A turn waits or runs: whatever ended before for its prompt is not the newest any more.
    fn accept(&mut self, turn: ViewTurn, place: usize) {
        self.turns.retain(|other| other.id != turn.id);
        self.ended.remove(&turn.prompt_id);
        self.turns.insert(place.min(self.turns.len()), turn);
        self.renumber();
    }

    fn start(&mut self, turn: ViewTurn, seq: u64, at: Timestamp) {
        self.put(Message::answer(&turn.id, &turn.reply_id, &turn.agent, seq, at));
        self.turns.retain(|other| other.id != turn.id);
        let running = self.running();
        self.accept(turn, running);
    }

    fn stream(&mut self, turn_id: Option<&str>, delta: &Delta) {
        let streams = |message: &&mut Message| {
            message.turn_id.as_deref() == turn_id && message.status == MessageStatus::Streaming
        };
        if let Some(message) = self.messages.iter_mut().rev().find(streams) {
            fold::apply(&mut message.parts, delta);
        }
    }

    fn end(&mut self, status: &str, turn_id: Option<&str>, data: EndData) {
        match data.message {
            Some(message) => self.put(message),
            None => self.messages.retain(|held| held.turn_id.is_none() || held.turn_id.as_deref() != turn_id),
        }
        let Some(place) = self.turns.iter().position(|turn| Some(turn.id.as_str()) == turn_id) else { return };
        let mut turn = self.turns.remove(place);
        status.clone_into(&mut turn.status);
        turn.position = None;
        turn.reason = data.reason;
        turn.error = data.error;
        self.ended.insert(turn.prompt_id.clone(), turn);
        self.renumber();
    }

    fn renumber(&mut self) {
        let waiting = self.turns.iter_mut().filter(|turn| turn.status == "queued");
        waiting.zip(1..).for_each(|(turn, position)| turn.position = Some(position));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[derive(Deserialize)]
    struct Vector {
        steps: Vec<Value>,
        expect: Expect,
    }

    #[derive(Deserialize)]
    struct Expect {
        last_seq: u64,
        messages: Vec<Value>,
        turns: Vec<String>,
        ended: BTreeMap<String, String>,
    }

    /// L8: the vectors that the TypeScript client runs too.
    #[test]
    fn l8_the_fold_agrees_with_the_shared_vectors() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/protocol/vectors/fold");
        let mut count = 0;
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let vector: Vector = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            check(vector, &path.display().to_string());
            count += 1;
        }
        assert!(count >= 30, "only {count} vectors were found");
    }

    fn check(vector: Vector, name: &str) {
        let mut view = View::default();
        for step in &vector.steps {
            if let Some(reply) = step.get("join") {
                view.join(&reply.to_string()).unwrap();
            }
            for event in step.get("events").and_then(Value::as_array).into_iter().flatten() {
                view.apply(&event.to_string()).unwrap();
            }
        }
        let Expect { last_seq, messages, turns, ended } = vector.expect;
        assert_eq!(view.last_seq, last_seq, "{name}");
        assert_eq!(serde_json::to_value(&view.messages).unwrap(), Value::from(messages), "{name}");
        assert_eq!(view.turns.iter().map(|turn| turn.id.clone()).collect::<Vec<_>>(), turns, "{name}");
        let held: BTreeMap<_, _> = view.ended.iter().map(|(prompt, turn)| (prompt.clone(), turn.id.clone())).collect();
        assert_eq!(held, ended, "{name}");
    }
}
