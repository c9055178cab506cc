//! Rejoin's own channels: what a client reaches by a topic's name.

mod announce;
pub mod room;
pub mod session;
pub mod sessions;
mod shown;

pub use announce::announce;
pub use shown::Stage;
