//! The store in a Postgres database, for any number of servers at a time.
//!
//! Nothing is remembered between transactions: whatever decides is read under the lock that it is decided under. Each
//! lane of a server's log writes through a connection of its own, its renewals have one, so that they wait for nothing but
//! their own row, and readers have the rest. No lock outlives its client: every transaction that writes carries
//! limits that the server enforces, and the appends' statement is a transaction by itself.

mod appends;
mod commit;
mod connect;
mod db;
mod load;
mod nodes;
mod purge;
mod read;
mod schema;
mod write;

use std::{str::FromStr, sync::Arc, time::Duration};

use async_trait::async_trait;
use sqlx::{ConnectOptions, postgres::PgConnectOptions};

use self::{
    commit::Committer,
    connect::{Begin, Connections},
    read::Reader,
};
use super::{
    AtWork, Committed, Compacted, Cut, Error, From, Item, ListQuery, LostTurn, Messages, NewNode, PageLimits, Pick,
    Pool, Purged, Renewal, Result, Store, Stretch, Waiting, log_of,
    read::{Snapshot as _, context, cut, history, stretch},
};
use crate::{
    clock::Timestamp,
    ids::Incarnation,
    model::{Message, Node, Person, machine::Session},
};

/// How a database is used.
#[derive(Debug, Clone)]
pub struct Options {
    /// Connections in all; at least five are opened when needed.
    pub connections: u32,
    /// Whether to bring the schema up to date, as opposed to refusing an old one.
    pub migrate: bool,
    /// Whether the address is that of a proxy which lends a server for one transaction at a time (such as pgbouncer with
    /// `pool_mode = transaction`): then no statement is prepared ahead and each is part of a transaction. The address
    /// may say the same with its parameter `statement-cache-capacity=0`.
    pub transaction_pooling: bool,
    /// The longest wait for a lock, and the longest silence of this server inside a transaction before the database ends
    /// it. At most `lease-renew`.
    pub lock_limit: Duration,
    /// The longest that anything may take; then its connection is given up.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections: 8,
            migrate: true,
            transaction_pooling: false,
            lock_limit: Duration::from_secs(1),
            patience: Duration::from_secs(6),
        }
    }
}

/// Batches that are committed at once: while one waits for the disk, the other is made. More would rather wait for
/// each other.
const LANES: usize = 2;
/// Connections that are kept for writing, for renewing, and for small changes of nodes.
const NOT_READERS: u32 = 4;
/// What an address says of a proxy that lends servers for a transaction.
const NO_CACHE: &str = "statement-cache-capacity=0";

/// A store in a Postgres database. Cheap to clone.
#[derive(Clone)]
pub struct Postgres {
    committer: Committer,
    renewals: Connections,
    small: Connections,
    readers: Connections,
    /// Names the database among all that there are.
    scope: Arc<str>,
}

impl Postgres {
    /// Connects to the database at `url` (`postgres://…` or `postgresql://…`), and brings its schema up to date if asked
    /// to; several may do so at once.
    ///
    /// # Errors
    /// [`Error::Refused`], which names the database without user and password, if the address is none, the server
    /// refuses user, password or database, the database is read-only, of a newer version or another program's, or the
    /// role lacks a right; [`Error::Unavailable`] if it cannot be reached.
    pub async fn open(url: &str, options: &Options) -> Result<Self> {
        let pooled = options.transaction_pooling || url.contains(NO_CACHE);
        let connect = Arc::new(connect_options(url, pooled)?);
        let place = schema::place(&connect);
        let first = Connections::new(connect.clone(), 1, schema::MIGRATION, !pooled);
        // Boxed, as it is large and runs once.
        Box::pin(schema::prepare(&first, &place, options.migrate)).await?;
        let scope = read::scope(&first).await?;
        first.close().await;
        let with = |count: usize| Connections::new(connect.clone(), count, options.patience, !pooled);
        let readers = options.connections.saturating_sub(NOT_READERS).max(1);
        let begin = Begin::Write(options.lock_limit);
        Ok(Self {
            committer: Committer { connections: with(LANES), begin, pooled },
            renewals: with(1),
            small: with(1),
            readers: with(usize::try_from(readers).unwrap_or(usize::MAX)),
            scope,
        })
    }
}

