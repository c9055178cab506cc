//! Rejoin's own channels: what a client reaches by a topic's name.

pub mod admin;
mod announce;
mod later;
mod renewals;
pub mod room;
pub mod session;
pub mod sessions;
mod shown;

pub use self::{renewals::Renewals, shown::Stage};
pub use announce::announce;
