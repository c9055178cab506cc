//! What a writing transaction locks and reads before it decides, each kind of row in one statement.
//!
//! The order is nodes, sessions, turns, each ascending. Under `READ COMMITTED` a statement that waited for a lock sees
//! all other rows as they were before the wait; so whatever is read of a session is read by a later statement than the
//! one that locked it, and the nodes last of all: the owner of every turn that was found was there before.

use std::collections::{HashMap, HashSet};

use sqlx::{AssertSqlSafe, Row};

use super::{
    super::{
        Error, Item, Result,
        batch::{self, Sessions},
        read::folded,
        rows::{self, SessionRow, signed, unsigned},
    },
    db::Db,
    read::SESSION,
};
use crate::{
    clock,
    model::{
        Node, Part, TurnStatus,
        machine::{self, KnownMessage, Op, Session},
    },
};

/// The nodes that may take a turn by these items, ascending. Deltas, and the making of a session, start none.
fn takers<'a>(items: &[&'a Item]) -> Vec<&'a str> {
    let may_start = |item: &&&Item| !matches!(*item.op, Op::Append { .. } | Op::Create { .. });
    let nodes = items.iter().filter(may_start).filter_map(|item| item.node.as_ref());
    let mut nodes: Vec<&str> = nodes.map(|node| node.incarnation.0.as_str()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// Keeps the state of the nodes that may take a turn as it is, to the end of the transaction (T2).
pub(super) async fn lock_nodes(connection: &mut Db, items: &[&Item]) -> Result<()> {
    let takers = takers(items);
    if takers.is_empty() {
        return Ok(());
    }
    sqlx::query("SELECT 1 FROM nodes WHERE incarnation = ANY($1) ORDER BY incarnation FOR KEY SHARE")
        .bind(takers)
        .execute(connection)
        .await
        .map(drop)
        .map_err(Error::in_postgres("locking nodes"))
}

/// Inserts the sessions that items ask for and that are not there; their keys by id.
pub(super) async fn create_sessions(connection: &mut Db, items: &[&Item]) -> Result<HashMap<String, i64>> {
    let now = clock::now();
    let mut new: Vec<Session> = Vec::new();
    for item in items {
        if !new.iter().any(|session| session.id == item.session) {
            new.extend(machine::create(&item.session, &item.op, now));
        }
    }
    if new.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<_> = new.iter().map(batch::session_row).collect();
    // Ascending, so that two who make the same sessions wait for each other one way round only.
    let found: Vec<(String, i64)> = sqlx::query_as(
        "INSERT INTO sessions (id, epoch, last_seq, title, metadata, max_running, created_at, updated_at)
         SELECT j.id, j.epoch, j.last_seq, j.title, j.metadata, j.max_running, j.created_at, j.updated_at
         FROM jsonb_to_recordset($1::jsonb) AS j (id text, epoch text, last_seq bigint, title text, metadata text,
             max_running bigint, created_at bigint, updated_at bigint)
         WHERE NOT EXISTS (SELECT 1 FROM sessions s WHERE s.id = j.id)
         ORDER BY j.id COLLATE \"C\"
         ON CONFLICT (id) DO NOTHING RETURNING id, key",
    )
    .bind(serde_json::to_string(&rows).unwrap_or_default())
    .fetch_all(connection)
    .await
    .map_err(Error::in_postgres("making sessions"))?;
    Ok(found.into_iter().collect())
}

/// Locks the items' sessions, as they are after the lock. With `skip`, those that somebody else has locked are left out.
pub(super) async fn lock_sessions(connection: &mut Db, items: &[&Item], skip: bool) -> Result<Vec<Session>> {
    let ids: HashSet<&str> = items.iter().map(|item| &*item.session).collect();
    let ids: Vec<&str> = ids.into_iter().collect();
    let skip = if skip { "SKIP LOCKED" } else { "" };
    let sql = format!("SELECT {SESSION} FROM sessions s WHERE s.id = ANY($1) ORDER BY s.key FOR UPDATE {skip}");
    let found: Vec<SessionRow> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(ids)
        .fetch_all(connection)
        .await
        .map_err(Error::in_postgres("locking sessions"))?;
    found.into_iter().map(SessionRow::session).collect()
}

/// Which of the items' sessions are there at all.
pub(super) async fn existing(connection: &mut Db, ids: Vec<&str>) -> Result<HashSet<String>> {
    let found: Vec<String> = sqlx::query_scalar("SELECT id FROM sessions WHERE id = ANY($1)")
        .bind(ids)
        .fetch_all(connection)
        .await
        .map_err(Error::in_postgres("looking for sessions"))?;
    Ok(found.into_iter().collect())
}

/// Locks and reads the queued and running turns of locked sessions, the turns that items name, and all turns of the
/// prompts that items retry.
pub(super) async fn turns(connection: &mut Db, sessions: &mut Sessions, items: &[&Item]) -> Result<()> {
    let keys: Vec<i64> = sessions.values().map(|session| session.key).collect();
    let lookups = || items.iter().map(|item| item.op.lookups());
    let named: Vec<&str> = lookups().filter_map(|lookups| lookups.turn).collect();
    let retried: Vec<&str> = lookups().filter(|lookups| lookups.siblings).filter_map(|lookups| lookups.turn).collect();
    let found: Vec<(i64, String, i64)> = sqlx::query_as(
        "SELECT t.session_key, t.row, t.flushed FROM turns t WHERE t.session_key = ANY($1) AND t.id IN (
             SELECT l.id FROM turns l WHERE l.session_key = ANY($1) AND l.status IN ('queued', 'running')
             UNION SELECT unnest($2::text[])
             UNION SELECT o.id FROM turns n JOIN turns o ON o.session_key = n.session_key AND o.prompt_id = n.prompt_id
                 WHERE n.id = ANY($3))
         ORDER BY t.session_key, t.id FOR UPDATE OF t",
    )
    .bind(keys)
    .bind(named)
    .bind(retried)
    .fetch_all(connection)
    .await
    .map_err(Error::in_postgres("locking turns"))?;
    let mut by_key: HashMap<i64, &mut Session> = sessions.values_mut().map(|session| (session.key, session)).collect();
    for (key, text, flushed) in &found {
        if let Some(session) = by_key.get_mut(key) {
            let mut turn = rows::turn(text)?;
            turn.flushed = unsigned(*flushed);
            session.turns.push(turn);
        }
    }
    Ok(())
}

