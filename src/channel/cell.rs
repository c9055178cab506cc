//! One joined channel as others see it: an inbox to put things in, a subscriber that takes what is published.
//!
//! Knows no channel code. While there is nothing to do the channel's state lies parked in its cell; whoever brings
//! something takes it out and starts its task. The invariant: the state is in one place, parked or in the one task.
//! Locks are taken in the order topic, gate, inbox, outbox, and never across an await.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Notify, time::Instant};

use super::{
    Connection, Host,
    gate::{Effect, Gate},
    server::Server,
};
use crate::{
    protocol::{Error, Payload, Ref, Reply, Topic, Wire, codes},
    pubsub::{Control, Kind, Published, Subscriber},
    telemetry::trace::Trace,
};

/// One joined topic of one connection.
pub struct Cell {
    name: Arc<str>,
    topic: Topic,
    /// The `join_ref` as the client gave it.
    stored: Ref,
    /// What the channel's own frames carry: the ref of the join where it gave none.
    own: Ref,
    connection: Arc<Connection>,
    host: Host,
    intercepts: &'static [&'static str],
    gate: Mutex<Gate>,
    inbox: Mutex<Inbox>,
    /// Rung for the task.
    bell: Notify,
    /// Rung when the channel has ended.
    ended: Notify,
    /// Rung when no answer is owed any more.
    answered: Notify,
}

#[derive(Default)]
struct Inbox {
    items: VecDeque<Item>,
    parked: Option<Box<Server>>,
    /// Pushes that were handled and are to be answered later.
    unanswered: usize,
    /// The gate has something to repair.
    repair: bool,
    /// Another channel takes this one's place.
    killed: bool,
    /// The last frame is on its way: late answers come too late.
    silent: bool,
    ended: bool,
    /// The `phx_close` frames that the next channel on this topic has to send.
    owed: Vec<Ref>,
}

/// What a channel is to handle.
pub(super) enum Item {
    Push { reference: Ref, event: String, payload: Payload, received: Instant, trace: Trace },
    Out(Arc<Published>),
    Leave { reference: Ref },
    Closed,
    Revoked,
    End(Control),
}

/// What the task does next.
pub(super) enum Work {
    Item(Item),
    Repair,
    Killed,
}

/// Why a push is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Too much waits already.
    Full,
    /// The channel has ended: the topic is not joined.
    Ended,
}

impl Cell {
    /// Starts a join. `None` where nobody serves the topic. The answer, and everything after it, goes to the
    /// connection's outbox; `replaced` is the channel whose place this one takes, and ends first.
    pub fn join(
        host: &Host,
        connection: &Arc<Connection>,
        name: &Arc<str>,
        (join_ref, reference): (Ref, Ref),
        (params, trace): (Payload, Trace),
        replaced: Option<Arc<Self>>,
    ) -> Option<Arc<Self>> {
        let channel = host.open(name)?;
        let cell = Arc::new(Self {
            name: Arc::clone(name),
            topic: Topic::Name(Arc::clone(name)),
            own: if join_ref.is_null() { reference.clone() } else { join_ref.clone() },
            stored: join_ref,
            connection: Arc::clone(connection),
            host: host.clone(),
            intercepts: channel.intercepts(),
            gate: Mutex::new(Gate::new()),
            inbox: Mutex::default(),
            bell: Notify::new(),
            ended: Notify::new(),
            answered: Notify::new(),
        });
        if let Some(old) = &replaced {
            old.kill();
        }
        let server = Server::new(&cell, channel, reference, trace);
        host.spawn(server.start(params, replaced));
        Some(cell)
    }

    /// The topic's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The `join_ref` with which it was joined.
    pub fn join_ref(&self) -> &Ref {
        &self.stored
    }

    /// What the channel's frames carry as `join_ref`.
    pub fn own_ref(&self) -> &Ref {
        &self.own
    }

    /// Whether a frame with this `join_ref` is meant for this channel rather than for one before it.
    pub fn admits(&self, join_ref: &Ref) -> bool {
        join_ref.is_null() || self.stored.is_null() || *join_ref == self.stored
    }

    /// Whether the topic is not joined any more.
    pub fn has_ended(&self) -> bool {
        self.inbox().ended
    }

    /// Hands a push to the channel. `trace` lasts until it is handled and answered.
    ///
    /// # Errors
    /// [`Refused`]; the push was not taken.
    pub fn push(
        self: &Arc<Self>,
        reference: Ref,
        event: String,
        payload: Payload,
        trace: Trace,
    ) -> Result<(), Refused> {
        let size = payload.len();
        if !self.connection.reserve(size) {
            return Err(if self.has_ended() { Refused::Ended } else { Refused::Full });
        }
        let item = Item::Push { reference, event, payload, received: Instant::now(), trace };
        self.put(item, true).inspect_err(|_| self.connection.release(size))
    }

