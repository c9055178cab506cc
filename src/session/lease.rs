//! The lease: this node's beat, written and read in a task that does nothing else.
//!
//! Every renewal reads everything that a node must know: who else beats, which running turns the store shows as this
//! node's, which cancels wait. A renewal that finds the own row dead or missing retires the node: what it ran is not
//! its own any more, and it goes on under a new incarnation that owns nothing (I3). No failure makes it wait longer
//! than `lease_renew` (O2).

use std::{collections::HashSet, sync::Arc, time::Instant};

use tokio::{
    sync::watch,
    time::{self, MissedTickBehavior},
};

use super::{Inner, new_node, owner::Stop, recovery};
use crate::{
    ids::{self, Incarnation},
    model::{NodeState, Owner, TurnError, machine::End, machine::Op},
    store::{Renewal, RunningTurn},
};

/// Renews until the shutdown ends it.
pub(super) async fn keep(inner: Arc<Inner>) {
    let renew = inner.options.lease_renew;
    let mut ticks = time::interval_at(time::Instant::now() + renew, renew);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (found, work) = watch::channel(Vec::new());
    inner.tasks.spawn(recovery::sweep(inner.clone(), work));
    loop {
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => return,
            _ = ticks.tick() => inner.renew(&found).await,
            // A cancel waits for a turn that runs here: what it is stands in the store.
            () = inner.renew_now.notified() => inner.renew(&found).await,
        }
    }
}

impl Inner {
    /// One renewal; the sweep that follows it is told what it found.
    pub(super) async fn renew(self: &Arc<Self>, found: &watch::Sender<Vec<RunningTurn>>) {
        let own = self.owner().incarnation;
        // Taken before: a turn that starts while the renewal is under way may be missing in what it read.
        let ran = self.runners.ids();
        let sent = Instant::now();
        let answer =
            time::timeout(self.options.lease_ttl, self.store.renew(&own, ids::beat(), self.clients.count())).await;
        let got = Instant::now();
        self.tally.renew.took(got.saturating_duration_since(sent));
        match answer {
            Ok(Ok(renewal)) => {
                let turns = self.renewed(&own, sent, got, renewal).await;
                if let Some(turns) = turns {
                    self.check_runners(&own, &turns, &ran);
                    found.send_replace(turns);
                }
            }
            Ok(Err(error)) => self.not_renewed(&error),
            Err(late) => self.not_renewed(&late),
        }
    }

    fn not_renewed(&self, error: &(dyn std::error::Error + 'static)) {
        let source = error.source().map(ToString::to_string);
        tracing::error!(%error, source, "the lease was not renewed");
        self.tally.not_renewed.add(1);
        self.set_seen(|seen| seen.current = false);
        self.judge(super::judge::Judge::forget);
    }

    /// Takes in what a renewal read; the running turns, if this node is still who it was.
    async fn renewed(
        self: &Arc<Self>,
        own: &Incarnation,
        sent: Instant,
        got: Instant,
        renewal: Renewal,
    ) -> Option<Vec<RunningTurn>> {
        if !renewal.renewed {
            self.retire().await;
            return None;
        }
        let live = renewal.nodes.iter().any(|node| node.owner.incarnation == *own && node.state == NodeState::Live);
        let history_changed = self.seen().history != renewal.history;
        self.set_seen(|seen| {
            seen.nodes.clone_from(&renewal.nodes);
            seen.renewed = got;
            seen.current = true;
            seen.history.clone_from(&renewal.history);
        });
        self.nodes.send_modify(|nodes| {
            nodes.rows.clone_from(&renewal.nodes);
            nodes.asked = sent;
        });
        if history_changed {
            self.new_history();
        }
        self.movements(|movements| movements.observe(&renewal.nodes, got));
        if live {
            self.judge(|judge| judge.observe(own, sent, got, &renewal.nodes));
        } else {
            self.judge(super::judge::Judge::forget);
        }
        Some(renewal.turns)
    }

    /// I7, I21: what the store shows as running here has a runner here, a runner learns of its intent, and one of those
    /// that `ran` before the renewal learns that its turn is not its own any more, even if its agent is silent.
    fn check_runners(self: &Arc<Self>, own: &Incarnation, turns: &[RunningTurn], ran: &[String]) {
        let owned: HashSet<&str> =
            turns.iter().filter(|turn| turn.owner == *own).map(|turn| turn.turn_id.as_str()).collect();
        for turn_id in ran.iter().filter(|turn_id| !owned.contains(turn_id.as_str())) {
            self.runners.stop(turn_id, Stop::Fenced);
        }
        for turn in turns.iter().filter(|turn| turn.owner == *own) {
            // Asked first: a batch that is published between the two questions has registered its runners by then.
            let in_flight = self.log.is_in_flight(&turn.session);
            if self.runners.has(&turn.turn_id) {
                if turn.intent {
                    self.runners.stop(&turn.turn_id, Stop::Intent);
                }
            } else if !in_flight {
                self.end_lost(own, turn);
            }
        }
    }

    fn end_lost(&self, own: &Incarnation, turn: &RunningTurn) {
        tracing::warn!(session = %turn.session, turn = %turn.turn_id, "a turn has no runner here: ending it, unless it has ended meanwhile");
        let op = Op::EndOwned {
            turn_id: turn.turn_id.clone(),
            incarnation: own.clone(),
            term: turn.term,
            end: End::Failed(TurnError::lost()),
        };
        // What is not written now is found again by the next renewal.
        self.log.post(self.item(&turn.session, op));
    }

    /// I3: this node has been judged dead. Whatever it ran is somebody else's to end.
    async fn retire(self: &Arc<Self>) {
        let owner = Owner { node: self.options.node_name.clone(), incarnation: Incarnation::mint() };
        tracing::warn!(old = %self.owner().incarnation, new = %owner.incarnation, "this node was declared dead; it goes on under a new identity");
        self.tally.retired.add(1);
        self.runners.stop_all(Stop::Fenced);
        self.judge(super::judge::Judge::forget);
        match self.store.start_node(new_node(&owner, &self.options, false)).await {
            Ok(()) => {
                self.nodes.send_modify(|nodes| nodes.own = owner.incarnation.clone());
                self.set_seen(|seen| {
                    seen.owner = owner;
                    seen.renewed = Instant::now();
                });
            }
            Err(error) => self.not_renewed(&error),
        }
    }

    /// L11: every epoch has changed. What runs here writes to a log that nobody shares any more.
    fn new_history(&self) {
        tracing::error!("the store's history has changed: ending what runs here and every session's channels");
        self.runners.stop_all(Stop::Fenced);
        self.heads.forget_all();
        for topic in self.pubsub.topic_names() {
            if topic.starts_with(super::TOPIC_PREFIX) {
                self.restart_channels(&topic);
            }
        }
    }
}
