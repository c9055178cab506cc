//! What operators and other servers ask over HTTP: the nodes, who is on a topic, a word to everybody on one.

use serde_json::{Value, json};

use crate::support::{
    client::SessionClient,
    http::{Http, keys},
    server::TestServer,
    ws::{TestClient, within},
};

async fn start() -> (TestServer, crate::support::script::Script, Http) {
    let (server, script) = TestServer::start().await;
    let http = Http::new(&server.http("/"));
    (server, script, http)
}

/// The next frame that has nothing to do with presence.
async fn next(client: &mut TestClient) -> Value {
    loop {
        let frame = client.next().await;
        if frame[3] != "presence_state" && frame[3] != "presence_diff" {
            return frame;
        }
    }
}

#[tokio::test]
async fn the_list_of_nodes_tells_what_each_has_to_do() {
    let (server, mut script, http) = start().await;
    let list = http.get("/api/nodes").await.ok(200);
    assert_eq!(keys(&list), ["node", "nodes"]);
    let node = &list["nodes"][0];
    assert_eq!(
        keys(node),
        ["connections", "incarnation", "lease_ttl_ms", "name", "running_turns", "seen_ms_ago", "state"]
    );
    assert_eq!((&node["name"], &node["state"]), (&json!("test"), &json!("live")));
    assert_eq!(list["node"], json!({ "name": node["name"], "incarnation": node["incarnation"] }));
    assert_eq!((&node["connections"], &node["running_turns"]), (&json!(0), &json!(0)));
    assert!(node["seen_ms_ago"].as_u64().is_some_and(|ms| ms < 20_000), "{node}");
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let _ben = SessionClient::join(&server.ws("ben"), "s").await;
    ada.send("a").await;
    let turn = script.turn().await;
    let node = http.get("/api/nodes").await.ok(200)["nodes"][0].clone();
    assert_eq!((&node["connections"], &node["running_turns"]), (&json!(2), &json!(1)));
    turn.done().await;
    server.stop().await;
}

#[tokio::test]
async fn a_patch_is_an_update_and_answers_with_the_session() {
    let (server, _script, http) = start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let change = json!({ "title": "Plans", "metadata": { "a": 1 }, "max_running": 2 });
    let answer = http.patch("/api/sessions/s?user_id=ben", &change).await.ok(200);
    assert_eq!(keys(&answer), ["session", "turns"]);
    for field in ["title", "metadata", "max_running"] {
        assert_eq!(answer["session"][field], change[field]);
    }
    assert_eq!(answer["session"]["last_seq"], 1);
    ada.until("the change", |ada| ada.view.last_seq == 1).await;
    assert_eq!((&ada.events[0]["type"], &ada.events[0]["by"]["id"]), (&json!("session_updated"), &json!("ben")));
    assert_eq!(ada.events[0]["data"], change);
    let cleared = http.patch("/api/sessions/s", &json!({ "title": null })).await.ok(200);
    assert_eq!((&cleared["session"]["title"], &cleared["session"]["max_running"]), (&Value::Null, &json!(2)));
    let same = http.patch("/api/sessions/s", &json!({})).await.ok(200);
    assert_eq!(same["session"]["last_seq"], 2, "nothing was asked for");
    http.patch("/api/sessions/none", &change).await.refuses(404, "not_found");
    http.patch("/api/sessions/s", &json!({ "max_running": 33 })).await.refuses(400, "invalid");
    http.patch("/api/sessions/s", &json!({ "metadata": { "a": "x".repeat(17_000) } })).await.refuses(413, "too_large");
    http.patch("/api/sessions/s", &json!([])).await.refuses(400, "invalid");
    server.stop().await;
}

