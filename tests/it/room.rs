//! Rooms, from the outside: what is said in one reaches the others, and what must not does not.

use std::time::{Duration, Instant};

use rejoin::protocol::codes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio_tungstenite::{client_async, tungstenite::Message};

use crate::support::{
    http::keys,
    presence::Here,
    server::TestServer,
    ws::{TestClient, ok, within},
};

const T: &str = "room:lobby";

/// Connects as a user and joins; what follows the reply is read up to the state.
async fn enter(server: &TestServer, user: &str, params: Value) -> (TestClient, Here) {
    let mut client = TestClient::connect(server.ws(user)).await;
    client.join(T, params).await;
    let first = client.next().await;
    assert_eq!(first[3], "presence_state", "the state follows the reply: {first}");
    let mut here = Here::default();
    here.take(&first);
    (client, here)
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

/// Pushes and expects a refusal with nothing before it: its reason.
async fn refused(client: &mut TestClient, event: &str, payload: Value) -> String {
    let reference = client.push(T, event, payload).await;
    let reply = next(client).await;
    assert_eq!((&reply[1], &reply[3]), (&reference.into(), &"phx_reply".into()), "{reply}");
    assert_eq!(reply[4]["status"], "error", "{event}: {reply}");
    let response = &reply[4]["response"];
    assert!(response["message"].as_str().is_some_and(|text| text.len() > 10), "a text for a person: {reply}");
    response["reason"].as_str().unwrap().to_owned()
}

/// The reason with which a join is refused.
async fn join_refused(client: &mut TestClient, topic: &str, params: Value) -> String {
    client.frame(json!(["11", "1", topic, "phx_join", params])).await;
    let reply = next(client).await;
    assert_eq!((&reply[3], &reply[4]["status"]), (&"phx_reply".into(), &"error".into()), "{reply}");
    reply[4]["response"]["reason"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_event_reaches_the_others_under_its_own_name_and_is_answered() {
    let (server, _script) = TestServer::start().await;
    let (mut ada, _) = enter(&server, "ada", json!({})).await;
    let (mut ben, _) = enter(&server, "ben", json!({})).await;
    let (mut same, _) = enter(&server, "ada", json!({})).await;
    let mut elsewhere = TestClient::connect(server.ws("eve")).await;
    elsewhere.join("room:other", json!({})).await;
    let payload = json!({ "text": "hé 😀", "nested": { "a": [1, null, 1.5] } });
    let reference = ada.push(T, "cursor:moved", payload.clone()).await;
    assert_eq!(next(&mut ada).await, json!(["11", reference, T, "phx_reply", ok()]), "nothing of its own");
    for other in [&mut ben, &mut same] {
        assert_eq!(next(other).await, json!([null, null, T, "cursor:moved", payload]));
    }
    let reference = elsewhere.push("room:other", "x", json!({})).await;
    assert_eq!(next(&mut elsewhere).await[1], reference, "another room hears nothing");
    server.stop().await;
}

#[tokio::test]
async fn whoever_asks_for_it_gets_its_own_events_before_the_answer() {
    let (server, _script) = TestServer::start().await;
    let (mut ada, _) = enter(&server, "ada", json!({ "self": true })).await;
    let (mut ben, _) = enter(&server, "ben", json!({ "self": false })).await;
    let reference = ada.push(T, "shout", json!({ "n": 1 })).await;
    assert_eq!(next(&mut ada).await, json!([null, null, T, "shout", { "n": 1 }]));
    assert_eq!(next(&mut ada).await, json!(["11", reference, T, "phx_reply", ok()]));
    assert_eq!(next(&mut ben).await[4], json!({ "n": 1 }));
    let reference = ben.push(T, "shout", json!({ "n": 2 })).await;
    assert_eq!(next(&mut ben).await[1], reference);
    assert_eq!(next(&mut ada).await[4], json!({ "n": 2 }));
    server.stop().await;
}

#[tokio::test]
async fn events_that_mean_something_to_clients_are_refused_one_by_one() {
    let (server, _script) = TestServer::start().await;
    let (mut ada, _) = enter(&server, "ada", json!({ "self": true })).await;
    let (mut ben, _) = enter(&server, "ben", json!({})).await;
    let ends = [codes::event::PHX_JOIN, codes::event::PHX_LEAVE];
    let reserved = codes::event::ALL.iter().filter(|event| !ends.contains(event));
    for event in reserved.chain(&["phx_", "phx_anything", "chan_reply_1", "presence_", "presence_x", ""]) {
        assert_eq!(refused(&mut ada, event, json!({})).await, "invalid", "{event}");
    }
    for event in ["a\u{0}b", "a\nb", &"x".repeat(256)] {
        assert_eq!(refused(&mut ada, event, json!({})).await, "invalid", "{event:?}");
    }
    // The first that the others hear.
    for event in ["phx", "presences", "chan_reply", &"x".repeat(255)] {
        ada.push(T, event, json!({})).await;
        assert_eq!(next(&mut ben).await, json!([null, null, T, event, {}]));
    }
    server.stop().await;
}

#[tokio::test]
async fn payloads_that_clients_drop_or_stumble_over_are_refused() {
    let (server, _script) = TestServer::start().await;
    let (mut ada, _) = enter(&server, "ada", json!({})).await;
    let (mut ben, _) = enter(&server, "ben", json!({})).await;
    let deep = (0..101).fold(json!(1), |inner, _| json!({ "a": inner }));
    for payload in [json!(null), json!([]), json!([{}]), json!("{}"), json!(7), json!(true), deep] {
        assert_eq!(refused(&mut ada, "shout", payload.clone()).await, "invalid", "{payload}");
    }
    assert_eq!(refused(&mut ada, "shout", json!({ "a": "\u{0}" })).await, "invalid");
    let half = format!(r#"["11","s",{T:?},"shout",{{"a":"\ud83d"}}]"#);
    ada.text(&half).await;
    assert_eq!(next(&mut ada).await[4]["response"]["reason"], "invalid");
    ada.push(T, "shout", json!({ "last": true })).await;
    assert_eq!(next(&mut ben).await[4], json!({ "last": true }), "none of them was passed on");
    server.stop().await;
}

/// A frame of bytes: its kind, the lengths of its parts, the parts, the data.
fn bytes(kind: u8, parts: &[&str], data: &[u8]) -> Vec<u8> {
    let lengths = parts.iter().map(|part| u8::try_from(part.len()).unwrap());
    let parts = parts.iter().flat_map(|part| part.bytes());
    std::iter::once(kind).chain(lengths).chain(parts).chain(data.iter().copied()).collect()
}

/// The event of the next frame that a client of version 1 is shown.
async fn event_of_v1(client: &mut TestClient) -> String {
    match client.message().await {
        Some(Message::Text(text)) => {
            let frame: Value = serde_json::from_str(text.as_str()).unwrap();
            frame["event"].as_str().unwrap().to_owned()
        }
        other => panic!("expected a text, found {other:?}"),
    }
}

/// Reads up to the client's own diff, so that nothing about presence is on its way to it.
async fn settle(client: &mut TestClient, here: &mut Here, members: usize) {
    here.until(client, "everybody", |here| here.diffs > 0 && here.keys().len() == members).await;
}

#[tokio::test]
async fn bytes_are_passed_on_as_bytes_to_those_who_speak_them() {
    let (server, _script) = TestServer::start().await;
    let mut old = TestClient::connect(server.ws("old").replace("vsn=2.0.0", "vsn=1.0.0")).await;
    old.text(&json!({ "topic": T, "event": "phx_join", "payload": {}, "ref": "1" }).to_string()).await;
    assert_eq!(event_of_v1(&mut old).await, "phx_reply");
    let (mut ben, mut bens) = enter(&server, "ben", json!({})).await;
    settle(&mut ben, &mut bens, 2).await;
    let (mut ada, _) = enter(&server, "ada", json!({})).await;
    bens.until(&mut ben, "ada", |here| here.keys().len() == 3).await;
    let data = [0, 255, 128];
    ada.send(Message::binary(bytes(0, &["11", "7", T, "ink"], &data))).await;
    assert_eq!(next(&mut ada).await, json!(["11", "7", T, "phx_reply", ok()]));
    ben.expect_binary(&bytes(2, &[T, "ink"], &data)).await;
    ada.send(Message::binary(bytes(0, &["11", "8", T, "presence"], b"{}"))).await;
    assert_eq!(next(&mut ada).await[4]["response"]["reason"], "invalid");
    ada.push(T, "shout", json!({ "n": 1 })).await;
    let heard = within("what is no presence", async {
        loop {
            let event = event_of_v1(&mut old).await;
            if !event.starts_with("presence_") {
                return event;
            }
        }
    });
    assert_eq!(heard.await, "shout", "bytes are not for those who speak no binary");
    server.stop().await;
}

#[tokio::test]
async fn parameters_may_be_anything_but_ours_are_of_our_types() {
    let (server, _script) = TestServer::start().await;
    for params in [json!(null), json!([]), json!([1]), json!("x"), json!(7), json!({ "user": 1, "token": {} })] {
        enter(&server, "ada", params).await;
    }
    let mut client = TestClient::connect(server.ws("ada")).await;
    for params in [json!({ "self": 1 }), json!({ "self": "yes" }), json!({ "presence": 1 }), json!({ "presence": [] })]
    {
        assert_eq!(join_refused(&mut client, T, params.clone()).await, "invalid", "{params}");
    }
    let large = json!({ "presence": { "a": "x".repeat(1_100) } });
    assert_eq!(join_refused(&mut client, T, large).await, "too_large");
    let long = format!("room:{}", "x".repeat(256));
    for topic in ["room:", "room:a\u{0}", "room:a\nb", &long] {
        assert_eq!(join_refused(&mut client, topic, json!({})).await, "invalid", "{topic:?}");
    }
    let longest = format!("room:{}", "x".repeat(255));
    client.join(&longest, json!({})).await;
    server.stop().await;
}

#[tokio::test]
async fn everybody_sees_who_is_in_the_room() {
    let (server, _script) = TestServer::start().await;
    let shown = json!({ "presence": { "color": "red", "name": "Eve", "phx_ref": "x" } });
    let (mut ada, mut here) = enter(&server, "ada", shown).await;
    let meta = here.metas("ada")[0].clone();
    assert_eq!(keys(&meta), ["color", "joined_at", "name", "node", "phx_ref"]);
    assert_eq!((&meta["name"], &meta["node"], &meta["color"]), (&"ada".into(), &"test".into(), &"red".into()));
    let (mut ben, there) = enter(&server, "ben", json!({})).await;
    assert_eq!(there.keys(), ["ada", "ben"]);
    here.until(&mut ada, "ben", |here| here.keys() == ["ada", "ben"]).await;
    let reference = ben.push(T, "presence", json!({ "typing": true, "node": "z" })).await;
    assert_eq!(next(&mut ben).await, json!(["11", reference, T, "phx_reply", ok()]));
    here.until(&mut ada, "his change", |here| here.metas("ben").iter().any(|meta| meta["typing"] == true)).await;
    assert_eq!((here.metas("ben").len(), &here.metas("ben")[0]["node"]), (1, &"test".into()));
    for bad in [json!([]), json!(null), json!("x"), json!({ "a": "\u{0}" })] {
        assert_eq!(refused(&mut ben, "presence", bad).await, "invalid");
    }
    assert_eq!(refused(&mut ben, "presence", json!({ "a": "x".repeat(1_025) })).await, "too_large");
    let reference = ben.push(T, "access_token", json!({ "token": "any" })).await;
    assert_eq!(next(&mut ben).await, json!(["11", reference, T, "phx_reply", ok()]), "as in sessions");
    assert_eq!(refused(&mut ben, "access_token", json!({})).await, "invalid");
    ben.push(T, "phx_leave", json!({})).await;
    here.until(&mut ada, "ben's leave", |here| here.keys() == ["ada"]).await;
    assert_eq!(*here.metas("ada")[0], meta, "what was refused, and what others did, changed nothing of hers");
    server.stop().await;
}

#[tokio::test]
async fn a_presence_of_a_megabyte_is_refused_and_nothing_breaks() {
    let (server, _script) = TestServer::start_with(|config| config.max_frame_bytes = 4 * 1024 * 1024).await;
    let (mut ada, here) = enter(&server, "ada", json!({})).await;
    assert_eq!(refused(&mut ada, "presence", json!({ "a": "x".repeat(1_000_000) })).await, "too_large");
    let (_ben, there) = enter(&server, "ben", json!({})).await;
    assert_eq!(there.metas("ada"), here.metas("ada"));
    server.stop().await;
}

#[tokio::test]
async fn a_user_whose_id_would_break_the_others_clients_is_kept_out() {
    let (server, _script) = TestServer::start().await;
    for user in ["__proto__", "constructor", "prototype"] {
        assert_eq!(TestClient::refused(server.ws(user)).await, 403, "{user}");
    }
    let (_ada, here) = enter(&server, "ada", json!({})).await;
    assert_eq!(here.keys(), ["ada"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_is_given_the_state_anew() {
    let (server, _script) = TestServer::start_with(|config| config.max_queue_bytes = 32 * 1024).await;
    let (mut ada, mut hers) = enter(&server, "ada", json!({})).await;
    let socket = TcpSocket::new_v4().unwrap();
    // A narrow window, so that a reader that does not read is behind soon.
    socket.set_recv_buffer_size(4 * 1024).unwrap();
    let stream = socket.connect(server.server.address()).await.unwrap();
    let (mut slow, _) = client_async(server.ws("slow"), stream).await.unwrap();
    let join = json!(["1", "1", T, "phx_join", {}]).to_string();
    futures::SinkExt::send(&mut slow, Message::text(join)).await.unwrap();
    hers.until(&mut ada, "the slow one", |here| here.keys() == ["ada", "slow"]).await;
    // What is in the way of the diff: more than all the buffers between the server and this reader can take.
    for size in std::iter::repeat_n(16_000, 800).chain(std::iter::repeat_n(500, 80)) {
        let reference = ada.push(T, "fill", json!({ "pad": "x".repeat(size) })).await;
        ada.assert_reply(&reference, "ok").await;
    }
    for number in 0..2 {
        ada.push(T, "presence", json!({ "number": number, "pad": "x".repeat(900) })).await;
    }
    let is_last = |here: &Here| here.metas("ada").iter().any(|meta| meta["number"] == 1);
    hers.until(&mut ada, "her own change", is_last).await;
    let (mut here, mut missed) = (Here::default(), 0);
    within("the last change", async {
        while !is_last(&here) {
            let message = futures::StreamExt::next(&mut slow).await.unwrap().unwrap();
            let Message::Text(text) = message else { continue };
            let frame: Value = serde_json::from_str(text.as_str()).unwrap();
            missed += frame[4]["count"].as_u64().unwrap_or_default();
            here.take(&frame);
        }
    })
    .await;
    assert!(missed > 0, "nothing was missed, so nothing was tested");
    assert_eq!((here.states, here.keys()), (2, vec!["ada", "slow"]));
    assert_eq!(here.metas("ada").len(), 1);
    server.stop().await;
}

/// Lets this process hold as many connections as it may; what it begins with is too few for a crowd on some systems.
fn raise_the_limit_of_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

/// The shortest time between two diffs of a topic.
const WINDOW: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_members_see_each_other_in_few_diffs() {
    const MEMBERS: usize = 500;
    raise_the_limit_of_files();
    let (server, _script) = TestServer::start().await;
    let mut clients = Vec::new();
    for number in 0..MEMBERS {
        clients.push((TestClient::connect(server.ws(&format!("u{number}"))).await, Here::default()));
    }
    let begun = Instant::now();
    for (client, _) in &mut clients {
        client.frame(json!(["1", "1", T, "phx_join", {}])).await;
    }
    for (client, here) in &mut clients {
        here.until(client, "everybody", |here| here.keys().len() == MEMBERS).await;
    }
    let most = 2 + begun.elapsed().as_millis() / WINDOW.as_millis();
    for (_, here) in &clients {
        assert_eq!(here.states, 1);
        assert!(here.diffs as u128 <= most, "{} diffs, expected at most {most}", here.diffs);
    }
    let staying = clients.split_off(MEMBERS / 2);
    drop(clients);
    for (mut client, mut here) in staying {
        here.until(&mut client, "the others to leave", |here| here.keys().len() == MEMBERS / 2).await;
        assert!(here.list().values().all(|metas| metas.len() == 1));
    }
    server.stop().await;
}
