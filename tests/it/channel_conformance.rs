//! The frames of a channel's life, on a real port, as Phoenix clients know them.

use rejoin::{
    channel::{self, Leave},
    pubsub::Kind,
    transport,
};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    channel_app::App,
    support::ws::{TestClient, ok, unmatched, until},
};

const T: &str = "room:a";

async fn start() -> (App, TestClient) {
    let app = App::start().await;
    let client = TestClient::connect(app.url()).await;
    (app, client)
}

/// A client that has joined [`T`] and read everything that follows.
async fn joined() -> (App, TestClient) {
    let (app, mut client) = start().await;
    join_room(&mut client, T).await;
    (app, client)
}

async fn join_room(client: &mut TestClient, topic: &str) {
    client.join(topic, json!({})).await;
    client.expect(json!([null, null, topic, "user_entered", { "user": null }])).await;
    client.expect(json!(["11", null, topic, "joined", { "status": "connected", "user_id": null }])).await;
}

#[tokio::test]
async fn b20_a_heartbeat_is_answered_without_a_join_ref() {
    let (app, mut client) = start().await;
    client.frame(json!([null, "1", "phoenix", "heartbeat", {}])).await;
    client.expect(json!([null, "1", "phoenix", "phx_reply", ok()])).await;
    app.stop().await;
}

