//! Who owns a running turn, seen from the outside: tombstones, orphans, lost runners, judged nodes.

use std::time::Duration;

use futures::future::join_all;
use rejoin::config::Config;
use serde_json::{Value, json};

use crate::support::{
    client::SessionClient,
    db::Db,
    script::{Script, ScriptedTurn},
    server::TestServer,
    ws::{TestClient, until, within},
};

/// Leases that are judged within a second.
fn short(config: &mut Config) {
    config.lease_renew = Duration::from_millis(100);
    config.lease_ttl = Duration::from_millis(400);
    config.delta_window = Duration::ZERO;
}

/// No renewal, and so no sweep, while the test runs.
fn slow(config: &mut Config) {
    config.lease_renew = Duration::from_secs(100);
    config.lease_ttl = Duration::from_secs(300);
    config.delta_window = Duration::ZERO;
}

/// A running turn of `session` that has said `text` to everyone.
async fn running(
    server: &TestServer,
    script: &mut Script,
    session: &str,
    text: &str,
) -> (SessionClient, Value, ScriptedTurn) {
    let mut ada = SessionClient::join(&server.ws("ada"), session).await;
    let id = ada.send("Hello?").await["turn_id"].clone();
    let turn = script.turn().await;
    turn.say(text).await;
    ada.until("the first words", |ada| ada.answer_of(&id).as_deref() == Some(text)).await;
    (ada, id, turn)
}

