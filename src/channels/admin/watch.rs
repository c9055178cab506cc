//! The task that looks while somebody watches.
//!
//! Once a second it reads the store and puts what it found on the board; a store that is slow is read less often. It
//! never waits for those who watch. Its invariant: there is one look at a time, each with a limit, and none where nobody
//! watches.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use tokio::{
    task::JoinHandle,
    time::{self, Instant},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Operators, Shared, TOPIC,
    board::Parts,
    numbers::{Numbers, Rates},
};
use crate::{
    channel::Host,
    clock::Timestamp,
    session::{Error, NodeName, NodeSummary},
};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);
/// How long one look may take.
const LIMIT: Duration = Duration::from_secs(5);
/// After a look, so many times as long as it took nothing is read, up to the limit of a look.
const REST: u32 = 9;
/// Running turns that are shown at most, and queued ones.
const TURNS: usize = 100;
/// Lost turns that are shown.
const LOST: usize = 20;

/// The running task. Dropping it ends the task without waiting for its end.
pub struct Watch {
    stop: DropGuard,
    task: JoinHandle<()>,
}

impl Operators {
    /// Begins to look for those who watch on `host`. `scope` names the store that nodes share.
    pub fn watch(&self, host: Host, scope: Option<&str>) -> Watch {
        let token = CancellationToken::new();
        let numbers = Numbers::start(self.shared.sessions.clone(), host.clone(), scope);
        let looks = Looks { shared: Arc::clone(&self.shared), host, numbers, stop: token.clone() };
        Watch { stop: token.drop_guard(), task: tokio::spawn(looks.run()) }
    }
}

impl Watch {
    /// Ends the task and waits for its end.
    pub async fn stop(self) {
        let Self { stop, task } = self;
        drop(stop);
        if let Err(error) = task.await {
            tracing::error!(%error, "the task that looks for operators did not end as it should");
        }
    }
}

struct Looks {
    shared: Arc<Shared>,
    host: Host,
    numbers: Arc<Numbers>,
    stop: CancellationToken,
}

#[derive(Serialize)]
struct NodeEntry<'a> {
    #[serde(flatten)]
    summary: &'a NodeSummary,
    rates: Option<Rates>,
}

#[derive(Serialize)]
struct Server<'a> {
    node: &'a NodeName,
    bus: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
struct Queued {
    count: u64,
    oldest: Option<Timestamp>,
}

impl Looks {
    async fn run(self) {
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = self.shared.bell.notified() => {}
            }
            if self.is_watched() && !self.look_on().await {
                return;
            }
        }
    }

    fn is_watched(&self) -> bool {
        self.host.pubsub().subscribers(TOPIC) > 0
    }

    /// Looks until nobody watches any more. False when it is to end.
    async fn look_on(&self) -> bool {
        loop {
            {
                // Who watches is subscribed before it asks for the board: one that is missed here finds it empty and
                // rings.
                let mut board = self.shared.board();
                if !self.is_watched() {
                    board.clear();
                    self.numbers.forget();
                    return true;
                }
            }
            let began = Instant::now();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return false,
                () = self.look() => {}
            }
            let rest = (began.elapsed() * REST).clamp(EVERY, LIMIT);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return false,
                () = time::sleep(rest) => {}
            }
        }
    }

    async fn look(&self) {
        self.numbers.ask();
        match time::timeout(LIMIT, Box::pin(self.read())).await {
            Ok(Ok(parts)) => self.show(parts),
            Ok(Err(error)) => tracing::warn!(%error, "operators could not be shown what goes on"),
            Err(_) => tracing::warn!("the store takes too long to show operators what goes on"),
        }
    }

    async fn read(&self) -> Result<Parts, Error> {
        let sessions = &self.shared.sessions;
        let (list, waiting) = (sessions.node_list().await?, sessions.waiting().await?);
        let (turns, lost) = (sessions.work(TURNS).await?, sessions.lost(LOST).await?);
        let entry = |summary| NodeEntry { summary, rates: self.numbers.of(&summary.incarnation) };
        let nodes: Vec<NodeEntry<'_>> = list.nodes.iter().map(entry).collect();
        let bus = sessions.bus().name();
        let server = Server { node: &list.node, bus, version: env!("CARGO_PKG_VERSION") };
        let queued = Queued { count: waiting.queued, oldest: waiting.oldest };
        Ok([
            ("server", json(&server)),
            ("nodes", json(&nodes)),
            ("queued", json(&queued)),
            ("turns", turns),
            ("lost", lost),
        ])
    }

    fn show(&self, parts: Parts) {
        let version = self.shared.board().put(parts);
        self.shared.woken.notify_waiters();
        self.host.pubsub().hint(TOPIC, version);
    }
}

/// JSON of a value that has nothing in it that JSON cannot hold.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
