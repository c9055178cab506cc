//! Server-sent events: a reader that only listens is shown the same log as everybody else.

mod ends;
mod rights;
mod slow;

use serde_json::{Value, json};

use super::support::{
    client::SessionClient,
    http::{Http, keys},
    server::TestServer,
    sse::{Listener, Stream, ask},
    ws::{TestClient, until},
};

fn url(server: &TestServer, session: &str) -> String {
    server.http(&format!("/api/sessions/{session}/events?user_id=eve"))
}

#[tokio::test]
async fn the_first_event_is_the_answer_to_the_join_and_then_come_events() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join_at(&server, "ada", "s").await;
    ada.ok("send", json!({ "text": "a note", "answer": false })).await;
    let mut listener = Listener::open(&url(&server, "s")).await;
    assert_eq!(keys(&listener.joined), ["node", "replay", "session", "turns"]);
    let header = |name: &str| listener.stream.headers[name].to_str().unwrap().to_owned();
    assert_eq!((header("cache-control"), header("x-accel-buffering")), ("no-store".to_owned(), "no".to_owned()));
    assert!((2_000..4_000).contains(&listener.stream.retry.unwrap()), "when to come back after a break");
    ada.send("go").await;
    let turn = script.turn().await;
    for word in ["one ", "two ", "three"] {
        turn.say(word).await;
    }
    turn.done().await;
    ada.until("the end", |ada| ada.view.turns.is_empty() && ada.view.messages.len() == 3).await;
    listener.until("the end", |view| view.turns.is_empty() && view.messages.len() == 3).await;
    assert_eq!(listener.view, ada.view);
    server.stop().await;
}