#[tokio::test]
async fn presence_is_told_as_its_members_are_shown_it() {
    let (server, mut script, http) = start().await;
    let mut ada = SessionClient::join_with(&server.ws("ada"), "s", json!({ "presence": { "color": "teal" } })).await;
    ada.send("a").await;
    let turn = script.turn().await;
    let answer = http.get("/api/presence/session:s").await.ok(200);
    assert_eq!(keys(&answer), ["presence"]);
    assert_eq!(keys(&answer["presence"]), ["ada", "agent:script"]);
    assert_eq!(answer["presence"]["ada"]["metas"][0]["color"], "teal");
    assert!(answer["presence"]["ada"]["metas"][0]["phx_ref"].is_string());
    // The name of a room may hold what a path takes apart.
    let mut ben = TestClient::connect(server.ws("ben")).await;
    ben.join("room:a/b ü", json!({})).await;
    let answer = http.get("/api/presence/room:a%2Fb%20%C3%BC").await.ok(200);
    assert_eq!(keys(&answer["presence"]), ["ben"]);
    assert_eq!(http.get("/api/presence/room:empty").await.ok(200), json!({ "presence": {} }));
    http.get("/api/presence/nothing").await.refuses(404, "not_found");
    http.get("/api/presence/room:%ff").await.refuses(400, "invalid");
    turn.done().await;
    server.stop().await;
}

#[tokio::test]
async fn a_broadcast_reaches_everybody_on_its_topic_in_the_form_of_that_topic() {
    let (server, _script, http) = start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let mut ben = TestClient::connect(server.ws("ben")).await;
    ben.join("room:lobby", json!({})).await;
    let body = json!({ "topic": "session:s", "event": "typing", "payload": { "on": true } });
    assert_eq!(http.post("/api/broadcast?user_id=ops&name=Ops", &body).await.ok(200), json!({}));
    ada.until("the broadcast", |ada| !ada.others.is_empty()).await;
    assert_eq!(ada.others[0][3], "broadcast");
    let by = json!({ "id": "ops", "name": "Ops" });
    assert_eq!(ada.others[0][4], json!({ "event": "typing", "payload": { "on": true }, "by": by }));
    let body = json!({ "topic": "room:lobby", "event": "news", "payload": { "a": [1] } });
    http.post("/api/broadcast", &body).await.ok(200);
    assert_eq!(next(&mut ben).await, json!([null, null, "room:lobby", "news", { "a": [1] }]));
    http.post("/api/broadcast", &json!({ "topic": "room:lobby", "event": "ping" })).await.ok(200);
    assert_eq!(next(&mut ben).await[4], json!({}), "a payload need not be there");
    for (body, status, code) in [
        (json!({ "topic": "room:lobby", "event": "phx_close" }), 400, "invalid"),
        (json!({ "topic": "room:lobby", "event": "presence_diff" }), 400, "invalid"),
        (json!({ "topic": "room:lobby", "event": "deleted" }), 400, "invalid"),
        (json!({ "topic": "room:lobby", "event": "x", "payload": [] }), 400, "invalid"),
        (json!({ "topic": "room:lobby", "event": "" }), 400, "invalid"),
        (json!({ "topic": "room:", "event": "x" }), 400, "invalid"),
        (json!({ "topic": "session:a b", "event": "x" }), 400, "invalid"),
        (json!({ "topic": "session:s", "event": "" }), 400, "invalid"),
        (json!({ "topic": "session:s" }), 400, "invalid"),
        (json!({ "event": "x" }), 400, "invalid"),
        (json!({ "topic": "elsewhere", "event": "x" }), 404, "not_found"),
        (json!({ "topic": "admin", "event": "overview" }), 404, "not_found"),
        (json!({ "topic": "sessions", "event": "session_changed" }), 404, "not_found"),
    ] {
        http.post("/api/broadcast", &body).await.refuses(status, code);
    }
    assert_eq!(ada.view.last_seq, 0, "nothing of it is kept");
    within("nothing more", async {
        http.post("/api/broadcast", &json!({ "topic": "room:lobby", "event": "last" })).await.ok(200);
        assert_eq!(next(&mut ben).await[3], "last");
    })
    .await;
    server.stop().await;
}
