//! Events: the records of a session's log, as the text that is stored and sent.
//!
//! An event's body is encoded once, when its seq is given, and never again: the store keeps the text, a replay joins
//! texts, a broadcast carries them. The body is everything after the seq, so that nothing is parsed to send it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    fold::Delta,
    message::{Message, Person},
    turn::{EndReason, TurnError, WireTurn},
};
use crate::clock::Timestamp;

/// The type of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A prompt, or a message that asks for no answer.
    MessageAdded,
    /// A turn was accepted and waits.
    TurnQueued,
    /// A turn runs; its answer exists from here on.
    TurnStarted,
    /// A piece of an answer.
    TurnDelta,
    /// The end of a turn whose agent finished.
    TurnCompleted,
    /// The end of a turn that failed.
    TurnFailed,
    /// The end of a turn that was cut.
    TurnCancelled,
    /// Title, metadata or the number of slots changed.
    SessionUpdated,
}

impl EventKind {
    const ALL: [Self; 8] = [
        Self::MessageAdded,
        Self::TurnQueued,
        Self::TurnStarted,
        Self::TurnDelta,
        Self::TurnCompleted,
        Self::TurnFailed,
        Self::TurnCancelled,
        Self::SessionUpdated,
    ];

    /// The name on the wire and in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::MessageAdded => "message_added",
            Self::TurnQueued => "turn_queued",
            Self::TurnStarted => "turn_started",
            Self::TurnDelta => "turn_delta",
            Self::TurnCompleted => "turn_completed",
            Self::TurnFailed => "turn_failed",
            Self::TurnCancelled => "turn_cancelled",
            Self::SessionUpdated => "session_updated",
        }
    }

    /// The kind of that name; `None` for one that a newer version wrote.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// One record of a session's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its place: from 1, without gaps.
    pub seq: u64,
    /// Its type.
    pub kind: EventKind,
    /// The turn that it is about.
    pub turn_id: Option<Arc<str>>,
    /// For a delta, the number of the flush that brought it.
    pub flush: Option<u64>,
    /// For the end of a turn that did not complete, the reason or the error's code, for those who count.
    pub reason: Option<Arc<str>>,
    /// Its text after `{"seq":N,`.
    pub body: String,
}

impl Event {
    /// Appends the event as it is sent.
    pub fn write_to(&self, text: &mut String) {
        write_event(text, self.seq, &self.body);
    }
}

/// Appends an event, given its seq and its stored body.
pub fn write_event(text: &mut String, seq: u64, body: &str) {
    text.push_str("{\"seq\":");
    text.push_str(&seq.to_string());
    text.push(',');
    text.push_str(body);
}

/// What an event says, by type.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Data<'a> {
    /// `message_added`
    Message {
        /// The message.
        message: &'a Message,
    },
    /// `turn_queued`, `turn_started`
    Turn {
        /// The turn as it is now.
        turn: &'a WireTurn<'a>,
    },
    /// `turn_delta`
    Delta(&'a Delta),
    /// `turn_completed`
    Completed {
        /// The whole answer.
        message: &'a Message,
        /// What it cost.
        usage: Option<&'a RawValue>,
    },
    /// `turn_failed`
    Failed {
        /// Why.
        error: &'a TurnError,
        /// What was streamed; nothing if nothing was.
        message: Option<&'a Message>,
    },
    /// `turn_cancelled`
    Cancelled {
        /// Why.
        reason: EndReason,
        /// What was streamed; nothing if nothing was.
        message: Option<&'a Message>,
    },
    /// `session_updated`
    Updated {
        /// As it is now.
        title: Option<&'a str>,
        /// As it is now.
        metadata: &'a RawValue,
        /// As it is now.
        max_running: u32,
    },
}

impl Data<'_> {
    /// Why a turn ended without completing: the reason of its cancel, or the code of its failure.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Failed { error, .. } => Some(&error.code),
            Self::Cancelled { reason, .. } => Some(reason.name()),
            _ => None,
        }
    }
}

/// The body of an event: its text after the seq.
pub fn body(kind: EventKind, at: Timestamp, by: Option<&Person>, turn_id: Option<&str>, data: &Data<'_>) -> String {
    #[derive(Serialize)]
    struct Body<'a> {
        r#type: EventKind,
        at: Timestamp,
        by: Option<&'a Person>,
        turn_id: Option<&'a str>,
        data: &'a Data<'a>,
    }
    // Strings, numbers and maps with string keys: there is nothing here that JSON cannot hold.
    let mut text = serde_json::to_string(&Body { r#type: kind, at, by, turn_id, data }).unwrap_or_default();
    // In place: a delta is too small to be copied for the sake of one brace.
    if text.starts_with('{') {
        text.remove(0);
    }
    text
}
