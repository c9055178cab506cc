//! Several real servers on one Postgres, each edge of each server through a proxy of its own.
//!
//! Clusters run one at a time: their cases measure leases, and two at once on a small machine would measure each other.

use std::{fs::File, net::SocketAddr, process::Stdio, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use tempfile::TempDir;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep, sleep_until},
};

use super::{
    chance::Chance,
    lossy_nats::LossyNats,
    nats::NatsServer,
    postgres,
    process::{self, Process},
    tcp_proxy::TcpProxy,
};

static ONE_AT_A_TIME: Semaphore = Semaphore::const_new(1);

/// How nodes are started.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    pub(crate) nats: bool,
    /// Whether the bus over Postgres takes the same way as the store, as it does unless it is told another: then
    /// statements are prepared, and deltas are a transaction by themselves.
    pub(crate) direct: bool,
    /// Of a hundred messages of NATS, how many are lost, by which chance.
    pub(crate) losing: Option<(u64, Chance)>,
    pub(crate) ttl: Duration,
    pub(crate) renew: Duration,
    pub(crate) echo_delay: &'static str,
    /// Further options of every node.
    pub(crate) args: &'static [&'static str],
}

impl Plan {
    /// Leases that are judged within a second or two, and the bus over Postgres.
    pub(crate) fn short(nodes: usize) -> Self {
        let (ttl, renew) = (Duration::from_millis(900), Duration::from_millis(300));
        Self { nodes, nats: false, direct: false, losing: None, ttl, renew, echo_delay: "20ms", args: &[] }
    }

    /// Leases that a busy machine does not lose: for cases in which nobody may be judged.
    pub(crate) fn patient(nodes: usize) -> Self {
        let (ttl, renew) = (Duration::from_secs(6), Duration::from_millis(500));
        Self { ttl, renew, ..Self::short(nodes) }
    }

    pub(crate) fn nats(self) -> Self {
        Self { nats: true, ..self }
    }

    pub(crate) fn direct(self) -> Self {
        Self { direct: true, ..self }
    }

    pub(crate) fn losing(self, percent: u64, chance: Chance) -> Self {
        Self { losing: Some((percent, chance)), ..self }
    }

    pub(crate) fn echo(self, echo_delay: &'static str) -> Self {
        Self { echo_delay, ..self }
    }

    pub(crate) fn with(self, args: &'static [&'static str]) -> Self {
        Self { args, ..self }
    }

    /// The longest that a turn may outlive its owner (I11), and what a busy machine adds.
    pub(crate) fn liveness(&self) -> Duration {
        self.ttl + 2 * self.renew + Duration::from_secs(1)
    }
}

/// One place in the cluster: its proxies stay, its processes come and go.
pub(crate) struct Node {
    pub(crate) name: String,
    /// Ttl and renewal, where they are not the plan's.
    pub(crate) lease: Option<(Duration, Duration)>,
    process: Option<Process>,
    address: Option<SocketAddr>,
    clients: Option<TcpProxy>,
    pub(crate) store: TcpProxy,
    pub(crate) bus: TcpProxy,
}

/// Nodes, their database, and the bus between them.
pub(crate) struct Fleet {
    pub(crate) plan: Plan,
    pub(crate) nodes: Vec<Node>,
    pub(crate) nats: Option<NatsServer>,
    pub(crate) lossy: Option<LossyNats>,
    server: Arc<postgres::Server>,
    database: String,
    folder: TempDir,
    http: reqwest::Client,
    _alone: SemaphorePermit<'static>,
}

