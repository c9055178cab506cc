//! The end of the program: turns that finish in time and turns that do not, what is answered meanwhile, what is left.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::support::{
    client::SessionClient,
    process::Process,
    server::TestServer,
    ws::{TestClient, within},
};

async fn serve(folder: &Path, delay: &str, drain: &str) -> Process {
    Process::start(folder, &["--echo-delay", delay, "--drain-timeout", drain]).await
}

/// A client of `s` with a turn that has begun to say `words` words.
async fn talking(process: &Process, words: usize) -> (SessionClient, Value) {
    let mut ada = SessionClient::join(&process.ws("ada"), "s").await;
    let id = ada.send(&"word ".repeat(words)).await["turn_id"].clone();
    ada.until("words", |ada| ada.answer_of(&id).is_some_and(|text| !text.is_empty())).await;
    (ada, id)
}

/// Takes in what comes until the connection is closed: the code, and whether `draining` came before it.
async fn follow_to_close(client: &mut SessionClient) -> (u16, bool) {
    let mut told = false;
    loop {
        match client.raw.frame_or_close().await {
            Err(code) => return (code, told),
            Ok(frame) => {
                assert!(!told, "nothing follows draining: {frame}");
                told = frame[3] == "draining";
                assert!(!told || frame[4]["reconnect_after_ms"].is_u64(), "{frame}");
                client.take(frame);
            }
        }
    }
}