/// The answer of `$task`, which uses a connection `$db`, in a transaction of one of `$connections`.
macro_rules! in_transaction {
    ($connections:expr, $begin:expr, $doing:literal, $db:ident => $task:expr) => {{
        let work = async {
            let mut transaction = $connections.begin($doing, $begin).await?;
            let $db = transaction.db();
            let answer = $task;
            transaction.end(answer).await
        };
        $connections.within($doing, work).await
    }};
}

fn connect_options(url: &str, pooled: bool) -> Result<PgConnectOptions> {
    let refused = |error: sqlx::Error| Error::Refused {
        place: "database-url".to_owned(),
        why: format!("this is no address of a database ({error}); give postgres://USER:PASSWORD@HOST:PORT/DATABASE"),
    };
    let connect = PgConnectOptions::from_str(url).map_err(refused)?.application_name("rejoin");
    let connect = connect.disable_statement_logging();
    if pooled {
        return Ok(connect.statement_cache_capacity(0).extra_float_digits(None));
    }
    Ok(connect)
}

#[async_trait]
impl Store for Postgres {
    fn lanes(&self) -> usize {
        LANES
    }

    async fn commit(&self, batch: Arc<Vec<Item>>) -> Result<Committed> {
        let work = Box::pin(self.committer.commit(&batch));
        self.committer.connections.within("writing a batch", work).await
    }

    async fn start_node(&self, node: NewNode) -> Result<()> {
        let begin = self.committer.begin;
        in_transaction!(self.small, begin, "registering the node", db => nodes::start(db, &node).await)
    }

    async fn renew(&self, node: &Incarnation, beat: i64, connections: u64) -> Result<Renewal> {
        let begin = self.committer.begin;
        in_transaction!(self.renewals, begin, "renewing the lease", db => {
            nodes::renew(db, node, beat, connections).await
        })
    }

    async fn drain_node(&self, node: &Incarnation) -> Result<bool> {
        let begin = self.committer.begin;
        in_transaction!(self.small, begin, "announcing the drain", db => nodes::drain(db, node).await)
    }

    async fn bury_node(&self, node: &Incarnation, beat: Option<i64>) -> Result<bool> {
        let begin = self.committer.begin;
        in_transaction!(self.small, begin, "setting a tombstone", db => nodes::bury(db, node, beat).await)
    }

    fn scope(&self) -> Option<Arc<str>> {
        Some(Arc::clone(&self.scope))
    }

    async fn heads(&self, sessions: &[Arc<str>]) -> Result<Vec<(Arc<str>, String, u64)>> {
        in_transaction!(self.readers, Begin::Read, "comparing heads", db => read::heads(db, sessions).await)
    }

    async fn needs_work(&self, limit: usize) -> Result<Vec<Arc<str>>> {
        in_transaction!(self.readers, Begin::Read, "looking for sessions that need work", db => read::needs_work(db, limit).await)
    }

    async fn at_work(&self) -> Result<AtWork> {
        in_transaction!(self.readers, Begin::Read, "reading the nodes", db => read::at_work(db).await)
    }

    async fn waiting(&self) -> Result<Waiting> {
        in_transaction!(self.readers, Begin::Read, "counting what waits", db => read::waiting(db).await)
    }

    async fn lost(&self, limit: usize) -> Result<Vec<LostTurn>> {
        in_transaction!(self.readers, Begin::Read, "reading lost turns", db => read::lost(db, limit).await)
    }

    fn pool(&self) -> Pool {
        self.readers.pool()
    }

    async fn cut(&self, session: &str, from: Option<From>, limits: PageLimits) -> Result<Option<Cut>> {
        in_transaction!(self.readers, Begin::Read, "reading a session", db => {
            cut(&mut Reader(db), session, from, limits).await
        })
    }