    /// Asks the channel to end, after what it was asked before.
    ///
    /// # Errors
    /// [`Refused::Ended`].
    pub fn leave(self: &Arc<Self>, reference: Ref) -> Result<(), Refused> {
        self.put(Item::Leave { reference }, false)
    }

    /// The connection is gone: ends the channel, after what it was asked before.
    pub fn closed(self: &Arc<Self>) {
        // An ended channel needs no telling.
        let _ = self.put(Item::Closed, false);
    }

    /// Ends the channel because the connection may not read it any more: nothing is shown from here on, and the client
    /// is told why after what it had asked before.
    pub fn revoke(self: &Arc<Self>) {
        self.gate().close();
        // An ended channel needs no telling.
        let _ = self.put(Item::Revoked, false);
    }

    /// Ends the channel at once: the same topic is joined again.
    fn kill(self: &Arc<Self>) {
        let mut inbox = self.inbox();
        inbox.killed = true;
        self.wake(inbox);
    }

    fn put(self: &Arc<Self>, item: Item, bounded: bool) -> Result<(), Refused> {
        let mut inbox = self.inbox();
        if inbox.ended {
            return Err(Refused::Ended);
        }
        if bounded && inbox.items.len() >= self.host.options().max_inbox {
            return Err(Refused::Full);
        }
        inbox.items.push_back(item);
        self.wake(inbox);
        Ok(())
    }

    /// Starts the task, or rings for the one that runs.
    fn wake(self: &Arc<Self>, mut inbox: MutexGuard<'_, Inbox>) {
        match inbox.parked.take() {
            Some(server) => {
                drop(inbox);
                self.host.spawn(server.run());
            }
            None => {
                drop(inbox);
                self.bell.notify_one();
            }
        }
    }

    /// For the task: what to do next; without anything to do the state is parked.
    pub(super) fn work(&self, server: Box<Server>) -> Option<(Box<Server>, Work)> {
        let mut inbox = self.inbox();
        if inbox.killed {
            return Some((server, Work::Killed));
        }
        if let Some(item) = inbox.items.pop_front() {
            drop(inbox);
            if let Item::Push { payload, .. } = &item {
                self.connection.release(payload.len());
            }
            return Some((server, Work::Item(item)));
        }
        if inbox.repair {
            return Some((server, Work::Repair));
        }
        inbox.items = VecDeque::new();
        inbox.parked = Some(server);
        None
    }

    /// For the task: waits until something is brought. Cancel safe.
    pub(super) async fn rung(&self) {
        self.bell.notified().await;
    }

    /// For the task: waits until another channel takes this one's place. Cancel safe.
    pub(super) async fn killed(&self) {
        while !self.inbox().killed {
            self.bell.notified().await;
        }
    }

    /// Waits until the channel has ended and said goodbye.
    pub(super) async fn gone(&self) {
        loop {
            let rung = self.ended.notified();
            if self.inbox().ended {
                return;
            }
            rung.await;
        }
    }

    /// A push that is handled will be answered later.
    pub(super) fn owe_answer(&self) {
        self.inbox().unanswered += 1;
    }

    /// It was answered, or never will be.
    pub(super) fn settle_answer(&self) {
        let mut inbox = self.inbox();
        inbox.unanswered -= 1;
        let none = inbox.unanswered == 0;
        drop(inbox);
        if none {
            self.answered.notify_waiters();
        }
    }

    /// For the task: waits until every push that was handled is answered. Cancel safe.
    pub(super) async fn answered(&self) {
        loop {
            let rung = self.answered.notified();
            if self.inbox().unanswered == 0 {
                return;
            }
            rung.await;
        }
    }

    /// The channel has ended: what waits is answered as it is for a topic that is not joined.
    pub(super) fn finish(&self) {
        let items = {
            let mut inbox = self.inbox();
            inbox.ended = true;
            std::mem::take(&mut inbox.items)
        };
        for item in items {
            match item {
                Item::Push { reference, payload, .. } => {
                    self.connection.release(payload.len());
                    self.answer(&Ref::NULL, &reference, &Reply::unmatched_topic());
                }
                Item::Leave { reference } => self.answer(&self.stored, &reference, &Reply::ok(Payload::empty())),
                Item::Out(_) | Item::Closed | Item::Revoked | Item::End(_) => {}
            }
        }
        self.ended.notify_waiters();
    }

    /// The `phx_close` frames that are still to be sent for this channel and those before it.
    pub(super) fn owe(&self, refs: Vec<Ref>) {
        self.inbox().owed = refs;
    }

    pub(super) fn take_owed(&self) -> Vec<Ref> {
        std::mem::take(&mut self.inbox().owed)
    }

