//! The task of one channel: runs its code, one thing at a time, while there is something to do.
//!
//! Knows the channel's cell, no socket. Its invariant: whatever the channel's code does — panic, hang, stop — the
//! client learns how it ended, the subscription is given up, and everything that waited is answered.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt as _;
use tokio::time::Instant;

use super::{
    Cell, Channel, Context, Cursor, Joined, Leave, Next, Page, Refusal, ReplayError,
    cell::{Ear, Item, Work},
    context::Sending,
    gate::{Need, Paged},
};
use crate::{
    auth::Access,
    protocol::{
        Payload, Ref, Reply,
        codes::{event, protocol_reason, reason},
    },
    pubsub::{Control, Published, SubscriberId, Subscription},
    telemetry::trace::Trace,
};

/// A channel's state while its task runs, and while it is parked.
pub(super) struct Server {
    cell: Arc<Cell>,
    channel: Box<dyn Channel>,
    cx: Context,
    subscription: Option<Subscription>,
    /// No page of the log is read before.
    pause: Option<Instant>,
}

/// How a channel ends.
enum End {
    /// The client's leave, with its ref.
    Left(Ref),
    Closed,
    Stopped,
    Crashed,
    Restarted,
    /// The connection's identity may not read the topic any more.
    Revoked,
    Replaced,
}

/// What became of a piece of channel code.
enum Outcome<T> {
    Done(T),
    Panicked,
    Late,
    Killed,
}

impl Server {
    pub(super) fn new(cell: &Arc<Cell>, channel: Box<dyn Channel>, reference: Ref, trace: Trace) -> Box<Self> {
        let cx = Context {
            cell: Arc::clone(cell),
            subscriber: SubscriberId(0),
            reference,
            received: Instant::now(),
            trace,
            sending: Sending::Held(Vec::new()),
        };
        Box::new(Self { cell: Arc::clone(cell), channel, cx, subscription: None, pause: None })
    }

    /// Joins, then serves what has arrived meanwhile.
    pub(super) async fn start(mut self: Box<Self>, params: Payload, replaced: Option<Arc<Cell>>) {
        let owed = match replaced {
            None => Vec::new(),
            Some(old) => {
                let limit = self.cell.host().options().terminate_within;
                // One that does not end in time is silent from here on.
                let _ = tokio::time::timeout(limit + self.left(), old.gone()).await;
                old.take_owed()
            }
        };
        let subscription = self.cell.host().pubsub().subscribe(self.cell.name(), Arc::new(Ear(Arc::clone(&self.cell))));
        self.cx.subscriber = subscription.id();
        self.subscription = Some(subscription);
        match self.join(params).await {
            Ok(joined) => {
                self.open(joined, &owed);
                let greeted = self.greet().await;
                self.cx.trace = Trace::default();
                match greeted {
                    Some(end) => self.end(end).await,
                    None => self.run().await,
                }
            }
            Err(reply) => self.refuse(&reply, &owed),
        }
    }

    fn left(&self) -> std::time::Duration {
        self.cx.deadline().saturating_duration_since(Instant::now())
    }

    /// Runs the channel's join. It is not cut short by another join of the topic, which waits for its end: a client
    /// that joins twice gets two answers.
    async fn join(&mut self, params: Payload) -> Result<Joined, Reply> {
        let limit = self.cx.deadline();
        let trace = self.cx.trace.clone();
        let answer = bounded(limit, trace.run(self.channel.join(&mut self.cx, params))).await;
        self.cell.connection().outbox().room().await;
        match answer {
            // The token may have been renewed, or have run out, meanwhile.
            Outcome::Done(Ok(_)) if self.cx.identity().access(self.cell.name()) < Access::Read => {
                Err(Reply::refuse(reason::UNAUTHORIZED, "this token does not open this topic any more"))
            }
            Outcome::Done(Ok(joined)) => Ok(joined),
            Outcome::Done(Err(Refusal(response))) => Err(Reply::error(response)),
            Outcome::Late | Outcome::Killed => {
                Err(Reply::refuse(reason::UNAVAILABLE, "the join took too long: repeat it"))
            }
            Outcome::Panicked => {
                tracing::error!(topic = self.cell.name(), "a channel panicked while it was joined");
                Err(Reply::protocol(protocol_reason::JOIN_CRASHED))
            }
        }
    }

