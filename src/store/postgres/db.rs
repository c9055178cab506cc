//! A connection that knows whether its statements may outlive a transaction.
//!
//! Behind a proxy that lends a server for one transaction, a statement that was prepared under a name is prepared on a
//! server that the next transaction may not get. So there every statement goes without a name; elsewhere each is
//! prepared once.

use futures::{future::BoxFuture, stream::BoxStream};
use sqlx::{
    Either, Error, Execute, Executor, PgConnection, Postgres, SqlStr,
    error::BoxDynError,
    postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};

/// A connection.
#[derive(Debug)]
pub(super) struct Db {
    pub(super) connection: PgConnection,
    /// Whether statements are prepared under names.
    pub(super) prepares: bool,
}

/// A query that is prepared under a name only where that is wanted.
struct Query<E> {
    query: E,
    prepares: bool,
}

impl<'q, E: Execute<'q, Postgres>> Execute<'q, Postgres> for Query<E> {
    fn sql(self) -> SqlStr {
        self.query.sql()
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.query.statement()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        self.query.take_arguments()
    }

    fn persistent(&self) -> bool {
        self.prepares && self.query.persistent()
    }
}

impl<'c> Executor<'c> for &'c mut Db {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        self.connection.fetch_many(Query { query, prepares: self.prepares })
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        self.connection.fetch_optional(Query { query, prepares: self.prepares })
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        self.connection.prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<sqlx::Describe<Postgres>, Error>>
    where
        'c: 'e,
    {
        self.connection.describe(sql)
    }
}
