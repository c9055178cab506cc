//! Part E: leaves, and joins of what is joined.

use std::sync::atomic::Ordering;

use rejoin::{channel::Leave, pubsub::Kind};
use serde_json::{Value, json};

use super::{T, joined, start};
use crate::support::{
    form::{Form, everywhere},
    ws::{ok, unmatched, until},
};

everywhere! {{
    a_leave_waits_for_the_answers_to_what_was_asked_before,
    a_leave_does_not_wait_for_an_answer_that_nobody_will_give,
    e65_a_late_answer_of_the_channel_before_goes_nowhere,
    e56_a_leave_is_answered_closed_and_said_goodbye_to,
    e57_nothing_is_delivered_after_a_leave,
    e58_a_leave_of_what_is_not_joined_is_answered_only,
    e59_a_stale_leave_is_ignored,
    e60_a_leave_may_come_without_refs,
    e61_the_second_of_two_leaves_is_answered_only,
    e62_a_second_join_takes_the_place_of_the_first,
    e62_a_second_join_does_not_wait_for_a_handler_of_the_first,
    e62_joins_sent_at_once_are_all_answered,
    e63_a_second_join_that_is_refused_ends_the_first_too,
    e64_a_leave_and_a_join_at_once_give_one_close,
}}

async fn e56_a_leave_is_answered_closed_and_said_goodbye_to(form: Form) {
    let (app, mut client) = joined(form).await;
    client.frame(json!(["11", "2", T, "phx_leave", {}])).await;
    client.expect(json!(["11", "2", T, "phx_reply", ok()])).await;
    client.expect(json!(["11", "11", T, "phx_close", {}])).await;
    client.expect(json!(["11", null, T, "you_left", { "message": "bye!" }])).await;
    until("the end", || app.hooks.ended(T) == [Leave::Left]).await;
    app.stop().await;
}

async fn e57_nothing_is_delivered_after_a_leave(form: Form) {
    let (app, mut client) = joined(form).await;
    client.frame(json!(["11", "2", T, "phx_leave", null])).await;
    client.assert_push(T, "you_left").await;
    assert_eq!(app.publish(T, Kind::Ephemeral, "x", json!({})), 0);
    client.frame(json!(["11", "3", T, "echo", {}])).await;
    client.expect(json!([null, "3", T, "phx_reply", unmatched()])).await;
    app.stop().await;
}

async fn e58_a_leave_of_what_is_not_joined_is_answered_only(form: Form) {
    let (app, mut client) = start(form).await;
    client.frame(json!(["11", "5", T, "phx_leave", {}])).await;
    client.expect(json!(["11", "5", T, "phx_reply", ok()])).await;
    client.heartbeat().await;
    app.stop().await;
}

async fn e59_a_stale_leave_is_ignored(form: Form) {
    let (app, mut client) = joined(form).await;
    client.frame(json!(["10", "2", T, "phx_leave", {}])).await;
    client.frame(json!(["11", "3", T, "echo", {}])).await;
    client.expect(json!(["11", "3", T, "phx_reply", ok()])).await;
    app.stop().await;
}

async fn e60_a_leave_may_come_without_refs(form: Form) {
    let (app, mut client) = joined(form).await;
    client.frame(json!([null, null, T, "phx_leave", null])).await;
    client.expect(json!(["11", null, T, "phx_reply", ok()])).await;
    client.expect(json!(["11", "11", T, "phx_close", {}])).await;
    app.stop().await;
}

async fn e61_the_second_of_two_leaves_is_answered_only(form: Form) {
    let (app, mut client) = joined(form).await;
    client.frame(json!(["11", "2", T, "phx_leave", {}])).await;
    client.frame(json!(["11", "3", T, "phx_leave", {}])).await;
    let mut frames = Vec::new();
    for _ in 0..4 {
        frames.push(client.next().await);
    }
    let at = |wanted: Value| {
        let wanted = client.shown(wanted);
        frames.iter().position(|frame| *frame == wanted).unwrap_or_else(|| panic!("{frames:?}"))
    };
    let first = at(json!(["11", "2", T, "phx_reply", ok()]));
    let closed = at(json!(["11", "11", T, "phx_close", {}]));
    let second = at(json!(["11", "3", T, "phx_reply", ok()]));
    assert!(first < closed && closed < second, "{frames:?}");
    client.heartbeat().await;
    app.stop().await;
}

async fn e62_a_second_join_takes_the_place_of_the_first(form: Form) {
    let (app, mut client) = joined(form).await;
    client.frame(json!(["12", "2", T, "phx_join", {}])).await;
    client.expect(json!(["12", "2", T, "phx_reply", ok()])).await;
    client.expect(json!(["11", "11", T, "phx_close", {}])).await;
    client.expect(json!([null, null, T, "user_entered", { "user": null }])).await;
    client.expect(json!(["12", null, T, "joined", { "status": "connected", "user_id": null }])).await;
    assert_eq!(app.publish(T, Kind::Ephemeral, "x", json!({})), 1);
    client.expect(json!([null, null, T, "x", {}])).await;
    client.heartbeat().await;
    assert_eq!(app.hooks.ended(T), [Leave::Replaced]);
    app.stop().await;
}

