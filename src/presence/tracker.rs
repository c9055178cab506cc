//! Keeps the presence of all topics on this node and publishes each change.
//!
//! The first change of a quiet topic is published at once; those that follow within [`Options::window`] of the last
//! publication wait and are published as one diff, by one task for all topics ([`Flusher`]). Knows no channel. The
//! invariant: a topic's changes, and their publication, happen under the topic's one short lock, so that everybody sees
//! its diffs in one order; and where the task has ended every change is published at once.

use std::{
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use serde_json::{Map, Value};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Error, check_key,
    due::Due,
    members::Change,
    own::Ledger,
    state::{Extras, Meta},
    topic::{Batch, Topic},
};
use crate::{
    ids,
    protocol::{Broadcast, Payload, codes::event},
    pubsub::{Kind, PubSub, Published},
};

/// Given a topic and some of its keys, says what stands beside `metas` in their entries: `{KEY: {…}}`, for the keys
/// that have something. Asked once for each diff, and once for the changed keys of a state that is asked for; all
/// readers share the answer. Called under the topic's lock: it must answer from memory, and not call the tracker.
pub type Fetch = Arc<dyn Fn(&str, &[&str]) -> Extras + Send + Sync>;

/// How presence is published.
#[derive(Clone)]
pub struct Options {
    /// How long after a topic's last diff its changes are gathered into the next one. Zero: each change is published
    /// alone, at once.
    pub window: Duration,
    /// What is added to the entries of keys.
    pub fetch: Option<Fetch>,
    /// Whether other nodes are to show what is shown here: for a [`super::Cluster`].
    pub shared: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { window: Duration::from_millis(50), fetch: None, shared: false }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { window, fetch, shared } = self;
        let mut text = f.debug_struct("Options");
        text.field("window", window).field("fetch", &fetch.is_some()).field("shared", shared).finish()
    }
}

/// Presence of all topics of a node. Cheap to clone.
///
/// A channel shows its client by [`Tracker::track`] and keeps the [`Tracked`] as long as the client is there. Clients
/// need to be given [`Tracker::state`] as `presence_state`, read after the subscription to the topic, and then every
/// `presence_diff` that was published since that subscription; both sides of a diff are always there:
///
/// ```json
/// {"u1":{"metas":[{"name":"Ada","phx_ref":"a1"}]}}
/// {"joins":{"u1":{"metas":[{"name":"Ada L.","phx_ref":"a2","phx_ref_prev":"a1"}]}},
///  "leaves":{"u1":{"metas":[{"name":"Ada","phx_ref":"a1"}]}}}
/// ```
#[derive(Clone)]
pub struct Tracker {
    inner: Arc<Inner>,
}

struct Inner {
    pubsub: PubSub,
    options: Options,
    topics: DashMap<Arc<str>, Arc<Entry>>,
    /// Topics with changes that wait, each at most once.
    due: Due<Arc<Entry>>,
    /// Random at each start, so that no `phx_ref` is used twice.
    prefix: String,
    next: AtomicU64,
    /// What is shown here and other nodes are to be told of; nothing where there are none.
    ledger: Option<Arc<Ledger>>,
}

/// One topic and its place in time.
struct Entry {
    name: Arc<str>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    topic: Topic,
    /// When its last diff was published.
    published: Option<Instant>,
    /// It waits for its time; the task, or the end of the task, will come by.
    queued: bool,
    /// It was empty and is off the map: whoever holds it must look for the one that took its place.
    gone: bool,
}

/// The task that publishes what was gathered. Ends when it is stopped or dropped; what waits then is published, and
/// from then on every change at once.
pub struct Flusher {
    stop: DropGuard,
    task: JoinHandle<()>,
}

impl Flusher {
    /// Ends the task and waits for its end.
    pub async fn stop(self) {
        let Self { stop, task } = self;
        drop(stop);
        if let Err(error) = task.await {
            tracing::error!(%error, "the task that publishes presence did not end as it should");
        }
    }
}

/// A presence that lasts until this is dropped.
pub struct Tracked {
    tracker: Tracker,
    topic: Arc<str>,
    key: Arc<str>,
    phx_ref: Mutex<Arc<str>>,
}

impl Tracker {
    /// Nobody is anywhere yet. Each change is published alone, at once; for many members see [`Tracker::start`].
    pub fn new(pubsub: PubSub) -> Self {
        Self::with(pubsub, Options::default())
    }

    /// Nobody is anywhere yet, and a task gathers changes. To be called inside a tokio runtime.
    pub fn start(pubsub: PubSub, options: Options) -> (Self, Flusher) {
        let tracker = Self::with(pubsub, options);
        tracker.inner.due.open();
        let token = CancellationToken::new();
        let task = tokio::spawn(flush(Closing(Arc::clone(&tracker.inner)), token.clone()));
        (tracker, Flusher { stop: token.drop_guard(), task })
    }

