//! What a session is made of, as pure values: messages, turns, events, the fold and the state machine.
//!
//! No I/O, no locks, no clock: everything is a function of what is handed in. The store loads a [`machine::Session`],
//! lets [`machine::apply`] decide, and writes what it decided; so every store obeys the same rules, and the whole
//! matrix is tested here once.

pub mod event;
pub mod fold;
pub mod machine;
pub mod message;
pub mod turn;
mod view;
pub mod word;

pub use event::{Event, EventKind};
pub use message::{Message, MessageStatus, Part, PartKind, Person, Role};
pub use turn::{EndReason, Intent, Node, NodeState, Owner, Turn, TurnError, TurnStatus};
pub use view::{View, ViewError, ViewTurn};

#[cfg(test)]
mod interleavings;