    /// Answers the join, and lets pass what was held: under one lock, so that nothing comes before or between.
    fn open(&mut self, joined: Joined, owed: &[Ref]) {
        let cell = Arc::clone(&self.cell);
        cell.host().count_joined(cell.name());
        let mut gate = cell.gate();
        cell.answer(cell.join_ref(), &self.cx.reference, &Reply::ok(joined.response));
        for join_ref in owed {
            cell.farewell(join_ref, event::PHX_CLOSE, &Payload::empty());
        }
        if let Sending::Held(held) = std::mem::replace(&mut self.cx.sending, Sending::Now) {
            held.into_iter().for_each(|wire| cell.connection().outbox().push(wire));
        }
        cell.owe(vec![cell.join_ref().clone()]);
        let effect = gate.open(joined.cursor, &mut |message| cell.emit(message));
        if matches!(joined.cursor, Some(Cursor { complete: false, .. })) && effect == super::gate::Effect::Repair {
            // Pages that follow a join are no sign of a slow reader.
            cell.set_repair(true);
        } else {
            cell.follow(effect);
        }
    }

    fn refuse(&mut self, reply: &Reply, owed: &[Ref]) {
        let cell = Arc::clone(&self.cell);
        cell.gate().close();
        self.subscription = None;
        cell.answer(cell.join_ref(), &self.cx.reference, reply);
        for join_ref in owed {
            cell.farewell(join_ref, event::PHX_CLOSE, &Payload::empty());
        }
        cell.finish();
    }

    async fn greet(&mut self) -> Option<End> {
        let limit = Instant::now() + self.cell.host().options().answer_within;
        let work = bounded(limit, self.channel.joined(&mut self.cx));
        let end = ended(killable(&self.cell, work).await);
        let cell = &self.cell;
        cell.gate().refreshed(&mut |message| cell.emit(message));
        end
    }

    /// Serves until there is nothing to do, or the channel ends.
    pub(super) async fn run(self: Box<Self>) {
        let mut this = self;
        loop {
            let cell = Arc::clone(&this.cell);
            room(&cell).await;
            let Some((back, work)) = cell.work(this) else { return };
            this = back;
            let end = match work {
                Work::Item(item) => this.handle(item).await,
                Work::Repair => this.repair().await,
                Work::Killed => Some(End::Replaced),
            };
            if let Some(end) = end {
                return this.end(end).await;
            }
        }
    }

    async fn handle(&mut self, item: Item) -> Option<End> {
        match item {
            Item::Push { reference, event, payload, received, trace } => {
                self.cx.reference = reference;
                self.cx.received = received;
                self.cx.trace = trace;
                let end = self.handle_in(&event, payload).await;
                self.cx.trace = Trace::default();
                end
            }
            Item::Out(message) => self.handle_out(&message).await,
            Item::Leave { reference } => Some(leave(&self.cell, self.cx.deadline(), reference).await),
            Item::Closed => Some(End::Closed),
            Item::Revoked => Some(End::Revoked),
            Item::End(Control::Close | Control::Deleted(_)) => Some(End::Stopped),
            Item::End(Control::Restart) => Some(End::Restarted),
        }
    }

    async fn handle_in(&mut self, event: &str, payload: Payload) -> Option<End> {
        let limit = self.cx.deadline();
        let cell = Arc::clone(&self.cell);
        let trace = self.cx.trace.clone();
        let work = bounded(limit, trace.run(self.channel.handle_in(&mut self.cx, event, payload)));
        let (reply, end) = match killable(&cell, work).await {
            Outcome::Done(Next::NoReply) => (None, None),
            Outcome::Done(Next::Reply(reply)) => (Some(reply), None),
            Outcome::Done(Next::Stop) => (None, Some(End::Stopped)),
            Outcome::Done(Next::StopReply(reply)) => (Some(reply), Some(End::Stopped)),
            Outcome::Late => {
                let text = "this took too long: repeat it with the same id";
                (Some(Reply::refuse(reason::UNAVAILABLE, text)), None)
            }
            Outcome::Panicked => (None, Some(End::Crashed)),
            Outcome::Killed => (None, Some(End::Replaced)),
        };
        if let Some(reply) = reply {
            cell.reply(&self.cx.reference, &reply);
        }
        end
    }

