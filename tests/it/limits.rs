//! How much a client may ask for, and how it is told that it is too much: rates, connections, lengths.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use rejoin::{channel, transport};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    channel_app::App,
    support::{
        client::SessionClient,
        form::{Form, Transport, everywhere},
        http::Http,
        raw::{self, header, status, upgrade},
        server::TestServer,
        ws::{TestClient, ok, until, within},
    },
};

const T: &str = "room:a";

everywhere!({
    who_sends_too_fast_is_refused_and_who_goes_on_is_closed,
    who_is_refused_stays_and_is_served_again,
    who_joins_too_often_is_refused,
});

/// A server on which a client sends one frame a second, and two at once.
async fn slow() -> App {
    let options = channel::Options { rate_limit: NonZeroU32::new(1), max_topics: 1, ..Default::default() };
    App::start_with(options, transport::Options::default()).await
}

/// The reason of a refusal; none for an answer that is `ok`.
fn reason(frame: &Value) -> Option<&str> {
    assert_eq!(frame[3], "phx_reply", "{frame}");
    frame[4]["response"]["reason"].as_str()
}

/// Sends frames until the server ends the connection, and reads all answers but pushes. How many were refused, and how
/// the connection ended.
async fn flood(mut client: TestClient, form: Form) -> (usize, Option<u16>) {
    let mut sent = 0;
    while sent < 40 && client.try_frame(json!(["11", format!("f{sent}"), T, "echo", {}])).await {
        sent += 1;
    }
    let mut refused = 0;
    loop {
        let next = match form.transport {
            Transport::WebSocket => client.frame_or_close().await.map_err(Some),
            Transport::LongPoll => client.try_next().await.ok_or(None),
        };
        match next {
            Ok(frame) if frame[3] == "phx_reply" => refused += usize::from(reason(&frame) == Some("rate_limited")),
            Ok(_) => {}
            Err(code) => return (refused, code),
        }
    }
}

async fn who_sends_too_fast_is_refused_and_who_goes_on_is_closed(form: Form) {
    let app = slow().await;
    let mut client = app.client(form).await;
    client.join(T, json!({})).await;
    let mut bystander = app.client(Form::V2).await;
    let (refused, code) = flood(client, form).await;
    match form.transport {
        // What waited is dropped when the connection is closed, so that only some of ten refusals may be seen.
        Transport::WebSocket => assert_eq!(code, Some(1008)),
        Transport::LongPoll => assert_eq!(code, None),
    }
    assert!(refused <= 12, "{refused} refusals before the end");
    until("the connection to go", || app.state.connections().count() == 1).await;
    let counts = app.host.counts();
    assert!((10..=12).contains(&counts.rate_limited) && counts.too_fast == 1, "{counts:?}");
    bystander.heartbeat().await;
    app.stop().await;
}

