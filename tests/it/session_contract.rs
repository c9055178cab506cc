//! Every push and event of a session, field by field, as its users read the description of them.

use std::time::Duration;

use rejoin::{
    agent::Output,
    model::{PartKind, Person},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    client::SessionClient,
    http::{Http, keys},
    script::Script,
    server::TestServer,
    ws::{TestClient, within},
};

const MESSAGE: [&str; 8] = ["author", "created_at", "id", "parts", "role", "seq", "status", "turn_id"];
/// `ended_by` is beside the others for those who want to show who stopped a turn.
const TURN: [&str; 17] = [
    "agent",
    "attempt",
    "by",
    "ended_at",
    "ended_by",
    "error",
    "id",
    "owner",
    "position",
    "prompt_id",
    "queued_at",
    "reason",
    "reply_id",
    "retry_of",
    "started_at",
    "status",
    "usage",
];
const SESSION: [&str; 9] =
    ["created_at", "epoch", "id", "last_seq", "max_running", "metadata", "status", "title", "updated_at"];
const EVENT: [&str; 6] = ["at", "by", "data", "seq", "turn_id", "type"];

fn check_time(value: &Value) {
    let text = value.as_str().unwrap_or_else(|| panic!("no time: {value}"));
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z");
}

fn check_uuid(value: &Value) {
    assert!(uuid::Uuid::parse_str(value.as_str().unwrap()).is_ok(), "{value}");
}

fn check_message(message: &Value) {
    assert_eq!(keys(message), MESSAGE, "{message}");
    check_time(&message["created_at"]);
    assert_eq!(keys(&message["author"]), ["id", "name"]);
}

fn check_turn(turn: &Value) {
    assert_eq!(keys(turn), TURN, "{turn}");
    check_time(&turn["queued_at"]);
    for id in ["id", "reply_id"] {
        check_uuid(&turn[id]);
    }
    if !turn["owner"].is_null() {
        assert_eq!(keys(&turn["owner"]), ["incarnation", "liveness", "node"]);
    }
}

/// An event of this type with these keys of data: its data.
fn check_event<'a>(event: &'a Value, kind: &str, data: &[&str]) -> &'a Value {
    assert_eq!((keys(event), &event["type"]), (EVENT.to_vec(), &kind.into()), "{event}");
    assert_eq!(keys(&event["data"]), data, "{event}");
    check_time(&event["at"]);
    &event["data"]
}

/// The events of a turn, as one client has seen them.
fn of_turn<'a>(client: &'a SessionClient, turn_id: &Value) -> Vec<&'a Value> {
    client.events.iter().filter(|event| event["turn_id"] == *turn_id).collect()
}

fn turn_ids(turns: &Value) -> Vec<&Value> {
    turns.as_array().unwrap().iter().map(|turn| &turn["id"]).collect()
}

/// One answer of the agent from its start to its end.
async fn answer(script: &mut Script, text: &str) {
    let turn = script.turn().await;
    turn.say(text).await;
    turn.done().await;
}