    async fn handle_out(&mut self, message: &Published) -> Option<End> {
        let limit = Instant::now() + self.cell.host().options().answer_within;
        let broadcast = &message.broadcast;
        let work = bounded(limit, self.channel.handle_out(&mut self.cx, broadcast.event(), broadcast.payload()));
        ended(killable(&self.cell, work).await)
    }

    /// Brings the client nearer to what it has missed, by one step, once there is room for it.
    async fn repair(&mut self) -> Option<End> {
        let cell = Arc::clone(&self.cell);
        let outbox = cell.connection().outbox();
        if outbox.is_closed() {
            // The end of the connection is on its way here.
            cell.rung().await;
            return None;
        }
        let ready = async {
            if let Some(pause) = self.pause {
                tokio::time::sleep_until(pause).await;
            }
            outbox.drained().await;
            outbox.replay().await
        };
        let permit = tokio::select! {
            biased;
            () = cell.rung() => return None,
            permit = ready => permit,
        };
        self.pause = None;
        if !outbox.is_drained() {
            return None;
        }
        let need = cell.gate().need();
        let end = match need {
            Need::Page(after) => self.page(after).await,
            Need::Missed(count) => self.tell_missed(count),
            Need::Presence => self.refresh().await,
            Need::Nothing => None,
        };
        drop(permit);
        let gate = cell.gate();
        if gate.need() == Need::Nothing {
            cell.set_repair(false);
        }
        end
    }

    async fn page(&mut self, after: u64) -> Option<End> {
        let limit = Instant::now() + self.cell.host().options().answer_within;
        let work = bounded(limit, self.channel.replay(&mut self.cx, after));
        match killable(&self.cell, work).await {
            Outcome::Done(Ok(page)) => {
                self.show(&page);
                None
            }
            Outcome::Done(Err(ReplayError::Unavailable)) | Outcome::Late => {
                self.wait();
                None
            }
            Outcome::Done(Err(ReplayError::Restart)) => Some(End::Restarted),
            Outcome::Done(Err(ReplayError::NoLog)) => {
                tracing::error!(topic = self.cell.name(), "a channel gave a cursor but has no log");
                Some(End::Crashed)
            }
            Outcome::Panicked => Some(End::Crashed),
            Outcome::Killed => Some(End::Replaced),
        }
    }

    /// Queues a page and moves the gate under one lock, so that no record slips between the last page and live.
    fn show(&mut self, page: &Page) {
        let cell = Arc::clone(&self.cell);
        let wire = page.payload.as_ref().and_then(|payload| cell.encode_push(event::EVENTS, payload).ok());
        let mut gate = cell.gate();
        if let Some(wire) = wire {
            cell.connection().outbox().push(wire);
            cell.host().count_page();
        }
        if gate.paged(page.last, page.complete) == Paged::Stuck {
            drop(gate);
            tracing::warn!(topic = cell.name(), last = page.last, "a log ends before what was published from it");
            self.wait();
        }
    }

    fn wait(&mut self) {
        self.pause = Some(Instant::now() + self.cell.host().options().replay_pause);
    }

    fn tell_missed(&mut self, count: u64) -> Option<End> {
        #[derive(serde::Serialize)]
        struct Missed {
            count: u64,
        }
        self.cell.gate().told(count);
        self.cell.host().count_missed(count);
        self.cx.push(event::MISSED, &Payload::json(&Missed { count }));
        None
    }

