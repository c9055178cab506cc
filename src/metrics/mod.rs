//! What this server measures, gathered from the parts that count, and written as Prometheus reads it.
//!
//! Knows every part and no route. Each part counts for itself; names, help and labels are given here, once, and
//! `docs/metrics.md` is the same list for people. Its invariant: what is told apart by labels is bounded by the
//! server's own routes, transports, agents and words, so that no client can add a series.

mod families;
mod process;
mod requests;
mod text;

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, time};

pub use self::{requests::Requests, text::Format};
use crate::{
    channel::Host,
    clock::{self, Timestamp},
    presence::Tracker,
    session::Sessions,
    store::{Store, Waiting},
    transport::{Connections, Lobby},
};

/// How long a scrape waits for the store, and for the scrape before it.
const LIMIT: Duration = Duration::from_secs(2);

/// Where the numbers come from.
#[derive(Clone)]
pub struct Sources {
    /// The sessions, and this node among others.
    pub sessions: Sessions,
    /// Their store.
    pub store: Arc<dyn Store>,
    /// The channels, and the topics with their bus.
    pub host: Host,
    /// Who is where.
    pub presence: Tracker,
    /// The clients.
    pub connections: Connections,
    /// The streams that they came by.
    pub lobby: Lobby,
}

/// The metrics of a server. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    sources: Sources,
    requests: Requests,
    started: Timestamp,
    /// Held by the one scrape that asks the store.
    asking: Semaphore,
}

impl Metrics {
    /// Of a server that has just started.
    pub fn new(sources: Sources) -> Self {
        let (requests, started, asking) = (Requests::default(), clock::now(), Semaphore::new(1));
        Self { inner: Arc::new(Inner { sources, requests, started, asking }) }
    }

    /// HTTP requests, to be counted as they are answered.
    pub fn requests(&self) -> &Requests {
        &self.inner.requests
    }

    /// Everything, at this moment. What cannot be asked for in time is left out.
    pub async fn scrape(&self, format: Format) -> String {
        let waiting = self.inner.waiting().await;
        let inner = self.inner.clone();
        // It looks at every connection: nobody's frames wait for that.
        let text = tokio::task::spawn_blocking(move || text::encode(inner.families(waiting), format)).await;
        text.unwrap_or_else(|error| {
            tracing::error!(%error, "the metrics could not be gathered");
            String::new()
        })
    }
}

impl Inner {
    async fn waiting(&self) -> Option<Waiting> {
        let ask = async {
            let permit = self.asking.acquire().await.ok()?;
            let waiting = self.sources.sessions.waiting().await.ok();
            drop(permit);
            waiting
        };
        time::timeout(LIMIT, ask).await.ok().flatten()
    }
}
