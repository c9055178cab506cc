//! Sessions that are deleted: what their members are shown, what becomes of what ran in them, and what their ids mean
//! afterwards.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    client::SessionClient,
    db::Db,
    form::Form,
    http::{Http, keys},
    script::Script,
    server::TestServer,
    ws::{TestClient, within},
};

async fn start() -> (TestServer, Script, Http) {
    let (server, script) = TestServer::start().await;
    let http = Http::new(&server.http("/"));
    (server, script, http)
}

/// Reads up to `phx_close`: what the client was shown before it that is neither presence nor the log.
async fn until_closed(client: &mut TestClient, topic: &str) -> Vec<Value> {
    let mut shown = Vec::new();
    loop {
        let frame = client.next().await;
        assert_eq!(frame[2], topic, "{frame}");
        match frame[3].as_str().unwrap() {
            "phx_close" => return shown,
            "presence_state" | "presence_diff" | "events" => {}
            _ => shown.push(frame),
        }
    }
}

#[tokio::test]
async fn l12_members_are_told_by_whom_and_let_go_and_what_ran_is_dropped() {
    let (server, mut script, http) = start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let mut ben = SessionClient::join(&server.ws("ben"), "s").await;
    let mut eve = SessionClient::join(&server.ws("eve"), "beside").await;
    ada.send("a").await;
    let waiting = ada.send("b").await["turn_id"].clone();
    let turn = script.turn().await;
    turn.say("half").await;
    let (old, last_seq) = (ada.view.epoch.clone(), ada.view.last_seq);
    assert_eq!(http.delete("/api/sessions/s?user_id=ops&name=Ops").await.ok(200), json!({}));
    let by = json!({ "by": { "id": "ops", "name": "Ops" } });
    for client in [&mut ada, &mut ben] {
        let shown = until_closed(&mut client.raw, "session:s").await;
        assert_eq!(shown, [json!([null, null, "session:s", "deleted", by])]);
    }
    turn.dropped().await;
    assert!(script.is_idle(), "what waited never runs");
    // Gone at once, for everybody and everything.
    http.get("/api/sessions/s").await.refuses(404, "not_found");
    http.get("/api/sessions/s/messages").await.refuses(404, "not_found");
    http.delete("/api/sessions/s").await.refuses(404, "not_found");
    let cancel = format!("/api/sessions/s/turns/{}/cancel", waiting.as_str().unwrap());
    http.post(&cancel, &json!({})).await.refuses(404, "not_found");
    let list = http.get("/api/sessions").await.ok(200);
    assert_eq!(list["sessions"].as_array().unwrap().len(), 1, "{list}");
    within("nobody to be there", async {
        while http.get("/api/presence/session:s").await.ok(200)["presence"] != json!({}) {}
    })
    .await;
    let node = http.get("/api/nodes").await.ok(200)["nodes"][0].clone();
    assert_eq!((&node["running_turns"], &node["connections"]), (&json!(0), &json!(3)), "connections stay");
    // A later join makes another one.
    let cursor = json!({ "last_seq": last_seq, "epoch": old });
    let again = SessionClient::join_with(&server.ws("ada"), "s", cursor).await;
    assert_eq!(again.joined["replay"]["reason"], "epoch_changed");
    assert_eq!(again.joined["replay"]["messages"], json!([]));
    assert_eq!((&again.joined["session"]["last_seq"], &again.joined["turns"]), (&json!(0), &json!([])));
    assert_ne!(again.view.epoch, old);
    eve.ok("send", json!({ "text": "still here", "answer": false })).await;
    server.stop().await;
}

