//! What is read of the file: the statements of a [`Snapshot`], lists, and the search for work.
//!
//! Readers each see one WAL snapshot and wait for nobody; the writer reads through the same statements inside its own
//! transaction.

use std::{borrow::Cow, sync::Arc};

use sqlx::{AssertSqlSafe, Row, Sqlite, SqliteConnection, SqlitePool, Transaction};

use super::super::{
    AtWork, Error, ListQuery, LostTurn, Pick, Record, Result, Waiting,
    read::{RECORD_COST, Snapshot, epoch_of},
    rows::{self, NodeRow, RecordRow, SessionRow, signed, unsigned},
};
use crate::model::{Node, Person, Turn, machine::Session};

/// The columns of a [`SessionRow`], of sessions `s`.
pub(super) const SESSION: &str = "s.key, s.id, s.epoch,
    coalesce((SELECT max(e.seq) FROM events e WHERE e.session_key = s.key), 0) AS last_seq,
    s.title, s.metadata, s.max_running, s.created_at, s.updated_at";

/// A reading transaction, which is one WAL snapshot.
pub(super) async fn begin(readers: &SqlitePool) -> Result<Transaction<'static, Sqlite>> {
    readers.begin().await.map_err(Error::while_doing("waiting for a reading connection"))
}

/// What a connection sees.
pub(super) struct Reader<'c>(pub(super) &'c mut SqliteConnection);

impl Reader<'_> {
    /// The rows of a statement that yields the texts of turns.
    async fn turns(&mut self, query: Texts<'_>, doing: &'static str) -> Result<Vec<Turn>> {
        let found = query.fetch_all(&mut *self.0).await.map_err(Error::while_doing(doing))?;
        found.iter().map(|text| rows::turn(text)).collect()
    }
}

type Texts<'q> = sqlx::query::QueryScalar<'q, Sqlite, String, sqlx::sqlite::SqliteArguments>;

