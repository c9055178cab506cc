//! What readers read, each time in one WAL snapshot: joins, replays, pages of history, lists.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use sqlx::{AssertSqlSafe, Row, Sqlite, SqliteConnection, SqlitePool, Transaction, sqlite::SqliteRow};

use super::{
    super::{Catchup, Cut, Error, From, ListQuery, Messages, PageLimits, Record, Result, SnapshotReason, Stretch},
    load, rows,
};
use crate::model::{Message, NodeState, Turn, TurnStatus, machine::Session};

/// Events that one statement of a replay reads at most.
const STRIDE: usize = 512;

async fn begin(readers: &SqlitePool) -> Result<Transaction<'static, Sqlite>> {
    readers.begin().await.map_err(Error::while_doing("waiting for a reading connection"))
}

async fn row_of(connection: &mut SqliteConnection, session: &str) -> Result<Option<Session>> {
    sqlx::query(AssertSqlSafe(format!("SELECT {} FROM sessions s WHERE s.id = ?", rows::SESSION)))
        .bind(session)
        .fetch_optional(connection)
        .await
        .map_err(Error::while_doing("reading a session"))?
        .as_ref()
        .map(rows::session)
        .transpose()
}

async fn live_turns(connection: &mut SqliteConnection, session_key: i64) -> Result<Vec<Turn>> {
    sqlx::query(AssertSqlSafe(format!(
        "SELECT {} FROM turns t WHERE t.session_key = ? AND t.status IN ('queued', 'running')",
        rows::TURN
    )))
    .bind(session_key)
    .fetch_all(connection)
    .await
    .map_err(Error::while_doing("reading a session's turns"))?
    .iter()
    .map(rows::turn)
    .collect()
}

fn epoch_of(session: &Session, history: &str) -> String {
    format!("{}.{history}", session.epoch)
}

/// Whether a session has an orphan, or a queued turn and a free slot.
async fn has_work(connection: &mut SqliteConnection, session: &Session) -> Result<bool> {
    let running: Vec<&Turn> = session.turns.iter().filter(|turn| turn.status == TurnStatus::Running).collect();
    let slots = usize::try_from(session.max_running).unwrap_or(usize::MAX);
    if running.len() < session.turns.len() && running.len() < slots {
        return Ok(true);
    }
    if running.is_empty() {
        return Ok(false);
    }
    let nodes = load::nodes(connection).await?;
    let is_gone = |turn: &&Turn| {
        let owner = turn.owner.as_ref().map(|owner| &owner.incarnation);
        let node = nodes.iter().find(|node| Some(&node.owner.incarnation) == owner);
        node.is_none_or(|node| node.state == NodeState::Dead)
    };
    Ok(running.iter().any(is_gone))
}

pub(super) async fn cut(readers: &SqlitePool, id: &str, from: Option<From>, limits: PageLimits) -> Result<Option<Cut>> {
    let mut transaction = begin(readers).await?;
    let connection = &mut *transaction;
    let Some(mut session) = row_of(connection, id).await? else { return Ok(None) };
    session.turns = live_turns(connection, session.key).await?;
    let history = load::history(connection).await?;
    let epoch = epoch_of(&session, &history);
    let needs_work = has_work(connection, &session).await?;
    let catchup = match from {
        None => None,
        Some(from) => Some(match start_of(&from, &session, &epoch, limits) {
            Ok(after) => Catchup::Replay(read_stretch(connection, &session, after, limits.bytes).await?),
            Err(reason) => snapshot(connection, &session, reason, limits).await?,
        }),
    };
    Ok(Some(Cut { session, epoch, needs_work, catchup }))
}

/// The seq to replay from, or why a snapshot is given instead (L9).
fn start_of(
    from: &From,
    session: &Session,
    epoch: &str,
    limits: PageLimits,
) -> std::result::Result<u64, SnapshotReason> {
    match from {
        From::Start(reason) => Err(*reason),
        From::Cursor { epoch: held, .. } if held != epoch => Err(SnapshotReason::EpochChanged),
        From::Cursor { seq, .. } if *seq > session.last_seq => Err(SnapshotReason::CursorAhead),
        From::Cursor { seq, .. } if session.last_seq - seq > limits.trim => Err(SnapshotReason::Trimmed),
        From::Cursor { seq, .. } => Ok(*seq),
    }
}

