//! Part B: heartbeats.

use serde_json::json;

use super::{T, start};
use crate::support::{
    form::{Form, everywhere},
    ws::{ok, unmatched},
};

everywhere! {{
    b20_a_heartbeat_is_answered_without_a_join_ref,
    b21_a_heartbeat_echoes_any_ref,
    b24_another_event_on_the_topic_of_the_connection_is_unmatched,
    b25_a_heartbeat_is_answered_while_a_join_is_slow,
}}

async fn b20_a_heartbeat_is_answered_without_a_join_ref(form: Form) {
    let (app, mut client) = start(form).await;
    client.frame(json!([null, "1", "phoenix", "heartbeat", {}])).await;
    client.expect(json!([null, "1", "phoenix", "phx_reply", ok()])).await;
    app.stop().await;
}

async fn b21_a_heartbeat_echoes_any_ref(form: Form) {
    let (app, mut client) = start(form).await;
    client.frame(json!([null, null, "phoenix", "heartbeat", {}])).await;
    client.expect(json!([null, null, "phoenix", "phx_reply", ok()])).await;
    client.frame(json!([0, 0, "phoenix", "heartbeat", null])).await;
    client.expect(json!([null, 0, "phoenix", "phx_reply", ok()])).await;
    app.stop().await;
}

async fn b24_another_event_on_the_topic_of_the_connection_is_unmatched(form: Form) {
    let (app, mut client) = start(form).await;
    client.frame(json!([null, "2", "phoenix", "other", {}])).await;
    client.expect(json!([null, "2", "phoenix", "phx_reply", unmatched()])).await;
    app.stop().await;
}

async fn b25_a_heartbeat_is_answered_while_a_join_is_slow(form: Form) {
    let (app, mut client) = start(form).await;
    client.frame(json!(["11", "1", T, "phx_join", { "wait": true }])).await;
    client.heartbeat().await;
    app.hooks.gate.notify_one();
    client.expect(json!(["11", "1", T, "phx_reply", ok()])).await;
    app.stop().await;
}
