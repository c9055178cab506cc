//! Everything that needs a port or a process, linked into one binary.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests and their helpers fail by panicking"
)]

mod admin;
mod agent_context;
mod agent_echo;
mod agent_http;
mod agent_http_backends;
mod agent_openai;
mod auth_rights;
mod auth_tokens;
mod bad_input;
mod bad_streams;
mod bus;
mod bus_sessions;
mod channel_app;
mod channel_connect;
mod channel_presence;
mod channel_slow;
mod channel_transport;
mod cli;
mod cluster;
mod cluster_presence;
mod config;
mod conformance;
mod cors;
mod database_file;
mod database_server;
mod deletion;
mod deployment;
mod event_stream;
mod fuzz_corpus;
mod hostile;
mod http_api;
mod http_cluster;
mod kill;
mod limits;
mod live_list;
mod log_durable;
mod logs;
mod long_poll;
mod metrics;
mod openapi;
mod ownership_lease;
mod ownership_turns;
mod presence;
mod real_clients;
mod room;
mod session_basics;
mod session_contract;
mod session_replay;
mod shutdown;
mod slow_readers;
mod support;
