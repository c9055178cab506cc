//! Recovery: what ends turns whose owner is gone, and moves queues, with nobody connected.
//!
//! One predicate — needs work — and one transaction — [`Op::Reconcile`] — at a join, a list, a send, a cancel, a
//! sweep and a start. The sweep follows each renewal: tombstones first, then whatever needs work.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{self, Instant},
};

use super::{Inner, owner::Stop};
use crate::{
    clock::{self, Timestamp},
    model::machine::{End, Op},
    protocol::{Broadcast, Payload},
    pubsub::{Control, Kind, Published},
    store::{self, Item, RunningTurn},
};

/// Cancels that wait for an owner, since when this node has seen them, and under which term.
pub(super) type Intents = HashMap<String, (u64, Instant)>;

/// How long an owner may take to carry out a cancel before others do (T6).
pub(super) const INTENT_PATIENCE: Duration = Duration::from_secs(5);
/// Sessions that one sweep takes up at most; the next one takes up the rest.
const SWEEP: usize = 500;
/// How long deltas of an ended turn are kept (L5).
const KEEP_DELTAS: Duration = Duration::from_secs(600);
/// Deltas that one step of the compaction drops: a moment's work.
const COMPACT: usize = 5_000;

/// Sweeps after each renewal, in a task of its own, so that no renewal waits for it.
pub(super) async fn sweep(inner: Arc<Inner>, mut found: watch::Receiver<Vec<RunningTurn>>) {
    let mut intents = Intents::new();
    loop {
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => return,
            changed = found.changed() => if changed.is_err() { return },
        }
        let turns = found.borrow_and_update().clone();
        inner.sweep(&turns, &mut intents).await;
    }
}

impl Inner {
    /// Before the first connection: everything that the proofs at the start have made an orphan is ended (I11).
    pub(super) async fn recover_everything(self: &Arc<Self>) -> store::Result<()> {
        loop {
            let sessions = self.store.needs_work(SWEEP).await?;
            if sessions.is_empty() {
                return Ok(());
            }
            tracing::info!(sessions = sessions.len(), "ending what a dead node left running, moving queues");
            for session in &sessions {
                if self.log.write(self.item(session, Op::Reconcile)).await.is_err() {
                    return Err(store::Error::Unavailable { doing: "recovering sessions", source: None });
                }
            }
        }
    }

    /// Verdicts, then work.
    async fn sweep(self: &Arc<Self>, turns: &[RunningTurn], intents: &mut Intents) {
        for (incarnation, beat) in self.judge(|judge| judge.verdicts()) {
            match self.store.bury_node(&incarnation, Some(beat)).await {
                Ok(true) => {
                    self.tally.buried.add(1);
                    tracing::warn!(node = %incarnation, "a node has not moved for its lease: tombstone set");
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(node = %incarnation, %error, "a tombstone could not be set"),
            }
        }
        match self.store.needs_work(SWEEP).await {
            Ok(sessions) => {
                for session in sessions {
                    // Not waited for: what is not done now is found again by the next sweep.
                    self.log.post(self.item(&session, Op::Reconcile));
                }
            }
            Err(error) => tracing::warn!(%error, "the store could not be searched for sessions that need work"),
        }
        self.force_intents(turns, intents);
    }

    /// T6: an intent that has been seen for five seconds is carried out by whoever saw it.
    fn force_intents(&self, turns: &[RunningTurn], intents: &mut Intents) {
        let now = Instant::now();
        let mut seen = Intents::new();
        for turn in turns.iter().filter(|turn| turn.intent) {
            let since = intents.get(&turn.turn_id).filter(|(term, _)| *term == turn.term).map_or(now, |seen| seen.1);
            seen.insert(turn.turn_id.clone(), (turn.term, since));
            if now.duration_since(since) >= INTENT_PATIENCE {
                let op = Op::Force { turn_id: turn.turn_id.clone(), term: turn.term };
                self.log.post(self.item(&turn.session, op));
            }
        }
        *intents = seen;
    }

    /// L11: the channels of a session end with an error; its clients come back and get a snapshot.
    pub(super) fn restart_channels(&self, topic: &str) {
        let broadcast = Broadcast::new(topic, "phx_error", Payload::empty());
        self.pubsub.publish(topic, Published { kind: Kind::Control(Control::Restart), from: None, broadcast });
    }

    pub(super) async fn drain(&self) {
        self.draining.store(true, std::sync::atomic::Ordering::Release);
        if let Err(error) = self.store.drain_node(&self.owner().incarnation).await {
            tracing::warn!(%error, "the drain could not be announced to the other nodes");
        }
    }

    pub(super) async fn shut_down(self: &Arc<Self>, patience: Duration) {
        if !self.is_idle_within(patience).await {
            tracing::info!(turns = self.runners.len(), "cancelling what still runs");
            self.runners.stop_all(Stop::Shutdown);
            self.is_idle_within(LAST_WRITES).await;
        }
        let own = self.owner().incarnation;
        let rest = time::timeout(LAST_WRITES, self.end_the_rest(&own)).await;
        if rest.is_err() {
            tracing::warn!("the store did not answer in time: what is left is ended by whoever finds it");
        }
        self.stop.cancel();
        match time::timeout(LAST_WRITES, self.store.bury_node(&own, None)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the node's own tombstone could not be set"),
            Err(_) => tracing::warn!("the store did not answer in time: the node's own tombstone is not set"),
        }
        self.log_closed.cancel();
        self.tasks.close();
        if time::timeout(LAST_WRITES, self.tasks.wait()).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
    }

    async fn is_idle_within(&self, patience: Duration) -> bool {
        time::timeout(patience, self.runners.all_ended()).await.is_ok()
    }

    /// T8 for what the store shows as running here and has no runner.
    async fn end_the_rest(self: &Arc<Self>, own: &crate::ids::Incarnation) {
        let turns = match self.store.renew(own, crate::ids::beat(), self.clients.count()).await {
            Ok(renewal) => renewal.turns,
            Err(error) => {
                tracing::warn!(%error, "the store could not be asked what still runs here");
                return;
            }
        };
        for turn in turns.iter().filter(|turn| turn.owner == *own && !self.runners.has(&turn.turn_id)) {
            let (turn_id, term) = (turn.turn_id.clone(), turn.term);
            let op = Op::EndOwned { turn_id, incarnation: own.clone(), term, end: End::Shutdown };
            let item = Item { session: turn.session.clone(), node: None, op: Arc::new(op) };
            if let Err(error) = self.log.write(item).await {
                tracing::warn!(turn = %turn.turn_id, %error, "a turn could not be cancelled for the shutdown");
            }
        }
    }
}

/// How long a shutdown waits for its last writes.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// Drops deltas that nobody needs any more, some at a time, so that no append waits long.
pub(super) async fn compact(inner: Arc<Inner>) {
    let mut pause = Duration::from_secs(30);
    loop {
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => return,
            () = time::sleep(pause) => {}
        }
        let keep = i64::try_from(KEEP_DELTAS.as_millis()).unwrap_or(i64::MAX);
        let before = Timestamp(clock::now().0 - keep);
        pause = match inner.store.compact(before, COMPACT).await {
            Ok(done) if done.more => Duration::from_millis(100),
            Ok(_) => Duration::from_secs(30),
            Err(error) => {
                tracing::warn!(%error, "compaction failed; trying again in a minute");
                Duration::from_secs(60)
            }
        };
    }
}
