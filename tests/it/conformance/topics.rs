//! Part J: what is published on a topic, and in which order it is seen.

use std::sync::atomic::{AtomicBool, Ordering};

use rejoin::pubsub::Kind;
use serde_json::json;

use super::{T, join_room, joined};
use crate::{
    channel_app::App,
    support::{
        form::{Form, everywhere},
        ws::TestClient,
    },
};

everywhere! {{
    j93_what_one_task_publishes_is_seen_in_its_order,
    j95_an_intercepted_broadcast_may_be_changed_or_left_out_for_each,
    j98_one_who_has_left_is_shown_nothing_whoever_publishes_meanwhile,
}}

async fn j93_what_one_task_publishes_is_seen_in_its_order(form: Form) {
    let (app, mut one) = joined(form).await;
    let mut two = app.client(Form::V2).await;
    join_room(&mut two, T).await;
    one.assert_push(T, "user_entered").await;
    for n in 0..1_000 {
        assert_eq!(app.publish(T, Kind::Ephemeral, "n", json!({ "n": n })), 2);
    }
    for n in 0..1_000 {
        one.expect(json!([null, null, T, "n", { "n": n }])).await;
        two.expect(json!([null, null, T, "n", { "n": n }])).await;
    }
    app.stop().await;
}

async fn j95_an_intercepted_broadcast_may_be_changed_or_left_out_for_each(form: Form) {
    let (app, mut one) = joined(form).await;
    let mut two = TestClient::open(app.address, form, "&user_id=u2").await;
    two.join(T, json!({})).await;
    two.assert_push(T, "joined").await;
    one.assert_push(T, "user_entered").await;
    app.publish(T, Kind::Ephemeral, "new_msg", json!({ "not_for": "u2" }));
    app.publish(T, Kind::Ephemeral, "new_msg", json!({ "n": 2 }));
    let (first, second) =
        (json!({ "not_for": "u2", "transport": ":websocket" }), json!({ "n": 2, "transport": ":websocket" }));
    one.expect(json!(["11", null, T, "new_msg", first])).await;
    one.expect(json!(["11", null, T, "new_msg", second])).await;
    two.expect(json!(["11", null, T, "new_msg", second])).await;
    app.stop().await;
}

#[tokio::test]
async fn j96_a_broadcast_to_nobody_is_no_error() {
    let app = App::start().await;
    assert_eq!(app.publish("room:nobody", Kind::Ephemeral, "x", json!({})), 0);
    app.stop().await;
}

async fn j98_one_who_has_left_is_shown_nothing_whoever_publishes_meanwhile(form: Form) {
    let (app, mut client) = joined(form).await;
    let done = AtomicBool::new(false);
    let publishing = async {
        while !done.load(Ordering::SeqCst) {
            app.publish(T, Kind::Ephemeral, "n", json!({}));
            tokio::task::yield_now().await;
        }
    };
    let leaving = async {
        client.frame(json!(["11", "2", T, "phx_leave", {}])).await;
        client.assert_push(T, "phx_close").await;
        client.expect(json!(["11", null, T, "you_left", { "message": "bye!" }])).await;
        client.heartbeat().await;
        done.store(true, Ordering::SeqCst);
    };
    tokio::join!(publishing, leaving);
    app.stop().await;
}
