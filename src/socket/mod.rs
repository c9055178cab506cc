//! One connection: which topics it has joined, and whom each frame is for.
//!
//! Knows no transport: messages are handed in as they arrive, and everything that goes out is in the outbox. Nothing
//! here waits, so a heartbeat is answered whatever the channels are doing. The invariant: a topic is joined at most
//! once per connection, a frame meant for an earlier join of it is dropped, and a client that sends faster than it may
//! is refused, but for what it needs to stay and to go.

mod pace;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::pace::{Pace, Verdict};
use crate::{
    auth::{Access, Identity},
    channel::{Cell, Connection, ConnectionId, Host, Outbox, Refused},
    protocol::{
        self, Error, Fault, Frame, Payload, Ref, Reply, Serializer, Topic,
        codes::{CONNECTION_TOPIC, close, event, protocol_reason, reason},
    },
    telemetry::trace::Trace,
};

/// One client's joined topics. Dropping it ends them.
pub struct Socket {
    host: Host,
    connection: Arc<Connection>,
    pace: Pace,
    cells: Mutex<Vec<Arc<Cell>>>,
    /// The trace in which its client connected.
    trace: Trace,
}

impl Socket {
    /// A connection without topics yet, for `identity`, whose frames are written by `serializer`.
    pub fn new(host: &Host, serializer: Serializer, identity: Identity) -> Self {
        let options = host.options();
        let outbox = Outbox::new(options.max_queue_bytes);
        let connection = Connection::new(serializer, outbox, identity, options.max_inbox_bytes);
        let pace = Pace::new(options);
        let cells = Mutex::default();
        Self { host: host.clone(), connection: Arc::new(connection), pace, cells, trace: Trace::default() }
    }

    /// The same in a trace: whatever its client asks for is a part of it.
    #[must_use]
    pub fn traced(mut self, trace: Trace) -> Self {
        self.trace = trace;
        self
    }

    /// Names the connection on this node.
    pub fn id(&self) -> ConnectionId {
        self.connection.id()
    }

    /// What is to be written.
    pub fn outbox(&self) -> &Outbox {
        self.connection.outbox()
    }

    /// Whom it speaks for at this moment.
    pub fn identity(&self) -> Arc<Identity> {
        self.connection.identity()
    }

    /// Whether [`Socket::review`] has something to do.
    pub fn is_due_for_review(&self) -> bool {
        self.connection.is_renewed() || self.identity().has_expired()
    }

    /// Looks whether the connection may still do what it does: closes one whose time is over, and after a renewal ends
    /// the channels that may not be read any more; their clients join again, and are refused.
    pub fn review(&self) {
        let identity = self.identity();
        if identity.has_expired() {
            self.outbox().close(close::POLICY, "the token has expired");
        } else if self.connection.take_renewed() {
            let unreadable = |cell: &&Arc<Cell>| !cell.has_ended() && identity.access(cell.name()) < Access::Read;
            self.cells().iter().filter(unreadable).for_each(Cell::revoke);
        }
    }

    /// Joins a topic on behalf of a client that says nothing itself. The answer is the first that its outbox holds.
    pub fn join_for(&self, topic: &str, params: Payload) {
        let (join_ref, reference) = (Ref::from_json("1"), Ref::from_json("1"));
        let frame = Frame {
            join_ref,
            reference,
            topic: Topic::name(topic),
            event: event::PHX_JOIN.to_owned(),
            payload: params,
        };
        self.route(frame, false);
    }

    /// Handles a text message. One that is no frame closes the connection; one that asks for too much, or comes too
    /// soon after others, is refused.
    pub fn text(&self, text: &str) {
        if let Some(too_soon) = self.count() {
            self.frame(self.connection.serializer().decode_text(text), too_soon);
        }
    }

    /// Handles a binary message, as [`Socket::text`].
    pub fn binary(&self, bytes: &[u8]) {
        if let Some(too_soon) = self.count() {
            self.frame(self.connection.serializer().decode_binary(bytes), too_soon);
        }
    }

    /// Takes note of a message that says nothing. It counts as others do.
    pub fn sign_of_life(&self) {
        self.count();
    }

    /// Takes note that its client has read nothing for so long that it is closed.
    pub fn count_stalled(&self) {
        self.host.count_stalled();
    }

    /// The names of the topics that are joined, or about to be.
    pub fn topics(&self) -> Vec<Arc<str>> {
        self.living(|cell| cell.name().into())
    }

    /// Tells every channel that a restart is near, and closes once that is written.
    pub fn drain(&self, reconnect_after_ms: u64) {
        #[derive(serde::Serialize)]
        struct Draining {
            reconnect_after_ms: u64,
        }
        let payload = Payload::json(&Draining { reconnect_after_ms });
        self.living(|cell| cell.push_draining(&payload));
        self.outbox().finish(close::RESTART, "this server restarts");
    }

    fn living<T>(&self, each: impl Fn(&Arc<Cell>) -> T) -> Vec<T> {
        self.cells().iter().filter(|cell| !cell.has_ended()).map(each).collect()
    }

    /// Counts a message: whether it comes too soon. `None` if the client is closed for it.
    fn count(&self) -> Option<bool> {
        let verdict = self.pace.frame();
        if verdict == Verdict::Close {
            self.too_fast();
            return None;
        }
        Some(verdict == Verdict::Refuse)
    }

    fn too_fast(&self) {
        if !self.outbox().is_closed() {
            self.host.count_too_fast();
            self.outbox().close(close::POLICY, "too many requests: send more slowly");
        }
    }

