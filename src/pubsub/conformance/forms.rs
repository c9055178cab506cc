//! The buses, each with a server of its own on a free port.

use std::sync::Arc;

use super::{Server, World, exercise};
use crate::pubsub::{Local, Nats, Postgres};

#[path = "../../../tests/it/support/nats.rs"]
mod nats;
#[path = "postgres_server.rs"]
mod postgres_server;

use nats::NatsServer;
use postgres_server::PostgresServer;

impl Server for Local {
    fn stop(&mut self) {
        self.close();
    }

    fn start(&mut self) {
        self.open();
    }
}

impl Server for NatsServer {
    fn stop(&mut self) {
        self.kill();
    }

    fn start(&mut self) {
        self.start_again();
    }
}

impl Server for PostgresServer {
    fn stop(&mut self) {
        self.kill();
    }

    fn start(&mut self) {
        self.start_again();
    }
}

pub(super) fn nats_world() -> World {
    let server = NatsServer::start();
    World { bus: Arc::new(Nats::new(&server.url()).unwrap()), server: Box::new(server) }
}

#[tokio::test]
async fn local() {
    let bus = Local::new();
    exercise(&mut World { bus: Arc::new(bus.clone()), server: Box::new(bus) }).await;
}

#[tokio::test]
async fn nats() {
    exercise(&mut nats_world()).await;
}

#[tokio::test]
async fn postgres() {
    let server = PostgresServer::start();
    let bus = Arc::new(Postgres::new(&server.url()).unwrap());
    exercise(&mut World { bus, server: Box::new(server) }).await;
}
