//! Readers of a session that stop reading, against the real binary. `cargo bench --bench slow_readers` is the same for
//! as long as people's networks stand still, among a thousand others.

use futures::future::join_all;
use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    client::SessionClient,
    process::Process,
    ws::{TestClient, within},
};

/// How many messages are said while some do not read, and their length: more than all the buffers on the way to one of
/// them can take.
const MESSAGES: u64 = 600;
const LENGTH: usize = 8 * 1024;
/// What they may make the server's memory grow by, in KiB. What waits for each is at most 64 KiB, or one page of the log;
/// the rest is what the store keeps of 5 MB that it wrote. If all of it waited for them, they would add twice as much.
const GROWTH: u64 = 40 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_stand_still_lose_nothing_cost_little_and_delay_nobody() {
    let folder = TempDir::new().unwrap();
    let process = Process::start(folder.path(), &["--max-queue-bytes", "64KiB", "--rate-limit", "0"]).await;
    let join = async |user: String| {
        let raw = TestClient::narrow(process.address, &process.ws(&user)).await;
        SessionClient::join_on(raw, "s").await
    };
    let mut still = join_all((0..20).map(|n| join(format!("still{n}")))).await;
    let mut quick = join_all((0..3).map(|n| join(format!("quick{n}")))).await;
    let mut ada = SessionClient::join(&process.ws("ada"), "s").await;
    let before = process.peak();

    let said = async {
        for n in 0..MESSAGES {
            ada.ok("send", json!({ "text": format!("{n} {}", "x".repeat(LENGTH)), "answer": false })).await;
        }
    };
    let heard = join_all(quick.iter_mut().map(|quick| quick.until("every message", is_whole)));
    // Those who read have it all before any of the others reads on.
    tokio::join!(said, heard);
    let grown = process.peak() - before;
    assert!(grown < GROWTH, "it grew by {grown} KiB");
    for slow in &mut still {
        // The client's own fold fails on any gap or repeat.
        slow.until("every message", is_whole).await;
        assert!(slow.pages > 0, "it was never behind");
    }
    let grown = process.peak() - before;
    assert!(grown < GROWTH, "it grew by {grown} KiB");
    let last = ada.ok("send", json!({ "text": "live again", "answer": false })).await;
    for reader in still.iter_mut().chain(&mut quick) {
        reader.until("what is live", |reader| last["seq"] == reader.view.last_seq).await;
        let seqs: Vec<_> = reader.events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, (1..=MESSAGES + 1).collect::<Vec<_>>());
    }
    within("the process to end", process.kill()).await;
}

fn is_whole(client: &SessionClient) -> bool {
    client.view.last_seq == MESSAGES
}
