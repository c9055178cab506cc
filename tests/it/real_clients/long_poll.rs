//! phoenix.js over long-polling: because it was told to, and because it found no other way.

use rejoin::{channel, transport};
use serde_json::{Value, json};

use super::phoenix_js::start;
use crate::{
    channel_app::App,
    support::front::{Front, WebSockets},
};

const TOPIC: &str = "room:a";
/// Where a tab keeps that WebSockets did not work.
const MEMO: &str = "phx:fallback:LongPoll";

/// How many frames each request brought, until so many have come.
async fn frames_by_request(program: &mut super::program::Program, frames: u64) -> Vec<u64> {
    let mut counts = Vec::new();
    while counts.iter().sum::<u64>() < frames {
        let line = program.expect_that("a POST", |line| line["at"] == "request" && line["method"] == "POST").await;
        counts.push(line["lines"].as_u64().unwrap());
    }
    counts
}

async fn polls(version: &str) {
    let app = App::start().await;
    let options = json!({ "long_poll": true, "rejoin_ms": [50], "reconnect_ms": [20] });
    let mut program = start(version, app.address, &options);
    assert_eq!(program.expect("open").await["transport"], "longpoll");
    program.join(TOPIC, json!({})).await;
    program.expect("joined").await;
    frames_by_request(&mut program, 1).await;
    let push = json!({ "do": "push", "topic": TOPIC, "event": "echo", "payload": { "a": 1 }, "times": 150 });
    program.tell(push).await;
    assert_eq!(program.expect("reply").await["response"], json!({ "a": 1 }));
    assert_eq!(frames_by_request(&mut program, 150).await, [100, 50]);
    program.push(TOPIC, "shout", json!({ "words": "over HTTP" })).await;
    assert_eq!(program.message("shout").await, json!({ "words": "over HTTP" }));

    assert_eq!(app.state.connections().disconnect(|_| true), 1);
    assert_eq!(program.expect("closed").await["code"], 3410);
    program.expect("open").await;
    program.expect("joined").await;
    assert_eq!(program.push(TOPIC, "echo", json!({ "a": 2 })).await["response"], json!({ "a": 2 }));
    program.tell(json!({ "do": "leave", "topic": TOPIC })).await;
    program.expect("left").await;
    program.quit().await;
    app.stop().await;
}

#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn m120_long_polling_with_1_8_16() {
    polls("1.8.16").await;
}

#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn m120_long_polling_with_1_8_9() {
    polls("1.8.9").await;
}

/// One client with a fallback, behind a door that treats WebSockets like this: over what it gets in, and what it
/// notes for the tab.
async fn falls_back(version: &str, websockets: WebSockets, storage: Value) -> (String, Option<String>) {
    let app = App::start_with(channel::Options::default(), transport::Options::default()).await;
    let front = Front::before(app.address).await;
    front.websockets(websockets);
    let options = json!({ "fallback_ms": 300, "rejoin_ms": [50], "storage": storage });
    let mut program = start(version, front.address, &options);
    program.join(TOPIC, json!({})).await;
    program.expect("joined").await;
    let reply = program.push(TOPIC, "echo", json!({ "a": 1 })).await;
    assert_eq!(reply["response"], json!({ "a": 1 }));
    let open = program.expect("open").await;
    let noted = program.forget_that(|line| line["at"] == "stored" && line["key"] == MEMO).pop();
    program.quit().await;
    drop(front);
    app.stop().await;
    (open["transport"].as_str().unwrap().to_owned(), noted.map(|line| line["value"].as_str().unwrap().to_owned()))
}

#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn m123_where_no_websocket_gets_through_the_client_polls_and_remembers() {
    for version in ["1.8.9", "1.8.16"] {
        for websockets in [WebSockets::NotFound, WebSockets::Swallow] {
            let found = falls_back(version, websockets, json!({})).await;
            assert_eq!(found, ("longpoll".into(), Some("true".into())), "{version} {websockets:?}");
        }
    }
}

#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn m123_a_tab_that_remembers_polls_at_once() {
    for version in ["1.8.9", "1.8.16"] {
        let found = falls_back(version, WebSockets::Pass, json!({ MEMO: "true" })).await;
        assert_eq!(found.0, "longpoll", "{version}");
    }
}

#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn m123_where_websockets_work_nothing_is_remembered() {
    for version in ["1.8.9", "1.8.16"] {
        let found = falls_back(version, WebSockets::Pass, json!({})).await;
        assert_eq!(found, ("websocket".into(), None), "{version}");
    }
}
