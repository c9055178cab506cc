//! The task that owns the writing connection: it takes one command at a time, renewals before everything else.
//!
//! Because the file is locked and this is the only writer, what it last wrote of a live session is what the file
//! holds; it keeps those in memory, so that an append of deltas reads nothing. Whatever fails throws that memory away.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::sync::{mpsc, oneshot};

use super::{
    super::{
        Committed, Compacted, Error, Item, NewNode, Purged, Renewal, Result,
        batch::{self, Rows, Sessions, Step, Written},
        read::{self, Snapshot},
        rows::{RunningRow, signed},
    },
    file, load, purge,
    read::Reader,
    write,
};
use crate::{
    clock::{self, Timestamp},
    ids::Incarnation,
    model::{
        Node,
        machine::{Applied, Refused, Session},
    },
};

/// Everything that the writer is asked to do.
pub(super) enum Command {
    /// See [`super::Store::commit`].
    Commit { batch: Arc<Vec<Item>>, reply: oneshot::Sender<Result<Committed>> },
    /// See [`super::Store::start_node`].
    StartNode { node: NewNode, reply: oneshot::Sender<Result<()>> },
    /// See [`super::Store::renew`].
    Renew { node: Incarnation, beat: i64, connections: u64, reply: oneshot::Sender<Result<Renewal>> },
    /// See [`super::Store::drain_node`].
    Drain { node: Incarnation, reply: oneshot::Sender<Result<bool>> },
    /// See [`super::Store::bury_node`].
    Bury { node: Incarnation, beat: Option<i64>, reply: oneshot::Sender<Result<bool>> },
    /// See [`super::Store::compact`].
    Compact { ended_before: Timestamp, limit: usize, reply: oneshot::Sender<Result<Compacted>> },
    /// See [`super::Store::purge`].
    Purge { limit: usize, forget_before: Timestamp, reply: oneshot::Sender<Result<Purged>> },
    /// See [`super::Store::new_history`].
    NewHistory { reply: oneshot::Sender<Result<String>> },
    /// Close the connection and end.
    Close { reply: oneshot::Sender<()> },
}

/// Sessions that are remembered between transactions.
const REMEMBERED: usize = 8_192;

pub(super) struct Writer {
    options: SqliteConnectOptions,
    connection: SqliteConnection,
    /// What the file holds of these sessions.
    sessions: Sessions,
    /// Every node row; `None` when it must be read again.
    nodes: Option<Vec<Node>>,
    next_key: i64,
    /// How many transactions were committed.
    commits: Arc<AtomicU64>,
}