#[tokio::test]
async fn b21_a_heartbeat_echoes_any_ref() {
    let (app, mut client) = start().await;
    client.text(r#"[null,null,"phoenix","heartbeat",{}]"#).await;
    client.expect(json!([null, null, "phoenix", "phx_reply", ok()])).await;
    client.text(r#"[0,0,"phoenix","heartbeat",null]"#).await;
    assert_eq!(client.next_text().await, r#"[null,0,"phoenix","phx_reply",{"status":"ok","response":{}}]"#);
    app.stop().await;
}

#[tokio::test]
async fn b24_another_event_on_the_topic_of_the_connection_is_unmatched() {
    let (app, mut client) = start().await;
    client.frame(json!([null, "2", "phoenix", "other", {}])).await;
    client.expect(json!([null, "2", "phoenix", "phx_reply", unmatched()])).await;
    app.stop().await;
}

#[tokio::test]
async fn b25_a_heartbeat_is_answered_while_a_join_is_slow() {
    let (app, mut client) = start().await;
    client.frame(json!(["11", "1", T, "phx_join", { "wait": true }])).await;
    client.heartbeat().await;
    app.hooks.gate.notify_one();
    client.expect(json!(["11", "1", T, "phx_reply", ok()])).await;
    app.stop().await;
}

#[tokio::test]
async fn c26_join_reply_comes_first() {
    let (app, mut client) = start().await;
    join_room(&mut client, T).await;
    client.heartbeat().await;
    app.stop().await;
}

#[tokio::test]
async fn c27_refs_are_echoed_as_they_were_sent() {
    let (app, mut client) = start().await;
    client.text(r#"[0,2,"room:a","phx_join",{}]"#).await;
    assert_eq!(client.next_text().await, r#"[0,2,"room:a","phx_reply",{"status":"ok","response":{}}]"#);
    assert_eq!(client.assert_push(T, "joined").await["status"], "connected");
    client.text(r#"[0, 3, "room:a", "err", {}]"#).await;
    let reply = r#"[0,3,"room:a","phx_reply",{"status":"error","response":{"reason":"nope"}}]"#;
    assert_eq!(client.next_text().await, reply);
    app.stop().await;
}

#[tokio::test]
async fn c28_without_a_join_ref_the_ref_takes_its_place() {
    let (app, mut client) = start().await;
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

#[tokio::test]
async fn c29_join_params_may_be_anything() {
    let (app, mut client) = start().await;
    for (n, params) in [json!(null), json!("text"), json!([1]), json!(7)].into_iter().enumerate() {
        client.join(&format!("room:{n}"), params).await;
        client.assert_push(&format!("room:{n}"), "joined").await;
    }
    app.stop().await;
}

#[tokio::test]
async fn c30_a_refused_join_leaves_the_topic_unjoined() {
    let (app, mut client) = start().await;
    client.frame(json!(["11", "1", T, "phx_join", { "deny": true }])).await;
    let refused = json!({ "status": "error", "response": { "reason": "unauthorized" } });
    client.expect(json!(["11", "1", T, "phx_reply", refused])).await;
    client.frame(json!(["11", "2", T, "err", {}])).await;
    client.expect(json!([null, "2", T, "phx_reply", unmatched()])).await;
    assert_eq!(app.host.pubsub().subscribers(T), 0);
    assert!(app.hooks.ended(T).is_empty(), "terminate is for joins that were accepted");
    app.stop().await;
}

#[tokio::test]
async fn c31_a_crash_in_a_join_harms_nothing_else() {
    let (app, mut client) = start().await;
    client.frame(json!(["11", "1", T, "phx_join", { "crash": true }])).await;
    let crashed = json!({ "status": "error", "response": { "reason": "join crashed" } });
    client.expect(json!(["11", "1", T, "phx_reply", crashed])).await;
    join_room(&mut client, T).await;
    app.stop().await;
}

#[tokio::test]
async fn c32_a_topic_that_nobody_serves_is_unmatched_without_a_join_ref() {
    let (app, mut client) = start().await;
    client.frame(json!(["11", "1", "unmatched-topic", "phx_join", {}])).await;
    client.expect(json!([null, "1", "unmatched-topic", "phx_reply", unmatched()])).await;
    app.stop().await;
}

#[tokio::test]
async fn c34_the_hundred_and_first_topic_is_refused_until_one_is_left() {
    let (app, mut client) = start().await;
    for n in 0..100 {
        client.frame(json!(["11", "1", format!("room:{n}"), "phx_join", {}])).await;
        client.assert_push(&format!("room:{n}"), "joined").await;
    }
    let many = json!({ "status": "error", "response": { "reason": "too many channels joined" } });
    client.frame(json!(["x", "101", "room:more", "phx_join", {}])).await;
    client.expect(json!(["x", "101", "room:more", "phx_reply", many])).await;
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

#[tokio::test]
async fn c36_what_is_published_during_a_join_comes_after_its_reply() {
    let (app, mut client) = start().await;
    client.frame(json!(["11", "1", T, "phx_join", { "wait": true }])).await;
    until("the subscription", || app.host.pubsub().subscribers(T) == 1).await;
    assert_eq!(app.publish(T, Kind::Ephemeral, "early", json!({ "n": 1 })), 1);
    client.heartbeat().await;
    app.hooks.gate.notify_one();
    client.expect(json!(["11", "1", T, "phx_reply", ok()])).await;
    client.expect(json!([null, null, T, "early", { "n": 1 }])).await;
    app.stop().await;
}

#[tokio::test]
async fn c37_a_leave_during_a_slow_join_is_handled_after_it() {
    let (app, mut client) = start().await;
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

#[tokio::test]
async fn c38_the_response_of_a_join_is_passed_through() {
    let (app, mut client) = start().await;
    client.frame(json!(["11", "1", T, "phx_join", { "response": [1, { "a": null }] }])).await;
    client.expect(json!(["11", "1", T, "phx_reply", { "status": "ok", "response": [1, { "a": null }] }])).await;
    app.stop().await;
}

#[tokio::test]
async fn c39_two_clients_each_get_their_own_push_and_both_broadcasts() {
    let (app, mut one) = start().await;
    join_room(&mut one, T).await;
    let mut two = TestClient::connect(format!("{}&user_id=u2", app.url())).await;
    two.join(T, json!({})).await;
    two.expect(json!([null, null, T, "user_entered", { "user": "u2" }])).await;
    two.expect(json!(["11", null, T, "joined", { "status": "connected", "user_id": "u2" }])).await;
    one.expect(json!([null, null, T, "user_entered", { "user": "u2" }])).await;
    one.heartbeat().await;
    app.stop().await;
}

#[tokio::test]
async fn a_join_that_takes_too_long_is_answered_unavailable() {
    let options = channel::Options { answer_within: std::time::Duration::from_millis(50), ..Default::default() };
    let app = App::start_with(options, transport::Options::default()).await;
    let mut client = TestClient::connect(app.url()).await;
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

#[tokio::test]
async fn d40_an_intercepted_broadcast_comes_after_the_reply_as_a_push() {
    let (app, mut client) = joined().await;
    client.frame(json!(["11", "2", T, "new_msg", { "body": "hi" }])).await;
    client.expect(json!(["11", "2", T, "phx_reply", ok()])).await;
    client.expect(json!(["11", null, T, "new_msg", { "body": "hi", "transport": ":websocket" }])).await;
    app.stop().await;
}

#[tokio::test]
async fn d41_a_broadcast_reaches_its_sender_before_the_reply() {
    let (app, mut client) = joined().await;
    client.frame(json!(["11", "2", T, "shout", { "a": 1 }])).await;
    client.expect(json!([null, null, T, "shout", { "a": 1 }])).await;
    client.expect(json!(["11", "2", T, "phx_reply", ok()])).await;
    app.stop().await;
}

#[tokio::test]
async fn d42_broadcast_from_leaves_out_the_sender_only() {
    let (app, mut one) = joined().await;
    let mut two = TestClient::connect(app.url()).await;
    join_room(&mut two, T).await;
    one.expect(json!([null, null, T, "user_entered", { "user": null }])).await;
    one.push(T, "from", json!({ "a": 1 })).await;
    two.expect(json!([null, null, T, "from", { "a": 1 }])).await;
    one.refute_push(T, "from").await;
    app.stop().await;
}

#[tokio::test]
async fn d43_d44_replies_say_what_the_channel_says() {
    let (app, mut client) = joined().await;
    client.frame(json!(["11", "2", T, "err", {}])).await;
    client.expect(json!(["11", "2", T, "phx_reply", { "status": "error", "response": { "reason": "nope" } }])).await;
    client.frame(json!(["11", "3", T, "status", {}])).await;
    client.expect(json!(["11", "3", T, "phx_reply", { "status": "teapot", "response": {} }])).await;
    client.frame(json!(["11", "4", T, "silent", {}])).await;
    client.frame(json!(["11", "5", T, "later", { "a": 1 }])).await;
    client.frame(json!(["11", "6", T, "twice", {}])).await;
    client.expect(json!(["11", "6", T, "phx_reply", ok()])).await;
    client.expect(json!(["11", "6", T, "phx_reply", ok()])).await;
    app.hooks.gate.notify_one();
    client.expect(json!(["11", "5", T, "phx_reply", { "status": "ok", "response": { "a": 1 } }])).await;
    app.stop().await;
}

#[tokio::test]
async fn a_late_answer_after_the_end_of_the_channel_is_dropped() {
    let (app, mut client) = joined().await;
    client.frame(json!(["11", "2", T, "later", {}])).await;
    client.frame(json!(["11", "3", T, "stop", {}])).await;
    client.assert_push(T, "you_left").await;
    app.hooks.gate.notify_one();
    join_room(&mut client, T).await;
    client.refute_push(T, "phx_close").await;
    app.stop().await;
}

#[tokio::test]
async fn d45_a_push_without_a_join_ref_is_handled() {
    let (app, mut client) = joined().await;
    client.frame(json!([null, "2", T, "echo", { "a": 1 }])).await;
    client.expect(json!(["11", "2", T, "phx_reply", { "status": "ok", "response": { "a": 1 } }])).await;
    app.stop().await;
}

#[tokio::test]
async fn d46_d47_a_stale_join_ref_is_ignored() {
    let (app, mut client) = joined().await;
    client.frame(json!(["10", "2", T, "shout", {}])).await;
    client.text(r#"[11,"3","room:a","shout",{}]"#).await;
    client.frame(json!(["11", "4", T, "echo", {}])).await;
    client.expect(json!(["11", "4", T, "phx_reply", ok()])).await;
    app.stop().await;
}

#[tokio::test]
async fn d48_a_push_to_a_topic_that_was_never_joined_is_unmatched() {
    let (app, mut client) = joined().await;
    client.frame(json!(["11", "4", "room:x", "echo", {}])).await;
    client.expect(json!([null, "4", "room:x", "phx_reply", unmatched()])).await;
    app.stop().await;
}

#[tokio::test]
async fn d50_a_hundred_pushes_get_a_hundred_replies_in_order() {
    let (app, mut client) = joined().await;
    for n in 0..100 {
        client.frame(json!(["11", n, T, "echo", { "n": n }])).await;
    }
    for n in 0..100 {
        client.expect(json!(["11", n, T, "phx_reply", { "status": "ok", "response": { "n": n } }])).await;
    }
    app.stop().await;
}

#[tokio::test]
async fn d51_a_slow_handler_delays_no_other_topic() {
    let (app, mut client) = joined().await;
    join_room(&mut client, "room:b").await;
    client.frame(json!(["11", "2", T, "wait", {}])).await;
    client.frame(json!(["11", "3", "room:b", "echo", {}])).await;
    client.expect(json!(["11", "3", "room:b", "phx_reply", ok()])).await;
    app.hooks.gate.notify_one();
    client.expect(json!(["11", "2", T, "phx_reply", ok()])).await;
    app.stop().await;
}

#[tokio::test]
async fn an_inbox_that_is_full_answers_rate_limited() {
    let options = channel::Options { max_inbox: 2, ..Default::default() };
    let app = App::start_with(options, transport::Options::default()).await;
    let mut client = TestClient::connect(app.url()).await;
    client.frame(json!(["11", "1", T, "phx_join", { "wait": true }])).await;
    for n in 2..=4 {
        client.frame(json!(["11", n.to_string(), T, "echo", {}])).await;
    }
    assert_eq!(client.assert_reply("4", "error").await["reason"], "rate_limited");
    app.hooks.gate.notify_one();
    client.assert_reply("1", "ok").await;
    client.assert_reply("2", "ok").await;
    client.assert_reply("3", "ok").await;
    app.stop().await;
}

#[tokio::test]
async fn d52_more_than_five_elements_are_accepted() {
    let (app, mut client) = joined().await;
    client.frame(json!(["11", "5", T, "echo", {}, "x", [1]])).await;
    client.expect(json!(["11", "5", T, "phx_reply", ok()])).await;
    app.stop().await;
}

#[tokio::test]
async fn d53_any_payload_reaches_the_handler_unchanged() {
    let (app, mut client) = joined().await;
    for payload in [json!("str"), json!([1]), Value::Null, json!(7), json!({ "a": 1.5 })] {
        let reference = client.push(T, "echo", payload.clone()).await;
        assert_eq!(client.assert_reply(&reference, "ok").await, payload);
    }
    app.stop().await;
}

#[tokio::test]
async fn d54_any_characters_come_back() {
    let (app, mut client) = start().await;
    let topic = "room:café 🚀 \"quoted\" \\ \n";
    join_room(&mut client, topic).await;
    let reference = client.push(topic, "echo", json!({ "π": "🚀" })).await;
    assert_eq!(client.assert_reply(&reference, "ok").await, json!({ "π": "🚀" }));
    app.stop().await;
}

#[tokio::test]
async fn d55_blanks_are_accepted_and_never_sent() {
    let (app, mut client) = joined().await;
    client.text("[ \"11\" , \"5\" ,\n \"room:a\" , \"shout\" , { \"a b\" : [ 1 , 2 ] } ]").await;
    assert_eq!(client.next_text().await, r#"[null,null,"room:a","shout",{"a b":[1,2]}]"#);
    let reply = r#"["11","5","room:a","phx_reply",{"status":"ok","response":{}}]"#;
    assert_eq!(client.next_text().await, reply);
    app.stop().await;
}

#[tokio::test]
async fn e56_a_leave_is_answered_closed_and_said_goodbye_to() {
    let (app, mut client) = joined().await;
    client.frame(json!(["11", "2", T, "phx_leave", {}])).await;
    client.expect(json!(["11", "2", T, "phx_reply", ok()])).await;
    client.expect(json!(["11", "11", T, "phx_close", {}])).await;
    client.expect(json!(["11", null, T, "you_left", { "message": "bye!" }])).await;
    until("the end", || app.hooks.ended(T) == [Leave::Left]).await;
    app.stop().await;
}

#[tokio::test]
async fn e57_nothing_is_delivered_after_a_leave() {
    let (app, mut client) = joined().await;
    client.frame(json!(["11", "2", T, "phx_leave", null])).await;
    client.assert_push(T, "you_left").await;
    assert_eq!(app.publish(T, Kind::Ephemeral, "x", json!({})), 0);
    client.frame(json!(["11", "3", T, "echo", {}])).await;
    client.expect(json!([null, "3", T, "phx_reply", unmatched()])).await;
    app.stop().await;
}

#[tokio::test]
async fn e58_a_leave_of_what_is_not_joined_is_answered_only() {
    let (app, mut client) = start().await;
    client.frame(json!(["11", "5", T, "phx_leave", {}])).await;
    client.expect(json!(["11", "5", T, "phx_reply", ok()])).await;
    client.heartbeat().await;
    app.stop().await;
}

#[tokio::test]
async fn e59_a_stale_leave_is_ignored() {
    let (app, mut client) = joined().await;
    client.frame(json!(["10", "2", T, "phx_leave", {}])).await;
    client.frame(json!(["11", "3", T, "echo", {}])).await;
    client.expect(json!(["11", "3", T, "phx_reply", ok()])).await;
    app.stop().await;
}

#[tokio::test]
async fn e60_a_leave_may_come_without_refs() {
    let (app, mut client) = joined().await;
    client.frame(json!([null, null, T, "phx_leave", null])).await;
    client.expect(json!(["11", null, T, "phx_reply", ok()])).await;
    client.expect(json!(["11", "11", T, "phx_close", {}])).await;
    app.stop().await;
}

#[tokio::test]
async fn e61_the_second_of_two_leaves_is_answered_only() {
    let (app, mut client) = joined().await;
    client.frame(json!(["11", "2", T, "phx_leave", {}])).await;
    client.frame(json!(["11", "3", T, "phx_leave", {}])).await;
    let mut frames = Vec::new();
    for _ in 0..4 {
        frames.push(client.next().await);
    }
    let at = |wanted: &Value| frames.iter().position(|frame| frame == wanted).unwrap_or_else(|| panic!("{frames:?}"));
    let first = at(&json!(["11", "2", T, "phx_reply", ok()]));
    let closed = at(&json!(["11", "11", T, "phx_close", {}]));
    let second = at(&json!(["11", "3", T, "phx_reply", ok()]));
    assert!(first < closed && closed < second, "{frames:?}");
    client.heartbeat().await;
    app.stop().await;
}

#[tokio::test]
async fn e62_a_second_join_takes_the_place_of_the_first() {
    let (app, mut client) = joined().await;
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

#[tokio::test]
async fn e62_a_second_join_does_not_wait_for_a_handler_of_the_first() {
    let (app, mut client) = joined().await;
    client.frame(json!(["11", "2", T, "wait", {}])).await;
    client.frame(json!(["12", "3", T, "phx_join", {}])).await;
    client.expect(json!(["12", "3", T, "phx_reply", ok()])).await;
    client.expect(json!(["11", "11", T, "phx_close", {}])).await;
    app.stop().await;
}

#[tokio::test]
async fn e62_joins_sent_at_once_are_all_answered() {
    let (app, mut client) = start().await;
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

#[tokio::test]
async fn e63_a_second_join_that_is_refused_ends_the_first_too() {
    let (app, mut client) = joined().await;
    client.frame(json!(["12", "2", T, "phx_join", { "deny": true }])).await;
    let refused = json!({ "status": "error", "response": { "reason": "unauthorized" } });
    client.expect(json!(["12", "2", T, "phx_reply", refused])).await;
    client.expect(json!(["11", "11", T, "phx_close", {}])).await;
    client.frame(json!([null, "3", T, "echo", {}])).await;
    client.expect(json!([null, "3", T, "phx_reply", unmatched()])).await;
    app.stop().await;
}

#[tokio::test]
async fn e64_a_leave_and_a_join_at_once_give_one_close() {
    let (app, mut client) = joined().await;
    client.frame(json!(["11", "2", T, "phx_leave", {}])).await;
    client.frame(json!(["12", "3", T, "phx_join", {}])).await;
    let (mut closes, mut live) = (0, false);
    while !live {
        let frame = client.next().await;
        closes += usize::from(frame[3] == "phx_close");
        live = frame[3] == "joined";
        assert!(!live || frame[0] == "12", "{frame}");
    }
    assert_eq!(closes, 1);
    client.frame(json!(["12", "4", T, "echo", {}])).await;
    client.assert_reply("4", "ok").await;
    app.stop().await;
}

#[tokio::test]
async fn f67_f68_a_channel_may_stop_itself() {
    let (app, mut client) = joined().await;
    client.frame(json!(["11", "2", T, "stop", {}])).await;
    client.expect(json!(["11", "11", T, "phx_close", {}])).await;
    client.assert_push(T, "you_left").await;
    join_room(&mut client, T).await;
    client.frame(json!(["11", "3", T, "stop_reply", {}])).await;
    client.expect(json!(["11", "3", T, "phx_reply", { "status": "ok", "response": { "bye": 1 } }])).await;
    client.expect(json!(["11", "11", T, "phx_close", {}])).await;
    until("both ends", || app.hooks.ended(T) == [Leave::Stopped; 2]).await;
    app.stop().await;
}

#[tokio::test]
async fn f69_a_crash_ends_one_channel_and_a_rejoin_works() {
    let (app, mut client) = joined().await;
    join_room(&mut client, "room:b").await;
    client.frame(json!(["11", "2", T, "boom", {}])).await;
    client.expect(json!(["11", "11", T, "phx_error", { "reason": "channel_crash" }])).await;
    client.assert_push(T, "you_left").await;
    client.frame(json!(["11", "3", "room:b", "echo", {}])).await;
    client.expect(json!(["11", "3", "room:b", "phx_reply", ok()])).await;
    join_room(&mut client, T).await;
    assert_eq!(app.hooks.ended(T), [Leave::Crashed]);
    app.stop().await;
}

#[tokio::test]
async fn f72_channels_end_with_their_connection() {
    let (app, client) = joined().await;
    client.close().await;
    until("the end", || app.hooks.ended(T) == [Leave::Closed]).await;
    until("no subscription", || app.host.pubsub().subscribers(T) == 0).await;
    app.stop().await;
}

#[tokio::test]
async fn f73_channels_end_when_the_transport_is_lost() {
    let (app, client) = joined().await;
    drop(client);
    until("the end", || app.hooks.ended(T) == [Leave::Closed]).await;
    app.stop().await;
}

#[tokio::test]
async fn g77_what_is_no_frame_closes_that_connection_alone() {
    let (app, mut other) = joined().await;
    for bad in ["{", "{}", "[1,2]", r#"["1","2","t","e"]"#, "", r#"[null,"1","t",5,{}]"#] {
        let mut client = TestClient::connect(app.url()).await;
        client.text(bad).await;
        assert_eq!(client.close_code().await, 1011, "{bad}");
    }
    let deep = format!("[null,\"1\",\"room:a\",\"x\",{}{}]", "[".repeat(100_000), "]".repeat(100_000));
    let mut client = TestClient::connect(app.url()).await;
    client.text(&deep).await;
    assert_eq!(client.close_code().await, 1011);
    other.refute_push(T, "x").await;
    app.stop().await;
}

#[tokio::test]
async fn g77_a_topic_that_is_no_string_is_unmatched_and_echoed() {
    let (app, mut client) = start().await;
    client.frame(json!([null, "1", 5, "phx_join", {}])).await;
    client.expect(json!([null, "1", 5, "phx_reply", unmatched()])).await;
    client.heartbeat().await;
    app.stop().await;
}

#[tokio::test]
async fn g78_a_binary_frame_closes_where_only_text_is_spoken() {
    let (app, mut client) = joined().await;
    client.send(Message::binary(vec![0, 1, 1, 6, 3])).await;
    assert_eq!(client.close_code().await, 1011);
    app.stop().await;
}

#[tokio::test]
async fn j96_a_broadcast_to_nobody_is_no_error() {
    let app = App::start().await;
    assert_eq!(app.publish("room:nobody", Kind::Ephemeral, "x", json!({})), 0);
    app.stop().await;
}
