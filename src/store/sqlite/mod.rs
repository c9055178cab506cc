//! The store in one SQLite file, for one server at a time.
//!
//! An exclusive lock beside the file, held until the value is dropped, proves that every other node named in it is
//! dead and that nobody else writes. So one task owns the one writing connection ([`writer`]), and what it knows of
//! live sessions it may remember between transactions. Readers are a pool of read-only connections, each reading one
//! WAL snapshot ([`read`]); they wait for nobody.

mod checkpoint;
mod file;
mod load;
mod purge;
mod read;
mod write;
mod writer;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use sqlx::{
    ConnectOptions, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use self::{read::Reader, writer::Command};
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

/// What a connection may keep of the file, as SQLite counts it: KiB below zero. A reader drops it all whenever something
/// was written since it last looked, and the system keeps the file anyway.
const CACHE: &str = "-2000";
/// The same for the one that writes, which meets the same pages again and again.
const WRITER_CACHE: &str = "-32000";

/// How a database file is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Reading connections.
    pub readers: u32,
    /// Whether to bring the schema up to date, as opposed to refusing an old one.
    pub migrate: bool,
}

/// A store in one SQLite file. Cheap to clone; [`Store::close`], or the drop of the last clone, gives the file free.
#[derive(Clone)]
pub struct Sqlite {
    readers: SqlitePool,
    commands: mpsc::Sender<Command>,
    urgent: mpsc::Sender<Command>,
    checkpoints: Arc<Mutex<Option<JoinHandle<()>>>>,
    lock: Arc<Mutex<Option<file::Lock>>>,
}

/// Commits that wait for the writer; a caller whose commit does not fit waits.
const INBOX: usize = 64;