    async fn refresh(&mut self) -> Option<End> {
        self.cell.gate().refresh();
        let limit = Instant::now() + self.cell.host().options().answer_within;
        let work = bounded(limit, self.channel.presence_state(&mut self.cx));
        let state = match killable(&self.cell, work).await {
            Outcome::Done(state) => state,
            Outcome::Late | Outcome::Panicked => return Some(End::Crashed),
            Outcome::Killed => return Some(End::Replaced),
        };
        let cell = Arc::clone(&self.cell);
        let mut gate = cell.gate();
        if let Some(state) = state {
            self.cx.push(event::PRESENCE_STATE, &state);
        }
        gate.refreshed(&mut |message| cell.emit(message));
        None
    }

    /// Ends the channel: the last frame, the answers to what waits, the goodbye.
    async fn end(mut self: Box<Self>, end: End) {
        let cell = Arc::clone(&self.cell);
        cell.gate().close();
        cell.silence();
        self.subscription = None;
        let reason = self.say_farewell(&end);
        let limit = Instant::now() + cell.host().options().terminate_within;
        if reason != Leave::Replaced {
            // The next join of this topic need not wait for the goodbye of one that has ended by itself.
            cell.finish();
        }
        match bounded(limit, self.channel.terminate(&mut self.cx, reason)).await {
            Outcome::Done(()) => {}
            _ => tracing::error!(topic = cell.name(), ?reason, "a channel did not end as it should"),
        }
        cell.host().count_ended(cell.name());
        if reason == Leave::Replaced {
            cell.finish();
        }
    }

    fn say_farewell(&mut self, end: &End) -> Leave {
        #[derive(serde::Serialize)]
        struct Why {
            reason: &'static str,
        }
        let cell = &self.cell;
        let broken = |reason| cell.farewell(cell.join_ref(), event::PHX_ERROR, &Payload::json(&Why { reason }));
        let closed = || cell.farewell(cell.join_ref(), event::PHX_CLOSE, &Payload::empty());
        let reason = match end {
            End::Left(reference) => {
                cell.reply(reference, &Reply::ok(Payload::empty()));
                closed();
                Leave::Left
            }
            End::Stopped => {
                closed();
                Leave::Stopped
            }
            End::Crashed => {
                tracing::error!(topic = cell.name(), "a channel crashed");
                broken(protocol_reason::CHANNEL_CRASH);
                Leave::Crashed
            }
            End::Restarted => {
                broken(protocol_reason::CHANNEL_RESTART);
                Leave::Restarted
            }
            End::Revoked => {
                broken(reason::UNAUTHORIZED);
                Leave::Stopped
            }
            End::Closed => Leave::Closed,
            End::Replaced => {
                self.cx.sending = Sending::Muted;
                return Leave::Replaced;
            }
        };
        cell.owe(Vec::new());
        reason
    }
}

/// A client that leaves gets the answers to what it asked before, then that to its leave.
async fn leave(cell: &Cell, limit: Instant, reference: Ref) -> End {
    tokio::select! {
        biased;
        () = cell.answered() => {}
        () = cell.killed() => return End::Replaced,
        () = cell.connection().outbox().closing() => {}
        () = tokio::time::sleep_until(limit) => {}
    }
    End::Left(reference)
}

/// Nothing is handled while the client does not read what it was answered before.
async fn room(cell: &Cell) {
    let outbox = cell.connection().outbox();
    if !outbox.has_room() {
        tokio::select! {
            () = outbox.room() => {}
            () = cell.killed() => {}
        }
    }
}

/// Runs channel code until `limit`, and catches its panics.
async fn bounded<T>(limit: Instant, work: impl Future<Output = T>) -> Outcome<T> {
    match tokio::time::timeout_at(limit, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(done)) => Outcome::Done(done),
        Ok(Err(_)) => Outcome::Panicked,
        Err(_) => Outcome::Late,
    }
}

/// Drops the work when another channel takes this one's place.
async fn killable<T>(cell: &Cell, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    tokio::select! {
        biased;
        done = work => done,
        () = cell.killed() => Outcome::Killed,
    }
}

fn ended(outcome: Outcome<()>) -> Option<End> {
    match outcome {
        Outcome::Done(()) => None,
        Outcome::Panicked | Outcome::Late => Some(End::Crashed),
        Outcome::Killed => Some(End::Replaced),
    }
}