async fn who_is_refused_stays_and_is_served_again(form: Form) {
    let app = slow().await;
    let mut client = app.client(form).await;
    client.join(T, json!({})).await;
    let mut refused = 0;
    let began = Instant::now();
    while refused < 3 {
        let answer = ask(&mut client, "echo").await;
        if reason(&answer) == Some("rate_limited") {
            assert!(answer[4]["response"]["message"].as_str().unwrap().contains("wait"), "{answer}");
            refused += 1;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "it is never refused");
    }
    // What keeps a client connected, and lets it go, is never refused.
    client.frame(json!([null, "hb", "phoenix", "heartbeat", {}])).await;
    assert_eq!(answer(&mut client, "hb").await[4], ok());
    within("to be served again", async {
        while reason(&ask(&mut client, "echo").await).is_some() {
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    })
    .await;
    assert_eq!(reason(&ask(&mut client, "echo").await), Some("rate_limited"));
    client.frame(json!(["11", "bye", T, "phx_leave", {}])).await;
    assert_eq!(answer(&mut client, "bye").await[4], ok());
    until("the channel to end", || app.hooks.ended(T).len() == 1).await;
    assert_eq!(app.host.counts().too_fast, 0);
    app.stop().await;
}

/// Pushes, and waits for the answer.
async fn ask(client: &mut TestClient, event: &str) -> Value {
    let reference = client.push(T, event, json!({})).await;
    answer(client, &reference).await
}

async fn answer(client: &mut TestClient, reference: &str) -> Value {
    loop {
        let frame = client.next().await;
        if frame[3] == "phx_reply" && frame[1] == reference {
            return frame;
        }
    }
}

async fn who_joins_too_often_is_refused(form: Form) {
    let options = channel::Options { join_limit: NonZeroU32::new(1), max_topics: 3, ..Default::default() };
    let app = App::start_with(options, transport::Options::default()).await;
    let mut client = app.client(form).await;
    let mut reasons = Vec::new();
    for n in 0..8 {
        let (topic, reference) = (format!("room:{n}"), n.to_string());
        client.frame(json!([reference, reference, topic, "phx_join", {}])).await;
        let joined = answer(&mut client, &reference).await;
        reasons.push(reason(&joined).map(str::to_owned));
        client.frame(json!([reference, format!("{n} bye"), topic, "phx_leave", {}])).await;
        assert_eq!(answer(&mut client, &format!("{n} bye")).await[4], ok());
    }
    assert_eq!(reasons[..4], [const { None }; 4], "as many as there may be topics, and one");
    assert!(reasons[4..].contains(&Some("rate_limited".to_owned())), "{reasons:?}");
    let again = async |n: usize| {
        let reference = format!("again{n}");
        client.frame(json!([reference, reference, T, "phx_join", {}])).await;
        reason(&answer(&mut client, &reference).await).map(str::to_owned)
    };
    within("to join again", until_none(again)).await;
    app.stop().await;
}

/// Tries, with a pause after each refusal, until there is none.
async fn until_none(mut attempt: impl AsyncFnMut(usize) -> Option<String>) {
    let mut tried = 0;
    while let Some(reason) = attempt(tried).await {
        assert_eq!(reason, "rate_limited");
        tried += 1;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test]
async fn pings_count_as_frames_and_a_flood_of_them_is_closed() {
    let app = slow().await;
    let mut client = TestClient::connect(app.url()).await;
    for _ in 0..30 {
        client.send(tokio_tungstenite::tungstenite::Message::Ping("x".into())).await;
    }
    let code = within("the end", async {
        loop {
            match client.message().await {
                Some(tokio_tungstenite::tungstenite::Message::Close(Some(frame))) => break u16::from(frame.code),
                Some(_) => {}
                None => panic!("no close frame"),
            }
        }
    });
    assert_eq!(code.await, 1008);
    app.stop().await;
}

#[tokio::test]
async fn without_a_rate_a_client_may_send_as_fast_as_it_reads() {
    let options = channel::Options { rate_limit: None, ..Default::default() };
    let app = App::start_with(options, transport::Options::default()).await;
    let mut client = TestClient::connect(app.url()).await;
    client.join(T, json!({})).await;
    for round in 0..20 {
        for n in 0..100 {
            client.frame(json!(["11", format!("{round}-{n}"), T, "echo", {}])).await;
        }
        for n in 0..100 {
            assert_eq!(reason(&answer(&mut client, &format!("{round}-{n}")).await), None);
        }
    }
    app.stop().await;
}

#[tokio::test]
async fn beyond_max_connections_whoever_comes_is_told_when_to_come_back() {
    let (server, _script) = TestServer::start_with(|config| config.max_connections = Some(2)).await;
    let address = server.server.address();
    let first = TestClient::connect(server.ws("ada")).await;
    let mut poller = TestClient::open(address, Form::V2_POLL, "&user_id=ben").await;
    for path in ["/socket/websocket?vsn=2.0.0", "/socket/websocket"] {
        let head = raw::head(address, &upgrade(path, &[])).await;
        assert_eq!((status(&head), header(&head, "retry-after")), (503, Some("5")), "{head}");
    }
    let (head, body) = get(address, "/socket/longpoll?vsn=2.0.0").await;
    assert_eq!((status(&head), header(&head, "retry-after")), (503, Some("5")), "{head}");
    assert_eq!(body, r#"{"status":500}"#);
    // Those who are in are served, and so are requests.
    poller.heartbeat().await;
    Http::new(&server.http("/")).get("/healthz").await.ok(200);
    assert_eq!(server.server.connections().refused().full, 3);
    drop(first);
    until("the place to be free", || server.server.connections().count() == 1).await;
    TestClient::connect(server.ws("eve")).await.heartbeat().await;
    server.stop().await;
}

/// A request and its whole answer, of which the connection is the end.
async fn get(address: std::net::SocketAddr, path: &str) -> (String, String) {
    use tokio::io::AsyncReadExt as _;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let (mut stream, head) = raw::ask(address, &request).await;
    let mut body = String::new();
    within("the body", stream.read_to_string(&mut body)).await.unwrap();
    (head, body)
}

#[tokio::test]
async fn an_address_begins_long_polling_sessions_at_a_rate_and_others_are_not_concerned() {
    let options = transport::Options { open_rate: NonZeroU32::new(1), ..Default::default() };
    let app = App::start_with(channel::Options::default(), options).await;
    let mut bystander = app.client(Form::V2_POLL).await;
    let mut statuses = Vec::new();
    for _ in 0..20 {
        let (head, body) = get(app.address, "/socket/longpoll?vsn=2.0.0").await;
        if status(&head) == 503 {
            assert_eq!((header(&head, "retry-after"), body.as_str()), (Some("5"), r#"{"status":500}"#));
        }
        statuses.push(status(&head));
    }
    assert!(statuses[..9].iter().all(|status| *status == 200), "{statuses:?}");
    assert!(statuses[10..].contains(&503), "{statuses:?}");
    assert!(app.state.lobby().counts().too_often > 0);
    bystander.heartbeat().await;
    app.stop().await;
}

#[tokio::test]
async fn writes_over_http_have_a_rate_for_each_user_and_for_each_address() {
    let (server, _script) = TestServer::start_with(|config| config.rate_limit = NonZeroU32::new(1)).await;
    let http = Http::new(&server.http("/"));
    let body = json!({ "text": "a", "answer": false });
    for who in ["?user_id=ada", ""] {
        let path = format!("/api/sessions/s/messages{who}");
        let mut statuses = Vec::new();
        for _ in 0..8 {
            let answer = http.post(&path, &body).await;
            if answer.status == 429 {
                answer.refuses(429, "rate_limited");
                assert_eq!(answer.retry_after, Some(1), "{answer:?}");
            }
            statuses.push(answer.status);
        }
        assert_eq!(statuses[..2], [202, 202], "{who}");
        assert!(statuses[2..].contains(&429), "{who}: {statuses:?}");
    }
    // Nobody else is concerned, nothing that was refused was done, and reading has no such limit.
    http.post("/api/sessions/s/messages?user_id=ben", &body).await.ok(202);
    for _ in 0..20 {
        http.get("/api/sessions/s?user_id=ada").await.ok(200);
    }
    for (method, path) in [(Method::POST, "/api/sessions"), (Method::POST, "/api/sessions/s/turns/x/cancel")] {
        let refused = async {
            loop {
                let headers = [("content-type", "application/json")];
                let answer = http.ask(method.clone(), &format!("{path}?user_id=ada"), &headers, "{}").await;
                if answer.status == 429 {
                    break;
                }
            }
        };
        within("to be refused", refused).await;
    }
    server.stop().await;
}

/// Each length of the protocol that has a limit: what is just within it is taken, what is beyond is refused.
#[tokio::test]
async fn lengths_are_taken_up_to_their_limits_and_refused_beyond() {
    let (server, _script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let http = Http::new(&server.http("/"));
    let title = |length: usize| json!({ "title": "ü".repeat(length) });
    let metadata = |length: usize| json!({ "metadata": { "a": "x".repeat(length - 8) } });
    for (event, fits, too_much, reason) in [
        ("update", title(1_000), title(1_001), "too_large"),
        ("update", metadata(16 * 1024), metadata(16 * 1024 + 1), "too_large"),
        ("update", json!({ "max_running": 32 }), json!({ "max_running": 33 }), "invalid"),
        ("broadcast", json!({ "event": "x".repeat(255) }), json!({ "event": "x".repeat(256) }), "invalid"),
        ("presence", json!({ "a": "x".repeat(1_016) }), json!({ "a": "x".repeat(1_017) }), "too_large"),
        (
            "send",
            json!({ "id": "x".repeat(128), "text": "a" }),
            json!({ "id": "x".repeat(129), "text": "a" }),
            "invalid",
        ),
    ] {
        ada.ok(event, fits.clone()).await;
        assert_eq!(ada.refused(event, too_much.clone()).await, reason, "{event}");
        if event == "update" {
            let status = if reason == "too_large" { 413 } else { 400 };
            http.post("/api/sessions", &too_much).await.refuses(status, reason);
            http.post("/api/sessions", &fits).await.ok(201);
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn the_parts_of_a_frame_are_taken_up_to_their_limits_and_refused_beyond() {
    let (server, _script) = TestServer::start().await;
    let mut client = TestClient::connect(server.ws("ada")).await;
    let long = |length: usize| "x".repeat(length);
    let beat = |reference: Value| json!([null, reference, "phoenix", "heartbeat", {}]);
    // As JSON a text of 510 characters has 512.
    for reference in [json!("1"), json!(long(510))] {
        client.frame(beat(reference.clone())).await;
        client.expect(json!([null, reference, "phoenix", "phx_reply", ok()])).await;
    }
    for (frame, reason) in [
        (beat(json!(long(511))), "too_large"),
        (json!([long(511), "1", "room:a", "phx_join", {}]), "too_large"),
        (json!([null, "1", format!("room:{}", long(1_020)), "phx_join", {}]), "too_large"),
        (json!([null, "1", format!("room:{}", long(1_019)), "phx_join", {}]), "invalid"),
        (json!([null, "1", "room:a", long(257), {}]), "too_large"),
        (json!([null, "1", "room:a", long(256), {}]), "unmatched topic"),
    ] {
        client.frame(frame.clone()).await;
        let reply = client.next().await;
        assert_eq!(reply[4]["response"]["reason"], reason, "{frame} {reply}");
    }
    server.stop().await;
}

#[tokio::test]
async fn one_more_than_max_queue_is_refused_and_leaves_no_trace() {
    let (server, mut script) = TestServer::start_with(|config| config.max_queue = 2).await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let http = Http::new(&server.http("/"));
    ada.send("runs").await;
    let _turn = script.turn().await;
    for text in ["waits", "waits too"] {
        ada.send(text).await;
    }
    let last_seq = ada.view.last_seq;
    assert_eq!(ada.refused("send", json!({ "text": "one more" })).await, "queue_full");
    http.post("/api/sessions/s/messages", &json!({ "text": "one more" })).await.refuses(429, "queue_full");
    ada.ok("send", json!({ "text": "asks nothing", "answer": false })).await;
    ada.until("it", |ada| ada.view.last_seq > last_seq).await;
    assert!(!ada.events.iter().any(|event| event.to_string().contains("one more")));
    server.stop().await;
}
