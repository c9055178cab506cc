//! What phoenix.js does when channels break, are refused or doubled, when heartbeats get lost, and after every close.

use std::time::Duration;

use rejoin::{channel, transport};
use serde_json::{Value, json};

use super::program::{Kind, Program};
use crate::{channel_app::App, support::front::Front};

const VERSIONS: [&str; 3] = ["1.8.0", "1.8.9", "1.8.16"];
const TOPIC: &str = "room:a";

/// A client in a version of phoenix.js, with options of its program.
pub(super) fn start(version: &str, address: impl std::fmt::Display, options: &Value) -> Program {
    let mut config = json!({ "version": version, "url": format!("http://{address}/socket"), "heartbeat_ms": 1_000 });
    for (key, value) in options.as_object().unwrap() {
        config[key] = value.clone();
    }
    Program::start(Kind::Node("phoenix.mjs"), &config)
}

/// Runs one story for each version, at the same time.
async fn each<S: Future<Output = ()>>(story: impl Fn(&'static str) -> S) {
    let stories = VERSIONS.map(|version| Box::pin(story(version)));
    futures::future::join_all(stories).await;
}

fn ms(line: &Value) -> u64 {
    line["ms"].as_u64().unwrap()
}

/// That a timer of so many milliseconds was at work between two lines, and not the next longer one.
#[track_caller]
fn assert_pause(from: &Value, to: &Value, timer: u64, next: u64) {
    let pause = ms(to) - ms(from);
    assert!(pause + 30 >= timer && pause < next, "{pause} ms instead of {timer}: {from} {to}");
}

#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn m121_push_reply_broadcast_and_leave() {
    let app = App::start().await;
    each(|version| {
        let topic = format!("room:{version}");
        let mut program = start(version, app.address, &json!({}));
        async move {
            program.join(&topic, json!({})).await;
            program.expect("joined").await;
            program.message("user_entered").await;
            assert_eq!(program.message("joined").await["status"], "connected");
            let reply = program.push(&topic, "shout", json!({ "body": "hi" })).await;
            assert_eq!(reply["status"], "ok");
            assert_eq!(program.message("shout").await, json!({ "body": "hi" }));
            let reply = program.push(&topic, "err", json!({})).await;
            assert_eq!((&reply["status"], &reply["response"]), (&json!("error"), &json!({ "reason": "nope" })));
            assert_eq!(program.push(&topic, "status", json!({})).await["status"], "teapot");
            program.push(&topic, "new_msg", json!({ "body": "hi" })).await;
            assert_eq!(program.message("new_msg").await["transport"], ":websocket");
            program.expect("heartbeat").await;
            program.tell(json!({ "do": "leave", "topic": topic })).await;
            program.expect("left").await;
            program.quit().await;
        }
    })
    .await;
    app.stop().await;
}

#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn m121_bytes_go_both_ways_and_to_everybody() {
    let app = App::start().await;
    each(|version| {
        let topic = format!("room:{version}");
        let mut program = start(version, app.address, &json!({}));
        async move {
            program.join(&topic, json!({})).await;
            program.expect("joined").await;
            program.tell(json!({ "do": "push", "topic": topic, "event": "binary_event", "hex": "0102ff" })).await;
            assert_eq!(program.expect("reply").await["hex"], "0102ff0304");
            let bytes = |line: &Value| line["at"] == "message" && line["hex"] != Value::Null;
            assert_eq!(program.expect_that("a push of bytes", bytes).await["hex"], "0001");
            program.tell(json!({ "do": "push", "topic": topic, "event": "shout", "hex": "00ff" })).await;
            assert_eq!(program.expect_that("a broadcast of bytes", bytes).await["hex"], "00ff");
            program.quit().await;
        }
    })
    .await;
    app.stop().await;
}

/// The default of the client itself: one second.
#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn m121_a_crashed_channel_is_joined_again_after_a_second() {
    let app = App::start().await;
    each(|version| {
        let topic = format!("room:{version}");
        let mut program = start(version, app.address, &json!({}));
        async move {
            program.join(&topic, json!({})).await;
            program.expect("joined").await;
            program.tell(json!({ "do": "push", "topic": topic, "event": "boom" })).await;
            let errored = program.expect("errored").await;
            let joined = program.expect("joined").await;
            assert_pause(&errored, &joined, 1_000, 2_000);
            assert_eq!(program.push(&topic, "echo", json!({ "a": 1 })).await["response"], json!({ "a": 1 }));
            assert_eq!(program.forget("closed"), 0, "the connection has nothing to do with it");
            program.quit().await;
        }
    })
    .await;
    app.stop().await;
}

/// The defaults of the client itself: a refused join is tried again after one second, then after two.
#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn m121_a_refused_join_is_tried_again_and_again() {
    let app = App::start().await;
    each(|version| {
        let mut program = start(version, app.address, &json!({}));
        async move {
            program.join(TOPIC, json!({ "deny": true })).await;
            let first = program.expect("refused").await;
            assert_eq!(first["response"], json!({ "reason": "unauthorized" }));
            let second = program.expect("refused").await;
            let third = program.expect("refused").await;
            assert_pause(&first, &second, 1_000, 2_000);
            assert_pause(&second, &third, 2_000, 5_000);
            program.quit().await;
        }
    })
    .await;
    app.stop().await;
}

