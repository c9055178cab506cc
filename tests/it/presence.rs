//! Who is here, as Phoenix's own clients keep it: a state, then diffs.

use rejoin::server::Server;
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio_tungstenite::{client_async, tungstenite::Message};

use crate::support::{
    client::SessionClient,
    http::keys,
    presence::{Here, reference},
    server::TestServer,
    ws::{TestClient, within},
};

/// Waits until a client sees exactly these keys.
async fn sees(client: &mut SessionClient, expected: &[&str]) {
    client.until(&format!("{expected:?}"), |client| Here::of(client).keys() == expected).await;
}

#[tokio::test]
async fn the_state_comes_right_after_the_join_reply_and_diffs_follow() {
    let (server, _script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let first = ada.raw.next().await;
    assert_eq!(first[3], "presence_state", "{first}");
    assert_eq!((&first[0], &first[1], &first[2]), (&"11".into(), &Value::Null, &"session:s".into()));
    assert_eq!(keys(&first[4]), ["ada"]);
    let meta = &first[4]["ada"]["metas"][0];
    assert_eq!(keys(meta), ["joined_at", "name", "node", "phx_ref"]);
    assert_eq!((&meta["name"], &meta["node"]), (&"ada".into(), &"test".into()));
    ada.presence.push(first);
    let mut ben = SessionClient::join(&server.ws("ben"), "s").await;
    let first = ben.raw.next().await;
    assert_eq!((&first[3], keys(&first[4])), (&"presence_state".into(), vec!["ada", "ben"]));
    ben.presence.push(first);
    sees(&mut ada, &["ada", "ben"]).await;
    let diff = ada.presence.last().unwrap();
    assert_eq!((&diff[0], &diff[1], &diff[3]), (&Value::Null, &Value::Null, &"presence_diff".into()), "{diff}");
    let reference = ben.push("phx_leave", json!({})).await;
    ben.answer(&reference).await;
    sees(&mut ada, &["ada"]).await;
    server.stop().await;
}

#[tokio::test]
async fn a_busy_topic_shows_a_joining_client_its_state_first_too() {
    let (server, _script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    for round in 0..30 {
        // Changes are on their way while the other one joins.
        for number in 0..20 {
            ada.push("presence", json!({ "round": round, "number": number })).await;
        }
        let mut ben = SessionClient::join(&server.ws("ben"), "s").await;
        ada.ok("presence", json!({ "round": round, "number": "last" })).await;
        let first = ben.raw.next().await;
        assert_eq!(first[3], "presence_state", "round {round}: {first}");
        ben.presence.push(first);
        let is_last = |ben: &SessionClient| {
            Here::of(ben).metas("ada").iter().any(|meta| meta["round"] == round && meta["number"] == "last")
        };
        ben.until("the last change", is_last).await;
        assert_eq!(Here::of(&ben).metas("ada").len(), 1);
        assert_eq!(Here::of(&ben).metas("ben").len(), 1, "one of itself");
    }
    server.stop().await;
}

#[tokio::test]
async fn two_tabs_of_one_user_are_two_metas_under_one_key() {
    let (server, _script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let tab = SessionClient::join_with(&server.ws("ada"), "s", json!({ "presence": { "tab": 2 } })).await;
    ada.until("the second tab", |ada| Here::of(ada).metas("ada").len() == 2).await;
    let here = Here::of(&ada);
    assert!(here.metas("ada").iter().any(|meta| meta["tab"] == 2));
    let references: Vec<&str> = here.metas("ada").into_iter().map(reference).collect();
    assert_ne!(references[0], references[1]);
    drop(tab);
    ada.until("its end", |ada| Here::of(ada).metas("ada").len() == 1).await;
    assert!(Here::of(&ada).metas("ada")[0].get("tab").is_none());
    server.stop().await;
}

#[tokio::test]
async fn a_presence_push_replaces_ones_own_fields_and_the_servers_names_win() {
    let (server, _script) = TestServer::start().await;
    let forged =
        json!({ "phx_ref": "x", "phx_ref_prev": "y", "name": "Eve", "node": "z", "joined_at": 0, "color": "red" });
    let mut ada = SessionClient::join_with(&server.ws("ada"), "s", json!({ "presence": forged })).await;
    let mut ben = SessionClient::join(&server.ws("ben"), "s").await;
    sees(&mut ben, &["ada", "ben"]).await;
    let before = Here::of(&ben).metas("ada")[0].clone();
    assert_eq!(keys(&before), ["color", "joined_at", "name", "node", "phx_ref"]);
    assert_eq!((&before["name"], &before["node"], &before["color"]), (&"ada".into(), &"test".into(), &"red".into()));
    assert_ne!((&before["phx_ref"], &before["joined_at"]), (&"x".into(), &0.into()));
    assert_eq!(ada.ok("presence", json!({ "typing": true, "name": "Eve", "phx_ref": "x" })).await, json!({}));
    ben.until("the change", |ben| Here::of(ben).metas("ada").iter().any(|meta| meta["typing"] == true)).await;
    let diff = &ben.presence.last().unwrap()[4];
    assert_eq!(diff["leaves"]["ada"]["metas"], json!([before]));
    let after = &diff["joins"]["ada"]["metas"][0];
    assert_eq!(keys(after), ["joined_at", "name", "node", "phx_ref", "phx_ref_prev", "typing"]);
    assert_eq!((&after["phx_ref_prev"], &after["name"]), (&before["phx_ref"], &"ada".into()));
    assert_eq!(after["joined_at"], before["joined_at"]);
    assert_eq!(Here::of(&ben).metas("ada"), [after]);
    ada.ok("presence", json!({})).await;
    ben.until("nothing of its own", |ben| keys(Here::of(ben).metas("ada")[0]).len() == 5).await;
    assert_eq!(ada.refused("presence", json!({ "a": "x".repeat(1_025) })).await, "too_large");
    ada.ok("history", json!({ "before": 1 })).await;
    assert_eq!(Here::of(&ada).metas("ada").len(), 1, "what was refused changed nothing");
    server.stop().await;
}

#[tokio::test]
async fn an_agent_is_present_while_its_turn_runs() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    ada.ok("update", json!({ "max_running": 2 })).await;
    let one = ada.send("one").await["turn_id"].clone();
    let first = script.turn().await;
    sees(&mut ada, &["ada", "agent:script"]).await;
    let meta = Here::of(&ada).metas("agent:script")[0].clone();
    assert_eq!((&meta["turn_id"], &meta["status"], &meta["name"]), (&one, &"running".into(), &"script".into()));
    let other = ada.ok("send", json!({ "text": "two", "agent": "other" })).await["turn_id"].clone();
    let second = script.turn().await;
    sees(&mut ada, &["ada", "agent:other", "agent:script"]).await;
    let waiting = ada.send("three").await["turn_id"].clone();
    let mut late = SessionClient::join(&server.ws("ben"), "s").await;
    sees(&mut late, &["ada", "agent:other", "agent:script", "ben"]).await;
    first.done().await;
    let next = script.turn().await;
    ada.until("the third turn", |ada| {
        let here = Here::of(ada);
        here.metas("agent:script").len() == 1 && here.metas("agent:script")[0]["turn_id"] == waiting
    })
    .await;
    ada.ok("cancel", json!({ "turn_id": other })).await;
    sees(&mut ada, &["ada", "agent:script", "ben"]).await;
    next.fail("agent_error").await;
    sees(&mut ada, &["ada", "ben"]).await;
    sees(&mut late, &["ada", "ben"]).await;
    drop(second);
    server.stop().await;
}

#[tokio::test]
async fn a_connection_that_breaks_off_leaves() {
    let (server, _script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let socket = TcpSocket::new_v4().unwrap();
    // Its end is a reset, with no word of farewell.
    socket.set_zero_linger().unwrap();
    let stream = socket.connect(server.server.address()).await.unwrap();
    let (mut broken, _) = client_async(server.ws("ben"), stream).await.unwrap();
    let join = json!(["1", "1", "session:s", "phx_join", {}]).to_string();
    futures::SinkExt::send(&mut broken, Message::text(join)).await.unwrap();
    sees(&mut ada, &["ada", "ben"]).await;
    drop(broken);
    sees(&mut ada, &["ada"]).await;
    assert_eq!(connections(&server.server).await, 1);
    server.stop().await;
}

/// How many connections the server holds, once that is one.
async fn connections(server: &Server) -> usize {
    crate::support::ws::until("one connection", || server.connections().count() == 1).await;
    server.connections().count()
}

#[tokio::test]
async fn a_second_join_of_the_connection_is_one_presence_again() {
    let (server, _script) = TestServer::start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let mut ben = TestClient::connect(server.ws("ben")).await;
    for number in 1..=3 {
        let join_ref = number.to_string();
        let params = json!({ "presence": { "number": number } });
        ben.frame(json!([join_ref, join_ref, "session:s", "phx_join", params])).await;
        ada.until("this join", |ada| Here::of(ada).metas("ben").iter().any(|meta| meta["number"] == number)).await;
        ada.until("the one before to go", |ada| Here::of(ada).metas("ben").len() == 1).await;
    }
    // Its own view: the state that follows the last reply.
    let state = within("the last state", async {
        loop {
            let frame = ben.next().await;
            if frame[0] == "3" && frame[3] == "presence_state" {
                return frame[4].clone();
            }
        }
    })
    .await;
    assert_eq!(keys(&state), ["ada", "ben"]);
    assert_eq!(state["ben"]["metas"].as_array().unwrap().len(), 1);
    assert_eq!(state["ben"]["metas"][0]["number"], 3);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_missed_a_diff_gets_a_new_state() {
    let (server, _script) = TestServer::start_with(|config| config.max_queue_bytes = 32 * 1024).await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    let socket = TcpSocket::new_v4().unwrap();
    // A narrow window, so that a reader that does not read is behind soon.
    socket.set_recv_buffer_size(4 * 1024).unwrap();
    let stream = socket.connect(server.server.address()).await.unwrap();
    let (mut slow, _) = client_async(server.ws("slow"), stream).await.unwrap();
    let join = json!(["1", "1", "session:s", "phx_join", {}]).to_string();
    futures::SinkExt::send(&mut slow, Message::text(join)).await.unwrap();
    sees(&mut ada, &["ada", "slow"]).await;
    let pad = "x".repeat(900);
    // What is in the way of the diff: more than all the buffers between the server and this reader can take.
    for size in std::iter::repeat_n(16_000, 800).chain(std::iter::repeat_n(500, 80)) {
        ada.ok("broadcast", json!({ "event": "fill", "payload": { "pad": "x".repeat(size) } })).await;
    }
    ada.ok("presence", json!({ "number": "first", "pad": pad })).await;
    ada.ok("presence", json!({ "number": "last", "pad": pad })).await;
    let is_last = |here: &Here| here.metas("ada").first().is_some_and(|meta| meta["number"] == "last");
    ada.until("its own change", |ada| is_last(&Here::of(ada))).await;
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
    assert_eq!(here.states, 2, "the change came in a diff");
    assert_eq!(here.keys(), ["ada", "slow"]);
    assert_eq!(here.metas("ada").len(), 1);
    server.stop().await;
}