/// Reads the messages that items name, each with its first turn.
pub(super) async fn messages(connection: &mut Db, sessions: &mut Sessions, items: &[&Item]) -> Result<()> {
    let key = |item: &Item| sessions.get(&item.session).map(|session| session.key);
    let (keys, ids): (Vec<i64>, Vec<&str>) =
        items.iter().filter_map(|item| Some((key(item)?, item.op.lookups().message?))).unzip();
    if keys.is_empty() {
        return Ok(());
    }
    let found = sqlx::query(
        "SELECT m.session_key, m.text, (SELECT t.id FROM turns t WHERE t.session_key = m.session_key
             AND t.prompt_id = m.id AND t.attempt = 1)
         FROM unnest($1::bigint[], $2::text[]) AS w (key, id) JOIN messages m ON m.session_key = w.key AND m.id = w.id",
    )
    .bind(keys)
    .bind(ids)
    .fetch_all(connection)
    .await
    .map_err(Error::in_postgres("looking for messages"))?;
    let mut by_key: HashMap<i64, &mut Session> = sessions.values_mut().map(|session| (session.key, session)).collect();
    for row in &found {
        let Some(session) = by_key.get_mut(&row.get::<i64, _>(0)) else { continue };
        let message = rows::message(row.get(1))?;
        session.messages.insert(message.id.clone(), KnownMessage { message, turn_id: row.get(2) });
    }
    Ok(())
}

/// What the turns that these items may end from outside have streamed: orphans, and those that an item names.
pub(super) async fn partials(
    connection: &mut Db,
    sessions: &Sessions,
    items: &[&Item],
    nodes: &[Node],
) -> Result<HashMap<String, Vec<Part>>> {
    let named = |item: &&Item| match &*item.op {
        Op::Cancel { turn_id, .. } | Op::Force { turn_id, .. } | Op::EndOwned { turn_id, .. } => Some(turn_id.clone()),
        _ => None,
    };
    let named: HashSet<String> = items.iter().filter_map(named).collect();
    let (mut keys, mut turns, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    for session in sessions.values() {
        for turn in session.turns.iter().filter(|turn| turn.status == TurnStatus::Running) {
            if named.contains(&turn.id) || turn.owner.as_ref().is_none_or(|owner| machine::is_gone(nodes, owner)) {
                keys.push(session.key);
                turns.push(turn.id.as_str());
                starts.push(signed(turn.started_seq.unwrap_or(0)));
            }
        }
    }
    if turns.is_empty() { Ok(HashMap::new()) } else { read_partials(connection, keys, turns, starts).await }
}

async fn read_partials(
    connection: &mut Db,
    keys: Vec<i64>,
    turns: Vec<&str>,
    starts: Vec<i64>,
) -> Result<HashMap<String, Vec<Part>>> {
    let doing = Error::in_postgres("reading what answers have streamed");
    let chunks: Vec<(String, String)> =
        sqlx::query_as("SELECT turn_id, parts FROM chunks WHERE turn_id = ANY($1) ORDER BY turn_id, upto")
            .bind(&turns)
            .fetch_all(&mut *connection)
            .await
            .map_err(&doing)?;
    let deltas: Vec<(String, String)> = sqlx::query_as(
        "SELECT w.turn, e.body FROM unnest($1::bigint[], $2::text[], $3::bigint[]) AS w (key, turn, start)
         JOIN events e ON e.session_key = w.key AND e.turn_id = w.turn AND e.kind = 'turn_delta'
         AND e.seq > coalesce((SELECT max(c.upto) FROM chunks c WHERE c.turn_id = w.turn), w.start)
         ORDER BY w.turn, e.seq",
    )
    .bind(keys)
    .bind(&turns)
    .bind(starts)
    .fetch_all(connection)
    .await
    .map_err(&doing)?;
    let mut by_turn: HashMap<String, (Vec<String>, Vec<String>)> =
        turns.into_iter().map(|turn| (turn.to_owned(), Default::default())).collect();
    for (turn, text) in chunks {
        by_turn.entry(turn).or_default().0.push(text);
    }
    for (turn, body) in deltas {
        by_turn.entry(turn).or_default().1.push(body);
    }
    by_turn.into_iter().map(|(turn, (chunks, deltas))| Ok((turn, folded(chunks.iter(), &deltas)?))).collect()
}