async fn e62_a_second_join_does_not_wait_for_a_handler_of_the_first(form: Form) {
    let (app, mut client) = joined(form).await;
    client.frame(json!(["11", "2", T, "wait", {}])).await;
    client.frame(json!(["12", "3", T, "phx_join", {}])).await;
    client.expect(json!(["12", "3", T, "phx_reply", ok()])).await;
    client.expect(json!(["11", "11", T, "phx_close", {}])).await;
    app.stop().await;
}

async fn e62_joins_sent_at_once_are_all_answered(form: Form) {
    let (app, mut client) = start(form).await;
    for n in 1..=5 {
        client.frame(json!([n.to_string(), n.to_string(), T, "phx_join", {}])).await;
    }
    let (mut joined, mut closed) = (Vec::new(), Vec::new());
    while joined.len() < 5 || closed.len() < 4 {
        let frame = client.next().await;
        match frame[3].as_str() {
            Some("phx_reply") => joined.push(frame[1].as_str().unwrap().to_owned()),
            Some("phx_close") => closed.push(frame[1].as_str().unwrap().to_owned()),
            _ => {}
        }
    }
    assert_eq!(joined, ["1", "2", "3", "4", "5"]);
    assert_eq!(closed, ["1", "2", "3", "4"]);
    until("one subscription", || app.host.pubsub().subscribers(T) == 1).await;
    app.stop().await;
}

async fn e63_a_second_join_that_is_refused_ends_the_first_too(form: Form) {
    let (app, mut client) = joined(form).await;
    client.frame(json!(["12", "2", T, "phx_join", { "deny": true }])).await;
    let refused = json!({ "status": "error", "response": { "reason": "unauthorized" } });
    client.expect(json!(["12", "2", T, "phx_reply", refused])).await;
    client.expect(json!(["11", "11", T, "phx_close", {}])).await;
    client.frame(json!([null, "3", T, "echo", {}])).await;
    client.expect(json!([null, "3", T, "phx_reply", unmatched()])).await;
    app.stop().await;
}

async fn e64_a_leave_and_a_join_at_once_give_one_close(form: Form) {
    let (app, mut client) = joined(form).await;
    client.frame(json!(["11", "2", T, "phx_leave", {}])).await;
    client.frame(json!(["12", "3", T, "phx_join", {}])).await;
    let (mut closes, mut live) = (0, false);
    while !live {
        let frame = client.next().await;
        closes += usize::from(frame[3] == "phx_close");
        live = frame[3] == "joined";
        assert!(!live || frame[0] == client.shown(json!(["12"]))[0], "{frame}");
    }
    assert_eq!(closes, 1);
    client.frame(json!(["12", "4", T, "echo", {}])).await;
    client.assert_reply("4", "ok").await;
    app.stop().await;
}

async fn e65_a_late_answer_of_the_channel_before_goes_nowhere(form: Form) {
    let (app, mut client) = joined(form).await;
    client.frame(json!(["11", "2", T, "later", {}])).await;
    client.frame(json!(["12", "3", T, "phx_join", {}])).await;
    client.expect(json!(["12", "3", T, "phx_reply", ok()])).await;
    client.expect(json!(["11", "11", T, "phx_close", {}])).await;
    client.assert_push(T, "joined").await;
    app.hooks.gate.notify_one();
    until("the late answer", || app.hooks.late.load(Ordering::SeqCst) == 1).await;
    client.heartbeat().await;
    app.stop().await;
}

async fn a_leave_waits_for_the_answers_to_what_was_asked_before(form: Form) {
    let (app, mut client) = joined(form).await;
    client.frame(json!(["11", "2", T, "later", { "a": 1 }])).await;
    client.frame(json!(["11", "3", T, "phx_leave", {}])).await;
    client.heartbeat().await;
    app.hooks.gate.notify_one();
    client.expect(json!(["11", "2", T, "phx_reply", { "status": "ok", "response": { "a": 1 } }])).await;
    client.expect(json!(["11", "3", T, "phx_reply", ok()])).await;
    client.expect(json!(["11", "11", T, "phx_close", {}])).await;
    app.stop().await;
}

async fn a_leave_does_not_wait_for_an_answer_that_nobody_will_give(form: Form) {
    let (app, mut client) = joined(form).await;
    client.frame(json!(["11", "2", T, "given_up", {}])).await;
    client.frame(json!(["11", "3", T, "phx_leave", {}])).await;
    client.expect(json!(["11", "3", T, "phx_reply", ok()])).await;
    client.expect(json!(["11", "11", T, "phx_close", {}])).await;
    app.stop().await;
}