    fn with(pubsub: PubSub, options: Options) -> Self {
        let (topics, due) = (DashMap::new(), Due::new());
        let ledger = options.shared.then(Arc::default);
        let inner = Inner { pubsub, options, topics, due, prefix: ids::short(), next: AtomicU64::new(0), ledger };
        Self { inner: Arc::new(inner) }
    }

    /// Shows `fields` under `key` on `topic`, and tells everybody there. A key may be shown any number of times: each
    /// is a meta of its own. Numbers are welcome as keys and become text. `phx_ref` and `phx_ref_prev` in `fields` are
    /// left out.
    ///
    /// # Errors
    /// [`Error::Key`] where the key would break the clients of others.
    pub fn track(&self, topic: &str, key: impl fmt::Display, fields: &Map<String, Value>) -> Result<Tracked, Error> {
        let key = key.to_string();
        check_key(&key)?;
        let (topic, key, phx_ref): (Arc<str>, Arc<str>, _) = (topic.into(), key.into(), self.inner.next_ref());
        self.inner.change(&topic, |shown| {
            shown.join(&key, &phx_ref, fields);
            self.inner.record(&topic, || {
                let meta = shown.members().meta(&key, &phx_ref)?.clone();
                Some(Change::Join { key: key.clone(), meta })
            });
            None
        });
        Ok(Tracked { tracker: self.clone(), topic, key, phx_ref: Mutex::new(phx_ref) })
    }

    /// Who is on a topic, as `presence_state` shows it: `{KEY: {"metas": [META, …]}, …}`. Every change so far is in
    /// it. Encoded once per change, however many ask.
    pub fn state(&self, topic: &str) -> Arc<Payload> {
        match self.inner.find(topic) {
            Some(entry) => entry.lock().topic.give(&|keys| self.inner.fetch(topic, keys)),
            None => Arc::new(Payload::empty()),
        }
    }

    /// Who is on a topic: for each key its metas, oldest first. Every change so far is in it.
    pub fn list(&self, topic: &str) -> BTreeMap<String, Vec<Meta>> {
        self.inner.find(topic).map(|entry| entry.lock().topic.list()).unwrap_or_default()
    }

    /// The metas under one key, oldest first; none where nobody is there under it.
    pub fn get(&self, topic: &str, key: impl fmt::Display) -> Vec<Meta> {
        let key = key.to_string();
        self.inner.find(topic).map(|entry| entry.lock().topic.members().metas(&key).to_vec()).unwrap_or_default()
    }

    /// Shows what another node shows. Each change is taken as it is: the other node has checked it.
    pub(super) fn take(&self, topic: &Arc<str>, changes: Vec<Change>) {
        self.inner.change(topic, |topic| {
            let take = |change| match change {
                Change::Join { key, meta } => topic.enter(&key, meta),
                Change::Replace { key, old, meta } => topic.replace(&key, &old, meta),
                Change::Leave { key, phx_ref } => topic.leave(&key, &phx_ref),
            };
            changes.into_iter().filter_map(take).collect::<Vec<_>>()
        });
    }

    /// What is shown here, for those who tell other nodes.
    pub(super) fn ledger(&self) -> Option<Arc<Ledger>> {
        self.inner.ledger.clone()
    }

    /// On how many topics anybody is shown.
    pub fn topics(&self) -> usize {
        self.inner.topics.len()
    }

    /// How many keys are on a topic.
    pub fn count(&self, topic: &str) -> usize {
        self.inner.find(topic).map_or(0, |entry| entry.lock().topic.members().len())
    }
}

impl Inner {
    fn next_ref(&self) -> Arc<str> {
        format!("{}{:x}", self.prefix, self.next.fetch_add(1, Ordering::Relaxed)).into()
    }

    /// Has other nodes told of a change. Under the topic's lock, so that they hear of changes in their order.
    fn record(&self, topic: &Arc<str>, change: impl FnOnce() -> Option<Change>) {
        if let Some(ledger) = &self.ledger
            && let Some(change) = change()
        {
            ledger.record(topic, change);
        }
    }

    fn find(&self, topic: &str) -> Option<Arc<Entry>> {
        self.topics.get(topic).map(|entry| Arc::clone(&entry))
    }

    fn open(&self, topic: &Arc<str>) -> Arc<Entry> {
        let new = || Arc::new(Entry { name: Arc::clone(topic), held: Mutex::default() });
        self.find(topic).unwrap_or_else(|| Arc::clone(&self.topics.entry(Arc::clone(topic)).or_insert_with(new)))
    }

