//! What people ask for, from any node, in any race.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::{
    chance::Chance,
    fleet::{Caller, Fleet, Plan},
    recorder::Recorder,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_6_cancel_and_retry_work_from_any_node() {
    let mut cluster = Fleet::start(Plan::patient(3)).await;
    let ada = Recorder::start(&cluster, &[2], "s", "ada").await;
    for (owner, other) in [(0, 1), (1, 2), (2, 0), (1, 1)] {
        let turn = cluster.turn(owner, "s", 2_000).await;
        ada.words(&turn, 15).await;
        let begun = Instant::now();
        let answer = cluster.post(other, &format!("s/turns/{turn}/cancel"), json!({})).await;
        assert_eq!(answer, json!({ "outcome": "cancelled", "status": "cancelled", "reason": "user" }));
        assert!(begun.elapsed() < Duration::from_secs(3), "the bus tells the owner: {:?}", begun.elapsed());
        assert_eq!(ada.end(&turn).await, "cancelled user");
        let again = cluster.post(other, &format!("s/turns/{turn}/retry"), json!({})).await;
        assert_eq!((&again["attempt"], &again["duplicate"]), (&json!(2), &json!(false)));
        let same = cluster.post(owner, &format!("s/turns/{turn}/retry"), json!({})).await;
        assert_eq!((&same["turn_id"], &same["duplicate"]), (&again["turn_id"], &json!(true)));
        let again = again["turn_id"].as_str().unwrap();
        cluster.post((other + 1) % 3, &format!("s/turns/{again}/cancel"), json!({})).await;
        assert_eq!(ada.end(again).await, "cancelled user");
    }
    // The owner is dead, and its lease is not over yet.
    let turn = cluster.turn(0, "s", 2_000).await;
    ada.words(&turn, 15).await;
    cluster.kill(0).await;
    let begun = Instant::now();
    let answer = cluster.post(1, &format!("s/turns/{turn}/cancel"), json!({})).await;
    let took = begun.elapsed();
    println!("the cancel of a dead owner's turn was answered after {took:?}");
    assert_eq!(answer, json!({ "outcome": "cancelled", "status": "cancelled", "reason": "user" }));
    assert!(took < Duration::from_millis(7_500), "{took:?}");
    cluster.check(&[&ada]).await;
}

/// Turns that are raced for in all, and at the same time.
const RACES: usize = 1_000;
const AT_ONCE: usize = 8;

/// One turn that ends by itself, by a person, or with its owner, whichever comes first; what the cancel was answered.
async fn race(caller: &Caller, session: String, chance: &mut Chance) -> (String, Value) {
    let id = rejoin::ids::fresh();
    let owner = usize::try_from(chance.below(3)).unwrap();
    let sent = caller.send(owner, &session, &id, "one two three four").await;
    let turn = sent["turn_id"].as_str().unwrap().to_owned();
    sleep(Duration::from_millis(chance.below(110))).await;
    let path = format!("{session}/turns/{turn}/cancel");
    let node = usize::try_from(chance.below(3)).unwrap();
    (turn, caller.post(node, &path, json!({})).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_6_i9_complete_cancel_and_recover_race_and_every_answer_names_what_happened() {
    let mut chance = Chance::new("complete, cancel, recover");
    let cluster = Fleet::start(Plan::short(3).direct().echo("10ms")).await;
    let (caller, mut sql) = (cluster.caller(), cluster.sql().await);
    let ada = Recorder::start(&cluster, &[2], "s0", "ada").await;
    let (begun, mut raced) = (Instant::now(), 0);
    let mut found = std::collections::BTreeMap::<String, usize>::new();
    while raced < RACES {
        let mut draws: Vec<Chance> = (0..AT_ONCE).map(|_| chance.fork()).collect();
        let races = draws.iter_mut().enumerate().map(|(number, draw)| race(&caller, format!("s{number}"), draw));
        let (judged, moment) = (chance.below(9), Duration::from_millis(chance.below(140)));
        let judge = async {
            sleep(moment).await;
            if judged < 3 {
                sql.run(&format!("UPDATE nodes SET state = 'dead' WHERE name = 'n{judged}' AND state = 'live'")).await;
            }
        };
        let (ends, ()) = tokio::join!(join_all(races), judge);
        raced += ends.len();
        for (turn, answer) in ends {
            let text = |field: &str| answer[field].as_str().unwrap_or_default();
            let (outcome, status) = (text("outcome"), format!("{} {}", text("status"), text("reason")));
            assert_eq!(sql.status(&turn).await, status.trim(), "{answer}");
            match status.trim() {
                "cancelled user" => assert_eq!(outcome, "cancelled", "{answer}"),
                "completed" => assert_eq!(outcome, "already_ended", "{answer}"),
                "cancelled owner_gone" => {}
                other => panic!("{other}"),
            }
            *found.entry(format!("{outcome}: {}", status.trim())).or_default() += 1;
        }
    }
    println!("{raced} races in {:?}: {found:?}", begun.elapsed());
    assert!(found.len() >= 3, "not a race: {found:?}");
    cluster.check(&[&ada]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_7_i16_the_same_id_at_three_nodes_at_once_is_one_message_and_one_turn() {
    let mut chance = Chance::new("one id at three nodes");
    let cluster = Fleet::start(Plan::patient(3).echo("0ms")).await;
    let (caller, mut sql) = (cluster.caller(), cluster.sql().await);
    let ada = Recorder::start(&cluster, &[0], "s", "ada").await;
    for round in 0..60_usize {
        let id = format!("m{round}");
        // With the session made by the first of them, too.
        let session = if round.is_multiple_of(3) { format!("new-{round}") } else { "s".to_owned() };
        let pauses: Vec<_> = (0..3).map(|_| chance.pause(3_000)).collect();
        let sends = pauses.into_iter().enumerate().map(|(node, pause)| {
            let (caller, session, id) = (&caller, &session, &id);
            async move {
                pause.await;
                caller.send(node, session, id, "the same").await
            }
        });
        let answers = join_all(sends).await;
        let first: Vec<_> = answers.iter().filter(|answer| answer["duplicate"] == false).collect();
        assert_eq!(first.len(), 1, "{answers:?}");
        for answer in &answers {
            for field in ["message_id", "turn_id", "seq"] {
                assert_eq!(answer[field], first[0][field], "{answers:?}");
            }
        }
        let path = format!("{session}/messages");
        let (status, other) = caller.try_post(round % 3, &path, json!({ "id": id, "text": "other" })).await.unwrap();
        assert_eq!((status, &other["code"]), (409, &json!("conflict")));
    }
    assert_eq!(sql.number("SELECT count(*) FROM turns").await, 60);
    assert_eq!(sql.number("SELECT count(*) FROM events WHERE kind = 'message_added'").await, 60);
    cluster.check(&[&ada]).await;
}