impl Snapshot for Reader<'_> {
    async fn session(&mut self, id: &str) -> Result<Option<Session>> {
        let sql = format!("SELECT {SESSION} FROM sessions s WHERE s.id = ?");
        let found: Option<SessionRow> = sqlx::query_as(AssertSqlSafe(sql))
            .bind(id)
            .fetch_optional(&mut *self.0)
            .await
            .map_err(Error::while_doing("reading a session"))?;
        found.map(SessionRow::session).transpose()
    }

    async fn live_turns(&mut self, key: i64) -> Result<Vec<Turn>> {
        let sql = "SELECT row FROM turns WHERE session_key = ? AND status IN ('queued', 'running')";
        self.turns(sqlx::query_scalar(sql).bind(key), "reading a session's turns").await
    }

    async fn nodes(&mut self) -> Result<Vec<Node>> {
        let sql = "SELECT incarnation, name, state, beat, lease_ttl_ms, exclusive, connections FROM nodes ORDER BY incarnation";
        let found: Vec<NodeRow> =
            sqlx::query_as(sql).fetch_all(&mut *self.0).await.map_err(Error::while_doing("reading the nodes"))?;
        Ok(found.into_iter().map(NodeRow::node).collect())
    }

    async fn history(&mut self) -> Result<String> {
        sqlx::query_scalar("SELECT value FROM meta WHERE name = 'history'")
            .fetch_one(&mut *self.0)
            .await
            .map_err(Error::while_doing("reading the store's history"))
    }

    async fn chunks(&mut self, turn_id: &str) -> Result<Vec<(i64, String)>> {
        sqlx::query_as("SELECT upto, parts FROM chunks WHERE turn_id = ? ORDER BY upto")
            .bind(turn_id)
            .fetch_all(&mut *self.0)
            .await
            .map_err(Error::while_doing("reading what an answer has streamed"))
    }

    async fn deltas(&mut self, key: i64, turn_id: &str, after: i64) -> Result<Vec<String>> {
        sqlx::query_scalar(
            "SELECT body FROM events WHERE session_key = ? AND seq > ? AND turn_id = ? AND kind = 'turn_delta'
             ORDER BY seq",
        )
        .bind(key)
        .bind(after)
        .bind(turn_id)
        .fetch_all(&mut *self.0)
        .await
        .map_err(Error::while_doing("reading what an answer has streamed"))
    }

    async fn sizes(&mut self, key: i64, before: i64, limit: i64) -> Result<Vec<(i64, i64)>> {
        sqlx::query_as(
            "SELECT seq, octet_length(text) FROM messages WHERE session_key = ? AND seq < ? ORDER BY seq DESC LIMIT ?",
        )
        .bind(key)
        .bind(before)
        .bind(limit)
        .fetch_all(&mut *self.0)
        .await
        .map_err(Error::while_doing("reading messages"))
    }

    async fn messages(&mut self, key: i64, from: i64, before: i64) -> Result<Vec<(i64, String, String)>> {
        sqlx::query_as("SELECT seq, id, text FROM messages WHERE session_key = ? AND seq >= ? AND seq < ? ORDER BY seq")
            .bind(key)
            .bind(from)
            .bind(before)
            .fetch_all(&mut *self.0)
            .await
            .map_err(Error::while_doing("reading messages"))
    }

    async fn ended(&mut self, key: i64, prompts: Vec<String>) -> Result<Vec<Turn>> {
        let sql = "SELECT t.row FROM json_each(?) j CROSS JOIN turns t ON t.session_key = ? AND t.prompt_id = j.value
             AND t.attempt = (SELECT max(n.attempt) FROM turns n
                              WHERE n.session_key = t.session_key AND n.prompt_id = t.prompt_id)
             AND t.ended_at IS NOT NULL";
        let prompts = serde_json::to_string(&prompts).unwrap_or_default();
        self.turns(sqlx::query_scalar(sql).bind(prompts).bind(key), "reading how turns ended").await
    }

    async fn records(&mut self, key: i64, after: i64, limit: i64, bytes: i64) -> Result<Vec<Record>> {
        // Only the sizes are read of what does not fit.
        let found: Vec<RecordRow> = sqlx::query_as(
            "SELECT e.seq, e.kind, e.turn_id, e.body FROM (
                 SELECT seq, sum(cost) OVER (ORDER BY seq ROWS UNBOUNDED PRECEDING) - cost AS ahead FROM (
                     SELECT e.seq, octet_length(e.body) + ?5 AS cost FROM events e
                     WHERE e.session_key = ?1 AND e.seq > ?2 AND NOT (e.kind = 'turn_delta' AND EXISTS (
                         SELECT 1 FROM turns t WHERE t.id = e.turn_id AND t.ended_at IS NOT NULL))
                     ORDER BY e.seq LIMIT ?3) costs) sized
             CROSS JOIN events e
             WHERE e.session_key = ?1 AND e.seq > ?2 AND e.seq = sized.seq AND sized.ahead < ?4
             ORDER BY e.seq",
        )
        .bind(key)
        .bind(after)
        .bind(limit)
        .bind(bytes)
        .bind(signed(RECORD_COST))
        .fetch_all(&mut *self.0)
        .await
        .map_err(Error::while_doing("reading a log"))?;
        Ok(found.into_iter().map(RecordRow::record).collect())
    }

    async fn turn(&mut self, turn_id: &str) -> Result<Option<Turn>> {
        let sql = "SELECT row FROM turns WHERE id = ?";
        Ok(self.turns(sqlx::query_scalar(sql).bind(turn_id), "reading a turn").await?.pop())
    }

    async fn message(&mut self, key: i64, id: &str) -> Result<Option<String>> {
        sqlx::query_scalar("SELECT text FROM messages WHERE session_key = ? AND id = ?")
            .bind(key)
            .bind(id)
            .fetch_optional(&mut *self.0)
            .await
            .map_err(Error::while_doing("reading a message"))
    }

    async fn said(&mut self, key: i64, below: i64, prompt: &str, limit: i64) -> Result<Vec<String>> {
        sqlx::query_scalar(
            "SELECT m.text FROM messages m WHERE m.session_key = ? AND m.seq < ? AND m.id <> ?
             AND NOT EXISTS (SELECT 1 FROM turns t WHERE t.session_key = m.session_key AND t.prompt_id = m.id
                             AND t.attempt = 1 AND t.status = 'queued')
             ORDER BY m.seq DESC LIMIT ?",
        )
        .bind(key)
        .bind(below)
        .bind(prompt)
        .bind(limit)
        .fetch_all(&mut *self.0)
        .await
        .map_err(Error::while_doing("reading an agent's context"))
    }
}

