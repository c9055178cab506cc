//! Clients that were made for one service on Phoenix: Supabase's in JavaScript and Python, and GraphQL's `gql`.

use rejoin::pubsub::Kind as Published;
use serde_json::{Value, json};

use super::{
    foreign::SUBSCRIPTION,
    program::{Kind, Program},
};
use crate::{
    channel_app::App,
    support::{
        front::Front,
        ws::{TestClient, until},
    },
};

/// What its library calls `evening`.
const TOPIC: &str = "realtime:evening";

/// Somebody on the topic who speaks raw frames.
async fn ben(app: &App) -> TestClient {
    let mut ben = TestClient::connect(app.url()).await;
    let params = json!({ "config": { "broadcast": {}, "presence": { "key": "ben" } } });
    ben.frame(json!(["11", "1", TOPIC, "phx_join", params])).await;
    ben.assert_reply("1", "ok").await;
    let track = json!({ "type": "presence", "event": "track", "payload": { "name": "Ben" } });
    let reference = ben.push(TOPIC, "presence", track).await;
    ben.assert_reply(&reference, "ok").await;
    ben
}

fn said(words: &str) -> Value {
    json!({ "type": "broadcast", "event": "hi", "payload": { "words": words } })
}

/// Both talk, and both see each other.
async fn meet(ben: &mut TestClient, program: &mut Program) {
    let reply = program.push("evening", "hi", json!({ "words": "good evening" })).await;
    assert_eq!(reply["status"], "ok");
    let heard = ben.assert_push(TOPIC, "broadcast").await;
    assert_eq!((&heard["event"], &heard["payload"]["words"]), (&json!("hi"), &json!("good evening")), "{heard}");
    let reference = ben.push(TOPIC, "broadcast", said("good evening, Ann")).await;
    ben.assert_reply(&reference, "ok").await;
    assert_eq!(program.message("hi").await["words"], "good evening, Ann");
}

async fn supabase(kind: Kind, options: Value) {
    let (app, next) = (App::start().await, App::start().await);
    let front = Front::before(app.address).await;
    let mut config = json!({ "url": format!("ws://{}/socket", front.address), "key": "ann", "events": ["hi"] });
    config.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    let mut first = ben(&app).await;
    let mut program = Program::start(kind, &config);
    program.tell(json!({ "do": "join", "topic": "evening" })).await;
    program.expect("joined").await;
    meet(&mut first, &mut program).await;
    program.tell(json!({ "do": "track", "topic": "evening", "payload": { "name": "Ann" } })).await;
    program.until_present("evening", &json!({ "ann": 1, "ben": 1 })).await;
    program.expect("heartbeat").await;

    let mut second = ben(&next).await;
    front.now_before(next.address);
    front.cut();
    program.expect("errored").await;
    program.expect("joined").await;
    meet(&mut second, &mut program).await;
    program.tell(json!({ "do": "leave", "topic": "evening" })).await;
    program.expect("left").await;
    program.quit().await;
    drop((front, first, second));
    app.stop().await;
    next.stop().await;
}

/// Every push is a frame of kind 3.
#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn supabase_realtime_js_in_version_2() {
    let options = json!({ "vsn": "2.0.0", "heartbeat_ms": 1_000, "reconnect_ms": [50] });
    supabase(Kind::Node("supabase.mjs"), options).await;
}

#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn supabase_realtime_js_in_version_1() {
    let options = json!({ "vsn": "1.0.0", "heartbeat_ms": 1_000, "reconnect_ms": [50] });
    supabase(Kind::Node("supabase.mjs"), options).await;
}

/// Version 1, with a heartbeat at the start and then every 25 seconds.
#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn realtime_of_pypi() {
    supabase(Kind::Python("realtime", "realtime_client.py"), json!({})).await;
}

/// It does not come back: its subscriptions end with an error, and a new client has to be made. It leaves at its end.
#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn gql_over_absinthe() {
    const CONTROL: &str = "__absinthe__:graph";
    let app = App::start().await;
    let front = Front::before(app.address).await;
    let url = format!("ws://{}/socket", front.address);
    let config = json!({ "url": url, "heartbeat_ms": 100, "topic": CONTROL });
    let mut program = Program::start(Kind::Python("current", "gql_client.py"), &config);
    program.expect("joined").await;
    program.tell(json!({ "do": "query", "text": "query { asked }" })).await;
    let answer = program.expect("reply").await;
    assert!(answer["response"]["asked"].as_str().unwrap().contains("asked"), "{answer}");
    program.tell(json!({ "do": "subscribe", "text": "subscription { said }" })).await;
    // The next answer shows that the subscription, which was asked for before, is known to the client.
    program.tell(json!({ "do": "query", "text": "query { asked }" })).await;
    program.expect("reply").await;
    let result = json!({ "subscriptionId": SUBSCRIPTION, "result": { "data": { "said": "good evening" } } });
    app.publish(CONTROL, Published::Ephemeral, "subscription:data", result);
    assert_eq!(program.message("subscription:data").await, json!({ "said": "good evening" }));
    program.expect("heartbeat").await;
    front.cut();
    program.expect("closed").await;
    drop(program);
    let mut program = Program::start(Kind::Python("current", "gql_client.py"), &config);
    program.expect("joined").await;
    program.quit().await;
    until("the channels to end", || app.host.counts().channels == 0).await;
    drop(front);
    app.stop().await;
}
