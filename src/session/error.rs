//! Why a request about a session was refused, in the contract's words.

use super::log::NotWritten;
use crate::{model::machine::Refused, store};

/// A refusal: one word for programs ([`Error::reason`]) and a text for a person ([`Error::to_string`]).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request itself is wrong; the text says what would be right.
    #[error("{0}")]
    Invalid(String),
    /// Not the asker's to do.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(&'static str),
    /// No slot is free and the sender would not wait.
    #[error("as many turns run as may run; wait for one to end, or queue")]
    Busy,
    /// Too many turns wait.
    #[error("the queue is full; wait until a turn has ended")]
    QueueFull,
    /// The id is taken by something else.
    #[error("{0}")]
    Conflict(&'static str),
    /// A field is larger than allowed.
    #[error("{0}")]
    TooLarge(String),
    /// This node is shutting down and takes no turns.
    #[error("this node is shutting down; repeat with the same id after reconnecting")]
    Draining,
    /// The store is away; whether it happened is open.
    #[error("the server cannot reach its store; repeat with the same id in a moment")]
    Unavailable,
}

impl Error {
    /// The reason as it is sent.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::Unauthorized(_) => "unauthorized",
            Self::NotFound(_) => "not_found",
            Self::Busy => "busy",
            Self::QueueFull => "queue_full",
            Self::Conflict(_) => "conflict",
            Self::TooLarge(_) => "too_large",
            Self::Draining => "draining",
            Self::Unavailable => "unavailable",
        }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotFound(what) => Self::NotFound(what),
            Refused::Unauthorized(what) => Self::Unauthorized(what),
            Refused::Busy => Self::Busy,
            Refused::QueueFull => Self::QueueFull,
            Refused::Conflict(what) => Self::Conflict(what),
            Refused::Invalid(what) => Self::Invalid(what.to_owned()),
            Refused::Draining => Self::Draining,
            // Answers to a runner, or to a store that did not do its part: a person can only try again.
            Refused::Fenced | Refused::HistoryLost | Refused::NeedsPartial(_) => Self::Unavailable,
        }
    }
}

impl From<NotWritten> for Error {
    fn from(error: NotWritten) -> Self {
        match error {
            NotWritten::Unavailable => Self::Unavailable,
            NotWritten::Content => Self::Invalid("the store refuses this content; change it".to_owned()),
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        tracing::error!(%error, source, "the store did not answer");
        Self::Unavailable
    }
}