impl Fleet {
    /// Starts every node of the plan, on a database of the server that tests share.
    pub(crate) fn start(plan: Plan) -> BoxFuture<'static, Self> {
        Self::start_on(postgres::server().clone(), plan)
    }

    /// The same on a database of another server.
    pub(crate) fn start_on(server: Arc<postgres::Server>, plan: Plan) -> BoxFuture<'static, Self> {
        Box::pin(async {
            let mut cluster = Self::prepare_on(server, plan).await;
            for node in 0..cluster.nodes.len() {
                cluster.launch(node).await;
            }
            cluster.audit().await;
            cluster
        })
    }

    /// The same without a node that runs.
    pub(crate) fn prepare(plan: Plan) -> BoxFuture<'static, Self> {
        Self::prepare_on(postgres::server().clone(), plan)
    }

    /// The same on a database of another server.
    pub(crate) fn prepare_on(server: Arc<postgres::Server>, plan: Plan) -> BoxFuture<'static, Self> {
        Box::pin(Self::prepared(server, plan))
    }

    async fn prepared(server: Arc<postgres::Server>, plan: Plan) -> Self {
        let alone = ONE_AT_A_TIME.acquire().await.unwrap();
        let (database, port) = (server.database().await, server.port());
        let nats = plan.nats.then(NatsServer::start);
        let mut bus = nats.as_ref().map_or(port, port_of);
        let mut lossy = None;
        if let Some((percent, chance)) = &plan.losing {
            let proxy = LossyNats::start(bus, *percent, chance.clone()).await;
            bus = lossy.insert(proxy).port();
        }
        let mut nodes = Vec::new();
        for number in 0..plan.nodes {
            nodes.push(Node {
                name: format!("n{number}"),
                lease: None,
                process: None,
                address: None,
                clients: None,
                store: TcpProxy::start(port).await,
                bus: TcpProxy::start(bus).await,
            });
        }
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(15)).build().unwrap();
        let folder = TempDir::new().unwrap();
        Self { plan, nodes, nats, lossy, server, database, folder, http, _alone: alone }
    }

    /// Starts the process of a node, where its last one was.
    pub(crate) async fn launch(&mut self, node: usize) {
        self.launch_as(node, &[], &[]).await;
    }

    /// The same with more options and variables.
    pub(crate) async fn launch_as(&mut self, node: usize, args: &[&str], variables: &[(&str, &str)]) {
        let mut command = self.command(node, args);
        command.envs(variables.iter().copied());
        let process = Process::spawn(command).await;
        let address = process.address;
        let place = &mut self.nodes[node];
        if place.clients.is_none() {
            place.clients = Some(TcpProxy::start(address.port()).await);
        }
        (place.process, place.address) = (Some(process), Some(address));
    }

    /// What starts a node.
    pub(crate) fn command(&self, node: usize, args: &[&str]) -> tokio::process::Command {
        let place = &self.nodes[node];
        let mut command = process::command(self.folder.path());
        let log = File::options().create(true).append(true).open(self.log_of(node)).unwrap();
        command.stderr(Stdio::from(log)).args(["serve", "--log-level", "warn", "--node-name", &place.name]);
        let listen = place.address.map_or_else(|| "127.0.0.1:0".to_owned(), |address| address.to_string());
        command.args(["--listen", &listen, "--database-url", &self.url_through(&place.store)]);
        match &self.nats {
            Some(_) => command.args(["--bus", &format!("nats://127.0.0.1:{}", place.bus.port())]),
            None if self.plan.direct => &mut command,
            None => command.args(["--bus-url", &self.url_through(&place.bus)]),
        };
        let ms = |time: Duration| format!("{}ms", time.as_millis());
        let (ttl, renew) = place.lease.unwrap_or((self.plan.ttl, self.plan.renew));
        command.args(["--lease-ttl", &ms(ttl), "--lease-renew", &ms(renew)]);
        command.args(["--echo-delay", self.plan.echo_delay, "--delta-window", "10ms"]);
        command.args(self.plan.args).args(args);
        command
    }

    fn log_of(&self, node: usize) -> std::path::PathBuf {
        self.folder.path().join(format!("node-{node}.log"))
    }

    /// What the processes of a node have written.
    pub(crate) fn log(&self, node: usize) -> String {
        std::fs::read_to_string(self.log_of(node)).unwrap_or_default()
    }

    fn url_through(&self, proxy: &TcpProxy) -> String {
        self.server.tcp_url(proxy.port(), &self.database)
    }

    /// The database past every proxy.
    pub(crate) fn url(&self) -> String {
        self.server.tcp_url(self.server.port(), &self.database)
    }

    /// A connection to the database that no proxy touches.
    pub(crate) async fn sql(&self) -> Sql {
        Sql::of(&self.server, &self.database).await
    }

    /// The process of a node, which must run.
    pub(crate) fn process(&self, node: usize) -> &Process {
        self.nodes[node].process.as_ref().expect("it runs")
    }

    /// The edge between clients and a node.
    pub(crate) fn clients(&self, node: usize) -> &TcpProxy {
        self.nodes[node].clients.as_ref().expect("it has run")
    }

    /// Where a node listens, past its proxy.
    pub(crate) fn address(&self, node: usize) -> SocketAddr {
        self.nodes[node].address.expect("it has run")
    }

    /// The WebSocket address of a node, through its proxy.
    pub(crate) fn ws(&self, node: usize, user: &str) -> String {
        format!("ws://127.0.0.1:{}/socket/websocket?vsn=2.0.0&user_id={user}&name={user}", self.clients(node).port())
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self, node: usize) {
        self.nodes[node].process.take().expect("it runs").kill().await;
    }

    /// Whether a node has a process.
    pub(crate) fn runs(&self, node: usize) -> bool {
        self.nodes[node].process.is_some()
    }

    /// Takes the process of a node out, to wait for its end.
    pub(crate) fn take(&mut self, node: usize) -> Process {
        self.nodes[node].process.take().expect("it runs")
    }

    pub(crate) async fn signal(&self, node: usize, name: &str) {
        self.process(node).signal(name).await;
    }

    /// Takes the store away from a node, as a broken network does; or gives it back.
    pub(crate) fn lose_store(&self, node: usize, lost: bool) {
        self.nodes[node].store.refuse(lost);
        self.nodes[node].store.cut();
    }

    /// Takes the bus away from a node; or gives it back.
    pub(crate) fn lose_bus(&self, node: usize, lost: bool) {
        self.nodes[node].bus.refuse(lost);
        self.nodes[node].bus.cut();
    }

    /// What asks nodes over HTTP, past the proxies.
    pub(crate) fn caller(&self) -> Caller {
        let address = |node: &Node| node.address.map(|address| format!("http://{address}")).unwrap_or_default();
        Caller { http: self.http.clone(), nodes: self.nodes.iter().map(address).collect() }
    }

    /// Takes the store and the bus away from a node; or gives them back.
    pub(crate) fn lose_both(&self, node: usize, lost: bool) {
        self.lose_store(node, lost);
        self.lose_bus(node, lost);
    }

    /// The name of the database.
    pub(crate) fn database(&self) -> &str {
        &self.database
    }

    /// The program with nothing said yet.
    pub(crate) fn tool(&self) -> tokio::process::Command {
        process::command(self.folder.path())
    }

    /// Leads every node to another server that holds the database, as an address does that changes hands.
    pub(crate) fn move_to(&mut self, server: Arc<postgres::Server>) {
        self.server = server;
        for node in &self.nodes {
            node.store.turn(self.server.port());
            node.store.cut();
            if self.nats.is_none() {
                node.bus.turn(self.server.port());
                node.bus.cut();
            }
        }
    }

    /// Keeps a copy of the database as it is. No node may reach it meanwhile.
    pub(crate) async fn copy_database(&self) {
        let name = &self.database;
        self.alone_with(&format!("CREATE DATABASE {name}_copy TEMPLATE {name}")).await;
    }

    /// Puts the copy in the place of the database, as a restore does. No node may reach it meanwhile.
    pub(crate) async fn restore_copy(&self) {
        let name = &self.database;
        self.alone_with(&format!("ALTER DATABASE {name} RENAME TO {name}_lost")).await;
        self.alone_with(&format!("ALTER DATABASE {name}_copy RENAME TO {name}")).await;
    }

    async fn alone_with(&self, sql: &str) {
        let mut admin = Sql::of(&self.server, "postgres").await;
        let others = format!("FROM pg_stat_activity WHERE datname = '{}'", self.database);
        admin.run(&format!("SELECT pg_terminate_backend(pid) {others}")).await;
        admin.until("the database to be free", &format!("SELECT count(*) {others}"), 0).await;
        admin.run(sql).await;
    }

    /// Asks a node, and expects it to work.
    pub(crate) async fn post(&self, node: usize, path: &str, body: Value) -> Value {
        self.caller().post(node, path, body).await
    }

    /// Reads from a node: status and answer.
    pub(crate) async fn get(&self, node: usize, path: &str) -> (u16, Value) {
        self.caller().get(node, path).await
    }

    /// Sends a text of so many words: the turn.
    pub(crate) async fn turn(&self, node: usize, session: &str, words: usize) -> String {
        let answer = self.caller().send(node, session, &rejoin::ids::fresh(), &"word ".repeat(words)).await;
        answer["turn_id"].as_str().expect("a turn").to_owned()
    }

    /// Waits for an instant: only for pauses that are themselves the case.
    pub(crate) async fn pause_until(&self, moment: Instant) {
        sleep_until(moment).await;
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in 0..self.nodes.len() {
                let log = self.log(node);
                let lines: Vec<&str> = log.lines().collect();
                println!("-- {}", self.nodes[node].name);
                for line in &lines[lines.len().saturating_sub(40)..] {
                    println!("{line}");
                }
            }
        }
    }
}

