//! The evening of each client, and what is peculiar to it.

use serde_json::{Value, json};

use super::{
    evening::{Evening, Place},
    program::{Kind, Program},
};

/// Where they meet.
const PLACE: Place = Place::Room;
const ANN: &str = "ann";

fn params() -> Value {
    json!({ "user_id": ANN, "name": "Ann" })
}

/// The first half: join, be seen, talk both ways.
async fn meet(evening: &mut Evening, program: &mut Program, place: Place) {
    program.join(place.topic(), json!({})).await;
    program.expect("joined").await;
    evening.sees(ANN).await;
    evening.hear(program, "good evening").await;
    evening.talk_to(program, "good evening, Ann").await;
}

/// The second half of those who come back by themselves.
async fn come_back(evening: &mut Evening, program: &mut Program) {
    evening.kill().await;
    program.expect("closed").await;
    evening.start_again().await;
    program.expect("joined").await;
    evening.hear(program, "back again").await;
    evening.talk_to(program, "welcome back").await;
}

/// The end of those who can leave.
async fn leave(mut evening: Evening, mut program: Program, place: Place) {
    program.tell(json!({ "do": "leave", "topic": place.topic() })).await;
    program.expect("left").await;
    evening.sees_leave(ANN).await;
    program.quit().await;
}

/// Those that do not come back by themselves: the server goes, and they say so.
async fn lose(mut evening: Evening, program: &mut Program) -> Evening {
    evening.kill().await;
    program.expect("closed").await;
    evening.start_again().await;
    evening
}

async fn phoenix(version: &str, place: Place) {
    let mut evening = Evening::begin(place, &[]).await;
    let config = json!({
        "version": version, "url": evening.socket("http"), "params": params(), "heartbeat_ms": 1_000, "rejoin_ms": [50],
    });
    let mut program = Program::start(Kind::Node("phoenix.mjs"), &config);
    meet(&mut evening, &mut program, place).await;
    program.until_present(place.topic(), &json!({ "ann": 1, "ben": 1 })).await;
    program.expect("heartbeat").await;
    come_back(&mut evening, &mut program).await;
    program.until_present(place.topic(), &json!({ "ann": 1, "ben": 1 })).await;
    program.forget("heartbeat");
    program.expect("heartbeat").await;
    leave(evening, program, place).await;
}

#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn phoenix_1_8_16_in_a_room() {
    phoenix("1.8.16", Place::Room).await;
}

#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn phoenix_1_8_16_in_a_session() {
    phoenix("1.8.16", Place::Session).await;
}

#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn phoenix_1_8_9_in_a_room() {
    phoenix("1.8.9", Place::Room).await;
}

#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn phoenix_1_8_0_in_a_room() {
    phoenix("1.8.0", Place::Room).await;
}

#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn phoenix_channels_of_npm() {
    let place = PLACE;
    // It counts a meta once more that comes in the state and in a diff: how many there are says nothing here.
    let both = |list: &Value| list["users"].as_object().unwrap().keys().eq(["ann", "ben"]);
    let mut evening = Evening::begin(place, &[]).await;
    let config = json!({
        "url": evening.socket("ws"), "params": params(), "heartbeat_ms": 1_000, "reconnect_ms": [50],
    });
    let mut program = Program::start(Kind::Node("phoenix-channels.mjs"), &config);
    meet(&mut evening, &mut program, place).await;
    program.until_list(place.topic(), both).await;
    program.expect("heartbeat").await;
    come_back(&mut evening, &mut program).await;
    program.until_list(place.topic(), both).await;
    leave(evening, program, place).await;
}

/// It has no way to push. In version 2 it drops every frame without a join ref, which all broadcasts are.
async fn phoenix_channels_python_client(protocol: &str) {
    let hears_broadcasts = protocol == "1.0";
    let mut evening = Evening::begin(PLACE, &[]).await;
    let config = json!({ "url": evening.socket("ws"), "params": params(), "heartbeat_ms": 100, "protocol": protocol });
    let mut program = Program::start(Kind::Python("current", "channels_client.py"), &config);
    program.join(PLACE.topic(), json!({})).await;
    program.expect("joined").await;
    program.message("presence_state").await;
    evening.sees(ANN).await;
    evening.say("good evening, Ann").await;
    if hears_broadcasts {
        evening.is_heard(&mut program, "good evening, Ann").await;
    }
    program.expect("heartbeat").await;
    evening.kill().await;
    program.expect("closed").await;
    evening.start_again().await;
    program.expect("joined").await;
    program.message("presence_state").await;
    evening.say("welcome back").await;
    if hears_broadcasts {
        evening.is_heard(&mut program, "welcome back").await;
    }
    program.tell(json!({ "do": "leave", "topic": PLACE.topic() })).await;
    program.expect("left").await;
    evening.sees_leave(ANN).await;
    assert_eq!(program.forget("message") > 0, hears_broadcasts, "what is left are presence diffs, if anything");
    program.quit().await;
}

