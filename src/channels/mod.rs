//! Rejoin's own channels: what a client reaches by a topic's name.

pub mod room;
pub mod session;
mod shown;

pub use shown::Stage;
