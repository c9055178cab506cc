//! The database file through a connection of the test's own: to check what is really there, and to be the other node
//! or the broken disk that a test needs.

use std::path::Path;

use rejoin::ids;
use sqlx::{
    AssertSqlSafe, Connection as _, Row as _, SqliteConnection,
    sqlite::{SqliteArguments, SqliteConnectOptions},
};

/// A second connection to a server's file.
pub(crate) struct Db {
    connection: SqliteConnection,
}

impl Db {
    pub(crate) async fn open(path: &Path) -> Self {
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(false);
        Self { connection: SqliteConnection::connect_with(&options).await.unwrap() }
    }

    /// Runs statements; how many rows the last one changed.
    pub(crate) async fn run(&mut self, sql: impl Into<String>) -> u64 {
        let sql = AssertSqlSafe(sql.into());
        sqlx::raw_sql(sql).execute(&mut self.connection).await.unwrap().rows_affected()
    }

    /// The number that a query finds.
    pub(crate) async fn number(&mut self, sql: impl Into<String>) -> i64 {
        let row = sqlx::query_with(AssertSqlSafe(sql.into()), SqliteArguments::default());
        row.fetch_one(&mut self.connection).await.unwrap().get(0)
    }

    /// The texts that a query finds.
    pub(crate) async fn texts(&mut self, sql: impl Into<String>) -> Vec<String> {
        let rows = sqlx::query_with(AssertSqlSafe(sql.into()), SqliteArguments::default());
        rows.fetch_all(&mut self.connection).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// L1 in every session: seqs are 1..n. How many events there are.
    pub(crate) async fn gapless(&mut self) -> i64 {
        let holes = "SELECT s.id || ': ' || count(e.seq) || ' from ' || min(e.seq) || ' to ' || max(e.seq)
             FROM sessions s JOIN events e ON e.session_key = s.key GROUP BY s.key
             HAVING min(e.seq) <> 1 OR max(e.seq) <> count(e.seq)";
        assert_eq!(self.texts(holes).await, Vec::<String>::new());
        self.number("SELECT count(*) FROM events").await
    }

    /// I6, I9: an owner exactly while running; each ended turn has exactly one terminal event, the others none.
    pub(crate) async fn turns_are_sound(&mut self) {
        let owners = "SELECT id FROM turns WHERE (owner IS NOT NULL) <> (status = 'running')";
        assert_eq!(self.texts(owners).await, Vec::<String>::new(), "owners");
        let ends = "SELECT t.id || ' ' || t.status || ' ' || count(e.seq) FROM turns t LEFT JOIN events e
             ON e.session_key = t.session_key AND e.turn_id = t.id
             AND e.kind IN ('turn_completed', 'turn_failed', 'turn_cancelled') GROUP BY t.id
             HAVING count(e.seq) <> (t.status IN ('completed', 'failed', 'cancelled'))
             OR max(e.kind) <> 'turn_' || t.status";
        assert_eq!(self.texts(ends).await, Vec::<String>::new(), "terminal events");
    }

    /// A copy of a session under another id, its running turn owned by `owner`: as if another node had written it.
    /// The turn's id.
    pub(crate) async fn graft(&mut self, from: &str, to: &str, owner: &str) -> String {
        let (turn, key) = (ids::fresh(), "(SELECT key FROM sessions WHERE id = 'TO')");
        let sql = format!(
            "BEGIN IMMEDIATE;
             CREATE TEMP TABLE old AS SELECT t.id AS turn, s.key AS session FROM turns t
                 JOIN sessions s ON s.key = t.session_key WHERE s.id = 'SOURCE' AND t.status = 'running';
             INSERT INTO sessions SELECT (SELECT max(key) + 1000 FROM sessions), 'TO', 'of-TO', title, metadata,
                 max_running, created_at, updated_at FROM sessions WHERE key = (SELECT session FROM old);
             INSERT INTO events SELECT {key}, seq, kind, replace(turn_id, (SELECT turn FROM old), 'TURN'),
                 flush, replace(body, (SELECT turn FROM old), 'TURN')
                 FROM events WHERE session_key = (SELECT session FROM old);
             INSERT INTO messages SELECT {key}, seq, id, text FROM messages
                 WHERE session_key = (SELECT session FROM old);
             INSERT INTO chunks SELECT 'TURN', upto, parts FROM chunks WHERE turn_id = (SELECT turn FROM old);
             INSERT INTO turns SELECT 'TURN', {key}, status, prompt_id, attempt, 'OWNER', term, intent, ended_at,
                 compacted, json_set(row, '$.id', 'TURN', '$.owner.incarnation', 'OWNER')
                 FROM turns WHERE id = (SELECT turn FROM old);
             DROP TABLE old;
             COMMIT;"
        );
        let sql = sql.replace("SOURCE", from).replace("TURN", &turn).replace("OWNER", owner);
        self.run(sql.replace("'TO'", &format!("'{to}'")).replace("of-TO", &format!("of-{to}"))).await;
        turn
    }
}
