//! What is read of the database: the statements of a [`Snapshot`], lists, and the search for work.
//!
//! A reader has a transaction of its own that sees one state (`REPEATABLE READ`) and waits for nobody; the writer reads
//! through the same statements under the locks that it holds.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, Postgres, Row, postgres::PgArguments, postgres::PgRow};

use super::{
    super::{
        AtWork, Error, ListQuery, LostTurn, Pick, Record, Result, Waiting,
        read::{RECORD_COST, Snapshot, epoch_of},
        rows::{self, NodeRow, RecordRow, SessionRow, signed, unsigned},
    },
    connect::{Begin, Connections},
    db::Db,
};
use crate::model::{Node, Person, Turn, machine::Session};

/// The columns of a [`SessionRow`], of sessions `s`.
pub(super) const SESSION: &str =
    "s.key, s.id, s.epoch, s.last_seq, s.title, s.metadata, s.max_running, s.created_at, s.updated_at";

/// The number that people raise, the identity of the cluster, and the timeline on which it writes: another one after
/// each promotion. The last is that of this moment, not that of the last checkpoint.
const HISTORY: &str =
    "SELECT c.system_identifier || '-' || left(pg_walfile_name(pg_current_wal_lsn()), 8) || '-' || m.value
     FROM meta m, pg_control_system() c WHERE m.name = 'history'";

/// The cluster and the database in it: the same for all who use it, whatever they call it.
const SCOPE: &str = "SELECT c.system_identifier || '/' || d.oid
     FROM pg_control_system() c, pg_database d WHERE d.datname = current_database()";

/// Names the database among all that there are.
pub(super) async fn scope(connections: &Connections) -> Result<Arc<str>> {
    const DOING: &str = "naming the database";
    let work = async {
        let mut transaction = connections.begin(DOING, Begin::Read).await?;
        let found = sqlx::query_scalar::<_, String>(SCOPE).fetch_one(transaction.db()).await;
        transaction.end(found.map_err(Error::in_postgres(DOING))).await
    };
    connections.within(DOING, work).await.map(Arc::from)
}

/// What a connection sees.
pub(super) struct Reader<'c>(pub(super) &'c mut Db);

type Texts<'q> = sqlx::query::QueryScalar<'q, Postgres, String, PgArguments>;

impl Reader<'_> {
    /// The rows of a statement that yields the texts of turns.
    async fn turns(&mut self, query: Texts<'_>, doing: &'static str) -> Result<Vec<Turn>> {
        let found = query.fetch_all(&mut *self.0).await.map_err(Error::in_postgres(doing))?;
        found.iter().map(|text| rows::turn(text)).collect()
    }
}

