//! Readers of a stream that stop reading: what they are shown afterwards, and how long they are kept.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

use crate::support::{
    client::SessionClient,
    server::TestServer,
    ws::{LIMIT, until},
};

/// A reader that reads what and when it likes.
struct Slow {
    stream: TcpStream,
    text: String,
}

impl Slow {
    async fn open(server: &TestServer, session: &str) -> Self {
        let mut stream = TcpStream::connect(server.server.address()).await.unwrap();
        let head = format!(
            "GET /api/sessions/{session}/events HTTP/1.1\r\nhost: {}\r\naccept: text/event-stream\r\n\r\n",
            server.server.address()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut slow = Self { stream, text: String::new() };
        while !slow.text.contains("event: joined") {
            assert!(slow.read().await > 0, "{}", slow.text);
        }
        slow
    }

    /// Reads once; 0 at the end, also where the connection was cut.
    async fn read(&mut self) -> usize {
        let mut bytes = vec![0; 64 * 1024];
        let read = tokio::time::timeout(LIMIT, self.stream.read(&mut bytes)).await.expect("something to read");
        let count = read.unwrap_or(0);
        self.text.push_str(&String::from_utf8_lossy(&bytes[..count]));
        count
    }

    /// The chunks of the body put together, without their lengths.
    fn body(&self) -> String {
        let mut rest = self.text.split_once("\r\n\r\n").unwrap().1;
        let mut body = String::new();
        while let Some((length, after)) = rest.split_once("\r\n") {
            let length = usize::from_str_radix(length, 16).unwrap();
            let Some(chunk) = after.get(..length) else { break };
            body.push_str(chunk);
            rest = after.get(length + 2..).unwrap_or_default();
        }
        body
    }

    /// How far the reader is brought by all that it has read, without a gap.
    fn reached(&self) -> u64 {
        let body = self.body();
        let mut at = None;
        for line in body.rsplit_once("\n\n").map_or("", |(whole, _)| whole).lines() {
            let Some(data) = line.strip_prefix("data: ") else { continue };
            let data: Value = serde_json::from_str(data).unwrap();
            match at {
                None => at = data["replay"]["to"].as_u64(),
                Some(held) => {
                    assert_eq!(data["prev"], held, "a gap or a repeat");
                    at = data["events"].as_array().unwrap().last().unwrap()["seq"].as_u64();
                }
            }
        }
        at.unwrap_or(0)
    }
}

/// Adds more notes than all the buffers between the server and a client that does not read can take.
async fn a_lot(ada: &mut SessionClient) -> u64 {
    let text = "x".repeat(100_000);
    for _ in 0..150 {
        ada.ok("send", json!({ "text": text, "answer": false })).await;
    }
    ada.until("its own notes", |ada| ada.view.last_seq >= 150).await;
    ada.view.last_seq
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_and_goes_on_sees_every_event_once() {
    let (server, _script) = TestServer::start_with(|config| config.max_queue_bytes = 64 * 1024).await;
    let mut ada = SessionClient::join_at(&server, "ada", "s").await;
    let mut slow = Slow::open(&server, "s").await;
    let last = a_lot(&mut ada).await;
    let mut read = 0;
    while slow.text.len() < 15_000_000 || slow.reached() < last {
        assert!(slow.read().await > 0, "the reader was cut");
        read += 1;
        if read % 40 == 0 {
            // It never catches up for long.
            ada.ok("send", json!({ "text": "small", "answer": false })).await;
        }
    }
    assert!(slow.reached() >= last);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_never_reads_again_is_let_go_after_thirty_seconds() {
    let (server, _script) = TestServer::start_with(|config| config.max_queue_bytes = 64 * 1024).await;
    let mut ada = SessionClient::join_at(&server, "ada", "s").await;
    let slow = Slow::open(&server, "s").await;
    let connections = server.server.connections().clone();
    assert_eq!(connections.count(), 2);
    let began = Instant::now();
    a_lot(&mut ada).await;
    let gone = async {
        while connections.count() > 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(45), gone).await.expect("it is let go");
    assert!(began.elapsed() > Duration::from_secs(29), "{:?}", began.elapsed());
    drop(slow);
    until("the other is still there", || connections.count() == 1).await;
    server.stop().await;
}
