//! The live list of those who may not see everything.

use serde_json::{Value, json};

use super::{Viewer, create};
use crate::support::{
    http::Http,
    jwt::{guarded, lasting},
    server::TestServer,
    ws::TestClient,
};

fn ws(server: &TestServer, token: &str) -> String {
    server.http(&format!("/socket/websocket?vsn=2.0.0&token={token}")).replace("http://", "ws://")
}

fn token(topics: Value) -> String {
    lasting("u1", topics, 3_600)
}

async fn delete(server: &TestServer, session: &str) {
    let admin = token(json!({"*": "admin"}));
    Http::new(&server.http("")).delete(&format!("/api/sessions/{session}?token={admin}")).await.ok(200);
}

#[tokio::test]
async fn only_sessions_that_the_token_may_read_are_shown() {
    let (server, _script) = guarded().await;
    // More of other people's than a search for the own ones goes through, all of them newer.
    for session in ["team-a1", "team-b1", "lone", "team-a2"] {
        create(&server, session).await;
    }
    for n in 0..2_500 {
        create(&server, &format!("x{n}")).await;
    }
    let narrow = json!({"sessions": "read", "session:team-a*": "read"});
    let mut viewer = Viewer::join(&ws(&server, &token(narrow.clone())), json!({})).await;
    assert_eq!((viewer.ids(), &viewer.joined["has_more"]), (vec!["team-a2", "team-a1"], &false.into()));
    let viewer_of_none = Viewer::join(&ws(&server, &token(narrow.clone())), json!({ "prefix": "team-b" })).await;
    assert!(viewer_of_none.ids().is_empty());
    let wide =
        json!({"sessions": "read", "session:team-*": "read", "session:team-a2": "write", "session:lone": "read"});
    let all = Viewer::join(&ws(&server, &token(wide)), json!({ "prefix": "team-" })).await;
    assert_eq!(all.ids(), ["team-a2", "team-b1", "team-a1"]);
    for session in ["team-b2", "x", "team-a3"] {
        create(&server, session).await;
    }
    assert_eq!(viewer.changed().await["id"], "team-a3", "nothing of the others before");
    for session in ["team-b1", "team-a1"] {
        delete(&server, session).await;
    }
    assert_eq!(viewer.push().await, ("session_removed".to_owned(), json!({ "id": "team-a1" })));
    server.stop().await;
}

#[tokio::test]
async fn the_list_itself_needs_a_right_at_the_join_and_after() {
    let (server, _script) = guarded().await;
    let mut client = TestClient::connect(ws(&server, &token(json!({"session:*": "admin"})))).await;
    client.frame(json!(["1", "1", "sessions", "phx_join", {}])).await;
    let refused = client.next().await;
    assert_eq!(refused[4]["response"]["reason"], "unauthorized", "{refused}");
    let mut viewer = Viewer::join(&ws(&server, &token(json!({"sessions": "read"}))), json!({})).await;
    let wider = json!({ "token": token(json!({"sessions": "read", "session:a*": "read"})) });
    viewer.raw.frame(json!(["1", "2", "sessions", "access_token", wider])).await;
    assert_eq!(viewer.raw.next().await[4]["status"], "ok");
    create(&server, "b").await;
    create(&server, "a").await;
    assert_eq!(viewer.changed().await["id"], "a", "rights are those of the moment");
    let fewer = json!({ "token": token(json!({"session:a*": "read"})) });
    viewer.raw.frame(json!(["1", "3", "sessions", "access_token", fewer])).await;
    assert_eq!(viewer.raw.next().await[4]["status"], "ok");
    assert_eq!(viewer.raw.next().await[3], "phx_error");
    viewer.raw.frame(json!(["4", "4", "sessions", "phx_join", {}])).await;
    assert_eq!(viewer.raw.next().await[4]["response"]["reason"], "unauthorized");
    server.stop().await;
}
