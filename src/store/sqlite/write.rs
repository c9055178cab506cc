//! What the writer writes: set-based, a handful of statements whatever the size of the batch.

use std::{collections::HashMap, sync::Arc};

use serde::Serialize;
use sqlx::SqliteConnection;

use super::{
    super::{Appended, Error, Result},
    rows,
};
use crate::{
    clock::Timestamp,
    model::{
        EventKind, Turn,
        machine::{Session, Touch, Writes},
    },
};

#[derive(Serialize)]
struct EventRow<'a>(i64, i64, &'a str, Option<&'a str>, Option<i64>, &'a str);

#[derive(Serialize)]
struct MessageRow<'a>(i64, i64, &'a str, &'a str);

#[derive(Serialize)]
struct ChunkRow<'a>(&'a str, i64, &'a str);

#[derive(Serialize)]
struct SessionRow<'a> {
    key: i64,
    id: &'a str,
    epoch: &'a str,
    title: Option<&'a str>,
    /// Text within text: the database keeps it as it is.
    metadata: &'a str,
    max_running: u32,
    created_at: i64,
    updated_at: i64,
}

#[derive(Serialize)]
struct TurnRow<'a> {
    id: &'a str,
    session: i64,
    status: &'a str,
    prompt: &'a str,
    attempt: u32,
    owner: Option<&'a str>,
    term: i64,
    intent: i64,
    ended_at: Option<i64>,
    row: String,
}

/// The rows of one batch, by the statement that writes them.
#[derive(Default)]
struct Rows<'a> {
    events: Vec<EventRow<'a>>,
    messages: Vec<MessageRow<'a>>,
    chunks: Vec<ChunkRow<'a>>,
    sessions: Vec<SessionRow<'a>>,
    turns: Vec<TurnRow<'a>>,
    ended: Vec<&'a str>,
}

impl<'a> Rows<'a> {
    fn add(&mut self, session: &'a Session, writes: &'a Writes) {
        let key = session.key;
        for event in &writes.events {
            let (seq, kind) = (rows::signed(event.seq), event.kind.name());
            let flush = event.flush.map(rows::signed);
            self.events.push(EventRow(key, seq, kind, event.turn_id.as_deref(), flush, &event.body));
        }
        for message in &writes.messages {
            self.messages.push(MessageRow(key, rows::signed(message.seq), &message.id, &message.text));
        }
        for chunk in &writes.chunks {
            self.chunks.push(ChunkRow(&chunk.turn_id, rows::signed(chunk.upto), &chunk.parts));
        }
        let deltas_only = writes.events.iter().all(|event| event.kind == EventKind::TurnDelta);
        if writes.created || writes.updated || !deltas_only {
            self.sessions.push(session_row(session));
        }
        for turn in &session.turns {
            match writes.turns.get(&turn.id) {
                // A flush is in the log; nothing else of the turn has changed.
                None | Some(Touch::Flushed) => {}
                Some(Touch::Changed | Touch::New) => {
                    if turn.status.is_ended() {
                        self.ended.push(&turn.id);
                    }
                    self.turns.push(turn_row(key, turn));
                }
            }
        }
    }
}

fn session_row(session: &Session) -> SessionRow<'_> {
    SessionRow {
        key: session.key,
        id: &session.id,
        epoch: &session.epoch,
        title: session.title.as_deref(),
        metadata: session.metadata.get(),
        max_running: session.max_running,
        created_at: session.created_at.0,
        updated_at: session.updated_at.0,
    }
}

fn turn_row(session: i64, turn: &Turn) -> TurnRow<'_> {
    TurnRow {
        id: &turn.id,
        session,
        status: turn.status.name(),
        prompt: &turn.prompt_id,
        attempt: turn.attempt,
        owner: turn.owner.as_ref().map(|owner| owner.incarnation.0.as_str()),
        term: rows::signed(turn.term),
        intent: i64::from(turn.intent.is_some()),
        ended_at: turn.ended_at.map(|at| at.0),
        // Strings and numbers: there is nothing in a turn that JSON cannot hold.
        row: serde_json::to_string(turn).unwrap_or_default(),
    }
}

/// Writes everything that a batch decided.
pub(super) async fn all(
    connection: &mut SqliteConnection,
    sessions: &HashMap<Arc<str>, Session>,
    written: &HashMap<Arc<str>, Writes>,
) -> Result<()> {
    let mut rows = Rows::default();
    for (id, writes) in written {
        if let Some(session) = sessions.get(id).filter(|_| !writes.is_empty()) {
            rows.add(session, writes);
        }
    }
    insert(connection, SESSIONS, &rows.sessions).await?;
    insert(connection, TURNS, &rows.turns).await?;
    insert(connection, EVENTS, &rows.events).await?;
    insert(connection, MESSAGES, &rows.messages).await?;
    insert(connection, CHUNKS, &rows.chunks).await?;
    // A turn that has ended is never folded from its chunks again.
    insert(connection, DROP_CHUNKS, &rows.ended).await
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

/// What was appended, for those who publish it.
pub(super) fn appended(written: HashMap<Arc<str>, Writes>) -> Vec<Appended> {
    written
        .into_iter()
        .filter(|(_, writes)| !writes.events.is_empty())
        .map(|(session, writes)| Appended { session, events: writes.events })
        .collect()
}

/// Drops the deltas of turns that ended long ago; their message is in the terminal event (L5).
pub(super) async fn compact(connection: &mut SqliteConnection, ended_before: Timestamp, limit: usize) -> Result<usize> {
    let doing = Error::while_doing("compacting");
    let due = "SELECT id FROM turns WHERE compacted = 0 AND ended_at IS NOT NULL AND ended_at < ?1
               ORDER BY ended_at LIMIT ?2";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let found: Vec<(String,)> =
        sqlx::query_as(due).bind(ended_before.0).bind(limit).fetch_all(&mut *connection).await.map_err(&doing)?;
    if found.is_empty() {
        return Ok(0);
    }
    let ids: Vec<&str> = found.iter().map(|(id,)| id.as_str()).collect();
    let ids = serde_json::to_string(&ids).unwrap_or_default();
    for sql in [
        // The deltas of a turn lie between its start and its end, so that a range of the log is read and no index.
        "DELETE FROM events WHERE (session_key, seq) IN (
            SELECT e.session_key, e.seq FROM json_each(?1) j
            CROSS JOIN turns t ON t.id = j.value
            CROSS JOIN events e ON e.session_key = t.session_key AND e.seq > (t.row ->> 'started_seq')
                AND e.seq < (t.row ->> 'ended_seq') AND e.turn_id = t.id AND e.kind = 'turn_delta')",
        "UPDATE turns SET compacted = 1 WHERE id IN (SELECT value FROM json_each(?1))",
    ] {
        sqlx::query(sql).bind(&ids).execute(&mut *connection).await.map_err(&doing)?;
    }
    Ok(found.len())
}
