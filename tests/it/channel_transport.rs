//! The WebSocket itself: who may connect, what closes a connection, and how a server drains.

use std::time::Duration;

use rejoin::{
    channel,
    transport::{self, Origins},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _, http::Request};

use crate::{
    channel_app::App,
    support::ws::{TestClient, until, within},
};

fn request(app: &App, header: &'static str, value: &str) -> Request<()> {
    let mut request = app.url().into_client_request().unwrap();
    request.headers_mut().insert(header, value.parse().unwrap());
    request
}

/// Sends a request as it is; the head of the answer.
async fn raw(app: &App, request: &str) -> String {
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    within("an answer", async {
        while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "closed without an answer");
        }
    })
    .await;
    String::from_utf8(answer).unwrap()
}

async fn with(options: transport::Options) -> App {
    App::start_with(channel::Options::default(), options).await
}

#[tokio::test]
async fn a1_a2_neither_subprotocol_nor_extension_is_made_up() {
    let app = App::start().await;
    let answer = raw(
        &app,
        "GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
    )
    .await
    .to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 101"), "{answer}");
    assert!(answer.contains("s3pplmbitxaq9kygzzhzrbk+xoo="), "{answer}");
    assert!(!answer.contains("sec-websocket-protocol") && !answer.contains("sec-websocket-extensions"), "{answer}");
    app.stop().await;
}

#[tokio::test]
async fn a13_the_subprotocol_of_phoenix_is_echoed_when_offered() {
    let app = App::start().await;
    let request = request(&app, "sec-websocket-protocol", "phoenix, base64url.bearer.phx.dG9r");
    let (_, response) = Box::pin(tokio_tungstenite::connect_async(request)).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "phoenix");
    app.stop().await;
}

#[tokio::test]
async fn a3_a5_other_versions_are_refused() {
    let app = App::start().await;
    let base = format!("ws://{}/socket/websocket", app.address);
    for query in ["", "?vsn=1.0.0", "?vsn=2.1.0", "?vsn=2", "?vsn=", "?vsn[]=2.0.0", "?vsn=2.0.0-rc.1"] {
        assert_eq!(TestClient::refused(format!("{base}{query}")).await, 403, "{query}");
    }
    TestClient::connect(format!("{base}?a=b&vsn=2.0.7&")).await;
    app.stop().await;
}

#[tokio::test]
async fn a6_the_application_may_refuse_with_a_status_of_its_own() {
    let app = App::start().await;
    assert_eq!(TestClient::refused(format!("{}&user_id=__proto__", app.url())).await, 403);
    assert_eq!(TestClient::refused(format!("{}&token=busy", app.url())).await, 429);
    app.stop().await;
}

