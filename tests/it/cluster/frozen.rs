//! Owners that stand still, and owners that are cut off on one of their edges.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::support::{
    chance::Chance,
    fleet::{Fleet, Plan, Sql},
    oracle::soon,
    recorder::Recorder,
};

/// The incarnation that a node has now.
async fn incarnation(sql: &mut Sql, node: &str) -> String {
    let own =
        format!("SELECT incarnation FROM nodes WHERE name = '{node}' AND state = 'live' ORDER BY started_at DESC");
    sql.texts(own).await.into_iter().next().unwrap_or_default()
}

/// Waits until a node lives under another incarnation than this.
async fn reborn(sql: &mut Sql, node: &str, before: &str) -> String {
    soon("a new incarnation", Duration::from_secs(15), async || {
        let now = incarnation(sql, node).await;
        (!now.is_empty() && now != before).then_some(now)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_2_i3_i7_a_frozen_owner_loses_its_turn_after_its_lease_and_writes_nothing_more() {
    let mut chance = Chance::new("owner frozen");
    let plan = Plan { ttl: Duration::from_secs(2), renew: Duration::from_millis(400), ..Plan::short(3) };
    let cluster = Fleet::start(plan).await;
    let mut sql = cluster.sql().await;
    let mut recorders = Vec::new();
    for round in 0..4 {
        let session = format!("s{round}");
        let ada = Recorder::start(&cluster, &[1], &session, "ada").await;
        let before = incarnation(&mut sql, "n0").await;
        let turn = cluster.turn(0, &session, 2_000).await;
        ada.words(&turn, usize::try_from(chance.below(60)).unwrap()).await;
        // Half a lease: nothing happens.
        cluster.signal(0, "STOP").await;
        cluster.pause_until(Instant::now() + cluster.plan.ttl / 2).await;
        cluster.signal(0, "CONT").await;
        let said = ada.now().answer(&turn).len();
        ada.words(&turn, said).await;
        assert_eq!(sql.status(&turn).await, "running");
        assert_eq!(incarnation(&mut sql, "n0").await, before, "it is who it was");
        // Three leases: the turn is not its own any more.
        cluster.signal(0, "STOP").await;
        let stopped = Instant::now();
        assert_eq!(ada.end(&turn).await, "cancelled owner_gone");
        let head = sql.number(format!("SELECT last_seq FROM sessions WHERE id = '{session}'")).await;
        cluster.pause_until(stopped + 3 * cluster.plan.ttl).await;
        cluster.signal(0, "CONT").await;
        let now = reborn(&mut sql, "n0", &before).await;
        let next = cluster.turn(0, &session, 3).await;
        assert_eq!(ada.end(&next).await, "completed");
        let owner = |event: &serde_json::Value| event["data"]["turn"]["owner"]["incarnation"].clone();
        let record = ada.now();
        let started = record.events.iter().find(|seen| seen.is(&next, "turn_started")).unwrap();
        assert_eq!(owner(&started.event), json!(now), "it takes new turns under its new name");
        let late = format!(
            "SELECT count(*) FROM events e JOIN sessions s ON s.key = e.session_key
             WHERE s.id = '{session}' AND e.turn_id = '{turn}' AND e.seq > {head}"
        );
        assert_eq!(sql.number(late).await, 0, "zombie writes accepted");
        recorders.push(ada);
    }
    cluster.check(&recorders.iter().collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_3_an_owner_cut_from_the_store_loses_its_turn_and_comes_back_as_another() {
    let cluster = Fleet::start(Plan::short(3)).await;
    let mut sql = cluster.sql().await;
    let mut recorders = Vec::new();
    for half_open in [false, true] {
        let session = format!("half-open-{half_open}");
        let ada = Recorder::start(&cluster, &[1], &session, "ada").await;
        let before = incarnation(&mut sql, "n0").await;
        let turn = cluster.turn(0, &session, 2_000).await;
        ada.words(&turn, 20).await;
        let cut = |cut| if half_open { cluster.nodes[0].store.go_silent(cut) } else { cluster.lose_store(0, cut) };
        cut(true);
        assert_eq!(ada.end(&turn).await, "cancelled owner_gone");
        let kept = ada.now().answer(&turn);
        cut(false);
        reborn(&mut sql, "n0", &before).await;
        let next = cluster.turn(0, &session, 3).await;
        assert_eq!(ada.end(&next).await, "completed");
        assert_eq!(ada.now().answer(&turn), kept, "nothing of it comes late");
        recorders.push(ada);
    }
    cluster.check(&recorders.iter().collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_3_i10_an_owner_cut_from_the_bus_or_from_its_clients_keeps_its_turn() {
    let cluster = Fleet::start(Plan::patient(3)).await;
    let mut sql = cluster.sql().await;
    let ada = Recorder::start(&cluster, &[1], "s", "ada").await;
    let ben = Recorder::start(&cluster, &[0, 2], "s", "ben").await;
    let turn = cluster.turn(0, "s", 4_000).await;
    ada.words(&turn, 20).await;
    cluster.lose_bus(0, true);
    // What it says meanwhile is found in the log, by comparing heads.
    let head = "SELECT last_seq FROM sessions WHERE id = 's'";
    let mut latest = Duration::ZERO;
    for _ in 0..3 {
        let (written, at) = (u64::try_from(sql.number(head).await).unwrap(), Instant::now());
        ada.until("what was written", |record| record.view.last_seq >= written).await;
        latest = latest.max(at.elapsed());
        let more = ada.now().answer(&turn).len();
        ada.words(&turn, more).await;
    }
    println!("without the bus, events were seen elsewhere after at most {latest:?}");
    assert!(latest < Duration::from_millis(2_000 + 1_500), "{latest:?}");
    cluster.lose_bus(0, false);
    let clients = cluster.clients(0);
    clients.refuse(true);
    clients.cut();
    ben.until("another node", |record| record.joins.len() > 1 && record.is_joined).await;
    let more = ada.now().answer(&turn).len();
    ada.words(&turn, more + 50).await;
    clients.refuse(false);
    assert_eq!(sql.number("SELECT count(*) FROM nodes WHERE state <> 'live'").await, 0, "nobody was judged");
    cluster.post(2, &format!("s/turns/{turn}/cancel"), json!({})).await;
    assert_eq!(ada.end(&turn).await, "cancelled user", "it ran until then");
    cluster.check(&[&ada, &ben]).await;
}
