//! Clocks that lie: an hour ahead, an hour behind, and jumping between the two.

use std::{fs, time::Duration};

use tokio::time::Instant;

use crate::support::{
    fleet::{Fleet, Plan},
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_11_i4_clocks_an_hour_off_and_jumping_decide_nothing() {
    let plan = Plan { ttl: Duration::from_secs(2), renew: Duration::from_millis(400), ..Plan::short(3) };
    let mut cluster = Fleet::prepare(plan).await;
    let (library, folder) = (library(), tempfile::TempDir::new().unwrap());
    let clock = |node: usize| folder.path().join(format!("clock-{node}"));
    let set = |node: usize, offset: &str| {
        let (new, at) = (folder.path().join("new"), clock(node));
        fs::write(&new, offset).unwrap();
        fs::rename(new, at).unwrap();
    };
    for (node, offset) in ["+3600", "-3600", "+0"].into_iter().enumerate() {
        set(node, offset);
        let file = clock(node).display().to_string();
        let variables = [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME_TIMESTAMP_FILE", &file),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ];
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
            set(node, offset);
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
