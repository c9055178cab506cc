//! The frames of a channel's life, on a real port, as Phoenix clients know them: each scenario once, run in each version
//! of the protocol over each transport where that means something. The names begin with the item of the list of what a
//! compatible server does: a letter for its part and a number.

mod beats;
mod binary;
mod ends;
mod joins;
mod leaves;
mod pushes;
mod topics;
mod version_one;

use serde_json::json;

use crate::{
    channel_app::App,
    support::{form::Form, ws::TestClient},
};

const T: &str = "room:a";

async fn start(form: Form) -> (App, TestClient) {
    let app = App::start().await;
    let client = app.client(form).await;
    (app, client)
}

/// A client that has joined [`T`] and read everything that follows.
async fn joined(form: Form) -> (App, TestClient) {
    let (app, mut client) = start(form).await;
    join_room(&mut client, T).await;
    (app, client)
}

async fn join_room(client: &mut TestClient, topic: &str) {
    client.join(topic, json!({})).await;
    client.expect(json!([null, null, topic, "user_entered", { "user": null }])).await;
    client.expect(json!(["11", null, topic, "joined", { "status": "connected", "user_id": null }])).await;
}