impl Snapshot for Reader<'_> {
    async fn session(&mut self, id: &str) -> Result<Option<Session>> {
        let sql = format!("SELECT {SESSION} FROM sessions s WHERE s.id = $1");
        let found: Option<SessionRow> = sqlx::query_as(AssertSqlSafe(sql))
            .bind(id)
            .fetch_optional(&mut *self.0)
            .await
            .map_err(Error::in_postgres("reading a session"))?;
        found.map(SessionRow::session).transpose()
    }

    async fn live_turns(&mut self, key: i64) -> Result<Vec<Turn>> {
        let sql = "SELECT row FROM turns WHERE session_key = $1 AND status IN ('queued', 'running')";
        self.turns(sqlx::query_scalar(sql).bind(key), "reading a session's turns").await
    }

    async fn nodes(&mut self) -> Result<Vec<Node>> {
        let sql = "SELECT incarnation, name, state, beat, lease_ttl_ms, exclusive, connections FROM nodes ORDER BY incarnation";
        let found: Vec<NodeRow> =
            sqlx::query_as(sql).fetch_all(&mut *self.0).await.map_err(Error::in_postgres("reading the nodes"))?;
        Ok(found.into_iter().map(NodeRow::node).collect())
    }

    async fn history(&mut self) -> Result<String> {
        let read = sqlx::query_scalar(HISTORY).fetch_one(&mut *self.0).await;
        read.map_err(Error::in_postgres("reading the store's history"))
    }

    async fn chunks(&mut self, turn_id: &str) -> Result<Vec<(i64, String)>> {
        sqlx::query_as("SELECT upto, parts FROM chunks WHERE turn_id = $1 ORDER BY upto")
            .bind(turn_id)
            .fetch_all(&mut *self.0)
            .await
            .map_err(Error::in_postgres("reading what an answer has streamed"))
    }

    async fn deltas(&mut self, key: i64, turn_id: &str, after: i64) -> Result<Vec<String>> {
        sqlx::query_scalar(
            "SELECT body FROM events WHERE session_key = $1 AND seq > $2 AND turn_id = $3 AND kind = 'turn_delta'
             ORDER BY seq",
        )
        .bind(key)
        .bind(after)
        .bind(turn_id)
        .fetch_all(&mut *self.0)
        .await
        .map_err(Error::in_postgres("reading what an answer has streamed"))
    }

    async fn sizes(&mut self, key: i64, before: i64, limit: i64) -> Result<Vec<(i64, i64)>> {
        sqlx::query_as(
            "SELECT seq, octet_length(text)::bigint FROM messages WHERE session_key = $1 AND seq < $2
             ORDER BY seq DESC LIMIT $3",
        )
        .bind(key)
        .bind(before)
        .bind(limit)
        .fetch_all(&mut *self.0)
        .await
        .map_err(Error::in_postgres("reading messages"))
    }

    async fn messages(&mut self, key: i64, from: i64, before: i64) -> Result<Vec<(i64, String, String)>> {
        sqlx::query_as(
            "SELECT seq, id, text FROM messages WHERE session_key = $1 AND seq >= $2 AND seq < $3 ORDER BY seq",
        )
        .bind(key)
        .bind(from)
        .bind(before)
        .fetch_all(&mut *self.0)
        .await
        .map_err(Error::in_postgres("reading messages"))
    }

    async fn ended(&mut self, key: i64, prompts: Vec<String>) -> Result<Vec<Turn>> {
        let sql = "SELECT n.row FROM unnest($1::text[]) WITH ORDINALITY AS p (id, place)
             CROSS JOIN LATERAL (SELECT t.row, t.ended_at FROM turns t WHERE t.session_key = $2 AND t.prompt_id = p.id
                                 ORDER BY t.attempt DESC LIMIT 1) n
             WHERE n.ended_at IS NOT NULL ORDER BY p.place";
        self.turns(sqlx::query_scalar(sql).bind(prompts).bind(key), "reading how turns ended").await
    }

    async fn records(&mut self, key: i64, after: i64, limit: i64, bytes: i64) -> Result<Vec<Record>> {
        // Only the sizes are read of what does not fit.
        let found: Vec<RecordRow> = sqlx::query_as(
            "SELECT e.seq, e.kind, e.turn_id, e.body FROM (
                 SELECT seq, sum(cost) OVER (ORDER BY seq ROWS UNBOUNDED PRECEDING) - cost AS ahead FROM (
                     SELECT e.seq, octet_length(e.body) + $5::bigint::int AS cost FROM events e
                     WHERE e.session_key = $1 AND e.seq > $2 AND NOT (e.kind = 'turn_delta' AND EXISTS (
                         SELECT 1 FROM turns t WHERE t.id = e.turn_id AND t.ended_at IS NOT NULL))
                     ORDER BY e.seq LIMIT $3) costs) sized
             CROSS JOIN events e
             WHERE e.session_key = $1 AND e.seq > $2 AND e.seq = sized.seq AND sized.ahead < $4
             ORDER BY e.seq",
        )
        .bind(key)
        .bind(after)
        .bind(limit)
        .bind(bytes)
        .bind(signed(RECORD_COST))
        .fetch_all(&mut *self.0)
        .await
        .map_err(Error::in_postgres("reading a log"))?;
        Ok(found.into_iter().map(RecordRow::record).collect())
    }

    async fn turn(&mut self, turn_id: &str) -> Result<Option<Turn>> {
        let sql = "SELECT row FROM turns WHERE id = $1";
        Ok(self.turns(sqlx::query_scalar(sql).bind(turn_id), "reading a turn").await?.pop())
    }

    async fn message(&mut self, key: i64, id: &str) -> Result<Option<String>> {
        sqlx::query_scalar("SELECT text FROM messages WHERE session_key = $1 AND id = $2")
            .bind(key)
            .bind(id)
            .fetch_optional(&mut *self.0)
            .await
            .map_err(Error::in_postgres("reading a message"))
    }

    async fn said(&mut self, key: i64, below: i64, prompt: &str, limit: i64) -> Result<Vec<String>> {
        sqlx::query_scalar(
            "SELECT m.text FROM messages m WHERE m.session_key = $1 AND m.seq < $2 AND m.id <> $3
             AND NOT EXISTS (SELECT 1 FROM turns t WHERE t.session_key = m.session_key AND t.prompt_id = m.id
                             AND t.attempt = 1 AND t.status = 'queued')
             ORDER BY m.seq DESC LIMIT $4",
        )
        .bind(key)
        .bind(below)
        .bind(prompt)
        .bind(limit)
        .fetch_all(&mut *self.0)
        .await
        .map_err(Error::in_postgres("reading an agent's context"))
    }
}