async fn snapshot(
    connection: &mut SqliteConnection,
    session: &Session,
    reason: SnapshotReason,
    limits: PageLimits,
) -> Result<Catchup> {
    let messages = page(connection, session, u64::MAX, limits).await?;
    let mut streaming = Vec::new();
    for turn in session.turns.iter().filter(|turn| turn.status == TurnStatus::Running) {
        let seq = turn.started_seq.unwrap_or(0);
        let parts = load::streamed(connection, session.key, &turn.id, seq).await?;
        let at = turn.started_at.unwrap_or(turn.queued_at);
        streaming.push(Message { parts, ..Message::answer(&turn.id, &turn.reply_id, &turn.agent, seq, at) });
    }
    Ok(Catchup::Snapshot { reason, messages, streaming })
}

/// The newest messages below `before`, as many as the limits allow and at least one, without a hole.
async fn page(
    connection: &mut SqliteConnection,
    session: &Session,
    before: u64,
    limits: PageLimits,
) -> Result<Messages> {
    let doing = Error::while_doing("reading messages");
    // Sizes first, so that a page of long messages does not read what it will not carry.
    let sizes: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT seq, octet_length(text) FROM messages WHERE session_key = ? AND seq < ? ORDER BY seq DESC LIMIT ?",
    )
    .bind(session.key)
    .bind(rows::signed(before))
    .bind(i64::try_from(limits.messages + 1).unwrap_or(i64::MAX))
    .fetch_all(&mut *connection)
    .await
    .map_err(&doing)?;
    let mut bytes = 0;
    let fitting = sizes
        .iter()
        .take(limits.messages)
        .take_while(|(_, size)| {
            let first = bytes == 0;
            bytes += usize::try_from(*size).unwrap_or(usize::MAX).max(1);
            first || bytes <= limits.bytes
        })
        .count();
    let Some(&(oldest, _)) = fitting.checked_sub(1).and_then(|last| sizes.get(last)) else {
        return Ok(Messages { before: before.min(session.last_seq + 1), ..Messages::default() });
    };
    let found =
        sqlx::query("SELECT seq, text, id FROM messages WHERE session_key = ? AND seq >= ? AND seq < ? ORDER BY seq")
            .bind(session.key)
            .bind(oldest)
            .bind(rows::signed(before))
            .fetch_all(&mut *connection)
            .await
            .map_err(&doing)?;
    let ids: Vec<&str> = found.iter().map(|row| row.get(2)).collect();
    Ok(Messages {
        ended: ended(connection, session.key, &ids).await?,
        messages: found.iter().map(|row| (rows::unsigned(row.get(0)), row.get(1))).collect(),
        before: rows::unsigned(oldest),
        has_more: sizes.len() > fitting,
    })
}

/// For each prompt among `messages` its newest turn, if that has ended.
async fn ended(connection: &mut SqliteConnection, session_key: i64, messages: &[&str]) -> Result<Vec<Turn>> {
    let found = sqlx::query(AssertSqlSafe(format!(
        "SELECT {} FROM json_each(?) j CROSS JOIN turns t ON t.session_key = ? AND t.prompt_id = j.value
         AND t.attempt = (SELECT max(n.attempt) FROM turns n WHERE n.session_key = t.session_key AND n.prompt_id = t.prompt_id)
         AND t.ended_at IS NOT NULL",
        rows::TURN
    )))
    .bind(serde_json::to_string(messages).unwrap_or_default())
    .bind(session_key)
    .fetch_all(connection)
    .await
    .map_err(Error::while_doing("reading how turns ended"))?;
    found.iter().map(rows::turn).collect()
}

