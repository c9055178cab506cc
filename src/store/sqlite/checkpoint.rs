//! Moves what the write-ahead log holds into the database file, beside the writer.
//!
//! Without it the writer would do all of that at once inside some unlucky commit. It still does what is left when the
//! log has grown to its limit, which is little; so the log stays bounded. It never waits for readers and never makes
//! the writer wait.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::time;
use tokio_util::sync::CancellationToken;

/// How often it looks whether there is something to move.
const PERIOD: Duration = Duration::from_millis(200);

/// Moves until `stop`. `commits` counts the writer's commits: nothing is done while it stands still.
pub(super) async fn run(options: SqliteConnectOptions, commits: Arc<AtomicU64>, stop: CancellationToken) {
    let mut connection = match SqliteConnection::connect_with(&options).await {
        Ok(connection) => connection,
        Err(error) => {
            tracing::warn!(%error, "no connection for checkpoints: the writer does them itself");
            return;
        }
    };
    let mut moved = 0;
    while stop.run_until_cancelled(time::sleep(PERIOD)).await.is_some() {
        let now = commits.load(Ordering::Relaxed);
        if now == moved {
            continue;
        }
        match sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(&mut connection).await {
            Ok(_) => moved = now,
            Err(error) => tracing::debug!(%error, "a checkpoint was not possible now"),
        }
    }
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "the checkpoints' connection did not close cleanly");
    }
}