#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn m121_a_second_instance_takes_the_place_of_the_first() {
    let app = App::start().await;
    each(|version| {
        let topic = format!("room:{version}");
        let mut program = start(version, app.address, &json!({ "rejoin_ms": [50] }));
        async move {
            for name in ["first", "second"] {
                program.tell(json!({ "do": "join", "topic": topic, "name": name, "params": {} })).await;
                assert_eq!(program.expect("joined").await["name"], name);
            }
            assert_eq!(program.expect("left").await["name"], "first");
            let push =
                json!({ "do": "push", "topic": topic, "name": "second", "event": "shout", "payload": { "n": 1 } });
            program.tell(push).await;
            assert_eq!(program.expect("reply").await["status"], "ok");
            assert_eq!(program.message("shout").await, json!({ "n": 1 }));
            assert_eq!(program.forget("shout") + program.forget("left") + program.forget("errored"), 0);
            program.quit().await;
        }
    })
    .await;
    app.stop().await;
}

/// Frames stop to arrive while the connection stands: the client gives it up by itself and makes a new one.
#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn m121_a_lost_heartbeat_makes_a_new_connection() {
    let app = App::start().await;
    each(|version| {
        let topic = format!("room:{version}");
        let address = app.address;
        async move {
            let front = Front::before(address).await;
            let mut program =
                start(version, front.address, &json!({ "heartbeat_ms": 200, "reconnect_ms": [10], "rejoin_ms": [50] }));
            program.join(&topic, json!({})).await;
            program.expect("joined").await;
            program.expect("heartbeat").await;
            program.expect("open").await;
            front.freeze(true);
            program.expect("errored").await;
            front.freeze(false);
            program.expect("open").await;
            program.expect("joined").await;
            assert_eq!(program.push(&topic, "echo", json!({ "a": 1 })).await["status"], "ok");
            program.quit().await;
        }
    })
    .await;
    app.stop().await;
}

/// How the server comes to close a connection, and with which code.
#[derive(Clone, Copy, Debug)]
enum Close {
    Disconnected,
    Idle,
    Policy,
    TooLarge,
    BadFrame,
    Restart,
    Cut,
}

impl Close {
    const ALL: [Self; 7] =
        [Self::Disconnected, Self::Idle, Self::Policy, Self::TooLarge, Self::BadFrame, Self::Restart, Self::Cut];

    fn code(self) -> u16 {
        match self {
            Self::Disconnected => 1001,
            Self::Idle => 1002,
            Self::Policy => 1008,
            Self::TooLarge => 1009,
            Self::BadFrame => 1011,
            Self::Restart => 1012,
            Self::Cut => 1006,
        }
    }

    /// The options of a server that comes to it soon.
    fn transport(self) -> transport::Options {
        let idle_timeout = Duration::from_millis(if matches!(self, Self::Idle) { 300 } else { 60_000 });
        transport::Options { idle_timeout, ..Default::default() }
    }

    async fn happen(self, program: &mut Program, app: &App, front: &Front) {
        match self {
            Self::Disconnected => assert_eq!(app.state.connections().disconnect(|_| true), 1),
            // What leads to 1008 takes half a minute of a client that reads nothing; the frame is the same.
            Self::Policy => front.close(1008),
            Self::TooLarge => program.tell(json!({ "do": "raw", "text": "[]", "pad": 300 * 1024 })).await,
            Self::BadFrame => program.tell(json!({ "do": "raw", "text": "no frame" })).await,
            Self::Restart => assert_eq!(app.state.connections().drain(Duration::ZERO, |_| false).await.told, 1),
            Self::Cut => front.cut(),
            Self::Idle => {}
        }
    }
}

/// One client on a server that closes it, and on the server that is there afterwards.
async fn closed_and_back(version: &str, close: Close) {
    let (app, next) = (App::start_with(channel::Options::default(), close.transport()).await, App::start().await);
    let front = Front::before(app.address).await;
    let options = json!({ "heartbeat_ms": 30_000, "rejoin_ms": [50] });
    let mut program = start(version, front.address, &options);
    program.join(TOPIC, json!({})).await;
    program.expect("joined").await;
    program.message("joined").await;
    front.now_before(next.address);
    close.happen(&mut program, &app, &front).await;
    let closed = program.expect("closed").await;
    assert_eq!(closed["code"], close.code(), "{version} {close:?}");
    program.expect("open").await;
    let opened = program.expect("open").await;
    assert!(ms(&opened) - ms(&closed) < 5_000, "{version} {close:?}: {closed} {opened}");
    program.expect("joined").await;
    assert_eq!(program.push(TOPIC, "echo", json!({ "a": 1 })).await["response"], json!({ "a": 1 }));
    program.quit().await;
    drop(front);
    app.stop().await;
    next.stop().await;
}

/// With the delays that the client has by itself: 10 ms, 50 ms and so on.
#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn m122_the_client_comes_back_after_every_close() {
    for version in ["1.8.9", "1.8.16"] {
        let stories = Close::ALL.map(|close| Box::pin(closed_and_back(version, close)));
        futures::future::join_all(stories).await;
    }
}
