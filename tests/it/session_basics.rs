//! The main job, from the outside: send, stream, return, cancel, retry, queue.

use serde_json::json;

use crate::support::{client::SessionClient, server::TestServer};

#[tokio::test]
async fn a_send_streams_into_two_windows_and_a_refresh_in_the_middle_loses_nothing() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let mut ben = SessionClient::join(&server.ws("ben"), "s").await;
    let sent = ada.send("Hello?").await;
    let turn = script.turn().await;
    turn.say("Good ").await;
    let id = sent["turn_id"].clone();
    ben.until("the first words", |ben| ben.answer_of(&id).as_deref() == Some("Good ")).await;
    // A refresh: a new window knows nothing, a returning one what it held.
    let mut window = SessionClient::join(&server.ws("ben"), "s").await;
    assert_eq!(window.joined["replay"]["reason"], "first_join");
    assert_eq!(window.answer_of(&id).as_deref(), Some("Good "));
    assert_eq!(window.joined["turns"][0]["owner"]["liveness"], "alive");
    turn.say("morning").await;
    turn.done().await;
    ben.return_to(&server.ws("ben")).await;
    for client in [&mut ada, &mut ben, &mut window] {
        assert_eq!(client.end_of(&id).await, "completed");
        assert_eq!(client.answer_of(&id).as_deref(), Some("Good morning"));
    }
    assert_eq!(ada.view.messages, ben.view.messages);
    assert_eq!(ada.view.messages, window.view.messages);
    server.stop().await;
}

#[tokio::test]
async fn a_cancel_ends_the_turn_with_its_partial_and_drops_the_agents_work() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let sent = ada.send("Count.").await;
    let turn = script.turn().await;
    turn.say("One").await;
    let id = sent["turn_id"].clone();
    ada.until("a word", |ada| ada.answer_of(&id).is_some_and(|text| !text.is_empty())).await;
    let answer = ada.ok("cancel", json!({ "turn_id": id })).await;
    assert_eq!(answer, json!({ "outcome": "cancelled", "status": "cancelled", "reason": "user" }));
    turn.dropped().await;
    assert_eq!(ada.end_of(&id).await, "cancelled");
    assert_eq!(ada.answer_of(&id).as_deref(), Some("One"));
    let again = ada.ok("cancel", json!({ "turn_id": id })).await;
    assert_eq!(again["outcome"], "already_ended");
    let retried = ada.ok("retry", json!({ "turn_id": id })).await;
    assert_eq!((&retried["attempt"], &retried["duplicate"]), (&json!(2), &json!(false)));
    script.turn().await.done().await;
    assert_eq!(ada.end_of(&retried["turn_id"]).await, "completed");
    server.stop().await;
}

#[tokio::test]
async fn queued_turns_run_in_order_and_show_their_positions() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let mut ids = Vec::new();
    for text in ["one", "two", "three"] {
        ids.push(ada.send(text).await["turn_id"].clone());
    }
    ada.until("the queue", |ada| ada.view.turns.len() == 3).await;
    assert_eq!(ada.view.turns.iter().map(|turn| turn.position).collect::<Vec<_>>(), [None, Some(1), Some(2)]);
    for id in &ids {
        let turn = script.turn().await;
        assert_eq!(id, turn.context.turn.id.as_str());
        turn.done().await;
        assert_eq!(ada.end_of(id).await, "completed");
    }
    assert!(script.is_idle());
    server.stop().await;
}
