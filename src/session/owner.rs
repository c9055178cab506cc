//! The runner of a turn: it pulls the agent's deltas, writes them under the fence, and ends the turn.
//!
//! It has captured who it is and its term, and every write carries them (I7). It knows no connection, so that nobody's
//! leaving ends it (I15). It ends in exactly one way: by its terminal write, or by learning that the turn is not its
//! own any more; either way its agent's work is dropped at once.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use dashmap::DashMap;
use futures::{FutureExt, StreamExt};
use serde_json::value::RawValue;
use tokio::{
    sync::{Notify, watch},
    time,
};

use super::{
    Inner,
    log::{NotWritten, Outcome},
    tally::AgentTally,
    topic_of,
};
use crate::{
    agent::{Answer, Context, Output, SessionContext, TurnContext},
    clock,
    ids::Incarnation,
    model::{
        EventKind, Message, Part, Turn, TurnError,
        event::{self, Data},
        fold::{self, Delta},
        machine::{DeltaEvent, Done, End, Fence, Op, Refused},
    },
    protocol::{compacted, strict},
    store::{self, Cut, Item, PageLimits},
    telemetry::trace::Trace,
};

/// Output beside which a chunk is written (L10).
const CHUNK_BYTES: usize = 8 * 1024;
/// Deltas that a runner keeps while the store is away (O1).
const BUFFER_BYTES: usize = 1024 * 1024;
/// How long after the node's last renewal a runner keeps them (O1).
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a runner must stop before its agent has finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// A person's cancel is durable.
    Intent,
    /// The node shuts down.
    Shutdown,
    /// The turn is not this runner's any more, or its node is not.
    Fenced,
}

/// The runners of this node. Each is registered before anybody can see its turn as running here, and until it ends.
#[derive(Default)]
pub(super) struct Runners {
    map: DashMap<String, Handle>,
    ended: Notify,
}

struct Handle {
    session: Arc<str>,
    since: Instant,
    stop: watch::Sender<Option<Stop>>,
}

impl Runners {
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn has(&self, turn_id: &str) -> bool {
        self.map.contains_key(turn_id)
    }

    /// The turns that have a runner here.
    pub(super) fn ids(&self) -> Vec<String> {
        self.map.iter().map(|entry| entry.key().clone()).collect()
    }

    pub(super) fn sessions(&self) -> Vec<Arc<str>> {
        self.map.iter().map(|entry| entry.session.clone()).collect()
    }

    /// Since when the one has run that has run longest.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.map.iter().map(|entry| entry.since).min()
    }

    /// Ready when no runner is left. For one caller at a time.
    pub(super) async fn all_ended(&self) {
        while !self.map.is_empty() {
            self.ended.notified().await;
        }
    }

    fn remove(&self, turn_id: &str) {
        self.map.remove(turn_id);
        self.ended.notify_one();
    }

    /// Tells a runner to stop; the first reason stays, but for one that ends everything.
    pub(super) fn stop(&self, turn_id: &str, why: Stop) {
        if let Some(handle) = self.map.get(turn_id) {
            signal(&handle.stop, why);
        }
    }

    /// Tells every runner to stop.
    pub(super) fn stop_all(&self, why: Stop) {
        self.map.iter().for_each(|entry| signal(&entry.stop, why));
    }

    /// Tells every runner of a session to stop.
    pub(super) fn stop_session(&self, session: &str, why: Stop) {
        self.map.iter().filter(|entry| &*entry.session == session).for_each(|entry| signal(&entry.stop, why));
    }
}

fn signal(stop: &watch::Sender<Option<Stop>>, why: Stop) {
    stop.send_if_modified(|now| {
        let change = now.is_none() || (why == Stop::Fenced && *now != Some(Stop::Fenced));
        if change {
            *now = Some(why);
        }
        change
    });
}

