//! A server in this process, on a port and in a folder of its own.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use rejoin::{
    agent::Registry,
    config::{Config, Database, Flags, Surroundings},
    server::Server,
};
use tempfile::TempDir;

use super::script::{Script, scripted};

/// A server and the folder of its database.
pub(crate) struct TestServer {
    pub(crate) server: Server,
    folder: TempDir,
}

/// The options that tests begin with: every default but a free port, a folder of their own, a short drain and no rates,
/// since tests send faster than people do.
pub(crate) fn config(folder: &Path) -> Config {
    let around =
        Surroundings { variables: BTreeMap::new(), directory: folder.to_owned(), host_name: "test".to_owned() };
    let mut config = Config::load_in(&Flags::default(), &around).unwrap().config;
    config.listen = "127.0.0.1:0".parse().unwrap();
    config.database = Database::Sqlite(folder.join("rejoin.db"));
    config.drain_timeout = Duration::from_secs(1);
    (config.rate_limit, config.join_limit) = (None, None);
    config
}

impl TestServer {
    /// A server with the scripted agent.
    pub(crate) async fn start() -> (Self, Script) {
        Self::start_with(|_| {}).await
    }

    /// A server with the scripted agent and other options.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> (Self, Script) {
        let (agents, script) = scripted();
        (Self::start_in(TempDir::new().unwrap(), agents, change).await, script)
    }

    /// A server on a folder that may hold a database already.
    pub(crate) async fn start_in(folder: TempDir, agents: Registry, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(folder.path());
        change(&mut config);
        let server = Server::start_with(config, agents).await.unwrap();
        Self { server, folder }
    }

    /// Drains and stops; the folder for the next one.
    pub(crate) async fn stop(self) -> TempDir {
        self.server.stop().await;
        self.folder
    }

    /// The database file.
    pub(crate) fn database(&self) -> PathBuf {
        self.folder.path().join("rejoin.db")
    }

    /// `http://…` of a path.
    pub(crate) fn http(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address())
    }

    /// The WebSocket address for a user.
    pub(crate) fn ws(&self, user: &str) -> String {
        format!("ws://{}/socket/websocket?vsn=2.0.0&user_id={user}&name={user}", self.server.address())
    }
}