#[tokio::test]
async fn a7_a8_what_is_no_upgrade_is_refused() {
    let app = App::start().await;
    let head = |line: &str| format!("{line} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    for (line, status) in [
        ("GET /socket/websocket?vsn=2.0.0", "400"),
        ("POST /socket/websocket?vsn=2.0.0", "400"),
        ("PUT /socket/websocket?vsn=2.0.0", "400"),
        ("GET /socket/websocket?vsn=9.0.0", "403"),
        ("GET /elsewhere", "404"),
    ] {
        let answer = raw(&app, &head(line)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{line}: {answer}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a9_only_allowed_pages_connect() {
    let app = App::start().await;
    let here = format!("http://{}", app.address);
    TestClient::connect(request(&app, "origin", &here)).await;
    assert_eq!(TestClient::refused(request(&app, "origin", "http://evil.example")).await, 403);
    app.stop().await;

    let origins = Origins::parse(&["*.example.com"]).unwrap();
    let app = with(transport::Options { origins, ..Default::default() }).await;
    TestClient::connect(request(&app, "origin", "https://a.example.com")).await;
    TestClient::connect(app.url()).await;
    assert_eq!(TestClient::refused(request(&app, "origin", "https://evil.com")).await, 403);
    app.stop().await;
}

#[tokio::test]
async fn a19_a_ping_is_answered_with_its_payload() {
    let app = App::start().await;
    let mut client = TestClient::connect(app.url()).await;
    client.send(Message::Ping("123".into())).await;
    assert_eq!(client.message().await, Some(Message::Pong("123".into())));
    app.stop().await;
}

#[tokio::test]
async fn b23_silence_closes_with_1002_and_pings_are_no_silence() {
    let app = with(transport::Options { idle_timeout: Duration::from_millis(300), ..Default::default() }).await;
    let mut client = TestClient::connect(app.url()).await;
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(900) {
        client.send(Message::Ping("x".into())).await;
        assert!(matches!(client.message().await, Some(Message::Pong(_))), "closed in spite of pings");
    }
    assert_eq!(client.close_code().await, 1002);
    app.stop().await;
}

#[tokio::test]
async fn g76_a_drain_tells_every_channel_and_closes_with_1012() {
    let app = App::start().await;
    let mut client = TestClient::connect(app.url()).await;
    client.join("log:a", json!({})).await;
    client.join("room:a", json!({})).await;
    let mut bare = TestClient::connect(app.url()).await;
    bare.heartbeat().await;
    let connections = app.state.connections().clone();
    assert_eq!(connections.count(), 2);
    let drain =
        tokio::spawn(async move { connections.drain(Duration::from_millis(50), |topic| topic == "log:a").await });
    let mut told = Vec::new();
    while told.len() < 2 {
        let frame = client.next().await;
        assert!(frame[3] != "phx_close" && frame[3] != "phx_error", "{frame}");
        if frame[3] == "draining" {
            assert!(frame[4]["reconnect_after_ms"].is_u64() && frame[0] == "11", "{frame}");
            told.push(frame[2].as_str().unwrap().to_owned());
        }
    }
    told.sort();
    assert_eq!(told, ["log:a", "room:a"]);
    assert_eq!(client.close_code().await, 1012);
    assert_eq!(bare.close_code().await, 1012);
    let drained = within("the drain", drain).await.unwrap();
    assert_eq!((drained.told, drained.left), (2, 0));
    assert_eq!(TestClient::refused(app.url()).await, 503);
    app.stop().await;
}

#[tokio::test]
async fn connections_that_matter_are_drained_last() {
    let app = App::start().await;
    let mut busy = TestClient::connect(app.url()).await;
    busy.join("log:busy", json!({})).await;
    let mut others = Vec::new();
    for _ in 0..5 {
        let mut other = TestClient::connect(app.url()).await;
        other.join("room:a", json!({})).await;
        others.push(other);
    }
    let connections = app.state.connections().clone();
    let drain =
        tokio::spawn(async move { connections.drain(Duration::from_millis(300), |topic| topic == "log:busy").await });
    let closed_at = |mut client: TestClient| async move {
        assert_eq!(client.close_code().await, 1012);
        std::time::Instant::now()
    };
    let others = futures::future::join_all(others.into_iter().map(closed_at));
    let (busy, others) = tokio::join!(closed_at(busy), others);
    assert!(others.iter().all(|other| *other < busy), "{busy:?} {others:?}");
    within("the drain", drain).await.unwrap();
    app.stop().await;
}

#[tokio::test]
async fn g74_a_user_can_be_disconnected() {
    let app = App::start().await;
    let mut one = TestClient::connect(format!("{}&user_id=u1", app.url())).await;
    let mut two = TestClient::connect(format!("{}&user_id=u2", app.url())).await;
    two.heartbeat().await;
    one.heartbeat().await;
    assert_eq!(app.state.connections().disconnect(|identity| identity.person.id == "u1"), 1);
    assert_eq!(one.close_code().await, 1001);
    two.heartbeat().await;
    app.stop().await;
}

#[tokio::test]
async fn g79_a_message_that_is_too_large_closes_with_1009() {
    let app = App::start().await;
    let mut client = TestClient::connect(app.url()).await;
    let fits = json!([null, "1", "room:x", "x", { "a": "x".repeat(200_000) }]);
    client.frame(fits).await;
    assert_eq!(client.next().await[4]["response"]["reason"], "unmatched topic");
    client.text(&"x".repeat(256 * 1024 + 1)).await;
    assert_eq!(client.close_code().await, 1009);
    app.stop().await;
}

/// A connection below the frames.
async fn bare(app: &App) -> TcpStream {
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    let head = "GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(within("the answer", stream.read_u8()).await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    stream
}

/// The code of the close frame that comes next.
async fn bare_close(stream: &mut TcpStream) -> u16 {
    let mut head = [0; 4];
    within("a close frame", stream.read_exact(&mut head)).await.unwrap();
    assert_eq!(head[0], 0x88, "no close frame: {head:?}");
    u16::from_be_bytes([head[2], head[3]])
}

#[tokio::test]
async fn g79_broken_framing_closes_with_1002_and_broken_text_with_1007() {
    let app = App::start().await;
    for (frame, code) in [
        (&[0x81, 0x02, b'[', b']'][..], 1002),
        (&[0x83, 0x80, 0, 0, 0, 0], 1002),
        (&[0xC1, 0x80, 0, 0, 0, 0], 1002),
        (&[0x81, 0x82, 0, 0, 0, 0, 0xC3, 0x28], 1007),
        (&[0x81, 0xFF, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], 1009),
    ] {
        let mut stream = bare(&app).await;
        stream.write_all(frame).await.unwrap();
        assert_eq!(bare_close(&mut stream).await, code, "{frame:?}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_frame_sent_together_with_the_request_is_read() {
    let app = App::start().await;
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    let mut sent =
        b"GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            .to_vec();
    sent.extend([0x89, 0x83, 0, 0, 0, 0, b'a', b'b', b'c']);
    stream.write_all(&sent).await.unwrap();
    let mut read = Vec::new();
    within("the pong", async {
        while !read.ends_with(&[0x8A, 3, b'a', b'b', b'c']) {
            assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0);
        }
    })
    .await;
    drop(stream);
    app.stop().await;
}

#[tokio::test]
async fn g80_a_clients_close_is_echoed() {
    let app = App::start().await;
    let mut client = TestClient::connect(app.url()).await;
    client.heartbeat().await;
    assert_eq!(client.close().await, Some(1000));
    until("the connection to go", || app.state.connections().count() == 0).await;
    app.stop().await;
}
