//! Parts F and G: how channels and connections end.

use rejoin::{
    channel::Leave,
    pubsub::{Control, Kind},
};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{T, join_room, joined, start};
use crate::{
    channel_app::App,
    support::{
        form::{Form, Version, everywhere, on_a_websocket},
        ws::{ok, unmatched, until},
    },
};

everywhere! {{
    f71_a_channel_that_is_ended_from_outside_says_that_it_broke,
    g75_those_without_that_identity_are_not_disconnected,
    g77_what_asks_for_too_much_is_answered,
    f67_f68_a_channel_may_stop_itself,
    f69_a_crash_ends_one_channel_and_a_rejoin_works,
    g77_a_topic_that_is_no_string_is_unmatched_and_echoed,
}}

on_a_websocket! {{
    g77_what_is_no_frame_closes_that_connection_alone,
    g78_binary_frames_of_another_kind_or_cut_short_close,
    f72_channels_end_with_their_connection,
    f73_channels_end_when_the_transport_is_lost,
}}

async fn f67_f68_a_channel_may_stop_itself(form: Form) {
    let (app, mut client) = joined(form).await;
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

async fn f69_a_crash_ends_one_channel_and_a_rejoin_works(form: Form) {
    let (app, mut client) = joined(form).await;
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

async fn f72_channels_end_with_their_connection(form: Form) {
    let (app, client) = joined(form).await;
    client.close().await;
    until("the end", || app.hooks.ended(T) == [Leave::Closed]).await;
    until("no subscription", || app.host.pubsub().subscribers(T) == 0).await;
    app.stop().await;
}

async fn f73_channels_end_when_the_transport_is_lost(form: Form) {
    let (app, client) = joined(form).await;
    drop(client);
    until("the end", || app.hooks.ended(T) == [Leave::Closed]).await;
    app.stop().await;
}

async fn g77_what_is_no_frame_closes_that_connection_alone(form: Form) {
    let (app, mut other) = joined(form).await;
    let of_both = ["{", "{}", "null", "", "7", r#""x""#];
    let arrays = ["[1,2]", r#"["1","2","t","e"]"#, r#"{"topic":"t","event":"e","payload":{},"ref":"1"}"#];
    let objects = ["[]", r#"{"topic":"t","event":"e","payload":{}}"#, r#"{"topic":"t","event":"e","ref":"1"}"#];
    let of_one = if form == Form::V1 { objects } else { arrays };
    for bad in of_both.into_iter().chain(of_one) {
        let mut client = app.client(form).await;
        client.text(bad).await;
        assert_eq!(client.close_code().await, 1011, "{bad}");
    }
    other.refute_push(T, "x").await;
    app.stop().await;
}

async fn g77_what_asks_for_too_much_is_answered(form: Form) {
    let (app, mut client) = joined(form).await;
    let long_topic = "t".repeat(64 * 1024);
    let too_many =
        [(T, "e".repeat(10_000), json!({}), "too_large"), (&*long_topic, "e".to_owned(), json!({}), "too_large")];
    for (topic, event, payload, reason) in too_many {
        client.frame(json!(["11", "2", topic, event, payload])).await;
        let answer = client.next().await;
        assert_eq!((&answer[1], &answer[2]), (&json!("2"), &json!(topic)));
        assert_eq!((&answer[4]["status"], &answer[4]["response"]["reason"]), (&json!("error"), &json!(reason)));
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let text = match form.version {
        Version::V1 => format!(r#"{{"topic":"room:a","event":"x","payload":{deep},"ref":"3"}}"#),
        Version::V2 => format!(r#"["11","3","room:a","x",{deep}]"#),
    };
    client.text(&text).await;
    assert_eq!(client.assert_reply("3", "error").await["reason"], "invalid");
    client.frame(json!(["11", "4", T, 7, {}])).await;
    assert_eq!(client.assert_reply("4", "error").await["reason"], "invalid");
    client.frame(json!(["11", "5", "room:x", 7, {}])).await;
    client.expect(json!([null, "5", "room:x", "phx_reply", unmatched()])).await;
    client.heartbeat().await;
    app.stop().await;
}

async fn g78_binary_frames_of_another_kind_or_cut_short_close(form: Form) {
    let app = App::start().await;
    for bad in [&[0, 1, 1, 6, 3][..], &[1, 1, 1, 1, 2], &[2, 1, 1], &[9], &[], &[4, 0, 0, 0, 0]] {
        let mut client = app.client(form).await;
        client.send(Message::binary(bad.to_vec())).await;
        assert_eq!(client.close_code().await, 1011, "{bad:?}");
    }
    app.stop().await;
}

async fn g77_a_topic_that_is_no_string_is_unmatched_and_echoed(form: Form) {
    let (app, mut client) = start(form).await;
    client.frame(json!([null, "1", 5, "phx_join", {}])).await;
    client.expect(json!([null, "1", 5, "phx_reply", unmatched()])).await;
    client.heartbeat().await;
    app.stop().await;
}

async fn f71_a_channel_that_is_ended_from_outside_says_that_it_broke(form: Form) {
    let (app, mut client) = joined(form).await;
    app.publish(T, Kind::Control(Control::Restart), "", json!({}));
    client.expect(json!(["11", "11", T, "phx_error", { "reason": "channel_restart" }])).await;
    client.assert_push(T, "you_left").await;
    join_room(&mut client, T).await;
    app.stop().await;
}

async fn g75_those_without_that_identity_are_not_disconnected(form: Form) {
    let (app, mut client) = joined(form).await;
    assert_eq!(app.state.connections().disconnect(|identity| identity.person.id == "u1"), 0);
    client.heartbeat().await;
    app.stop().await;
}
