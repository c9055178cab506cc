//! Channels: the code that serves topics, and what runs it.
//!
//! A [`Channel`] is one topic joined on one connection. It knows its [`Context`] and nothing of transports. Nothing
//! runs while a channel is idle: a task exists only while there is something to handle, one thing at a time, in order;
//! channels of one connection run beside each other. The invariant: a join's reply is the first frame of a channel,
//! and after `phx_close` or `phx_error` only [`Channel::terminate`] can still push.

mod cell;
mod connection;
mod context;
mod gate;
mod host;
mod outbox;
mod router;
mod server;

use async_trait::async_trait;

use crate::protocol::{Payload, Reply};

pub use cell::{Cell, Refused};
pub use connection::{Connection, ConnectionId};
pub use context::{Context, ReplyHandle};
pub use gate::Cursor;
pub use host::{Counts, Host, Options};
pub use outbox::{Closing, Next as OutboxNext, Outbox};
pub use router::Router;

/// One topic joined on one connection. The methods of one channel are never called at the same time.
///
/// A panic in any of them ends this channel with `phx_error` and nothing else. Futures may be dropped at an await when
/// their time is up (see each method), so what must not be done by halves belongs into a task or a transaction.
#[async_trait]
pub trait Channel: Send + 'static {
    /// Admits a client. The topic is subscribed already: what is published from now on is held and shown after the
    /// reply. Dropped after [`Options::answer_within`]; the client is then answered `unavailable`.
    ///
    /// # Errors
    /// A [`Refusal`] answers the client; the channel is dropped, and [`Channel::terminate`] is not called.
    async fn join(&mut self, cx: &mut Context, params: Payload) -> Result<Joined, Refusal>;

    /// Called once the reply to the join is queued. Limited as a push is; running over is a crash.
    async fn joined(&mut self, _cx: &mut Context) {}

    /// Handles one push. When [`Context::deadline`] passes the future is dropped and the client is answered
    /// `unavailable`, which leaves open whether it happened; the channel goes on.
    async fn handle_in(&mut self, cx: &mut Context, event: &str, payload: Payload) -> Next;

    /// The events of ephemeral broadcasts that go to [`Channel::handle_out`] instead of to the client. Asked once,
    /// before the join.
    fn intercepts(&self) -> &'static [&'static str] {
        &[]
    }

    /// Handles a broadcast that is intercepted. Limited as a push is.
    async fn handle_out(&mut self, _cx: &mut Context, _event: &str, _payload: &Payload) {}

    /// Reads the log after the record `after`. Asked while the client is behind: after a join that was not complete,
    /// after a gap, and when it reads slowly. One page at a time, and only while there is room for it.
    ///
    /// # Errors
    /// [`ReplayError`] says whether to try again.
    async fn replay(&mut self, _cx: &mut Context, _after: u64) -> Result<Page, ReplayError> {
        Err(ReplayError::NoLog)
    }

    /// The state of who is here, to be pushed as `presence_state`. Asked after the client has missed a change.
    async fn presence_state(&mut self, _cx: &mut Context) -> Option<Payload> {
        None
    }

    /// The channel has ended. Called once for each join that was accepted, for every [`Leave`]; dropped after
    /// [`Options::terminate_within`]. Pushes come after `phx_close`; with [`Leave::Replaced`] they go nowhere.
    async fn terminate(&mut self, _cx: &mut Context, _reason: Leave) {}
}

/// An accepted join.
#[derive(Debug, Clone)]
pub struct Joined {
    /// The reply's `response`.
    pub response: Payload,
    /// For a channel over a log: what the client holds with this response.
    pub cursor: Option<Cursor>,
}

impl Default for Joined {
    fn default() -> Self {
        Self { response: Payload::empty(), cursor: None }
    }
}

/// A refused join: the `response` of the error reply.
#[derive(Debug, Clone)]
pub struct Refusal(pub Payload);

impl Refusal {
    /// A refusal for one of the reasons of `protocol::codes::reason`, with a message for a person.
    pub fn because(reason: &str, message: &str) -> Self {
        Self(Reply::refuse(reason, message).response)
    }
}

/// What follows a push.
#[derive(Debug, Clone)]
pub enum Next {
    /// No answer, or one that comes later through a [`ReplyHandle`].
    NoReply,
    /// This answer.
    Reply(Reply),
    /// The channel ends, with `phx_close`.
    Stop,
    /// This answer, then the end.
    StopReply(Reply),
}

/// A part of a log.
#[derive(Debug, Clone)]
pub struct Page {
    /// Pushed as `events`; `None` where there is nothing to show up to `last`.
    pub payload: Option<Payload>,
    /// The seq up to which the client is brought.
    pub last: u64,
    /// Whether `last` was the end of the log when it was read.
    pub complete: bool,
}

/// Why a log cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// This channel has none, and so should not have given a [`Cursor`]: it ends as crashed.
    #[error("this channel has no log: join it without a cursor")]
    NoLog,
    /// Not now. It is tried again after a pause; the client is not cut.
    #[error("the log cannot be read now: it will be tried again")]
    Unavailable,
    /// The log is not the one that the client was shown: the channel ends with `phx_error`, and the client rejoins.
    #[error("the log has another history now: rejoin")]
    Restart,
}

/// Why a channel ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// The client left.
    Left,
    /// The connection is gone.
    Closed,
    /// The channel stopped itself, or a control message closed it.
    Stopped,
    /// The channel panicked or ran over its time.
    Crashed,
    /// A control message, or [`ReplayError::Restart`], wants the client to rejoin.
    Restarted,
    /// The same connection has joined the topic again.
    Replaced,
}