impl Inner {
    /// Runs a turn that a commit has given to this node. A turn that has a runner already keeps it.
    pub(super) fn run(self: &Arc<Self>, session: Arc<str>, turn: Turn) {
        let Some(incarnation) = turn.owner.as_ref().map(|owner| owner.incarnation.clone()) else { return };
        let (stop, stopped) = watch::channel(None);
        match self.runners.map.entry(turn.id.clone()) {
            dashmap::Entry::Occupied(_) => return,
            dashmap::Entry::Vacant(place) => {
                drop(place.insert(Handle { session: session.clone(), since: Instant::now(), stop }));
            }
        }
        self.tally.started.add(1);
        self.observer.started(&session, &turn);
        let (inner, trace) = (self.clone(), Trace::current());
        for (key, value) in [("rejoin.session", &*session), ("rejoin.turn", &turn.id), ("rejoin.agent", &turn.agent)] {
            trace.note(key, value);
        }
        self.tasks.spawn(async move {
            let mut runner =
                Runner::new(inner.clone(), session.clone(), turn.clone(), incarnation.clone(), stopped, trace);
            if AssertUnwindSafe(Box::pin(runner.run())).catch_unwind().await.is_err() {
                tracing::error!(session = %session, turn = %turn.id, "a runner panicked");
                // What it had under way is unknown, so the end is made of what the log holds.
                let (turn_id, term) = (turn.id.clone(), turn.term);
                let op = Op::EndOwned { turn_id, incarnation, term, end: End::Failed(crashed()) };
                write_until_answered(&inner, &inner.item(&session, op)).await;
            }
            runner.watch.ended();
            inner.observer.ended(&session, &turn);
            inner.runners.remove(&turn.id);
            inner.log.forget(&turn.id);
        });
    }
}

fn crashed() -> TurnError {
    TurnError {
        code: "agent_crashed".to_owned(),
        message:
            "The agent stopped because of a fault in the server. Retry, and tell the operator if it happens again."
                .to_owned(),
        retryable: true,
    }
}

fn timed_out(what: &str, limit: Duration) -> TurnError {
    TurnError {
        code: "timeout".to_owned(),
        message: format!("The agent {what} {}. Retry to ask again.", humantime::format_duration(limit)),
        retryable: true,
    }
}

/// How the agent's part of a turn ended.
enum Outcomes {
    End(End),
    /// The terminal write is somebody else's.
    Gone,
}

impl Outcomes {
    /// The status of the turn that comes of it.
    fn name(&self) -> &'static str {
        match self {
            Self::End(End::Completed { .. }) => "completed",
            Self::End(End::Failed(_)) => "failed",
            Self::End(End::Intent | End::Shutdown) => "cancelled",
            Self::Gone => "gone",
        }
    }
}

/// How long a turn takes, for those who measure.
struct Watch {
    tally: Option<Arc<AgentTally>>,
    begun: Instant,
    /// Whether the agent has said something.
    heard: bool,
}

impl Watch {
    fn heard(&mut self) {
        if let Some(tally) = self.tally.as_ref().filter(|_| !self.heard) {
            tally.first_output.took(self.begun.elapsed());
        }
        self.heard = true;
    }

    fn ended(&self) {
        if let Some(tally) = &self.tally {
            tally.turn.took(self.begun.elapsed());
        }
    }
}

struct Runner {
    inner: Arc<Inner>,
    session: Arc<str>,
    turn: Turn,
    incarnation: Incarnation,
    stopped: watch::Receiver<Option<Stop>>,
    trace: Trace,
    /// The whole answer so far.
    parts: Vec<Part>,
    bytes: usize,
    /// Deltas that are in no flush yet.
    pending: Vec<Delta>,
    pending_bytes: usize,
    /// The number of the next flush.
    flush: u64,
    since_chunk: Vec<Delta>,
    since_chunk_bytes: usize,
    watch: Watch,
}

impl Runner {
    fn new(
        inner: Arc<Inner>,
        session: Arc<str>,
        turn: Turn,
        incarnation: Incarnation,
        stopped: watch::Receiver<Option<Stop>>,
        trace: Trace,
    ) -> Self {
        let watch = Watch { tally: inner.tally.agent(&turn.agent), begun: Instant::now(), heard: false };
        Self {
            flush: turn.flushed,
            watch,
            inner,
            session,
            turn,
            incarnation,
            stopped,
            trace,
            parts: Vec::new(),
            bytes: 0,
            pending: Vec::new(),
            pending_bytes: 0,
            since_chunk: Vec::new(),
            since_chunk_bytes: 0,
        }
    }

