//! Another server's transaction: a connection of the superuser that holds what it likes.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use sqlx::{PgConnection, Row};
use tokio::{sync::Mutex, time};

use super::server::{run, server};
use crate::store::conformance::locks::Intruder;

/// How long somebody may take to be seen waiting.
const LIMIT: Duration = Duration::from_secs(15);

pub(super) struct Other {
    /// In a transaction from `hold` to `release`.
    holder: Mutex<PgConnection>,
    /// Looks who waits.
    watcher: Mutex<PgConnection>,
}

impl Other {
    pub(super) async fn on(database: &str) -> Self {
        let server = server();
        let (holder, watcher) = (server.admin(database).await, server.admin(database).await);
        Self { holder: Mutex::new(holder), watcher: Mutex::new(watcher) }
    }

    /// Runs a statement in the transaction.
    pub(super) async fn run(&self, sql: &str) {
        run(&mut *self.holder.lock().await, sql).await;
    }
}

#[async_trait]
impl Intruder for Other {
    async fn hold(&self, session: &str) {
        self.run(&format!("BEGIN; SELECT 1 FROM sessions WHERE id = '{session}' FOR UPDATE")).await;
    }

    async fn compact(&self, turn_id: &str) {
        self.run(&format!("BEGIN; SELECT 1 FROM turns WHERE id = '{turn_id}' FOR NO KEY UPDATE")).await;
        self.run(&format!("DELETE FROM events WHERE turn_id = '{turn_id}' AND kind = 'turn_delta'")).await;
    }

    async fn somebody_waits(&self) {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
            AND wait_event_type = 'Lock'";
        let look = async {
            loop {
                let mut watcher = self.watcher.lock().await;
                let count: i64 = sqlx::query(waiting).fetch_one(&mut *watcher).await.unwrap().get(0);
                if count > 0 {
                    return;
                }
            }
        };
        time::timeout(LIMIT, look).await.expect("nobody waits for the lock");
    }

    async fn set_slots(&self, session: &str, max_running: u32) {
        self.run(&format!("UPDATE sessions SET max_running = {max_running} WHERE id = '{session}'")).await;
    }

    async fn delete(&self, session: &str) {
        self.run(&format!("DELETE FROM sessions WHERE id = '{session}'")).await;
    }

    async fn change_turn(&self, turn_id: &str, fields: Value) {
        self.run(&format!(
            "UPDATE turns SET row = (row::jsonb || '{fields}')::text WHERE id = '{turn_id}';
             UPDATE turns SET status = row::json ->> 'status', owner = row::json -> 'owner' ->> 'incarnation',
                 term = (row::json ->> 'term')::bigint, intent = row::json ->> 'intent' IS NOT NULL,
                 ended_at = CASE WHEN row::json ->> 'ended_at' IS NOT NULL THEN 1 END WHERE id = '{turn_id}'"
        ))
        .await;
    }

    async fn release(&self) {
        self.run("COMMIT").await;
    }
}
