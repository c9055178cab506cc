//! The log: every write goes through a task that commits those of many sessions in one transaction.
//!
//! There are as many such lanes as the store can use, and a session is always in the same one. Commit, then publish
//! (L2): what has a seq leaves only after its transaction is known to be committed, in the order of its seqs, since one
//! stage of its lane commits and one publishes. No timer: a batch forms while the one before is committed.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    model::{
        Event, EventKind, Turn,
        machine::{Applied, Done, Op, Refused},
    },
    protocol::{Broadcast, Payload},
    pubsub::{Kind, NodeId, PubSub, Published},
    session::{deletion::Deletion, live_list::LiveList, tally::Tally, topic_of, wake},
    store::{self, Appended, Item, Store},
    telemetry::trace::Trace,
};

/// Why a write has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotWritten {
    /// The store is away; whether it was written is open. The same item may be written again.
    #[error("the store is not available")]
    Unavailable,
    /// The store refuses the content; it was not written.
    #[error("the store refuses the content")]
    Content,
}

/// What an item did, or why it changed nothing, or why nobody knows.
pub(super) type Outcome = Result<Result<Applied, Refused>, NotWritten>;

/// Called with each turn that a commit gave to this node, before anybody learns of it.
pub(super) type OnStarted = Box<dyn Fn(&Arc<str>, Turn) + Send + Sync>;
/// Called with each deletion, after what was appended before it was published and before it is answered.
pub(super) type OnDeleted = Box<dyn Fn(&Deletion) + Send + Sync>;

/// What a commit is told to.
pub(super) struct Hooks {
    pub(super) started: OnStarted,
    pub(super) deleted: OnDeleted,
}

struct Entry {
    item: Item,
    /// Nothing, where nobody wants to know.
    reply: Option<oneshot::Sender<Outcome>>,
    /// Of the write, from its way into the log to its answer.
    trace: Trace,
}

impl Entry {
    /// An item whose answer somebody waits for.
    fn wanted(item: Item) -> (Self, oneshot::Receiver<Outcome>) {
        let (reply, answer) = oneshot::channel();
        let trace = Trace::current().child("session.write");
        trace.note("rejoin.session", &item.session);
        (Self { item, reply: Some(reply), trace }, answer)
    }

    fn is_wanted(&self) -> bool {
        self.reply.as_ref().is_none_or(|reply| !reply.is_closed())
    }
}

/// The way into the log. Cheap to clone.
#[derive(Clone)]
pub(super) struct Log {
    lanes: Arc<Lanes>,
    shared: Arc<Shared>,
}

/// One inbox for each lane.
struct Lanes {
    inboxes: Vec<mpsc::Sender<Entry>>,
    hasher: RandomState,
}

impl Lanes {
    /// Where everything of a session goes in. There is at least one lane.
    fn of(&self, session: &str) -> &mpsc::Sender<Entry> {
        let lane = self.hasher.hash_one(session) % self.inboxes.len() as u64;
        &self.inboxes[usize::try_from(lane).unwrap_or(0)]
    }
}

#[derive(Default)]
struct Shared {
    /// Sessions of the batches that are committed at this moment, or are and are not published yet: what they start has
    /// no runner yet (I21).
    in_flight: Mutex<HashMap<Arc<str>, usize>>,
    /// Who waits for the end of a turn.
    waiters: Mutex<HashMap<String, Vec<oneshot::Sender<()>>>>,
    /// Nodes that wait for the end of a turn that runs here.
    waiting_nodes: Mutex<HashMap<String, Vec<NodeId>>>,
}

/// Items of one lane that wait for the batch before them; a caller whose item does not fit waits.
const INBOX: usize = 4_096;
/// Items that one transaction takes at most.
const BATCH: usize = 512;
/// About how many bytes of events are published as one message: what a client is sent at once.
const MESSAGE_BYTES: usize = 64 * 1024;
/// Batches that are committed and wait to be published; the next commit waits when there are more.
const PIPELINE: usize = 4;

impl Log {
    /// The way into a log, and the tasks that must run for it, one for each lane. They end when `closed`, after what is
    /// in the inboxes then; items that come later are not written.
    pub(super) fn start(
        store: &Arc<dyn Store>,
        pubsub: &PubSub,
        hooks: Hooks,
        list: &Arc<LiveList>,
        tally: &Arc<Tally>,
        closed: &CancellationToken,
    ) -> (Self, Vec<impl Future<Output = ()> + Send + use<>>) {
        let (shared, hooks) = (Arc::<Shared>::default(), Arc::new(hooks));
        let lane = |_| {
            let (inbox, receiver) = mpsc::channel(INBOX);
            let (committed, publish) = mpsc::channel(PIPELINE);
            let (store, closed) = (store.clone(), closed.clone());
            let committer = Committer { store, shared: shared.clone(), tally: tally.clone(), committed, closed };
            let (pubsub, hooks, list) = (pubsub.clone(), hooks.clone(), list.clone());
            let tally = tally.clone();
            let publisher = Publisher { pubsub, hooks, list, tally, shared: shared.clone() };
            let task = async move {
                tokio::join!(committer.run(receiver), publisher.run(publish));
            };
            (inbox, task)
        };
        let (inboxes, tasks) = (0..store.lanes().max(1)).map(lane).unzip();
        (Self { lanes: Arc::new(Lanes { inboxes, hasher: RandomState::new() }), shared }, tasks)
    }