    async fn stretch(&self, session: &str, epoch: &str, after: u64, bytes: usize) -> Result<Option<Stretch>> {
        in_transaction!(self.readers, Begin::Read, "reading a log", db => {
            stretch(&mut Reader(db), session, epoch, after, bytes).await
        })
    }

    async fn history(&self, session: &str, before: u64, limits: PageLimits) -> Result<Option<Messages>> {
        in_transaction!(self.readers, Begin::Read, "reading messages", db => {
            history(&mut Reader(db), session, before, limits).await
        })
    }

    async fn context(&self, session: &str, turn_id: &str, limit: usize) -> Result<Vec<Message>> {
        in_transaction!(self.readers, Begin::Read, "reading an agent's context", db => {
            context(&mut Reader(db), session, turn_id, limit).await
        })
    }

    async fn list(&self, query: &ListQuery) -> Result<Vec<Session>> {
        in_transaction!(self.readers, Begin::Read, "listing sessions", db => read::list(db, query).await)
    }

    async fn pick(&self, pick: &Pick) -> Result<Vec<Session>> {
        in_transaction!(self.readers, Begin::Read, "reading sessions", db => read::pick(db, pick).await)
    }

    async fn nodes(&self) -> Result<Vec<Node>> {
        in_transaction!(self.readers, Begin::Read, "reading the nodes", db => Reader(db).nodes().await)
    }

    async fn compact(&self, ended_before: Timestamp, limit: usize) -> Result<Compacted> {
        let begin = self.committer.begin;
        in_transaction!(self.small, begin, "compacting", db => write::compact(db, ended_before, limit).await)
    }

    async fn deleted(&self, session: &str, epoch: &str) -> Result<Option<Person>> {
        in_transaction!(self.readers, Begin::Read, "looking for a deleted session", db => {
            read::deleted(db, session, log_of(epoch)).await
        })
    }

    async fn purge(&self, limit: usize, forget_before: Timestamp) -> Result<Purged> {
        let begin = self.committer.begin;
        in_transaction!(self.small, begin, "removing a deleted session", db => purge::step(db, limit, forget_before).await)
    }

    async fn new_history(&self) -> Result<String> {
        let begin = self.committer.begin;
        in_transaction!(self.small, begin, "beginning a new history", db => write::new_history(db).await)
    }

    async fn close(&self) {
        for connections in [&self.committer.connections, &self.renewals, &self.small, &self.readers] {
            connections.close().await;
        }
    }
}

impl Error {
    /// Makes a store error of a database error: what the database refuses for its content, and all the rest, which a
    /// repetition may mend.
    fn in_postgres(doing: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| {
            let code = match &source {
                sqlx::Error::Database(error) => error.code(),
                sqlx::Error::Encode(_) => return Self::Content { doing, source },
                _ => None,
            };
            // Data exceptions, violated constraints, exceeded limits of the program.
            match code.as_deref().map(|code| &code[..code.len().min(2)]) {
                Some("22" | "23" | "54") => Self::Content { doing, source },
                _ => Self::Unavailable { doing, source: Some(source) },
            }
        }
    }

    /// The SQLSTATE of what made the store unavailable.
    fn sqlstate(&self) -> Option<String> {
        match self {
            Self::Unavailable { source: Some(sqlx::Error::Database(error)), .. } => error.code().map(Into::into),
            _ => None,
        }
    }

    /// Whether a lock was not free in time.
    fn is_locked_out(&self) -> bool {
        self.sqlstate().as_deref() == Some("55P03")
    }

    /// Whether it was the connection that failed: it was cut, or its server ended or became a standby.
    fn is_broken_connection(&self) -> bool {
        match self {
            Self::Unavailable {
                source: Some(sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_)),
                ..
            } => true,
            _ => {
                self.sqlstate().is_some_and(|code| code == "25006" || code.starts_with("57P") || code.starts_with("08"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
