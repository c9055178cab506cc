//! What the writer reads inside its transaction, before it decides.

use std::collections::{HashMap, HashSet};

use sqlx::{AssertSqlSafe, Row, SqliteConnection};

use super::{
    super::{
        Error, Item, Result,
        batch::Sessions,
        rows::{self, SessionRow, signed, unsigned},
    },
    read::SESSION,
};
use crate::model::{
    Turn, TurnStatus,
    machine::{KnownMessage, Session},
};

/// The sessions of a batch that are not known yet, each with its queued and running turns.
pub(super) async fn sessions(connection: &mut SqliteConnection, known: &mut Sessions, batch: &[Item]) -> Result<()> {
    let doing = Error::while_doing("reading sessions");
    let missing: HashSet<&str> =
        batch.iter().map(|item| &*item.session).filter(|&id| !known.contains_key(id)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let ids = serde_json::to_string(&missing).unwrap_or_default();
    let sql = format!("SELECT {SESSION} FROM json_each(?) j CROSS JOIN sessions s ON s.id = j.value");
    let found: Vec<SessionRow> =
        sqlx::query_as(AssertSqlSafe(sql)).bind(ids).fetch_all(&mut *connection).await.map_err(&doing)?;
    let mut by_key = HashMap::new();
    for row in found {
        let session = row.session()?;
        by_key.insert(session.key, session);
    }
    let keys = serde_json::to_string(&by_key.keys().collect::<Vec<_>>()).unwrap_or_default();
    let turns: Vec<(String, i64)> = sqlx::query_as(
        "SELECT t.row, t.session_key FROM json_each(?) j CROSS JOIN turns t
         ON t.session_key = j.value AND t.status IN ('queued', 'running')",
    )
    .bind(keys)
    .fetch_all(&mut *connection)
    .await
    .map_err(&doing)?;
    for (text, key) in &turns {
        if let Some(session) = by_key.get_mut(key) {
            let mut turn = rows::turn(text)?;
            if turn.status == TurnStatus::Running {
                turn.flushed = turn.flushed.max(flushed(connection, session.key, &turn).await?);
            }
            session.turns.push(turn);
        }
    }
    known.extend(by_key.into_values().map(|session| (session.id.clone(), session)));
    Ok(())
}

/// How many flushes of a running turn are in the log. Read only after a start or a failure: the writer remembers what
/// it wrote.
async fn flushed(connection: &mut SqliteConnection, session_key: i64, turn: &Turn) -> Result<u64> {
    let newest = sqlx::query(
        "SELECT flush FROM events WHERE session_key = ? AND seq > ? AND turn_id = ? AND kind = 'turn_delta'
         ORDER BY seq DESC LIMIT 1",
    )
    .bind(session_key)
    .bind(signed(turn.started_seq.unwrap_or(0)))
    .bind(&turn.id)
    .fetch_optional(connection)
    .await
    .map_err(Error::while_doing("reading a turn's flushes"))?;
    Ok(newest.map_or(0, |row| unsigned(row.get(0)) + 1))
}

/// The messages and ended turns that the items of a batch name.
pub(super) async fn lookups(connection: &mut SqliteConnection, known: &mut Sessions, batch: &[Item]) -> Result<()> {
    let mut messages = Vec::new();
    for item in batch {
        let Some(session) = known.get_mut(&item.session) else { continue };
        let lookups = item.op.lookups();
        if let Some(id) = lookups.message {
            messages.push((session.key, id));
        }
        let Some(turn_id) = lookups.turn else { continue };
        if lookups.siblings {
            attempts(connection, session, turn_id).await?;
        } else if !session.turns.iter().any(|turn| turn.id == turn_id) {
            ended_turn(connection, session, turn_id).await?;
        }
    }
    if messages.is_empty() { Ok(()) } else { known_messages(connection, known, &messages).await }
}

async fn ended_turn(connection: &mut SqliteConnection, session: &mut Session, turn_id: &str) -> Result<()> {
    let found: Option<String> = sqlx::query_scalar("SELECT row FROM turns WHERE id = ? AND session_key = ?")
        .bind(turn_id)
        .bind(session.key)
        .fetch_optional(connection)
        .await
        .map_err(Error::while_doing("reading a turn"))?;
    session.turns.extend(found.as_deref().map(rows::turn).transpose()?);
    Ok(())
}

async fn attempts(connection: &mut SqliteConnection, session: &mut Session, turn_id: &str) -> Result<()> {
    let found: Vec<String> = sqlx::query_scalar(
        "SELECT t.row FROM turns named
         JOIN turns t ON t.session_key = named.session_key AND t.prompt_id = named.prompt_id
         WHERE named.id = ? AND named.session_key = ?",
    )
    .bind(turn_id)
    .bind(session.key)
    .fetch_all(connection)
    .await
    .map_err(Error::while_doing("reading the attempts of a prompt"))?;
    for text in &found {
        let turn = rows::turn(text)?;
        if !session.turns.iter().any(|old| old.id == turn.id) {
            session.turns.push(turn);
        }
    }
    Ok(())
}

async fn known_messages(connection: &mut SqliteConnection, known: &mut Sessions, wanted: &[(i64, &str)]) -> Result<()> {
    let found = sqlx::query(
        "SELECT s.id, m.text,
         (SELECT t.id FROM turns t WHERE t.session_key = m.session_key AND t.prompt_id = m.id AND t.attempt = 1)
         FROM json_each(?) j
         CROSS JOIN messages m ON m.session_key = j.value ->> 0 AND m.id = j.value ->> 1
         CROSS JOIN sessions s ON s.key = m.session_key",
    )
    .bind(serde_json::to_string(wanted).unwrap_or_default())
    .fetch_all(connection)
    .await
    .map_err(Error::while_doing("looking for a message"))?;
    for row in &found {
        let Some(session) = known.get_mut(row.get::<&str, _>(0)) else { continue };
        let message = rows::message(row.get(1))?;
        session.messages.insert(message.id.clone(), KnownMessage { message, turn_id: row.get(2) });
    }
    Ok(())
}
