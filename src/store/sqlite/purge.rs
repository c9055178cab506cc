//! What deleted sessions leave behind, removed a few rows at a time: each step is a small transaction of its own.

use sqlx::SqliteConnection;

use super::super::{Error, Purged, Result, rows::signed};
use crate::clock::Timestamp;

/// See [`super::Store::purge`].
pub(super) async fn step(connection: &mut SqliteConnection, limit: usize, forget: Timestamp) -> Result<Purged> {
    let doing = Error::while_doing("removing a deleted session");
    let found: Option<i64> = sqlx::query_scalar(NEXT).fetch_optional(&mut *connection).await.map_err(&doing)?;
    let Some(key) = found else {
        sqlx::query(FORGET).bind(forget.0).execute(connection).await.map_err(&doing)?;
        return Ok(Purged { rows: 0, more: false });
    };
    let mut rows = 0;
    for sql in [EVENTS, MESSAGES, CHUNKS, TURNS] {
        let left = signed(limit - rows);
        let done = sqlx::query(sql).bind(key).bind(left).execute(&mut *connection).await.map_err(&doing)?;
        rows = (rows + usize::try_from(done.rows_affected()).unwrap_or(limit)).min(limit);
        if rows == limit {
            return Ok(Purged { rows, more: true });
        }
    }
    sqlx::query(EMPTIED).bind(key).execute(connection).await.map_err(&doing)?;
    Ok(Purged { rows, more: true })
}

const NEXT: &str = "SELECT session_key FROM deleted_sessions WHERE emptied = 0 ORDER BY session_key LIMIT 1";

const FORGET: &str = "DELETE FROM deleted_sessions WHERE emptied = 1 AND deleted_at < ?";

const EVENTS: &str = "DELETE FROM events WHERE session_key = ?1
    AND seq IN (SELECT seq FROM events WHERE session_key = ?1 ORDER BY seq LIMIT ?2)";

const MESSAGES: &str = "DELETE FROM messages WHERE session_key = ?1
    AND seq IN (SELECT seq FROM messages WHERE session_key = ?1 ORDER BY seq LIMIT ?2)";

/// Before the turns that they are found by.
const CHUNKS: &str = "DELETE FROM chunks WHERE (turn_id, upto) IN (
    SELECT c.turn_id, c.upto FROM turns t CROSS JOIN chunks c ON c.turn_id = t.id WHERE t.session_key = ?1 LIMIT ?2)";

const TURNS: &str = "DELETE FROM turns WHERE id IN (SELECT id FROM turns WHERE session_key = ?1 LIMIT ?2)";

const EMPTIED: &str = "UPDATE deleted_sessions SET emptied = 1 WHERE session_key = ?";