#[tokio::test]
async fn a_join_reply_has_exactly_its_keys_in_both_modes() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    assert_eq!(keys(&ada.joined), ["node", "replay", "session", "turns"]);
    assert_eq!(keys(&ada.joined["session"]), SESSION);
    assert_eq!(keys(&ada.joined["node"]), ["incarnation", "name"]);
    assert_eq!(ada.joined["node"]["name"], "test");
    let session = &ada.joined["session"];
    assert_eq!(
        (&session["status"], &session["last_seq"], &session["title"]),
        (&"idle".into(), &0.into(), &Value::Null)
    );
    assert_eq!((&session["metadata"], &session["max_running"]), (&json!({}), &1.into()));
    check_time(&session["created_at"]);
    check_time(&session["updated_at"]);
    let empty = json!({ "mode": "snapshot", "reason": "first_join", "to": 0, "messages": [], "ended": [], "before": 1,
        "has_more": false });
    assert_eq!(ada.joined["replay"], empty);
    let running = ada.send("one").await["turn_id"].clone();
    let queued = ada.send("two").await["turn_id"].clone();
    let turn = script.turn().await;
    turn.say("so far").await;
    ada.until("a word", |ada| ada.answer_of(&running).as_deref() == Some("so far")).await;
    let ben = SessionClient::join(&server.ws("ben"), "s").await.joined;
    assert_eq!(ben["session"]["status"], "running");
    assert_eq!(turn_ids(&ben["turns"]), [&running, &queued], "the running one, then the queue");
    ben["turns"].as_array().unwrap().iter().for_each(check_turn);
    let (first, second) = (&ben["turns"][0], &ben["turns"][1]);
    assert_eq!(
        first["owner"],
        json!({ "node": "test", "incarnation": ben["node"]["incarnation"], "liveness": "alive" })
    );
    assert_eq!((&first["position"], &second["position"], &second["owner"]), (&Value::Null, &1.into(), &Value::Null));
    assert_eq!(keys(&ben["replay"]), ["before", "ended", "has_more", "messages", "mode", "reason", "to"]);
    let messages = ben["replay"]["messages"].as_array().unwrap();
    messages.iter().for_each(check_message);
    let streaming = messages.iter().find(|message| message["status"] == "streaming").unwrap();
    assert_eq!((&streaming["id"], &streaming["turn_id"]), (&first["reply_id"], &running));
    assert_eq!(streaming["parts"], json!([{ "kind": "text", "text": "so far" }]));
    assert_eq!(streaming["author"], json!({ "id": "agent:script", "name": "script" }));
    let seqs: Vec<u64> = messages.iter().map(|message| message["seq"].as_u64().unwrap()).collect();
    assert!(seqs.is_sorted(), "oldest first: {seqs:?}");
    let cursor = json!({ "last_seq": 0, "epoch": ben["session"]["epoch"] });
    let mut raw = TestClient::connect(server.ws("cy")).await;
    raw.frame(json!(["11", "1", "session:s", "phx_join", cursor])).await;
    let cy = raw.next().await[4]["response"].clone();
    assert_eq!((keys(&cy), keys(&cy["session"])), (vec!["node", "replay", "session", "turns"], SESSION.to_vec()));
    assert_eq!(keys(&cy["replay"]), ["events", "from", "mode", "to"]);
    assert_eq!((&cy["replay"]["from"], &cy["replay"]["to"]), (&0.into(), &cy["session"]["last_seq"]));
    drop(turn);
    server.stop().await;
}

