//! The suites that every store passes, on a database of its own for each case, as an ordinary role; directly, and some of
//! them through a proxy that lends a server for a transaction.

mod failures;
mod intruder;
mod nodes;
mod refusals;

use std::{any::Any, sync::OnceLock};

use super::*;
use crate::store::conformance::{exercise, locks::exercise_locks};

#[path = "../../../tests/it/support/postgres.rs"]
#[allow(dead_code, reason = "the integration tests use more of it")]
mod server;
#[path = "../../../tests/it/support/tcp_proxy.rs"]
#[allow(dead_code, reason = "the integration tests use more of it")]
mod tcp_proxy;

type Keep = Box<dyn Any + Send + Sync>;

/// The address of a new database.
async fn new_database() -> String {
    let server = server::server();
    server.url(server::OWNER, &server.database().await)
}

async fn open() -> (Arc<dyn Store>, Keep) {
    let store = Postgres::open(&new_database().await, &Options::default()).await.unwrap();
    (Arc::new(store), Box::new(()))
}

mod direct {
    use super::*;

    exercise!(open());
}

mod held {
    use super::*;

    async fn open_with_intruder() -> (Arc<dyn Store>, Keep, Box<dyn crate::store::conformance::locks::Intruder>) {
        let server = server::server();
        let database = server.database().await;
        // Long enough for whoever is slow to be seen waiting.
        let options =
            Options { lock_limit: Duration::from_secs(20), patience: Duration::from_secs(30), ..Options::default() };
        let store = Postgres::open(&server.url(server::OWNER, &database), &options).await.unwrap();
        (Arc::new(store), Box::new(()), Box::new(intruder::Other::on(&database).await))
    }

    exercise_locks!(open_with_intruder());
}

mod pooled {
    use super::*;

    async fn open_pooled() -> (Arc<dyn Store>, Keep) {
        // One for all cases; the runtime of the first that needs it may end before the others do, the process not.
        static POOLER: OnceLock<server::Pooler> = OnceLock::new();
        let server = server::server();
        let database = server.database().await;
        let port = POOLER.get_or_init(|| server.pooler()).port();
        let url = server.tcp_url(port, &database);
        let options = Options { transaction_pooling: true, ..Options::default() };
        (Arc::new(Postgres::open(&url, &options).await.unwrap()), Box::new(()))
    }

    exercise!(open_pooled(); log);
    exercise!(open_pooled(); turns);
    exercise!(open_pooled(); nodes);
}
