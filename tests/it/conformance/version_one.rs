//! Part I: what is particular to version 1.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{T, joined, start};
use crate::{
    channel_app::App,
    support::{
        form::{Form, in_forms},
        ws::{TestClient, ok},
    },
};

in_forms! {
    [v1 = V1]
    {
        b22_i88_frames_have_exactly_four_keys,
        i89_frames_may_come_as_bytes,
        e66_the_close_of_a_replaced_channel_carries_its_join_ref_or_none,
        f70_a_crash_carries_the_join_ref_or_none,
    }
}

async fn b22_i88_frames_have_exactly_four_keys(form: Form) {
    let (app, mut client) = joined(form).await;
    client.text(r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"1"}"#).await;
    let reply = r#"{"topic":"phoenix","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":"1"}"#;
    assert_eq!(client.next_text().await, reply);
    client.frame(json!(["11", "2", T, "shout", { "a": 1 }])).await;
    assert_eq!(client.next_text().await, r#"{"topic":"room:a","event":"shout","payload":{"a":1},"ref":null}"#);
    client.expect(json!(["11", "2", T, "phx_reply", ok()])).await;
    app.stop().await;
}

async fn i89_frames_may_come_as_bytes(form: Form) {
    let (app, mut client) = start(form).await;
    let join = r#"{"topic":"room:a","event":"phx_join","payload":{},"ref":null}"#;
    client.send(Message::binary(join.as_bytes().to_vec())).await;
    client.expect(json!([null, null, T, "phx_reply", ok()])).await;
    app.stop().await;
}

async fn e66_the_close_of_a_replaced_channel_carries_its_join_ref_or_none(form: Form) {
    let (app, mut client) = joined(form).await;
    client.frame(json!([null, "2", T, "phx_join", {}])).await;
    client.expect(json!([null, "2", T, "phx_reply", ok()])).await;
    client.expect(json!([null, "11", T, "phx_close", {}])).await;
    client.assert_push(T, "joined").await;
    client.frame(json!([null, "3", T, "phx_join", {}])).await;
    client.expect(json!([null, "3", T, "phx_reply", ok()])).await;
    client.expect(json!([null, null, T, "phx_close", {}])).await;
    app.stop().await;
}

async fn f70_a_crash_carries_the_join_ref_or_none(form: Form) {
    let (app, mut client) = joined(form).await;
    client.frame(json!(["11", "2", T, "boom", {}])).await;
    let error = r#"{"topic":"room:a","event":"phx_error","payload":{"reason":"channel_crash"},"ref":"11"}"#;
    assert_eq!(client.next_text().await, error);
    client.assert_push(T, "you_left").await;
    client.frame(json!([null, "3", T, "phx_join", {}])).await;
    client.assert_push(T, "joined").await;
    client.frame(json!([null, "4", T, "boom", {}])).await;
    client.expect(json!([null, null, T, "phx_error", { "reason": "channel_crash" }])).await;
    app.stop().await;
}

/// A GraphQL client's flow: no query at all, integer refs, a control topic.
#[tokio::test]
async fn i91_i92_a_client_without_a_query_and_with_integer_refs_is_served() {
    let app = App::start().await;
    let form = Form::V1;
    let bare = form.url(app.address).split_once('?').unwrap().0.to_owned();
    let mut client = TestClient::connect(bare).await.speaking(form.version);
    client.frame(json!([null, 1, "__absinthe__:control", "phx_join", {}])).await;
    client.expect(json!([null, 1, "__absinthe__:control", "phx_reply", ok()])).await;
    client.assert_push("__absinthe__:control", "joined").await;
    client.frame(json!([null, 2, "__absinthe__:control", "echo", { "query": "{ a }" }])).await;
    let answer = json!({ "status": "ok", "response": { "query": "{ a }" } });
    client.expect(json!([null, 2, "__absinthe__:control", "phx_reply", answer])).await;
    app.stop().await;
}