impl Writer {
    /// Connects, brings the schema up to date if `migrate`, and learns the next free session key.
    pub(super) async fn open(options: SqliteConnectOptions, path: &Path, migrate: bool) -> Result<Self> {
        let refused = |why: String| Error::Refused { place: path.display().to_string(), why };
        let mut connection = SqliteConnection::connect_with(&options).await.map_err(|error| {
            refused(format!("it cannot be opened for writing ({error}); check disk and permissions"))
        })?;
        if migrate {
            file::MIGRATIONS
                .run_direct(None, &mut connection, false)
                .await
                .map_err(|error| refused(format!("its schema cannot be brought up to date ({error})")))?;
        }
        // A key is used again only when nothing is left under it.
        let next_key = sqlx::query(
            "SELECT max(coalesce((SELECT max(key) FROM sessions), 0),
                        coalesce((SELECT max(session_key) FROM deleted_sessions), 0)) + 1",
        )
        .fetch_one(&mut connection)
        .await
        .map_err(Error::while_doing("opening the database"))?
        .get(0);
        Ok(Self { options, connection, sessions: Sessions::new(), nodes: None, next_key, commits: Arc::default() })
    }

    /// How many transactions it has committed, for those who tidy up after it.
    pub(super) fn commits(&self) -> Arc<AtomicU64> {
        self.commits.clone()
    }

    /// Serves commands until the last handle is gone or one of them says close.
    pub(super) async fn run(mut self, mut urgent: mpsc::Receiver<Command>, mut inbox: mpsc::Receiver<Command>) {
        loop {
            let command = tokio::select! {
                biased;
                Some(command) = urgent.recv() => command,
                Some(command) = inbox.recv() => command,
                else => break,
            };
            if let Command::Close { reply } = command {
                if let Err(error) = self.connection.close().await {
                    tracing::warn!(%error, "the database connection did not close cleanly");
                }
                // Nobody waiting for the answer is fine.
                let _unheard = reply.send(());
                return;
            }
            self.serve(command).await;
        }
    }

    async fn serve(&mut self, command: Command) {
        // An answer that nobody waits for any more is dropped: the caller gave up, the write stands.
        match command {
            Command::Commit { batch, reply } => drop(reply.send(self.commit(batch).await)),
            Command::StartNode { node, reply } => drop(reply.send(self.in_transaction(StartNode(node)).await)),
            Command::Renew { node, beat, connections, reply } => {
                drop(reply.send(self.in_transaction(Renew { node, beat, connections }).await));
            }
            Command::Drain { node, reply } => drop(reply.send(self.in_transaction(Drain(node)).await)),
            Command::Bury { node, beat, reply } => drop(reply.send(self.in_transaction(Bury(node, beat)).await)),
            Command::Compact { ended_before, limit, reply } => {
                drop(reply.send(self.in_transaction(Compact(ended_before, limit)).await));
            }
            Command::Purge { limit, forget_before, reply } => {
                drop(reply.send(self.in_transaction(Purge(limit, forget_before)).await));
            }
            Command::NewHistory { reply } => drop(reply.send(self.in_transaction(NewHistory).await)),
            Command::Close { reply } => drop(reply),
        }
    }

    async fn begin(&mut self) -> Result<()> {
        let begun = sqlx::query("BEGIN IMMEDIATE").execute(&mut self.connection).await;
        begun.map(drop).map_err(Error::while_doing("beginning a transaction"))
    }

    async fn end(&mut self) -> Result<()> {
        let ended = sqlx::query("COMMIT").execute(&mut self.connection).await;
        ended.map_err(Error::while_doing("committing"))?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// After a failure: nothing of the transaction stands, and nothing that it taught is believed.
    async fn undo(&mut self) {
        self.sessions.clear();
        self.nodes = None;
        // Most failures have rolled back already, and then this one says that there is nothing to roll back.
        let _rolled_back = sqlx::query("ROLLBACK").execute(&mut self.connection).await;
        if self.connection.ping().await.is_err() {
            match SqliteConnection::connect_with(&self.options).await {
                Ok(connection) => self.connection = connection,
                Err(error) => tracing::error!(%error, "the database cannot be opened again; trying at the next write"),
            }
        }
    }

    async fn in_transaction<T: Task>(&mut self, task: T) -> Result<T::Answer> {
        let result = async {
            self.begin().await?;
            let answer = task.run(&mut self.connection).await?;
            self.end().await?;
            Ok(answer)
        }
        .await;
        if result.is_err() {
            self.undo().await;
        } else if T::CHANGES_NODES {
            self.nodes = None;
        }
        result
    }

    async fn commit(&mut self, batch: Arc<Vec<Item>>) -> Result<Committed> {
        let result = self.try_commit(&batch).await;
        if result.is_err() {
            self.undo().await;
        } else if self.sessions.len() > REMEMBERED {
            self.sessions.retain(|_, session| !session.turns.is_empty());
        }
        result
    }

    async fn try_commit(&mut self, batch: &[Item]) -> Result<Committed> {
        self.begin().await?;
        if self.nodes.is_none() {
            self.nodes = Some(Reader(&mut self.connection).nodes().await?);
        }
        load::sessions(&mut self.connection, &mut self.sessions, batch).await?;
        load::lookups(&mut self.connection, &mut self.sessions, batch).await?;
        let (mut written, mut outcomes) = (Written::new(), Vec::with_capacity(batch.len()));
        for item in batch {
            outcomes.push(self.decide(item, &mut written).await?);
        }
        write::all(&mut self.connection, &Rows::of(&self.sessions, &written)).await?;
        self.end().await?;
        for item in batch {
            if written.get(&item.session).is_some_and(|writes| writes.deleted.is_some()) {
                self.sessions.remove(&item.session);
            } else if let Some(session) = self.sessions.get_mut(&item.session) {
                session.settle();
            }
        }
        Ok(Committed { outcomes, appended: batch::appended(written) })
    }

    async fn decide(&mut self, item: &Item, written: &mut Written) -> Result<std::result::Result<Applied, Refused>> {
        loop {
            let nodes = self.nodes.as_deref().unwrap_or_default();
            let birth = |session| Session { key: self.next_key, ..session };
            let known = self.sessions.len();
            match batch::decide(&mut self.sessions, written, nodes, item, birth) {
                Step::Done(outcome) => {
                    if self.sessions.len() > known {
                        self.next_key += 1;
                    }
                    return Ok(outcome);
                }
                Step::NeedsPartial(turn_id) => {
                    let Some(session) = self.sessions.get_mut(&item.session) else { continue };
                    let (mut reader, started) = (Reader(&mut self.connection), batch::started_seq(session, &turn_id));
                    let parts = read::streamed(&mut reader, session.key, &turn_id, started).await?;
                    let parts = batch::with_pending(parts, &turn_id, written.get(&item.session))?;
                    session.partials.insert(turn_id, parts);
                }
            }
        }
    }
}

/// One small transaction beside the batches.
trait Task {
    type Answer;
    const CHANGES_NODES: bool;
    async fn run(self, connection: &mut SqliteConnection) -> Result<Self::Answer>;
}