#[tokio::test]
async fn l6_a_reader_that_breaks_off_anywhere_resumes_without_a_gap_or_a_repeat() {
    let (server, mut script) = TestServer::start_with(|config| config.delta_window = std::time::Duration::ZERO).await;
    let mut ada = SessionClient::join_at(&server, "ada", "s").await;
    let mut listener = Listener::open(&url(&server, "s")).await;
    ada.send("go").await;
    let turn = script.turn().await;
    let mut modes = Vec::new();
    for round in 0..12 {
        for word in 0..10 {
            turn.say(&format!("{round}.{word} ")).await;
        }
        // It has read some of it, and the rest lies somewhere between.
        let held = listener.view.last_seq;
        listener.until("some of it", |view| view.last_seq > held + round % 7).await;
        listener = listener.resume(&url(&server, "s")).await;
        modes.push(listener.joined["replay"]["mode"].clone());
    }
    turn.done().await;
    ada.until("the end", |ada| ada.view.ended.len() == 1).await;
    listener.until("the end", |view| view.ended.len() == 1).await;
    assert_eq!(listener.view, ada.view);
    assert!(modes.iter().all(|mode| mode == "replay"), "{modes:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_place_may_be_given_by_parameters_and_the_id_of_the_last_event_wins() {
    let (server, _script) = TestServer::start().await;
    let mut ada = SessionClient::join_at(&server, "ada", "s").await;
    for n in 0..4 {
        ada.ok("send", json!({ "text": format!("note {n}"), "answer": false })).await;
    }
    let epoch = ada.joined["session"]["epoch"].as_str().unwrap().to_owned();
    let replay = async |stream: Stream| {
        let mut stream = stream;
        let joined = stream.next().await.data;
        (joined["replay"]["mode"].clone(), joined["replay"]["from"].clone(), joined["replay"]["reason"].clone())
    };
    let base = url(&server, "s");
    let given = format!("{base}&after=1&epoch={epoch}");
    assert_eq!(replay(Stream::open(&given).await).await, ("replay".into(), 1.into(), Value::Null));
    let last_id = format!("{epoch}:3");
    assert_eq!(replay(Stream::resume(&given, &last_id).await).await, ("replay".into(), 3.into(), Value::Null));
    for (id, reason) in [
        ("x", "cursor_invalid"),
        (&*format!("{epoch}:"), "cursor_invalid"),
        (&*format!("{epoch}:-1"), "cursor_invalid"),
        (&*format!("{epoch}:9"), "cursor_ahead"),
        ("another:3", "epoch_changed"),
    ] {
        let (mode, _, why) = replay(Stream::resume(&base, id).await).await;
        assert_eq!((mode, why), ("snapshot".into(), reason.into()), "{id}");
    }
    assert_eq!(replay(Stream::open(&format!("{base}&after=1")).await).await.2, "cursor_invalid");
    assert_eq!(replay(Stream::open(&base).await).await.2, "first_join");
    server.stop().await;
}

#[tokio::test]
async fn what_will_not_pass_is_refused_with_a_status_and_makes_nothing() {
    let (server, _script) = TestServer::start().await;
    let http = Http::new(&server.http(""));
    for (path, status, code) in [
        ("/api/sessions/nobody/events", 404, "not_found"),
        ("/api/sessions/no%20id/events", 400, "invalid"),
        ("/api/sessions/nobody/events?after=x", 400, "invalid"),
    ] {
        let accept = [("accept", "text/event-stream")];
        http.ask(reqwest::Method::GET, path, &accept, "").await.refuses(status, code);
    }
    http.get("/api/sessions/nobody").await.refuses(404, "not_found");
    until("no reader is counted", || server.server.connections().count() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn who_only_listens_is_not_shown_and_is_shown_nobody() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join_at(&server, "ada", "s").await;
    let mut listener = Listener::open(&url(&server, "s")).await;
    assert_eq!(server.server.connections().count(), 2);
    let ben = SessionClient::join_at(&server, "ben", "s").await;
    ada.ok("broadcast", json!({ "event": "typing" })).await;
    ada.send("go").await;
    script.turn().await.done().await;
    // Anything but `events` fails here.
    listener.until("the end", |view| view.ended.len() == 1).await;
    let shown = |client: &SessionClient| serde_json::to_string(&client.presence).unwrap();
    ada.until("ben is shown", |ada| shown(ada).contains("ben")).await;
    let all = shown(&ada) + &shown(&ben);
    assert!(!all.contains("eve"), "{all}");
    server.stop().await;
}

#[tokio::test]
async fn a_text_with_line_breaks_stays_on_its_line() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join_at(&server, "ada", "s").await;
    let mut listener = Listener::open(&url(&server, "s")).await;
    let frame = "[\"11\",\"7\",\"session:s\",\"update\",{\"metadata\":{\n\r\n  \"a\": \"b\\nc\"\n}}]";
    ada.raw.text(frame).await;
    assert_eq!(ada.answer("7").await.0, "ok");
    ada.send("one\ntwo\r\nid: 9\n\nthree\u{2028}").await;
    script.turn().await.done().await;
    listener.until("the end", |view| view.ended.len() == 1).await;
    let text = listener.view.messages[0].plain_text();
    assert_eq!(text, "one\ntwo\r\nid: 9\n\nthree\u{2028}");
    let joined = Listener::open(&url(&server, "s")).await.joined;
    assert_eq!(joined["session"]["metadata"], json!({ "a": "b\nc" }));
    server.stop().await;
}

#[tokio::test]
async fn a_comment_comes_every_fifteen_seconds() {
    let (server, _script) = TestServer::start().await;
    SessionClient::join_at(&server, "ada", "s").await;
    let mut stream = Stream::open(&url(&server, "s")).await;
    stream.next().await;
    let began = tokio::time::Instant::now();
    while stream.comments == 0 {
        let line = stream.line().await.expect("the stream goes on");
        stream.comments += usize::from(line == ":");
    }
    assert!((14..18).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    server.stop().await;
}

#[tokio::test]
async fn a_page_of_events_is_json_as_before() {
    let (server, _script) = TestServer::start().await;
    let mut ada = SessionClient::join_at(&server, "ada", "s").await;
    ada.ok("send", json!({ "text": "a note", "answer": false })).await;
    let http = Http::new(&server.http(""));
    for accept in ["*/*", "application/json", "text/html, text/event-streams"] {
        let answer = http.ask(reqwest::Method::GET, "/api/sessions/s/events", &[("accept", accept)], "").await;
        assert_eq!(answer.ok(200)["last_seq"], 1);
    }
    server.stop().await;
}

#[tokio::test]
async fn beyond_max_connections_a_reader_is_asked_to_come_later() {
    let (server, _script) = TestServer::start_with(|config| config.max_connections = Some(2)).await;
    SessionClient::join_at(&server, "ada", "s").await;
    until("there is room again", || server.server.connections().count() == 0).await;
    let _first = Stream::open(&url(&server, "s")).await;
    let _second = TestClient::connect(server.ws("ada")).await;
    let answer = ask(&url(&server, "s"), None).await;
    // A browser does not come back after an error.
    assert_eq!((answer.status().as_u16(), &*answer.text().await.unwrap()), (200, "retry: 5000\n\n"));
    server.stop().await;
}
