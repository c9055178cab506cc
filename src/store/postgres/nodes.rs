//! Nodes: their rows, leases and tombstones, each a small transaction.
//!
//! A renewal is a plain update of a column that is no key, so it never waits for those who start turns (they hold the
//! row `FOR KEY SHARE`). Draining and a tombstone take the row `FOR UPDATE` first, so that they and a start wait for
//! each other: whichever comes second sees what the first did (I5).

use super::{
    super::{
        Error, NewNode, Renewal, Result,
        read::Snapshot,
        rows::{RunningRow, signed},
    },
    db::Db,
    read::Reader,
};
use crate::{clock, ids::Incarnation};

/// Dead rows that are kept for people to look at.
const REMEMBERED: i64 = 20;

/// See [`super::Store::start_node`].
pub(super) async fn start(connection: &mut Db, node: &NewNode) -> Result<()> {
    let doing = Error::in_postgres("registering the node");
    if node.process_start && node.exclusive {
        // Held to the end of the transaction: of two starts under one name, the second sees the first's row.
        let lock = "SELECT pg_advisory_xact_lock(hashtextextended('rejoin node ' || $1, 0))";
        sqlx::query(lock).bind(&node.owner.node).execute(&mut *connection).await.map_err(&doing)?;
        bury_predecessors(connection, node).await?;
    }
    sqlx::query(
        "INSERT INTO nodes (incarnation, name, state, beat, lease_ttl_ms, exclusive, started_at)
         VALUES ($1, $2, 'live', $3, $4, $5, $6) ON CONFLICT (incarnation) DO NOTHING",
    )
    .bind(&node.owner.incarnation.0)
    .bind(&node.owner.node)
    .bind(node.beat)
    .bind(signed(node.lease_ttl_ms))
    .bind(node.exclusive)
    .bind(clock::now().0)
    .execute(connection)
    .await
    .map(drop)
    .map_err(doing)
}

/// The operator's promise is the proof: every other incarnation of an exclusive name is dead.
async fn bury_predecessors(connection: &mut Db, node: &NewNode) -> Result<()> {
    let doing = Error::in_postgres("setting the tombstones of this name");
    let found: Vec<String> = sqlx::query_scalar(
        "SELECT incarnation FROM nodes WHERE name = $1 AND exclusive AND state <> 'dead' AND incarnation <> $2
         ORDER BY incarnation FOR UPDATE",
    )
    .bind(&node.owner.node)
    .bind(&node.owner.incarnation.0)
    .fetch_all(&mut *connection)
    .await
    .map_err(&doing)?;
    sqlx::query("UPDATE nodes SET state = 'dead' WHERE incarnation = ANY($1)")
        .bind(found)
        .execute(connection)
        .await
        .map(drop)
        .map_err(doing)
}

/// See [`super::Store::renew`].
pub(super) async fn renew(connection: &mut Db, node: &Incarnation, beat: i64, connections: u64) -> Result<Renewal> {
    let doing = Error::in_postgres("renewing the lease");
    let renewed =
        sqlx::query("UPDATE nodes SET beat = $2, connections = $3 WHERE incarnation = $1 AND state <> 'dead'")
            .bind(&node.0)
            .bind(beat)
            .bind(signed(connections))
            .execute(&mut *connection)
            .await
            .map_err(&doing)?
            .rows_affected()
            == 1;
    let nodes = Reader(connection).nodes().await?;
    let turns: Vec<RunningRow> = sqlx::query_as(
        "SELECT s.id AS session, t.id AS turn_id, t.owner, t.term, t.intent
         FROM turns t JOIN sessions s ON s.key = t.session_key
         WHERE t.status = 'running' AND (t.owner = $1 OR t.intent)",
    )
    .bind(&node.0)
    .fetch_all(&mut *connection)
    .await
    .map_err(&doing)?;
    let history = Reader(connection).history().await?;
    Ok(Renewal { renewed, nodes, turns: turns.into_iter().map(RunningRow::turn).collect(), history })
}

/// The state and the beat of a node's row, which is locked from here on.
async fn lock(connection: &mut Db, node: &Incarnation) -> sqlx::Result<Option<(String, i64)>> {
    sqlx::query_as("SELECT state, beat FROM nodes WHERE incarnation = $1 FOR UPDATE")
        .bind(&node.0)
        .fetch_optional(connection)
        .await
}

async fn set_state(connection: &mut Db, node: &Incarnation, state: &str) -> sqlx::Result<()> {
    let set = sqlx::query("UPDATE nodes SET state = $2 WHERE incarnation = $1").bind(&node.0).bind(state);
    set.execute(connection).await.map(drop)
}

/// See [`super::Store::drain_node`].
pub(super) async fn drain(connection: &mut Db, node: &Incarnation) -> Result<bool> {
    let doing = Error::in_postgres("announcing the drain");
    let found = lock(connection, node).await.map_err(&doing)?;
    let live = found.is_some_and(|(state, _)| state == "live");
    if live {
        set_state(connection, node, "draining").await.map_err(&doing)?;
    }
    Ok(live)
}

/// See [`super::Store::bury_node`].
pub(super) async fn bury(connection: &mut Db, node: &Incarnation, beat: Option<i64>) -> Result<bool> {
    let doing = Error::in_postgres("setting a tombstone");
    let found = lock(connection, node).await.map_err(&doing)?;
    let stands = |now: i64| beat.is_none_or(|seen| seen == now);
    let buried = found.is_some_and(|(state, now)| state != "dead" && stands(now));
    if buried {
        set_state(connection, node, "dead").await.map_err(&doing)?;
    }
    // A row that somebody else looks at now is dropped at another time.
    sqlx::query(
        "DELETE FROM nodes WHERE incarnation IN (
             SELECT n.incarnation FROM nodes n WHERE n.state = 'dead'
             AND NOT EXISTS (SELECT 1 FROM turns t WHERE t.status = 'running' AND t.owner = n.incarnation)
             AND n.incarnation NOT IN (
                 SELECT k.incarnation FROM nodes k WHERE k.state = 'dead' ORDER BY k.started_at DESC LIMIT $1)
             FOR UPDATE SKIP LOCKED)",
    )
    .bind(REMEMBERED)
    .execute(connection)
    .await
    .map_err(doing)?;
    Ok(buried)
}
