//! Part C: joins.

use rejoin::{channel, pubsub::Kind, transport};
use serde_json::json;

use super::{T, join_room, start};
use crate::{
    channel_app::App,
    support::{
        form::{Form, everywhere},
        ws::{TestClient, ok, unmatched, until},
    },
};

everywhere! {{
    c35_where_one_topic_is_the_limit_the_second_is_refused,
    c26_join_reply_comes_first,
    c27_refs_are_echoed_as_they_were_sent,
    c28_without_a_join_ref_the_ref_takes_its_place,
    c29_join_params_may_be_anything,
    c30_a_refused_join_leaves_the_topic_unjoined,
    c31_a_crash_in_a_join_harms_nothing_else,
    c32_a_topic_that_nobody_serves_is_unmatched_without_a_join_ref,
    c34_the_hundred_and_first_topic_is_refused_until_one_is_left,
    c36_what_is_published_during_a_join_comes_after_its_reply,
    c37_a_leave_during_a_slow_join_is_handled_after_it,
    c38_the_response_of_a_join_is_passed_through,
    c39_two_clients_each_get_their_own_push_and_both_broadcasts,
    a_join_that_takes_too_long_is_answered_unavailable,
}}

async fn c26_join_reply_comes_first(form: Form) {
    let (app, mut client) = start(form).await;
    join_room(&mut client, T).await;
    client.heartbeat().await;
    app.stop().await;
}

async fn c27_refs_are_echoed_as_they_were_sent(form: Form) {
    let (app, mut client) = start(form).await;
    client.frame(json!([0, 2, T, "phx_join", {}])).await;
    client.expect(json!([0, 2, T, "phx_reply", ok()])).await;
    assert_eq!(client.assert_push(T, "joined").await["status"], "connected");
    client.frame(json!([0, 3, T, "err", {}])).await;
    client.expect(json!([0, 3, T, "phx_reply", { "status": "error", "response": { "reason": "nope" } }])).await;
    app.stop().await;
}

async fn c28_without_a_join_ref_the_ref_takes_its_place(form: Form) {
    let (app, mut client) = start(form).await;
    client.frame(json!([null, "1", T, "phx_join", {}])).await;
    client.expect(json!([null, "1", T, "phx_reply", ok()])).await;
    client.expect(json!([null, null, T, "user_entered", { "user": null }])).await;
    client.expect(json!(["1", null, T, "joined", { "status": "connected", "user_id": null }])).await;
    client.frame(json!(["any", "2", T, "err", {}])).await;
    client.expect(json!(["1", "2", T, "phx_reply", { "status": "error", "response": { "reason": "nope" } }])).await;
    client.frame(json!([null, "3", T, "stop", {}])).await;
    client.expect(json!([null, null, T, "phx_close", {}])).await;
    app.stop().await;
}

async fn c29_join_params_may_be_anything(form: Form) {
    let (app, mut client) = start(form).await;
    for (n, params) in [json!(null), json!("text"), json!([1]), json!(7)].into_iter().enumerate() {
        client.join(&format!("room:{n}"), params).await;
        client.assert_push(&format!("room:{n}"), "joined").await;
    }
    app.stop().await;
}

async fn c30_a_refused_join_leaves_the_topic_unjoined(form: Form) {
    let (app, mut client) = start(form).await;
    client.frame(json!(["11", "1", T, "phx_join", { "deny": true }])).await;
    let refused = json!({ "status": "error", "response": { "reason": "unauthorized" } });
    client.expect(json!(["11", "1", T, "phx_reply", refused])).await;
    client.frame(json!(["11", "2", T, "err", {}])).await;
    client.expect(json!([null, "2", T, "phx_reply", unmatched()])).await;
    assert_eq!(app.host.pubsub().subscribers(T), 0);
    assert!(app.hooks.ended(T).is_empty(), "terminate is for joins that were accepted");
    app.stop().await;
}

async fn c31_a_crash_in_a_join_harms_nothing_else(form: Form) {
    let (app, mut client) = start(form).await;
    client.frame(json!(["11", "1", T, "phx_join", { "crash": true }])).await;
    let crashed = json!({ "status": "error", "response": { "reason": "join crashed" } });
    client.expect(json!(["11", "1", T, "phx_reply", crashed])).await;
    join_room(&mut client, T).await;
    app.stop().await;
}

async fn c32_a_topic_that_nobody_serves_is_unmatched_without_a_join_ref(form: Form) {
    let (app, mut client) = start(form).await;
    client.frame(json!(["11", "1", "unmatched-topic", "phx_join", {}])).await;
    client.expect(json!([null, "1", "unmatched-topic", "phx_reply", unmatched()])).await;
    app.stop().await;
}

