//! The task that keeps the presence of all nodes together: it tells the others what is shown here, and shows here what
//! they tell.
//!
//! Brings time, the bus and the tracker to the talk that [`Exchange`] holds. Changes go out at once where it was quiet,
//! and gathered for [`GATHER`] where it was not; every [`BEAT`] it tells how far it has come, so that whoever missed
//! something finds out. Its invariant: it waits for nobody, and what comes faster than it can be taken in is asked for
//! again instead of kept.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Tracker,
    exchange::{Exchange, Outcome, Say},
    members::by_topic,
    own::Ledger,
    replica::Roster,
};
use crate::{
    ids,
    pubsub::{Gap, NodeId, PubSub, Receiver, Watcher},
};

/// How long changes are gathered after others were told.
const GATHER: Duration = Duration::from_millis(10);
/// How often the others are told how far this node's list has come.
const BEAT: Duration = Duration::from_secs(1);
/// The pause between stretches of long lists.
const PACE: Duration = Duration::from_millis(5);
/// Messages that wait to be taken in.
const INBOX: usize = 1_024;
/// How long the beginning waits for nodes that say nothing, and for all together.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Presence among nodes.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Names what the nodes share; others on the same bus with another name are another cluster.
    pub scope: Arc<str>,
}

/// The running task. Dropping it ends the task as [`Cluster::stop`] does, without waiting for its end.
pub struct Cluster {
    stop: DropGuard,
    task: JoinHandle<()>,
    known: watch::Receiver<Known>,
}

/// How far the others are known.
#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    /// Nodes of which not everything is known; nothing before anybody was looked for.
    missing: Option<usize>,
    /// Grows as long as they tell it.
    progress: u64,
}

/// What comes in.
enum Command {
    Heard(NodeId, Bytes),
    Missed(Gap),
}

/// Takes what comes from the bus, and leaves it to the task.
struct Ear {
    name: Arc<str>,
    inbox: mpsc::Sender<Command>,
}

impl Ear {
    fn pass(&self, command: Command) {
        // What does not fit is as lost as what the bus loses, and found out in the same way.
        if self.inbox.try_send(command).is_err() {
            tracing::debug!("presence of other nodes comes faster than it is taken in; it is asked for again");
        }
    }
}

impl Receiver for Ear {
    fn receive(&self, from: &NodeId, body: Bytes) {
        self.pass(Command::Heard(from.clone(), body));
    }
}

impl Watcher for Ear {
    fn missed(&self, gap: &Gap) {
        let concerns = match gap {
            Gap::Everything | Gap::Node(_) => true,
            Gap::Messages { name, .. } => *name == self.name,
            Gap::Topics(_) => false,
        };
        if concerns {
            self.pass(Command::Missed(gap.clone()));
        }
    }
}

impl Cluster {
    /// Begins to talk with the other nodes of `pubsub`'s bus. `tracker` must have been started as shared
    /// ([`super::Options::shared`]); otherwise, and where this node is alone, there is nothing to do: `None`. `nodes`
    /// is read by `roster` whenever it changes: it says under which name this node lives, and whose presences leave. To
    /// be called inside a tokio runtime.
    pub fn start<N: Send + Sync + 'static>(
        tracker: Tracker,
        pubsub: PubSub,
        nodes: watch::Receiver<N>,
        roster: fn(&N) -> Roster,
        options: &ClusterOptions,
    ) -> Option<Self> {
        pubsub.node()?;
        let ledger = tracker.ledger()?;
        let name: Arc<str> = format!("presence:{}", options.scope).into();
        let (sender, inbox) = mpsc::channel(INBOX);
        let ear = Arc::new(Ear { name: name.clone(), inbox: sender });
        let (receiver, watcher): (Arc<dyn Receiver>, Arc<dyn Watcher>) = (ear.clone(), ear);
        pubsub.receive(&name, &receiver);
        pubsub.watch(&watcher);
        let own = roster(&nodes.borrow()).own;
        let exchange = Exchange::new(ledger.clone(), own, ids::beat().unsigned_abs());
        let (told, known) = watch::channel(Known::default());
        let token = CancellationToken::new();
        let task = Task { tracker, pubsub, name, ledger, exchange, told, _ears: (receiver, watcher) };
        let task = tokio::spawn(task.run(inbox, (nodes, roster), token.clone()));
        Some(Self { stop: token.drop_guard(), task, known })
    }

    /// Waits until everything is known that the live nodes show, as long as something comes; gives up after a second
    /// in which nothing did. How many nodes it does not know everything of.
    pub async fn settled(&self) -> usize {
        let mut known = self.known.clone();
        let settling = async {
            while known.borrow_and_update().missing != Some(0) {
                if !matches!(time::timeout(PATIENCE.0, known.changed()).await, Ok(Ok(()))) {
                    return;
                }
            }
        };
        // However long it takes, it goes on in the background.
        let _given_up = time::timeout(PATIENCE.1, settling).await;
        self.known.borrow().missing.unwrap_or_default()
    }

    /// Tells the others what there is to tell and that there will be no more, and waits for the end of the task: what
    /// was shown here leaves everywhere.
    pub async fn stop(self) {
        let Self { stop, task, .. } = self;
        drop(stop);
        if let Err(error) = task.await {
            tracing::error!(%error, "the task that shares presence did not end as it should");
        }
    }
}

