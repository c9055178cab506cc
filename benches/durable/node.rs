//! One node of a load: a store, a bus and sessions, as a server wires them.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rejoin::{
    agent::Registry,
    pubsub::{self, Bus, PubSub, Relay},
    session::{self, Sessions},
    store::{Postgres, Sqlite, Store, postgres, sqlite},
};
use sqlx::{Connection as _, PgConnection};

use crate::load::Nobody;

/// How long a node may take to be on its bus.
const BUS: Duration = Duration::from_secs(10);

/// Where the load is written, and what is between nodes.
pub(crate) struct Place {
    /// The address of a Postgres database; a file in `folder` without one.
    database: Option<String>,
    bus: Option<String>,
    folder: tempfile::TempDir,
}

impl Place {
    /// As `REJOIN_BENCH_DATABASE` and `DURABLE_BUS` say.
    pub(crate) fn of_environment() -> Self {
        let database = std::env::var("REJOIN_BENCH_DATABASE").ok();
        let bus = std::env::var("DURABLE_BUS").ok();
        Self { database, bus, folder: tempfile::tempdir().unwrap() }
    }

    /// The process that has started the database's server, if that is on this machine.
    pub(crate) async fn server(&self) -> Option<u32> {
        let mut connection = Box::pin(PgConnection::connect(self.database.as_deref()?)).await.unwrap();
        let own: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await.unwrap();
        let process = PathBuf::from(format!("/proc/{own}"));
        let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
        let started_by = crate::number(&crate::stat(&process), 1);
        (name.trim_end() == "postgres").then_some(started_by as u32)
    }

    async fn store(&self) -> Arc<dyn Store> {
        match &self.database {
            Some(url) => Arc::new(Postgres::open(url, &postgres::Options::default()).await.unwrap()),
            None => {
                let options = sqlite::Options { readers: 4, migrate: true };
                Arc::new(Sqlite::open(&self.file(), &options).await.unwrap())
            }
        }
    }

    /// A new file for each load.
    fn file(&self) -> PathBuf {
        self.folder.path().join(format!("{}.db", uuid::Uuid::new_v4().simple()))
    }

    fn bus(&self, several: bool) -> Option<Arc<dyn Bus>> {
        let default = if several { "postgres" } else { "none" };
        match (self.bus.as_deref().unwrap_or(default), &self.database) {
            ("none", _) | (_, None) => None,
            ("postgres", Some(url)) => Some(Arc::new(pubsub::Postgres::new(url).unwrap())),
            (nats, Some(_)) => Some(Arc::new(pubsub::Nats::new(nats).unwrap())),
        }
    }
}

/// A running node.
pub(crate) struct Node {
    pub(crate) pubsub: PubSub,
    pub(crate) sessions: Sessions,
    store: Arc<dyn Store>,
    relay: Option<Relay>,
}

impl Node {
    pub(crate) async fn start(place: &Place, number: usize, several: bool, agents: Registry) -> Self {
        let store = place.store().await;
        let (pubsub, relay) = match place.bus(several) {
            None => (PubSub::new(), None),
            Some(bus) => {
                let options = pubsub::Options { scope: store.scope(), ..pubsub::Options::default() };
                let (pubsub, relay) = PubSub::start(bus, options);
                assert!(relay.connected(BUS).await, "no bus");
                (pubsub, Some(relay))
            }
        };
        let options = options(number);
        let sessions = Sessions::start(store.clone(), pubsub.clone(), agents, Arc::new(Nobody), options).await.unwrap();
        Self { pubsub, sessions, store, relay }
    }

    pub(crate) async fn stop(self) {
        self.sessions.drain().await;
        self.sessions.shut_down(Duration::from_secs(5)).await;
        if let Some(relay) = self.relay {
            relay.stop().await;
        }
        self.store.close().await;
    }
}

fn options(number: usize) -> session::Options {
    session::Options {
        node_name: format!("bench-{number}"),
        exclusive_node_name: false,
        lease_ttl: Duration::from_secs(6),
        lease_renew: Duration::from_secs(1),
        delta_window: Duration::ZERO,
        max_queue: 10,
        agent_idle_timeout: Duration::from_secs(60),
        turn_timeout: Duration::from_secs(600),
        max_message_bytes: 1 << 30,
    }
}