struct StartNode(NewNode);
impl Task for StartNode {
    type Answer = ();
    const CHANGES_NODES: bool = true;
    async fn run(self, connection: &mut SqliteConnection) -> Result<()> {
        let doing = Error::while_doing("registering the node");
        let node = self.0;
        if node.process_start {
            // The lock beside the file is held: every other incarnation in it is dead.
            sqlx::query("UPDATE nodes SET state = 'dead' WHERE state <> 'dead'")
                .execute(&mut *connection)
                .await
                .map_err(&doing)?;
        }
        sqlx::query(
            "INSERT INTO nodes (incarnation, name, state, beat, lease_ttl_ms, exclusive, started_at)
             VALUES (?, ?, 'live', ?, ?, ?, ?)",
        )
        .bind(node.owner.incarnation.0)
        .bind(node.owner.node)
        .bind(node.beat)
        .bind(signed(node.lease_ttl_ms))
        .bind(i64::from(node.exclusive))
        .bind(clock::now().0)
        .execute(connection)
        .await
        .map(drop)
        .map_err(doing)
    }
}

struct Renew {
    node: Incarnation,
    beat: i64,
    connections: u64,
}
impl Task for Renew {
    type Answer = Renewal;
    const CHANGES_NODES: bool = true;
    async fn run(self, connection: &mut SqliteConnection) -> Result<Renewal> {
        let doing = Error::while_doing("renewing the lease");
        let renewed =
            sqlx::query("UPDATE nodes SET beat = ?, connections = ? WHERE incarnation = ? AND state <> 'dead'")
                .bind(self.beat)
                .bind(signed(self.connections))
                .bind(&self.node.0)
                .execute(&mut *connection)
                .await
                .map_err(&doing)?
                .rows_affected()
                == 1;
        let nodes = Reader(connection).nodes().await?;
        let turns: Vec<RunningRow> = sqlx::query_as(
            "SELECT s.id AS session, t.id AS turn_id, t.owner, t.term, t.intent
             FROM turns t JOIN sessions s ON s.key = t.session_key
             WHERE t.status = 'running' AND (t.owner = ? OR t.intent = 1)",
        )
        .bind(&self.node.0)
        .fetch_all(&mut *connection)
        .await
        .map_err(&doing)?;
        let turns = turns.into_iter().map(RunningRow::turn).collect();
        let history = Reader(connection).history().await?;
        Ok(Renewal { renewed, nodes, turns, history })
    }
}

struct Drain(Incarnation);
impl Task for Drain {
    type Answer = bool;
    const CHANGES_NODES: bool = true;
    async fn run(self, connection: &mut SqliteConnection) -> Result<bool> {
        sqlx::query("UPDATE nodes SET state = 'draining' WHERE incarnation = ? AND state = 'live'")
            .bind(self.0.0)
            .execute(connection)
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(Error::while_doing("announcing the drain"))
    }
}

struct Bury(Incarnation, Option<i64>);
impl Task for Bury {
    type Answer = bool;
    const CHANGES_NODES: bool = true;
    async fn run(self, connection: &mut SqliteConnection) -> Result<bool> {
        let doing = Error::while_doing("setting a tombstone");
        let changed = sqlx::query(
            "UPDATE nodes SET state = 'dead' WHERE incarnation = ?1 AND state <> 'dead' AND (?2 IS NULL OR beat = ?2)",
        )
        .bind(self.0.0)
        .bind(self.1)
        .execute(&mut *connection)
        .await
        .map_err(&doing)?
        .rows_affected();
        sqlx::query(
            "DELETE FROM nodes WHERE state = 'dead' AND NOT EXISTS
             (SELECT 1 FROM turns t WHERE t.status = 'running' AND t.owner = nodes.incarnation)
             AND incarnation NOT IN (SELECT incarnation FROM nodes WHERE state = 'dead' ORDER BY started_at DESC LIMIT 20)",
        )
        .execute(connection)
        .await
        .map_err(doing)?;
        Ok(changed == 1)
    }
}

struct Compact(Timestamp, usize);
impl Task for Compact {
    type Answer = Compacted;
    const CHANGES_NODES: bool = false;
    async fn run(self, connection: &mut SqliteConnection) -> Result<Compacted> {
        write::compact(connection, self.0, self.1).await
    }
}

struct Purge(usize, Timestamp);
impl Task for Purge {
    type Answer = Purged;
    const CHANGES_NODES: bool = false;
    async fn run(self, connection: &mut SqliteConnection) -> Result<Purged> {
        purge::step(connection, self.0, self.1).await
    }
}

struct NewHistory;
impl Task for NewHistory {
    type Answer = String;
    const CHANGES_NODES: bool = false;
    async fn run(self, connection: &mut SqliteConnection) -> Result<String> {
        sqlx::query("UPDATE meta SET value = CAST(CAST(value AS INTEGER) + 1 AS TEXT) WHERE name = 'history'")
            .execute(&mut *connection)
            .await
            .map_err(Error::while_doing("beginning a new history"))?;
        Reader(connection).history().await
    }
}
