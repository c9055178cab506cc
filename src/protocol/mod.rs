//! The wire: what one frame is, and how it is read and written.
//!
//! Pure: no I/O, no lock, no clock, no tokio task. Knows nothing of connections or channels; it turns bytes into
//! [`Frame`]s and replies, pushes and broadcasts into [`Wire`] messages. Its invariant: what a client sent as `ref`
//! or `join_ref` comes back byte for byte, and every text that leaves is compact, in the one shape of its
//! version.

mod broadcast;
pub mod codes;
mod complaint;
mod envelope;
mod error;
pub mod event_stream;
mod frame;
mod payload;
mod scan;
mod serializer;
pub mod strict;
mod v1;
mod v2_binary;
mod v2_text;
#[cfg(test)]
mod vectors;
mod wire;

pub use broadcast::Broadcast;
pub use complaint::complaint;
pub use error::{Error, Fault, Refused};
pub use frame::{Frame, Ref, Reply, Topic};
pub use payload::Payload;
pub use scan::compacted;
pub use serializer::Serializer;
pub use wire::{Text, Wire};

/// The largest `ref` or `join_ref`, in bytes of JSON text.
pub const MAX_REF_BYTES: usize = 512;
/// The largest topic, in bytes.
pub const MAX_TOPIC_BYTES: usize = 1024;
/// The largest event name, in bytes.
pub const MAX_EVENT_BYTES: usize = 256;
/// The largest ref, topic, event or status in a binary frame, in bytes of UTF-8.
pub const MAX_BINARY_PART: usize = 255;
/// How many arrays and objects may lie inside each other in a payload: common parsers stop at 128, and a reply wraps it
/// in two more.
pub const MAX_DEPTH: usize = 120;
