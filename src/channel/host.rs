//! What serves the channels of a node: routes, topics, limits, and the tasks that are running.
//!
//! Knows no connection. Its invariant: every task that a channel runs in is tracked here, and can be waited for.

use std::{
    collections::BTreeMap,
    future::Future,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio_util::task::TaskTracker;

use super::{Channel, Router};
use crate::pubsub::PubSub;

/// Limits on connections and their channels.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many bytes may wait to be read by one client before broadcasts fall back to replay.
    pub max_queue_bytes: usize,
    /// How many bytes of pushes of one client may wait to be handled before they are answered `rate_limited`.
    pub max_inbox_bytes: usize,
    /// How many pushes may wait in one channel before they are answered `rate_limited`.
    pub max_inbox: usize,
    /// How many topics one connection may join.
    pub max_topics: usize,
    /// How many messages a client may send in a second, and twice as many at once; more are answered `rate_limited`,
    /// and a client that goes on regardless is closed. None: any number.
    pub rate_limit: Option<NonZeroU32>,
    /// How many of them may be joins, beside as many at once as it may join topics. None: any number.
    pub join_limit: Option<NonZeroU32>,
    /// How long a join or a push may take, counted from when it was received.
    pub answer_within: Duration,
    /// How long a channel may take to say goodbye.
    pub terminate_within: Duration,
    /// The pause after a log could not be read.
    pub replay_pause: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_queue_bytes: 1024 * 1024,
            max_inbox_bytes: 1024 * 1024,
            max_inbox: 256,
            max_topics: 100,
            rate_limit: NonZeroU32::new(100),
            join_limit: NonZeroU32::new(20),
            answer_within: Duration::from_secs(8),
            terminate_within: Duration::from_secs(5),
            replay_pause: Duration::from_millis(500),
        }
    }
}

/// What serves the channels of a node. Clones share it.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    router: Router,
    pubsub: PubSub,
    options: Options,
    tasks: TaskTracker,
    runtime: tokio::runtime::Handle,
    tally: Tally,
}

#[derive(Debug, Default)]
struct Tally {
    /// Channels that are joined, one number for each route.
    channels: Vec<AtomicU64>,
    missed: AtomicU64,
    gaps: AtomicU64,
    deliveries: AtomicU64,
    slow_consumers: AtomicU64,
    pages: AtomicU64,
    rate_limited: AtomicU64,
    too_fast: AtomicU64,
    stalled: AtomicU64,
}

/// What has happened so far on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Channels that are joined now.
    pub channels: u64,
    /// Broadcasts that were queued for a client.
    pub deliveries: u64,
    /// Times that a subscription fell behind since its client was too slow.
    pub slow_consumers: u64,
    /// Pages of a log that were sent to those who were behind.
    pub pages: u64,
    /// Messages that were refused because they came too soon after others.
    pub rate_limited: u64,
    /// Connections that were closed because they went on regardless.
    pub too_fast: u64,
    /// Connections that were closed because their client read nothing for too long.
    pub stalled: u64,
    /// Ephemeral broadcasts that were left out for somebody.
    pub missed: u64,
    /// Times that a subscription missed records which the bus had lost, and read them from the log.
    pub gaps: u64,
}

impl Host {
    /// Serves `router`'s channels over `pubsub`. To be called inside the tokio runtime that is to run them.
    pub fn new(router: Router, pubsub: PubSub, options: Options) -> Self {
        let channels = router.kinds().map(|_| AtomicU64::new(0)).collect();
        let (tasks, tally) = (TaskTracker::new(), Tally { channels, ..Tally::default() });
        let runtime = tokio::runtime::Handle::current();
        Self { inner: Arc::new(Inner { router, pubsub, options, tasks, runtime, tally }) }
    }

    /// The topics of this node.
    pub fn pubsub(&self) -> &PubSub {
        &self.inner.pubsub
    }

    /// The limits.
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        let tally = &self.inner.tally;
        Counts {
            channels: tally.channels.iter().map(|count| count.load(Ordering::Relaxed)).sum(),
            deliveries: tally.deliveries.load(Ordering::Relaxed),
            slow_consumers: tally.slow_consumers.load(Ordering::Relaxed),
            pages: tally.pages.load(Ordering::Relaxed),
            rate_limited: tally.rate_limited.load(Ordering::Relaxed),
            too_fast: tally.too_fast.load(Ordering::Relaxed),
            stalled: tally.stalled.load(Ordering::Relaxed),
            missed: tally.missed.load(Ordering::Relaxed),
            gaps: tally.gaps.load(Ordering::Relaxed),
        }
    }

    /// Channels that are joined now, by what the topics of their route begin with.
    pub fn channels(&self) -> BTreeMap<&str, u64> {
        let mut channels = BTreeMap::new();
        for (kind, count) in self.inner.router.kinds().zip(&self.inner.tally.channels) {
            *channels.entry(kind).or_default() += count.load(Ordering::Relaxed);
        }
        channels
    }

    /// Waits until no channel has anything left to do, at most for `limit`. To be called when all connections are
    /// closed. Whether everything came to its end.
    pub async fn finished(&self, limit: Duration) -> bool {
        self.inner.tasks.close();
        tokio::time::timeout(limit, self.inner.tasks.wait()).await.is_ok()
    }

    /// A message was refused because it came too soon.
    pub fn count_rate_limited(&self) {
        self.inner.tally.rate_limited.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection was closed because its client sent too fast.
    pub fn count_too_fast(&self) {
        self.inner.tally.too_fast.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection was closed because its client read nothing.
    pub fn count_stalled(&self) {
        self.inner.tally.stalled.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether anybody serves `topic`.
    pub fn serves(&self, topic: &str) -> bool {
        self.inner.router.serves(topic)
    }

    /// Whether anybody serves `topic`, and others than its channel may speak there and be shown.
    pub fn is_open(&self, topic: &str) -> bool {
        self.inner.router.is_open(topic)
    }

    pub(super) fn open(&self, topic: &str) -> Option<Box<dyn Channel>> {
        self.inner.router.open(topic)
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.inner.tasks.spawn_on(task, &self.inner.runtime);
    }

    pub(super) fn count_joined(&self, topic: &str) {
        if let Some(count) = self.channels_like(topic) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn count_ended(&self, topic: &str) {
        if let Some(count) = self.channels_like(topic) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn channels_like(&self, topic: &str) -> Option<&AtomicU64> {
        self.inner.router.place(topic).and_then(|place| self.inner.tally.channels.get(place))
    }

    pub(super) fn count_gap(&self) {
        self.inner.tally.gaps.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_missed(&self, messages: u64) {
        self.inner.tally.missed.fetch_add(messages, Ordering::Relaxed);
    }

    pub(super) fn count_delivery(&self) {
        self.inner.tally.deliveries.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_slow(&self) {
        self.inner.tally.slow_consumers.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_page(&self) {
        self.inner.tally.pages.fetch_add(1, Ordering::Relaxed);
    }
}
