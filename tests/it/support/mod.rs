//! What tests are made with.

pub(crate) mod backend;
pub(crate) mod chance;
pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod db;
pub(crate) mod fleet;
pub(crate) mod form;
pub(crate) mod front;
pub(crate) mod haproxy;
pub(crate) mod http;
pub(crate) mod jwt;
pub(crate) mod kotlin;
pub(crate) mod lossy_nats;
pub(crate) mod nats;
pub(crate) mod operator;
pub(crate) mod oracle;
pub(crate) mod poll;
#[allow(dead_code, reason = "the unit tests of the store use more of it")]
pub(crate) mod postgres;
pub(crate) mod presence;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod recorder;
pub(crate) mod scrape;
pub(crate) mod script;
pub(crate) mod server;
pub(crate) mod sse;
pub(crate) mod standby;
#[allow(dead_code, reason = "the unit tests of the store use more of it")]
pub(crate) mod tcp_proxy;
pub(crate) mod upstream;
pub(crate) mod ws;