#[tokio::test]
async fn the_events_of_an_answer_have_exactly_their_keys() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let sent = ada.ok("send", json!({ "text": "Hello?" })).await;
    assert_eq!(keys(&sent), ["duplicate", "message_id", "seq", "turn_id"]);
    check_uuid(&sent["message_id"]);
    check_uuid(&sent["turn_id"]);
    let turn = script.turn().await;
    turn.say("Good").await;
    ada.until("a word", |ada| ada.types().contains(&"turn_delta")).await;
    turn.delta(1, PartKind::ToolCall, None, Some(r#"{"name":"dice"}"#)).await;
    let usage = serde_json::value::RawValue::from_string(r#"{"tokens":3}"#.to_owned()).unwrap();
    turn.line(Ok(Output::Done { usage: Some(usage) })).await;
    assert_eq!(ada.end_of(&sent["turn_id"]).await, "completed");
    let by = json!({ "id": "ada", "name": "ada" });
    assert_eq!(ada.types(), ["message_added", "turn_started", "turn_delta", "turn_delta", "turn_completed"]);
    let data = check_event(&ada.events[0], "message_added", &["message"]);
    check_message(&data["message"]);
    assert_eq!(
        (&ada.events[0]["by"], &ada.events[0]["turn_id"], &ada.events[0]["seq"]),
        (&by, &Value::Null, &sent["seq"])
    );
    let message = &data["message"];
    assert_eq!((&message["id"], &message["seq"], &message["author"]), (&sent["message_id"], &sent["seq"], &by));
    assert_eq!(
        (&message["role"], &message["status"], &message["turn_id"]),
        (&"user".into(), &"complete".into(), &Value::Null)
    );
    assert_eq!(message["parts"], json!([{ "kind": "text", "text": "Hello?" }]));
    let data = check_event(&ada.events[1], "turn_started", &["turn"]);
    check_turn(&data["turn"]);
    assert_eq!((&ada.events[1]["by"], &ada.events[1]["turn_id"]), (&by, &sent["turn_id"]));
    assert_eq!((&data["turn"]["id"], &data["turn"]["prompt_id"]), (&sent["turn_id"], &sent["message_id"]));
    assert_eq!(
        (&data["turn"]["status"], &data["turn"]["by"], &data["turn"]["attempt"]),
        (&"running".into(), &by, &1.into())
    );
    check_time(&data["turn"]["started_at"]);
    let data = check_event(&ada.events[2], "turn_delta", &["kind", "part", "text"]);
    assert_eq!((data, &ada.events[2]["by"]), (&json!({ "part": 0, "kind": "text", "text": "Good" }), &Value::Null));
    let data = check_event(&ada.events[3], "turn_delta", &["kind", "part", "value"]);
    assert_eq!(data, &json!({ "part": 1, "kind": "tool_call", "value": { "name": "dice" } }));
    let data = check_event(&ada.events[4], "turn_completed", &["message", "usage"]);
    check_message(&data["message"]);
    let (message, started) = (&data["message"], &ada.events[1]);
    assert_eq!((&message["id"], &message["seq"]), (&started["data"]["turn"]["reply_id"], &started["seq"]));
    assert_eq!(
        (&message["status"], &message["role"], &data["usage"]),
        (&"complete".into(), &"assistant".into(), &json!({ "tokens": 3 }))
    );
    assert_eq!(message["parts"][1], json!({ "kind": "tool_call", "value": { "name": "dice" } }));
    // An answer that says nothing is complete all the same, and has no usage.
    let silent = ada.send("And?").await["turn_id"].clone();
    script.turn().await.done().await;
    assert_eq!(ada.end_of(&silent).await, "completed");
    let data = check_event(ada.events.last().unwrap(), "turn_completed", &["message", "usage"]);
    assert_eq!((&data["usage"], &data["message"]["parts"]), (&Value::Null, &json!([])));
    server.stop().await;
}

#[tokio::test]
async fn failed_and_cancelled_turns_say_why_and_keep_what_was_streamed() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    for (said, fails) in [("half", true), ("", true), ("half", false), ("", false)] {
        let id = ada.send("Hello?").await["turn_id"].clone();
        let turn = script.turn().await;
        if !said.is_empty() {
            turn.say(said).await;
            ada.until("a word", |ada| ada.answer_of(&id).as_deref() == Some(said)).await;
        }
        if fails {
            turn.fail("agent_error").await;
        } else {
            ada.ok("cancel", json!({ "turn_id": id })).await;
        }
        ada.end_of(&id).await;
        let event = ada.events.last().unwrap();
        let data = if fails {
            let data = check_event(event, "turn_failed", &["error", "message"]);
            assert_eq!(
                data["error"],
                json!({ "code": "agent_error", "message": "as the test says", "retryable": true })
            );
            assert_eq!(event["by"], Value::Null);
            data
        } else {
            let data = check_event(event, "turn_cancelled", &["message", "reason"]);
            assert_eq!((&data["reason"], &event["by"]["id"]), (&"user".into(), &"ada".into()));
            data
        };
        let fresh = SessionClient::join(&server.ws("ben"), "s").await;
        if said.is_empty() {
            assert_eq!((&data["message"], fresh.answer_of(&id)), (&Value::Null, None));
        } else {
            check_message(&data["message"]);
            assert_eq!(
                (&data["message"]["status"], &data["message"]["parts"][0]["text"]),
                (&"partial".into(), &said.into())
            );
        }
        assert_eq!(fresh.view.messages, ada.view.messages);
        let ended = fresh.joined["replay"]["ended"].as_array().unwrap().iter().find(|turn| turn["id"] == id).unwrap();
        check_turn(ended);
        check_time(&ended["ended_at"]);
        assert_eq!((&ended["owner"], &ended["position"]), (&Value::Null, &Value::Null));
        let (reason, error) = if fails { (Value::Null, data["error"].clone()) } else { ("user".into(), Value::Null) };
        assert_eq!((&ended["reason"], &ended["error"]), (&reason, &error));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_message_without_an_answer_is_only_added() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let parts = json!([
        { "kind": "text", "text": "look" },
        { "kind": "data", "value": { "image": "a.png", "size": 1.50 } },
        { "kind": "tool_result", "text": "both", "value": [1] },
        { "kind": "reasoning", "text": "" },
    ]);
    let sent = ada.ok("send", json!({ "id": "note", "parts": parts, "answer": false })).await;
    assert_eq!(sent, json!({ "message_id": "note", "turn_id": null, "seq": 1, "duplicate": false }));
    let again = ada.ok("send", json!({ "id": "note", "parts": parts, "answer": false })).await;
    assert_eq!(again, json!({ "message_id": "note", "turn_id": null, "seq": 1, "duplicate": true }));
    ada.until("the message", |ada| !ada.events.is_empty()).await;
    assert_eq!(ada.events[0]["data"]["message"]["parts"], parts);
    ada.ok("presence", json!({})).await;
    assert_eq!((ada.types(), script.is_idle()), (vec!["message_added"], true));
    server.stop().await;
}

#[tokio::test]
async fn sends_of_one_id_at_once_make_one_message_and_one_turn() {
    let (server, mut script) = TestServer::start().await;
    let mut tabs = Vec::new();
    for _ in 0..8 {
        tabs.push(SessionClient::join(&server.ws("ada"), "s").await);
    }
    let mut references = Vec::new();
    for tab in &mut tabs {
        references.push(tab.push("send", json!({ "id": "m", "text": "once" })).await);
    }
    let mut answers = Vec::new();
    for (tab, reference) in tabs.iter_mut().zip(&references) {
        let (status, response) = tab.answer(reference).await;
        assert_eq!(status, "ok", "{response}");
        answers.push(response);
    }
    assert_eq!(answers.iter().filter(|answer| answer["duplicate"] == false).count(), 1, "{answers:?}");
    assert!(answers.iter().all(|answer| (&answer["turn_id"], &answer["seq"]) == (&answers[0]["turn_id"], &1.into())));
    script.turn().await.done().await;
    for tab in &mut tabs {
        tab.end_of(&answers[0]["turn_id"]).await;
        assert_eq!(tab.types(), ["message_added", "turn_started", "turn_completed"]);
    }
    assert!(script.is_idle());
    server.stop().await;
}

#[tokio::test]
async fn an_agent_answers_by_its_name_and_an_unknown_one_is_refused_without_a_trace() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let id = ada.ok("send", json!({ "text": "hi", "agent": "other" })).await["turn_id"].clone();
    let turn = script.turn().await;
    assert_eq!(turn.context.turn.agent, "other");
    turn.say("hello").await;
    turn.done().await;
    ada.end_of(&id).await;
    assert_eq!(ada.view.messages.last().unwrap().author, Some(Person::agent("other")));
    let before = ada.view.last_seq;
    assert_eq!(ada.refused("send", json!({ "id": "x", "text": "hi", "agent": "nobody" })).await, "invalid");
    assert_eq!(ada.ok("send", json!({ "id": "x", "text": "hi", "answer": false })).await["duplicate"], false);
    ada.until("the message", |ada| ada.view.last_seq > before).await;
    assert_eq!(ada.view.last_seq, before + 1);
    let retried = ada.ok("retry", json!({ "turn_id": id })).await;
    assert_eq!(script.turn().await.context.turn.agent, "other", "a retry asks the same agent");
    ada.ok("cancel", json!({ "turn_id": retried["turn_id"] })).await;
    server.stop().await;
}

#[tokio::test]
async fn when_busy_queues_rejects_or_interrupts() {
    let (server, mut script) = TestServer::start_with(|config| config.max_queue = 2).await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let first = ada.send("one").await["turn_id"].clone();
    let turn = script.turn().await;
    turn.say("I").await;
    ada.until("a word", |ada| ada.answer_of(&first).as_deref() == Some("I")).await;
    assert_eq!(ada.refused("send", json!({ "id": "r", "text": "now", "when_busy": "reject" })).await, "busy");
    let second = ada.ok("send", json!({ "text": "two", "when_busy": "queue" })).await["turn_id"].clone();
    ada.until("the queue", |ada| ada.view.turns.len() == 2).await;
    let queued = of_turn(&ada, &second)[0].clone();
    let data = check_event(&queued, "turn_queued", &["turn"]);
    check_turn(&data["turn"]);
    assert_eq!((&data["turn"]["status"], &data["turn"]["position"]), (&"queued".into(), &1.into()));
    assert_eq!((&data["turn"]["owner"], &data["turn"]["started_at"]), (&Value::Null, &Value::Null));
    let head = ada.ok("send", json!({ "text": "stop that", "when_busy": "interrupt" })).await["turn_id"].clone();
    turn.dropped().await;
    assert_eq!(ada.end_of(&first).await, "cancelled");
    let end = of_turn(&ada, &first).last().copied().unwrap();
    assert_eq!(
        (&end["data"]["reason"], &end["data"]["message"]["parts"][0]["text"]),
        (&"superseded".into(), &"I".into())
    );
    let next = script.turn().await;
    assert_eq!(head, next.context.turn.id.as_str(), "an interrupt goes before the queue");
    let ids: Vec<_> = ada.view.turns.iter().map(|turn| turn.id.clone()).collect();
    assert_eq!(ids, [head.as_str().unwrap(), second.as_str().unwrap()]);
    ada.send("three").await;
    assert_eq!(ada.refused("send", json!({ "text": "four" })).await, "queue_full");
    assert_eq!(ada.refused("send", json!({ "id": "r", "text": "now", "when_busy": "reject" })).await, "busy");
    ada.ok("send", json!({ "text": "aside", "answer": false, "when_busy": "reject" })).await;
    next.done().await;
    let last = script.turn().await;
    assert_eq!(second, last.context.turn.id.as_str());
    drop(last);
    server.stop().await;
}

#[tokio::test]
async fn an_interrupt_cancels_the_oldest_and_no_more_than_it_needs() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    assert_eq!(ada.ok("update", json!({ "max_running": 2 })).await, json!({}));
    let mut ids = Vec::new();
    let mut running = Vec::new();
    for text in ["one", "two"] {
        ids.push(ada.send(text).await["turn_id"].clone());
        running.push(script.turn().await);
    }
    let third = ada.ok("send", json!({ "text": "three", "when_busy": "interrupt" })).await["turn_id"].clone();
    running[0].dropped().await;
    assert_eq!(third, script.turn().await.context.turn.id.as_str());
    assert_eq!(ada.end_of(&ids[0]).await, "cancelled");
    running[1].say("still here").await;
    ada.until("the other's word", |ada| ada.answer_of(&ids[1]).as_deref() == Some("still here")).await;
    server.stop().await;
}

