//! Streams that mean no good, or were cut: heads that trickle in, bodies that stop, what is half closed, and more
//! streams than there is room for. Each costs itself and nobody else.

use std::{io, net::SocketAddr, process::Stdio, time::Duration};

use rejoin::{channel, transport};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
};

use crate::{
    channel_app::App,
    support::{
        client::SessionClient,
        http::Http,
        process::{Process, command},
        raw::{self, header, status, upgrade},
        server::TestServer,
        ws::{TestClient, until, within},
    },
};

async fn open(address: SocketAddr) -> TcpStream {
    within("a stream", TcpStream::connect(address)).await.unwrap()
}

/// All that is sent until the other end closes, or resets, the stream.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    match within("the end of the stream", stream.read_to_end(&mut all)).await {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
    all
}

/// Sends `bytes`, then that nothing more comes, and reads what is answered.
async fn half_close(address: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut stream = open(address).await;
    stream.write_all(bytes.as_ref()).await.unwrap();
    stream.shutdown().await.unwrap();
    String::from_utf8(rest(&mut stream).await).unwrap()
}

async fn app(change: impl FnOnce(&mut transport::Options)) -> App {
    let mut options = transport::Options::default();
    change(&mut options);
    App::start_with(channel::Options::default(), options).await
}

#[tokio::test]
async fn heads_that_trickle_in_are_cut_and_nobody_waits_for_them() {
    let app = app(|options| options.head_timeout = Duration::from_millis(400)).await;
    let mut bystander = TestClient::connect(app.url()).await;
    let trickle = |how: usize| async move {
        let mut stream = open(app.address).await;
        let request = upgrade("/socket/websocket?vsn=2.0.0", &[]);
        // The last byte is never sent; some say nothing at all.
        for byte in request.as_bytes()[..how.min(request.len() - 1)].iter().cycle() {
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            let wait = tokio::time::timeout(Duration::from_millis(10), stream.readable());
            if wait.await.is_ok() {
                break;
            }
        }
        assert_eq!(rest(&mut stream).await, b"", "it was answered");
    };
    let streams = futures::future::join_all((0..100).map(|n| trickle(if n % 4 == 0 { 0 } else { usize::MAX })));
    let beats = async {
        for _ in 0..20 {
            bystander.heartbeat().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::join!(streams, beats);
    until("all to be cut", || app.state.lobby().counts().late == 100).await;
    // Whoever has asked for something once has more time.
    bystander.heartbeat().await;
    app.stop().await;
}

#[tokio::test]
async fn a_stream_that_asks_for_nothing_more_is_closed() {
    let app = app(|options| options.keep_alive = Duration::from_millis(300)).await;
    let (mut stream, head) = raw::ask(app.address, "GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(status(&head), 404);
    stream.write_all(b"GET /no").await.unwrap();
    assert_eq!(rest(&mut stream).await, b"");
    app.stop().await;
}

#[tokio::test]
async fn heads_and_urls_that_are_too_long_are_answered_431() {
    let (server, _script) = TestServer::start().await;
    let address = server.server.address();
    let get =
        |path: &str, headers: &str| format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{headers}\r\n");
    let long = "x".repeat(30_000);
    for (request, expected) in [
        (get(&format!("/healthz?{long}"), ""), 200),
        (get(&format!("/healthz?{long}{long}"), ""), 431),
        (get("/healthz", &format!("X-Long: {long}\r\n")), 200),
        (get("/healthz", &format!("X-Long: {long}{long}\r\n")), 431),
        (get("/healthz", &format!("X-Long: {long}\r\n").repeat(2)), 431),
        (get("/healthz", &"X: y\r\n".repeat(90)), 200),
        (get("/healthz", &"X: y\r\n".repeat(101)), 431),
        (upgrade(&format!("/socket/websocket?vsn=2.0.0&a={long}{long}"), &[]), 431),
        (upgrade("/socket/websocket?vsn=2.0.0", &[("Cookie", &long), ("X-More", &long)]), 431),
    ] {
        let head = raw::head(address, &request).await;
        assert_eq!(status(&head), expected, "{} bytes: {}", request.len(), &request[..40]);
    }
    server.stop().await;
}

/// What is no HTTP is answered once, and nothing behind it is read.
#[tokio::test]
async fn garbage_behind_sound_requests_is_refused_and_ends_the_stream() {
    let (server, _script) = TestServer::start().await;
    let address = server.server.address();
    let sound = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";
    for garbage in [
        &b"\x00\x01\x02\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
    ] {
        let mut stream = open(address).await;
        stream.write_all(&[sound.as_bytes(), sound.as_bytes(), garbage, sound.as_bytes()].concat()).await.unwrap();
        let answers = String::from_utf8(rest(&mut stream).await).unwrap();
        let statuses: Vec<&str> = answers.split("HTTP/1.1 ").filter_map(|answer| answer.get(..3)).collect();
        assert!(statuses.starts_with(&["200", "200"]), "{answers}");
        assert!(matches!(statuses[2..], [] | ["400"]), "{answers}");
    }
    Http::new(&server.http("/")).get("/healthz").await.ok(200);
    server.stop().await;
}

#[tokio::test]
async fn requests_that_are_cut_in_the_middle_change_nothing() {
    let (server, _script) = TestServer::start().await;
    let address = server.server.address();
    let body = r#"{"id":"m","text":"hello","answer":false}"#;
    let head = |length: &str| {
        format!(
            "POST /api/sessions/cut/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{length}\r\n"
        )
    };
    let whole = head(&format!("Content-Length: {}\r\n", body.len()));
    let chunked = head("Transfer-Encoding: chunked\r\n");
    for cut in [
        whole[..60].to_owned(),
        whole.clone(),
        format!("{whole}{}", &body[..20]),
        format!("{chunked}5\r\n{}", &body[..3]),
        format!("{chunked}{:x}\r\n{body}\r\n", body.len()),
        format!("{chunked}zz\r\n{body}\r\n0\r\n\r\n"),
    ] {
        let answer = half_close(address, &cut).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{cut}: {answer}");
        // The same, reset instead of closed.
        let mut stream = open(address).await;
        stream.write_all(cut.as_bytes()).await.unwrap();
        drop(stream);
    }
    let http = Http::new(&server.http("/"));
    http.get("/api/sessions/cut").await.refuses(404, "not_found");
    // What is whole is taken, also from a client that then says that it sends nothing more.
    let mut stream = open(address).await;
    stream.write_all(format!("{whole}{body}").as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    within("an answer", stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 202");
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_stops_or_trickles_is_answered_408() {
    let folder = TempDir::new().unwrap();
    let process = Process::start(folder.path(), &[]).await;
    let mut bystander = TestClient::connect(process.ws("ada")).await;
    let slow = |trickles: bool| async move {
        let mut stream = open(process.address).await;
        let head = "POST /api/sessions/slow/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                    Content-Length: 1000\r\n\r\n{\"text\":\"";
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut read, mut write) = stream.into_split();
        let mut answer = Vec::new();
        let trickle = async {
            while trickles && write.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            read = within("the answer", read.read_to_end(&mut answer)) => drop(read.unwrap()),
            () = trickle => {}
        }
        String::from_utf8(answer).unwrap()
    };
    let beats = async {
        for _ in 0..50 {
            bystander.heartbeat().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (stopped, trickled, ()) = tokio::join!(slow(false), slow(true), beats);
    for answer in [stopped, trickled] {
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains(r#""code":"invalid""#) && answer.contains("application/problem+json"), "{answer}");
    }
    Http::new(&process.http("/")).get("/api/sessions/slow").await.refuses(404, "not_found");
}

#[tokio::test]
async fn half_closed_streams_are_let_go() {
    let app = app(|_| {}).await;
    // Before, in and behind the head of a request, and behind an upgrade.
    assert_eq!(half_close(app.address, "").await, "");
    assert_eq!(half_close(app.address, "GET /x HTT").await, "");
    let answer = half_close(app.address, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 404 "), "{answer}");
    let answer = half_close(app.address, upgrade("/socket/websocket?vsn=2.0.0", &[])).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    until("the connection to go", || app.state.connections().count() == 0).await;
    let (mut stream, _) = raw::ask(app.address, &upgrade("/socket/websocket?vsn=2.0.0", &[])).await;
    let join = br#"["1","1","room:a","phx_join",{}]"#;
    let mut frame = raw::frame_head(0x81, join.len() as u64);
    frame.extend(join);
    stream.write_all(&frame).await.unwrap();
    until("the channel", || app.host.counts().channels == 1).await;
    stream.shutdown().await.unwrap();
    rest(&mut stream).await;
    until("the channel to end", || app.host.counts().channels == 0).await;
    until("the streams to go", || app.state.lobby().counts().open == 0).await;
    app.stop().await;
}

/// How many files a process has open.
fn open_files(process: &Process) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap().count()
}

#[tokio::test]
async fn ten_thousand_silent_streams_of_one_address_displace_each_other_and_nobody_else() {
    let folder = TempDir::new().unwrap();
    let process = Process::start(folder.path(), &["--max-handshakes", "100"]).await;
    let mut ada = SessionClient::join(&process.ws("ada"), "s").await;
    let mut held = std::collections::VecDeque::new();
    for n in 0..10_000 {
        let mut stream = open(process.address).await;
        // Some begin to say something.
        if n % 3 == 0 {
            stream.write_all(b"GET /socket/websocket HTTP/1.1\r\nX-Pad: ").await.unwrap();
        }
        held.push_back(stream);
        if held.len() > 150 {
            // The oldest was closed by the server: more than a hundred came after it.
            assert_eq!(rest(&mut held.pop_front().unwrap()).await, b"");
        }
        if n % 1_000 == 0 {
            ada.ok("send", json!({ "text": n.to_string(), "answer": false })).await;
            // The address is not shut out.
            TestClient::connect(process.ws("ben")).await.heartbeat().await;
        }
    }
    assert!(open_files(&process) < 200, "{} files are open", open_files(&process));
    ada.ok("send", json!({ "text": "still here", "answer": false })).await;
}

/// The server, as a process that may open so many files: softly, hardly.
async fn limited(folder: &TempDir, soft: u32, hard: u32) -> Process {
    let rejoin = command(folder.path());
    let rejoin = rejoin.as_std().get_program().to_str().unwrap();
    let line =
        format!("ulimit -S -n {soft}; ulimit -H -n {hard}; exec {rejoin} serve --listen 127.0.0.1:0 --log-level off");
    let mut shell = Command::new("sh");
    shell.current_dir(folder.path()).env_clear().kill_on_drop(true);
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).args(["-c", &line]);
    Process::spawn(shell).await
}

#[tokio::test]
async fn where_files_run_out_streams_are_told_so_and_the_database_keeps_its_own() {
    let folder = TempDir::new().unwrap();
    let process = limited(&folder, 64, 256).await;
    let mut ada = SessionClient::join(&process.ws("ada"), "s").await;
    let ask = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";
    // The limit was raised to 256, of which 40 are kept.
    let mut held = Vec::new();
    for _ in 0..215 {
        let (stream, head) = raw::ask(process.address, ask).await;
        assert_eq!(status(&head), 200);
        held.push(stream);
    }
    for _ in 0..100 {
        let (mut stream, head) = raw::ask(process.address, ask).await;
        assert_eq!((status(&head), header(&head, "retry-after")), (503, Some("5")), "{head}");
        assert_eq!(rest(&mut stream).await, b"");
    }
    assert_eq!(TestClient::refused(process.ws("ben")).await, 503);
    // Those who do not even ask are not told for long, and then not at all.
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(open(process.address).await);
    }
    ada.ok("send", json!({ "text": "what the agent answers takes files too" })).await;
    ada.until("an answer", |ada| ada.view.messages.len() == 2).await;
    for stream in &mut silent {
        assert_eq!(rest(stream).await, b"");
    }
    drop(held);
    within("room", async {
        while TestClient::try_connect(process.ws("ben")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