    /// Hands an item to the next batch, waiting while the inbox is full. The order of these calls is the order in
    /// which items of a session take effect; the answer may be awaited later. Dropping it does not undo the item.
    pub(super) async fn submit(&self, item: Item) -> Pending {
        let (entry, answer) = Entry::wanted(item);
        // A closed log drops the item and with it the reply: the answer says that it was not written.
        let _closed = self.lanes.of(&entry.item.session).send(entry).await;
        Pending(answer)
    }

    /// Hands an item over that nobody waits for. It is dropped when the inbox is full: whoever posts looks again.
    pub(super) fn post(&self, item: Item) {
        let lane = self.lanes.of(&item.session);
        let _full = lane.try_send(Entry { item, reply: None, trace: Trace::default() });
    }

    /// Writes an item and waits for its answer.
    pub(super) async fn write(&self, item: Item) -> Outcome {
        self.submit(item).await.answer().await
    }

    /// How many items wait for the batch before them.
    pub(super) fn waiting(&self) -> usize {
        self.lanes.inboxes.iter().map(|inbox| inbox.max_capacity() - inbox.capacity()).sum()
    }

    /// Whether a batch with items of this session is being committed at this moment.
    pub(super) fn is_in_flight(&self, session: &str) -> bool {
        lock(&self.shared.in_flight).contains_key(session)
    }

    /// A future that is ready when a turn's terminal event has been committed here after this call, or another node has
    /// said that it has ended. Dropping it leaves nothing behind.
    pub(super) fn end_of(&self, turn_id: &str) -> EndOf {
        let (sender, ended) = oneshot::channel();
        lock(&self.shared.waiters).entry(turn_id.to_owned()).or_default().push(sender);
        EndOf { turn_id: turn_id.to_owned(), ended, shared: self.shared.clone() }
    }
}

/// Nodes that may wait for the end of one turn; a node that finds no place asks again by itself.
const WAITING_NODES: usize = 64;

impl Log {
    /// Another node waits for the end of a turn that runs here. To be undone by [`Log::forget`] when it runs no more.
    pub(super) fn tell_end_to(&self, turn_id: &str, node: NodeId) {
        let mut waiting = lock(&self.shared.waiting_nodes);
        let nodes = waiting.entry(turn_id.to_owned()).or_default();
        if nodes.len() < WAITING_NODES && !nodes.contains(&node) {
            nodes.push(node);
        }
    }

    /// A turn runs here no more, however that came.
    pub(super) fn forget(&self, turn_id: &str) {
        lock(&self.shared.waiting_nodes).remove(turn_id);
    }

    /// A turn is said to have ended: whoever waits for that looks.
    pub(super) fn ended(&self, turn_id: &str) {
        self.shared.ended(turn_id);
    }
}

impl Shared {
    fn ended(&self, turn_id: &str) {
        for waiter in lock(&self.waiters).remove(turn_id).unwrap_or_default() {
            // One that has gone needs no answer.
            let _gone = waiter.send(());
        }
    }
}

/// Waits for the end of a turn; see [`Log::end_of`].
pub(super) struct EndOf {
    turn_id: String,
    ended: oneshot::Receiver<()>,
    shared: Arc<Shared>,
}

impl Future for EndOf {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.ended).poll(cx).map(drop)
    }
}

impl Drop for EndOf {
    /// Most turns that are asked about have ended already: nothing would ever take their waiters off the map.
    fn drop(&mut self) {
        self.ended.close();
        let mut waiters = lock(&self.shared.waiters);
        if let Some(all) = waiters.get_mut(&self.turn_id) {
            all.retain(|waiter| !waiter.is_closed());
            if all.is_empty() {
                waiters.remove(&self.turn_id);
            }
        }
    }
}

/// An item on its way.
pub(super) struct Pending(oneshot::Receiver<Outcome>);

impl Pending {
    /// Its answer. Dropping this future does not undo the item.
    pub(super) async fn answer(self) -> Outcome {
        self.0.await.unwrap_or(Err(NotWritten::Unavailable))
    }
}

/// A committed batch on its way to those who wait for it.
struct Batch {
    items: Arc<Vec<Item>>,
    traces: Vec<Trace>,
    replies: Vec<Option<oneshot::Sender<Outcome>>>,
    outcomes: Vec<Outcome>,
    appended: Vec<Appended>,
}

