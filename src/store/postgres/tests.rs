//! The suite that every store passes, on a database of its own for each case, as an ordinary role.

use std::any::Any;

use super::*;
use crate::store::conformance::exercise;

#[path = "../../../tests/it/support/postgres.rs"]
#[allow(dead_code, reason = "the integration tests use more of it")]
mod server;

async fn open() -> (Arc<dyn Store>, Box<dyn Any + Send + Sync>) {
    let server = server::server();
    let database = server.database().await;
    let store = Postgres::open(&server.url(server::OWNER, &database), &Options::default()).await.unwrap();
    (Arc::new(store), Box::new(()))
}

exercise!(open());
