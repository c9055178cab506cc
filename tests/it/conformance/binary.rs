//! Part H: payloads that are bytes.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{T, join_room, joined};
use crate::{
    channel_app::App,
    support::{
        form::{Form, in_forms},
        ws::ok,
    },
};

in_forms! {
    [v2 = V2]
    {
        h81_bytes_are_pushed_and_answered_as_bytes,
        h84_a_name_that_does_not_fit_is_an_error_and_the_connection_survives,
        h85_lengths_count_bytes_of_utf8,
        h86_an_empty_join_ref_is_none,
        h87_json_is_answered_by_bytes_and_bytes_by_json,
        a_join_may_come_as_bytes,
        a_broadcast_under_a_clients_own_name_arrives_as_json,
    }
}

in_forms! {
    [v1 = V1, v1_long_poll = V1_POLL, v2_long_poll = V2_POLL]
    {
        h83_those_who_speak_no_binary_are_not_shown_a_broadcast_of_bytes,
        an_answer_of_bytes_becomes_an_error_that_says_why,
    }
}

/// A client's frame: kind 0.
fn frame(join_ref: &str, reference: &str, topic: &str, event: &str, data: &[u8]) -> Message {
    let parts = [join_ref, reference, topic, event];
    let mut bytes = vec![0];
    bytes.extend(parts.iter().map(|part| u8::try_from(part.len()).unwrap()));
    parts.iter().for_each(|part| bytes.extend(part.as_bytes()));
    bytes.extend(data);
    Message::binary(bytes)
}

/// A server's frame of this kind.
fn written(kind: u8, parts: &[&str], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(parts.iter().map(|part| u8::try_from(part.len()).unwrap()));
    parts.iter().for_each(|part| bytes.extend(part.as_bytes()));
    bytes.extend(data);
    bytes
}

async fn h81_bytes_are_pushed_and_answered_as_bytes(form: Form) {
    let (app, mut client) = joined(form).await;
    client.send(frame("11", "2", T, "binary_event", &[1, 2])).await;
    client.expect_binary(&written(0, &["11", T, "binary_event"], &[0, 1])).await;
    client.expect_binary(&written(1, &["11", "2", T, "ok"], &[1, 2, 3, 4])).await;
    app.stop().await;
}

async fn h83_those_who_speak_no_binary_are_not_shown_a_broadcast_of_bytes(form: Form) {
    let (app, mut text) = joined(form).await;
    let mut bytes = app.client(Form::V2).await;
    join_room(&mut bytes, T).await;
    text.expect(json!([null, null, T, "user_entered", { "user": null }])).await;
    text.frame(json!(["11", "2", T, "shout_binary", {}])).await;
    text.expect(json!(["11", "2", T, "phx_reply", ok()])).await;
    bytes.expect_binary(&written(2, &[T, "shout_binary"], &[1, 2, 3])).await;
    text.heartbeat().await;
    app.stop().await;
}

async fn h84_a_name_that_does_not_fit_is_an_error_and_the_connection_survives(form: Form) {
    let app = App::start().await;
    let mut client = app.client(form).await;
    let (fits, longer) = (format!("room:{}", "t".repeat(250)), format!("room:{}", "t".repeat(251)));
    for (topic, expected) in [(&fits, "ok"), (&longer, "error")] {
        join_room(&mut client, topic).await;
        client.frame(json!(["11", "2", topic, "to_binary", {}])).await;
        match client.message().await {
            Some(Message::Binary(bytes)) => {
                assert_eq!((&*bytes, expected), (&*written(1, &["11", "2", topic, "ok"], &[7]), "ok"));
            }
            Some(Message::Text(text)) => assert!(text.contains("too long") && expected == "error", "{text}"),
            other => panic!("no answer: {other:?}"),
        }
    }
    for (length, pushed) in [(255, true), (256, false)] {
        client.frame(json!(["11", "3", fits, "push_binary", length])).await;
        if pushed {
            client.expect_binary(&written(0, &["11", &fits, &"e".repeat(length)], &[9])).await;
        }
        let answer = json!({ "status": "ok", "response": { "pushed": pushed } });
        client.expect(json!(["11", "3", fits, "phx_reply", answer])).await;
    }
    client.heartbeat().await;
    app.stop().await;
}

async fn h85_lengths_count_bytes_of_utf8(form: Form) {
    let app = App::start().await;
    let mut client = app.client(form).await;
    join_room(&mut client, "room:café🚀").await;
    client.send(frame("11", "π", "room:café🚀", "binary_event", &[])).await;
    client.expect_binary(&written(0, &["11", "room:café🚀", "binary_event"], &[0, 1])).await;
    client.expect_binary(&written(1, &["11", "π", "room:café🚀", "ok"], &[3, 4])).await;
    app.stop().await;
}

async fn h86_an_empty_join_ref_is_none(form: Form) {
    let (app, mut client) = joined(form).await;
    client.send(frame("", "2", T, "binary_event", &[])).await;
    client.expect_binary(&written(0, &["11", T, "binary_event"], &[0, 1])).await;
    client.expect_binary(&written(1, &["11", "2", T, "ok"], &[3, 4])).await;
    client.send(frame("10", "3", T, "binary_event", &[])).await;
    client.heartbeat().await;
    app.stop().await;
}

async fn h87_json_is_answered_by_bytes_and_bytes_by_json(form: Form) {
    let (app, mut client) = joined(form).await;
    client.frame(json!(["11", "2", T, "to_binary", {}])).await;
    client.expect_binary(&written(1, &["11", "2", T, "ok"], &[7])).await;
    client.send(frame("11", "3", T, "to_json", &[1, 2, 3])).await;
    client.expect(json!(["11", "3", T, "phx_reply", { "status": "ok", "response": { "bytes": 3 } }])).await;
    app.stop().await;
}

async fn a_join_may_come_as_bytes(form: Form) {
    let app = App::start().await;
    let mut client = app.client(form).await;
    client.send(frame("11", "1", T, "phx_join", &[1])).await;
    client.expect(json!(["11", "1", T, "phx_reply", ok()])).await;
    client.assert_push(T, "joined").await;
    client.send(frame("11", "2", T, "phx_leave", &[])).await;
    client.expect(json!(["11", "2", T, "phx_reply", ok()])).await;
    app.stop().await;
}

async fn a_broadcast_under_a_clients_own_name_arrives_as_json(form: Form) {
    let (app, mut client) = joined(form).await;
    let mut bytes = vec![3, 2, 1, 6, 5, 0, 1];
    bytes.extend(br#"112room:atyped{"a":1}"#);
    client.send(Message::binary(bytes)).await;
    let payload = json!({ "type": "broadcast", "event": "typed", "payload": { "a": 1 } });
    client.expect(json!(["11", "2", T, "phx_reply", { "status": "ok", "response": payload }])).await;
    app.stop().await;
}

async fn an_answer_of_bytes_becomes_an_error_that_says_why(form: Form) {
    let (app, mut client) = joined(form).await;
    client.frame(json!(["11", "2", T, "to_binary", {}])).await;
    let answer = client.assert_reply("2", "error").await;
    assert!(answer["message"].as_str().unwrap().contains("vsn=2.0.0 over a WebSocket"), "{answer}");
    client.frame(json!(["11", "3", T, "push_binary", 5])).await;
    assert_eq!(client.assert_reply("3", "ok").await, json!({ "pushed": false }));
    client.heartbeat().await;
    app.stop().await;
}