    fn frame(&self, frame: Result<Frame, Error>, too_soon: bool) {
        match frame {
            Ok(frame) => self.route(frame, too_soon),
            Err(Error::Refused(refused)) => self.refuse(&refused),
            Err(error) => {
                tracing::debug!(connection = %self.id(), %error, "a message is no frame");
                self.outbox().close(close::BAD_FRAME, "this is no frame of the protocol");
            }
        }
    }

    /// Answers a frame that cannot be handled as it is; nobody is there to say more where the topic is not joined.
    fn refuse(&self, refused: &protocol::Refused) {
        let nobody =
            refused.fault == Fault::NoEvent && refused.topic.as_name().is_none_or(|name| self.find(name).is_none());
        if nobody {
            return self.reply(&Ref::NULL, &refused.reference, &refused.topic, &Reply::unmatched_topic());
        }
        self.reply(&refused.join_ref, &refused.reference, &refused.topic, &refused.reply());
    }

    fn route(&self, frame: Frame, too_soon: bool) {
        let Frame { join_ref, reference, topic, event, payload } = frame;
        match (topic.as_name(), event.as_str()) {
            (Some(CONNECTION_TOPIC), event::HEARTBEAT) => {
                self.reply(&Ref::NULL, &reference, &topic, &Reply::ok(Payload::empty()));
            }
            // A leave that is refused would leave the client and this server of two minds.
            (Some(name), event::PHX_LEAVE) => self.leave(name, &topic, &join_ref, &reference),
            _ if too_soon => self.limit(&join_ref, &reference, &topic),
            (Some(name), event::PHX_JOIN) => self.join(name, &topic, join_ref, reference, payload),
            (Some(name), _) => self.push(name, &topic, &join_ref, reference, event, payload),
            (None, _) => self.reply(&Ref::NULL, &reference, &topic, &Reply::unmatched_topic()),
        }
    }

    fn limit(&self, join_ref: &Ref, reference: &Ref, topic: &Topic) {
        self.host.count_rate_limited();
        let refusal = Reply::refuse(reason::RATE_LIMITED, "too many requests: wait a moment, and repeat this one");
        self.reply(join_ref, reference, topic, &refusal);
    }

    fn join(&self, name: &str, topic: &Topic, join_ref: Ref, reference: Ref, params: Payload) {
        let mut cells = self.cells();
        cells.retain(|cell| !cell.has_ended());
        let place = cells.iter().position(|cell| cell.name() == name);
        if !self.host.serves(name) {
            drop(cells);
            return self.reply(&Ref::NULL, &reference, topic, &Reply::unmatched_topic());
        }
        if place.is_none() && cells.len() >= self.host.options().max_topics {
            drop(cells);
            let refusal = Reply::error(Payload::json(&serde_json::json!({
                "reason": protocol_reason::TOO_MANY_CHANNELS
            })));
            return self.reply(&join_ref, &reference, topic, &refusal);
        }
        // What was refused so far has cost nothing.
        let verdict = self.pace.join();
        if verdict != Verdict::Take {
            drop(cells);
            return if verdict == Verdict::Close { self.too_fast() } else { self.limit(&join_ref, &reference, topic) };
        }
        let replaced = place.map(|place| cells.swap_remove(place));
        let Topic::Name(name) = topic else { return };
        let refs = (join_ref, reference.clone());
        let trace = self.trace.serve("channel.join");
        trace.note("rejoin.topic", name);
        match Cell::join(&self.host, &self.connection, name, refs, (params, trace), replaced) {
            Some(cell) => cells.push(cell),
            None => self.reply(&Ref::NULL, &reference, topic, &Reply::unmatched_topic()),
        }
    }

    fn leave(&self, name: &str, topic: &Topic, join_ref: &Ref, reference: &Ref) {
        let left = match self.find(name) {
            Some(cell) if !cell.admits(join_ref) => Ok(()),
            Some(cell) => cell.leave(reference.clone()),
            None => Err(Refused::Ended),
        };
        if left.is_err() {
            self.reply(join_ref, reference, topic, &Reply::ok(Payload::empty()));
        }
    }

    fn push(&self, name: &str, topic: &Topic, join_ref: &Ref, reference: Ref, event: String, payload: Payload) {
        let cell = self.find(name);
        let taken = match &cell {
            Some(cell) if !cell.admits(join_ref) => Ok(()),
            Some(cell) => {
                let trace = self.trace.serve("channel.push");
                trace.note("rejoin.topic", name);
                trace.note("rejoin.event", &event);
                cell.push(reference.clone(), event, payload, trace)
            }
            None => Err(Refused::Ended),
        };
        match (taken, &cell) {
            (Ok(()), _) => {}
            (Err(Refused::Full), Some(cell)) => {
                let refusal = Reply::refuse(reason::RATE_LIMITED, "too much waits already: send more slowly");
                self.reply(cell.own_ref(), &reference, topic, &refusal);
            }
            (Err(_), _) => self.reply(&Ref::NULL, &reference, topic, &Reply::unmatched_topic()),
        }
    }

    fn find(&self, name: &str) -> Option<Arc<Cell>> {
        self.cells().iter().find(|cell| cell.name() == name && !cell.has_ended()).map(Arc::clone)
    }

    fn reply(&self, join_ref: &Ref, reference: &Ref, topic: &Topic, reply: &Reply) {
        match self.connection.serializer().reply(join_ref, reference, topic, reply) {
            Ok(wire) => self.outbox().push(wire),
            Err(error) => tracing::error!(%error, "a reply of the protocol cannot be sent"),
        }
    }

    fn cells(&self) -> MutexGuard<'_, Vec<Arc<Cell>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.outbox().close(close::PROTOCOL, "the connection is gone");
        for cell in self.cells().drain(..) {
            cell.closed();
        }
    }
}
