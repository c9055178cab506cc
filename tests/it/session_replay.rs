//! What a session shows of its past: pages of history, snapshots, replays in pages, merged deltas.

use std::time::Duration;

use futures::future::join_all;
use rejoin::{
    model::{PartKind, Person, machine::Asker},
    session::Update,
};
use serde_json::{Value, json};

use crate::support::{client::SessionClient, http::keys, server::TestServer, ws::TestClient};

/// Adds `count` messages of `size` bytes: their ids.
async fn add_messages(client: &mut SessionClient, count: usize, size: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for number in 0..count {
        let id = format!("m{number}");
        client.ok("send", json!({ "id": id, "text": "x".repeat(size), "answer": false })).await;
        ids.push(id);
    }
    ids
}

fn ids_of(messages: &Value) -> Vec<String> {
    messages.as_array().unwrap().iter().map(|message| message["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn pages_of_history_have_no_hole_and_no_repeat() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    // An answer that streams all the while is beside the pages, and in none of them.
    let running = ada.send("long").await;
    let turn = script.turn().await;
    let mut all = vec![running["message_id"].as_str().unwrap().to_owned()];
    all.extend(add_messages(&mut ada, 350, 10).await);
    let joined = SessionClient::join(&server.ws("ben"), "s").await.joined;
    let streaming = joined["replay"]["messages"][0].clone();
    assert_eq!((&streaming["status"], &streaming["turn_id"]), (&"streaming".into(), &running["turn_id"]));
    let mut newest = ids_of(&joined["replay"]["messages"]);
    newest.remove(0);
    assert_eq!(newest, all[251..]);
    assert_eq!(joined["replay"]["has_more"], true);
    for limit in [None, Some(7), Some(100), Some(251), Some(500)] {
        let mut before = joined["replay"]["before"].clone();
        let mut found = newest.clone();
        loop {
            let asked = match limit {
                Some(limit) => json!({ "before": before, "limit": limit }),
                None => json!({ "before": before }),
            };
            let page = ada.ok("history", asked).await;
            assert_eq!(keys(&page), ["before", "ended", "has_more", "messages"]);
            let ids = ids_of(&page["messages"]);
            assert!(!ids.is_empty() && ids.len() <= limit.unwrap_or(100));
            found.splice(0..0, ids);
            before = page["before"].clone();
            if page["has_more"] == false {
                break;
            }
        }
        assert_eq!(found, all, "with limit {limit:?}");
        let nothing = ada.ok("history", json!({ "before": before })).await;
        assert_eq!((&nothing["messages"], &nothing["has_more"]), (&json!([]), &false.into()));
    }
    assert_eq!(ada.ok("history", json!({ "before": 0 })).await["messages"], json!([]));
    assert_eq!(
        ids_of(&ada.ok("history", json!({ "before": u64::MAX, "limit": 1 })).await["messages"]),
        [all[350].clone()]
    );
    drop(turn);
    server.stop().await;
}

#[tokio::test]
async fn a_snapshot_of_long_messages_stays_within_its_bytes_and_has_no_hole() {
    let (server, _script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let all = add_messages(&mut ada, 30, 20_000).await;
    let joined = SessionClient::join(&server.ws("ben"), "s").await.joined;
    let newest = ids_of(&joined["replay"]["messages"]);
    assert!((10..=13).contains(&newest.len()), "{} messages of 20 kB", newest.len());
    assert_eq!(newest, all[30 - newest.len()..]);
    let page = ada.ok("history", json!({ "before": joined["replay"]["before"], "limit": 1 })).await;
    assert_eq!(ids_of(&page["messages"]), [all[29 - newest.len()].clone()]);
    // One that is larger than a page is a page of its own.
    ada.ok("send", json!({ "id": "huge", "text": "y".repeat(250_000), "answer": false })).await;
    let joined = SessionClient::join(&server.ws("ben"), "s").await.joined;
    assert_eq!(ids_of(&joined["replay"]["messages"]).last().map(String::as_str), Some("huge"));
    server.stop().await;
}

#[tokio::test]
async fn a_cursor_is_honoured_up_to_five_thousand_events_and_trimmed_beyond() {
    let (server, _script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    ada.ok("send", json!({ "text": "first", "answer": false })).await;
    let sessions = server.server.sessions();
    let asker = Asker { person: Person { id: "ada".to_owned(), name: "ada".to_owned() }, admin: true };
    for _ in 0..10 {
        let updates = (0..500).map(async |_| {
            sessions.update("s", asker.clone(), Update { max_running: Some(1), ..Update::default() }).await.await
        });
        for done in join_all(updates).await {
            done.unwrap();
        }
    }
    let epoch = ada.joined["session"]["epoch"].clone();
    ada.until("all of it", |ada| ada.view.last_seq == 5_001).await;
    let trimmed =
        SessionClient::join_with(&server.ws("ben"), "s", json!({ "last_seq": 0, "epoch": epoch })).await.joined;
    assert_eq!((&trimmed["replay"]["mode"], &trimmed["replay"]["reason"]), (&"snapshot".into(), &"trimmed".into()));
    assert_eq!(trimmed["replay"]["messages"].as_array().unwrap().len(), 1);
    let mut raw = TestClient::connect(server.ws("ben")).await;
    raw.frame(json!(["11", "1", "session:s", "phx_join", { "last_seq": 1, "epoch": epoch }])).await;
    let reply = raw.next().await[4]["response"].clone();
    assert_eq!((&reply["replay"]["mode"], &reply["replay"]["from"]), (&"replay".into(), &1.into()));
    server.stop().await;
}

#[tokio::test]
async fn a_long_replay_comes_in_pages_that_continue_each_other() {
    let (server, _script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let mut ben = SessionClient::join(&server.ws("ben"), "s").await;
    add_messages(&mut ada, 40, 20_000).await;
    ben.return_to(&server.ws("ben")).await;
    let replay = &ben.joined["replay"];
    let size = replay["events"].to_string().len();
    assert!((200_000..300_000).contains(&size), "a page of {size} bytes");
    let last = replay["events"].as_array().unwrap().last().unwrap()["seq"].clone();
    assert_eq!(replay["to"], last);
    assert_eq!(ben.joined["session"]["last_seq"], 40);
    // The view fails on any push whose `prev` is not what it holds.
    ada.ok("send", json!({ "text": "live", "answer": false })).await;
    ben.until("the rest", |ben| ben.view.last_seq == 41).await;
    let seqs: Vec<u64> = ben.events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=41).collect::<Vec<_>>());
    assert_eq!(ben.view.messages, ada_view(&mut ada).await);
    server.stop().await;
}

async fn ada_view(ada: &mut SessionClient) -> Vec<rejoin::model::Message> {
    ada.until("everything", |ada| ada.view.last_seq == 41).await;
    ada.view.messages.clone()
}

#[tokio::test]
async fn a_replay_merges_what_lies_together_and_leaves_out_what_has_ended() {
    let (server, mut script) = TestServer::start_with(|config| config.delta_window = Duration::ZERO).await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    ada.ok("update", json!({ "max_running": 2 })).await;
    let mut ben = SessionClient::join(&server.ws("ben"), "s").await;
    let ids = [ada.send("one").await, ada.send("two").await].map(|sent| sent["turn_id"].clone());
    let (one, two) = (script.turn().await, script.turn().await);
    let seq = |ada: &SessionClient| ada.view.last_seq;
    // Each delta is an event of its own, and comes before the next is said.
    let deltas = [
        (&one, 0, PartKind::Text, "a"),
        (&one, 0, PartKind::Text, "b"),
        (&one, 0, PartKind::Text, "c"),
        (&two, 0, PartKind::Text, "x"),
        (&one, 0, PartKind::Text, "d"),
        (&one, 1, PartKind::Reasoning, "e"),
        (&one, 1, PartKind::Reasoning, "f"),
    ];
    for (before, (turn, part, kind, text)) in deltas.into_iter().enumerate() {
        turn.delta(part, kind, Some(text), None).await;
        let count = |ada: &SessionClient| ada.types().iter().filter(|kind| **kind == "turn_delta").count();
        ada.until("the delta", |ada| count(ada) == before + 1).await;
    }
    ben.return_to(&server.ws("ben")).await;
    let deltas: Vec<Value> = ben.events.iter().filter(|event| event["type"] == "turn_delta").cloned().collect();
    let first = seq(&ada) - 6;
    let shown: Vec<_> = deltas
        .iter()
        .map(|event| (event["seq"].as_u64(), event["first"].as_u64(), event["data"]["text"].as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            (Some(first + 2), Some(first), Some("abc")),
            (Some(first + 3), None, Some("x")),
            (Some(first + 4), None, Some("d")),
            (Some(first + 6), Some(first + 5), Some("ef")),
        ]
    );
    assert_eq!(keys(&deltas[0]), ["at", "by", "data", "first", "seq", "turn_id", "type"]);
    assert_eq!(ben.view.messages, ada.view.messages);
    // The one that ends is gone from the next replay but for its end, which carries the whole.
    one.done().await;
    ada.end_of(&ids[0]).await;
    let mut cy = SessionClient::join(&server.ws("cy"), "t").await;
    cy.topic = "session:s".to_owned();
    cy.view = rejoin::model::View { epoch: ada.view.epoch.clone(), ..Default::default() };
    cy.return_to(&server.ws("cy")).await;
    let deltas: Vec<&Value> = cy.events.iter().filter(|event| event["type"] == "turn_delta").collect();
    assert_eq!(deltas.len(), 1);
    assert_eq!(deltas[0]["turn_id"], ids[1]);
    let end = cy.events.iter().find(|event| event["type"] == "turn_completed").unwrap();
    assert_eq!(
        end["data"]["message"]["parts"],
        json!([{ "kind": "text", "text": "abcd" }, { "kind": "reasoning", "text": "ef" }])
    );
    assert_eq!(cy.view.messages, ada.view.messages);
    drop(two);
    server.stop().await;
}

#[tokio::test]
async fn deltas_of_one_window_are_one_event_and_without_a_window_each_is_alone() {
    for (window, expected) in [(Duration::from_secs(60), vec!["abc"]), (Duration::ZERO, vec!["a", "b", "c"])] {
        let (server, mut script) = TestServer::start_with(|config| config.delta_window = window).await;
        let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
        let id = ada.send("hi").await["turn_id"].clone();
        let turn = script.turn().await;
        for text in ["a", "b", "c"] {
            turn.say(text).await;
        }
        turn.done().await;
        ada.end_of(&id).await;
        let deltas = ada.events.iter().filter(|event| event["type"] == "turn_delta");
        assert_eq!(deltas.map(|event| event["data"]["text"].as_str().unwrap()).collect::<Vec<_>>(), expected);
        server.stop().await;
    }
}