    async fn run(&mut self) {
        let limit = self.inner.options.turn_timeout;
        let deadline = time::Instant::now() + limit;
        let mut stopped = self.stopped.clone();
        let set_up = Self::set_up(self.inner.clone(), self.session.clone(), self.turn.clone(), self.trace.clone());
        let answer = tokio::select! {
            biased;
            why = stop_of(&mut stopped) => Err(stopped_by(why)),
            () = time::sleep_until(deadline) => Err(Outcomes::End(End::Failed(timed_out("was not done after", limit)))),
            answer = Box::pin(set_up) => answer.map_err(|error| Outcomes::End(End::Failed(error))),
        };
        let outcome = match answer {
            Ok((answer, asking)) => {
                let outcome = self.pull(answer, stopped, deadline).await;
                note_end(&asking, &outcome);
                outcome
            }
            Err(outcome) => outcome,
        };
        note_end(&self.trace, &outcome);
        self.log_end(&outcome);
        if let Outcomes::End(end) = outcome {
            self.finish(end).await;
        }
    }

    /// One line for each turn: at `warn` for one that failed. What an agent says of it may be anything, and is for the
    /// people of the session only.
    fn log_end(&self, outcome: &Outcomes) {
        let (session, turn, agent) = (&*self.session, &self.turn.id, &self.turn.agent);
        let node = self.turn.owner.as_ref().map(|owner| owner.node.as_str());
        match outcome {
            Outcomes::End(End::Failed(error)) => {
                tracing::warn!(session, turn, node, agent, code = error.code, "a turn failed");
            }
            _ => tracing::debug!(session, turn, node, agent, status = outcome.name(), "a turn has had its answer"),
        }
    }

    /// The agent's answer as it begins, and the span of its request, which lasts as long as the answer is read.
    async fn set_up(
        inner: Arc<Inner>,
        session: Arc<str>,
        turn: Turn,
        trace: Trace,
    ) -> Result<(Answer, Trace), TurnError> {
        let agent = inner.agents.get(&turn.agent).ok_or_else(|| TurnError {
            code: "unknown_agent".to_owned(),
            message: format!("This server has no agent {:?}. Choose one that it has.", turn.agent),
            retryable: false,
        })?;
        let context = context(&inner, &session, &turn, agent.max_messages()).await?;
        let limit = inner.options.agent_idle_timeout;
        let asking = trace.ask("agent.request");
        let answer = time::timeout(limit, asking.run(agent.answer(context))).await;
        let answer = answer.unwrap_or_else(|_| Err(timed_out("did not answer within", limit)));
        let answer = answer.inspect_err(|error| asking.failed(&error.code));
        answer.map(|answer| (answer, asking))
    }

