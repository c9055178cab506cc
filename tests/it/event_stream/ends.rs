//! How a stream ends, and what its reader is told before.

use serde_json::json;

use super::url;
use crate::support::{
    client::SessionClient,
    server::TestServer,
    sse::{Listener, Stream, ask},
    ws::{until, within},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_tells_when_to_come_back_and_ends_the_stream() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join_at(&server, "ada", "s").await;
    let mut listeners = Vec::new();
    for _ in 0..20 {
        listeners.push(Listener::open(&url(&server, "s")).await);
    }
    ada.send("go").await;
    let turn = script.turn().await;
    turn.say("a word").await;
    let address = url(&server, "s");
    let stop = tokio::spawn(server.stop());
    // While it drains, whoever comes is asked to come again.
    until_told(&address).await;
    let mut told = Vec::new();
    for listener in &mut listeners {
        within("the end of the stream", async { while listener.step().await {} }).await;
        told.push(listener.stream.retry.unwrap());
        assert_eq!(listener.view.messages.len(), 2, "what was said before");
    }
    assert!(told.iter().all(|ms| (100..=5_100).contains(ms)), "{told:?}");
    told.sort_unstable();
    told.dedup();
    assert!(told.len() > 10, "spread: {told:?}");
    turn.done().await;
    within("the server's end", stop).await.unwrap();
}

async fn until_told(url: &str) {
    within("an answer of a server that drains", async {
        loop {
            let answer = ask(url, None).await;
            let mut stream = answer.bytes_stream();
            let first = futures::StreamExt::next(&mut stream).await.unwrap().unwrap();
            if &*first == b"retry: 1000\n\n" {
                assert!(futures::StreamExt::next(&mut stream).await.is_none(), "and it ends");
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_is_ended_by_an_operator_ends_the_stream() {
    let (server, _script) = TestServer::start().await;
    SessionClient::join_at(&server, "ada", "s").await;
    let mut stream = Stream::open(&url(&server, "s")).await;
    stream.next().await;
    until("the others have gone", || server.server.connections().count() == 1).await;
    assert_eq!(server.server.connections().disconnect(|identity| identity.person.id == "eve"), 1);
    assert_eq!(stream.try_next().await, None);
    until("it is counted no more", || server.server.connections().count() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn a_reader_that_goes_away_is_counted_no_more() {
    let (server, _script) = TestServer::start().await;
    let ada = SessionClient::join_at(&server, "ada", "s").await;
    let mut readers = Vec::new();
    for _ in 0..10 {
        let mut stream = Stream::open(&url(&server, "s")).await;
        stream.next().await;
        readers.push(stream);
    }
    assert_eq!(server.server.connections().count(), 11);
    drop(readers);
    until("they are gone", || server.server.connections().count() == 1).await;
    drop(ada);
    server.stop().await;
}

#[tokio::test]
async fn l11_a_log_that_is_another_ends_the_stream_and_its_reader_gets_a_snapshot() {
    let (server, _script) = TestServer::start().await;
    let mut ada = SessionClient::join_at(&server, "ada", "s").await;
    ada.ok("send", json!({ "text": "before", "answer": false })).await;
    let listener = Listener::open(&url(&server, "s")).await;
    let last_id = listener.stream.last_id.clone();
    let folder = server.stop().await;
    let config = super::super::support::server::config(folder.path());
    rejoin::server::migrate(&config, true).await.unwrap();
    let server = TestServer::start_in(folder, crate::support::script::scripted().0, |_| {}).await;
    let mut stream = Stream::resume(&url(&server, "s"), &last_id).await;
    let joined = stream.next().await;
    assert_eq!(joined.data["replay"]["reason"], "epoch_changed");
    assert_ne!(joined.id.unwrap(), last_id);
    server.stop().await;
}
