//! What clients send that they should not: each is refused in the contract's words, and changes nothing.

use rejoin::model::PartKind;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::support::{
    client::SessionClient,
    http::Http,
    server::TestServer,
    ws::{TestClient, within},
};

const JSON: (&str, &str) = ("content-type", "application/json");

/// Joins and expects a refusal: its reason.
async fn join_refused(client: &mut TestClient, topic: &str, params: Value) -> String {
    client.frame(json!(["11", "1", topic, "phx_join", params])).await;
    let reply = client.next().await;
    assert_eq!(
        (&reply[0], &reply[1], &reply[2], &reply[3]),
        (&"11".into(), &"1".into(), &topic.into(), &"phx_reply".into())
    );
    assert_eq!(reply[4]["status"], "error", "{topic:?} {reply}");
    assert!(reply[4]["response"]["message"].as_str().is_some_and(|text| text.len() > 5), "{reply}");
    reply[4]["response"]["reason"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_session_id_with_other_characters_or_too_long_is_invalid() {
    let (server, _script) = TestServer::start().await;
    let http = Http::new(&server.http("/"));
    let mut client = TestClient::connect(server.ws("ada")).await;
    let long = "x".repeat(129);
    for bad in ["", " ", "a b", "ä", "a/b", "a\nb", "a\u{0}", "a%2Fb", "a@b", "a*", "😀", "session:a b", &long] {
        assert_eq!(join_refused(&mut client, &format!("session:{bad}"), json!({})).await, "invalid", "{bad:?}");
        http.post("/api/sessions", &json!({ "id": bad })).await.refuses(400, "invalid");
    }
    for bad in ["a%20b", "%C3%A4", "a%2Fb", "a%00", "%FF", "a%0Ab", "a@b", "a~b", &long] {
        let path = format!("/api/sessions/{bad}");
        http.get(&path).await.refuses(400, "invalid");
        http.get(&format!("{path}/messages")).await.refuses(400, "invalid");
        http.get(&format!("{path}/events")).await.refuses(400, "invalid");
        http.post(&format!("{path}/messages"), &json!({ "text": "a" })).await.refuses(400, "invalid");
        for action in ["cancel", "retry"] {
            let answer = http.post(&format!("{path}/turns/x/{action}"), &json!({})).await;
            // A session that cannot be has no turn either.
            assert!(matches!(answer.status, 400 | 404), "{answer:?}");
            answer.refuses(answer.status, if answer.status == 400 { "invalid" } else { "not_found" });
        }
    }
    let listed = http.get("/api/sessions").await.ok(200);
    assert_eq!(listed["sessions"], json!([]), "a refused id made a session");
    for good in ["x".repeat(128).as_str(), "A-z_0.9:x", "-", ".", "session:a"] {
        let joined = SessionClient::join(&server.ws("ada"), good).await.joined;
        assert_eq!(joined["session"]["id"], good);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_text_over_the_limit_is_too_large_and_a_frame_over_its_limit_closes_with_1009() {
    let (server, _script) = TestServer::start_with(|config| {
        config.max_message_bytes = 10_000;
        config.max_frame_bytes = 20_000;
    })
    .await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let text = |length: usize| json!({ "text": "x".repeat(length), "answer": false });
    ada.ok("send", text(9_900)).await;
    assert_eq!(ada.refused("send", text(10_001)).await, "too_large");
    let parts: Vec<Value> = (0..11).map(|_| json!({ "kind": "text", "text": "y".repeat(1_000) })).collect();
    assert_eq!(ada.refused("send", json!({ "parts": parts })).await, "too_large");
    let value = json!({ "parts": [{ "kind": "data", "value": { "a": "z".repeat(10_001) } }] });
    assert_eq!(ada.refused("send", value).await, "too_large");
    let http = Http::new(&server.http("/"));
    http.post("/api/sessions/s/messages", &text(10_001)).await.refuses(413, "too_large");
    http.post("/api/sessions/s/messages", &text(200_000)).await.refuses(413, "too_large");
    let mut ben = SessionClient::join(&server.ws("ben"), "s").await;
    ben.push("send", text(20_001)).await;
    assert_eq!(ben.raw.close_code().await, 1009);
    ada.ok("send", json!({ "text": "still here", "answer": false })).await;
    assert_eq!(ada.view.messages.len().min(1), 1);
    assert_eq!(http.get("/api/sessions/s").await.ok(200)["session"]["last_seq"], 2, "a refused send left a trace");
    server.stop().await;
}

#[tokio::test]
async fn whatever_is_no_cursor_gives_a_snapshot_with_its_reason_and_never_an_error() {
    let (server, _script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    ada.ok("send", json!({ "text": "hi", "answer": false })).await;
    let epoch = ada.joined["session"]["epoch"].clone();
    let huge: Value = serde_json::from_str("1e300").unwrap();
    let mut cases = Vec::new();
    for last_seq in
        [json!(-1), json!("1"), json!(""), json!(0.5), json!(1e18), huge, json!(true), json!([1]), json!({})]
    {
        cases.push((json!({ "last_seq": last_seq, "epoch": epoch }), "cursor_invalid"));
    }
    for epoch in [json!(null), json!(1), json!(["e"]), json!({})] {
        cases.push((json!({ "last_seq": 1, "epoch": epoch }), "cursor_invalid"));
    }
    cases.extend([
        (json!({ "last_seq": 1 }), "cursor_invalid"),
        (json!({ "last_seq": 0, "epoch": "another" }), "epoch_changed"),
        (json!({ "last_seq": 1, "epoch": "" }), "epoch_changed"),
        (json!({ "last_seq": 1, "epoch": "a\u{0}b" }), "epoch_changed"),
        (json!({ "last_seq": 1, "epoch": "e".repeat(10_000) }), "epoch_changed"),
        (json!({ "last_seq": "\u{0}", "epoch": epoch }), "cursor_invalid"),
        (json!({ "last_seq": 2, "epoch": epoch }), "cursor_ahead"),
        (json!({ "last_seq": u64::MAX, "epoch": epoch }), "cursor_ahead"),
        (json!({ "last_seq": null, "epoch": null }), "first_join"),
        (json!({ "unknown": 1 }), "first_join"),
        (json!(null), "first_join"),
    ]);
    for (params, reason) in cases {
        let joined = SessionClient::join_with(&server.ws("ben"), "s", params.clone()).await.joined;
        assert_eq!(
            (&joined["replay"]["mode"], &joined["replay"]["reason"]),
            (&"snapshot".into(), &reason.into()),
            "{params}"
        );
        assert_eq!(joined["replay"]["messages"].as_array().unwrap().len(), 1, "{params}");
    }
    // Written by hand: numbers and texts that no encoder writes.
    for (cursor, reason) in [
        (r#""last_seq":99999999999999999999999999,"epoch":"e""#, "cursor_invalid"),
        (r#""last_seq":-0.0,"epoch":"e""#, "cursor_invalid"),
        (r#""last_seq":1,"epoch":"\ud800""#, "cursor_invalid"),
    ] {
        let mut client = TestClient::connect(server.ws("ben")).await;
        client.text(&format!(r#"["11","1","session:s","phx_join",{{{cursor}}}]"#)).await;
        let reply = client.next().await;
        assert_eq!(reply[4]["response"]["replay"]["reason"], reason, "{cursor}: {reply}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_join_whose_parameters_are_no_object_is_invalid() {
    let (server, _script) = TestServer::start().await;
    let mut client = TestClient::connect(server.ws("ada")).await;
    for params in [
        json!([]),
        json!([1, "e"]),
        json!("x"),
        json!(5),
        json!(true),
        json!({ "create": "yes" }),
        json!({ "presence": [] }),
    ] {
        assert_eq!(join_refused(&mut client, "session:s", params.clone()).await, "invalid", "{params}");
    }
    let large = json!({ "presence": { "a": "x".repeat(1_025) } });
    assert_eq!(join_refused(&mut client, "session:s", large).await, "too_large");
    assert_eq!(join_refused(&mut client, "session:s", json!({ "presence": { "a": "\u{0}" } })).await, "invalid");
    assert_eq!(join_refused(&mut client, "session:s", json!({ "create": false })).await, "not_found");
    server.stop().await;
}

#[tokio::test]
async fn a_payload_that_is_no_object_and_an_event_that_is_none_are_invalid() {
    let (server, _script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    for event in ["send", "cancel", "retry", "history", "broadcast", "presence", "update", "access_token"] {
        for payload in [json!([]), json!(["x"]), json!("x"), json!(5), json!(true), json!(null)] {
            assert_eq!(ada.refused(event, payload.clone()).await, "invalid", "{event} {payload}");
        }
    }
    for event in
        ["", "Send", "err", "events", "presence_state", "phx_reply", "phx_close", "heartbeat", "delete", "\u{0}"]
    {
        assert_eq!(ada.refused(event, json!({})).await, "invalid", "{event:?}");
    }
    for (event, payload) in [
        ("cancel", json!({})),
        ("cancel", json!({ "turn_id": 5 })),
        ("retry", json!({ "turn_id": null })),
        ("history", json!({})),
        ("history", json!({ "before": -1 })),
        ("history", json!({ "before": "5" })),
        ("history", json!({ "before": 1.5 })),
        ("history", json!({ "before": 5, "limit": 0 })),
        ("history", json!({ "before": 5, "limit": -1 })),
        ("broadcast", json!({ "payload": {} })),
        ("broadcast", json!({ "event": "", "payload": {} })),
        ("broadcast", json!({ "event": 5, "payload": {} })),
        ("access_token", json!({})),
        ("access_token", json!({ "token": 5 })),
    ] {
        assert_eq!(ada.refused(event, payload.clone()).await, "invalid", "{event} {payload}");
    }
    assert!(ada.events.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn a_send_that_says_nothing_or_nothing_known_is_invalid() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let http = Http::new(&server.http("/"));
    let part = |part: Value| json!({ "parts": [part] });
    for bad in [
        json!({}),
        json!({ "text": "" }),
        json!({ "text": null }),
        json!({ "text": 5 }),
        json!({ "text": "a", "parts": [{ "kind": "text", "text": "a" }] }),
        json!({ "parts": [] }),
        json!({ "parts": {} }),
        json!({ "parts": ["a"] }),
        part(json!({ "kind": "picture", "text": "a" })),
        part(json!({ "kind": "Text", "text": "a" })),
        part(json!({ "text": "a" })),
        part(json!({ "kind": "text" })),
        part(json!({ "kind": "reasoning", "value": 1 })),
        part(json!({ "kind": "data" })),
        json!({ "text": "a", "when_busy": "now" }),
        json!({ "text": "a", "when_busy": 1 }),
        json!({ "text": "a", "answer": "no" }),
        json!({ "text": "a", "agent": "nobody" }),
        json!({ "text": "a", "agent": "" }),
        json!({ "text": "a", "agent": 5 }),
        json!({ "text": "a", "id": "" }),
        json!({ "text": "a", "id": 5 }),
        json!({ "text": "a", "id": "x".repeat(129) }),
        json!({ "text": "a", "id": "a\nb" }),
    ] {
        assert_eq!(ada.refused("send", bad.clone()).await, "invalid", "{bad}");
        http.post("/api/sessions/other/messages", &bad).await.refuses(400, "invalid");
    }
    http.get("/api/sessions/other").await.refuses(404, "not_found");
    assert!(ada.events.is_empty() && script.is_idle());
    ada.ok("send", json!({ "text": "a", "id": "ü".repeat(128), "answer": false })).await;
    server.stop().await;
}

#[tokio::test]
async fn u0000_in_any_string_of_a_push_is_invalid() {
    let (server, _script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let cases = [
        ("send", r#"{"text":"a\u0000b"}"#.to_owned()),
        ("send", r#"{"text":"a","id":"\u0000"}"#.to_owned()),
        ("send", r#"{"parts":[{"kind":"data","value":{"a\u0000":1}}]}"#.to_owned()),
        ("send", r#"{"parts":[{"kind":"data","value":["\\\u0000"]}]}"#.to_owned()),
        ("send", r#"{"parts":[{"kind":"data","value":["\u0000","\ud800"]}]}"#.to_owned()),
        ("update", r#"{"title":"\u0000"}"#.to_owned()),
        ("update", r#"{"metadata":{"a":{"b\u0000":[]}}}"#.to_owned()),
        ("update", r#"{"metadata":{"a":"\udc00","b":"\u0000"}}"#.to_owned()),
        ("broadcast", r#"{"event":"x","payload":["\u0000"]}"#.to_owned()),
        ("presence", r#"{"a":"\u0000"}"#.to_owned()),
        ("cancel", r#"{"turn_id":"\u0000"}"#.to_owned()),
    ];
    for (event, payload) in &cases {
        assert_eq!(refused_raw(&mut ada, event, payload).await, "invalid", "{event} {payload}");
    }
    // An escaped backslash before the digits is no U+0000.
    assert_eq!(ada.ok("update", json!({ "title": "a\\u0000b" })).await, json!({}));
    assert_eq!(ada.ok("update", json!({ "metadata": { "a": "\\\\u0000" } })).await, json!({}));
    server.stop().await;
}

/// Pushes a payload that is written by hand, and expects a refusal: its reason.
async fn refused_raw(client: &mut SessionClient, event: &str, payload: &str) -> String {
    let frame = format!(r#"["11","by-hand","{}","{event}",{payload}]"#, client.topic);
    client.raw.text(&frame).await;
    let (status, response) = client.answer("by-hand").await;
    assert_eq!(status, "error", "{event} {payload}: {response}");
    response["reason"].as_str().unwrap().to_owned()
}

/// Half a surrogate pair, or a pit of brackets, would make every later reader of the session stumble.
#[tokio::test]
async fn json_that_strict_parsers_refuse_is_invalid() {
    let (server, _script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let deep = format!("{}{}", "[".repeat(115), "]".repeat(115));
    for odd in [deep.as_str(), r#""\ud800""#, r#"{"\udfff":1}"#, r#""\ud800\u0041""#] {
        for (event, payload) in [
            ("send", format!(r#"{{"parts":[{{"kind":"data","value":{odd}}}],"answer":false}}"#)),
            ("update", format!(r#"{{"metadata":{{"a":{odd}}}}}"#)),
            ("broadcast", format!(r#"{{"event":"x","payload":{odd}}}"#)),
            ("presence", format!(r#"{{"a":{odd}}}"#)),
        ] {
            assert_eq!(refused_raw(&mut ada, event, &payload).await, "invalid", "{event} {payload}");
        }
        let body = format!(r#"{{"parts":[{{"kind":"data","value":{odd}}}],"answer":false}}"#);
        let http = Http::new(&server.http("/"));
        http.ask(Method::POST, "/api/sessions/s/messages", &[JSON], body).await.refuses(400, "invalid");
    }
    let fair = format!(r#"{{"kind":"data","value":{}"😀"{}}}"#, "[".repeat(60), "]".repeat(60));
    let fair: Value = serde_json::from_str(&fair).unwrap();
    let brackets = json!({ "kind": "text", "text": "[[[{{{\"".repeat(100) });
    ada.ok("send", json!({ "parts": [fair, brackets], "answer": false })).await;
    let joined = SessionClient::join(&server.ws("ben"), "s").await.joined;
    assert_eq!(joined["replay"]["messages"].as_array().unwrap().len(), 1);
    let pit = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    assert_eq!(refused_raw(&mut ada, "broadcast", &format!(r#"{{"event":"x","payload":{pit}}}"#)).await, "invalid");
    server.stop().await;
}

#[tokio::test]
async fn updates_and_presences_keep_to_their_limits() {
    let (server, _script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let http = Http::new(&server.http("/"));
    let metadata = |length: usize| json!({ "metadata": { "a": "x".repeat(length) } });
    for (bad, reason, status) in [
        (metadata(16 * 1024), "too_large", 413),
        (json!({ "metadata": [] }), "invalid", 400),
        (json!({ "metadata": "x" }), "invalid", 400),
        (json!({ "max_running": 0 }), "invalid", 400),
        (json!({ "max_running": 33 }), "invalid", 400),
        (json!({ "max_running": -1 }), "invalid", 400),
        (json!({ "max_running": 1.5 }), "invalid", 400),
        (json!({ "max_running": "2" }), "invalid", 400),
        (json!({ "max_running": 1e30 }), "invalid", 400),
        (json!({ "title": 5 }), "invalid", 400),
    ] {
        assert_eq!(ada.refused("update", bad.clone()).await, reason, "{bad}");
        http.post("/api/sessions", &bad).await.refuses(status, reason);
    }
    assert_eq!(ada.refused("presence", json!({ "a": "x".repeat(1_024) })).await, "too_large");
    assert!(ada.events.is_empty());
    ada.ok("update", metadata(16 * 1024 - 8)).await;
    ada.ok("presence", json!({ "a": "x".repeat(1_024 - 8) })).await;
    for max_running in [1, 32] {
        ada.ok("update", json!({ "max_running": max_running })).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_turn_of_another_session_is_not_found() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "a").await;
    let mut ben = SessionClient::join(&server.ws("ben"), "b").await;
    let http = Http::new(&server.http("/"));
    let turn_id = ada.send("Hello?").await["turn_id"].clone();
    let turn = script.turn().await;
    for foreign in [&turn_id, &json!("no such turn"), &json!("")] {
        for event in ["cancel", "retry"] {
            assert_eq!(ben.refused(event, json!({ "turn_id": foreign })).await, "not_found", "{event} {foreign}");
        }
    }
    let path = turn_id.as_str().unwrap();
    for action in ["cancel", "retry"] {
        http.post(&format!("/api/sessions/b/turns/{path}/{action}"), &json!({})).await.refuses(404, "not_found");
        http.post(&format!("/api/sessions/none/turns/{path}/{action}"), &json!({})).await.refuses(404, "not_found");
    }
    turn.say("still here").await;
    turn.done().await;
    assert_eq!(ada.end_of(&turn_id).await, "completed");
    for event in ["cancel", "retry"] {
        assert_eq!(ben.refused(event, json!({ "turn_id": turn_id })).await, "not_found", "{event}");
    }
    let answer = ada.ok("cancel", json!({ "turn_id": turn_id })).await;
    assert_eq!(answer, json!({ "outcome": "already_ended", "status": "completed", "reason": null }));
    assert!(ben.events.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn the_same_id_with_other_content_is_a_conflict() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let mut ben = SessionClient::join(&server.ws("ben"), "s").await;
    let first = ada.ok("send", json!({ "id": "m", "text": "one" })).await;
    script.turn().await.done().await;
    assert_eq!(ada.end_of(&first["turn_id"]).await, "completed");
    for other in [
        json!({ "id": "m", "text": "two" }),
        json!({ "id": "m", "text": "one", "answer": false }),
        json!({ "id": "m", "parts": [{ "kind": "text", "text": "one" }, { "kind": "text", "text": "" }] }),
        json!({ "id": "m", "parts": [{ "kind": "reasoning", "text": "one" }] }),
    ] {
        assert_eq!(ada.refused("send", other.clone()).await, "conflict", "{other}");
    }
    assert_eq!(ben.refused("send", json!({ "id": "m", "text": "one" })).await, "conflict");
    let http = Http::new(&server.http("/"));
    let answer = http.post("/api/sessions/s/messages?user_id=eve", &json!({ "id": "m", "text": "one" })).await;
    answer.refuses(409, "conflict");
    let again = ada.ok("send", json!({ "id": "m", "parts": [{ "kind": "text", "text": "one" }] })).await;
    assert_eq!(again["duplicate"], true);
    assert_eq!(again["turn_id"], first["turn_id"]);
    assert_eq!((again["seq"].clone(), script.is_idle()), (first["seq"].clone(), true));
    server.stop().await;
}

/// The id of an answer is taken from the moment at which its turn is accepted: otherwise the answer could not be
/// stored when it ends.
#[tokio::test]
async fn the_id_of_an_answer_that_is_still_coming_is_a_conflict() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let running = ada.send("one").await["turn_id"].clone();
    let queued = ada.send("two").await["turn_id"].clone();
    ada.until("both turns", |ada| ada.view.turns.len() == 2).await;
    let reply_ids: Vec<String> = ada.view.turns.iter().map(|turn| turn.reply_id.clone()).collect();
    for id in &reply_ids {
        assert_eq!(ada.refused("send", json!({ "id": id, "text": "mine", "answer": false })).await, "conflict");
    }
    for id in [&running, &queued] {
        let turn = script.turn().await;
        turn.delta(0, PartKind::Text, Some("an answer"), None).await;
        turn.done().await;
        assert_eq!(ada.end_of(id).await, "completed");
    }
    assert_eq!(ada.refused("send", json!({ "id": reply_ids[0], "text": "mine" })).await, "conflict");
    server.stop().await;
}

#[tokio::test]
async fn reserved_and_broken_user_ids_are_refused_at_the_handshake() {
    let (server, _script) = TestServer::start().await;
    let http = Http::new(&server.http("/"));
    let long = "x".repeat(129);
    for bad in ["__proto__", "constructor", "prototype", "agent:x", "agent:", "a%00b", "a%0Ab", &long] {
        let status = within("a refusal", TestClient::refused(server.ws(bad))).await;
        assert_eq!(status, 403, "{bad}");
        http.get(&format!("/api/sessions?user_id={bad}")).await.refuses(400, "invalid");
        let answer = http.post(&format!("/api/sessions/s/messages?user_id={bad}"), &json!({ "text": "a" })).await;
        answer.refuses(400, "invalid");
    }
    for (parameters, good) in
        [("user_id=Agent%3Ax", "Agent:x"), ("user_id=%C3%BC&user_id=b", "b"), ("user_id=to%20string", "to string")]
    {
        let url = format!("{}&{parameters}", server.ws(""));
        let client = SessionClient::join(&url, "s").await;
        let mut other = SessionClient::join(&server.ws("other"), "s").await;
        other.until("who is here", |other| !other.presence.is_empty()).await;
        assert!(other.presence.iter().any(|frame| frame[4].get(good).is_some()), "{:?}", other.presence);
        drop(client);
    }
    server.stop().await;
}

#[tokio::test]
async fn http_writes_need_json_an_allowed_origin_and_a_host_of_this_machine() {
    let (server, _script) = TestServer::start().await;
    let http = Http::new(&server.http("/"));
    let body = || json!({ "text": "a", "answer": false }).to_string();
    let path = "/api/sessions/s/messages";
    for kind in
        [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonp"), Some("")]
    {
        let headers: Vec<_> = kind.map(|kind| ("content-type", kind)).into_iter().collect();
        http.ask(Method::POST, path, &headers, body()).await.refuses(400, "invalid");
    }
    let port = server.server.address().port();
    for origin in
        ["http://evil.example", "https://127.0.0.1.evil.example", "null", "", "file://", "127.0.0.1", "http://ü"]
    {
        http.ask(Method::POST, path, &[JSON, ("origin", origin)], body()).await.refuses(403, "unauthorized");
    }
    for host in ["evil.example", "evil.example:80", "localhost.evil.example", "10.0.0.1"] {
        http.ask(Method::POST, path, &[JSON, ("host", host)], body()).await.refuses(403, "unauthorized");
        let origin = format!("http://{host}");
        let headers = [JSON, ("host", host), ("origin", origin.as_str())];
        http.ask(Method::POST, path, &headers, body()).await.refuses(403, "unauthorized");
    }
    http.get("/api/sessions/s").await.refuses(404, "not_found");
    let own = format!("http://127.0.0.1:{port}");
    for headers in [
        vec![("content-type", "application/json; charset=utf-8")],
        vec![JSON, ("origin", own.as_str())],
        vec![JSON, ("host", "localhost:4000")],
    ] {
        http.ask(Method::POST, path, &headers, body()).await.ok(202);
    }
    server.stop().await;
}

#[tokio::test]
async fn http_bodies_queries_paths_and_methods_that_cannot_be_are_problems_with_a_code() {
    let (server, _script) = TestServer::start().await;
    let http = Http::new(&server.http("/"));
    for path in ["/api/sessions", "/api/sessions/s/messages"] {
        for body in ["", "{", "text", "[]", "null", "5", "\"x\"", r#"{"text":}"#, "{\"text\":\"a\u{0}\"}"] {
            http.ask(Method::POST, path, &[JSON], body).await.refuses(400, "invalid");
        }
        http.ask(Method::POST, path, &[JSON], vec![b'{', 0xff, b'}']).await.refuses(400, "invalid");
        let huge = json!({ "text": "x".repeat(2 * 1024 * 1024) }).to_string();
        http.ask(Method::POST, path, &[JSON], huge).await.refuses(413, "too_large");
    }
    http.post("/api/sessions", &json!({ "id": "s" })).await.ok(201);
    for query in [
        "/api/sessions?limit=0",
        "/api/sessions?limit=x",
        "/api/sessions?limit=-1",
        "/api/sessions?status=asleep",
        "/api/sessions?cursor=x",
        "/api/sessions?cursor=1.2.3",
        "/api/sessions?cursor=",
        "/api/sessions/s/messages?before=x",
        "/api/sessions/s/messages?limit=0",
        "/api/sessions/s/events?after=-1",
        "/api/sessions/s/events?after=1.5",
        "/api/sessions/s/events?after=1",
        "/api/sessions/s/events?after=18446744073709551615",
        "/api/sessions/s/events?limit=0",
    ] {
        http.get(query).await.refuses(400, "invalid");
    }
    for path in [
        "/nothing",
        "/api",
        "/api/",
        "/api/nothing",
        "/api/sessions/s/nothing",
        "/socket",
        "/socket/nothing",
        "/app.mjs",
    ] {
        http.get(path).await.refuses(404, "not_found");
    }
    for (method, path) in [
        (Method::DELETE, "/api/sessions"),
        (Method::PUT, "/api/sessions/s"),
        (Method::POST, "/api/sessions/s/events"),
        (Method::DELETE, "/api/sessions/s/messages"),
        (Method::POST, "/healthz"),
        (Method::DELETE, "/"),
        (Method::OPTIONS, "/readyz"),
    ] {
        http.ask(method.clone(), path, &[JSON], "{}").await.refuses(405, "invalid");
    }
    http.ask(Method::GET, "/api/sessions/s/turns/x/cancel", &[], "").await.refuses(405, "invalid");
    server.stop().await;
}

#[tokio::test]
async fn a_page_that_calls_this_machine_by_a_name_of_its_own_may_not_connect() {
    let (server, _script) = TestServer::start().await;
    let request = |host: &str, origin: Option<&str>| {
        let mut request = server.ws("ada").into_client_request().unwrap();
        request.headers_mut().insert("host", host.parse().unwrap());
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        request
    };
    let refused = TestClient::refused(request("evil.example:4000", Some("http://evil.example:4000"))).await;
    assert_eq!(refused, 403, "a name that was pointed at this machine");
    for (host, origin) in [("localhost:4000", Some("http://localhost:4000")), ("evil.example:4000", None)] {
        TestClient::connect(request(host, origin)).await.heartbeat().await;
    }
    server.stop().await;
}