    /// Pulls the agent until it ends or must stop. When this returns the agent's work is dropped, and no flush is under
    /// way whose number the terminal write would have to guess.
    async fn pull(
        &mut self,
        mut answer: Answer,
        mut stopped: watch::Receiver<Option<Stop>>,
        deadline: time::Instant,
    ) -> Outcomes {
        let options = self.inner.options.clone();
        let (idle, window) = (options.agent_idle_timeout, options.delta_window);
        let mut heard = time::Instant::now();
        let mut due: Option<time::Instant> = None;
        let mut flushing = None;
        // Two timers for the whole turn: one set with each window, one that looks at both limits when it rings.
        let mut window_over = std::pin::pin!(time::sleep_until(heard));
        let mut limit = std::pin::pin!(time::sleep_until(deadline.min(heard + idle)));
        let outcome = loop {
            if flushing.is_none() && due.is_some_and(|due| due <= time::Instant::now()) {
                due = None;
                flushing = Some(Box::pin(self.begin_flush()));
            }
            let full = self.pending_bytes >= BUFFER_BYTES;
            if full && !self.inner.seen().current {
                break Outcomes::Gone;
            }
            tokio::select! {
                biased;
                why = stop_of(&mut stopped) => break stopped_by(why),
                settled = maybe(flushing.as_mut()) => {
                    flushing = None;
                    if let Some(outcome) = self.settle(settled) {
                        break outcome;
                    }
                    if !self.pending.is_empty() {
                        due = Some(due.unwrap_or_else(time::Instant::now));
                    }
                }
                () = window_over.as_mut(), if due.is_some() && flushing.is_none() => {}
                output = answer.next(), if !full => {
                    heard = time::Instant::now();
                    if let Some(end) = self.hear(output, window) {
                        break Outcomes::End(end);
                    }
                    if due.is_none() && !self.pending.is_empty() {
                        due = Some(heard + window);
                        window_over.as_mut().reset(heard + window);
                    }
                }
                () = limit.as_mut() => {
                    let now = time::Instant::now();
                    if now >= deadline {
                        break Outcomes::End(End::Failed(timed_out("was not done after", options.turn_timeout)));
                    }
                    if full {
                        // It is not the agent that is silent: nobody listens to it.
                        heard = now;
                    } else if now >= heard + idle {
                        break Outcomes::End(End::Failed(timed_out("was silent for", idle)));
                    }
                    limit.as_mut().reset(deadline.min(heard + idle));
                }
            }
        };
        drop(answer);
        match (outcome, flushing) {
            (Outcomes::End(end), Some(flush)) => self.settle_last(flush.await, end),
            (outcome, _) => outcome,
        }
    }

    /// What one output of the agent means; `None`: go on.
    fn hear(&mut self, output: Option<Result<Output, TurnError>>, window: Duration) -> Option<End> {
        match output {
            Some(Ok(Output::Delta(delta))) => {
                self.watch.heard();
                self.take(delta, window).map(End::Failed)
            }
            Some(Ok(Output::Done { usage })) => Some(End::Completed { usage: usage.map(clean_value) }),
            Some(Err(error)) => Some(End::Failed(error)),
            None => Some(End::Failed(cut_short())),
        }
    }

    /// The end stands, whatever the last flush brought, unless the turn is not ours any more. (An intent that this
    /// flush shows comes too late for an answer that is finished.)
    fn settle_last(&mut self, settled: Option<Outcome>, end: End) -> Outcomes {
        match self.settle(settled) {
            Some(Outcomes::Gone) => Outcomes::Gone,
            Some(Outcomes::End(failed @ End::Failed(_))) => Outcomes::End(failed),
            _ => Outcomes::End(end),
        }
    }

    /// Takes a delta in; an error if the answer has become too large.
    fn take(&mut self, mut delta: Delta, window: Duration) -> Option<TurnError> {
        clean(&mut delta);
        let parts = u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
        delta.part = delta.part.min(parts);
        if delta.part < parts && delta.is_empty() {
            return None;
        }
        let size = delta.size();
        if self.bytes + size > self.inner.options.max_message_bytes {
            let limit = self.inner.options.max_message_bytes;
            return Some(TurnError {
                code: "too_large".to_owned(),
                message: format!("The answer would be longer than {limit} bytes. Ask for a shorter one."),
                retryable: false,
            });
        }
        self.bytes += size;
        self.pending_bytes += size + 64;
        fold::apply(&mut self.parts, &delta);
        fold::gather(&mut self.since_chunk, &delta);
        self.since_chunk_bytes += size;
        if window.is_zero() {
            self.pending.push(delta)
        } else {
            fold::gather(&mut self.pending, &delta)
        }
        None
    }

    /// Takes what is pending into a flush and sends it, the same again and again until it is answered (L4) or given up.
    fn begin_flush(&mut self) -> impl Future<Output = Option<Outcome>> + Send + use<> {
        let deltas = self.take_pending();
        let chunk = (self.since_chunk_bytes >= CHUNK_BYTES).then(|| {
            self.since_chunk_bytes = 0;
            std::mem::take(&mut self.since_chunk)
        });
        let (inner, session, fence) = (self.inner.clone(), self.session.clone(), self.fence(self.flush));
        self.flush += 1;
        async move {
            let op = Arc::new(Op::Append { fence, deltas, chunk });
            write_until_answered(&inner, &Item { session, node: None, op }).await
        }
    }

