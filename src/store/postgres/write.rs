//! What a transaction writes: one statement for everything that a batch decided, whatever its size.

use super::{
    super::{
        Compacted, Error, Result,
        batch::{self, Rows, Sessions, Written},
        read::Snapshot,
        rows::{self, signed},
    },
    db::Db,
    read::Reader,
};
use crate::clock::Timestamp;

/// Writes everything that a batch decided of sessions that this transaction has locked.
pub(super) async fn all(connection: &mut Db, sessions: &Sessions, written: &Written) -> Result<()> {
    let doing = Error::in_postgres("writing");
    let changed = sessions.iter().filter(|(id, _)| written.get(*id).is_some_and(|writes| writes.updated));
    let changed: Vec<_> = changed.map(|(_, session)| batch::session_row(session)).collect();
    if !changed.is_empty() {
        sqlx::query(CHANGED).bind(json(&changed)).execute(&mut *connection).await.map_err(&doing)?;
    }
    let rows = Rows::of(sessions, written);
    if !rows.deleted.is_empty() {
        let deleted = json(&rows.deleted);
        for sql in [BURY, STOP, DELETE] {
            sqlx::query(sql).bind(&deleted).execute(&mut *connection).await.map_err(&doing)?;
        }
    }
    if rows.heads.is_empty() && rows.turns.is_empty() && rows.flushes.is_empty() {
        return Ok(());
    }
    sqlx::query(ALL)
        .bind(json(&rows.heads))
        .bind(json(&rows.turns))
        .bind(json(&rows.flushes))
        .bind(json(&rows.events))
        .bind(json(&rows.messages))
        .bind(json(&rows.chunks))
        .bind(&rows.ended)
        .execute(connection)
        .await
        .map(drop)
        .map_err(doing)
}

fn json<T: serde::Serialize>(rows: &[T]) -> String {
    // Strings and numbers: there is nothing in a row that JSON cannot hold.
    serde_json::to_string(rows).unwrap_or_default()
}

/// What is left under the key is removed later; turns that wait or run there do so no more.
const BURY: &str = "INSERT INTO deleted_sessions (session_key, id, epoch, deleted_by, deleted_at)
    SELECT j.key, j.id, j.epoch, j.by, j.at
    FROM jsonb_to_recordset($1::jsonb) AS j (key bigint, id text, epoch text, by text, at bigint)";

const STOP: &str =
    "UPDATE turns t SET status = 'cancelled', owner = NULL, intent = false, compacted = true, ended_at = j.at
    FROM jsonb_to_recordset($1::jsonb) AS j (key bigint, at bigint)
    WHERE t.session_key = j.key AND t.status IN ('queued', 'running')";

const DELETE: &str =
    "DELETE FROM sessions WHERE key IN (SELECT j.key FROM jsonb_to_recordset($1::jsonb) AS j (key bigint))";

const CHANGED: &str = "UPDATE sessions s SET title = j.title, metadata = j.metadata, max_running = j.max_running
    FROM jsonb_to_recordset($1::jsonb) AS j (key bigint, title text, metadata text, max_running bigint)
    WHERE s.key = j.key";

/// No two parts of it touch the same row.
const ALL: &str = "WITH heads AS (
        UPDATE sessions s SET last_seq = (h.value ->> 1)::bigint, updated_at = (h.value ->> 2)::bigint
        FROM jsonb_array_elements($1::jsonb) h WHERE s.key = (h.value ->> 0)::bigint
    ), turned AS (
        INSERT INTO turns (id, session_key, status, prompt_id, attempt, owner, term, flushed, intent, ended_at, row)
        SELECT t.id, t.session, t.status, t.prompt, t.attempt, t.owner, t.term, t.flushed, t.intent <> 0, t.ended_at,
               t.row
        FROM jsonb_to_recordset($2::jsonb) AS t (id text, session bigint, status text, prompt text, attempt bigint,
            owner text, term bigint, flushed bigint, intent bigint, ended_at bigint, row text)
        ON CONFLICT (id) DO UPDATE SET status = excluded.status, owner = excluded.owner, term = excluded.term,
            flushed = excluded.flushed, intent = excluded.intent, ended_at = excluded.ended_at, row = excluded.row
    ), flushed AS (
        UPDATE turns t SET flushed = (f.value ->> 1)::bigint
        FROM jsonb_array_elements($3::jsonb) f WHERE t.id = f.value ->> 0
    ), logged AS (
        INSERT INTO events (session_key, seq, kind, turn_id, flush, body)
        SELECT (e.value ->> 0)::bigint, (e.value ->> 1)::bigint, e.value ->> 2, e.value ->> 3,
               (e.value ->> 4)::bigint, e.value ->> 5
        FROM jsonb_array_elements($4::jsonb) e
    ), said AS (
        INSERT INTO messages (session_key, seq, id, text)
        SELECT (m.value ->> 0)::bigint, (m.value ->> 1)::bigint, m.value ->> 2, m.value ->> 3
        FROM jsonb_array_elements($5::jsonb) m
    ), chunked AS (
        INSERT INTO chunks (turn_id, upto, parts)
        SELECT c.value ->> 0, (c.value ->> 1)::bigint, c.value ->> 2 FROM jsonb_array_elements($6::jsonb) c
    )
    DELETE FROM chunks WHERE turn_id = ANY($7)";

/// Drops the deltas of turns that ended long ago; their message is in the terminal event (L5). One step, in which
/// turns that somebody else has locked are left for another.
pub(super) async fn compact(connection: &mut Db, ended_before: Timestamp, limit: usize) -> Result<Compacted> {
    let doing = Error::in_postgres("compacting");
    let found = sqlx::query_as(
        "SELECT id, (row::json ->> 'ended_seq')::bigint - (row::json ->> 'started_seq')::bigint FROM turns
         WHERE NOT compacted AND ended_at IS NOT NULL AND ended_at < $1
         AND status IN ('completed', 'failed', 'cancelled') ORDER BY ended_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED",
    )
    .bind(ended_before.0)
    .bind(signed(rows::DUE))
    .fetch_all(&mut *connection)
    .await
    .map_err(&doing)?;
    let step = rows::Due::of(found, limit);
    if step.turns.is_empty() {
        return Ok(step.dropped(0, limit));
    }
    // The deltas of a turn lie between its start and its end, so that a range of the log is read and no index.
    let dropped = sqlx::query(
        "DELETE FROM events WHERE (session_key, seq) IN (
             SELECT e.session_key, e.seq FROM turns t JOIN events e ON e.session_key = t.session_key
                 AND e.seq > (t.row::json ->> 'started_seq')::bigint AND e.seq < (t.row::json ->> 'ended_seq')::bigint
                 AND e.turn_id = t.id AND e.kind = 'turn_delta'
             WHERE t.id = ANY($1) LIMIT $2)",
    )
    .bind(&step.turns)
    .bind(signed(limit))
    .execute(&mut *connection)
    .await
    .map_err(&doing)?;
    let compacted = step.dropped(dropped.rows_affected(), limit);
    if compacted.deltas < limit {
        let sql = "UPDATE turns SET compacted = true WHERE id = ANY($1)";
        sqlx::query(sql).bind(&step.turns).execute(connection).await.map_err(&doing)?;
    }
    Ok(compacted)
}

/// Raises the number of the history; the history.
pub(super) async fn new_history(connection: &mut Db) -> Result<String> {
    sqlx::query("UPDATE meta SET value = (value::bigint + 1)::text WHERE name = 'history'")
        .execute(&mut *connection)
        .await
        .map_err(Error::in_postgres("beginning a new history"))?;
    Reader(connection).history().await
}