/// See [`super::Store::list`].
pub(super) async fn list(connection: &mut Db, query: &ListQuery) -> Result<Vec<Session>> {
    let doing = Error::in_postgres("listing sessions");
    let (updated_at, key) = query.after.unwrap_or((i64::MAX, i64::MAX));
    let found: Vec<SessionRow> = sqlx::query_as(AssertSqlSafe(format!(
        "SELECT {SESSION} FROM sessions s WHERE (s.updated_at, s.key) < ($1, $2) AND starts_with(s.id, $3)
         AND ($4::text IS NULL OR $4 = CASE
             WHEN EXISTS (SELECT 1 FROM turns t WHERE t.session_key = s.key AND t.status = 'running') THEN 'running'
             WHEN EXISTS (SELECT 1 FROM turns t WHERE t.session_key = s.key AND t.status = 'queued') THEN 'queued'
             ELSE 'idle' END)
         ORDER BY s.updated_at DESC, s.key DESC LIMIT $5"
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

/// See [`super::Store::pick`].
pub(super) async fn pick(connection: &mut Db, pick: &Pick) -> Result<Vec<Session>> {
    let doing = Error::in_postgres("reading sessions");
    let statement = |rest: &str| AssertSqlSafe(format!("SELECT {SESSION} FROM {rest}"));
    let found: std::result::Result<Vec<SessionRow>, _> = match pick {
        Pick::These(ids) => {
            let ids: Vec<&str> = ids.iter().map(|id| &**id).collect();
            sqlx::query_as(statement("sessions s WHERE s.id = ANY($1)")).bind(ids).fetch_all(&mut *connection).await
        }
        Pick::Live(limit) => {
            let live = "(SELECT DISTINCT session_key AS key FROM turns WHERE status IN ('queued', 'running')
                         ORDER BY session_key LIMIT $1) l JOIN sessions s ON s.key = l.key";
            sqlx::query_as(statement(live)).bind(signed(*limit)).fetch_all(&mut *connection).await
        }
        Pick::Oldest(limit) => {
            let oldest = |status: &str, since: &str| {
                format!(
                    "(SELECT t.session_key FROM turns t JOIN sessions o ON o.key = t.session_key
                      WHERE t.status = '{status}' ORDER BY t.row::json ->> '{since}' LIMIT $1)"
                )
            };
            let (running, queued) = (oldest("running", "started_at"), oldest("queued", "queued_at"));
            let oldest = format!("sessions s WHERE s.key IN ({running} UNION {queued})");
            sqlx::query_as(statement(&oldest)).bind(signed(*limit)).fetch_all(&mut *connection).await
        }
    };
    with_live_turns(connection, found.map_err(&doing)?, &doing).await
}

/// Sessions with their queued and running turns, by one statement for all.
async fn with_live_turns(
    connection: &mut Db,
    found: Vec<SessionRow>,
    doing: &impl Fn(sqlx::Error) -> Error,
) -> Result<Vec<Session>> {
    let keys: Vec<i64> = found.iter().map(SessionRow::key).collect();
    let turns = sqlx::query_as(
        "SELECT row, session_key FROM turns WHERE session_key = ANY($1) AND status IN ('queued', 'running')",
    )
    .bind(keys)
    .fetch_all(connection)
    .await
    .map_err(doing)?;
    rows::with_turns(found, turns)
}

/// See [`super::Store::needs_work`].
pub(super) async fn needs_work(connection: &mut Db, limit: usize) -> Result<Vec<Arc<str>>> {
    let found = sqlx::query_scalar(
        "SELECT s.id FROM turns t JOIN sessions s ON s.key = t.session_key
         LEFT JOIN nodes n ON n.incarnation = t.owner
         WHERE t.status = 'running' AND (n.state IS NULL OR n.state = 'dead')
         UNION
         SELECT s.id FROM sessions s WHERE s.key IN (SELECT q.session_key FROM turns q WHERE q.status = 'queued')
         AND s.max_running > (SELECT count(*) FROM turns r WHERE r.session_key = s.key AND r.status = 'running')
         LIMIT $1",
    )
    .bind(signed(limit))
    .fetch_all(connection)
    .await
    .map_err(Error::in_postgres("looking for sessions that need work"))?;
    Ok(rows::ids(found))
}

/// See [`super::Store::at_work`].
pub(super) async fn at_work(connection: &mut Db) -> Result<AtWork> {
    let nodes = Reader(connection).nodes().await?;
    let found = sqlx::query_as(RUNNING).fetch_all(connection).await;
    Ok((nodes, rows::counts(found.map_err(Error::in_postgres("counting running turns"))?)))
}

const RUNNING: &str = "SELECT owner, count(*) FROM turns WHERE status = 'running' AND owner IS NOT NULL GROUP BY owner";

/// See [`super::Store::waiting`].
pub(super) async fn waiting(connection: &mut Db) -> Result<Waiting> {
    let found = sqlx::query_as(
        "SELECT count(*), min(t.row::json ->> 'queued_at') FROM turns t \
             JOIN sessions s ON s.key = t.session_key WHERE t.status = 'queued'",
    )
    .fetch_one(connection)
    .await
    .map_err(Error::in_postgres("counting what waits"))?;
    rows::waiting(found)
}

/// See [`super::Store::deleted`].
pub(super) async fn deleted(connection: &mut Db, session: &str, log: &str) -> Result<Option<Person>> {
    let found: Option<String> =
        sqlx::query_scalar("SELECT deleted_by FROM deleted_sessions WHERE id = $1 AND epoch = $2")
            .bind(session)
            .bind(log)
            .fetch_optional(connection)
            .await
            .map_err(Error::in_postgres("looking for a deleted session"))?;
    found.as_deref().map(rows::person).transpose()
}

/// See [`super::Store::lost`].
pub(super) async fn lost(connection: &mut Db, limit: usize) -> Result<Vec<LostTurn>> {
    let found = sqlx::query_as(
        "SELECT s.id, s.title, t.row FROM turns t JOIN sessions s ON s.key = t.session_key
         WHERE t.row::json ->> 'reason' = 'owner_gone' ORDER BY t.ended_at DESC LIMIT $1",
    )
    .bind(signed(limit))
    .fetch_all(connection)
    .await
    .map_err(Error::in_postgres("reading lost turns"))?;
    rows::lost(found)
}

/// See [`super::Store::heads`].
pub(super) async fn heads(connection: &mut Db, sessions: &[Arc<str>]) -> Result<Vec<(Arc<str>, String, u64)>> {
    let history = Reader(connection).history().await?;
    let sessions: Vec<&str> = sessions.iter().map(|id| &**id).collect();
    let found = sqlx::query("SELECT s.id, s.epoch, s.last_seq FROM sessions s WHERE s.id = ANY($1)")
        .bind(sessions)
        .fetch_all(connection)
        .await
        .map_err(Error::in_postgres("comparing heads"))?;
    let head = |row: &PgRow| (Arc::from(row.get::<&str, _>(0)), epoch_of(row.get(1), &history), unsigned(row.get(2)));
    Ok(found.iter().map(head).collect())
}