    fn take_pending(&mut self) -> Vec<DeltaEvent> {
        self.pending_bytes = 0;
        let now = clock::now();
        let encode = |delta: Delta| {
            let body = event::body(EventKind::TurnDelta, now, None, Some(&self.turn.id), &Data::Delta(&delta));
            DeltaEvent { delta, body }
        };
        std::mem::take(&mut self.pending).into_iter().map(encode).collect()
    }

    fn fence(&self, flush: u64) -> Fence {
        Fence { turn_id: self.turn.id.clone(), incarnation: self.incarnation.clone(), term: self.turn.term, flush }
    }

    /// What an answered flush means for the turn; `None`: go on.
    fn settle(&mut self, outcome: Option<Outcome>) -> Option<Outcomes> {
        match outcome {
            Some(Ok(Ok(applied))) => {
                let intent = applied.done == Done::Appended { intent: true };
                intent.then_some(Outcomes::End(End::Intent))
            }
            Some(Ok(Err(Refused::HistoryLost))) => {
                self.history_lost();
                Some(Outcomes::Gone)
            }
            Some(Ok(Err(_))) => Some(Outcomes::Gone),
            Some(Err(NotWritten::Content)) => {
                self.flush -= 1;
                Some(Outcomes::End(End::Failed(TurnError {
                    code: "agent_error".to_owned(),
                    message: "The store refuses what the agent answered. Retry, or use another agent.".to_owned(),
                    retryable: true,
                })))
            }
            // Nobody knows whether it was written. The turn has no runner from here on; I21 ends it.
            Some(Err(NotWritten::Unavailable)) | None => Some(Outcomes::Gone),
        }
    }

    /// L11: the log holds less than was written here. Runners and channels of the session end; clients come back and
    /// get a snapshot.
    fn history_lost(&self) {
        tracing::error!(session = %self.session, "the store holds less than this node has written: its history changed");
        self.inner.runners.stop_session(&self.session, Stop::Fenced);
        self.inner.restart_channels(&topic_of(&self.session));
    }

    /// The terminal write, repeated until it is answered or given up; I21 ends what is given up.
    async fn finish(&mut self, end: End) {
        let deltas = self.take_pending();
        let fence = self.fence(self.flush);
        let op = Op::Finish { fence, deltas, parts: self.parts.clone(), end };
        let node = self.inner.item(&self.session, op);
        match self.trace.run(write_until_answered(&self.inner, &node)).await {
            Some(Ok(Ok(_))) => {}
            Some(Ok(Err(Refused::HistoryLost))) => self.history_lost(),
            Some(Ok(Err(refused))) => {
                tracing::info!(session = %self.session, turn = %self.turn.id, ?refused, "the turn is not ours any more");
            }
            Some(Err(_)) | None => {
                tracing::warn!(session = %self.session, turn = %self.turn.id, "gave up writing the end of a turn");
            }
        }
    }
}

/// Writes an item under its idempotent key until the store answers. `None` when the runner's patience is over (O1).
async fn write_until_answered(inner: &Inner, item: &Item) -> Option<Outcome> {
    let mut pause = Pause::new(inner);
    loop {
        match inner.log.write(item.clone()).await {
            Err(NotWritten::Unavailable) => {}
            outcome => return Some(outcome),
        }
        if pause.is_over(inner) {
            return None;
        }
        pause.wait().await;
    }
}

/// A runner's patience with a store that is away: ever longer pauses, until it has been away for too long (O1).
struct Pause {
    next: Duration,
    most: Duration,
}

impl Pause {
    fn new(inner: &Inner) -> Self {
        Self { next: Duration::from_millis(50), most: inner.options.lease_renew }
    }

    /// Whether to give up.
    fn is_over(&self, inner: &Inner) -> bool {
        let seen = inner.seen();
        Instant::now().saturating_duration_since(seen.renewed) > PATIENCE || inner.stop.is_cancelled()
    }