/// The events about the end of a turn.
fn ends<'a>(client: &'a SessionClient, turn_id: &Value) -> Vec<&'a Value> {
    let ends = ["turn_completed", "turn_failed", "turn_cancelled"];
    let is_end = |event: &&Value| &event["turn_id"] == turn_id && ends.iter().any(|end| event["type"] == *end);
    client.events.iter().filter(is_end).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i3_i5_a_node_that_is_declared_dead_drops_its_turns_and_goes_on_as_another() {
    let (server, mut script) = TestServer::start_with(short).await;
    let mut db = Db::open(&server.database()).await;
    let (mut ada, ..) = running(&server, &mut script, "first", "x").await;
    let mut lives = vec![server.server.sessions().owner().incarnation];
    for round in 0..4 {
        let (mut client, id, turn) = running(&server, &mut script, &format!("s{round}"), "half").await;
        let own = lives.last().unwrap().clone();
        assert_eq!(db.run(format!("UPDATE nodes SET state = 'dead' WHERE incarnation = '{own}'")).await, 1);
        turn.dropped().await;
        assert_eq!(client.end_of(&id).await, "cancelled");
        let events = ends(&client, &id);
        assert_eq!((events.len(), &events[0]["data"]["reason"]), (1, &json!("owner_gone")));
        assert_eq!(events[0]["data"]["message"]["parts"][0]["text"], "half");
        let now = server.server.sessions().owner().incarnation;
        assert!(!lives.contains(&now), "a life is never repeated");
        lives.push(now);
        client.send("And now?").await;
        script.turn().await.done().await;
        client.until("the next turn", |client| client.types().contains(&"turn_completed")).await;
    }
    assert_eq!(db.number("SELECT count(*) FROM nodes WHERE state = 'live'").await, 1);
    let revived = format!("SELECT count(*) FROM nodes WHERE incarnation = '{}' AND state <> 'dead'", lives[0]);
    assert_eq!(db.number(revived).await, 0, "a tombstone stays");
    // The connection of the first life is still there, and so is its session.
    ada.send("Still here?").await;
    db.turns_are_sound().await;
    db.gapless().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i10_a_thousand_joins_leave_the_turn_of_a_live_owner_alone() {
    let (server, mut script) = TestServer::start_with(slow).await;
    let (mut ada, id, turn) = running(&server, &mut script, "s", "half").await;
    let mut db = Db::open(&server.database()).await;
    let heads = "SELECT max(e.seq) FROM events e JOIN sessions s ON s.key = e.session_key WHERE s.id = 's'";
    let before = db.number(heads).await;
    join_all((0..100).map(|_| joins(server.ws("ben"), "session:s", 10))).await;
    assert_eq!(db.number(heads).await, before, "nothing was written");
    turn.say(" more").await;
    turn.done().await;
    assert_eq!(ada.end_of(&id).await, "completed");
    assert_eq!(ada.answer_of(&id).as_deref(), Some("half more"));
    server.stop().await;
}

/// Joins a topic again and again over one connection; every reply is ok.
async fn joins(url: String, topic: &str, times: usize) -> Vec<Value> {
    let mut client = TestClient::connect(url).await;
    for n in 0..times {
        client.frame(json!([n.to_string(), format!("j{n}"), topic, "phx_join", {}])).await;
    }
    let mut replies = Vec::new();
    within("the replies to joins", async {
        while replies.len() < times {
            let frame = client.next().await;
            if frame[3] == "phx_reply" && frame[1].as_str().is_some_and(|reference| reference.starts_with('j')) {
                assert_eq!(frame[4]["status"], "ok", "{frame}");
                replies.push(frame[4]["response"].clone());
            }
        }
    })
    .await;
    replies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i10_a_thousand_joins_on_an_orphan_make_one_cancel_and_one_event() {
    let (server, mut script) = TestServer::start_with(slow).await;
    let (_ada, _, turn) = running(&server, &mut script, "s", "half").await;
    let mut db = Db::open(&server.database()).await;
    let orphan = db.graft("s", "orphaned", "0123456789abcdef").await;
    let replies = join_all((0..100).map(|_| joins(server.ws("ben"), "session:orphaned", 10))).await;
    for reply in replies.iter().flatten() {
        assert_eq!(reply["turns"], json!([]), "already ended in every reply");
        assert_eq!(reply["session"]["status"], "idle");
        let ended = &reply["replay"]["ended"][0];
        assert_eq!(
            (&ended["id"], &ended["status"], &ended["reason"]),
            (&json!(orphan), &json!("cancelled"), &json!("owner_gone"))
        );
        assert_eq!(reply["replay"]["messages"][1]["parts"][0]["text"], "half");
        assert_eq!(reply["replay"]["messages"][1]["status"], "partial");
    }
    let cancels = "SELECT count(*) FROM events WHERE kind = 'turn_cancelled'";
    assert_eq!(db.number(cancels).await, 1);
    db.gapless().await;
    turn.done().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i11_an_orphan_ends_with_nobody_connected() {
    let (server, mut script) = TestServer::start_with(short).await;
    let (_ada, _, _turn) = running(&server, &mut script, "s", "half").await;
    let mut db = Db::open(&server.database()).await;
    // One whose node has a tombstone, and one whose node stands still without.
    let columns = "incarnation, name, state, beat, lease_ttl_ms, exclusive, started_at";
    let rows = "('still', 'b', 'live', 7, 400, 0, 0), ('gone', 'c', 'dead', 7, 400, 0, 0)";
    db.run(format!("INSERT INTO nodes ({columns}) VALUES {rows}")).await;
    let begun = tokio::time::Instant::now();
    let (gone, still) = (db.graft("s", "of-gone", "gone").await, db.graft("s", "of-still", "still").await);
    let mut left = vec![gone, still];
    within("the orphans to end", async {
        while !left.is_empty() {
            let rows = db.texts("SELECT id FROM turns WHERE json_extract(row, '$.reason') = 'owner_gone'").await;
            left.retain(|id| !rows.contains(id));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(begun.elapsed() >= Duration::from_millis(300), "a node that stands still is not judged at once");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(db.number("SELECT count(*) FROM turns WHERE status = 'running'").await, 1, "the live one runs on");
    db.turns_are_sound().await;
    db.gapless().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i21_a_turn_without_its_runner_is_failed_as_lost_with_what_it_said() {
    let (server, mut script) = TestServer::start_with(short).await;
    let (_ada, _, turn) = running(&server, &mut script, "s", "half").await;
    let mut db = Db::open(&server.database()).await;
    let own = server.server.sessions().owner().incarnation;
    let lost = json!(db.graft("s", "lost", &own.0).await);
    let mut ben = SessionClient::join(&server.ws("ben"), "lost").await;
    assert_eq!(ben.end_of(&lost).await, "failed");
    let error = ben.ended(&lost).unwrap().error.clone().unwrap();
    assert_eq!((&error["code"], &error["retryable"]), (&json!("lost"), &json!(true)));
    assert_eq!(ben.answer_of(&lost).as_deref(), Some("half"));
    let again = ben.ok("retry", json!({ "turn_id": lost })).await;
    assert_eq!(again["attempt"], 2);
    script.turn().await.done().await;
    assert_eq!(ben.end_of(&again["turn_id"]).await, "completed");
    turn.done().await;
    db.gapless().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i7_a_runner_whose_turn_is_not_its_own_any_more_stops_with_a_renewal() {
    let (server, mut script) = TestServer::start_with(short).await;
    let (_ada, id, turn) = running(&server, &mut script, "s", "half").await;
    let mut db = Db::open(&server.database()).await;
    // Ended elsewhere, while the agent is silent and nothing will be written: only a renewal can tell.
    let ended = format!(
        "UPDATE turns SET status = 'cancelled', owner = NULL, term = term + 1 WHERE id = '{}'",
        id.as_str().unwrap()
    );
    assert_eq!(db.run(ended).await, 1);
    turn.dropped().await;
    until("the runner to end", || server.server.sessions().running() == 0).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l11_a_new_history_ends_the_channels_and_gives_every_client_a_snapshot() {
    let (server, mut script) = TestServer::start_with(short).await;
    let (mut ada, id, turn) = running(&server, &mut script, "s", "half").await;
    let mut ben = SessionClient::join(&server.ws("ben"), "elsewhere").await;
    let old = ada.view.epoch.clone();
    let mut db = Db::open(&server.database()).await;
    db.run("UPDATE meta SET value = value + 1 WHERE name = 'history'").await;
    for client in [&mut ada, &mut ben] {
        client.until("the end of the channel", |c| c.others.iter().any(|frame| frame[3] == "phx_error")).await;
    }
    turn.dropped().await;
    ada.return_to(&server.ws("ada")).await;
    assert_eq!(ada.joined["replay"]["reason"], "epoch_changed");
    assert_ne!(ada.view.epoch, old);
    assert_eq!(ada.end_of(&id).await, "failed");
    assert_eq!(ada.answer_of(&id).as_deref(), Some("half"));
    ada.send("Go on.").await;
    script.turn().await.done().await;
    ada.until("the next answer", |ada| ada.types().contains(&"turn_completed")).await;
    db.turns_are_sound().await;
    server.stop().await;
}