struct Task {
    tracker: Tracker,
    pubsub: PubSub,
    name: Arc<str>,
    ledger: Arc<Ledger>,
    exchange: Exchange,
    told: watch::Sender<Known>,
    /// The bus holds them weakly.
    _ears: (Arc<dyn Receiver>, Arc<dyn Watcher>),
}

/// What the task does next.
enum Next {
    Command(Command),
    Roster,
    /// Something here has changed.
    Bell,
    Flush,
    Beat,
    Ask,
    More,
}

/// A time that may not be set.
async fn at(time: Option<time::Instant>) {
    match time {
        Some(at) => time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Task {
    async fn run<N: Send + Sync>(
        mut self,
        mut inbox: mpsc::Receiver<Command>,
        (mut nodes, roster): (watch::Receiver<N>, fn(&N) -> Roster),
        stop: CancellationToken,
    ) {
        let mut beats = time::interval(BEAT);
        beats.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let (mut flushed, mut waiting) = (time::Instant::now(), false);
        let mut more = None;
        let first = roster(&nodes.borrow_and_update());
        self.look(&first).await;
        self.say(self.exchange.hello(None));
        loop {
            let asks = self.exchange.replica.next_ask().map(Into::into);
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Ok(()) = nodes.changed() => Next::Roster,
                () = self.ledger.bell.notified(), if !waiting => Next::Bell,
                () = time::sleep_until(flushed + GATHER), if waiting => Next::Flush,
                _ = beats.tick() => Next::Beat,
                () = at(asks) => Next::Ask,
                () = at(more) => Next::More,
                Some(command) = inbox.recv() => Next::Command(command),
            };
            match next {
                Next::Command(command) => self.take(command).await,
                Next::Roster => {
                    let now = roster(&nodes.borrow_and_update());
                    self.look(&now).await;
                }
                Next::Bell => waiting = true,
                Next::Flush => {
                    (waiting, flushed) = (false, time::Instant::now());
                    self.say(self.exchange.flush());
                }
                Next::Beat => {
                    // Also what the bell did not ring for.
                    self.say(self.exchange.flush());
                    self.say(self.exchange.position());
                }
                Next::Ask => {
                    let asks = self.exchange.ask(Instant::now());
                    self.say(asks);
                }
                Next::More => {
                    let parts = self.exchange.more();
                    self.say(parts);
                    more = None;
                }
            }
            if more.is_none() && self.exchange.has_more() {
                more = Some(time::Instant::now() + PACE);
            }
        }
        self.end();
    }

    async fn take(&mut self, command: Command) {
        let outcome = match command {
            Command::Heard(from, body) => self.exchange.hear(&from, &body, Instant::now()),
            Command::Missed(Gap::Node(from) | Gap::Messages { from, .. }) => {
                return self.say(self.exchange.hello(Some(from)));
            }
            Command::Missed(_) => return self.say(self.exchange.hello(None)),
        };
        self.act(outcome).await;
    }

    async fn look(&mut self, roster: &Roster) {
        let outcome = self.exchange.look(roster);
        self.act(outcome).await;
    }

    async fn act(&mut self, outcome: Outcome) {
        self.say(outcome.say);
        for (topic, changes) in by_topic(outcome.changes) {
            self.tracker.take(&topic, changes);
            // A node that leaves may have been on many topics.
            tokio::task::yield_now().await;
        }
        let replica = &self.exchange.replica;
        let known = Known { missing: replica.missing(), progress: replica.progress() };
        self.told.send_if_modified(|told| {
            let modified = *told != known;
            *told = known;
            modified
        });
    }

    fn say(&self, all: impl IntoIterator<Item = Say>) {
        for Say { to, body } in all {
            match to {
                None => self.pubsub.publish_to_all(&self.name, body),
                Some(node) => self.pubsub.publish_to(&node, &self.name, body),
            }
        }
    }

    fn end(&self) {
        self.say(self.exchange.flush());
        self.say(self.exchange.bye());
        self.ledger.lock().close();
    }
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
