//! Transports: what moves a connection's bytes.
//!
//! Knows HTTP and sockets, no channel's code. A transport turns what arrives into calls on a [`crate::socket::Socket`]
//! and writes what its outbox holds. The invariant: a client that does not read, or says nothing, costs a bounded
//! amount of memory for a bounded time.

mod connections;
mod link;
mod meter;
mod origin;
mod params;
mod serve;
mod websocket;

use std::{sync::Arc, time::Duration};

use axum::{Router, http::StatusCode, routing::any};

use crate::{auth::Identity, channel::Host};

pub use connections::{Connections, Drained};
pub use origin::{BadPattern, Origins};
pub use params::Params;
pub use serve::serve;

/// Decides who connects, by the parameters of the request: an identity, or the status of the refusal (403, 401, 429).
pub type Connect = Arc<dyn Fn(&Params) -> Result<Identity, StatusCode> + Send + Sync>;

/// Limits of the transports.
#[derive(Debug, Clone)]
pub struct Options {
    /// The largest message from a client, in bytes; a larger one closes with 1009.
    pub max_frame_bytes: usize,
    /// Silence from a client after which it is closed with 1002.
    pub idle_timeout: Duration,
    /// How long a client may read nothing of what is written to it before it is closed with 1008.
    pub stall_timeout: Duration,
    /// How long a closing handshake may take.
    pub close_timeout: Duration,
    /// Which pages may connect.
    pub origins: Origins,
    /// Whether only this machine reaches the server. Pages may then connect only by a name that is its own.
    pub loopback: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_frame_bytes: 256 * 1024,
            idle_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(2),
            origins: Origins::SameHost,
            loopback: false,
        }
    }
}

/// What the transports of a server share. Clones share it.
#[derive(Clone)]
pub struct State {
    inner: Arc<Inner>,
}

struct Inner {
    host: Host,
    connections: Connections,
    connect: Connect,
    options: Options,
}

impl State {
    /// Connections for `host`'s channels; `connect` decides who may.
    pub fn new(host: Host, connect: Connect, options: Options) -> Self {
        Self { inner: Arc::new(Inner { host, connections: Connections::new(), connect, options }) }
    }

    /// All connections.
    pub fn connections(&self) -> &Connections {
        &self.inner.connections
    }

    fn host(&self) -> &Host {
        &self.inner.host
    }

    fn options(&self) -> &Options {
        &self.inner.options
    }

    fn identify(&self, params: &Params) -> Result<Identity, StatusCode> {
        (self.inner.connect)(params)
    }
}

/// The paths of the transports.
pub fn routes(state: State) -> Router {
    Router::new().route("/socket/websocket", any(websocket::upgrade)).with_state(state)
}