#[tokio::test]
async fn cancels_and_retries_answer_exactly_what_happened() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let first = ada.send("one").await["turn_id"].clone();
    let second = ada.send("two").await["turn_id"].clone();
    let turn = script.turn().await;
    let cancelled = json!({ "outcome": "cancelled", "status": "cancelled", "reason": "user" });
    assert_eq!(ada.ok("cancel", json!({ "turn_id": second })).await, cancelled);
    ada.end_of(&second).await;
    let end = of_turn(&ada, &second).last().copied().unwrap().clone();
    assert_eq!(check_event(&end, "turn_cancelled", &["message", "reason"])["message"], Value::Null);
    let already = json!({ "outcome": "already_ended", "status": "cancelled", "reason": "user" });
    assert_eq!(ada.ok("cancel", json!({ "turn_id": second })).await, already);
    let running = ada.ok("retry", json!({ "turn_id": first })).await;
    assert_eq!(running, json!({ "turn_id": first, "attempt": 1, "duplicate": true }), "it runs already");
    turn.fail("agent_error").await;
    ada.end_of(&first).await;
    let failed = ada.ok("cancel", json!({ "turn_id": first })).await;
    assert_eq!(failed, json!({ "outcome": "already_ended", "status": "failed", "reason": null }));
    let retried = ada.ok("retry", json!({ "turn_id": first })).await;
    assert_eq!(keys(&retried), ["attempt", "duplicate", "turn_id"]);
    assert_eq!((&retried["attempt"], &retried["duplicate"]), (&2.into(), &false.into()));
    let turn = script.turn().await;
    let again = ada.ok("retry", json!({ "turn_id": first })).await;
    assert_eq!(again, json!({ "turn_id": retried["turn_id"], "attempt": 2, "duplicate": true }));
    let queued = ada.ok("retry", json!({ "turn_id": second })).await;
    let again = ada.ok("retry", json!({ "turn_id": second })).await;
    assert_eq!(again, json!({ "turn_id": queued["turn_id"], "attempt": 2, "duplicate": true }), "it waits already");
    turn.done().await;
    ada.end_of(&retried["turn_id"]).await;
    let events = of_turn(&ada, &retried["turn_id"]);
    let (started, original) = (&events[0]["data"]["turn"], of_turn(&ada, &first)[0]["data"]["turn"].clone());
    assert_eq!((&started["retry_of"], &started["prompt_id"]), (&first, &original["prompt_id"]));
    assert_ne!(started["reply_id"], original["reply_id"]);
    script.turn().await.done().await;
    ada.end_of(&queued["turn_id"]).await;
    let third = ada.ok("retry", json!({ "turn_id": first })).await;
    assert_eq!(third["attempt"], 3, "the highest of the prompt and one");
    script.turn().await.done().await;
    ada.end_of(&third["turn_id"]).await;
    // Of each prompt, the newest turn: in a snapshot and in the history alike.
    let fresh = SessionClient::join(&server.ws("ben"), "s").await.joined;
    let history = ada.ok("history", json!({ "before": ada.view.last_seq + 1 })).await;
    for ended in [&fresh["replay"]["ended"], &history["ended"]] {
        let mut ids: Vec<String> = turn_ids(ended).iter().map(ToString::to_string).collect();
        ids.sort();
        let mut newest = [third["turn_id"].to_string(), queued["turn_id"].to_string()];
        newest.sort();
        assert_eq!(ids, newest);
    }
    server.stop().await;
}

