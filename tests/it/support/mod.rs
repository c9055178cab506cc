//! What tests are made with.

pub(crate) mod chance;
pub(crate) mod client;
pub(crate) mod db;
pub(crate) mod form;
pub(crate) mod front;
pub(crate) mod http;
pub(crate) mod kotlin;
pub(crate) mod poll;
pub(crate) mod presence;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod script;
pub(crate) mod server;
pub(crate) mod upstream;
pub(crate) mod ws;