pub(super) async fn list(readers: &SqlitePool, query: &ListQuery) -> Result<Vec<Session>> {
    let doing = Error::while_doing("listing sessions");
    let mut transaction = begin(readers).await?;
    let connection = &mut *transaction;
    let (updated_at, key) = query.after.unwrap_or((i64::MAX, i64::MAX));
    let found: Vec<SessionRow> = sqlx::query_as(AssertSqlSafe(format!(
        "SELECT {SESSION} FROM sessions s WHERE (s.updated_at, s.key) < (?1, ?2) AND substr(s.id, 1, length(?3)) = ?3
         AND (?4 IS NULL OR ?4 = CASE
             WHEN EXISTS (SELECT 1 FROM turns t WHERE t.session_key = s.key AND t.status = 'running') THEN 'running'
             WHEN EXISTS (SELECT 1 FROM turns t WHERE t.session_key = s.key AND t.status = 'queued') THEN 'queued'
             ELSE 'idle' END)
         ORDER BY s.updated_at DESC, s.key DESC LIMIT ?5"
    )))
    .bind(updated_at)
    .bind(key)
    .bind(&query.prefix)
    .bind(&query.status)
    .bind(signed(query.limit))
    .fetch_all(&mut *connection)
    .await
    .map_err(&doing)?;
    with_live_turns(connection, found, &doing).await
}

pub(super) async fn pick(readers: &SqlitePool, pick: &Pick) -> Result<Vec<Session>> {
    let doing = Error::while_doing("reading sessions");
    let mut transaction = begin(readers).await?;
    let (from, value): (Cow<'_, str>, _) = match pick {
        Pick::These(ids) => {
            let ids = serde_json::to_string(ids).unwrap_or_default();
            ("json_each(?) j CROSS JOIN sessions s ON s.id = j.value".into(), ids)
        }
        Pick::Live(limit) => (
            "(SELECT DISTINCT session_key AS key FROM turns WHERE status IN ('queued', 'running')
              ORDER BY session_key LIMIT CAST(? AS INTEGER)) l CROSS JOIN sessions s ON s.key = l.key"
                .into(),
            limit.to_string(),
        ),
        Pick::Oldest(limit) => {
            // Each condition on what is live says nothing new; it lets the index of live turns be used.
            let oldest = |status: &str, since: &str| {
                format!(
                    "SELECT * FROM (SELECT t.session_key FROM turns t JOIN sessions o ON o.key = t.session_key
                     WHERE t.status = '{status}' AND t.status IN ('queued', 'running')
                     ORDER BY json_extract(t.row, '$.{since}') LIMIT CAST(?1 AS INTEGER))"
                )
            };
            let (running, queued) = (oldest("running", "started_at"), oldest("queued", "queued_at"));
            (format!("sessions s WHERE s.key IN ({running} UNION {queued})").into(), limit.to_string())
        }
    };
    let found: Vec<SessionRow> = sqlx::query_as(AssertSqlSafe(format!("SELECT {SESSION} FROM {from}")))
        .bind(value)
        .fetch_all(&mut *transaction)
        .await
        .map_err(&doing)?;
    with_live_turns(&mut transaction, found, &doing).await
}

/// Sessions with their queued and running turns, by one statement for all.
async fn with_live_turns(
    connection: &mut SqliteConnection,
    found: Vec<SessionRow>,
    doing: &impl Fn(sqlx::Error) -> Error,
) -> Result<Vec<Session>> {
    let keys: Vec<i64> = found.iter().map(SessionRow::key).collect();
    let turns = sqlx::query_as(
        "SELECT t.row, t.session_key FROM json_each(?) j CROSS JOIN turns t
         ON t.session_key = j.value AND t.status IN ('queued', 'running')",
    )
    .bind(serde_json::to_string(&keys).unwrap_or_default())
    .fetch_all(connection)
    .await
    .map_err(doing)?;
    rows::with_turns(found, turns)
}

