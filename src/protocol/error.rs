//! Why a frame cannot be read or written.

use super::{MAX_DEPTH, Ref, Reply, Topic, codes::reason};

/// Why a frame cannot be read or written. One that cannot be read ends its connection, but for [`Error::Refused`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not what the version says a frame is, or not JSON at all.
    #[error("this is not a frame: send {expected}")]
    Malformed {
        /// What the version says.
        expected: &'static str,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A binary message that is not laid out as one.
    #[error("this is not a binary frame: {0}")]
    Layout(&'static str),
    /// A frame that is one, but cannot be handled as it is. It is answered and the connection goes on.
    #[error("{}", .0.fault)]
    Refused(Box<Refused>),
    /// A part of a frame that is to be written does not fit into the encoding.
    #[error("the {part} is too long for a binary frame: use at most {limit} bytes")]
    TooLong {
        /// Which part.
        part: &'static str,
        /// Its limit in bytes.
        limit: usize,
    },
    /// A binary payload where only text can be carried.
    #[error("this connection carries text only: send JSON, or connect with vsn=2.0.0 over a WebSocket")]
    Binary,
    /// An event that a reader who only listens is not shown.
    #[error("this event is not shown on an event stream")]
    NotShown,
    /// The version that a client asked for is not spoken here.
    #[error("protocol version {asked:?} is not spoken here: connect with vsn=2.0.0 or vsn=1.0.0")]
    Version {
        /// What it asked for.
        asked: String,
    },
}

/// A frame that is not handled.
#[derive(Debug)]
pub struct Refused {
    /// Its `join_ref`.
    pub join_ref: Ref,
    /// Its `ref`.
    pub reference: Ref,
    /// Its topic.
    pub topic: Topic,
    /// Why.
    pub fault: Fault,
}

impl Refused {
    /// The answer.
    pub fn reply(&self) -> Reply {
        let reason = match self.fault {
            Fault::TooLarge { .. } => reason::TOO_LARGE,
            Fault::TooDeep | Fault::NoEvent => reason::INVALID,
        };
        Reply::refuse(reason, &self.fault.to_string())
    }
}

/// Why a frame cannot be handled as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A part of it is larger than it may be.
    #[error("the {part} of this frame is too large: use at most {limit} bytes")]
    TooLarge {
        /// Which part.
        part: &'static str,
        /// Its limit in bytes.
        limit: usize,
    },
    /// Its payload is nested too deeply.
    #[error("this payload is nested too deeply: use at most {MAX_DEPTH} levels")]
    TooDeep,
    /// Its event is no string.
    #[error("the event of this frame is not a string: send its name")]
    NoEvent,
}
