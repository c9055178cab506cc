//! Presence: who is on a topic, as Phoenix.Presence and its clients know it.
//!
//! [`state`] is what one topic holds, pure; [`Tracker`] keeps all topics of this node and publishes each change as a
//! diff. Its invariant: the diffs of a topic, in the order in which they are published, applied to any state that it
//! gave out between two of them, give the state that it has.

mod state;
mod tracker;

pub use self::tracker::{Tracked, Tracker};
