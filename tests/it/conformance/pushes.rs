//! Part D: pushes and replies.

use rejoin::{channel, transport};
use serde_json::{Value, json};

use super::{T, join_room, joined, start};
use crate::{
    channel_app::App,
    support::{
        form::{Form, everywhere, in_forms},
        ws::{ok, unmatched},
    },
};

everywhere! {{
    d49_a_push_after_the_end_of_the_channel_is_unmatched,
    d40_an_intercepted_broadcast_comes_after_the_reply_as_a_push,
    d41_a_broadcast_reaches_its_sender_before_the_reply,
    d42_broadcast_from_leaves_out_the_sender_only,
    d43_d44_replies_say_what_the_channel_says,
    d45_a_push_without_a_join_ref_is_handled,
    d46_d47_a_stale_join_ref_is_ignored,
    d48_a_push_to_a_topic_that_was_never_joined_is_unmatched,
    d50_a_hundred_pushes_get_a_hundred_replies_in_order,
    d51_a_slow_handler_delays_no_other_topic,
    d53_any_payload_reaches_the_handler_unchanged,
    d54_any_characters_come_back,
    a_late_answer_after_the_end_of_the_channel_is_dropped,
    an_inbox_that_is_full_answers_rate_limited,
}}

async fn d40_an_intercepted_broadcast_comes_after_the_reply_as_a_push(form: Form) {
    let (app, mut client) = joined(form).await;
    client.frame(json!(["11", "2", T, "new_msg", { "body": "hi" }])).await;
    client.expect(json!(["11", "2", T, "phx_reply", ok()])).await;
    client.expect(json!(["11", null, T, "new_msg", { "body": "hi", "transport": ":websocket" }])).await;
    app.stop().await;
}

async fn d41_a_broadcast_reaches_its_sender_before_the_reply(form: Form) {
    let (app, mut client) = joined(form).await;
    client.frame(json!(["11", "2", T, "shout", { "a": 1 }])).await;
    client.expect(json!([null, null, T, "shout", { "a": 1 }])).await;
    client.expect(json!(["11", "2", T, "phx_reply", ok()])).await;
    app.stop().await;
}

async fn d42_broadcast_from_leaves_out_the_sender_only(form: Form) {
    let (app, mut one) = joined(form).await;
    let mut two = app.client(form).await;
    join_room(&mut two, T).await;
    one.expect(json!([null, null, T, "user_entered", { "user": null }])).await;
    one.push(T, "from", json!({ "a": 1 })).await;
    two.expect(json!([null, null, T, "from", { "a": 1 }])).await;
    one.refute_push(T, "from").await;
    app.stop().await;
}

