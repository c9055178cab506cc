//! Who may be judged dead: pure reckoning over this node's own renewals and its own monotonic clock.
//!
//! A node may be tombstoned when one and the same beat of it was seen from the first renewal that read it to the
//! sending of the last, for at least its own lease, in a run of renewals without a pause. No clock of the store or of
//! another node takes part. The tombstone itself is a compare-and-set on that beat; this only says whom to try.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    ids::Incarnation,
    model::{Node, NodeState, turn::Liveness},
};

/// One beat, seen again and again.
#[derive(Debug, Clone, Copy)]
struct Run {
    beat: i64,
    lease_ttl: Duration,
    /// When the first renewal that saw it had been answered.
    first: Instant,
    /// When the last renewal that saw it was sent.
    last: Instant,
}

/// What one node has seen of the others.
#[derive(Debug)]
pub(super) struct Judge {
    longest_pause: Duration,
    last_got: Option<Instant>,
    runs: HashMap<Incarnation, Run>,
}

impl Judge {
    /// A judge that renews every `lease_renew`. It has seen nothing yet, so it judges nobody for one lease.
    pub(super) fn new(lease_renew: Duration) -> Self {
        Self { longest_pause: lease_renew * 2, last_got: None, runs: HashMap::new() }
    }

    /// Takes in what a renewal, sent and answered at these moments, read. Only of a judge whose own row is live.
    pub(super) fn observe(&mut self, own: &Incarnation, sent: Instant, got: Instant, nodes: &[Node]) {
        if self.last_got.is_some_and(|last| got.saturating_duration_since(last) > self.longest_pause) {
            self.runs.clear();
        }
        self.last_got = Some(got);
        let mut runs = HashMap::new();
        for node in nodes.iter().filter(|node| node.owner.incarnation != *own && node.state != NodeState::Dead) {
            let run = self.runs.get(&node.owner.incarnation).filter(|run| run.beat == node.beat);
            let run = Run {
                beat: node.beat,
                lease_ttl: Duration::from_millis(node.lease_ttl_ms),
                first: run.map_or(got, |run| run.first),
                last: run.map_or(got, |_| sent),
            };
            runs.insert(node.owner.incarnation.clone(), run);
        }
        self.runs = runs;
    }

    /// Forgets everything: a renewal failed to read or the own row was not live.
    pub(super) fn forget(&mut self) {
        self.runs.clear();
        self.last_got = None;
    }

    /// Whom to tombstone, each with the beat that the tombstone must find.
    pub(super) fn verdicts(&self) -> Vec<(Incarnation, i64)> {
        self.runs
            .iter()
            .filter(|(_, run)| run.last.saturating_duration_since(run.first) >= run.lease_ttl)
            .map(|(incarnation, run)| (incarnation.clone(), run.beat))
            .collect()
    }

    /// What is known of a node at this moment.
    pub(super) fn liveness(&self, incarnation: &Incarnation, now: Instant) -> Liveness {
        match self.runs.get(incarnation) {
            Some(run) if now.saturating_duration_since(run.first) >= run.lease_ttl => Liveness::Unknown,
            _ => Liveness::Alive,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Owner;

    const TTL: u64 = 6_000;

    fn node(name: &str, beat: i64) -> Node {
        let owner = Owner { node: name.to_owned(), incarnation: Incarnation(name.to_owned()) };
        Node { owner, state: NodeState::Live, beat, lease_ttl_ms: TTL, exclusive: false, connections: 0 }
    }

    struct Watch {
        judge: Judge,
        start: Instant,
    }

    impl Watch {
        fn new() -> Self {
            Self { judge: Judge::new(Duration::from_secs(1)), start: Instant::now() }
        }

        /// A renewal sent and answered at these milliseconds that read `beat` of the other node.
        fn renewal(&mut self, sent: u64, got: u64, beat: i64) -> usize {
            let at = |ms| self.start + Duration::from_millis(ms);
            self.judge.observe(
                &Incarnation("me".into()),
                at(sent),
                at(got),
                &[node("me", sent as i64), node("other", beat)],
            );
            self.judge.verdicts().len()
        }
    }

    #[test]
    fn one_beat_seen_for_a_lease_is_a_verdict_and_not_before() {
        let mut watch = Watch::new();
        for second in 0..6 {
            assert_eq!(watch.renewal(second * 1_000, second * 1_000 + 10, 7), 0, "{second}");
        }
        // Sent at 6,000, the first was answered at 10: seen for 5,990 ms.
        assert_eq!(watch.renewal(6_000, 6_010, 7), 0);
        assert_eq!(watch.renewal(7_000, 7_010, 7), 1);
        assert_eq!(watch.judge.verdicts()[0].1, 7);
    }

    #[test]
    fn any_other_beat_is_a_movement() {
        let mut watch = Watch::new();
        for second in 0..30 {
            assert_eq!(watch.renewal(second * 1_000, second * 1_000, (second / 5) as i64), 0);
        }
    }

    #[test]
    fn i4_a_pause_of_the_judge_breaks_its_run() {
        let mut watch = Watch::new();
        for second in 0..6 {
            watch.renewal(second * 1_000, second * 1_000, 7);
        }
        // An outage of a minute: the same beat afterwards proves nothing.
        assert_eq!(watch.renewal(66_000, 66_000, 7), 0);
        for second in 67..72 {
            assert_eq!(watch.renewal(second * 1_000, second * 1_000, 7), 0);
        }
        assert_eq!(watch.renewal(72_000, 72_000, 7), 1);
    }

    #[test]
    fn a_renewal_that_was_long_under_way_counts_from_its_sending() {
        let mut watch = Watch::new();
        watch.renewal(0, 0, 7);
        for ms in [1_000, 2_000, 3_000, 4_000] {
            watch.renewal(ms, ms, 7);
        }
        // Sent at 4,500 and answered at 6,000: what it read may be from 4,500.
        assert_eq!(watch.renewal(4_500, 6_000, 7), 0);
    }

    #[test]
    fn a_node_that_stands_still_is_unknown_before_it_may_be_judged() {
        let mut watch = Watch::new();
        watch.renewal(0, 0, 7);
        let at = |ms| watch.start + Duration::from_millis(ms);
        let other = Incarnation("other".into());
        assert_eq!(watch.judge.liveness(&other, at(5_999)), Liveness::Alive);
        assert_eq!(watch.judge.liveness(&other, at(6_000)), Liveness::Unknown);
        assert!(watch.judge.verdicts().is_empty());
    }
}
