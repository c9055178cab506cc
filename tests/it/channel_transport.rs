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
    support::{
        form::Version,
        raw::{self, header, status, upgrade},
        ws::{TestClient, until, within},
    },
};

fn request(app: &App, header: &'static str, value: &str) -> Request<()> {
    let mut request = app.url().into_client_request().unwrap();
    request.headers_mut().insert(header, value.parse().unwrap());
    request
}

async fn with(options: transport::Options) -> App {
    App::start_with(channel::Options::default(), options).await
}

#[tokio::test]
async fn a1_a2_neither_subprotocol_nor_extension_is_made_up() {
    let app = App::start().await;
    let path = "/socket/websocket?vsn=2.0.0";
    for headers in [&[][..], &[("Sec-WebSocket-Extensions", "permessage-deflate")]] {
        let head = raw::head(app.address, &upgrade(path, headers)).await;
        assert_eq!(status(&head), 101, "{head}");
        assert_eq!(header(&head, "sec-websocket-accept"), Some("s3pplmbitxaq9kygzzhzrbk+xoo="));
        assert!(header(&head, "sec-websocket-protocol").is_none(), "{head}");
        assert!(header(&head, "sec-websocket-extensions").is_none(), "{head}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a3_a4_versions_one_and_two_are_spoken() {
    let app = App::start().await;
    let base = format!("ws://{}/socket/websocket", app.address);
    for (query, version) in [
        ("", Version::V1),
        ("?a=b&", Version::V1),
        ("?vsn=1.0.0", Version::V1),
        ("?vsn=1.0.9", Version::V1),
        ("?a=b&vsn=2.0.7&", Version::V2),
    ] {
        TestClient::connect(format!("{base}{query}")).await.speaking(version).heartbeat().await;
    }
    app.stop().await;
}

#[tokio::test]
async fn a5_other_versions_are_refused() {
    let app = App::start().await;
    for vsn in ["=123.1.1", "=2.1.0", "=3.0.0", "=2", "=2.0", "=abc", "=", "", "=2.0.0-rc.1", "[]=2.0.0", "[a]=2.0.0"] {
        let head = raw::head(app.address, &upgrade(&format!("/socket/websocket?vsn{vsn}"), &[])).await;
        assert_eq!((status(&head), header(&head, "content-length")), (403, Some("0")), "{vsn}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a6_the_application_may_refuse_with_a_status_and_a_text_of_its_own() {
    let app = App::start().await;
    let path = |more: &str| upgrade(&format!("/socket/websocket?vsn=2.0.0&{more}"), &[]);
    let head = raw::head(app.address, &path("user_id=__proto__")).await;
    assert_eq!((status(&head), header(&head, "content-length")), (403, Some("0")));
    let (mut stream, head) = raw::ask(app.address, &path("token=busy")).await;
    assert_eq!(status(&head), 429);
    let mut body = [0; 15];
    within("the text", stream.read_exact(&mut body)).await.unwrap();
    assert_eq!(&body, b"come back later");
    drop(stream);
    app.stop().await;
}

#[tokio::test]
async fn a7_a8_what_is_no_upgrade_is_refused() {
    let app = App::start().await;
    for (line, expected) in [
        ("GET /socket/websocket?vsn=2.0.0", 400),
        ("POST /socket/websocket?vsn=2.0.0", 400),
        ("PUT /socket/websocket?vsn=2.0.0", 400),
        ("GET /socket/websocket?vsn=9.0.0", 403),
        ("GET /socket", 404),
        ("GET /socket/websocket/more", 404),
        ("GET /elsewhere", 404),
    ] {
        let request = format!("{line} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(status(&raw::head(app.address, &request).await), expected, "{line}");
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
async fn a10_a11_patterns_of_origins_and_what_is_none() {
    let lists = [(&["*.ex.com", "http://scheme.com", "//port.com:81"][..], false), (&["*"], true)];
    for (list, any) in lists {
        let app = with(transport::Options { origins: Origins::parse(list).unwrap(), ..Default::default() }).await;
        for (origin, allowed) in [
            ("http://a.ex.com", true),
            ("http://ex.com", true),
            ("http://a.prefix-ex.com", any),
            ("http://scheme.com", true),
            ("https://scheme.com", any),
            ("http://scheme.com:8080", any),
            ("http://port.com:81", true),
            ("http://port.com", any),
            ("null", any),
            ("file://", any),
            ("", any),
        ] {
            let head = raw::head(app.address, &upgrade("/socket/websocket?vsn=2.0.0", &[("Origin", origin)])).await;
            assert_eq!(status(&head), if allowed { 101 } else { 403 }, "{list:?} {origin:?}");
        }
        app.stop().await;
    }
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
    let options = channel::Options { rate_limit: None, ..Default::default() };
    let transport = transport::Options { idle_timeout: Duration::from_millis(300), ..Default::default() };
    let app = App::start_with(options, transport).await;
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
async fn bare(app: &App, headers: &[(&str, &str)]) -> TcpStream {
    let (stream, head) = raw::ask(app.address, &upgrade("/socket/websocket?vsn=2.0.0", headers)).await;
    assert_eq!(status(&head), 101);
    stream
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
        let mut stream = bare(&app, &[]).await;
        stream.write_all(frame).await.unwrap();
        assert_eq!(raw::close_code(&mut stream).await, code, "{frame:?}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_frame_sent_together_with_the_request_is_read() {
    let app = App::start().await;
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    let mut sent = upgrade("/socket/websocket?vsn=2.0.0", &[]).into_bytes();
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

/// A text frame as a client sends it, masked with zeros.
fn masked(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame
}

const APPLE: (&str, &str) = ("User-Agent", "Rooms/7 CFNetwork/1494.0.7 Darwin/23.4.0");

#[tokio::test]
async fn apples_own_client_is_ended_without_a_close_frame_so_that_it_comes_back() {
    let app = App::start().await;
    let mut stream = bare(&app, &[APPLE]).await;
    stream.write_all(&masked(r#"["1","1","room:a","phx_join",{}]"#)).await.unwrap();
    let mut read = Vec::new();
    let has = |read: &[u8], text: &str| read.windows(text.len()).any(|part| part == text.as_bytes());
    within("the join", async {
        while !has(&read, r#""joined""#) {
            assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0);
        }
    })
    .await;
    let connections = app.state.connections().clone();
    let drain = tokio::spawn(async move { connections.drain(Duration::ZERO, |_| false).await });
    read.clear();
    within("the end", stream.read_to_end(&mut read)).await.unwrap();
    assert_eq!(read[0], 0x81);
    assert_eq!(read.len(), 2 + usize::from(read[1]), "one frame of text and nothing behind it: {read:x?}");
    assert!(has(&read, r#""draining""#), "what waits is written first");
    drop(stream);
    within("the drain", drain).await.unwrap();
    app.stop().await;
}

#[tokio::test]
async fn apples_own_client_is_disconnected_at_once_and_a_browser_with_a_code() {
    let app = App::start().await;
    let browser = ("User-Agent", "Mozilla/5.0 (Macintosh) AppleWebKit/605.1.15 CFNetwork/1494");
    let (mut apple, mut browser) = (bare(&app, &[APPLE]).await, bare(&app, &[browser]).await);
    assert_eq!(app.state.connections().disconnect(|_| true), 2);
    let mut rest = Vec::new();
    within("the end", apple.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty(), "{rest:x?}");
    assert_eq!(raw::close_code(&mut browser).await, 1001);
    drop((apple, browser));
    app.stop().await;
}

#[tokio::test]
async fn a_large_message_arrives_in_one_frame() {
    let app = App::start().await;
    let mut stream = bare(&app, &[]).await;
    let join = r#"["11","1","room:a","phx_join",{"response":"PAD"}]"#.replace("PAD", &"x".repeat(100_000));
    let mut frame = raw::frame_head(0x81, join.len() as u64);
    frame.extend(join.as_bytes());
    within("a join", stream.write_all(&frame)).await.unwrap();
    let mut head = [0; 10];
    within("a frame", stream.read_exact(&mut head)).await.unwrap();
    assert_eq!(head[..2], [0x81, 127], "the last frame of a text, with a length of eight bytes");
    let mut text = vec![0; usize::try_from(u64::from_be_bytes(head[2..].try_into().unwrap())).unwrap()];
    within("its payload", stream.read_exact(&mut text)).await.unwrap();
    assert!(text.starts_with(br#"["11","1","room:a","phx_reply",{"status":"ok","response":"xxx"#));
    assert!(text.ends_with(br#"x"}]"#) && text.len() > 100_000);
    app.stop().await;
}
