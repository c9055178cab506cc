//! What operators ask of a cluster is answered by every node alike.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::{
    client::SessionClient,
    fleet::{Fleet, Plan},
    ws::{TestClient, within},
};

/// What a node says of the node of this name: the newest life of it.
async fn seen(cluster: &Fleet, by: usize, name: &str) -> Value {
    let (status, list) = cluster.get(by, "/api/nodes").await;
    assert_eq!(status, 200, "{list}");
    let nodes = list["nodes"].as_array().unwrap();
    nodes.iter().find(|node| node["name"] == name).unwrap_or_else(|| panic!("{name} is not in {list}")).clone()
}

async fn until(what: &str, cluster: &Fleet, by: usize, name: &str, ready: impl Fn(&Value) -> bool) -> Value {
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        let node = seen(cluster, by, name).await;
        if ready(&node) {
            return node;
        }
        assert!(Instant::now() < limit, "{what}: {node}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_tells_of_every_node_also_without_a_bus() {
    let mut cluster = Fleet::start(Plan::patient(3)).await;
    for node in 0..3 {
        cluster.lose_bus(node, true);
    }
    let mut clients = Vec::new();
    for user in ["ada", "ben"] {
        clients.push(TestClient::connect(cluster.ws(0, user)).await);
    }
    let _turn = cluster.turn(0, "s", 500).await;
    for by in 0..3 {
        let busy = |node: &Value| (&node["connections"], &node["running_turns"]) == (&json!(2), &json!(1));
        let node = until("what n0 has to do", &cluster, by, "n0", busy).await;
        assert_eq!(node["state"], "live");
        assert!(node["seen_ms_ago"].as_u64().unwrap() < 5_000, "{node}");
        assert_eq!(seen(&cluster, by, "n2").await["connections"], 0);
    }
    cluster.signal(0, "STOP").await;
    let still = until("n0 to stand still", &cluster, 1, "n0", |node| node["seen_ms_ago"].as_u64() > Some(700)).await;
    assert!(still["state"] == "live" || still["state"] == "dead", "{still}");
    cluster.kill(0).await;
    let dead = |node: &Value| node["state"] == "dead" && node["running_turns"] == 0;
    let node = until("n0 to be dead", &cluster, 2, "n0", dead).await;
    assert_eq!(node["connections"], 0);
    assert!(node["seen_ms_ago"].as_u64() > Some(700), "{node}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broadcast_over_http_reaches_all_nodes() {
    let cluster = Fleet::start(Plan::patient(3)).await;
    let topics = ["room:lobby", "session:s"];
    let mut clients = Vec::new();
    for (node, user) in ["ada", "ben", "eve"].into_iter().enumerate() {
        let mut client = TestClient::connect(cluster.ws(node, user)).await;
        client.join("room:lobby", json!({})).await;
        clients.push(("room:lobby", client));
        clients.push(("session:s", SessionClient::join(&cluster.ws(node, user), "s").await.raw));
    }
    // A node hears of a topic a moment after its first member has joined, and what is said before that is not kept for it:
    // it is said until everybody has heard it.
    let said = async {
        let mut pace = tokio::time::interval(Duration::from_millis(200));
        loop {
            for topic in topics {
                let body = json!({ "topic": topic, "event": "news", "payload": { "n": 1 } });
                let answer = cluster.caller().post_to(1, "/api/broadcast", body).await;
                assert_eq!(answer, (200, json!({})));
            }
            pace.tick().await;
        }
    };
    let heard = futures::future::join_all(clients.iter_mut().map(|(topic, client)| async {
        let event = if *topic == "room:lobby" { "news" } else { "broadcast" };
        let payload = loop {
            let frame = client.next().await;
            if frame[3] == event {
                break frame[4].clone();
            }
        };
        let payload = if event == "broadcast" { &payload["payload"] } else { &payload };
        assert_eq!(*payload, json!({ "n": 1 }));
    }));
    Box::pin(within("everybody to hear it", async {
        tokio::select! {
            _ = heard => {}
            () = said => {}
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_disconnected_from_every_node_and_told_when_one_cannot_be_reached() {
    let cluster = Fleet::start(Plan::patient(3)).await;
    let mut theirs = Vec::new();
    for node in 0..3 {
        let mut client = TestClient::connect(cluster.ws(node, "eve")).await;
        client.join("room:lobby", json!({})).await;
        theirs.push(client);
    }
    let mut other = TestClient::connect(cluster.ws(2, "ada")).await;
    other.join("room:lobby", json!({})).await;
    let answer = cluster.caller().post_to(0, "/api/disconnect", json!({ "user_id": "eve" })).await;
    assert_eq!(answer, (200, json!({ "disconnected": 1 })));
    for client in &mut theirs {
        assert_eq!(within("the connection to be closed", client.close_code()).await, 1001);
    }
    let reference = other.push("room:lobby", "shout", json!({})).await;
    other.assert_reply(&reference, "ok").await;

    cluster.lose_bus(0, true);
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        let (status, answer) = cluster.caller().post_to(0, "/api/disconnect", json!({ "user_id": "eve" })).await;
        if status == 503 {
            assert_eq!(answer["code"], "unavailable", "{answer}");
            break;
        }
        assert!(Instant::now() < limit, "a node without its bus says that it told the others: {answer}");
        sleep(Duration::from_millis(20)).await;
    }
}
