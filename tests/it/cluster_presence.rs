//! Presence on several nodes: real processes on one Postgres, with each bus that they can have.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::{
    nats::NatsServer,
    postgres::{self, OWNER},
    presence::{Here, read, reference},
    process::Process,
    tcp_proxy::TcpProxy,
    ws::{TestClient, within},
};

/// Long enough for a machine that is busy with other tests to renew in time.
const SHORT: [&str; 4] = ["--lease-ttl", "900ms", "--lease-renew", "300ms"];
/// Nobody is judged dead within a test.
const LONG: [&str; 4] = ["--lease-ttl", "60s", "--lease-renew", "300ms"];

/// What carries messages between nodes: it can go away without the store.
enum Bus {
    /// The store's own server, over a way that can be cut.
    Postgres(TcpProxy),
    Nats(NatsServer),
}

impl Bus {
    async fn postgres() -> Self {
        Self::Postgres(TcpProxy::start(postgres::server().port()).await)
    }

    fn nats() -> Self {
        Self::Nats(NatsServer::start())
    }

    fn args(&self, database: &str) -> Vec<String> {
        match self {
            Self::Postgres(proxy) => {
                let url = postgres::server().tcp_url(proxy.port(), database);
                ["--bus", "postgres", "--bus-url", &url].map(str::to_owned).into()
            }
            Self::Nats(server) => vec!["--bus".to_owned(), server.url()],
        }
    }

    fn kill(&mut self) {
        match self {
            Self::Postgres(proxy) => {
                proxy.refuse(true);
                proxy.cut();
            }
            Self::Nats(server) => server.kill(),
        }
    }

    fn start_again(&mut self) {
        match self {
            Self::Postgres(proxy) => proxy.refuse(false),
            Self::Nats(server) => server.start_again(),
        }
    }
}

/// A store and a bus, for any number of nodes.
struct Cluster {
    database: String,
    bus: Bus,
    lease: [&'static str; 4],
    folder: TempDir,
}

impl Cluster {
    async fn new(bus: Bus, lease: [&'static str; 4]) -> Self {
        let database = Box::pin(postgres::server().database()).await;
        Self { database, bus, lease, folder: TempDir::new().unwrap() }
    }

    async fn node(&self, name: &str) -> Process {
        let bus = self.bus.args(&self.database);
        let database = postgres::server().url(OWNER, &self.database);
        let mut args = vec!["--database-url", &database, "--node-name", name, "--drain-timeout", "1s"];
        args.extend(self.lease);
        args.extend(bus.iter().map(String::as_str));
        Process::start(self.folder.path(), &args).await
    }
}

/// A client in a room that follows who is there, and all that it was told of it.
struct Guest {
    client: TestClient,
    here: Here,
    told: Vec<Value>,
}

impl Guest {
    /// Joins and takes the state in, which is the first that it is told.
    async fn join(node: &Process, user: &str, room: &str) -> Self {
        let mut client = TestClient::connect(&node.ws(user)).await;
        client.frame(json!(["1", "1", format!("room:{room}"), "phx_join", {}])).await;
        assert_eq!(client.next().await[4]["status"], "ok");
        let mut guest = Self { client, here: Here::default(), told: Vec::new() };
        guest.step().await;
        assert_eq!(guest.told[0][3], "presence_state", "{:?}", guest.told);
        guest
    }

    async fn step(&mut self) {
        let frame = self.client.next().await;
        self.here.take(&frame);
        self.told.push(frame);
    }

    async fn until(&mut self, what: &str, ready: impl Fn(&Here) -> bool) {
        within(what, async {
            while !ready(&self.here) {
                self.step().await;
            }
        })
        .await;
    }

    async fn sees(&mut self, keys: &[&str]) {
        self.until(&format!("{keys:?}"), |here| here.keys() == keys).await;
    }

    /// Shows `fields` of its own.
    async fn show(&mut self, fields: Value) {
        self.client.frame(json!(["1", "9", "room:r", "presence", fields])).await;
    }

