//! Who may listen, and for how long.

use reqwest::Method;
use serde_json::json;

use crate::support::{
    http::Http,
    jwt::{guarded, lasting},
    server::TestServer,
    sse::{Listener, Stream, ask},
};

async fn create(server: &TestServer, session: &str) {
    server.server.sessions().create(session, Default::default(), true).await.unwrap();
}

fn url(server: &TestServer, session: &str, token: &str) -> String {
    server.http(&format!("/api/sessions/{session}/events?token={token}"))
}

#[tokio::test]
async fn the_right_to_read_is_enough_and_what_may_not_be_read_is_refused_whether_it_is_there_or_not() {
    let (server, _script) = guarded().await;
    create(&server, "mine").await;
    create(&server, "yours").await;
    let token = lasting("u1", json!({"session:mine*": "read"}), 3_600);
    Listener::open(&url(&server, "mine", &token)).await;
    let http = Http::new(&server.http(""));
    let accept = [("accept", "text/event-stream")];
    for (session, status, code) in
        [("yours", 403, "unauthorized"), ("nobody", 403, "unauthorized"), ("mine2", 404, "not_found")]
    {
        let path = format!("/api/sessions/{session}/events?token={token}");
        http.ask(Method::GET, &path, &accept, "").await.refuses(status, code);
    }
    http.ask(Method::GET, "/api/sessions/mine/events", &accept, "").await.refuses(401, "unauthorized");
    let bearer = [("accept", "text/event-stream"), ("authorization", "Bearer x")];
    http.ask(Method::GET, "/api/sessions/mine/events", &bearer, "").await.refuses(401, "unauthorized");
    server.stop().await;
}

#[tokio::test]
async fn a_token_that_expires_ends_the_stream_and_does_not_begin_another() {
    let (server, _script) = guarded().await;
    create(&server, "s").await;
    let address = url(&server, "s", &lasting("u1", json!({"session:s": "read"}), 2));
    let mut stream = Stream::open(&address).await;
    assert_eq!(stream.next().await.name, "joined");
    assert_eq!(stream.try_next().await, None);
    assert_eq!(ask(&address, Some(&stream.last_id)).await.status(), 401);
    server.stop().await;
}

#[tokio::test]
async fn a_deleted_session_is_told_and_whoever_comes_back_is_sent_away() {
    let (server, _script) = guarded().await;
    create(&server, "s").await;
    let address = url(&server, "s", &lasting("u1", json!({"*": "admin"}), 3_600));
    let mut stream = Stream::open(&address).await;
    assert_eq!(stream.next().await.name, "joined");
    let http = Http::new(&server.http(""));
    let (_, query) = address.split_once('?').unwrap();
    http.delete(&format!("/api/sessions/s?{query}")).await.ok(200);
    let last = stream.next().await;
    assert_eq!((last.name.as_str(), &last.data["by"]["id"]), ("deleted", &"u1".into()));
    assert_eq!(stream.try_next().await, None);
    assert_eq!(ask(&address, Some(&stream.last_id)).await.status(), 404);
    create(&server, "s").await;
    let mut stream = Stream::resume(&address, &stream.last_id).await;
    assert_eq!(stream.next().await.data["replay"]["reason"], "epoch_changed", "another session of that name");
    server.stop().await;
}