#[tokio::test]
async fn broadcasts_reach_everyone_but_the_sender_and_leave_no_trace() {
    let (server, _script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let mut tab = SessionClient::join(&server.ws("ada"), "s").await;
    let mut ben = SessionClient::join(&server.ws("ben"), "s").await;
    let mut elsewhere = SessionClient::join(&server.ws("eve"), "t").await;
    assert_eq!(ada.ok("broadcast", json!({ "event": "typing", "payload": { "on": true } })).await, json!({}));
    for other in [&mut tab, &mut ben] {
        other.until("the broadcast", |other| !other.others.is_empty()).await;
        assert_eq!(other.others.len(), 1);
        let sent = json!({ "event": "typing", "payload": { "on": true }, "by": { "id": "ada", "name": "ada" } });
        assert_eq!(other.others[0], json!([null, null, "session:s", "broadcast", sent]));
    }
    for silent in [&mut ada, &mut elsewhere] {
        silent.ok("presence", json!({})).await;
        assert!(silent.others.is_empty(), "{:?}", silent.others);
    }
    assert_eq!(SessionClient::join(&server.ws("cy"), "s").await.joined["session"]["last_seq"], 0);
    server.stop().await;
}

#[tokio::test]
async fn updates_change_what_they_name_and_tell_everybody() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let metadata = json!({ "a": { "b": [1, 2.50, null] } });
    for (update, title, metadata, max_running) in [
        (json!({ "title": "Plans" }), json!("Plans"), json!({}), 1),
        (json!({ "metadata": metadata }), json!("Plans"), metadata.clone(), 1),
        (json!({ "title": null }), json!(null), metadata.clone(), 1),
        (json!({ "max_running": 2, "metadata": {} }), json!(null), json!({}), 2),
    ] {
        let seen = ada.events.len();
        assert_eq!(ada.ok("update", update).await, json!({}));
        ada.until("the update", |ada| ada.events.len() > seen).await;
        let event = ada.events.last().unwrap();
        let data = check_event(event, "session_updated", &["max_running", "metadata", "title"]);
        assert_eq!(data, &json!({ "title": title, "metadata": metadata, "max_running": max_running }));
        assert_eq!((&event["by"]["id"], &event["turn_id"]), (&"ada".into(), &Value::Null));
        let session = SessionClient::join(&server.ws("ben"), "s").await.joined["session"].clone();
        assert_eq!((&session["title"], &session["metadata"]), (&title, &metadata));
        assert_eq!(session["max_running"], max_running);
    }
    // Raising the number of slots starts what waits at once; lowering it stops nothing.
    let ids = [ada.send("1").await, ada.send("2").await, ada.send("3").await].map(|sent| sent["turn_id"].clone());
    let turns = [script.turn().await, script.turn().await];
    ada.ok("update", json!({ "max_running": 3 })).await;
    let third = script.turn().await;
    assert_eq!(ids[2], third.context.turn.id.as_str());
    ada.ok("update", json!({ "max_running": 1 })).await;
    // Runners begin in any order.
    let mut running: Vec<_> = turns.into_iter().chain([third]).collect();
    for id in &ids {
        let place = running.iter().position(|turn| *id == turn.context.turn.id.as_str()).unwrap();
        running.swap_remove(place).done().await;
        assert_eq!(ada.end_of(id).await, "completed");
    }
    assert_eq!(ada.ok("access_token", json!({ "token": "anything" })).await, json!({}));
    server.stop().await;
}

