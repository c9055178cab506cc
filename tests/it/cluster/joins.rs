//! Joins in great numbers: they end turns of the dead, once, and no others.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::{
    chance::Chance,
    fleet::{Fleet, Plan},
    recorder::Recorder,
    ws::TestClient,
};

const SESSIONS: usize = 5;
const CONNECTIONS: usize = 20;
const ROUNDS: usize = 100;

/// Joins each session so often over one connection, and leaves; how many joins were answered.
async fn knock(url: String, turns: &[String]) -> usize {
    let mut raw = TestClient::connect(url).await;
    let mut answered = 0;
    for round in 0..ROUNDS {
        for session in 0..SESSIONS {
            let (topic, reference) = (format!("session:s{session}"), format!("{round}-{session}"));
            raw.frame(json!([reference, reference, topic, "phx_join", {}])).await;
        }
        let mut open = SESSIONS;
        while open > 0 {
            let frame = raw.next().await;
            if frame[3] != "phx_reply" || frame[4]["response"]["turns"].is_null() {
                continue;
            }
            let number: usize = frame[2].as_str().unwrap()[9..].parse().unwrap();
            let turn = &frame[4]["response"]["turns"][0];
            assert_eq!((&turn["id"], &turn["status"]), (&json!(turns[number]), &json!("running")), "{frame}");
            assert_eq!(turn["owner"]["liveness"], "alive", "{turn}");
            (open, answered) = (open - 1, answered + 1);
        }
        for session in 0..SESSIONS {
            let reference = format!("{round}-{session}");
            raw.frame(json!([reference, "leave", format!("session:s{session}"), "phx_leave", {}])).await;
        }
    }
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_5_i10_ten_thousand_joins_elsewhere_touch_no_live_turn() {
    let plan = Plan::patient(3).direct().echo("250ms");
    let cluster = Fleet::start(plan).await;
    let mut turns = Vec::new();
    for session in 0..SESSIONS {
        turns.push(cluster.turn(0, &format!("s{session}"), 3_000).await);
    }
    let recorders = join_all(
        (0..SESSIONS).map(async |session| Recorder::start(&cluster, &[1], &format!("s{session}"), "ada").await),
    )
    .await;
    let begun = Instant::now();
    let knocks = (0..CONNECTIONS).map(|number| knock(cluster.ws(1 + number % 2, &format!("u{number}")), &turns));
    let joins: usize = join_all(knocks).await.into_iter().sum();
    println!("{joins} joins in {:?}", begun.elapsed());
    assert_eq!(joins, SESSIONS * CONNECTIONS * ROUNDS);
    for (session, turn) in turns.iter().enumerate() {
        let answer = cluster.post(session % 3, &format!("s{session}/turns/{turn}/cancel"), json!({})).await;
        assert_eq!(answer, json!({ "outcome": "cancelled", "status": "cancelled", "reason": "user" }));
    }
    cluster.check(&recorders.iter().collect::<Vec<_>>()).await;
}

/// Joins until the turn is not shown as running: what is said of it then.
async fn join_until_over(url: String, session: String, turn: String, moment: Duration) -> Value {
    let mut raw = TestClient::connect(url).await;
    sleep(moment).await;
    for reference in (0_u32..).map(|round| round.to_string()) {
        let topic = format!("session:{session}");
        raw.frame(json!([reference, "j", topic, "phx_join", {}])).await;
        let reply = loop {
            let frame = raw.next().await;
            if frame[1] == "j" && frame[0] == reference.as_str() {
                break frame;
            }
        };
        assert_eq!(reply[4]["status"], "ok", "{reply}");
        if reply[4]["response"]["turns"] == json!([]) {
            let ended = reply[4]["response"]["replay"]["ended"].as_array().unwrap();
            return ended.iter().find(|ended| ended["id"] == *turn).expect("it is shown how it ended").clone();
        }
    }
    unreachable!("a turn that never ends meets the limit of its test")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_5_i11_a_hundred_joins_and_two_sweepers_end_an_orphan_once() {
    let mut chance = Chance::new("joins on an orphan");
    let plan = Plan::short(3);
    let cluster = Fleet::start(plan).await;
    let mut sql = cluster.sql().await;
    let mut recorders = Vec::new();
    for round in 0..6 {
        let session = format!("s{round}");
        let ada = Recorder::start(&cluster, &[1], &session, "ada").await;
        let turn = cluster.turn(0, &session, 3_000).await;
        ada.words(&turn, 20).await;
        let joins: Vec<_> = (0..100)
            .map(|number| {
                let url = cluster.ws(1 + number % 2, &format!("u{number}"));
                let moment = Duration::from_millis(chance.below(400));
                tokio::spawn(join_until_over(url, session.clone(), turn.clone(), moment))
            })
            .collect();
        sleep(Duration::from_millis(chance.below(300))).await;
        // Its owner is declared dead while they come.
        sql.run("UPDATE nodes SET state = 'dead' WHERE name = 'n0' AND state = 'live'").await;
        for join in join_all(joins).await {
            let ended = join.unwrap();
            assert_eq!((&ended["status"], &ended["reason"]), (&json!("cancelled"), &json!("owner_gone")), "{ended}");
        }
        assert_eq!(ada.end(&turn).await, "cancelled owner_gone");
        recorders.push(ada);
        sql.until("a new life", "SELECT count(*) FROM nodes WHERE name = 'n0' AND state = 'live'", 1).await;
    }
    cluster.check(&recorders.iter().collect::<Vec<_>>()).await;
}