pub(super) async fn history(
    readers: &SqlitePool,
    id: &str,
    before: u64,
    limits: PageLimits,
) -> Result<Option<Messages>> {
    let mut transaction = begin(readers).await?;
    let Some(session) = row_of(&mut transaction, id).await? else { return Ok(None) };
    page(&mut transaction, &session, before, limits).await.map(Some)
}

pub(super) async fn stretch(
    readers: &SqlitePool,
    id: &str,
    epoch: &str,
    after: u64,
    bytes: usize,
) -> Result<Option<Stretch>> {
    let mut transaction = begin(readers).await?;
    let connection = &mut *transaction;
    let Some(session) = row_of(connection, id).await? else { return Ok(None) };
    let history = load::history(connection).await?;
    if epoch_of(&session, &history) != epoch || session.last_seq < after {
        return Ok(None);
    }
    read_stretch(connection, &session, after, bytes).await.map(Some)
}

async fn read_stretch(
    connection: &mut SqliteConnection,
    session: &Session,
    after: u64,
    bytes: usize,
) -> Result<Stretch> {
    let mut stretch = Stretch { from: after, upto: after, ..Stretch::default() };
    let mut size = 0;
    loop {
        let found = sqlx::query(
            "SELECT e.seq, e.kind, e.turn_id, e.body FROM events e
             WHERE e.session_key = ? AND e.seq > ? AND NOT (e.kind = 'turn_delta' AND EXISTS (
                 SELECT 1 FROM turns t WHERE t.id = e.turn_id AND t.ended_at IS NOT NULL))
             ORDER BY e.seq LIMIT ?",
        )
        .bind(session.key)
        .bind(rows::signed(stretch.upto))
        .bind(i64::try_from(STRIDE).unwrap_or(i64::MAX))
        .fetch_all(&mut *connection)
        .await
        .map_err(Error::while_doing("reading a log"))?;
        for row in &found {
            let record = record(row);
            size += record.body.len() + 24;
            stretch.upto = record.seq;
            stretch.records.push(record);
            if size >= bytes {
                stretch.complete = stretch.upto == session.last_seq;
                return Ok(stretch);
            }
        }
        if found.len() < STRIDE {
            stretch.upto = session.last_seq;
            stretch.complete = true;
            return Ok(stretch);
        }
    }
}

fn record(row: &SqliteRow) -> Record {
    Record { seq: rows::unsigned(row.get(0)), kind: row.get(1), turn_id: row.get(2), body: row.get(3) }
}

pub(super) async fn context(readers: &SqlitePool, id: &str, turn_id: &str, limit: usize) -> Result<Vec<Message>> {
    let doing = Error::while_doing("reading an agent's context");
    let mut transaction = begin(readers).await?;
    let connection = &mut *transaction;
    let Some(session) = row_of(connection, id).await? else { return Ok(Vec::new()) };
    let turn = sqlx::query(AssertSqlSafe(format!("SELECT {} FROM turns t WHERE t.id = ?", rows::TURN)))
        .bind(turn_id)
        .fetch_optional(&mut *connection)
        .await
        .map_err(&doing)?;
    let Some(turn) = turn.as_ref().map(rows::turn).transpose()? else { return Ok(Vec::new()) };
    let prompt: Option<String> = sqlx::query("SELECT text FROM messages WHERE session_key = ? AND id = ?")
        .bind(session.key)
        .bind(&turn.prompt_id)
        .fetch_optional(&mut *connection)
        .await
        .map_err(&doing)?
        .map(|row| row.get(0));
    let prompt = prompt.as_deref().map(message).transpose()?;
    let first_attempt = turn.attempt == 1;
    let below = if first_attempt { turn.started_seq } else { prompt.as_ref().map(|prompt| prompt.seq) };
    let texts = sqlx::query(
        "SELECT m.text FROM messages m WHERE m.session_key = ?1 AND m.seq < ?2 AND m.id <> ?3
         AND NOT EXISTS (SELECT 1 FROM turns t WHERE t.session_key = m.session_key AND t.prompt_id = m.id
                         AND t.attempt = 1 AND t.status = 'queued')
         ORDER BY m.seq DESC LIMIT ?4",
    )
    .bind(session.key)
    .bind(rows::signed(below.unwrap_or(0)))
    .bind(&turn.prompt_id)
    .bind(i64::try_from(limit.saturating_sub(1)).unwrap_or(i64::MAX))
    .fetch_all(&mut *connection)
    .await
    .map_err(&doing)?;
    let mut messages = texts.iter().rev().map(|row| message(row.get(0))).collect::<Result<Vec<_>>>()?;
    messages.extend(prompt);
    Ok(messages)
}