impl Sqlite {
    /// Locks and opens the file at `path`, creating it if it is not there.
    ///
    /// # Errors
    /// [`Error::Locked`] if another server uses it; [`Error::Refused`] if it is not a database of Rejoin, cannot be
    /// written, or was written by a newer version (the file is left as it was); [`Error::Unavailable`] otherwise.
    pub async fn open(path: &Path, options: &Options) -> Result<Self> {
        let path = file::canonical(path)?;
        let mut lock = file::Lock::take(&path)?;
        file::examine(&path, options.migrate).await?;
        lock.take_database(&path)?;
        let connect = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5))
            .pragma("wal_autocheckpoint", "16000")
            .pragma("cache_size", CACHE)
            .pragma("temp_store", "memory")
            .disable_statement_logging();
        let writer = connect.clone().pragma("cache_size", WRITER_CACHE);
        let writer = writer::Writer::open(writer, &path, options.migrate).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(options.readers.max(1))
            .acquire_timeout(Duration::from_secs(5))
            .test_before_acquire(false)
            .connect_with(connect.clone().read_only(true).create_if_missing(false))
            .await
            .map_err(Error::while_doing("opening the database for reading"))?;
        let (commands, inbox) = mpsc::channel(INBOX);
        let (urgent, urgent_inbox) = mpsc::channel(INBOX);
        let stop = CancellationToken::new();
        let checkpoints = tokio::spawn(checkpoint::run(connect, writer.commits(), stop.clone()));
        tokio::spawn(async move {
            writer.run(urgent_inbox, inbox).await;
            stop.cancel();
        });
        Ok(Self {
            readers,
            commands,
            urgent,
            checkpoints: Arc::new(Mutex::new(Some(checkpoints))),
            lock: Arc::new(Mutex::new(Some(lock))),
        })
    }

    async fn ask<T>(
        &self,
        inbox: &mpsc::Sender<Command>,
        make: impl FnOnce(oneshot::Sender<Result<T>>) -> Command,
    ) -> Result<T> {
        let closed = || Error::Unavailable { doing: "writing: the store is closed", source: None };
        let (reply, answer) = oneshot::channel();
        inbox.send(make(reply)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn commit(&self, batch: Arc<Vec<Item>>) -> Result<Committed> {
        self.ask(&self.commands, |reply| Command::Commit { batch, reply }).await
    }

    async fn start_node(&self, node: NewNode) -> Result<()> {
        self.ask(&self.urgent, |reply| Command::StartNode { node, reply }).await
    }

    async fn renew(&self, node: &Incarnation, beat: i64, connections: u64) -> Result<Renewal> {
        let node = node.clone();
        self.ask(&self.urgent, |reply| Command::Renew { node, beat, connections, reply }).await
    }

    async fn drain_node(&self, node: &Incarnation) -> Result<bool> {
        let node = node.clone();
        self.ask(&self.urgent, |reply| Command::Drain { node, reply }).await
    }

    async fn bury_node(&self, node: &Incarnation, beat: Option<i64>) -> Result<bool> {
        let node = node.clone();
        self.ask(&self.urgent, |reply| Command::Bury { node, beat, reply }).await
    }

    async fn heads(&self, sessions: &[Arc<str>]) -> Result<Vec<(Arc<str>, String, u64)>> {
        read::heads(&self.readers, sessions).await
    }

    async fn needs_work(&self, limit: usize) -> Result<Vec<Arc<str>>> {
        read::needs_work(&self.readers, limit).await
    }

    async fn at_work(&self) -> Result<AtWork> {
        read::at_work(&self.readers).await
    }

    async fn waiting(&self) -> Result<Waiting> {
        read::waiting(&self.readers).await
    }

    async fn lost(&self, limit: usize) -> Result<Vec<LostTurn>> {
        read::lost(&self.readers, limit).await
    }

    fn pool(&self) -> Pool {
        let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let (open, idle) = (count(self.readers.size()), self.readers.num_idle());
        let most = count(self.readers.options().get_max_connections());
        Pool { most, busy: open.saturating_sub(idle), idle }
    }

    async fn cut(&self, session: &str, from: Option<From>, limits: PageLimits) -> Result<Option<Cut>> {
        cut(&mut Reader(&mut *read::begin(&self.readers).await?), session, from, limits).await
    }

    async fn stretch(&self, session: &str, epoch: &str, after: u64, bytes: usize) -> Result<Option<Stretch>> {
        stretch(&mut Reader(&mut *read::begin(&self.readers).await?), session, epoch, after, bytes).await
    }

    async fn history(&self, session: &str, before: u64, limits: PageLimits) -> Result<Option<Messages>> {
        history(&mut Reader(&mut *read::begin(&self.readers).await?), session, before, limits).await
    }

    async fn context(&self, session: &str, turn_id: &str, limit: usize) -> Result<Vec<Message>> {
        context(&mut Reader(&mut *read::begin(&self.readers).await?), session, turn_id, limit).await
    }

    async fn list(&self, query: &ListQuery) -> Result<Vec<Session>> {
        read::list(&self.readers, query).await
    }

    async fn pick(&self, pick: &Pick) -> Result<Vec<Session>> {
        read::pick(&self.readers, pick).await
    }

    async fn nodes(&self) -> Result<Vec<Node>> {
        Reader(&mut *read::begin(&self.readers).await?).nodes().await
    }

    async fn compact(&self, ended_before: Timestamp, limit: usize) -> Result<Compacted> {
        self.ask(&self.commands, |reply| Command::Compact { ended_before, limit, reply }).await
    }

    async fn deleted(&self, session: &str, epoch: &str) -> Result<Option<Person>> {
        read::deleted(&self.readers, session, log_of(epoch)).await
    }

    async fn purge(&self, limit: usize, forget_before: Timestamp) -> Result<Purged> {
        self.ask(&self.commands, |reply| Command::Purge { limit, forget_before, reply }).await
    }

    async fn new_history(&self) -> Result<String> {
        self.ask(&self.commands, |reply| Command::NewHistory { reply }).await
    }

    async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.commands.send(Command::Close { reply }).await.is_ok() {
            // An error means that the writer is gone already, which is what was asked for.
            let _gone = done.await;
        }
        let checkpoints = self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(checkpoints) = checkpoints
            && let Err(error) = checkpoints.await
        {
            tracing::warn!(%error, "the checkpoints ended badly");
        }
        self.readers.close().await;
        // Nothing of this store touches the file any more: another server may have it.
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Error {
    /// Makes a store error of a database error: what the database refuses for its content, and all the rest, which a
    /// repetition may mend.
    fn while_doing(doing: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| {
            let code = match &source {
                sqlx::Error::Database(error) => error.code().and_then(|code| code.parse::<u32>().ok()),
                _ => None,
            };
            // SQLITE_ERROR, TOOBIG, CONSTRAINT, MISMATCH, RANGE: an extended code has the primary one in its low byte.
            match code.map(|code| code & 0xff) {
                Some(1 | 18 | 19 | 20 | 25) => Self::Content { doing, source },
                _ => Self::Unavailable { doing, source: Some(source) },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::any::Any;

    use super::*;
    use crate::store::conformance::exercise;

    async fn open() -> (Arc<dyn Store>, Box<dyn Any + Send + Sync>) {
        let folder = tempfile::TempDir::new().unwrap();
        let store = Sqlite::open(&folder.path().join("test.db"), &Options { readers: 2, migrate: true }).await.unwrap();
        (Arc::new(store), Box::new(folder))
    }

    exercise!(open());
}