async fn c34_the_hundred_and_first_topic_is_refused_until_one_is_left(form: Form) {
    let (app, mut client) = start(form).await;
    for n in 0..100 {
        client.frame(json!(["11", "1", format!("room:{n}"), "phx_join", {}])).await;
        client.assert_push(&format!("room:{n}"), "joined").await;
    }
    let many = json!({ "status": "error", "response": { "reason": "too many channels joined" } });
    client.frame(json!(["x", "101", "room:more", "phx_join", {}])).await;
    client.expect(json!(["x", "101", "room:more", "phx_reply", many])).await;
    client.frame(json!(["x", "101", "nobody", "phx_join", {}])).await;
    client.expect(json!([null, "101", "nobody", "phx_reply", unmatched()])).await;
    client.frame(json!(["12", "1", "room:0", "phx_join", {}])).await;
    client.expect(json!(["12", "1", "room:0", "phx_reply", ok()])).await;
    client.assert_push("room:0", "joined").await;
    client.heartbeat().await;
    client.frame(json!(["11", "2", "room:1", "phx_leave", {}])).await;
    client.assert_push("room:1", "you_left").await;
    client.frame(json!(["x", "102", "room:more", "phx_join", {}])).await;
    client.expect(json!(["x", "102", "room:more", "phx_reply", ok()])).await;
    app.stop().await;
}

async fn c36_what_is_published_during_a_join_comes_after_its_reply(form: Form) {
    let (app, mut client) = start(form).await;
    client.frame(json!(["11", "1", T, "phx_join", { "wait": true }])).await;
    until("the subscription", || app.host.pubsub().subscribers(T) == 1).await;
    assert_eq!(app.publish(T, Kind::Ephemeral, "early", json!({ "n": 1 })), 1);
    client.heartbeat().await;
    app.hooks.gate.notify_one();
    client.expect(json!(["11", "1", T, "phx_reply", ok()])).await;
    client.expect(json!([null, null, T, "early", { "n": 1 }])).await;
    app.stop().await;
}

async fn c37_a_leave_during_a_slow_join_is_handled_after_it(form: Form) {
    let (app, mut client) = start(form).await;
    client.frame(json!(["11", "1", T, "phx_join", { "wait": true }])).await;
    client.frame(json!(["11", "2", T, "phx_leave", {}])).await;
    client.heartbeat().await;
    app.hooks.gate.notify_one();
    client.expect(json!(["11", "1", T, "phx_reply", ok()])).await;
    client.assert_push(T, "joined").await;
    client.expect(json!(["11", "2", T, "phx_reply", ok()])).await;
    client.expect(json!(["11", "11", T, "phx_close", {}])).await;
    app.stop().await;
}

async fn c38_the_response_of_a_join_is_passed_through(form: Form) {
    let (app, mut client) = start(form).await;
    client.frame(json!(["11", "1", T, "phx_join", { "response": [1, { "a": null }] }])).await;
    client.expect(json!(["11", "1", T, "phx_reply", { "status": "ok", "response": [1, { "a": null }] }])).await;
    app.stop().await;
}

async fn c39_two_clients_each_get_their_own_push_and_both_broadcasts(form: Form) {
    let (app, mut one) = start(form).await;
    join_room(&mut one, T).await;
    let mut two = TestClient::open(app.address, form, "&user_id=u2").await;
    two.join(T, json!({})).await;
    two.expect(json!([null, null, T, "user_entered", { "user": "u2" }])).await;
    two.expect(json!(["11", null, T, "joined", { "status": "connected", "user_id": "u2" }])).await;
    one.expect(json!([null, null, T, "user_entered", { "user": "u2" }])).await;
    one.heartbeat().await;
    app.stop().await;
}

async fn a_join_that_takes_too_long_is_answered_unavailable(form: Form) {
    let options = channel::Options { answer_within: std::time::Duration::from_millis(50), ..Default::default() };
    let app = App::start_with(options, transport::Options::default()).await;
    let mut client = app.client(form).await;
    client.frame(json!(["11", "1", T, "phx_join", { "wait": true }])).await;
    assert_eq!(client.assert_reply("1", "error").await["reason"], "unavailable");
    client.frame(json!(["11", "2", T, "err", {}])).await;
    client.expect(json!([null, "2", T, "phx_reply", unmatched()])).await;
    client.join(T, json!({})).await;
    let late = client.push(T, "wait", json!({})).await;
    assert_eq!(client.assert_reply(&late, "error").await["reason"], "unavailable");
    let next = client.push(T, "echo", json!({ "a": 1 })).await;
    assert_eq!(client.assert_reply(&next, "ok").await, json!({ "a": 1 }));
    app.stop().await;
}

async fn c35_where_one_topic_is_the_limit_the_second_is_refused(form: Form) {
    let options = channel::Options { max_topics: 1, ..Default::default() };
    let app = App::start_with(options, transport::Options::default()).await;
    let mut client = app.client(form).await;
    join_room(&mut client, T).await;
    let many = json!({ "status": "error", "response": { "reason": "too many channels joined" } });
    client.frame(json!(["12", "2", "room:b", "phx_join", {}])).await;
    client.expect(json!(["12", "2", "room:b", "phx_reply", many])).await;
    client.heartbeat().await;
    app.stop().await;
}
