//! A Postgres server and a standby that follows it over a network which can be cut.

use std::sync::Arc;

use super::{fleet::Sql, postgres::Server, tcp_proxy::TcpProxy};

/// The two of them. What is written to the first reaches the second a moment later.
pub(crate) struct Pair {
    pub(crate) primary: Arc<Server>,
    pub(crate) standby: Arc<Server>,
    link: TcpProxy,
}

impl Pair {
    pub(crate) async fn start() -> Self {
        let primary = tokio::task::spawn_blocking(|| Server::start(false)).await.unwrap();
        let link = TcpProxy::start(primary.port()).await;
        let port = link.port();
        let (primary, standby) = tokio::task::spawn_blocking(move || {
            let standby = primary.replica(port);
            (primary, standby)
        })
        .await
        .unwrap();
        let pair = Self { primary: Arc::new(primary), standby: Arc::new(standby), link };
        pair.catches_up().await;
        pair
    }

    /// From now on the first answers nobody before the second has what was written.
    pub(crate) async fn in_step(&self) {
        let mut admin = Sql::of(&self.primary, "postgres").await;
        // A role's setting stands above the one that the server was started with.
        admin.run("ALTER ROLE app SET synchronous_commit = remote_write").await;
        admin.run("ALTER SYSTEM SET synchronous_standby_names = '*'").await;
        admin.run("SELECT pg_reload_conf()").await;
        let synchronous = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        admin.until("the standby to be waited for", synchronous, 1).await;
    }

    /// Waits until the second has everything of the first.
    pub(crate) async fn catches_up(&self) {
        let mut admin = Sql::of(&self.primary, "postgres").await;
        let written = admin.texts("SELECT pg_current_wal_lsn()::text").await.remove(0);
        let mut standby = Sql::of(&self.standby, "postgres").await;
        let there = format!("SELECT (coalesce(pg_last_wal_replay_lsn(), '0/0') >= '{written}')::int::bigint");
        standby.until("the standby to catch up", &there, 1).await;
    }

    /// From now on nothing of the first reaches the second.
    pub(crate) fn part(&self) {
        self.link.refuse(true);
        self.link.cut();
    }

    /// The second becomes a server that is written to.
    pub(crate) async fn promote(&self) {
        let mut admin = Sql::of(&self.standby, "postgres").await;
        admin.run("SELECT pg_promote()").await;
        admin.until("the promotion", "SELECT pg_is_in_recovery()::int::bigint", 0).await;
    }
}