#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn phoenix_channels_python_client_in_version_2() {
    phoenix_channels_python_client("2.0").await;
}

#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn phoenix_channels_python_client_in_version_1() {
    phoenix_channels_python_client("1.0").await;
}

/// It only listens: it has no push, no leave, no heartbeat, and ends when the connection does.
#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn phx_events() {
    let place = PLACE;
    let mut evening = Evening::begin(place, &[]).await;
    let config = json!({
        "url": evening.socket("ws"), "params": params(), "topic": place.topic(), "events": [place.push("").0],
    });
    let mut program = Program::start(Kind::Python("older", "phx_events_client.py"), &config);
    program.expect("joined").await;
    evening.sees(ANN).await;
    evening.talk_to(&mut program, "good evening, Ann").await;
    lose(evening, &mut program).await;
    program.quit().await;
}

/// Its connection ends with the server; a program that connects and joins once more has everything back.
#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn phxsocket() {
    let place = PLACE;
    let mut evening = Evening::begin(place, &[]).await;
    let config = json!({ "url": evening.socket("ws"), "params": params() });
    let mut program = Program::start(Kind::Python("older", "phxsocket_client.py"), &config);
    meet(&mut evening, &mut program, place).await;
    program.expect("heartbeat").await;
    let mut evening = lose(evening, &mut program).await;
    program.tell(json!({ "do": "connect" })).await;
    meet(&mut evening, &mut program, place).await;
    leave(evening, program, place).await;
}

/// It joins with the join ref 0 and pushes with another one, which servers take for stale since Phoenix 1.8.3: its pushes
/// are not answered. Everything else works.
#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn phyllo() {
    let place = PLACE;
    let mut evening = Evening::begin(place, &[]).await;
    let config = json!({
        "url": evening.socket("ws"), "params": params(), "heartbeat_ms": 100, "timeout_ms": 500,
    });
    let mut program = Program::start(Kind::Rust("phyllo"), &config);
    program.join(place.topic(), json!({})).await;
    evening.sees(ANN).await;
    evening.talk_to(&mut program, "good evening, Ann").await;
    let (event, payload) = place.push("nobody hears this");
    let reply = program.push(place.topic(), event, payload).await;
    assert!(reply["status"].as_str().unwrap().contains("Timeout"), "{reply}");
    evening.hears_nothing().await;
    evening.kill().await;
    evening.start_again().await;
    evening.sees(ANN).await;
    evening.talk_to(&mut program, "welcome back").await;
    program.tell(json!({ "do": "leave", "topic": place.topic() })).await;
    assert_eq!(program.expect("reply").await["status"], "ok");
    evening.sees_leave(ANN).await;
    program.quit().await;
}

/// It hands over every frame and leaves the rest to its user: the answer to a join is a reply like any other.
#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn phoenix_chan() {
    let place = PLACE;
    let mut evening = Evening::begin(place, &[]).await;
    let config = json!({ "url": evening.socket("ws"), "params": params(), "heartbeat_ms": 100 });
    let mut program = Program::start(Kind::Rust("phoenix-chan"), &config);
    program.join(place.topic(), json!({})).await;
    assert_eq!(program.expect("reply").await["status"], "ok");
    evening.sees(ANN).await;
    evening.hear(&mut program, "good evening").await;
    evening.talk_to(&mut program, "good evening, Ann").await;
    program.expect("heartbeat").await;
    program.tell(json!({ "do": "leave", "topic": place.topic() })).await;
    assert_eq!(program.expect("reply").await["status"], "ok");
    program.expect("left").await;
    evening.sees_leave(ANN).await;
    lose(evening, &mut program).await;
    program.quit().await;
}

/// Its setting to reconnect does nothing: after the connection every push fails, and a new client has to be made.
#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn phoenix_channels_client() {
    let place = PLACE;
    let mut evening = Evening::begin(place, &[]).await;
    let (event, payload) = place.push("is anybody there?");
    let config = json!({ "url": evening.socket("ws"), "params": params(), "events": [event] });
    let mut program = Program::start(Kind::Rust("phoenix_channels_client"), &config);
    meet(&mut evening, &mut program, place).await;
    evening.kill().await;
    evening.start_again().await;
    let push = json!({ "do": "push", "topic": place.topic(), "event": event, "payload": payload });
    program.tell(push).await;
    program.expect("closed").await;
    program.quit().await;
    let mut program = Program::start(Kind::Rust("phoenix_channels_client"), &config);
    meet(&mut evening, &mut program, place).await;
    leave(evening, program, place).await;
}
