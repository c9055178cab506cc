//! Rejoin: a Phoenix-style channel server for collaborative AI sessions.
//!
//! One durable log per session, turns that are owned by a node under a lease, and a join that replays exactly what a
//! client missed. This file is the map: one line per module, in layer order. A module uses only modules above it;
//! those in one group do not know each other (`tests/tidy.rs` reads the groups below and fails on an upward edge).

// layer: foundations
pub mod clock;
pub mod ids;
pub mod measure;
pub mod outbound;
pub mod shutdown;
pub mod telemetry;

// layer: wire
pub mod protocol;

// layer: model
pub mod model;

// layer: parts
pub mod agent;
pub mod auth;
pub mod pubsub;
pub mod store;

// layer: domain
pub mod presence;
pub mod session;

// layer: channel
pub mod channel;

// layer: connections
pub mod channels;
pub mod socket;

// layer: transport
pub mod transport;

// layer: metrics
pub mod metrics;

// layer: http
pub mod http;

// layer: config
pub mod config;

// layer: server
pub mod server;

// layer: cli
pub mod cli;
