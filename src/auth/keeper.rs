//! Published keys, kept while they are good and read again in time.
//!
//! One task reads them: at intervals, and when a token names a key that is not held. Whoever waits for that waits for
//! the one reading that is under way, and there is none for [`Pace::pause`] after the last, so that tokens with made-up ids
//! cost nobody anything. The invariants: a set belongs to the keeper of its own source, and a key is found by source
//! and id, never by its id alone; a reading that fails leaves the keys as they are, but none outlives its source by
//! more than [`Pace::kept`].

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{KeySet, Source};

/// The times of a keeper.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// How often keys are read again.
    pub(super) interval: Duration,
    /// How soon a first reading that failed is repeated; each further one in a row takes twice as long, up to `interval`.
    pub(super) again: Duration,
    /// The shortest time between the end of a reading and the next that tokens ask for.
    pub(super) pause: Duration,
    /// How long a token waits for a reading.
    pub(super) patience: Duration,
    /// How long keys are used whose source gives no newer ones.
    pub(super) kept: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10 * 60),
            again: Duration::from_secs(2),
            pause: Duration::from_secs(10),
            patience: Duration::from_secs(3),
            kept: Duration::from_secs(24 * 3600),
        }
    }
}

/// What came of reading keys again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renewed {
    /// They were read.
    Read,
    /// They cannot be read, or not in time: the source may have others than those that are held.
    Failed,
    /// They were read a moment ago.
    Unasked,
}

/// The keys of one source. Clones share them.
#[derive(Clone)]
pub(super) struct Keys {
    shared: Arc<Shared>,
}

struct Shared {
    source: Source,
    pace: Pace,
    held: Mutex<Held>,
    /// Rung for the task: somebody misses a key.
    wanted: Notify,
    /// How many readings have ended.
    readings: watch::Sender<u64>,
}

#[derive(Default)]
struct Held {
    set: Option<(Arc<KeySet>, Instant)>,
    /// A reading is under way, or asked for.
    reading: bool,
    /// When the last one ended.
    ended: Option<Instant>,
    /// What was wrong with it.
    problem: Option<Arc<str>>,
    /// How many have failed in a row.
    failures: u32,
}

/// Ends the task that reads keys.
#[derive(Debug)]
pub struct Keeper {
    token: CancellationToken,
    task: JoinHandle<()>,
}

impl Keeper {
    /// Ends it and waits for its end.
    pub async fn stop(self) {
        self.token.cancel();
        // A task that panicked has ended too.
        let _ = self.task.await;
    }
}

impl Keys {
    /// Keys of `source`, which are read from here on by a task of their own.
    pub(super) fn start(source: Source, pace: Pace) -> (Self, Keeper) {
        let readings = watch::Sender::new(0);
        let shared = Shared { source, pace, held: Mutex::default(), wanted: Notify::new(), readings };
        let keys = Self { shared: Arc::new(shared) };
        let token = CancellationToken::new();
        let (reader, stopped) = (keys.clone(), token.clone());
        let task = tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = Box::pin(reader.read_for_ever()) => {}
            }
        });
        (keys, Keeper { token, task })
    }

    /// The keys, if there are any.
    pub(super) fn set(&self) -> Option<Arc<KeySet>> {
        let held = self.held();
        let (set, read) = held.set.as_ref()?;
        (read.elapsed() < self.shared.pace.kept).then(|| Arc::clone(set))
    }

    /// What is wrong, if there are no keys.
    pub(super) fn problem(&self) -> Option<String> {
        if self.set().is_some() {
            return None;
        }
        let problem = self.held().problem.clone();
        let problem = problem.unwrap_or_else(|| "it is being read".into());
        Some(format!("{}: {problem}", self.shared.source))
    }

    /// Waits until keys are there, at most for `patience`. Whether they are.
    pub(super) async fn first(&self, patience: Duration) -> bool {
        let mut readings = self.shared.readings.subscribe();
        let come = async { while self.set().is_none() && readings.changed().await.is_ok() {} };
        // What counts is whether they have come.
        let _ = timeout(patience, come).await;
        self.set().is_some()
    }

    /// Has the keys read again because one is missing, unless that was just done, and waits for it.
    pub(super) async fn renew(&self) -> Renewed {
        let mut readings = self.shared.readings.subscribe();
        let asked = self.ask();
        let in_time = !asked || timeout(self.shared.pace.patience, readings.changed()).await.is_ok();
        match (in_time && self.held().problem.is_none(), asked) {
            (false, _) => Renewed::Failed,
            (true, true) => Renewed::Read,
            (true, false) => Renewed::Unasked,
        }
    }

    /// Whether a reading is under way or was asked for here.
    fn ask(&self) -> bool {
        let mut held = self.held();
        if !held.reading {
            if held.ended.is_some_and(|ended| ended.elapsed() < self.shared.pace.pause) {
                return false;
            }
            held.reading = true;
            self.shared.wanted.notify_one();
        }
        true
    }

    async fn read_for_ever(&self) {
        loop {
            self.held().reading = true;
            let outcome = self.shared.source.load().await;
            let next = Instant::now() + self.settle(outcome);
            self.shared.readings.send_modify(|count| *count += 1);
            self.idle_until(next).await;
        }
    }

    /// Waits for the next reading that is due or asked for.
    async fn idle_until(&self, next: Instant) {
        loop {
            tokio::select! {
                () = sleep_until(next) => return,
                () = self.shared.wanted.notified() => {}
            }
            // A bell that was rung for the reading before is no reason for another one.
            if self.held().reading {
                return;
            }
        }
    }

    /// Takes over what was read. How soon to read again.
    fn settle(&self, outcome: Result<KeySet, String>) -> Duration {
        let (source, pace) = (&self.shared.source, self.shared.pace);
        let mut held = self.held();
        (held.reading, held.ended) = (false, Some(Instant::now()));
        match outcome {
            Ok(set) => {
                tracing::debug!(%source, keys = set.keys().len(), "the keys for tokens were read");
                set.left_out().iter().for_each(|key| tracing::debug!(%source, "{key}"));
                (held.set, held.problem, held.failures) = (Some((Arc::new(set), Instant::now())), None, 0);
                pace.interval
            }
            Err(problem) => {
                if held.problem.as_deref() != Some(&problem) {
                    tracing::warn!(%source, problem, "the keys for tokens cannot be read; those that are held stay");
                }
                held.problem = Some(problem.into());
                held.failures = held.failures.saturating_add(1);
                pace.again.saturating_mul(1 << (held.failures - 1).min(10)).min(pace.interval)
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.shared.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