async fn d43_d44_replies_say_what_the_channel_says(form: Form) {
    let (app, mut client) = joined(form).await;
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

async fn d45_a_push_without_a_join_ref_is_handled(form: Form) {
    let (app, mut client) = joined(form).await;
    client.frame(json!([null, "2", T, "echo", { "a": 1 }])).await;
    client.expect(json!(["11", "2", T, "phx_reply", { "status": "ok", "response": { "a": 1 } }])).await;
    app.stop().await;
}

async fn d46_d47_a_stale_join_ref_is_ignored(form: Form) {
    let (app, mut client) = joined(form).await;
    client.frame(json!(["10", "2", T, "shout", {}])).await;
    client.frame(json!([11, "3", T, "shout", {}])).await;
    client.frame(json!(["11", "4", T, "echo", {}])).await;
    client.expect(json!(["11", "4", T, "phx_reply", ok()])).await;
    app.stop().await;
}

async fn d48_a_push_to_a_topic_that_was_never_joined_is_unmatched(form: Form) {
    let (app, mut client) = joined(form).await;
    client.frame(json!(["11", "4", "room:x", "echo", {}])).await;
    client.expect(json!([null, "4", "room:x", "phx_reply", unmatched()])).await;
    app.stop().await;
}

async fn d50_a_hundred_pushes_get_a_hundred_replies_in_order(form: Form) {
    let (app, mut client) = joined(form).await;
    for n in 0..100 {
        client.frame(json!(["11", n, T, "echo", { "n": n }])).await;
    }
    for n in 0..100 {
        client.expect(json!(["11", n, T, "phx_reply", { "status": "ok", "response": { "n": n } }])).await;
    }
    app.stop().await;
}

async fn d51_a_slow_handler_delays_no_other_topic(form: Form) {
    let (app, mut client) = joined(form).await;
    join_room(&mut client, "room:b").await;
    client.frame(json!(["11", "2", T, "wait", {}])).await;
    client.frame(json!(["11", "3", "room:b", "echo", {}])).await;
    client.expect(json!(["11", "3", "room:b", "phx_reply", ok()])).await;
    app.hooks.gate.notify_one();
    client.expect(json!(["11", "2", T, "phx_reply", ok()])).await;
    app.stop().await;
}

async fn d52_more_than_five_elements_are_accepted(form: Form) {
    let (app, mut client) = joined(form).await;
    client.frame(json!(["11", "5", T, "echo", {}, "x", [1]])).await;
    client.expect(json!(["11", "5", T, "phx_reply", ok()])).await;
    app.stop().await;
}

async fn d53_any_payload_reaches_the_handler_unchanged(form: Form) {
    let (app, mut client) = joined(form).await;
    for payload in [json!("str"), json!([1]), Value::Null, json!(7), json!({ "a": 1.5 })] {
        let reference = client.push(T, "echo", payload.clone()).await;
        assert_eq!(client.assert_reply(&reference, "ok").await, payload);
    }
    app.stop().await;
}

async fn d54_any_characters_come_back(form: Form) {
    let (app, mut client) = start(form).await;
    let topic = "room:café 🚀 \"quoted\" \\ \n";
    join_room(&mut client, topic).await;
    let reference = client.push(topic, "echo", json!({ "π": "🚀" })).await;
    assert_eq!(client.assert_reply(&reference, "ok").await, json!({ "π": "🚀" }));
    app.stop().await;
}

async fn d55_blanks_are_accepted_and_never_sent(form: Form) {
    let (app, mut client) = joined(form).await;
    client.text("[ \"11\" , \"5\" ,\n \"room:a\" , \"shout\" , { \"a b\" : [ 1 , 2 ] } ]").await;
    assert_eq!(client.next_text().await, r#"[null,null,"room:a","shout",{"a b":[1,2]}]"#);
    let reply = r#"["11","5","room:a","phx_reply",{"status":"ok","response":{}}]"#;
    assert_eq!(client.next_text().await, reply);
    app.stop().await;
}

async fn a_late_answer_after_the_end_of_the_channel_is_dropped(form: Form) {
    let (app, mut client) = joined(form).await;
    client.frame(json!(["11", "2", T, "later", {}])).await;
    client.frame(json!(["11", "3", T, "stop", {}])).await;
    client.assert_push(T, "you_left").await;
    app.hooks.gate.notify_one();
    join_room(&mut client, T).await;
    client.refute_push(T, "phx_close").await;
    app.stop().await;
}

async fn an_inbox_that_is_full_answers_rate_limited(form: Form) {
    let options = channel::Options { max_inbox: 2, ..Default::default() };
    let app = App::start_with(options, transport::Options::default()).await;
    let mut client = app.client(form).await;
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

async fn d49_a_push_after_the_end_of_the_channel_is_unmatched(form: Form) {
    let (app, mut client) = joined(form).await;
    client.frame(json!(["11", "2", T, "stop", {}])).await;
    client.expect(json!(["11", "11", T, "phx_close", {}])).await;
    client.assert_push(T, "you_left").await;
    client.frame(json!(["11", "3", T, "echo", {}])).await;
    client.expect(json!([null, "3", T, "phx_reply", unmatched()])).await;
    app.stop().await;
}

in_forms! {
    [v2_text = V2]
    {
        d52_more_than_five_elements_are_accepted,
        d55_blanks_are_accepted_and_never_sent,
    }
}
