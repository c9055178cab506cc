//! What the writer writes: set-based, a handful of statements whatever the size of the batch.

use serde::Serialize;
use sqlx::SqliteConnection;

use super::super::{
    Compacted, Error, Result,
    batch::Rows,
    rows::{self, signed},
};
use crate::clock::Timestamp;

/// Writes everything that a batch decided.
pub(super) async fn all(connection: &mut SqliteConnection, rows: &Rows<'_>) -> Result<()> {
    insert(connection, SESSIONS, &rows.sessions).await?;
    insert(connection, TURNS, &rows.turns).await?;
    insert(connection, EVENTS, &rows.events).await?;
    insert(connection, MESSAGES, &rows.messages).await?;
    insert(connection, CHUNKS, &rows.chunks).await?;
    // A turn that has ended is never folded from its chunks again.
    insert(connection, DROP_CHUNKS, &rows.ended).await?;
    for sql in [BURY, STOP, DELETE] {
        insert(connection, sql, &rows.deleted).await?;
    }
    Ok(())
}

async fn insert<T: Serialize>(connection: &mut SqliteConnection, sql: &'static str, rows: &[T]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let json = serde_json::to_string(rows).unwrap_or_default();
    sqlx::query(sql).bind(json).execute(connection).await.map(drop).map_err(Error::while_doing("writing"))
}

const EVENTS: &str = "INSERT INTO events (session_key, seq, kind, turn_id, flush, body)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5 FROM json_each(?)";

const MESSAGES: &str = "INSERT INTO messages (session_key, seq, id, text)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?)";

const CHUNKS: &str = "INSERT INTO chunks (turn_id, upto, parts)
    SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?)";

const DROP_CHUNKS: &str = "DELETE FROM chunks WHERE turn_id IN (SELECT value FROM json_each(?))";

/// What is left under the key is removed later; turns that wait or run there do so no more.
const BURY: &str = "INSERT INTO deleted_sessions (session_key, id, epoch, deleted_by, deleted_at)
    SELECT value ->> 'key', value ->> 'id', value ->> 'epoch', value ->> 'by', value ->> 'at' FROM json_each(?)";

const STOP: &str =
    "UPDATE turns SET status = 'cancelled', owner = NULL, intent = 0, compacted = 1, ended_at = j.value ->> 'at'
    FROM json_each(?) j WHERE session_key = j.value ->> 'key' AND status IN ('queued', 'running')";

const DELETE: &str = "DELETE FROM sessions WHERE key IN (SELECT value ->> 'key' FROM json_each(?))";

const SESSIONS: &str = "INSERT INTO sessions (key, id, epoch, title, metadata, max_running, created_at, updated_at)
    SELECT value ->> 'key', value ->> 'id', value ->> 'epoch', value ->> 'title',
           value ->> 'metadata', value ->> 'max_running', value ->> 'created_at', value ->> 'updated_at'
    FROM json_each(?) WHERE true
    ON CONFLICT (key) DO UPDATE SET title = excluded.title,
        metadata = excluded.metadata, max_running = excluded.max_running, updated_at = excluded.updated_at";

const TURNS: &str =
    "INSERT INTO turns (id, session_key, status, prompt_id, attempt, owner, term, intent, ended_at, row)
    SELECT value ->> 'id', value ->> 'session', value ->> 'status', value ->> 'prompt', value ->> 'attempt',
           value ->> 'owner', value ->> 'term', value ->> 'intent', value ->> 'ended_at', value ->> 'row'
    FROM json_each(?) WHERE true
    ON CONFLICT (id) DO UPDATE SET status = excluded.status, owner = excluded.owner, term = excluded.term,
        intent = excluded.intent, ended_at = excluded.ended_at, row = excluded.row";

/// Drops the deltas of turns that ended long ago; their message is in the terminal event (L5). One
/// step, see [`super::super::Store::compact`].
pub(super) async fn compact(
    connection: &mut SqliteConnection,
    ended_before: Timestamp,
    limit: usize,
) -> Result<Compacted> {
    let doing = Error::while_doing("compacting");
    let due = "SELECT id, (row ->> 'ended_seq') - (row ->> 'started_seq') FROM turns
               WHERE compacted = 0 AND ended_at IS NOT NULL AND ended_at < ?1
               AND status IN ('completed', 'failed', 'cancelled') ORDER BY ended_at LIMIT ?2";
    let found = sqlx::query_as(due)
        .bind(ended_before.0)
        .bind(signed(rows::DUE))
        .fetch_all(&mut *connection)
        .await
        .map_err(&doing)?;
    let step = rows::Due::of(found, limit);
    let ids = serde_json::to_string(&step.turns).unwrap_or_default();
    // The deltas of a turn lie between its start and its end, so that a range of the log is read and no index.
    let dropped = sqlx::query(
        "DELETE FROM events WHERE (session_key, seq) IN (
            SELECT e.session_key, e.seq FROM json_each(?1) j
            CROSS JOIN turns t ON t.id = j.value
            CROSS JOIN events e ON e.session_key = t.session_key AND e.seq > (t.row ->> 'started_seq')
                AND e.seq < (t.row ->> 'ended_seq') AND e.turn_id = t.id AND e.kind = 'turn_delta' LIMIT ?2)",
    )
    .bind(&ids)
    .bind(signed(limit))
    .execute(&mut *connection)
    .await
    .map_err(&doing)?;
    let compacted = step.dropped(dropped.rows_affected(), limit);
    if compacted.deltas < limit {
        let sql = "UPDATE turns SET compacted = 1 WHERE id IN (SELECT value FROM json_each(?1))";
        sqlx::query(sql).bind(&ids).execute(connection).await.map_err(&doing)?;
    }
    Ok(compacted)
}