/// Asks until the status is this one.
async fn until_status(url: &str, status: u16) {
    within("a status", async {
        while reqwest::get(url).await.map_or(0, |response| response.status().as_u16()) != status {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_that_finishes_in_time_is_completed() {
    let folder = TempDir::new().unwrap();
    let mut process = serve(folder.path(), "20ms", "15s").await;
    let (mut ada, id) = talking(&process, 30).await;
    process.signal("TERM").await;
    assert_eq!(follow_to_close(&mut ada).await, (1012, true));
    assert_eq!(process.ended().await.code(), Some(0));
    let process = serve(folder.path(), "20ms", "1s").await;
    ada.return_to(&process.ws("ada")).await;
    assert_eq!(ada.ended(&id).unwrap().status, "completed");
    assert_eq!(ada.answer_of(&id).unwrap(), format!("You said: {}", "word ".repeat(30)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_that_does_not_finish_is_cancelled_for_the_shutdown_and_keeps_what_it_said() {
    let folder = TempDir::new().unwrap();
    let mut process = serve(folder.path(), "30ms", "1s").await;
    let (mut ada, id) = talking(&process, 2_000).await;
    let waiting = ada.ok("send", json!({ "text": "next" })).await["turn_id"].clone();
    let begun = Instant::now();
    process.signal("TERM").await;
    assert_eq!(follow_to_close(&mut ada).await, (1012, true));
    let seen = ada.answer_of(&id).unwrap();
    assert_eq!(process.ended().await.code(), Some(0));
    let took = begun.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(6)).contains(&took), "{took:?}");
    let process = serve(folder.path(), "0", "1s").await;
    ada.return_to(&process.ws("ada")).await;
    let turn = ada.ended(&id).unwrap();
    assert_eq!((turn.status.as_str(), turn.reason.as_deref()), ("cancelled", Some("shutdown")));
    let kept = ada.answer_of(&id).unwrap();
    assert!(kept.starts_with(&seen) && kept.len() > 100, "{kept:?}");
    let by = ada.events.iter().find(|event| event["type"] == "turn_cancelled").unwrap();
    assert!(by["by"].is_null(), "nobody asked for it: {by}");
    assert_eq!(ada.end_of(&waiting).await, "completed", "what waited runs on the next server");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_nothing_running_the_end_comes_at_once() {
    let folder = TempDir::new().unwrap();
    let mut process = serve(folder.path(), "0", "20s").await;
    let (mut ada, id) = talking(&process, 3).await;
    assert_eq!(ada.end_of(&id).await, "completed");
    let begun = Instant::now();
    process.signal("INT").await;
    assert_eq!(follow_to_close(&mut ada).await, (1012, true));
    assert_eq!(process.ended().await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_drains_nothing_begins_but_cancels_and_reads_go_on() {
    let folder = TempDir::new().unwrap();
    let mut process = serve(folder.path(), "30ms", "20s").await;
    let (mut ada, id) = talking(&process, 2_000).await;
    let turn = id.as_str().unwrap().to_owned();
    let (http, turns) = (reqwest::Client::new(), process.http(&format!("/api/sessions/s/turns/{turn}")));
    process.signal("TERM").await;
    until_status(&process.http("/readyz"), 503).await;
    assert_eq!(reqwest::get(process.http("/healthz")).await.unwrap().status(), 200);
    for (url, body) in [
        (process.http("/api/sessions/s/messages"), json!({ "text": "late" })),
        (process.http("/api/sessions/new/messages"), json!({ "text": "late" })),
        (format!("{turns}/retry"), json!({})),
    ] {
        let request = http.post(&url).header("content-type", "application/json").body(body.to_string());
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 503, "{url}");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert!(response.headers().contains_key("retry-after"));
        let problem: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!(problem["code"], "draining", "{problem}");
    }
    let upgrade = http.get(process.http("/socket/websocket?vsn=2.0.0")).header("connection", "upgrade");
    let upgrade = upgrade.header("upgrade", "websocket").header("sec-websocket-version", "13");
    let response = upgrade.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==").send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(TestClient::refused(process.ws("ben")).await, 503);
    let look = reqwest::get(process.http("/api/sessions/s")).await.unwrap().text().await.unwrap();
    let look: Value = serde_json::from_str(&look).unwrap();
    assert_eq!((&look["turns"][0]["id"], &look["turns"][0]["status"]), (&id, &json!("running")));
    assert_eq!(
        reqwest::get(process.http("/api/sessions/new")).await.unwrap().status(),
        404,
        "a refused send left nothing"
    );
    let begun = Instant::now();
    let request = http.post(format!("{turns}/cancel")).header("content-type", "application/json").body("{}");
    let answer: Value = serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap();
    assert_eq!((&answer["outcome"], &answer["reason"]), (&json!("cancelled"), &json!("user")));
    assert_eq!(process.ended().await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(6), "nothing runs any more: {:?}", begun.elapsed());
    follow_to_close(&mut ada).await;
    let process = serve(folder.path(), "0", "1s").await;
    ada.return_to(&process.ws("ada")).await;
    assert_eq!(ada.ended(&id).unwrap().reason.as_deref(), Some("user"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_drains_a_channel_says_so() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let first = ada.send("x").await["turn_id"].clone();
    script.turn().await.done().await;
    assert_eq!(ada.end_of(&first).await, "completed");
    let id = ada.send("y").await["turn_id"].clone();
    let turn = script.turn().await;
    server.server.sessions().drain().await;
    assert_eq!(ada.refused("send", json!({ "text": "late" })).await, "draining");
    assert_eq!(ada.refused("send", json!({ "text": "late", "answer": false })).await, "draining");
    assert_eq!(ada.refused("retry", json!({ "turn_id": first })).await, "draining");
    let page = ada.ok("history", json!({ "before": 100 })).await;
    assert_eq!(page["messages"].as_array().unwrap().len(), 3);
    let mut ben = SessionClient::join(&server.ws("ben"), "s").await;
    turn.say("still going").await;
    ben.until("words", |ben| ben.answer_of(&id).is_some_and(|text| !text.is_empty())).await;
    assert_eq!(ben.ok("cancel", json!({ "turn_id": id })).await["outcome"], "cancelled");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_at_once() {
    let folder = TempDir::new().unwrap();
    let mut process = serve(folder.path(), "30ms", "20s").await;
    let (mut ada, id) = talking(&process, 2_000).await;
    process.signal("TERM").await;
    until_status(&process.http("/readyz"), 503).await;
    let begun = Instant::now();
    process.signal("INT").await;
    // Not a clean drain: whoever waits for one must not be told that it was.
    assert_eq!(process.ended().await.code(), Some(1));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let process = serve(folder.path(), "0", "1s").await;
    ada.return_to(&process.ws("ada")).await;
    assert_eq!(ada.ended(&id).unwrap().status, "cancelled");
}
