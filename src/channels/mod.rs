//! Rejoin's own channels: what a client reaches by a topic's name.

pub mod session;