    async fn wait(&mut self) {
        time::sleep(self.next).await;
        self.next = (self.next * 2).min(self.most);
    }
}

/// Notes in a trace how a turn ended.
fn note_end(trace: &Trace, outcome: &Outcomes) {
    trace.note("rejoin.status", outcome.name());
    if let Outcomes::End(End::Failed(error)) = outcome {
        trace.failed(&error.code);
    }
}

/// The output of a future that may not be there; never, if it is not.
async fn maybe<F: Future + Unpin>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn stop_of(stopped: &mut watch::Receiver<Option<Stop>>) -> Stop {
    let why = stopped.wait_for(Option::is_some).await.ok().and_then(|why| *why);
    match why {
        Some(why) => why,
        // The handle is dropped after the runner has ended.
        None => std::future::pending().await,
    }
}

fn stopped_by(why: Stop) -> Outcomes {
    match why {
        Stop::Intent => Outcomes::End(End::Intent),
        Stop::Shutdown => Outcomes::End(End::Shutdown),
        Stop::Fenced => Outcomes::Gone,
    }
}

fn cut_short() -> TurnError {
    TurnError {
        code: "agent_incomplete".to_owned(),
        message: "The agent's answer stopped before its end. Retry to ask again.".to_owned(),
        retryable: true,
    }
}

/// What the agent is to answer. An outage of the store is waited out here as the writes of a runner wait it out (O1);
/// whatever ends the turn meanwhile drops this.
async fn context(inner: &Inner, session: &Arc<str>, turn: &Turn, limit: usize) -> Result<Context, TurnError> {
    let mut pause = Pause::new(inner);
    let (cut, messages) = loop {
        match read(inner, session, turn, limit).await {
            Ok(Some(found)) => break found,
            Ok(None) => return Err(TurnError::lost()),
            Err(error @ store::Error::Unavailable { .. }) if !pause.is_over(inner) => {
                tracing::warn!(%session, turn = %turn.id, %error, "the context of a turn has to be read again");
                pause.wait().await;
            }
            Err(error) => {
                tracing::error!(%session, turn = %turn.id, %error, "the context of a turn could not be read");
                return Err(unreadable());
            }
        }
    };
    Ok(Context {
        session: SessionContext {
            id: session.to_string(),
            epoch: cut.epoch,
            title: cut.session.title,
            metadata: cut.session.metadata,
            created_at: cut.session.created_at,
        },
        turn: TurnContext {
            id: turn.id.clone(),
            prompt_id: turn.prompt_id.clone(),
            reply_id: turn.reply_id.clone(),
            agent: turn.agent.clone(),
            attempt: turn.attempt,
            retry_of: turn.retry_of.clone(),
            by: turn.by.clone(),
        },
        messages,
    })
}

/// The session and the messages of a context; nothing if the session is not there any more.
async fn read(
    inner: &Inner,
    session: &Arc<str>,
    turn: &Turn,
    limit: usize,
) -> store::Result<Option<(Cut, Vec<Message>)>> {
    let Some(cut) = inner.store.cut(session, None, PageLimits::default()).await? else { return Ok(None) };
    let messages = inner.store.context(session, &turn.id, limit).await?;
    Ok(Some((cut, messages)))
}

fn unreadable() -> TurnError {
    TurnError {
        code: "store_unavailable".to_owned(),
        message: "The server could not read the conversation. Retry in a moment.".to_owned(),
        retryable: true,
    }
}

/// U+0000 from an agent becomes U+FFFD (L4): not every store can hold it.
fn clean(delta: &mut Delta) {
    if let Some(text) = delta.text.as_mut().filter(|text| text.contains('\0')) {
        *text = text.replace('\0', "\u{FFFD}");
    }
    delta.value = delta.value.take().map(clean_value);
}

/// An agent's JSON as it can be kept, and sent to clients that cut frames at commas.
fn clean_value(value: Box<RawValue>) -> Box<RawValue> {
    compacted(strict::without_nul(value))
}
