//! What a bus is: a way to bring frames to the other nodes that may lose them, but says so where it can.
//!
//! A form knows addresses and frames, nothing of what is in them. One task per node ([`super::relay`]) connects,
//! sends, receives, and connects again; a form only has to fail when it cannot go on. Its invariant: after an error, or
//! [`Incoming::Gap`], something may be missing, and otherwise frames of one sender to one address come in its order.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::NodeId;

/// Why a bus cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no connection.
    #[error(
        "the bus at {at} cannot be reached: check the address and that its server runs; it is tried until it works"
    )]
    Unreachable {
        /// Where, without a password.
        at: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The connection that there was cannot be used any more.
    #[error("the connection to the bus was lost while {doing}")]
    Lost {
        /// What was being done.
        doing: &'static str,
        /// Why, where it is known.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl Error {
    /// A connection that was lost for an error.
    pub(super) fn lost<E: std::error::Error + Send + Sync + 'static>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Lost { doing, source: Some(Box::new(source)) }
    }

    /// A connection that was lost for no known reason.
    pub(super) fn broken(doing: &'static str) -> Self {
        Self::Lost { doing, source: None }
    }
}

/// What a bus answers.
pub type Result<T> = std::result::Result<T, Error>;

/// Whom a parcel is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// The nodes that listen to a topic.
    Topic(Arc<str>),
    /// Every node.
    Everyone,
    /// One node.
    Node(NodeId),
}

/// One envelope on its way.
#[derive(Debug, Clone)]
pub struct Parcel {
    /// Whom it is for.
    pub to: Address,
    /// The envelope as text.
    pub text: String,
    /// A shorter one that serves where the whole is too large: what is missing is read elsewhere.
    pub short: Option<String>,
}

/// What comes in.
#[derive(Debug)]
pub enum Incoming {
    /// A frame, as the sender's form made it.
    Frame(Bytes),
    /// Something was lost.
    Gap,
}

/// A form of bus.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Connects this node, anew each time. It hears [`Address::Everyone`] and its own [`Address::Node`] from the start.
    async fn connect(&self, node: &NodeId) -> Result<(Box<dyn Outward>, Box<dyn Inward>)>;
}

/// The half of a connection that sends.
#[async_trait]
pub trait Outward: Send {
    /// Sends all of these; they are on their way when it returns. After an error they are sent again by the next
    /// connection, so what was sent may come twice. A parcel that cannot be carried at all is left out and counted.
    async fn send(&mut self, parcels: &[Parcel]) -> Result<Sent>;

    /// Called when nothing was sent for a while: lets a form find out that its connection is dead.
    async fn keep_alive(&mut self) -> Result<()> {
        Ok(())
    }
}

/// How parcels were sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Those that were too large for this bus.
    pub refused: usize,
}

/// The half of a connection that receives.
#[async_trait]
pub trait Inward: Send {
    /// Begins to listen to the topics `more`, and may stop for `fewer`. Those of `more` are returned that were not
    /// heard before; from the return on all of `more` are.
    async fn listen(&mut self, more: &[Arc<str>], fewer: &[Arc<str>]) -> Result<Vec<Arc<str>>>;

    /// The next of what comes in. Cancel safe: what is not returned comes with the next call.
    async fn receive(&mut self) -> Result<Incoming>;
}

/// How the bus is, as an operator wants to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// There is no other node.
    Alone,
    /// Not connected: other nodes' events come late, by comparing with the store. Tried until it works.
    Away,
    /// Connected.
    Connected,
}

impl Status {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Away => "away",
            Self::Connected => "connected",
        }
    }
}

/// What went over the bus so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Envelopes that were sent.
    pub sent: u64,
    /// Envelopes of other nodes that were taken in.
    pub received: u64,
    /// Records that were sent as a hint because too much waited.
    pub hinted: u64,
    /// Broadcasts and messages to nodes that were left out: too much waited, or they were too large.
    pub dropped: u64,
    /// Times that something may have been missed here.
    pub gaps: u64,
}