/// The first stage of a lane: one transaction after the other.
struct Committer {
    store: Arc<dyn Store>,
    shared: Arc<Shared>,
    tally: Arc<Tally>,
    committed: mpsc::Sender<Batch>,
    closed: CancellationToken,
}

impl Committer {
    async fn run(self, mut inbox: mpsc::Receiver<Entry>) {
        let mut entries = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                () = self.closed.cancelled(), if !inbox.is_closed() => {
                    inbox.close();
                    continue;
                }
                received = inbox.recv_many(&mut entries, BATCH) => if received == 0 { return },
            }
            // Whoever gave up before the item was begun is told nothing and nothing is written for them.
            entries.retain(Entry::is_wanted);
            while !entries.is_empty() {
                let next = entries.drain(..batch_of(&entries));
                let (items, (replies, traces)): (Vec<_>, (Vec<_>, Vec<_>)) =
                    next.map(|entry| (entry.item, (entry.reply, entry.trace))).unzip();
                let batch = self.commit(Arc::new(items), replies, traces).await;
                if self.committed.send(batch).await.is_err() {
                    return;
                }
            }
        }
    }

    async fn commit(
        &self,
        items: Arc<Vec<Item>>,
        replies: Vec<Option<oneshot::Sender<Outcome>>>,
        traces: Vec<Trace>,
    ) -> Batch {
        let _trace = transaction(&traces);
        {
            let mut in_flight = lock(&self.shared.in_flight);
            for item in items.iter() {
                *in_flight.entry(item.session.clone()).or_default() += 1;
            }
        }
        self.tally.batch.were(items.len());
        let (outcomes, appended) = match self.transaction(items.clone()).await {
            Ok(committed) => (committed.outcomes.into_iter().map(Ok).collect(), committed.appended),
            Err(store::Error::Content { .. }) if items.len() > 1 => self.one_by_one(&items).await,
            Err(error) => {
                let outcome = not_written(&error);
                (items.iter().map(|_| Err(outcome)).collect(), Vec::new())
            }
        };
        Batch { items, traces, replies, outcomes, appended }
    }

    async fn transaction(&self, items: Arc<Vec<Item>>) -> store::Result<store::Committed> {
        let begun = Instant::now();
        let committed = self.store.commit(items).await;
        self.tally.append.took(begun.elapsed());
        if committed.is_err() {
            self.tally.not_committed.add(1);
        }
        committed
    }

    /// A batch that the store refuses for its content is repeated item by item: what fails alone fails alone (L3).
    async fn one_by_one(&self, items: &[Item]) -> (Vec<Outcome>, Vec<Appended>) {
        let (mut outcomes, mut appended) = (Vec::with_capacity(items.len()), Vec::new());
        for item in items {
            match self.transaction(Arc::new(vec![item.clone()])).await {
                Ok(committed) => {
                    outcomes.extend(committed.outcomes.into_iter().map(Ok));
                    appended.extend(committed.appended);
                }
                Err(error) => outcomes.push(Err(not_written(&error))),
            }
        }
        (outcomes, appended)
    }
}

/// The second stage of a lane: runners first, then everybody who listens, then those who asked. It works while the next
/// transaction is under way, one batch after the other, so that what is published keeps the order of its seqs.
struct Publisher {
    pubsub: PubSub,
    hooks: Arc<Hooks>,
    list: Arc<LiveList>,
    tally: Arc<Tally>,
    shared: Arc<Shared>,
}

impl Publisher {
    async fn run(self, mut committed: mpsc::Receiver<Batch>) {
        while let Some(batch) = committed.recv().await {
            self.batch(batch);
        }
    }

    fn batch(&self, Batch { items, traces, replies, outcomes, appended }: Batch) {
        for ((item, trace), outcome) in items.iter().zip(&traces).zip(&outcomes) {
            let Ok(Ok(applied)) = outcome else { continue };
            for turn in &applied.started {
                let trace = if applied.asked_for(turn) { trace.child("turn") } else { trace.consequence("turn") };
                trace.within(|| (self.hooks.started)(&item.session, turn.clone()));
            }
        }
        for appended in &appended {
            self.tally.appended(&appended.events);
            self.publish(appended);
        }
        for (item, outcome) in items.iter().zip(&outcomes) {
            let applied = outcome.as_ref().ok().and_then(|outcome| outcome.as_ref().ok());
            if let Some(deletion) = applied.and_then(|applied| Deletion::of(&item.session, &item.op, applied)) {
                (self.hooks.deleted)(&deletion);
            }
        }
        self.list.tell(&self.pubsub, changed(&items, &outcomes, &appended));
        for (reply, outcome) in replies.into_iter().zip(outcomes) {
            // Whoever asked may have gone; what was written stands.
            let _unheard = reply.map(|reply| reply.send(outcome));
        }
        let mut in_flight = lock(&self.shared.in_flight);
        for item in items.iter() {
            if let Some(count) = in_flight.get_mut(&item.session) {
                *count -= 1;
                if *count == 0 {
                    in_flight.remove(&item.session);
                }
            }
        }
    }