    /// Whether it was ever told that `key` left.
    fn saw_leave(&self, key: &str) -> bool {
        self.told.iter().any(|frame| frame[4]["leaves"].get(key).is_some())
    }
}

async fn everybody_sees_everybody(bus: Bus) {
    let cluster = Cluster::new(bus, LONG).await;
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let mut ada = Guest::join(&a, "ada", "r").await;
    let mut ben = Guest::join(&b, "ben", "r").await;
    ada.sees(&["ada", "ben"]).await;
    ben.sees(&["ada", "ben"]).await;
    assert_eq!(ada.here.list(), ben.here.list(), "the same metas, with the same references");
    assert_eq!((&ada.here.metas("ben")[0]["node"], &ada.here.metas("ada")[0]["node"]), (&"b".into(), &"a".into()));
    // An update is one diff there too.
    let before = reference(ada.here.metas("ben")[0]).to_owned();
    ben.show(json!({ "typing": true })).await;
    let typing = |here: &Here| here.metas("ben").iter().any(|meta| meta["typing"] == true);
    ada.until("an update", typing).await;
    let diff = &ada.told.last().unwrap()[4];
    assert_eq!((read(&diff["leaves"])["ben"].keys().next(), ada.here.metas("ben").len()), (Some(&before), 1));
    // A node that has just started shows everybody to the first who joins there.
    let c = cluster.node("c").await;
    let mut cy = Guest::join(&c, "cy", "r").await;
    assert_eq!(cy.here.keys(), ["ada", "ben", "cy"], "the first state");
    assert_eq!(typing(&cy.here).then_some(cy.here.metas("ben")), Some(ada.here.metas("ben")));
    ada.sees(&["ada", "ben", "cy"]).await;
    // Somebody with two tabs on two nodes leaves with the second.
    let tab = Guest::join(&a, "cy", "r").await;
    cy.until("the second tab", |here| here.metas("cy").len() == 2).await;
    drop(tab);
    cy.until("one tab", |here| here.metas("cy").len() == 1).await;
    // A thousand changes end where they should.
    for round in 0..100 {
        ada.show(json!({ "round": round })).await;
        ben.show(json!({ "round": round })).await;
    }
    for guest in [&mut ada, &mut ben, &mut cy] {
        let last = |here: &Here| {
            ["ada", "ben"].iter().all(|key| here.metas(key).len() == 1 && here.metas(key)[0]["round"] == 99)
        };
        guest.until("the last round", last).await;
    }
    drop(ben);
    ada.sees(&["ada", "cy"]).await;
    cy.sees(&["ada", "cy"]).await;
}

#[tokio::test]
async fn k107_everybody_sees_everybody_over_postgres() {
    Box::pin(everybody_sees_everybody(Bus::postgres().await)).await;
}

#[tokio::test]
async fn k107_everybody_sees_everybody_over_nats() {
    Box::pin(everybody_sees_everybody(Bus::nats())).await;
}

#[tokio::test]
async fn i18_k107_the_members_of_a_killed_node_leave_with_its_tombstone() {
    let cluster = Cluster::new(Bus::nats(), SHORT).await;
    let (a, b, c) = (cluster.node("a").await, cluster.node("b").await, cluster.node("c").await);
    let mut ada = Guest::join(&a, "ada", "r").await;
    let mut cy = Guest::join(&c, "cy", "r").await;
    let _ben = Guest::join(&b, "ben", "r").await;
    ada.sees(&["ada", "ben", "cy"]).await;
    cy.sees(&["ada", "ben", "cy"]).await;
    b.kill().await;
    let killed = Instant::now();
    ada.sees(&["ada", "cy"]).await;
    // Its last renewal may have been one before the kill.
    assert!(killed.elapsed() > Duration::from_millis(400), "by its tombstone, not by silence: {:?}", killed.elapsed());
    cy.sees(&["ada", "cy"]).await;
    // The same name again is another node.
    let b = cluster.node("b").await;
    let ben = Guest::join(&b, "ben", "r").await;
    assert_eq!(ben.here.keys(), ["ada", "ben", "cy"]);
    ada.until("one ben", |here| here.metas("ben").len() == 1).await;
    assert_eq!(ada.here.list(), ben.here.list());
}

#[tokio::test]
async fn k107_the_members_of_a_node_that_ends_leave_at_once() {
    let cluster = Cluster::new(Bus::postgres().await, LONG).await;
    let (a, mut b) = (cluster.node("a").await, cluster.node("b").await);
    let mut ada = Guest::join(&a, "ada", "r").await;
    let _ben = Guest::join(&b, "ben", "r").await;
    ada.sees(&["ada", "ben"]).await;
    b.signal("TERM").await;
    // Far below the lease.
    ada.sees(&["ada"]).await;
    assert!(b.ended().await.success());
}

#[tokio::test]
async fn i18_a_pause_below_the_lease_is_seen_by_nobody() {
    let cluster = Cluster::new(Bus::nats(), LONG).await;
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let mut ada = Guest::join(&a, "ada", "r").await;
    let mut ben = Guest::join(&b, "ben", "r").await;
    ada.sees(&["ada", "ben"]).await;
    b.signal("STOP").await;
    let stopped = Instant::now();
    let mut round = 0;
    // More than two of its beats, and several renewals.
    while stopped.elapsed() < Duration::from_millis(2_500) {
        round += 1;
        ada.show(json!({ "round": round })).await;
        ada.until("a round", |here| here.metas("ada").iter().any(|meta| meta["round"] == round)).await;
    }
    b.signal("CONT").await;
    ben.show(json!({ "back": true })).await;
    ada.until("it goes on", |here| here.metas("ben").iter().any(|meta| meta["back"] == true)).await;
    ben.until("what it missed", |here| here.metas("ada").iter().any(|meta| meta["round"] == round)).await;
    let went = |frame: &&Value| frame[3] == "presence_diff" && frame[4]["joins"].get("ben").is_none();
    assert!(ada.told.iter().filter(went).all(|frame| frame[4]["leaves"].get("ben").is_none()), "{:?}", ada.told);
    assert_eq!(ada.here.list(), ben.here.list());
}

#[tokio::test]
async fn i3_k108_a_node_that_was_judged_comes_back_with_its_members_once() {
    let cluster = Cluster::new(Bus::nats(), SHORT).await;
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let mut ada = Guest::join(&a, "ada", "r").await;
    let mut ben = Guest::join(&b, "ben", "r").await;
    ada.sees(&["ada", "ben"]).await;
    b.signal("STOP").await;
    ada.sees(&["ada"]).await;
    // Nobody who is awake knows of this.
    let mut cy = Guest::join(&a, "cy", "r").await;
    assert_eq!(cy.here.keys(), ["ada", "cy"]);
    b.signal("CONT").await;
    ada.sees(&["ada", "ben", "cy"]).await;
    ben.sees(&["ada", "ben", "cy"]).await;
    assert!(!ben.saw_leave("ben") && !ben.saw_leave("ada"), "{:?}", ben.told);
    cy.sees(&["ada", "ben", "cy"]).await;
    ben.show(json!({ "back": true })).await;
    ada.until("one ben", |here| here.metas("ben").len() == 1 && here.metas("ben")[0]["back"] == true).await;
    ben.until("its own change", |here| here.metas("ben")[0]["back"] == true).await;
    assert_eq!(ada.here.list(), ben.here.list());
}

async fn a_bus_that_restarts_loses_nothing(bus: Bus) {
    let mut cluster = Cluster::new(bus, LONG).await;
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let mut ada = Guest::join(&a, "ada", "r").await;
    let mut ben = Guest::join(&b, "ben", "r").await;
    ada.sees(&["ada", "ben"]).await;
    ben.sees(&["ada", "ben"]).await;
    let leaving = Guest::join(&b, "dan", "r").await;
    ada.sees(&["ada", "ben", "dan"]).await;
    cluster.bus.kill();
    let _cy = Guest::join(&a, "cy", "r").await;
    drop(leaving);
    ben.sees(&["ada", "ben"]).await;
    ada.show(json!({ "alone": true })).await;
    ada.until("cy", |here| here.keys() == ["ada", "ben", "cy", "dan"]).await;
    cluster.bus.start_again();
    ada.sees(&["ada", "ben", "cy"]).await;
    ben.until("all that happened", |here| here.keys() == ["ada", "ben", "cy"] && here.metas("ada")[0]["alone"] == true)
        .await;
    ada.until("its own", |here| here.metas("ada")[0]["alone"] == true).await;
    assert_eq!(ada.here.list(), ben.here.list());
    assert!(!ada.saw_leave("ben") && !ada.saw_leave("cy") && !ben.saw_leave("ben"), "nobody was gone");
}

#[tokio::test]
async fn a_restart_of_the_postgres_bus_loses_nothing() {
    Box::pin(a_bus_that_restarts_loses_nothing(Bus::postgres().await)).await;
}

#[tokio::test]
async fn a_restart_of_the_nats_bus_loses_nothing() {
    Box::pin(a_bus_that_restarts_loses_nothing(Bus::nats())).await;
}

/// How long it takes until somebody elsewhere is told of one who connects and joins, the median of some. A part of it
/// is the time for which the changes of a busy topic are gathered.
async fn median_delay(bus: Bus) -> Duration {
    let cluster = Cluster::new(bus, LONG).await;
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let mut ben = Guest::join(&b, "ben", "r").await;
    let mut delays = Vec::new();
    for _ in 0..15 {
        let began = Instant::now();
        let ada = Guest::join(&a, "ada", "r").await;
        ben.sees(&["ada", "ben"]).await;
        delays.push(began.elapsed());
        drop(ada);
        ben.sees(&["ben"]).await;
    }
    delays.sort();
    delays[delays.len() / 2]
}

#[tokio::test]
async fn a_change_is_told_on_other_nodes_within_a_moment() {
    for bus in [Bus::postgres().await, Bus::nats()] {
        let median = Box::pin(median_delay(bus)).await;
        assert!(median < Duration::from_millis(150), "{median:?}");
    }
}
