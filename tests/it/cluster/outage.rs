//! A store that goes away for a while.

use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

use crate::support::{
    fleet::{Fleet, Plan},
    recorder::Recorder,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_4_o1_an_outage_of_the_store_for_everybody_cancels_nothing() {
    let plan = Plan { ttl: Duration::from_secs(2), renew: Duration::from_millis(400), ..Plan::short(3) };
    let cluster = Fleet::start(plan).await;
    let mut sql = cluster.sql().await;
    let mut recorders = Vec::new();
    let mut turns = Vec::new();
    for node in 0..3 {
        let session = format!("s{node}");
        let ada = Recorder::start(&cluster, &[(node + 1) % 3, (node + 2) % 3], &session, "ada").await;
        turns.push(cluster.turn(node, &session, 4_000).await);
        recorders.push(ada);
    }
    for (outage, silent) in [(cluster.plan.ttl / 2, false), (2 * cluster.plan.ttl, false), (2 * cluster.plan.ttl, true)]
    {
        for (ada, turn) in recorders.iter().zip(&turns) {
            let more = ada.now().answer(turn).len();
            ada.words(turn, more).await;
        }
        let set = |lost: bool| {
            for (node, place) in cluster.nodes.iter().enumerate() {
                if silent { place.store.go_silent(lost) } else { cluster.lose_store(node, lost) }
            }
        };
        set(true);
        cluster.pause_until(Instant::now() + outage).await;
        set(false);
    }
    for (ada, turn) in recorders.iter().zip(&turns) {
        let more = ada.now().answer(turn).len();
        ada.words(turn, more).await;
        cluster.post(0, &format!("{}/turns/{turn}/cancel", ada.session), json!({})).await;
        assert_eq!(ada.end(turn).await, "cancelled user", "it ran until then");
    }
    assert_eq!(sql.number("SELECT count(*) FROM nodes WHERE state <> 'live'").await, 0, "nobody was judged");
    cluster.check(&recorders.iter().collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_4_a_node_that_starts_when_the_store_is_back_judges_nobody_for_a_lease() {
    let plan = Plan { ttl: Duration::from_secs(3), renew: Duration::from_millis(500), ..Plan::short(3) };
    let mut cluster = Fleet::start(plan).await;
    let mut sql = cluster.sql().await;
    cluster.kill(2).await;
    let ada = Recorder::start(&cluster, &[1], "s", "ada").await;
    let turn = cluster.turn(0, "s", 2_000).await;
    ada.words(&turn, 20).await;
    let dead = sql.number("SELECT count(*) FROM nodes WHERE state = 'dead'").await;
    sql.until("the killed node to be judged", "SELECT count(*) FROM nodes WHERE state = 'dead'", dead.max(1)).await;
    for node in [0, 1] {
        cluster.lose_store(node, true);
    }
    cluster.pause_until(Instant::now() + 2 * cluster.plan.ttl).await;
    cluster.launch(2).await;
    let started = Instant::now();
    cluster.pause_until(started + cluster.plan.ttl / 2).await;
    let verdicts = "SELECT count(*) FROM nodes WHERE state = 'dead'";
    assert_eq!((sql.number(verdicts).await, sql.status(&turn).await.as_str()), (1, "running"));
    for node in [0, 1] {
        cluster.lose_store(node, false);
    }
    let more = ada.now().answer(&turn).len();
    ada.words(&turn, more).await;
    cluster.post(2, &format!("s/turns/{turn}/cancel"), json!({})).await;
    assert_eq!(ada.end(&turn).await, "cancelled user");
    assert_eq!(sql.number(verdicts).await, 1, "nobody else was judged");
    cluster.check(&[&ada]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_4_a_slow_store_slows_and_cancels_nothing() {
    let plan = Plan { ttl: Duration::from_secs(3), renew: Duration::from_millis(500), ..Plan::short(3) };
    let cluster = Fleet::start(plan).await;
    let mut sql = cluster.sql().await;
    let ada = Recorder::start(&cluster, &[1], "s", "ada").await;
    let turn = cluster.turn(0, "s", 400).await;
    for node in &cluster.nodes {
        node.store.delay(Duration::from_millis(60));
        node.bus.delay(Duration::from_millis(100));
    }
    cluster.clients(1).delay(Duration::from_millis(50));
    assert_eq!(ada.end(&turn).await, "completed");
    assert_eq!(sql.number("SELECT count(*) FROM nodes WHERE state <> 'live'").await, 0, "nobody was judged");
    cluster.check(&[&ada]).await;
}
