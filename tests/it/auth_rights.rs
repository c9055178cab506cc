//! What a token allows, verb by verb, on sockets and over HTTP; and who may be told to go.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    client::SessionClient,
    http::Http,
    jwt::{guarded, token},
    script::Script,
    server::TestServer,
    ws::TestClient,
};

/// Levels, each with the topics of its token.
fn levels() -> [(&'static str, Value); 5] {
    [
        ("nothing", json!({"other:*": "admin"})),
        ("read", json!({"session:*": "read", "room:*": "read", "sessions": "read"})),
        ("write", json!({"session:*": "write", "room:*": "write", "sessions": "read"})),
        ("admin", json!({"session:*": "admin", "room:*": "admin", "sessions": "admin"})),
        ("admin on *", json!({"*": "admin"})),
    ]
}

fn socket(server: &TestServer, token: &str) -> String {
    server.http(&format!("/socket/websocket?vsn=2.0.0&token={token}")).replace("http://", "ws://")
}

/// What became of a frame: `ok`, or the reason.
async fn outcome(client: &mut TestClient, topic: &str, event: &str, payload: Value) -> String {
    let reference = client.push(topic, event, payload).await;
    loop {
        let frame = client.next().await;
        if frame[3] == "phx_reply" && frame[1] == reference.as_str() {
            let word = if frame[4]["status"] == "ok" { "ok" } else { frame[4]["response"]["reason"].as_str().unwrap() };
            return word.to_owned();
        }
    }
}

/// A turn of the operator's in this session, and what keeps it running.
async fn foreign_turn(
    server: &TestServer,
    script: &mut Script,
    session: &str,
) -> (String, crate::support::script::ScriptedTurn) {
    let mut operator = SessionClient::join(&socket(server, &token("op", json!({"*": "admin"}))), session).await;
    let turn = operator.send("theirs").await["turn_id"].as_str().unwrap().to_owned();
    (turn, script.turn().await)
}

#[tokio::test]
async fn each_verb_of_a_session_asks_for_its_right() {
    let (server, mut script) = guarded().await;
    println!("| level | join | join a new one | history | presence | send | broadcast | update | cancel another's | ");
    for (at, (level, topics)) in levels().into_iter().enumerate() {
        let (session, topic) = (format!("s{at}"), format!("session:s{at}"));
        let (turn, running) = foreign_turn(&server, &mut script, &session).await;
        let mut client = TestClient::connect(socket(&server, &token("u1", topics))).await;
        let mut seen = vec![outcome(&mut client, &topic, "phx_join", json!({})).await];
        seen.push(outcome(&mut client, &format!("session:new{at}"), "phx_join", json!({})).await);
        for (event, payload) in [
            ("history", json!({"before": 9})),
            ("presence", json!({"mood": "good"})),
            ("send", json!({"text": "mine", "answer": false})),
            ("broadcast", json!({"event": "typing", "payload": {}})),
            ("update", json!({"title": "t"})),
            ("cancel", json!({"turn_id": turn})),
            ("retry", json!({"turn_id": turn})),
            ("send", json!({"text": "now", "when_busy": "interrupt"})),
        ] {
            seen.push(outcome(&mut client, &topic, event, payload).await);
        }
        println!("| {level} | {} |", seen.join(" | "));
        let no = "unauthorized";
        let expected = match level {
            "nothing" => vec![no, no].into_iter().chain(std::iter::repeat_n("unmatched topic", 8)).collect(),
            "read" => vec!["ok", "not_found", "ok", "ok", no, no, no, no, no, no],
            // Another's turn still runs: only an admin may end it, or push it aside.
            "write" => vec!["ok", "ok", "ok", "ok", "ok", "ok", "ok", no, no, no],
            _ => vec!["ok"; 10],
        };
        assert_eq!(seen, expected, "{level}");
        drop(running);
    }
}

#[tokio::test]
async fn writers_end_and_repeat_their_own_turns() {
    let (server, mut script) = guarded().await;
    let mine = token("u1", json!({"session:*": "write"}));
    let mut client = SessionClient::join(&socket(&server, &mine), "s").await;
    let turn = client.send("mine").await["turn_id"].clone();
    let _running = script.turn().await;
    assert_eq!(client.ok("cancel", json!({"turn_id": turn})).await["outcome"], "cancelled");
    assert_eq!(client.ok("retry", json!({"turn_id": turn})).await["attempt"], 2);
}

#[tokio::test]
async fn rooms_are_read_and_written_by_right_and_the_list_shows_what_may_be_read() {
    let (server, _script) = guarded().await;
    let mut operator = TestClient::connect(socket(&server, &token("op", json!({"*": "admin"})))).await;
    for topic in ["session:a1", "session:a2", "session:b1"] {
        assert_eq!(outcome(&mut operator, topic, "phx_join", json!({})).await, "ok");
    }
    for (level, join, shout) in [("read", "ok", "unauthorized"), ("write", "ok", "ok"), ("none", "unauthorized", "")] {
        let topics = if level == "none" { json!({"room:b": "read"}) } else { json!({"room:a": level}) };
        let mut client = TestClient::connect(socket(&server, &token("u1", topics))).await;
        assert_eq!(outcome(&mut client, "room:a", "phx_join", json!({})).await, join, "{level}");
        if join == "ok" {
            assert_eq!(outcome(&mut client, "room:a", "shout", json!({})).await, shout, "{level}");
            assert_eq!(outcome(&mut client, "room:a", "presence", json!({})).await, "ok", "{level}");
        }
    }
    for (topics, expected) in [
        (json!({"sessions": "read", "session:*": "read"}), Some(vec!["a1", "a2", "b1"])),
        (json!({"sessions": "read", "session:a*": "read"}), Some(vec!["a1", "a2"])),
        (json!({"sessions": "read", "session:b1": "write", "room:*": "admin"}), Some(vec!["b1"])),
        (json!({"sessions": "read"}), Some(vec![])),
        (json!({"session:*": "admin"}), None),
    ] {
        let token = token("u1", topics.clone());
        let answer = Http::new(&server.http("/")).get(&format!("/api/sessions?token={token}")).await;
        let mut client = TestClient::connect(socket(&server, &token)).await;
        let reference = client.push("sessions", "phx_join", json!({})).await;
        match expected {
            None => {
                answer.refuses(403, "unauthorized");
                assert_eq!(client.assert_reply(&reference, "error").await["reason"], "unauthorized");
            }
            Some(ids) => {
                let shown = |list: &Value| {
                    let list = list["sessions"].as_array().unwrap().iter();
                    let mut ids: Vec<String> = list.map(|one| one["id"].as_str().unwrap().to_owned()).collect();
                    ids.sort();
                    ids
                };
                assert_eq!(shown(&answer.ok(200)), ids, "{topics}");
                assert_eq!(shown(&client.assert_reply(&reference, "ok").await), ids, "{topics}");
            }
        }
    }
}

/// A request: method, path and body.
type Ask = (Method, String, Value);

#[tokio::test]
async fn each_request_over_http_asks_for_its_right_whether_what_it_names_exists_or_not() {
    let (server, mut script) = guarded().await;
    let http = Http::new(&server.http("/"));
    for (at, (level, topics)) in levels().into_iter().enumerate() {
        let session = format!("h{at}");
        let (turn, running) = foreign_turn(&server, &mut script, &session).await;
        let of = |path: &str| format!("/api/sessions/{session}{path}");
        let asks: Vec<(Ask, [u16; 5])> = vec![
            ((Method::GET, "/api/sessions".into(), json!(null)), [403, 200, 200, 200, 200]),
            ((Method::GET, of(""), json!(null)), [403, 200, 200, 200, 200]),
            ((Method::GET, "/api/sessions/none".into(), json!(null)), [403, 404, 404, 404, 404]),
            ((Method::GET, of("/messages"), json!(null)), [403, 200, 200, 200, 200]),
            ((Method::GET, of("/events"), json!(null)), [403, 200, 200, 200, 200]),
            ((Method::POST, "/api/sessions".into(), json!({"id": format!("c{at}")})), [403, 403, 201, 201, 201]),
            ((Method::POST, of("/messages"), json!({"text": "x", "answer": false})), [403, 403, 202, 202, 202]),
            ((Method::PATCH, of(""), json!({"title": "t"})), [403, 403, 200, 200, 200]),
            ((Method::POST, of(&format!("/turns/{turn}/cancel")), json!({})), [403, 403, 403, 200, 200]),
            ((Method::POST, of(&format!("/turns/{turn}/retry")), json!({})), [403, 403, 403, 202, 202]),
            ((Method::DELETE, of(""), json!({})), [403, 403, 403, 200, 200]),
            ((Method::DELETE, "/api/sessions/none".into(), json!({})), [403, 403, 403, 404, 404]),
            ((Method::GET, "/api/presence/room:a".into(), json!(null)), [403, 403, 403, 200, 200]),
            (
                (Method::POST, "/api/broadcast".into(), json!({"topic": "room:a", "event": "e", "payload": {}})),
                [403, 403, 403, 200, 200],
            ),
            ((Method::POST, "/api/disconnect".into(), json!({"user_id": "nobody"})), [403, 403, 403, 403, 200]),
            ((Method::GET, "/api/nodes".into(), json!(null)), [403, 403, 403, 403, 200]),
        ];
        let bearer = format!("Bearer {}", token("u1", topics));
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        for ((method, path, body), expected) in asks {
            let body = if body.is_null() { String::new() } else { body.to_string() };
            let answer = http.ask(method.clone(), &path, &headers, body).await;
            println!("| {level} | {method} {path} | {} |", answer.status);
            assert_eq!(answer.status, expected[at], "{level}: {method} {path}: {answer:?}");
            if answer.status == 403 {
                answer.refuses(403, "unauthorized");
            }
        }
        drop(running);
    }
}

#[tokio::test]
async fn a_user_that_is_disconnected_loses_every_connection_and_nobody_else_does() {
    let (server, _script) = guarded().await;
    let (http, rights) = (Http::new(&server.http("/")), json!({"room:*": "write"}));
    let mut theirs = Vec::new();
    for _ in 0..2 {
        let mut client = TestClient::connect(socket(&server, &token("u1", rights.clone()))).await;
        assert_eq!(outcome(&mut client, "room:a", "phx_join", json!({})).await, "ok");
        theirs.push(client);
    }
    let mut other = TestClient::connect(socket(&server, &token("u2", rights.clone()))).await;
    assert_eq!(outcome(&mut other, "room:a", "phx_join", json!({})).await, "ok");
    let operator = token("op", json!({"*": "admin"}));
    let path = format!("/api/disconnect?token={operator}");
    assert_eq!(http.post(&path, &json!({"user_id": "u1"})).await.ok(200), json!({"disconnected": 2}));
    for client in &mut theirs {
        assert_eq!(client.close_code().await, 1001);
    }
    assert_eq!(outcome(&mut other, "room:a", "shout", json!({})).await, "ok");
    http.post(&path, &json!({"user": "u1"})).await.refuses(400, "invalid");
    let mut again = TestClient::connect(socket(&server, &token("u1", rights))).await;
    assert_eq!(outcome(&mut again, "room:a", "phx_join", json!({})).await, "ok", "a sound token comes back");
}

#[tokio::test]
async fn a_page_whose_name_was_pointed_here_neither_reads_nor_writes() {
    let (server, _script) = TestServer::start().await;
    let http = Http::new(&server.http("/"));
    let kind = ("content-type", "application/json");
    for (headers, allowed) in [
        (vec![], true),
        (vec![("host", "localhost:4000")], true),
        (vec![("host", "127.0.0.1"), ("origin", "http://127.0.0.1:8080")], true),
        (vec![("host", "rebound.evil.example:4000")], false),
        (vec![("host", "rebound.evil.example:4000"), ("origin", "http://rebound.evil.example:4000")], false),
        (vec![("origin", "http://evil.example")], false),
        (vec![("origin", "null")], false),
    ] {
        let read = http.ask(Method::GET, "/api/sessions", &headers, "").await;
        let with_kind = [&headers[..], &[kind]].concat();
        let write = http.ask(Method::POST, "/api/sessions", &with_kind, "{}").await;
        let polled = http.ask(Method::GET, "/socket/longpoll?vsn=2.0.0", &headers, "").await;
        if allowed {
            assert_eq!((read.status, write.status), (200, 201), "{headers:?}");
            assert!(polled.body.contains("\"status\":410"), "{headers:?} {polled:?}");
        } else {
            read.refuses(403, "unauthorized");
            write.refuses(403, "unauthorized");
            assert!(polled.body.contains("\"status\":403"), "{headers:?} {polled:?}");
        }
    }
}