fn message(text: &str) -> Result<Message> {
    serde_json::from_str(text).map_err(|error| rows::corrupt("a message", &error))
}

pub(super) async fn list(readers: &SqlitePool, query: &ListQuery) -> Result<Vec<Session>> {
    let doing = Error::while_doing("listing sessions");
    let mut transaction = begin(readers).await?;
    let connection = &mut *transaction;
    let (updated_at, key) = query.after.unwrap_or((i64::MAX, i64::MAX));
    let found = sqlx::query(AssertSqlSafe(format!(
        "SELECT {} FROM sessions s WHERE (s.updated_at, s.key) < (?1, ?2) AND substr(s.id, 1, length(?3)) = ?3
         AND (?4 IS NULL OR ?4 = CASE
             WHEN EXISTS (SELECT 1 FROM turns t WHERE t.session_key = s.key AND t.status = 'running') THEN 'running'
             WHEN EXISTS (SELECT 1 FROM turns t WHERE t.session_key = s.key AND t.status = 'queued') THEN 'queued'
             ELSE 'idle' END)
         ORDER BY s.updated_at DESC, s.key DESC LIMIT ?5",
        rows::SESSION
    )))
    .bind(updated_at)
    .bind(key)
    .bind(&query.prefix)
    .bind(&query.status)
    .bind(i64::try_from(query.limit).unwrap_or(i64::MAX))
    .fetch_all(&mut *connection)
    .await
    .map_err(&doing)?;
    let mut sessions = found.iter().map(rows::session).collect::<Result<Vec<_>>>()?;
    let keys: Vec<i64> = sessions.iter().map(|session| session.key).collect();
    let turns = sqlx::query(AssertSqlSafe(format!(
        "SELECT {}, t.session_key FROM json_each(?) j CROSS JOIN turns t
         ON t.session_key = j.value AND t.status IN ('queued', 'running')",
        rows::TURN
    )))
    .bind(serde_json::to_string(&keys).unwrap_or_default())
    .fetch_all(&mut *connection)
    .await
    .map_err(&doing)?;
    let mut by_key: HashMap<i64, Vec<Turn>> = HashMap::new();
    for row in &turns {
        by_key.entry(row.get(1)).or_default().push(rows::turn(row)?);
    }
    for session in &mut sessions {
        session.turns = by_key.remove(&session.key).unwrap_or_default();
    }
    Ok(sessions)
}

pub(super) async fn needs_work(readers: &SqlitePool, limit: usize) -> Result<Vec<Arc<str>>> {
    let found = sqlx::query(
        "SELECT s.id FROM turns t JOIN sessions s ON s.key = t.session_key
         LEFT JOIN nodes n ON n.incarnation = t.owner
         WHERE t.status = 'running' AND (n.state IS NULL OR n.state = 'dead')
         UNION
         SELECT s.id FROM sessions s WHERE s.key IN (SELECT q.session_key FROM turns q WHERE q.status = 'queued')
         AND s.max_running > (SELECT count(*) FROM turns r WHERE r.session_key = s.key AND r.status = 'running')
         LIMIT ?",
    )
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(readers)
    .await
    .map_err(Error::while_doing("looking for sessions that need work"))?;
    let ids: HashSet<Arc<str>> = found.iter().map(|row| Arc::from(row.get::<&str, _>(0))).collect();
    Ok(ids.into_iter().collect())
}
