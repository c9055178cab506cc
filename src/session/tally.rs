//! What has happened to sessions on this node so far, for those who measure.
//!
//! Everything is counted where it happens, with atomics and without a name looked up: names are given to what is read.
//! Its invariant: what is told apart is a list that is fixed at the start, so that no client can make it longer.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Sessions, snapshot::Given};
use crate::{
    agent::Registry,
    measure::Histogram,
    model::{EndReason, Event, EventKind, NodeState, TurnStatus},
    protocol::codes::turn_error,
    store::SnapshotReason,
};

/// A failure whose code is none of ours: agents may have codes of their own.
const OTHER: &str = "other";

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, more: usize) {
        self.0.fetch_add(u64::try_from(more).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What has happened so far.
#[derive(Debug)]
pub struct Tally {
    /// Events that this node has appended.
    pub events: Counter,
    /// How long one transaction of the log takes.
    pub append: Histogram,
    /// How many items it writes.
    pub batch: Histogram,
    /// Transactions that were not committed.
    pub not_committed: Counter,
    /// How long a join takes, from its reconciliation to its reply.
    pub join: Histogram,
    /// Turns that began to run here.
    pub started: Counter,
    /// Renewals of the lease: how long each takes, whether it works or not.
    pub renew: Histogram,
    /// Those that did not work.
    pub not_renewed: Counter,
    /// Times that this node was declared dead and went on under a new identity.
    pub retired: Counter,
    /// Other nodes that this node has declared dead.
    pub buried: Counter,
    /// Sessions found behind the store by comparing heads, and brought up to date.
    pub behind: Counter,
    /// Joins that were answered with a replay.
    pub replays: Counter,
    snapshots: [(SnapshotReason, Counter); 5],
    ends: Vec<(TurnStatus, &'static str, Counter)>,
    agents: BTreeMap<String, Arc<AgentTally>>,
}

/// How an agent's turns went.
#[derive(Debug)]
pub struct AgentTally {
    /// How long they ran, from start to end.
    pub turn: Histogram,
    /// How long it took until their first output.
    pub first_output: Histogram,
}

impl Tally {
    pub(super) fn new(agents: &Registry) -> Self {
        use SnapshotReason::{CursorAhead, CursorInvalid, EpochChanged, FirstJoin, Trimmed};
        let snapshots =
            [FirstJoin, CursorInvalid, EpochChanged, CursorAhead, Trimmed].map(|reason| (reason, Counter::default()));
        let failures = turn_error::ALL.into_iter().chain([OTHER]).map(|code| (TurnStatus::Failed, code));
        let cancels = EndReason::NAMES.into_iter().map(|reason| (TurnStatus::Cancelled, reason));
        let ends = std::iter::once((TurnStatus::Completed, "")).chain(failures).chain(cancels);
        let agent = |name: &str| {
            let tally = AgentTally { turn: Histogram::slow(), first_output: Histogram::slow() };
            (name.to_owned(), Arc::new(tally))
        };
        Self {
            events: Counter::default(),
            append: Histogram::quick(),
            batch: Histogram::numbers(),
            not_committed: Counter::default(),
            join: Histogram::quick(),
            started: Counter::default(),
            renew: Histogram::quick(),
            not_renewed: Counter::default(),
            retired: Counter::default(),
            buried: Counter::default(),
            behind: Counter::default(),
            replays: Counter::default(),
            snapshots,
            ends: ends.map(|(status, reason)| (status, reason, Counter::default())).collect(),
            agents: agents.names().map(agent).collect(),
        }
    }

    /// Joins that were answered with a snapshot, by why.
    pub fn snapshots(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.snapshots.iter().map(|(reason, count)| (reason.name(), count.get()))
    }

    /// Turns whose end this node has written, by status and reason; for a failure the error's code.
    pub fn ends(&self) -> impl Iterator<Item = (TurnStatus, &'static str, u64)> {
        self.ends.iter().map(|(status, reason, count)| (*status, *reason, count.get()))
    }

    /// How turns went that ran here, by agent.
    pub fn agents(&self) -> impl Iterator<Item = (&str, &AgentTally)> {
        self.agents.iter().map(|(name, tally)| (name.as_str(), &**tally))
    }

    pub(super) fn agent(&self, name: &str) -> Option<Arc<AgentTally>> {
        self.agents.get(name).cloned()
    }

    pub(super) fn joined(&self, given: Option<Given>, took: Duration) {
        self.join.took(took);
        match given {
            Some(Given::Replay) => self.replays.add(1),
            Some(Given::Snapshot(why)) => {
                if let Some((_, count)) = self.snapshots.iter().find(|(reason, _)| *reason == why) {
                    count.add(1);
                }
            }
            None => {}
        }
    }

    /// Takes in what a commit has appended.
    pub(super) fn appended(&self, events: &[Event]) {
        self.events.add(events.len());
        for event in events {
            let status = match event.kind {
                EventKind::TurnCompleted => TurnStatus::Completed,
                EventKind::TurnFailed => TurnStatus::Failed,
                EventKind::TurnCancelled => TurnStatus::Cancelled,
                _ => continue,
            };
            self.ended(status, event.reason.as_deref().unwrap_or_default());
        }
    }

    fn ended(&self, status: TurnStatus, why: &str) {
        let find = |why: &str| self.ends.iter().find(|(of, reason, _)| *of == status && *reason == why);
        if let Some((.., count)) = find(why).or_else(|| find(OTHER)) {
            count.add(1);
        }
    }
}

/// How this node is at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulse {
    /// Turns that run here.
    pub running: usize,
    /// How long the one has run that has run longest.
    pub oldest_running: Option<Duration>,
    /// Items that wait to be written to the log.
    pub to_write: usize,
    /// How long ago the last renewal was answered that worked.
    pub renewed: Duration,
    /// Whether this node takes turns and connections.
    pub ready: bool,
    /// Nodes of the store by state, as that renewal found them.
    pub nodes: [(NodeState, usize); 3],
}

impl Sessions {
    /// What has happened so far.
    pub fn tally(&self) -> &Tally {
        &self.inner.tally
    }

    /// How this node is at this moment.
    pub fn pulse(&self) -> Pulse {
        let (seen, now) = (self.inner.seen(), Instant::now());
        let in_state = |state| seen.nodes.iter().filter(|node| node.state == state).count();
        Pulse {
            running: self.running(),
            oldest_running: self.inner.runners.oldest().map(|since| now.saturating_duration_since(since)),
            to_write: self.inner.log.waiting(),
            renewed: now.saturating_duration_since(seen.renewed),
            ready: self.is_ready(),
            nodes: [NodeState::Live, NodeState::Draining, NodeState::Dead].map(|state| (state, in_state(state))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{Agent, Echo};

    fn tally() -> Tally {
        let echo: Arc<dyn Agent> = Arc::new(Echo::new(Duration::ZERO));
        Tally::new(&Registry::new("echo", BTreeMap::from([("echo".to_owned(), echo)])).unwrap())
    }

    fn event(kind: EventKind, reason: Option<&str>) -> Event {
        Event { seq: 1, kind, turn_id: None, flush: None, reason: reason.map(Arc::from), body: String::new() }
    }

    #[test]
    fn an_end_is_counted_under_its_reason_and_a_code_of_somebody_else_s_under_other() {
        let tally = tally();
        tally.appended(&[
            event(EventKind::TurnStarted, None),
            event(EventKind::TurnCompleted, None),
            event(EventKind::TurnFailed, Some("timeout")),
            event(EventKind::TurnFailed, Some("their_own")),
            event(EventKind::TurnFailed, Some("another")),
            event(EventKind::TurnCancelled, Some("owner_gone")),
        ]);
        assert_eq!(tally.events.get(), 6);
        let counted: Vec<_> = tally.ends().filter(|(.., count)| *count > 0).collect();
        assert_eq!(
            counted,
            [
                (TurnStatus::Completed, "", 1),
                (TurnStatus::Failed, "timeout", 1),
                (TurnStatus::Failed, "other", 2),
                (TurnStatus::Cancelled, "owner_gone", 1),
            ]
        );
    }

    #[test]
    fn a_join_is_counted_as_what_it_was_given() {
        let tally = tally();
        for given in [Given::Replay, Given::Snapshot(SnapshotReason::Trimmed), Given::Snapshot(SnapshotReason::Trimmed)]
        {
            tally.joined(Some(given), Duration::from_millis(1));
        }
        let trimmed = tally.snapshots().find(|(reason, _)| *reason == "trimmed");
        assert_eq!((tally.replays.get(), trimmed, tally.join.read().count), (1, Some(("trimmed", 2)), 3));
    }
}