    /// Changes a topic, and publishes the change or has it published soon. What `change` answers is published before.
    fn change<B: IntoIterator<Item = Batch>>(&self, topic: &Arc<str>, change: impl FnOnce(&mut Topic) -> B) {
        loop {
            let entry = self.open(topic);
            let mut held = entry.lock();
            if held.gone {
                drop(held);
                self.forget(&entry);
                continue;
            }
            for first in change(&mut held.topic) {
                self.publish(&entry.name, &mut held, &first);
            }
            self.tell(&entry, held, false);
            return;
        }
    }

    /// Publishes what is pending: now if it is time, or `now` is asked for; else it waits for the task.
    fn tell(&self, entry: &Arc<Entry>, mut held: MutexGuard<'_, Held>, now: bool) {
        if !held.queued {
            let at = Instant::now();
            let ready = held.published.map_or(at, |published| published + self.options.window);
            let wait = !now && ready > at && !held.topic.is_told();
            held.queued = wait && self.due.add(ready, Arc::clone(entry));
            if !held.queued
                && let Some(batch) = held.topic.take()
            {
                self.publish(&entry.name, &mut held, &batch);
            }
        }
        held.gone = held.topic.is_empty() && !held.queued;
        let gone = held.gone;
        drop(held);
        if gone {
            self.forget(entry);
        }
    }

    /// The time of a topic that waited has come.
    fn flush(&self, entry: &Arc<Entry>, now: bool) {
        let mut held = entry.lock();
        held.queued = false;
        self.tell(entry, held, now);
    }

    fn publish(&self, topic: &Arc<str>, held: &mut Held, batch: &Batch) {
        let payload = batch.encode(&|keys| self.fetch(topic, keys));
        let broadcast = Broadcast::new(Arc::clone(topic), event::PRESENCE_DIFF, payload);
        self.pubsub.publish(topic, Published { kind: Kind::Presence, from: None, broadcast });
        held.published = Some(Instant::now());
    }

    fn fetch(&self, topic: &str, keys: &[&str]) -> Extras {
        let Some(fetch) = &self.options.fetch else { return Extras::new() };
        // Called in drops and under a lock, where a panic of somebody else's code must not end more than itself.
        catch_unwind(AssertUnwindSafe(|| fetch(topic, keys))).unwrap_or_else(|_| {
            tracing::error!(topic, "what stands beside a presence panicked and is left out");
            Extras::new()
        })
    }

    /// Takes `gone` off the map, unless a new one has its place already.
    fn forget(&self, gone: &Arc<Entry>) {
        self.topics.remove_if(&gone.name, |_, there| Arc::ptr_eq(there, gone));
    }
}

impl Entry {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Publishes what waits, and lets nothing wait any more, however the task ends.
struct Closing(Arc<Inner>);

impl Drop for Closing {
    fn drop(&mut self) {
        for entry in self.0.due.close() {
            self.0.flush(&entry, true);
        }
    }
}

/// Publishes each topic's changes when it is time. No wait between taking a topic out and publishing it, so that no
/// topic is lost with this task.
async fn flush(closing: Closing, stop: CancellationToken) {
    let inner = &closing.0;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = inner.due.ready() => {}
        }
        while let Some(entry) = inner.due.pop(Instant::now()) {
            inner.flush(&entry, false);
            tokio::task::yield_now().await;
        }
    }
}

impl Tracked {
    /// Replaces what is shown; the new meta gets a `phx_ref` of its own.
    pub fn update(&self, fields: &Map<String, Value>) {
        let mut phx_ref = self.phx_ref.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = &self.tracker.inner;
        let new = inner.next_ref();
        inner.change(&self.topic, |topic| {
            let first = topic.update(&self.key, &phx_ref, &new, fields);
            inner.record(&self.topic, || {
                let meta = topic.members().meta(&self.key, &new)?.clone();
                Some(Change::Replace { key: self.key.clone(), old: phx_ref.clone(), meta })
            });
            first
        });
        *phx_ref = new;
    }

    /// Ends the presence and tells everybody. Dropping does the same.
    pub fn untrack(self) {
        drop(self);
    }

    /// Names the meta that is shown at this moment.
    pub fn phx_ref(&self) -> String {
        self.shown().to_string()
    }

    fn shown(&self) -> Arc<str> {
        self.phx_ref.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let (phx_ref, inner) = (self.shown(), &self.tracker.inner);
        inner.change(&self.topic, |topic| {
            let first = topic.leave(&self.key, &phx_ref);
            inner.record(&self.topic, || Some(Change::Leave { key: self.key.clone(), phx_ref: phx_ref.clone() }));
            first
        });
    }
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
mod tests;