/// Asks nodes over HTTP. A node that is started again is found where it was.
#[derive(Clone)]
pub(crate) struct Caller {
    http: reqwest::Client,
    nodes: Vec<String>,
}

impl Caller {
    /// Asks a node for something that is no session's: status and answer.
    pub(crate) async fn post_to(&self, node: usize, path: &str, body: Value) -> (u16, Value) {
        let request = self.http.post(format!("{}{path}", self.nodes[node])).header("content-type", "application/json");
        let response = request.body(body.to_string()).send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// Deletes at a node: status and answer.
    pub(crate) async fn delete(&self, node: usize, path: &str) -> (u16, Value) {
        let response = self.http.delete(format!("{}{path}", self.nodes[node])).send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// Asks a node: status and answer, or `None` if it is not there.
    pub(crate) async fn try_post(&self, node: usize, path: &str, body: Value) -> Option<(u16, Value)> {
        // The same person each time: a send under an id is its author's.
        let url = format!("{}/api/sessions/{path}?user_id=ada&name=Ada", self.nodes[node]);
        let request = self.http.post(url).header("content-type", "application/json").body(body.to_string());
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let text = response.text().await.ok()?;
        Some((status, serde_json::from_str(&text).unwrap_or_else(|_| json!(text))))
    }

    /// Asks a node, and expects it to work.
    pub(crate) async fn post(&self, node: usize, path: &str, body: Value) -> Value {
        let (status, answer) = self.try_post(node, path, body).await.expect("the node answers");
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    /// Reads from a node: status and answer.
    pub(crate) async fn get(&self, node: usize, path: &str) -> (u16, Value) {
        let response = self.http.get(format!("{}{path}", self.nodes[node])).send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// Sends a text under an id to a node, or to the ones after it, until it is taken: the answer.
    pub(crate) async fn send(&self, node: usize, session: &str, id: &str, text: &str) -> Value {
        let body = json!({ "id": id, "text": text });
        let path = format!("{session}/messages");
        for attempt in 0..500 {
            match self.try_post((node + attempt / 5) % self.nodes.len(), &path, body.clone()).await {
                Some((202, answer)) => return answer,
                Some((503, _)) | None => sleep(Duration::from_millis(20)).await,
                Some((status, answer)) => panic!("{status} {answer}"),
            }
        }
        panic!("nobody takes a message");
    }
}

/// A connection of the superuser to a cluster's database.
pub(crate) struct Sql(PgConnection);

impl Sql {
    /// One to a database of a server.
    pub(crate) async fn of(server: &postgres::Server, database: &str) -> Self {
        Self(server.admin(database).await)
    }

    /// Runs statements.
    pub(crate) async fn run(&mut self, sql: &str) {
        postgres::run(&mut self.0, sql).await;
    }

    /// The number that a query finds.
    pub(crate) async fn number(&mut self, sql: impl Into<String>) -> i64 {
        let sql = sql.into();
        let row = sqlx::query(AssertSqlSafe(sql.clone())).fetch_one(&mut self.0).await;
        row.unwrap_or_else(|error| panic!("{sql}: {error}")).get(0)
    }

    /// The texts that a query finds.
    pub(crate) async fn texts(&mut self, sql: impl Into<String>) -> Vec<String> {
        let sql = sql.into();
        let rows = sqlx::query(AssertSqlSafe(sql.clone())).fetch_all(&mut self.0).await;
        rows.unwrap_or_else(|error| panic!("{sql}: {error}")).iter().map(|row| row.get(0)).collect()
    }

    /// Waits until a query finds this number.
    pub(crate) async fn until(&mut self, what: &str, sql: &str, wanted: i64) {
        let limit = Instant::now() + Duration::from_secs(40);
        loop {
            let found = self.number(sql).await;
            if found == wanted {
                return;
            }
            assert!(Instant::now() < limit, "{what}: {found} instead of {wanted}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// How a turn stands: its status, and its reason if it has one.
    pub(crate) async fn status(&mut self, turn: &str) -> String {
        let sql =
            format!("SELECT status || coalesce(' ' || (row::json ->> 'reason'), '') FROM turns WHERE id = '{turn}'");
        self.texts(sql).await.pop().unwrap_or_default()
    }
}

fn port_of(nats: &NatsServer) -> u16 {
    nats.url().rsplit(':').next().and_then(|port| port.parse().ok()).expect("an address with a port")
}
