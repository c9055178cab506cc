//! Clocks that lie: an hour ahead, an hour behind, and jumping between the two.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::support::{
    fleet::{Fleet, Plan},
    postgres::Server,
    recorder::Recorder,
};

/// Where Debian keeps the library that fakes clocks.
const FOLDER: &str = "/usr/lib";

/// The library for threads, which every process of a test is started with.
fn library() -> String {
    let folders =
        fs::read_dir(FOLDER).unwrap().map(|folder| folder.unwrap().path().join("faketime/libfaketimeMT.so.1"));
    let found = folders.into_iter().find(|path| path.exists());
    found.expect("install faketime: tests/run does").display().to_string()
}

/// Clocks that lie, each as far as its file says.
struct Clocks {
    folder: tempfile::TempDir,
}

impl Clocks {
    fn new() -> Self {
        let folder = tempfile::TempDir::new().unwrap();
        // Whoever runs a database may be somebody else.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    fn file(&self, clock: usize) -> PathBuf {
        self.folder.path().join(format!("clock-{clock}"))
    }

    fn set(&self, clock: usize, offset: &str) {
        let new = self.folder.path().join("new");
        fs::write(&new, offset).unwrap();
        fs::rename(new, self.file(clock)).unwrap();
    }

    /// What a process is started with that has this clock.
    fn variables(&self, clock: usize) -> [(&'static str, String); 5] {
        [
            ("LD_PRELOAD", library()),
            ("FAKETIME_TIMESTAMP_FILE", self.file(clock).display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_11_i4_clocks_an_hour_off_and_jumping_decide_nothing() {
    let plan = Plan { ttl: Duration::from_secs(2), renew: Duration::from_millis(400), ..Plan::short(3) };
    let mut cluster = Fleet::prepare(plan).await;
    let clocks = Clocks::new();
    for (node, offset) in ["+3600", "-3600", "+0"].into_iter().enumerate() {
        clocks.set(node, offset);
        let variables = clocks.variables(node);
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        cluster.launch_as(node, &[], &variables).await;
    }
    cluster.audit().await;
    let mut sql = cluster.sql().await;
    let off = "SELECT count(*) FROM nodes WHERE abs(started_at / 1000 - extract(epoch FROM now())) > 3000";
    assert_eq!(sql.number(off).await, 2, "two of the clocks lie");
    let (mut recorders, mut turns) = (Vec::new(), Vec::new());
    for node in 0..3 {
        let session = format!("s{node}");
        recorders.push(Recorder::start(&cluster, &[1], &session, "ada").await);
        turns.push(cluster.turn(node, &session, 3_000).await);
    }
    for offsets in [["-3600", "+3600", "+0"], ["+3600", "+3600", "-3600"], ["-3600", "+0", "+3600"]] {
        for (node, offset) in offsets.into_iter().enumerate() {
            clocks.set(node, offset);
        }
        cluster.pause_until(Instant::now() + cluster.plan.ttl + 2 * cluster.plan.renew).await;
        for (recorder, turn) in recorders.iter().zip(&turns) {
            let more = recorder.now().answer(turn).len();
            recorder.words(turn, more).await;
        }
    }
    assert_eq!(sql.number("SELECT count(*) FROM nodes WHERE state <> 'live'").await, 0, "nobody was judged");
    // And a node that is dead is judged as soon as with true clocks.
    cluster.kill(0).await;
    let at = Instant::now();
    assert_eq!(recorders[0].end(&turns[0]).await, "cancelled owner_gone");
    let took = at.elapsed();
    println!("kill to terminal event with clocks an hour off: {took:?}");
    assert!(took < cluster.plan.liveness() + Duration::from_secs(3), "{took:?}");
    for (node, turn) in turns.iter().enumerate().skip(1) {
        cluster.post(1, &format!("s{node}/turns/{turn}/cancel"), serde_json::json!({})).await;
    }
    cluster.check(&recorders.iter().collect::<Vec<_>>()).await;
}

/// Everybody's clock is some hours ahead: what fakes a clock shows the true time to handlers of signals, and a timeout
/// of Postgres must not take that for its end.
const AHEAD: &str = "+7200";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_11_i4_the_stores_clock_an_hour_off_and_jumping_decides_nothing() {
    let clocks = Clocks::new();
    let (nodes, store) = (0, 1);
    clocks.set(nodes, AHEAD);
    clocks.set(store, AHEAD);
    let variables = clocks.variables(store).map(|(name, value)| format!("{name}={value}"));
    let server = tokio::task::spawn_blocking(move || Server::start_with(&[], &variables)).await.unwrap();
    let plan = Plan { ttl: Duration::from_secs(2), renew: Duration::from_millis(400), ..Plan::short(3) };
    let mut cluster = Fleet::prepare_on(Arc::new(server), plan).await;
    let variables = clocks.variables(nodes);
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    for node in 0..3 {
        cluster.launch_as(node, &[], &variables).await;
    }
    cluster.audit().await;
    let mut sql = cluster.sql().await;
    let hours =
        "SELECT round((extract(epoch FROM clock_timestamp()) - max(started_at) / 1000) / 3600)::bigint FROM nodes";
    let ada = Recorder::start(&cluster, &[1], "s", "ada").await;
    let turn = cluster.turn(0, "s", 3_000).await;
    for (offset, off) in [("+10800", 1), ("+3600", -1), ("+10800", 1), (AHEAD, 0)] {
        clocks.set(store, offset);
        assert_eq!(sql.number(hours).await, off, "the clock of the store lies");
        cluster.pause_until(Instant::now() + cluster.plan.ttl + 2 * cluster.plan.renew).await;
        let more = ada.now().answer(&turn).len();
        ada.words(&turn, more).await;
    }
    assert_eq!(sql.number("SELECT count(*) FROM nodes WHERE state <> 'live'").await, 0, "nobody was judged");
    clocks.set(store, "+3600");
    cluster.kill(0).await;
    let at = Instant::now();
    assert_eq!(ada.end(&turn).await, "cancelled owner_gone");
    let took = at.elapsed();
    assert!(took < cluster.plan.liveness() + Duration::from_secs(3), "{took:?}");
    cluster.check(&[&ada]).await;
}
