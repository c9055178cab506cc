//! What the writer reads inside its transaction, before it decides.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use serde::Deserialize;
use serde_json::value::RawValue;
use sqlx::{AssertSqlSafe, Row, SqliteConnection};

use super::{
    super::{Error, Item, Result},
    rows,
};
use crate::model::{
    Event, EventKind, Node, Part, Turn, TurnStatus,
    fold::{self, Delta},
    machine::{KnownMessage, Session},
};

/// Every node row.
pub(super) async fn nodes(connection: &mut SqliteConnection) -> Result<Vec<Node>> {
    sqlx::query("SELECT incarnation, name, state, beat, lease_ttl_ms, exclusive FROM nodes ORDER BY incarnation")
        .fetch_all(connection)
        .await
        .map_err(Error::while_doing("reading the nodes"))?
        .iter()
        .map(rows::node)
        .collect()
}

/// The store's history.
pub(super) async fn history(connection: &mut SqliteConnection) -> Result<String> {
    sqlx::query("SELECT value FROM meta WHERE name = 'history'")
        .fetch_one(connection)
        .await
        .map(|row| row.get(0))
        .map_err(Error::while_doing("reading the store's history"))
}

/// The sessions of a batch that are not known yet, each with its queued and running turns.
pub(super) async fn sessions(
    connection: &mut SqliteConnection,
    known: &mut HashMap<Arc<str>, Session>,
    batch: &[Item],
) -> Result<()> {
    let doing = Error::while_doing("reading sessions");
    let missing: HashSet<&str> =
        batch.iter().map(|item| &*item.session).filter(|&id| !known.contains_key(id)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let ids = serde_json::to_string(&missing).unwrap_or_default();
    let found = sqlx::query(AssertSqlSafe(format!(
        "SELECT {} FROM json_each(?) j CROSS JOIN sessions s ON s.id = j.value",
        rows::SESSION
    )))
    .bind(ids)
    .fetch_all(&mut *connection)
    .await
    .map_err(&doing)?;
    let mut by_key = HashMap::new();
    for row in &found {
        let session = rows::session(row)?;
        by_key.insert(session.key, session);
    }
    let keys = serde_json::to_string(&by_key.keys().collect::<Vec<_>>()).unwrap_or_default();
    let turns = sqlx::query(AssertSqlSafe(format!(
        "SELECT {}, t.session_key FROM json_each(?) j CROSS JOIN turns t
         ON t.session_key = j.value AND t.status IN ('queued', 'running')",
        rows::TURN
    )))
    .bind(keys)
    .fetch_all(&mut *connection)
    .await
    .map_err(&doing)?;
    for row in &turns {
        if let Some(session) = by_key.get_mut(&row.get::<i64, _>(1)) {
            let mut turn = rows::turn(row)?;
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
    .bind(rows::signed(turn.started_seq.unwrap_or(0)))
    .bind(&turn.id)
    .fetch_optional(connection)
    .await
    .map_err(Error::while_doing("reading a turn's flushes"))?;
    Ok(newest.map_or(0, |row| rows::unsigned(row.get(0)) + 1))
}

/// The messages and ended turns that the items of a batch name.
pub(super) async fn lookups(
    connection: &mut SqliteConnection,
    known: &mut HashMap<Arc<str>, Session>,
    batch: &[Item],
) -> Result<()> {
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
    let row =
        sqlx::query(AssertSqlSafe(format!("SELECT {} FROM turns t WHERE t.id = ? AND t.session_key = ?", rows::TURN)))
            .bind(turn_id)
            .bind(session.key)
            .fetch_optional(connection)
            .await
            .map_err(Error::while_doing("reading a turn"))?;
    session.turns.extend(row.as_ref().map(rows::turn).transpose()?);
    Ok(())
}

async fn attempts(connection: &mut SqliteConnection, session: &mut Session, turn_id: &str) -> Result<()> {
    let found = sqlx::query(AssertSqlSafe(format!(
        "SELECT {} FROM turns named JOIN turns t ON t.session_key = named.session_key AND t.prompt_id = named.prompt_id
         WHERE named.id = ? AND named.session_key = ?",
        rows::TURN
    )))
    .bind(turn_id)
    .bind(session.key)
    .fetch_all(connection)
    .await
    .map_err(Error::while_doing("reading the attempts of a prompt"))?;
    for row in &found {
        let turn = rows::turn(row)?;
        if !session.turns.iter().any(|old| old.id == turn.id) {
            session.turns.push(turn);
        }
    }
    Ok(())
}

async fn known_messages(
    connection: &mut SqliteConnection,
    known: &mut HashMap<Arc<str>, Session>,
    wanted: &[(i64, &str)],
) -> Result<()> {
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
        let message: crate::model::Message =
            serde_json::from_str(row.get(1)).map_err(|error| rows::corrupt("a message", &error))?;
        session.messages.insert(message.id.clone(), KnownMessage { message, turn_id: row.get(2) });
    }
    Ok(())
}

/// What a running turn has streamed: its chunks, the deltas after the last one, and those of this batch that are
/// decided but not written yet.
pub(super) async fn partial(
    connection: &mut SqliteConnection,
    session: &Session,
    turn_id: &str,
    pending: &[Event],
) -> Result<Vec<Part>> {
    let started = session.turns.iter().find(|turn| turn.id == turn_id).and_then(|turn| turn.started_seq);
    let mut parts = streamed(connection, session.key, turn_id, started.unwrap_or(0)).await?;
    for event in pending {
        if event.kind == EventKind::TurnDelta && event.turn_id.as_deref() == Some(turn_id) {
            fold::apply(&mut parts, &delta_of(&event.body)?);
        }
    }
    Ok(parts)
}

/// The fold of a turn's chunks and of the deltas after the last one, as the database shows them.
pub(super) async fn streamed(
    connection: &mut SqliteConnection,
    session_key: i64,
    turn_id: &str,
    started_seq: u64,
) -> Result<Vec<Part>> {
    let doing = Error::while_doing("reading what an answer has streamed");
    let mut parts = Vec::new();
    let mut upto = rows::signed(started_seq);
    let chunks = sqlx::query("SELECT upto, parts FROM chunks WHERE turn_id = ? ORDER BY upto")
        .bind(turn_id)
        .fetch_all(&mut *connection)
        .await
        .map_err(&doing)?;
    for row in &chunks {
        upto = row.get(0);
        let deltas: Vec<Delta> = serde_json::from_str(row.get(1)).map_err(|error| rows::corrupt("a chunk", &error))?;
        deltas.iter().for_each(|delta| fold::apply(&mut parts, delta));
    }
    let deltas = sqlx::query(
        "SELECT body FROM events WHERE session_key = ? AND seq > ? AND turn_id = ? AND kind = 'turn_delta' ORDER BY seq",
    )
    .bind(session_key)
    .bind(upto)
    .bind(turn_id)
    .fetch_all(&mut *connection)
    .await
    .map_err(&doing)?;
    for row in &deltas {
        fold::apply(&mut parts, &delta_of(row.get(0))?);
    }
    Ok(parts)
}

/// The delta in the body of a `turn_delta`.
fn delta_of(body: &str) -> Result<Delta> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let text = format!("{{{body}");
    let body: Body<'_> = serde_json::from_str(&text).map_err(|error| rows::corrupt("a delta", &error))?;
    serde_json::from_str(body.data.get()).map_err(|error| rows::corrupt("a delta", &error))
}
