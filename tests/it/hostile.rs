//! Clients that mean no good, against the real binary: each costs its own connection, and bounded memory.

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{
    process::Process,
    raw,
    ws::{TestClient, within},
};
use serde_json::json;

/// What one test may make the server's memory grow by, in KiB.
const GROWTH: u64 = 32 * 1024;

/// A server, its peak so far, and a client that must not notice anything.
async fn start() -> (TempDir, Process, u64, TestClient) {
    start_with(&[]).await
}

async fn start_with(options: &[&str]) -> (TempDir, Process, u64, TestClient) {
    let folder = TempDir::new().unwrap();
    let process = Process::start(folder.path(), options).await;
    let mut bystander = TestClient::connect(process.ws("ada")).await;
    bystander.heartbeat().await;
    let before = process.peak();
    (folder, process, before, bystander)
}

async fn stream(process: &Process) -> TcpStream {
    raw::ask(process.address, &raw::upgrade("/socket/websocket?vsn=2.0.0", &[])).await.0
}

#[tokio::test]
async fn frames_of_eight_megabytes_close_with_1009_and_are_never_held() {
    let (_folder, process, before, mut bystander) = start().await;
    let mut streams = Vec::new();
    for _ in 0..40 {
        let mut stream = stream(&process).await;
        let mut frame = raw::frame_head(0x81, 8 << 20);
        frame.extend([b'x'; 64 * 1024]);
        within("a part of it", stream.write_all(&frame)).await.unwrap();
        streams.push(stream);
    }
    for stream in &mut streams {
        assert_eq!(raw::close_code(stream).await, 1009);
    }
    bystander.heartbeat().await;
    assert!(process.peak() - before < GROWTH, "it grew by {} KiB", process.peak() - before);
}

#[tokio::test]
async fn a_million_empty_fragments_are_one_message() {
    let (_folder, process, before, mut bystander) = start().await;
    let mut stream = stream(&process).await;
    let beat = br#"[null,"1","phoenix","heartbeat",{}]"#;
    let mut first = raw::frame_head(0x01, 10);
    first.extend(&beat[..10]);
    within("the beginning", stream.write_all(&first)).await.unwrap();
    let empty = raw::frame_head(0x00, 0).repeat(10_000);
    for _ in 0..100 {
        within("fragments", stream.write_all(&empty)).await.unwrap();
    }
    let mut last = raw::frame_head(0x80, (beat.len() - 10) as u64);
    last.extend(&beat[10..]);
    within("the end", stream.write_all(&last)).await.unwrap();
    let answer = br#"[null,"1","phoenix","phx_reply",{"status":"ok","response":{}}]"#;
    let mut found = vec![0; answer.len() + 2];
    within("the answer", stream.read_exact(&mut found)).await.unwrap();
    assert_eq!(&found[2..], answer);
    bystander.heartbeat().await;
    assert!(process.peak() - before < GROWTH, "it grew by {} KiB", process.peak() - before);
}

#[tokio::test]
async fn a_message_of_a_million_tiny_fragments_closes_with_1009_at_the_limit() {
    let (_folder, process, before, mut bystander) = start().await;
    let (mut reading, mut writing) = stream(&process).await.into_split();
    let sending = tokio::spawn(async move {
        let mut first = raw::frame_head(0x01, 1);
        first.push(b'[');
        let mut tiny = raw::frame_head(0x00, 1);
        tiny.push(b' ');
        let many = tiny.repeat(10_000);
        // The server stops reading on the way; what is left need not arrive.
        let mut sent = writing.write_all(&first).await;
        for _ in 0..100 {
            if sent.is_err() {
                break;
            }
            sent = writing.write_all(&many).await;
        }
        writing
    });
    assert_eq!(raw::close_code(&mut reading).await, 1009);
    bystander.heartbeat().await;
    assert!(process.peak() - before < GROWTH, "it grew by {} KiB", process.peak() - before);
    sending.abort();
}

#[tokio::test]
async fn ten_thousand_joins_make_a_hundred_channels() {
    let rates = ["--rate-limit", "0", "--join-limit", "0"];
    let (_folder, process, before, mut bystander) = start_with(&rates).await;
    let mut client = TestClient::connect(process.ws("eve")).await;
    let (mut joined, mut refused) = (0, 0);
    for round in 0..100 {
        for n in 0..100 {
            let topic = format!("session:{}", round * 100 + n);
            client.frame(json!(["1", "1", topic, "phx_join", { "create": false }])).await;
            client.frame(json!(["1", "2", format!("room:{round}-{n}"), "phx_join", {}])).await;
        }
        let mut answered = 0;
        while answered < 200 {
            let frame = client.next().await;
            if frame[3] != "phx_reply" {
                continue;
            }
            answered += 1;
            match frame[4]["response"]["reason"].as_str() {
                None => joined += 1,
                Some("too many channels joined" | "not_found") => refused += 1,
                other => panic!("{other:?}: {frame}"),
            }
        }
    }
    assert_eq!((joined, refused), (100, 19_900));
    client.heartbeat().await;
    bystander.heartbeat().await;
    assert!(process.peak() - before < GROWTH, "it grew by {} KiB", process.peak() - before);
}

/// A client may send as fast as it can, as long as it reads what it is answered.
#[tokio::test]
async fn a_client_that_sends_a_lot_at_once_and_reads_is_not_cut_off() {
    let folder = TempDir::new().unwrap();
    for queue in ["64KiB", "1MiB"] {
        let process = Process::start(folder.path(), &["--max-queue-bytes", queue]).await;
        let mut client = TestClient::connect(process.ws("ada")).await;
        client.frame(json!(["1", "1", format!("session:{queue}"), "phx_join", {}])).await;
        client.assert_reply("1", "ok").await;
        let text = "x".repeat(60_000);
        let payload = json!({ "text": text, "answer": false });
        for n in 0..100 {
            client.frame(json!(["1", format!("s{n}"), format!("session:{queue}"), "send", payload])).await;
        }
        let (mut answered, mut seen) = (0, 0);
        while answered < 100 || seen < 100 {
            let frame = client.next().await;
            match frame[3].as_str() {
                Some("phx_reply") => {
                    let refused = frame[4]["response"]["reason"] == "rate_limited";
                    assert!(refused || frame[4]["status"] == "ok", "{frame}");
                    // What is refused is never seen.
                    answered += 1;
                    seen += usize::from(refused);
                }
                Some("events") => seen += frame[4]["events"].as_array().unwrap().len(),
                _ => {}
            }
        }
        process.kill().await;
    }
}
