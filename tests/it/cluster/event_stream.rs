//! Readers of event streams while their node dies.

use serde_json::Value;

use crate::support::{
    fleet::{Fleet, Plan},
    sse::Listener,
};

fn url(cluster: &Fleet, node: usize) -> String {
    format!("http://127.0.0.1:{}/api/sessions/s/events", cluster.clients(node).port())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_stream_goes_on_at_another_node() {
    let mut cluster = Fleet::start(Plan::patient(3)).await;
    let turn = cluster.turn(0, "s", 600).await;
    let mut listener = Listener::open(&url(&cluster, 1)).await;
    let held = listener.view.last_seq;
    listener.until("some words", |view| view.last_seq > held + 5).await;
    cluster.kill(1).await;
    while listener.step().await {}
    let held = listener.view.last_seq;
    listener = listener.resume(&url(&cluster, 2)).await;
    assert_eq!(listener.joined["replay"]["mode"], "replay");
    listener.until("more words", |view| view.last_seq > held + 5).await;
    cluster.post(2, &format!("s/turns/{turn}/cancel"), Value::Object(Default::default())).await;
    listener.until("the end", |view| view.ended.len() == 1).await;
    let answer = listener.view.messages.last().unwrap().plain_text();
    let words = format!("You said: {}", "word ".repeat(600));
    assert!(answer.len() > 20 && words.starts_with(&answer), "{answer}");
}