    fn publish(&self, appended: &Appended) {
        let topic = topic_of(&appended.session);
        if self.pubsub.wants_log(&topic) {
            let topic: Arc<str> = topic.into();
            let mut rest = appended.events.as_slice();
            while let Some(first) = rest.first() {
                let (text, count) = message_of(rest);
                let broadcast = Broadcast::new(topic.clone(), "events", Payload::raw(text));
                let kind = Kind::Logged { first: first.seq, last: first.seq + count as u64 - 1 };
                self.pubsub.publish(&topic, Published { kind, from: None, broadcast });
                rest = rest.get(count..).unwrap_or_default();
            }
        }
        for event in &appended.events {
            let terminal =
                matches!(event.kind, EventKind::TurnCompleted | EventKind::TurnFailed | EventKind::TurnCancelled);
            if let Some(turn_id) = event.turn_id.as_deref().filter(|_| terminal) {
                self.shared.ended(turn_id);
                for node in lock(&self.shared.waiting_nodes).remove(turn_id).unwrap_or_default() {
                    wake::ended(&self.pubsub, &node, turn_id);
                }
            }
        }
    }
}

/// Sessions that a batch has made, deleted, or changed in more than their deltas.
fn changed<'a>(
    items: &'a [Item],
    outcomes: &'a [Outcome],
    appended: &'a [Appended],
) -> impl Iterator<Item = &'a Arc<str>> {
    let comes_or_goes = |outcome: &Outcome| match outcome {
        Ok(Ok(applied)) => matches!(applied.done, Done::Created(true) | Done::Deleted { .. }),
        _ => false,
    };
    let items = items.iter().zip(outcomes).filter(move |(_, outcome)| comes_or_goes(outcome));
    let made = items.map(|(item, _)| &item.session);
    let tells = |appended: &&Appended| appended.events.iter().any(|event| event.kind != EventKind::TurnDelta);
    made.chain(appended.iter().filter(tells).map(|appended| &appended.session))
}

/// How many of these make one batch: a deletion is the last of its own, since what follows may make its session anew.
fn batch_of(entries: &[Entry]) -> usize {
    let deletes = |entry: &Entry| matches!(*entry.item.op, Op::Delete { .. });
    entries.iter().position(deletes).map_or(entries.len(), |place| place + 1)
}

/// The push of the first of some events, as many as make a message, and how many those are: at least one.
fn message_of(events: &[Event]) -> (String, usize) {
    let mut text = format!("{{\"prev\":{},\"events\":[", events.first().map_or(0, |first| first.seq - 1));
    let mut count = 0;
    for event in events {
        if text.len() > MESSAGE_BYTES && count > 0 {
            break;
        }
        if count > 0 {
            text.push(',');
        }
        event.write_to(&mut text);
        count += 1;
    }
    text.push_str("]}");
    (text, count)
}

/// The span of the transaction of a batch. It belongs to the first write in it that is traced, and names the others.
fn transaction(writes: &[Trace]) -> Trace {
    let mut traced = writes.iter().filter(|write| write.is_traced());
    let Some(first) = traced.next() else { return Trace::default() };
    let trace = first.child("store.commit");
    trace.note("rejoin.items", &writes.len().to_string());
    traced.for_each(|other| trace.link(other));
    trace
}

fn not_written(error: &store::Error) -> NotWritten {
    let source = std::error::Error::source(error).map(ToString::to_string);
    tracing::error!(%error, source, "a batch was not committed");
    match error {
        store::Error::Content { .. } => NotWritten::Content,
        _ => NotWritten::Unavailable,
    }
}

/// A short lock; what a panicking holder left is a plain set or map, true as it is.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiting_for_an_end_leaves_nothing_behind() {
        let lanes = Arc::new(Lanes { inboxes: Vec::new(), hasher: RandomState::new() });
        let log = Log { lanes, shared: Arc::default() };
        let waiting = || lock(&log.shared.waiters).values().map(Vec::len).sum::<usize>();
        let (first, second) = (log.end_of("t"), log.end_of("t"));
        drop(first);
        assert_eq!(waiting(), 1);
        for waiter in lock(&log.shared.waiters).remove("t").unwrap() {
            waiter.send(()).unwrap();
        }
        second.await;
        for n in 0..100 {
            drop(log.end_of(&format!("ended-{n}")));
        }
        assert!(lock(&log.shared.waiters).is_empty());
    }
}