#[tokio::test]
async fn l12_a_session_is_deleted_and_made_again_and_again_under_the_eyes_of_its_members() {
    let (server, mut script, http) = start().await;
    let mut epochs = std::collections::HashSet::new();
    let mut ada = TestClient::connect(server.ws("ada")).await;
    for round in 0..20_u32 {
        let frame = json!([round.to_string(), round.to_string(), "session:s", "phx_join", {}]);
        ada.frame(frame).await;
        let reply = ada.next().await;
        assert_eq!(reply[4]["status"], "ok", "{reply}");
        assert!(epochs.insert(reply[4]["response"]["session"]["epoch"].to_string()), "an epoch of its own");
        http.post("/api/sessions/s/messages?user_id=ben", &json!({ "id": "m", "text": "hi" })).await.ok(202);
        let turn = script.turn().await;
        http.delete("/api/sessions/s").await.ok(200);
        let shown = until_closed(&mut ada, "session:s").await;
        assert_eq!(shown.iter().map(|frame| &frame[3]).collect::<Vec<_>>(), ["deleted"], "{shown:?}");
        turn.dropped().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn l12_a_cancel_that_waits_is_answered_when_its_session_is_deleted() {
    let (server, mut script, http) = start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let id = ada.send("a").await["turn_id"].clone();
    let turn = script.turn().await;
    let path = format!("/api/sessions/s/turns/{}/cancel?user_id=ada", id.as_str().unwrap());
    let (nothing, begun) = (json!({}), std::time::Instant::now());
    let (cancelled, deleted) = tokio::join!(http.post(&path, &nothing), http.delete("/api/sessions/s"));
    deleted.ok(200);
    if cancelled.status == 200 {
        assert_eq!(cancelled.ok(200)["status"], "cancelled", "it came first");
    } else {
        cancelled.refuses(404, "not_found");
    }
    assert!(begun.elapsed().as_secs() < 5, "nobody's patience was used up: {:?}", begun.elapsed());
    turn.dropped().await;
    server.stop().await;
}

#[tokio::test]
async fn who_watches_the_list_is_told_that_it_is_gone() {
    let (server, _script, http) = start().await;
    http.post("/api/sessions", &json!({ "id": "s" })).await.ok(201);
    let mut ops = TestClient::connect(server.ws("ops")).await;
    ops.frame(json!(["1", "1", "sessions", "phx_join", {}])).await;
    let reply = ops.next().await;
    assert_eq!(reply[4]["response"]["sessions"][0]["id"], "s", "{reply}");
    http.delete("/api/sessions/s").await.ok(200);
    let frame = ops.next().await;
    assert_eq!((&frame[3], &frame[4]), (&json!("session_removed"), &json!({ "id": "s" })), "{frame}");
    server.stop().await;
}

#[tokio::test]
async fn l12_every_form_of_client_is_let_go() {
    let (server, _script, http) = start().await;
    for (number, form) in [Form::V1, Form::V2, Form::V1_POLL, Form::V2_POLL].into_iter().enumerate() {
        let session = format!("s{number}");
        let topic = format!("session:{session}");
        let mut client = TestClient::open(server.server.address(), form, "&user_id=ada").await;
        client.frame(json!(["1", "1", topic, "phx_join", {}])).await;
        assert_eq!(client.next().await[4]["status"], "ok");
        http.delete(&format!("/api/sessions/{session}")).await.ok(200);
        let shown = until_closed(&mut client, &topic).await;
        assert_eq!(keys(&shown[0][4]), ["by"], "{form:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_delete_needs_no_type_but_none_that_is_another() {
    let (server, _script, http) = start().await;
    http.post("/api/sessions", &json!({ "id": "s" })).await.ok(201);
    let text = [("content-type", "text/plain")];
    http.ask(Method::DELETE, "/api/sessions/s", &text, "").await.refuses(400, "invalid");
    let elsewhere = [("origin", "http://elsewhere.example")];
    http.ask(Method::DELETE, "/api/sessions/s", &elsewhere, "").await.refuses(403, "unauthorized");
    http.delete("/api/sessions/a%20b").await.refuses(400, "invalid");
    let typed = [("content-type", "application/json; charset=utf-8")];
    http.ask(Method::DELETE, "/api/sessions/s", &typed, "{}").await.ok(200);
    http.ask(Method::PATCH, "/api/sessions/s", &[], "{}").await.refuses(400, "invalid");
    server.stop().await;
}

#[tokio::test]
async fn l12_what_a_deleted_session_has_left_never_shows_in_another_also_after_a_restart() {
    let (server, mut script, http) = start().await;
    for number in 0..30 {
        let body = json!({ "id": format!("m{number}"), "text": "x", "answer": false });
        http.post("/api/sessions/s/messages", &body).await.ok(202);
    }
    http.post("/api/sessions/s/messages", &json!({ "text": "and?" })).await.ok(202);
    let _turn = script.turn().await;
    http.delete("/api/sessions/s").await.ok(200);
    // The newest key is that of the session that is gone.
    let folder = server.stop().await;
    let (agents, _script) = crate::support::script::scripted();
    let server = TestServer::start_in(folder, agents, |_| {}).await;
    let http = Http::new(&server.http("/"));
    http.post("/api/sessions", &json!({ "id": "s" })).await.ok(201);
    assert_eq!(http.get("/api/sessions/s/messages").await.ok(200)["messages"], json!([]));
    assert_eq!(http.get("/api/sessions/s/events").await.ok(200)["events"], json!([]));
    http.post("/api/sessions/s/messages", &json!({ "id": "m1", "text": "y", "answer": false })).await.ok(202);
    // A deletion rings for those who tidy up.
    http.post("/api/sessions", &json!({ "id": "t" })).await.ok(201);
    http.delete("/api/sessions/t").await.ok(200);
    let mut db = Db::open(&server.database()).await;
    within("it to be emptied", async {
        while db.number("SELECT count(*) FROM events").await != 1
            || db.number("SELECT count(*) FROM messages").await != 1
            || db.number("SELECT count(*) FROM turns").await != 0
        {}
    })
    .await;
    assert_eq!(http.get("/api/sessions/s/messages").await.ok(200)["messages"][0]["id"], "m1");
    server.stop().await;
}
