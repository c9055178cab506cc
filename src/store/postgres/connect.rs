//! Connections, lent one at a time to whoever gives them back whole.
//!
//! A [`Loan`] that is dropped in the middle of something is closed, never lent again: nobody can know what its server
//! still does. Every use has a limit, so that a server which is silent costs a connection and not a caller. It knows no
//! statement but those that begin and end a transaction. Its invariant: at most `most` connections, and what is lent
//! again has nothing under way.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time,
};

use super::{
    super::{Error, Pool, Result},
    db::Db,
};

/// How long a server may take to let a client in.
const CONNECT: Duration = Duration::from_secs(5);

/// A bounded number of connections to one database. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connections {
    options: Arc<PgConnectOptions>,
    permits: Arc<Semaphore>,
    most: usize,
    idle: Arc<Mutex<Vec<Db>>>,
    patience: Duration,
    /// Whether statements are prepared under names.
    prepares: bool,
}

/// One connection, for one use.
pub(super) struct Loan {
    db: Db,
    /// Whether it was used before: its server may have gone since.
    pub(super) used: bool,
    idle: Arc<Mutex<Vec<Db>>>,
    _permit: OwnedSemaphorePermit,
}

/// How a transaction begins.
#[derive(Debug, Clone, Copy)]
pub(super) enum Begin {
    /// To write; waits for a lock, and is waited for by the server while idle, at most so long.
    Write(Duration),
    /// To read one consistent state.
    Read,
}

impl Begin {
    fn sql(self) -> String {
        match self {
            Self::Write(limit) => {
                let limit = limit.as_millis().max(1);
                format!(
                    "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = {limit}; \
                     SET LOCAL idle_in_transaction_session_timeout = {limit}"
                )
            }
            Self::Read => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY".to_owned(),
        }
    }
}

impl Connections {
    /// At most `most` connections, none of them opened yet. Whatever takes longer than `patience` has failed.
    pub(super) fn new(options: Arc<PgConnectOptions>, most: usize, patience: Duration, prepares: bool) -> Self {
        let most = most.max(1);
        Self { options, permits: Arc::new(Semaphore::new(most)), most, idle: Arc::default(), patience, prepares }
    }

    /// How many are lent, and how many could be at once.
    pub(super) fn pool(&self) -> Pool {
        let busy = self.most.saturating_sub(self.permits.available_permits());
        Pool { most: self.most, busy, idle: idle(&self.idle).len() }
    }

    /// A connection, the one that was given back last if there is one; waits while all are lent.
    pub(super) async fn lend(&self) -> Result<Loan> {
        let lent = time::timeout(self.patience, self.lend_at_last()).await;
        lent.unwrap_or(Err(Error::Unavailable { doing: "waiting for a database connection", source: None }))
    }

    async fn lend_at_last(&self) -> Result<Loan> {
        let closed = |_| Error::Unavailable { doing: "connecting: the store is closed", source: None };
        let permit = self.permits.clone().acquire_owned().await.map_err(closed)?;
        let known = idle(&self.idle).pop();
        let used = known.is_some();
        let db = match known {
            Some(db) => db,
            None => self.connect().await?,
        };
        Ok(Loan { db, used, idle: self.idle.clone(), _permit: permit })
    }

    async fn connect(&self) -> Result<Db> {
        // Boxed, as it is large and rare.
        let connecting = Box::pin(PgConnection::connect_with(&self.options));
        let connected = time::timeout(CONNECT.min(self.patience), connecting).await;
        let connection = match connected {
            Ok(connection) => connection.map_err(Error::in_postgres("connecting to the database"))?,
            Err(_) => return Err(Error::Unavailable { doing: "connecting to the database", source: None }),
        };
        Ok(Db { connection, prepares: self.prepares })
    }

    /// Whatever `work` comes to within the patience. What it was lent is closed when that is over.
    pub(super) async fn within<T>(
        &self,
        doing: &'static str,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let late = Err(Error::Unavailable { doing, source: None });
        time::timeout(self.patience, work).await.unwrap_or(late)
    }

    /// A connection with a transaction begun. One that was used before and turns out to be broken is replaced: its
    /// server may have been restarted since.
    pub(super) async fn begin(&self, doing: &'static str, begin: Begin) -> Result<Transaction> {
        loop {
            let mut loan = self.lend().await?;
            let begun = sqlx::raw_sql(AssertSqlSafe(begin.sql())).execute(loan.db()).await;
            match begun.map_err(Error::in_postgres(doing)) {
                Ok(_) => return Ok(Transaction { loan, doing }),
                Err(error) if loan.used && error.is_broken_connection() => self.forget_idle(),
                Err(error) => return Err(error),
            }
        }
    }

    /// Closes what is not lent: it is as old as a connection that has turned out to be broken.
    pub(super) fn forget_idle(&self) {
        idle(&self.idle).clear();
    }

    /// Closes what is not lent, and lends nothing more.
    pub(super) async fn close(&self) {
        self.permits.close();
        let unused = std::mem::take(&mut *idle(&self.idle));
        for db in unused {
            // A connection that is broken already is closed.
            let _closed = time::timeout(self.patience, db.connection.close()).await;
        }
    }
}

impl Loan {
    /// The connection.
    pub(super) fn db(&mut self) -> &mut Db {
        &mut self.db
    }

    /// Gives the connection back after a use that has succeeded, closes it after one that has not.
    pub(super) fn settle<T>(self, answer: Result<T>) -> Result<T> {
        if answer.is_ok() {
            idle(&self.idle).push(self.db);
        }
        answer
    }
}

/// A transaction on a connection of its own. Dropping it closes the connection, which undoes it.
pub(super) struct Transaction {
    loan: Loan,
    doing: &'static str,
}

impl Transaction {
    /// The connection.
    pub(super) fn db(&mut self) -> &mut Db {
        self.loan.db()
    }

    /// Commits after a success, undoes after a failure.
    pub(super) async fn end<T>(mut self, answer: Result<T>) -> Result<T> {
        let end = if answer.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let ended = sqlx::raw_sql(end).execute(self.db()).await.map_err(Error::in_postgres(self.doing));
        // What was undone may have failed for the same reason as the undoing: the first reason is the one to tell.
        let answer = answer?;
        self.loan.settle(ended.map(|_| answer))
    }
}

/// A short lock; what a panicking holder left is a plain list, true as it is.
fn idle(mutex: &Mutex<Vec<Db>>) -> std::sync::MutexGuard<'_, Vec<Db>> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