    /// The gate has something to repair, or no longer has.
    pub(super) fn set_repair(&self, needed: bool) {
        self.inbox().repair = needed;
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    pub(super) fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues the answer to a push.
    pub(super) fn reply(&self, reference: &Ref, reply: &Reply) {
        self.answer(&self.own, reference, reply);
    }

    /// As [`Cell::reply`], for those who answer after the push was handled: nothing once the channel is at its end.
    pub(super) fn reply_late(&self, reference: &Ref, reply: &Reply) {
        let inbox = self.inbox();
        if !inbox.silent {
            self.reply(reference, reply);
        }
        drop(inbox);
    }

    /// No late answer is sent from here on.
    pub(super) fn silence(&self) {
        self.inbox().silent = true;
    }

    /// Queues an answer. One that the client cannot be sent becomes an error that says why: it waits for an answer.
    pub(super) fn answer(&self, join_ref: &Ref, reference: &Ref, reply: &Reply) {
        let write = |reply: &Reply| self.connection.serializer().reply(join_ref, reference, &self.topic, reply);
        let written = write(reply).or_else(|error| {
            tracing::warn!(topic = %self.name, %error, "an answer cannot be sent");
            write(&Reply::refuse(codes::reason::INVALID, &error.to_string()))
        });
        match written {
            Ok(wire) => self.connection.outbox().push(wire),
            Err(error) => tracing::error!(topic = %self.name, %error, "a refusal cannot be sent"),
        }
    }

    /// Queues the frame with which a channel ends; its ref is its join_ref.
    pub(super) fn farewell(&self, join_ref: &Ref, event: &str, payload: &Payload) {
        let wire = self.connection.serializer().push(join_ref, join_ref, &self.topic, event, payload);
        match wire {
            Ok(wire) => self.connection.outbox().push(wire),
            Err(error) => tracing::error!(topic = %self.name, %error, "the end of a channel cannot be sent"),
        }
    }

    /// A push to this client, ready to be queued.
    pub(super) fn encode_push(&self, event: &str, payload: &Payload) -> Result<Wire, Error> {
        let wire = self.connection.serializer().push(&self.own, &Ref::NULL, &self.topic, event, payload);
        wire.inspect_err(|error| {
            if !matches!(error, Error::NotShown) {
                tracing::warn!(topic = %self.name, event, %error, "a push cannot be sent");
            }
        })
    }

    /// Tells the client that a restart is near.
    pub fn push_draining(&self, payload: &Payload) {
        if self.has_ended() {
            return;
        }
        if let Ok(wire) = self.encode_push(codes::event::DRAINING, payload) {
            self.connection.outbox().push(wire);
        }
    }

    /// Queues a broadcast, or hands it to the channel's own code. Whether it fitted.
    pub(super) fn emit(self: &Arc<Self>, message: &Arc<Published>) -> bool {
        let event = message.broadcast.event();
        if message.kind == Kind::Ephemeral && self.intercepts.contains(&event) {
            return self.put(Item::Out(Arc::clone(message)), true).is_ok();
        }
        match message.broadcast.encoded(self.connection.serializer()) {
            // The last that a channel shows, however much waits.
            Ok(wire) if matches!(message.kind, Kind::Control(_)) => {
                self.connection.outbox().push(wire);
                true
            }
            Ok(wire) => {
                let fits = self.connection.outbox().try_push(wire);
                if fits {
                    self.host.count_delivery();
                }
                fits
            }
            Err(error) => {
                tracing::debug!(topic = %self.name, event, %error, "a broadcast was left out");
                true
            }
        }
    }

    fn repair(self: &Arc<Self>) {
        let mut inbox = self.inbox();
        if !inbox.ended {
            inbox.repair = true;
            self.wake(inbox);
        }
    }

    /// Does what the gate asks for. To be called under the gate's lock.
    pub(super) fn follow(self: &Arc<Self>, effect: Effect) {
        match effect {
            Effect::Nothing => {}
            Effect::Read => self.repair(),
            Effect::Gap => {
                self.host.count_gap();
                self.repair();
            }
            Effect::Repair => {
                self.host.count_slow();
                self.repair();
            }
            // An ended channel cannot end again.
            Effect::End(control) => drop(self.put(Item::End(control), false)),
        }
    }
}

/// The cell as a topic sees it. Kept apart so that the topic's hold on it can be cut.
pub(super) struct Ear(pub(super) Arc<Cell>);

impl Subscriber for Ear {
    fn deliver(&self, message: &Arc<Published>) {
        let cell = &self.0;
        let mut gate = cell.gate();
        let effect = gate.deliver(message, &mut |message| cell.emit(message));
        cell.follow(effect);
    }
}