pub(super) async fn needs_work(readers: &SqlitePool, limit: usize) -> Result<Vec<Arc<str>>> {
    let found = sqlx::query_scalar(
        "SELECT s.id FROM turns t JOIN sessions s ON s.key = t.session_key
         LEFT JOIN nodes n ON n.incarnation = t.owner
         WHERE t.status = 'running' AND (n.state IS NULL OR n.state = 'dead')
         UNION
         SELECT s.id FROM sessions s WHERE s.key IN (SELECT q.session_key FROM turns q WHERE q.status = 'queued')
         AND s.max_running > (SELECT count(*) FROM turns r WHERE r.session_key = s.key AND r.status = 'running')
         LIMIT ?",
    )
    .bind(signed(limit))
    .fetch_all(readers)
    .await
    .map_err(Error::while_doing("looking for sessions that need work"))?;
    Ok(rows::ids(found))
}

/// See [`super::Store::at_work`].
pub(super) async fn at_work(readers: &SqlitePool) -> Result<AtWork> {
    let mut transaction = begin(readers).await?;
    let nodes = Reader(&mut transaction).nodes().await?;
    let found = sqlx::query_as(RUNNING).fetch_all(&mut *transaction).await;
    Ok((nodes, rows::counts(found.map_err(Error::while_doing("counting running turns"))?)))
}

const RUNNING: &str = "SELECT owner, count(*) FROM turns WHERE status = 'running' AND owner IS NOT NULL GROUP BY owner";

pub(super) async fn waiting(readers: &SqlitePool) -> Result<Waiting> {
    // The second condition says nothing that the first does not; it lets the index of live turns be used.
    let found = sqlx::query_as(
        "SELECT count(*), min(json_extract(t.row, '$.queued_at')) FROM turns t JOIN sessions s ON s.key = t.session_key
         WHERE t.status = 'queued' AND t.status IN ('queued', 'running')",
    )
    .fetch_one(readers)
    .await
    .map_err(Error::while_doing("counting what waits"))?;
    rows::waiting(found)
}

/// See [`super::Store::lost`].
pub(super) async fn lost(readers: &SqlitePool, limit: usize) -> Result<Vec<LostTurn>> {
    let found = sqlx::query_as(
        "SELECT s.id, s.title, t.row FROM turns t CROSS JOIN sessions s ON s.key = t.session_key
         WHERE json_extract(t.row, '$.reason') = 'owner_gone' ORDER BY t.ended_at DESC LIMIT ?",
    )
    .bind(signed(limit))
    .fetch_all(readers)
    .await
    .map_err(Error::while_doing("reading lost turns"))?;
    rows::lost(found)
}

/// See [`super::Store::deleted`].
pub(super) async fn deleted(readers: &SqlitePool, session: &str, log: &str) -> Result<Option<Person>> {
    let found: Option<String> =
        sqlx::query_scalar("SELECT deleted_by FROM deleted_sessions WHERE id = ? AND epoch = ?")
            .bind(session)
            .bind(log)
            .fetch_optional(readers)
            .await
            .map_err(Error::while_doing("looking for a deleted session"))?;
    found.as_deref().map(rows::person).transpose()
}

pub(super) async fn heads(readers: &SqlitePool, sessions: &[Arc<str>]) -> Result<Vec<(Arc<str>, String, u64)>> {
    let mut transaction = begin(readers).await?;
    let history = Reader(&mut transaction).history().await?;
    let found = sqlx::query(
        "SELECT s.id, s.epoch, coalesce((SELECT max(e.seq) FROM events e WHERE e.session_key = s.key), 0)
         FROM json_each(?) j CROSS JOIN sessions s ON s.id = j.value",
    )
    .bind(serde_json::to_string(sessions).unwrap_or_default())
    .fetch_all(&mut *transaction)
    .await
    .map_err(Error::while_doing("comparing heads"))?;
    let head = |row: &sqlx::sqlite::SqliteRow| {
        (Arc::from(row.get::<&str, _>(0)), epoch_of(row.get(1), &history), unsigned(row.get(2)))
    };
    Ok(found.iter().map(head).collect())
}
