//! The log, seen from the outside: seqs, what is shown, poisoned writes, joins while it grows, a store that is away.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::{
    chance::Chance,
    client::SessionClient,
    db::Db,
    server::TestServer,
    ws::{LIMIT, TestClient, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l1_concurrent_sends_to_many_sessions_leave_no_gap() {
    let (server, mut script) = TestServer::start().await;
    let clients = (0..40).map(|n| {
        let url = server.ws(&format!("u{n}"));
        async move {
            let mut client = SessionClient::join(&url, &format!("s{}", n % 8)).await;
            let mut pushed = Vec::new();
            for i in 0..10 {
                pushed.push(client.push("send", json!({ "text": format!("{i}"), "answer": i % 2 == 0 })).await);
            }
            for reference in &pushed {
                assert_eq!(client.answer(reference).await.0, "ok");
            }
        }
    });
    let answers = async {
        for _ in 0..8 * 25 {
            let turn = script.turn().await;
            turn.say("a").await;
            turn.done().await;
        }
    };
    tokio::join!(join_all(clients), answers);
    until("every turn to end", || server.server.sessions().running() == 0).await;
    let mut db = Db::open(&server.database()).await;
    assert_eq!(db.number("SELECT count(*) FROM messages WHERE text LIKE '%\"role\":\"user\"%'").await, 400);
    assert!(db.gapless().await > 400 + 3 * 200);
    db.turns_are_sound().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_nothing_is_seen_that_is_not_in_the_store() {
    let (server, mut script) = TestServer::start_with(|config| config.delta_window = Duration::ZERO).await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let mut db = Db::open(&server.database()).await;
    let id = ada.send("x").await["turn_id"].clone();
    let turn = script.turn().await;
    for n in 1..=100 {
        turn.say("word ").await;
        while ada.answer_of(&id).is_none_or(|text| text.len() < 5 * n) {
            ada.step().await;
            let stored = db.number("SELECT max(seq) FROM events").await;
            assert!(stored >= i64::try_from(ada.view.last_seq).unwrap(), "{stored}");
        }
    }
    turn.done().await;
    assert_eq!(ada.end_of(&id).await, "completed");
    // What was seen is the text that is stored, byte for byte.
    let stored = db.texts("SELECT '{\"seq\":' || seq || ',' || body FROM events ORDER BY seq").await;
    let stored: Vec<Value> = stored.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    assert_eq!(ada.events, stored);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l3_what_the_store_refuses_for_its_content_fails_alone() {
    let (server, mut script) = TestServer::start_with(|config| {
        config.lease_renew = Duration::from_millis(100);
        config.lease_ttl = Duration::from_millis(400);
    })
    .await;
    let mut db = Db::open(&server.database()).await;
    for table in ["messages", "events"] {
        let column = if table == "events" { "body" } else { "text" };
        db.run(format!(
            "CREATE TRIGGER poison_{table} BEFORE INSERT ON {table} WHEN NEW.{column} LIKE '%poison%'
             BEGIN SELECT RAISE(ABORT, 'as the test says'); END"
        ))
        .await;
    }
    let mut clients =
        join_all((0..10).map(|n| SessionClient::join_at(&server, "ada", if n % 2 == 0 { "a" } else { "b" }))).await;
    for round in 0..10 {
        let asks = clients.iter_mut().enumerate().map(|(n, client)| async move {
            let text = if n == round { "poison" } else { "good" };
            (n == round, client.ask("send", json!({ "text": text, "answer": false })).await)
        });
        for (poisoned, (status, response)) in join_all(asks).await {
            assert_eq!((status == "error", response["reason"] == "invalid"), (poisoned, poisoned), "{response}");
        }
    }
    // An agent's poison fails its turn and no other.
    let (mut ada, mut ben) = (clients.remove(0), clients.remove(0));
    let bad = ada.send("x").await["turn_id"].clone();
    let bad_turn = script.turn().await;
    let good = ben.send("x").await["turn_id"].clone();
    let good_turn = script.turn().await;
    bad_turn.say("half").await;
    ada.until("words", |ada| ada.answer_of(&bad).as_deref() == Some("half")).await;
    good_turn.say("fine").await;
    bad_turn.say("poison").await;
    assert_eq!(ada.end_of(&bad).await, "failed");
    assert_eq!(ada.answer_of(&bad).as_deref(), Some("half"));
    bad_turn.dropped().await;
    good_turn.done().await;
    assert_eq!(ben.end_of(&good).await, "completed");
    db.gapless().await;
    db.turns_are_sound().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l6_a_hundred_joins_while_an_answer_streams_see_all_of_it_once() {
    const WORDS: usize = 1_500;
    let mut chance = Chance::new("l6");
    let (server, mut script) = TestServer::start_with(|config| config.delta_window = Duration::from_millis(1)).await;
    let mut first = SessionClient::join(&server.ws("first"), "s").await;
    let id = first.send("x").await["turn_id"].clone();
    let turn = script.turn().await;
    let (said, words) = watch::channel(0);
    let talk = async move {
        for n in 1..=WORDS {
            turn.say(&format!("{n} ")).await;
            said.send_replace(n);
            if n % 5 == 0 {
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
        turn.done().await;
    };
    let storm = (0..100).map(|n| {
        let (mut words, url, id) = (words.clone(), server.ws(&format!("u{n}")), id.clone());
        let mut moments = [chance.below(WORDS as u64), chance.below(WORDS as u64)];
        moments.sort_unstable();
        async move {
            // What is waited for is a lock on the word; it must not be held.
            drop(words.wait_for(|said| *said as u64 >= moments[0]).await.unwrap());
            let mut client = SessionClient::join(&url, "s").await;
            if n % 2 == 0 {
                // The talk may be over before this one comes back: then its moment has passed.
                drop(words.wait_for(|said| *said as u64 >= moments[1]).await);
                client.return_to(&url).await;
            }
            client.end_of(&id).await;
            client
        }
    });
    let (clients, (), _) = tokio::join!(join_all(storm), talk, first.end_of(&id));
    let whole: String = (1..=WORDS).map(|n| format!("{n} ")).collect();
    assert_eq!(first.answer_of(&id), Some(whole));
    let mut expected = first.view.clone();
    expected.turns.clear();
    for client in clients {
        assert_eq!(client.view, expected);
        let seqs: Vec<u64> = client.events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
        assert!(seqs.is_sorted_by(|a, b| a < b), "no repeat: {seqs:?}");
    }
    Db::open(&server.database()).await.gapless().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l10_a_join_in_the_middle_of_a_long_answer_is_cheap() {
    let (server, mut script) = TestServer::start_with(|config| config.delta_window = Duration::ZERO).await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let id = ada.send("x").await["turn_id"].clone();
    let turn = script.turn().await;
    let piece = "0123456789".repeat(10);
    let talk = async {
        for _ in 0..5_000 {
            turn.say(&piece).await;
        }
    };
    let all = |ada: &SessionClient| ada.answer_of(&id).is_some_and(|text| text.len() == 500_000);
    tokio::join!(talk, ada.until("500 KB", all));
    let window = SessionClient::join(&server.ws("ben"), "s").await;
    assert_eq!(window.view.messages, ada.view.messages);
    let size = window.joined.to_string().len();
    assert!((500_000..502_500).contains(&size), "the answer once, not as deltas: {size}");
    let mut db = Db::open(&server.database()).await;
    let deltas = db.number("SELECT count(*) FROM events WHERE kind = 'turn_delta'").await;
    let chunks = db.number("SELECT count(*) FROM chunks").await;
    let after = db.number("SELECT count(*) FROM events WHERE seq > (SELECT max(upto) FROM chunks)").await;
    println!("l10: {deltas} deltas; a join reads {chunks} chunks and {after} deltas");
    // One at least, and at most one every 8 KiB: a disk that is slow makes fewer and larger ones.
    assert!(deltas == 5_000 && (1..=62).contains(&chunks), "{deltas} {chunks}");
    assert!(after <= 82, "less than a chunk: {after}");
    let bytes = db.number("SELECT sum(length(parts)) FROM chunks").await;
    assert!(bytes < 510_000, "nothing rewrites what has grown: {bytes}");
    turn.done().await;
    assert_eq!(ada.end_of(&id).await, "completed");
    assert_eq!(db.number("SELECT count(*) FROM chunks").await, 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o1_o3_while_the_store_is_away_requests_say_so_and_the_turn_goes_on_afterwards() {
    let (server, mut script) = TestServer::start_with(|config| {
        config.lease_renew = Duration::from_millis(100);
        config.lease_ttl = Duration::from_millis(400);
        config.agent_idle_timeout = LIMIT;
    })
    .await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let id = ada.send("x").await["turn_id"].clone();
    let turn = script.turn().await;
    turn.say("before ").await;
    ada.until("words", |ada| ada.answer_of(&id).is_some_and(|text| !text.is_empty())).await;
    let mut db = Db::open(&server.database()).await;
    db.run("BEGIN EXCLUSIVE").await;
    turn.say("during ").await;
    let begun = tokio::time::Instant::now();
    let mut raw = TestClient::connect(server.ws("ben")).await;
    raw.frame(json!(["1", "j", "session:new", "phx_join", {}])).await;
    let reference = ada.push("send", json!({ "id": "again", "text": "y" })).await;
    let (reply, (status, response)) = tokio::join!(raw.next(), ada.answer(&reference));
    assert!(begun.elapsed() < Duration::from_millis(8_800), "{:?}", begun.elapsed());
    assert_eq!((&reply[1], &reply[4]["response"]["reason"]), (&json!("j"), &json!("unavailable")), "{reply}");
    assert_eq!((status.as_str(), &response["reason"]), ("error", &json!("unavailable")));
    assert!(!server.server.sessions().is_ready());
    turn.say("still ").await;
    db.run("ROLLBACK").await;
    turn.say("after").await;
    turn.done().await;
    assert_eq!(ada.end_of(&id).await, "completed");
    assert_eq!(ada.answer_of(&id).as_deref(), Some("before during still after"));
    assert_eq!(db.number("SELECT count(*) FROM events WHERE kind = 'turn_cancelled'").await, 0);
    // Whether the send of that time happened was open; the same id finds out.
    let sent = ada.ok("send", json!({ "id": "again", "text": "y" })).await;
    let next = script.turn().await;
    assert_eq!(sent["turn_id"], next.context.turn.id);
    next.done().await;
    assert_eq!(ada.end_of(&sent["turn_id"]).await, "completed");
    until("readiness", || server.server.sessions().is_ready()).await;
    db.gapless().await;
    server.stop().await;
}
