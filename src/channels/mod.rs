//! Rejoin's channels.
