//! The wire: what one frame is, and how it is read and written.
//!
//! Pure: no I/O, no lock, no clock, no tokio task. Knows nothing of connections or channels; it turns bytes into
//! [`Frame`]s and replies, pushes and broadcasts into [`Wire`] messages. Its invariant: what a client sent as `ref`
//! or `join_ref` comes back byte for byte, and every text that leaves is compact and an array of five elements.

mod broadcast;
pub mod codes;
mod frame;
mod payload;
mod scan;
mod serializer;
pub mod strict;
mod v2_json;
mod wire;

pub use broadcast::Broadcast;
pub use frame::{Frame, Ref, Reply, Topic};
pub use payload::Payload;
pub use serializer::Serializer;
pub use wire::{Text, Wire};

/// The largest `ref` or `join_ref`, in bytes of JSON text.
pub const MAX_REF_BYTES: usize = 256;
/// The largest topic, in bytes.
pub const MAX_TOPIC_BYTES: usize = 1024;
/// The largest event name, in bytes.
pub const MAX_EVENT_BYTES: usize = 256;
/// How many arrays and objects may lie inside each other in a payload.
pub const MAX_DEPTH: usize = 128;

/// Why a frame cannot be read or written. A frame that cannot be read ends its connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not an array of at least five elements, or not JSON at all.
    #[error("this is not a V2 frame: send [join_ref, ref, topic, event, payload]")]
    Malformed(#[source] serde_json::Error),
    /// A part of the frame is larger than it may be.
    #[error("the {part} of this frame is too large: use at most {limit} bytes")]
    TooLarge {
        /// Which part.
        part: &'static str,
        /// Its limit in bytes.
        limit: usize,
    },
    /// The payload is nested too deeply.
    #[error("this payload is nested too deeply: use at most {MAX_DEPTH} levels")]
    TooDeep,
    /// A binary frame where the serializer has only text, or a binary payload that it cannot carry.
    #[error("this connection carries text frames only: send JSON")]
    Binary,
    /// The version that a client asked for is not spoken here.
    #[error("protocol version {asked:?} is not spoken here: connect with vsn=2.0.0")]
    Version {
        /// What it asked for.
        asked: String,
    },
}
