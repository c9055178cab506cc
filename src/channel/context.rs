//! What a channel's code may use while it runs.
//!
//! Knows the channel's cell, no transport. Everything it sends goes into the connection's bounded outbox; what is
//! pushed during a join waits for the reply, since that is the first frame of a channel.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::time::Instant;

use super::{Cell, ConnectionId};
use crate::{
    auth::Identity,
    protocol::{Broadcast, Error, Payload, Ref, Reply, Serializer, Wire, codes::CloseCode},
    pubsub::{Kind, PubSub, Published, SubscriberId},
    telemetry::trace::Trace,
};

/// A channel's view of its surroundings.
pub struct Context {
    pub(super) cell: Arc<Cell>,
    pub(super) subscriber: SubscriberId,
    pub(super) reference: Ref,
    pub(super) received: Instant,
    /// Of what is being handled.
    pub(super) trace: Trace,
    pub(super) sending: Sending,
}

/// What happens to a push.
pub(super) enum Sending {
    /// It waits for the reply to the join.
    Held(Vec<Wire>),
    /// It is queued.
    Now,
    /// It goes nowhere: another channel has taken this one's place.
    Muted,
}

impl Context {
    /// The topic that is served.
    pub fn topic(&self) -> &str {
        self.cell.name()
    }

    /// Whom the connection speaks for at this moment.
    pub fn identity(&self) -> Arc<Identity> {
        self.cell.connection().identity()
    }

    /// Renews whom the connection speaks for, at once for all its channels.
    pub fn set_identity(&self, identity: Identity) {
        self.cell.connection().set_identity(identity);
    }

    /// Names the connection on this node.
    pub fn connection_id(&self) -> ConnectionId {
        self.cell.connection().id()
    }

    /// Whether the client can only listen, and is shown nothing but the log.
    pub fn only_listens(&self) -> bool {
        self.cell.connection().serializer() == Serializer::EventStream
    }

    /// Names this channel's subscription on this node.
    pub fn subscriber_id(&self) -> SubscriberId {
        self.subscriber
    }

    /// The topics of this node.
    pub fn pubsub(&self) -> &PubSub {
        self.cell.host().pubsub()
    }

    /// When the push that is being handled, or the join, was received.
    pub fn received_at(&self) -> Instant {
        self.received
    }

    /// The trace of the push that is being handled, or of the join. What is done in a task of its own for it is to be
    /// run in it; what the handler does itself is.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// When it will be answered `unavailable`.
    pub fn deadline(&self) -> Instant {
        self.received + self.cell.host().options().answer_within
    }

    /// Sends `event` to this client. Clients expect `payload` to be a JSON object. What the client cannot be sent is
    /// left out, with a warning in the log: see [`Context::try_push`].
    pub fn push(&mut self, event: &str, payload: &Payload) {
        // The warning was written where it was found.
        let _left_out = self.try_push(event, payload);
    }

    /// As [`Context::push`], for payloads that not every client can be sent: bytes reach those who connected with
    /// version 2 over a WebSocket.
    ///
    /// # Errors
    /// [`Error::Binary`] or [`Error::TooLong`]; nothing was sent, and the channel goes on.
    pub fn try_push(&mut self, event: &str, payload: &Payload) -> Result<(), Error> {
        let wire = self.cell.encode_push(event, payload)?;
        match &mut self.sending {
            Sending::Held(held) => held.push(wire),
            Sending::Now => self.cell.connection().outbox().push(wire),
            Sending::Muted => {}
        }
        Ok(())
    }

    /// Sends this client a broadcast that others are sent too, without encoding it anew. One that cannot be sent is left
    /// out, as one from the topic is.
    pub fn show(&mut self, broadcast: &Broadcast) {
        let Ok(wire) = broadcast.encoded(self.cell.connection().serializer()) else { return };
        match &mut self.sending {
            Sending::Held(held) => held.push(wire),
            Sending::Now => self.cell.connection().outbox().push(wire),
            Sending::Muted => return,
        }
        self.cell.host().count_delivery();
    }

    /// Waits until the client has read enough for more to be sent; for those who push a lot at once.
    pub async fn room(&self) {
        self.cell.connection().outbox().room().await;
    }

    /// Sends `event` to everybody on the topic, this client included, who gets it before the answer to its push.
    pub fn broadcast(&self, event: &str, payload: Payload) {
        self.publish(None, event, payload);
    }

    /// Sends `event` to everybody else on the topic. Other channels of the same user get it.
    pub fn broadcast_from(&self, event: &str, payload: Payload) {
        self.publish(Some(self.subscriber), event, payload);
    }

    fn publish(&self, from: Option<SubscriberId>, event: &str, payload: Payload) {
        let broadcast = Broadcast::new(self.cell.shared_name(), event, payload);
        self.pubsub().publish(self.topic(), Published { kind: Kind::Ephemeral, from, broadcast });
    }

    /// The way to answer the push that is being handled after it was handled; the handler then says
    /// [`super::Next::NoReply`].
    pub fn reply_later(&self) -> ReplyHandle {
        ReplyHandle {
            owed: Arc::new(Owed::new(&self.cell)),
            reference: self.reference.clone(),
            _trace: self.trace.clone(),
        }
    }

    /// Closes the whole connection.
    pub fn disconnect(&self, code: CloseCode, reason: &'static str) {
        self.cell.connection().outbox().close(code, reason);
    }
}

/// Answers one push, at any time and as often as it likes. Clones answer the same push. A client that leaves is let go
/// when what it asked before is answered, or nobody is left to answer it, or its time is up.
#[derive(Clone)]
pub struct ReplyHandle {
    owed: Arc<Owed>,
    reference: Ref,
    /// Lasts until the answer is given.
    _trace: Trace,
}

/// An answer that is still to be given; dropping it gives it up.
struct Owed {
    cell: Arc<Cell>,
    given: AtomicBool,
}

impl Owed {
    fn new(cell: &Arc<Cell>) -> Self {
        cell.owe_answer();
        Self { cell: Arc::clone(cell), given: AtomicBool::new(false) }
    }

    fn settle(&self) {
        if !self.given.swap(true, Ordering::Relaxed) {
            self.cell.settle_answer();
        }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.settle();
    }
}

impl ReplyHandle {
    /// Queues an answer. Without effect once the channel has ended.
    pub fn send(&self, reply: &Reply) {
        self.owed.cell.reply_late(&self.reference, reply);
        self.owed.settle();
    }
}
