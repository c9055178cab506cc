//! Transports: what moves a connection's bytes.
//!
//! Knows HTTP and sockets, no channel's code. A transport turns what arrives into calls on a [`crate::socket::Socket`]
//! and writes what its outbox holds. The invariant: a client that does not read, or says nothing, costs a bounded
//! amount of memory for a bounded time.

mod address;
mod admission;
mod base64;
mod body;
mod connect;
mod connections;
mod disconnect;
mod event_stream;
mod files;
mod identify;
mod link;
mod lobby;
pub mod long_poll;
mod mount;
mod origin;
mod params;
mod patient;
mod rates;
mod serve;
mod subprotocol;
mod websocket;
mod write_now;

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use crate::channel::Host;

pub use address::Address;
pub use body::TooSlow;
pub use connect::{Admission, Connect, ConnectInfo, Refused, Transport};
pub use connections::{Connections, Drained, RefusedCounts, Unwritten};
pub use disconnect::{Disconnected, Disconnects};
pub use event_stream::{NotOpened, not_now};
pub use files::{max_streams, raise_file_limit};
pub use identify::identify;
pub use lobby::{Lobby, StreamCounts};
pub use mount::{BadMount, mount, routes};
pub use origin::{BadPattern, Origins, host_called};
pub use params::{BadParams, MAX_DEPTH, MAX_PARAMS, Param, Params};
pub use rates::Rates;
pub use serve::serve;
pub use subprotocol::AuthToken;

/// Limits of the transports. Those of connections and streams are those of a server's first [`State`], also for the
/// mounts beside it.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many connections are held at once; more are answered 503. None: any number.
    pub max_connections: Option<usize>,
    /// How many streams that this process has accepted may be open at once, whatever is asked for on them; more are
    /// answered 503, or closed. None: as many as the system allows.
    pub max_streams: Option<usize>,
    /// How many streams of one address may wait for their first request; one more closes the oldest of them.
    pub max_handshakes: usize,
    /// How long the head of a stream's first request may take before the stream is closed.
    pub head_timeout: Duration,
    /// How long a stream may wait for the next request, with its head, before it is closed.
    pub keep_alive: Duration,
    /// How long the body of a request may take whatever its length, before it counts as one that is not sent. Each
    /// 4 KiB of it earn another second.
    pub body_grace: Duration,
    /// How many long-polling sessions one address may begin in a second, and ten times as many at once; more are
    /// answered 503. None: any number.
    pub open_rate: Option<NonZeroU32>,
    /// The largest message from a client, in bytes; a larger one closes with 1009.
    pub max_frame_bytes: usize,
    /// Silence from a client after which it is closed with 1002.
    pub idle_timeout: Duration,
    /// How long a client may read nothing of what is written to it before it is closed with 1008.
    pub stall_timeout: Duration,
    /// How long a closing handshake may take, or a long-polling client to come for what it is shown before the end.
    pub close_timeout: Duration,
    /// Which pages may connect.
    pub origins: Origins,
    /// Whether only this machine reaches the server. Pages may then connect only by a name that is its own.
    pub loopback: bool,
    /// Whether a token beside the parameters is read. A WebSocket that then offers only sub-protocols that are not
    /// spoken here is refused.
    pub auth_token: bool,
    /// How long a long-polling request waits, for something to read or for room to write. A client that does not poll
    /// for one and a half times as long is gone.
    pub poll_window: Duration,
    /// The largest body of a long-polling client's request, in bytes.
    pub max_body_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_connections: None,
            max_streams: None,
            max_handshakes: 1_000,
            head_timeout: Duration::from_secs(10),
            // Longer than proxies keep one, so that it is not closed under a request of theirs.
            keep_alive: Duration::from_secs(75),
            body_grace: Duration::from_secs(10),
            open_rate: NonZeroU32::new(100),
            max_frame_bytes: 256 * 1024,
            idle_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(2),
            origins: Origins::SameHost,
            loopback: false,
            auth_token: false,
            poll_window: Duration::from_secs(10),
            max_body_bytes: 8 * 1024 * 1024,
        }
    }
}

/// What the transports of a mount share. Clones share it.
#[derive(Clone)]
pub struct State {
    inner: Arc<Inner>,
}

struct Inner {
    host: Host,
    connections: Connections,
    lobby: Lobby,
    connect: Connect,
    options: Options,
    sessions: long_poll::Sessions,
}

impl State {
    /// Connections for `host`'s channels; `connect` decides who may.
    pub fn new(host: Host, connect: Connect, options: Options) -> Self {
        let (connections, lobby) = (Connections::new(options.max_connections), Lobby::new(&options));
        Self::with(host, connections, lobby, connect, options)
    }

    /// The state of another mount of the same host, with rules of its own. Its connections are counted and drained
    /// together with those of this one.
    #[must_use]
    pub fn beside(&self, connect: Connect, options: Options) -> Self {
        let Inner { host, connections, lobby, .. } = &*self.inner;
        Self::with(host.clone(), connections.clone(), lobby.clone(), connect, options)
    }

    fn with(host: Host, connections: Connections, lobby: Lobby, connect: Connect, options: Options) -> Self {
        let sessions = long_poll::Sessions::default();
        Self { inner: Arc::new(Inner { host, connections, lobby, connect, options, sessions }) }
    }

    /// All connections, those of the mounts beside this one among them.
    pub fn connections(&self) -> &Connections {
        &self.inner.connections
    }

    /// The streams that [`serve`] accepts for these routes.
    pub fn lobby(&self) -> &Lobby {
        &self.inner.lobby
    }

    fn host(&self) -> &Host {
        &self.inner.host
    }

    fn options(&self) -> &Options {
        &self.inner.options
    }

    fn sessions(&self) -> &long_poll::Sessions {
        &self.inner.sessions
    }

    fn identify(&self, info: &ConnectInfo<'_>) -> Admission {
        (self.inner.connect)(info)
    }
}
