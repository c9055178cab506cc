//! What an agent is asked with, and what happens when that cannot be read at once.

use std::sync::{Arc, atomic::Ordering};

use rejoin::{model::MessageStatus, pubsub::Local};
use serde_json::json;

use crate::support::{
    client::SessionClient,
    cluster::{ClusterNode, SharedStore, somebody},
    script::scripted,
    server::TestServer,
};

#[tokio::test]
async fn a_context_shows_the_session_the_turn_and_which_answer_was_cut() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join_at(&server, "ada", "s").await;
    ada.ok("update", json!({ "title": "Plans", "metadata": { "team": 7 } })).await;
    let first = ada.send("one").await;
    let turn = script.turn().await;
    turn.say("half").await;
    turn.fail("broken").await;
    ada.end_of(&first["turn_id"]).await;
    let second = ada.send("two").await;
    let turn = script.turn().await;
    let context = &turn.context;
    assert_eq!((context.session.id.as_str(), context.session.title.as_deref()), ("s", Some("Plans")));
    assert_eq!(
        (context.session.metadata.get(), &json!(context.session.epoch)),
        (r#"{"team":7}"#, &ada.joined["session"]["epoch"])
    );
    assert_eq!(json!(context.turn.prompt_id), second["message_id"]);
    assert_eq!((context.turn.attempt, context.turn.by.id.as_str(), context.turn.retry_of.as_ref()), (1, "ada", None));
    let said: Vec<_> = context.messages.iter().map(|message| (message.plain_text(), message.status)).collect();
    let expected = [
        ("one".to_owned(), MessageStatus::Complete),
        ("half".to_owned(), MessageStatus::Partial),
        ("two".to_owned(), MessageStatus::Complete),
    ];
    assert_eq!(said, expected);
    turn.done().await;
    ada.end_of(&second["turn_id"]).await;
    let again = ada.ok("retry", json!({ "turn_id": second["turn_id"] })).await;
    let context = script.turn().await.context;
    assert_eq!((json!(context.turn.id), context.turn.attempt), (again["turn_id"].clone(), 2));
    assert_eq!(json!(context.turn.retry_of), second["turn_id"]);
    server.stop().await;
}

#[tokio::test]
async fn o1_a_context_that_meets_an_outage_of_the_store_is_read_again() {
    let store = SharedStore::open().await;
    let (agents, mut script) = scripted();
    let node = ClusterNode::start(&store, Arc::new(Local::new()), agents).await;
    node.join("s").await;
    store.away.store(3, Ordering::SeqCst);
    let turn = node.send("s", "hi", true).await.unwrap();
    let asked = script.turn().await;
    assert_eq!((asked.context.turn.id.as_str(), store.away.load(Ordering::SeqCst)), (turn.as_str(), 0));
    asked.done().await;
    node.stop().await;
}

#[tokio::test]
async fn o1_a_turn_whose_context_cannot_be_read_is_cancelled_like_any_other() {
    let store = SharedStore::open().await;
    let (agents, mut script) = scripted();
    let node = ClusterNode::start(&store, Arc::new(Local::new()), agents).await;
    node.join("s").await;
    store.away.store(usize::MAX, Ordering::SeqCst);
    let turn = node.send("s", "hi", true).await.unwrap();
    let answer = node.sessions.cancel("s", somebody(), turn).await.unwrap();
    assert_eq!(answer.outcome, "cancelled");
    assert!(script.is_idle(), "no agent was asked");
    node.stop().await;
}