#[tokio::test]
async fn a_join_that_creates_nothing_finds_nothing() {
    let (server, _script) = TestServer::start().await;
    let mut client = TestClient::connect(server.ws("ada")).await;
    for _ in 0..2 {
        client.frame(json!(["1", "1", "session:s", "phx_join", { "create": false }])).await;
        let reply = client.next().await;
        assert_eq!((&reply[4]["status"], &reply[4]["response"]["reason"]), (&"error".into(), &"not_found".into()));
    }
    let made = SessionClient::join(&server.ws("ada"), "s").await.joined;
    let found = SessionClient::join_with(&server.ws("ada"), "s", json!({ "create": false })).await.joined;
    assert_eq!(found["session"], made["session"]);
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_drains_takes_no_turns_but_lets_people_read_and_cancel() {
    let (server, mut script) = TestServer::start_with(|config| config.drain_timeout = Duration::from_secs(15)).await;
    let http = Http::new(&server.http("/"));
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let ended = ada.send("one").await["turn_id"].clone();
    answer(&mut script, "done").await;
    ada.end_of(&ended).await;
    let id = ada.send("two").await["turn_id"].clone();
    let turn = script.turn().await;
    turn.say("half").await;
    let url = server.ws("late");
    let stopping = tokio::spawn(server.stop());
    within("the drain", async { while http.get("/readyz").await.status != 503 {} }).await;
    assert_eq!(TestClient::refused(url).await, 503);
    http.post("/api/sessions/s/messages", &json!({ "text": "more" })).await.refuses(503, "draining");
    http.post("/api/sessions/new/messages", &json!({ "text": "more" })).await.refuses(503, "draining");
    let retry = format!("/api/sessions/s/turns/{}/retry", ended.as_str().unwrap());
    http.post(&retry, &json!({})).await.refuses(503, "draining");
    assert_eq!(http.get("/api/sessions/s").await.ok(200)["session"]["status"], "running");
    assert_eq!(http.get("/healthz").await.status, 200);
    within("the end of the connection", async {
        while !ada.others.iter().any(|frame| frame[3] == "draining") {
            ada.step().await;
        }
    })
    .await;
    let draining = ada.others.iter().find(|frame| frame[3] == "draining").unwrap();
    assert_eq!(keys(&draining[4]), ["reconnect_after_ms"]);
    assert!(draining[4]["reconnect_after_ms"].is_u64(), "{draining}");
    assert_eq!(ada.raw.close_code().await, 1012);
    let cancel = format!("/api/sessions/s/turns/{}/cancel", id.as_str().unwrap());
    assert_eq!(http.post(&cancel, &json!({})).await.ok(200)["outcome"], "cancelled");
    turn.dropped().await;
    within("the end", stopping).await.unwrap();
}

#[tokio::test]
async fn requests_of_one_channel_take_effect_in_the_order_in_which_they_came() {
    let (server, _script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let mut asked = Vec::new();
    for n in 0..20 {
        asked.push(ada.push("update", json!({ "title": format!("t{n}") })).await);
        asked.push(ada.push("send", json!({ "text": format!("m{n}"), "answer": false })).await);
    }
    for reference in &asked {
        assert_eq!(ada.answer(reference).await.0, "ok");
    }
    ada.until("all of it", |ada| ada.view.last_seq == 40).await;
    let told = |event: &Value| match event["type"].as_str().unwrap() {
        "session_updated" => event["data"]["title"].clone(),
        _ => event["data"]["message"]["parts"][0]["text"].clone(),
    };
    let order: Vec<_> = ada.events.iter().map(told).collect();
    let expected: Vec<_> = (0..20).flat_map(|n| [json!(format!("t{n}")), json!(format!("m{n}"))]).collect();
    assert_eq!(order, expected);
    server.stop().await;
}

#[tokio::test]
async fn json_of_users_is_kept_without_blanks_however_it_comes() {
    let (server, _script) = TestServer::start().await;
    let (http, mut ada) = (Http::new(&server.http("/")), SessionClient::join(&server.ws("ada"), "s").await);
    let body = r#"{"id":"w1","answer":false,"parts":[{"kind":"data","value":{"a": 1.0,
        "b": " x "}}]}"#;
    let (path, json_type) = ("/api/sessions/s/messages?user_id=ada&name=ada", ("content-type", "application/json"));
    http.ask(Method::POST, path, &[json_type], body.to_owned()).await.ok(202);
    let value = json!({ "a": 1.0, "b": " x " });
    let send = json!({ "id": "w1", "answer": false, "parts": [{ "kind": "data", "value": value }] });
    assert_eq!(ada.ok("send", send).await["duplicate"], true);
    server.stop().await;
}
