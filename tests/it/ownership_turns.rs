//! How turns end, wait and move on, seen from the outside.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt as _, future::join_all, stream};
use rejoin::{
    agent::{Agent, Answer, Context, Delta, Output, Registry},
    model::{PartKind, TurnError},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    chance::Chance,
    client::SessionClient,
    db::Db,
    server::TestServer,
    ws::{LIMIT, TestClient, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i9_a_complete_racing_a_cancel_ends_once_and_every_answer_says_how() {
    let mut chance = Chance::new("i9");
    let (server, mut script) = TestServer::start_with(|config| config.delta_window = Duration::ZERO).await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let mut ben = SessionClient::join(&server.ws("ben"), "s").await;
    let mut won = BTreeMap::new();
    for _ in 0..300 {
        let id = ada.send("x").await["turn_id"].clone();
        let turn = script.turn().await;
        let (says, asks, asks_too) = (chance.pause(1_500), chance.pause(1_500), chance.pause(1_500));
        let finish = async {
            says.await;
            let said = Output::Delta(Delta { part: 0, kind: PartKind::Text, text: Some("y".into()), value: None });
            // The turn may be over already: then nobody listens.
            turn.try_line(Ok(said)).await;
            turn.try_line(Ok(Output::Done { usage: None })).await;
        };
        let first = async {
            asks.await;
            ada.ok("cancel", json!({ "turn_id": id })).await
        };
        let second = async {
            asks_too.await;
            ben.ok("cancel", json!({ "turn_id": id })).await
        };
        let ((), first, second) = tokio::join!(finish, first, second);
        let status = ada.end_of(&id).await;
        for answer in [&first, &second] {
            assert_eq!(answer["status"], status, "{answer}");
            assert!(answer["outcome"] != "cancelled" || status == "cancelled", "{answer}");
        }
        *won.entry(status).or_insert(0) += 1;
    }
    println!("i9: {won:?}");
    let mut db = Db::open(&server.database()).await;
    db.turns_are_sound().await;
    db.gapless().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i13_i14_queued_turns_run_in_order_once_and_nothing_runs_again_by_itself() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(ada.send(&format!("{n}")).await["turn_id"].clone());
    }
    let first = script.turn().await;
    first.say("half").await;
    ada.until("words", |ada| ada.answer_of(&ids[0]).as_deref() == Some("half")).await;
    let folder = server.stop().await;
    drop(first);
    // The next server finds one turn that was cut and four that wait.
    let (agents, mut script) = crate::support::script::scripted();
    let server = TestServer::start_in(folder, agents, |_| {}).await;
    ada.return_to(&server.ws("ada")).await;
    assert_eq!(ada.ended(&ids[0]).map(|turn| turn.reason.as_deref()), Some(Some("shutdown")));
    for id in &ids[1..] {
        let turn = script.turn().await;
        assert_eq!(id, turn.context.turn.id.as_str());
        turn.done().await;
        assert_eq!(ada.end_of(id).await, "completed");
    }
    assert!(script.is_idle(), "the one that was cut is not run again");
    let again = ada.ok("retry", json!({ "turn_id": ids[0] })).await;
    let turn = script.turn().await;
    assert_eq!(again["turn_id"], turn.context.turn.id);
    assert_eq!(turn.context.messages.len(), 1, "what was there before the prompt, then the prompt");
    turn.done().await;
    assert_eq!(ada.end_of(&again["turn_id"]).await, "completed");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i15_when_everyone_leaves_the_turn_goes_on() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let mut ben = SessionClient::join(&server.ws("ben"), "s").await;
    let id = ada.send("x").await["turn_id"].clone();
    let turn = script.turn().await;
    turn.say("one").await;
    for client in [&mut ada, &mut ben] {
        client.until("words", |client| client.answer_of(&id).as_deref() == Some("one")).await;
    }
    ben.push("phx_leave", json!({})).await;
    let held = (ada.view.clone(), ben.view.clone());
    drop((ada, ben));
    until("everyone to be gone", || server.server.connections().count() == 0).await;
    turn.say(" two").await;
    turn.done().await;
    until("the turn to end", || server.server.sessions().running() == 0).await;
    for view in [held.0, held.1] {
        let cursor = json!({ "last_seq": view.last_seq, "epoch": view.epoch });
        let mut raw = TestClient::connect(server.ws("ada")).await;
        raw.frame(json!(["1", "1", "session:s", "phx_join", cursor])).await;
        let reply = raw.next().await[4]["response"].clone();
        assert_eq!((&reply["replay"]["mode"], &reply["turns"]), (&json!("replay"), &json!([])));
        let last = reply["replay"]["events"].as_array().unwrap().last().unwrap().clone();
        assert_eq!(
            (&last["type"], &last["data"]["message"]["parts"][0]["text"]),
            (&json!("turn_completed"), &json!("one two"))
        );
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i16_one_id_from_fifty_connections_at_once_makes_one_message_and_one_turn() {
    let (server, mut script) = TestServer::start().await;
    let clients = join_all((0..50).map(|_| SessionClient::join_at(&server, "ada", "s"))).await;
    let send = json!({ "id": "mine", "text": "once" });
    let answers = join_all(clients.into_iter().map(|mut client| {
        let send = send.clone();
        async move { client.ok("send", send).await }
    }))
    .await;
    let first = answers.iter().filter(|answer| answer["duplicate"] == false).count();
    assert_eq!(first, 1);
    assert!(answers.iter().all(|answer| answer["turn_id"] == answers[0]["turn_id"] && answer["seq"] == 1));
    script.turn().await.done().await;
    assert!(script.is_idle());
    let mut other = SessionClient::join(&server.ws("ben"), "s").await;
    assert_eq!(other.refused("send", send).await, "conflict");
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    assert_eq!(ada.refused("send", json!({ "id": "mine", "text": "twice" })).await, "conflict");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i16_the_id_of_an_answer_on_its_way_is_taken() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let (running, queued) = (ada.send("one").await, ada.send("two").await);
    ada.until("both turns", |ada| ada.view.turns.len() == 2).await;
    let replies: Vec<String> = ada.view.turns.iter().map(|turn| turn.reply_id.clone()).collect();
    for id in replies {
        assert_eq!(ada.refused("send", json!({ "id": id, "text": "mine" })).await, "conflict");
    }
    for sent in [running, queued] {
        let turn = script.turn().await;
        turn.say("an answer").await;
        turn.done().await;
        assert_eq!(ada.end_of(&sent["turn_id"]).await, "completed");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i17_a_cancel_touches_no_other_turn() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    ada.ok("update", json!({ "max_running": 2 })).await;
    let mut ids = Vec::new();
    for text in ["one", "two", "three"] {
        ids.push(ada.send(text).await["turn_id"].clone());
    }
    let (one, two) = (script.turn().await, script.turn().await);
    assert_eq!(ada.ok("cancel", json!({ "turn_id": ids[1] })).await["outcome"], "cancelled");
    two.dropped().await;
    let three = script.turn().await;
    assert_eq!(ids[2], three.context.turn.id, "its slot is taken at once");
    let again = ada.ok("cancel", json!({ "turn_id": ids[1] })).await;
    assert_eq!((&again["outcome"], &again["reason"]), (&json!("already_ended"), &json!("user")));
    for (turn, id) in [(one, &ids[0]), (three, &ids[2])] {
        turn.say("done").await;
        turn.done().await;
        assert_eq!(ada.end_of(id).await, "completed");
    }
    assert_eq!(ada.refused("cancel", json!({ "turn_id": "nobody" })).await, "not_found");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i20_the_queue_moves_when_a_turn_ends_and_when_there_are_more_slots() {
    let (server, mut script) = TestServer::start_with(|config| {
        // No sweep comes to help.
        config.lease_renew = Duration::from_secs(100);
        config.lease_ttl = Duration::from_secs(300);
    })
    .await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    for n in 0..6 {
        ada.send(&format!("{n}")).await;
    }
    let first = script.turn().await;
    assert!(script.is_idle());
    ada.ok("update", json!({ "max_running": 3 })).await;
    let (second, third) = (script.turn().await, script.turn().await);
    first.done().await;
    let fourth = script.turn().await;
    second.fail("broken").await;
    let fifth = script.turn().await;
    ada.ok("cancel", json!({ "turn_id": third.context.turn.id })).await;
    let sixth = script.turn().await;
    ada.ok("update", json!({ "max_running": 1 })).await;
    ada.until("it to be seen", |ada| ada.types().iter().filter(|kind| **kind == "session_updated").count() == 2).await;
    assert_eq!(ada.view.turns.len(), 3, "fewer slots stop nothing");
    for turn in [fourth, fifth, sixth] {
        turn.done().await;
    }
    ada.until("everything to end", |ada| ada.view.turns.is_empty()).await;
    let starts: Vec<&Value> = ada.events.iter().filter(|event| event["type"] == "turn_started").collect();
    assert_eq!(starts.len(), 6);
    server.stop().await;
}

/// Agents that misbehave, each in the way of its name.
struct Misbehaving(&'static str);

fn said(text: &str) -> Output {
    Output::Delta(Delta { part: 0, kind: PartKind::Text, text: Some(text.to_owned()), value: None })
}

#[async_trait]
impl Agent for Misbehaving {
    async fn answer(&self, _: Context) -> Result<Answer, TurnError> {
        let error = TurnError { code: "bad_key".to_owned(), message: "as the test says".to_owned(), retryable: false };
        let half = stream::iter([Ok(said("half"))]);
        Ok(match self.0 {
            "panics-at-once" => panic!("as the test says"),
            "no-set-up" => return Err(error),
            "slow-set-up" => std::future::pending().await,
            "fails" => half.chain(stream::iter([Err(error)])).boxed(),
            "ends" => half.boxed(),
            "silent" => half.chain(stream::pending()).boxed(),
            "long" => stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Some((Ok(said("half")), ()))
            })
            .boxed(),
            "large" => stream::repeat_with(|| Ok(said(&"half".repeat(100)))).boxed(),
            "panics" => half
                .chain(stream::once(async {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    panic!("as the test says")
                }))
                .boxed(),
            other => panic!("{other}"),
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i19_every_failure_of_an_agent_is_a_failed_turn_with_what_it_had_said() {
    let cases = [
        ("panics-at-once", "agent_crashed", false),
        ("no-set-up", "bad_key", false),
        ("slow-set-up", "timeout", false),
        ("fails", "bad_key", true),
        ("ends", "agent_incomplete", true),
        ("silent", "timeout", true),
        ("long", "timeout", true),
        ("large", "too_large", true),
        ("panics", "agent_crashed", true),
    ];
    let agents = cases.iter().map(|(name, ..)| ((*name).to_owned(), Arc::new(Misbehaving(name)) as Arc<dyn Agent>));
    let agents = Registry::new("fails", agents.collect()).unwrap();
    let server = TestServer::start_in(TempDir::new().unwrap(), agents, |config| {
        config.agent_idle_timeout = Duration::from_millis(400);
        config.turn_timeout = Duration::from_millis(1_500);
        config.max_message_bytes = 50_000;
    })
    .await;
    let run = async |(name, code, partial): (&str, &str, bool)| {
        let mut ada = SessionClient::join(&server.ws("ada"), name).await;
        let id = ada.ok("send", json!({ "text": "x", "agent": name })).await["turn_id"].clone();
        assert_eq!(ada.end_of(&id).await, "failed", "{name}");
        let turn = ada.ended(&id).unwrap();
        assert_eq!(turn.error.as_ref().unwrap()["code"], code, "{name}");
        let text = ada.answer_of(&id);
        assert_eq!(text.is_some_and(|text| text.starts_with("half")), partial, "{name}");
        let window = SessionClient::join(&server.ws("ben"), name).await;
        assert_eq!(window.view.messages, ada.view.messages, "{name}");
    };
    join_all(cases.into_iter().map(run)).await;
    assert_eq!(server.server.sessions().running(), 0);
    let mut db = Db::open(&server.database()).await;
    db.turns_are_sound().await;
    server.stop().await;
}

/// An agent that holds its thread until the test lets it go.
struct Stuck(std::sync::Mutex<std::sync::mpsc::Receiver<()>>);

#[async_trait]
impl Agent for Stuck {
    async fn answer(&self, _: Context) -> Result<Answer, TurnError> {
        // What an agent must never do; its time is up when the test says so, or is over.
        let _over = self.0.lock().unwrap().recv_timeout(LIMIT);
        Ok(stream::iter([Ok(said("too late")), Ok(Output::Done { usage: None })]).boxed())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn t6_a_cancel_is_carried_out_for_an_owner_that_does_not_move() {
    let (release, held) = std::sync::mpsc::channel();
    let agent: Arc<dyn Agent> = Arc::new(Stuck(std::sync::Mutex::new(held)));
    let agents = Registry::new("stuck", BTreeMap::from([("stuck".to_owned(), agent)])).unwrap();
    let server = TestServer::start_in(TempDir::new().unwrap(), agents, |_| {}).await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let id = ada.send("x").await["turn_id"].clone();
    let begun = tokio::time::Instant::now();
    let answer = ada.ok("cancel", json!({ "turn_id": id })).await;
    assert_eq!(answer, json!({ "outcome": "cancelled", "status": "cancelled", "reason": "user" }));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert_eq!(ada.end_of(&id).await, "cancelled");
    release.send(()).unwrap();
    until("the runner to see that it is over", || server.server.sessions().running() == 0).await;
    assert!(ada.answer_of(&id).is_none(), "nothing follows the end");
    let window = SessionClient::join(&server.ws("ben"), "s").await;
    assert_eq!(window.view.last_seq, ada.view.last_seq);
    server.stop().await;
}
