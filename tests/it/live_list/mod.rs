//! Topic `sessions`: what viewers of the live list are shown, and how little that takes.

mod many;
mod nodes;
mod rights;

use serde_json::{Value, json};

use super::support::{
    client::SessionClient,
    server::TestServer,
    ws::{TestClient, ok, within},
};

/// One viewer of the list.
struct Viewer {
    raw: TestClient,
    /// The reply to its join.
    joined: Value,
}

impl Viewer {
    async fn join(url: &str, params: Value) -> Self {
        let mut raw = TestClient::connect(url).await;
        raw.frame(json!(["1", "1", "sessions", "phx_join", params])).await;
        let reply = raw.next().await;
        assert_eq!((&reply[1], &reply[4]["status"]), (&"1".into(), &"ok".into()), "{reply}");
        Self { raw, joined: reply[4]["response"].clone() }
    }

    fn ids(&self) -> Vec<&str> {
        self.joined["sessions"].as_array().unwrap().iter().map(|session| session["id"].as_str().unwrap()).collect()
    }

    /// The next push, which everybody is sent with the same bytes: its event and payload.
    async fn push(&mut self) -> (String, Value) {
        let frame = self.raw.next().await;
        assert_eq!((&frame[0], &frame[1], &frame[2]), (&Value::Null, &Value::Null, &"sessions".into()), "{frame}");
        (frame[3].as_str().unwrap().to_owned(), frame[4].clone())
    }

    /// The next session that has changed.
    async fn changed(&mut self) -> Value {
        let (event, summary) = self.push().await;
        assert_eq!(event, "session_changed");
        summary
    }

    /// Reads until a change is what is waited for.
    async fn until(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        within(what, async {
            loop {
                let (event, summary) = self.push().await;
                if event == "session_changed" && is_it(&summary) {
                    return summary;
                }
            }
        })
        .await
    }
}

async fn create(server: &TestServer, session: &str) {
    server.server.sessions().create(session, Default::default(), true).await.unwrap();
}

#[tokio::test]
async fn a_viewer_begins_with_the_newest_hundred_and_is_told_whether_there_are_more() {
    let (server, _script) = TestServer::start().await;
    for n in 0..100 {
        create(&server, &format!("s{n}")).await;
    }
    create(&server, "other").await;
    let viewer = Viewer::join(&server.ws("ada"), json!({})).await;
    assert_eq!((viewer.ids().len(), viewer.ids()[0], &viewer.joined["has_more"]), (100, "other", &true.into()));
    let viewer = Viewer::join(&server.ws("ada"), json!({ "prefix": "s" })).await;
    assert_eq!((viewer.ids().len(), viewer.ids()[99], &viewer.joined["has_more"]), (100, "s0", &false.into()));
    let viewer = Viewer::join(&server.ws("ada"), json!({ "prefix": "s9" })).await;
    assert_eq!(viewer.ids(), ["s99", "s98", "s97", "s96", "s95", "s94", "s93", "s92", "s91", "s90", "s9"]);
    let summary = &viewer.joined["sessions"][0];
    let expected = ["id", "last_seq", "running", "status", "title", "updated_at"];
    assert_eq!(super::support::http::keys(summary), expected);
    server.stop().await;
}

#[tokio::test]
async fn what_a_session_goes_through_is_told_at_once() {
    let (server, mut script) = TestServer::start().await;
    let mut viewer = Viewer::join(&server.ws("ada"), json!({ "prefix": "a" })).await;
    assert!(viewer.ids().is_empty());
    create(&server, "b").await;
    let mut ada = SessionClient::join_at(&server, "ada", "a1").await;
    let made = viewer.changed().await;
    assert_eq!((&made["id"], &made["status"], &made["last_seq"]), (&"a1".into(), &"idle".into(), &0.into()));
    ada.ok("update", json!({ "title": "Plans" })).await;
    assert_eq!(viewer.changed().await["title"], "Plans");
    let sent = ada.send("go").await;
    let turn = script.turn().await;
    let running = viewer.changed().await;
    let by = json!({ "id": "ada", "name": "ada" });
    let expected = json!([{ "turn_id": sent["turn_id"], "agent": "script", "by": by, "liveness": "alive" }]);
    assert_eq!((&running["status"], &running["running"]), (&"running".into(), &expected));
    turn.done().await;
    let ended = viewer.until("the end", |summary| summary["status"] == "idle").await;
    assert_eq!((&ended["running"], &ended["title"]), (&json!([]), &"Plans".into()));
    server.stop().await;
}

#[tokio::test]
async fn a_place_that_moves_alone_is_told_in_its_round() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join_at(&server, "ada", "s").await;
    let mut viewer = Viewer::join(&server.ws("ada"), json!({})).await;
    ada.send("go").await;
    let turn = script.turn().await;
    let began = viewer.until("the start", |summary| summary["status"] == "running").await;
    turn.say("word").await;
    let moved = viewer.changed().await;
    assert!(moved["last_seq"].as_u64() > began["last_seq"].as_u64(), "{moved}");
    assert_eq!(moved["running"], began["running"]);
    turn.done().await;
    viewer.until("the end", |summary| summary["status"] == "idle").await;
    ada.ok("send", json!({ "text": "a note", "answer": false })).await;
    let noted = viewer.changed().await;
    assert_eq!((&noted["status"], &noted["last_seq"]), (&"idle".into(), &ada_seq(&mut ada).await));
    server.stop().await;
}

async fn ada_seq(ada: &mut SessionClient) -> Value {
    ada.until("the note", |ada| ada.view.messages.last().is_some_and(|last| last.plain_text() == "a note")).await;
    ada.view.last_seq.into()
}

#[tokio::test]
async fn the_list_is_only_listened_to() {
    let (server, _script) = TestServer::start().await;
    let mut viewer = Viewer::join(&server.ws("ada"), json!({})).await;
    viewer.raw.frame(json!(["1", "2", "sessions", "send", { "text": "x" }])).await;
    let refused = viewer.raw.next().await;
    assert_eq!((&refused[4]["status"], &refused[4]["response"]["reason"]), (&"error".into(), &"invalid".into()));
    viewer.raw.frame(json!(["1", "3", "sessions", "access_token", { "token": "x" }])).await;
    viewer.raw.expect(json!(["1", "3", "sessions", "phx_reply", ok()])).await;
    viewer.raw.frame(json!(["2", "4", "sessions", "phx_join", { "prefix": 7 }])).await;
    let refused = viewer.raw.next().await;
    assert_eq!(refused[4]["response"]["reason"], "invalid", "{refused}");
    server.stop().await;
}

#[tokio::test]
async fn who_comes_back_to_a_list_that_slept_is_told_what_happens_from_then_on() {
    let (server, _script) = TestServer::start().await;
    let first = Viewer::join(&server.ws("ada"), json!({})).await;
    drop(first);
    // Long enough for the list to be given up: the case itself.
    tokio::time::sleep(std::time::Duration::from_millis(4_500)).await;
    create(&server, "meanwhile").await;
    let mut second = Viewer::join(&server.ws("ada"), json!({})).await;
    assert_eq!(second.ids(), ["meanwhile"]);
    create(&server, "later").await;
    assert_eq!(second.changed().await["id"], "later");
    server.stop().await;
}
