//! What ends a session, and what its client is told.

use std::time::{Duration, Instant};

use rejoin::{
    channel::{self, Leave},
    transport,
};
use serde_json::json;

use super::{Poller, T, read, send, with_window};
use crate::{
    channel_app::App,
    support::{
        server::TestServer,
        ws::{until, within},
    },
};

#[tokio::test]
async fn l116_a_session_that_is_not_polled_ends_with_its_channels() {
    let window = Duration::from_millis(300);
    let app = with_window(window).await;
    let poller = Poller::open(&app).await;
    poller.join(T).await;
    // As long as it is polled it lives, however long that is.
    for _ in 0..3 {
        assert_eq!(poller.poll().await["status"], 204);
    }
    let begun = Instant::now();
    until("the session to end", || app.state.connections().count() == 0).await;
    assert!(begun.elapsed() >= window, "{:?}", begun.elapsed());
    until("its channel to end", || app.hooks.ended(T) == [Leave::Closed]).await;
    assert_eq!(poller.post("[]").await.ok(), json!({ "status": 410 }));
    let anew = poller.poll().await;
    assert!(anew["status"] == 410 && anew["token"] != poller.token.as_str(), "{anew}");
    app.stop().await;
}

#[tokio::test]
async fn l116_posts_are_no_polls() {
    let app = with_window(Duration::from_millis(200)).await;
    let poller = Poller::open(&app).await;
    let gone = within("the end of the session", async {
        loop {
            let answer = poller.post(json!([null, "1", "phoenix", "heartbeat", {}]).to_string()).await.ok();
            if answer["status"] != 200 {
                return answer;
            }
        }
    })
    .await;
    assert_eq!(gone, json!({ "status": 410 }));
    app.stop().await;
}

#[tokio::test]
async fn l117_a_disconnect_ends_a_poll_that_waits_and_the_next_one() {
    let app = App::start().await;
    let poller = Poller::new(app.address, "vsn=2.0.0&user_id=u1").opened().await;
    let other = Poller::new(app.address, "vsn=2.0.0&user_id=u2").opened().await;
    poller.frames(&[json!(["11", "1", T, "phx_join", {}])]).await;
    poller.fetch(3).await;
    let waiting = poller.parked().await;
    assert_eq!(app.state.connections().disconnect(|identity| identity.person.id == "u1"), 1);
    assert_eq!(within("the poll", waiting).await.unwrap(), json!({ "status": 410, "messages": [] }));
    until("the session to go", || app.state.connections().count() == 1).await;
    until("its channel to end", || app.hooks.ended(T) == [Leave::Closed]).await;
    assert_eq!(poller.poll().await["status"], 410);
    assert_eq!(poller.post("[]").await.ok(), json!({ "status": 410 }));
    other.frames(&[json!([null, "1", "phoenix", "heartbeat", {}])]).await;
    other.fetch(1).await;
    app.stop().await;
}

#[tokio::test]
async fn a_body_that_is_no_frame_ends_the_session_and_says_why() {
    let options = transport::Options { max_body_bytes: 600_000, ..Default::default() };
    let app = App::start_with(channel::Options::default(), options).await;
    let frame = |bytes: usize| json!([null, "1", "phoenix", "heartbeat", { "pad": "x".repeat(bytes) }]).to_string();
    for (body, status) in [
        ("{}".to_owned(), 400),
        ("[1,2]".to_owned(), 400),
        ("[".to_owned(), 400),
        ("not base64!".to_owned(), 400),
        ("AAEC".to_owned(), 400),
        (frame(300_000), 413),
        (vec![frame(200_000); 4].join("\n"), 413),
    ] {
        let poller = Poller::open(&app).await;
        poller.join(T).await;
        let waiting = poller.parked().await;
        let answer = poller.post(body.clone()).await;
        let (told, shown) = (answer.json(), body.get(..20).unwrap_or(&body));
        assert_eq!((answer.status, &told["status"]), (status, &status.into()), "{shown}");
        assert!(told["reason"].as_str().is_some_and(|reason| reason.len() > 10), "{told}");
        assert_eq!(within("the poll", waiting).await.unwrap()["status"], 410, "{shown}");
        assert_eq!(poller.post(frame(1)).await.ok(), json!({ "status": 410 }), "{shown}");
    }
    assert_eq!(Poller::open(&app).await.post("[9\n".repeat(200)).await.status, 400);
    app.stop().await;
}

#[tokio::test]
async fn g76_a_drain_shows_a_last_frame_and_ends_the_session() {
    let app = App::start().await;
    let (poller, bare, away) = (Poller::open(&app).await, Poller::open(&app).await, Poller::open(&app).await);
    for poller in [&poller, &away] {
        poller.frames(&[json!(["11", "1", "log:a", "phx_join", {}])]).await;
        poller.fetch(1).await;
    }
    let (waiting, bare_waits) = (poller.parked().await, bare.parked().await);
    let connections = app.state.connections().clone();
    let drain = tokio::spawn(async move { connections.drain(Duration::ZERO, |_| false).await });
    let last = read(&within("the poll", waiting).await.unwrap());
    assert_eq!(last.iter().map(|frame| &frame[3]).collect::<Vec<_>>(), ["draining"]);
    assert_eq!(within("the poll", bare_waits).await.unwrap(), json!({ "status": 410, "messages": [] }));
    assert_eq!(poller.poll().await, json!({ "status": 410, "messages": [] }));
    // The application's own token names no session: this client begins, and is to come back later.
    for query in ["vsn=2.0.0", "token=jwt&vsn=2.0.0"] {
        let anew = Poller::new(app.address, query);
        let answer = send(anew.client.get(&anew.base)).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{query}");
        assert_eq!(answer.json(), json!({ "status": 500 }));
    }
    // The client that is away has a moment to come for its last frame; then nobody waits for it.
    let drained = within("the drain", drain).await.unwrap();
    assert_eq!((drained.told, drained.left), (3, 0));
    app.stop().await;
}

#[tokio::test]
async fn a_session_of_chat_is_served_over_requests_and_ends_with_the_server() {
    let (server, script) = TestServer::start().await;
    let poller = Poller::new(server.server.address(), "user_id=ada&name=Ada&vsn=2.0.0&").opened().await;
    poller.frames(&[json!(["1", "1", "session:s1", "phx_join", {}])]).await;
    let joined = poller.fetch_until(|frame| frame[1] == "1").await;
    assert_eq!(joined[4]["response"]["replay"]["mode"], "snapshot", "{joined}");
    poller.frames(&[json!(["1", "2", "session:s1", "send", { "text": "hi", "answer": false }])]).await;
    let sent = poller.fetch_until(|frame| frame[1] == "2").await;
    assert_eq!(sent[4]["status"], "ok", "{sent}");
    assert_eq!(server.server.connections().count(), 1);
    drop(script);
    let waiting = poller.parked().await;
    within("the server to stop", Box::pin(server.stop())).await;
    let last = within("the poll", waiting).await.unwrap();
    assert!(last["status"] == 410 || last.to_string().contains("draining"), "{last}");
}
