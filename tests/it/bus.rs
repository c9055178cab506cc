//! Whole servers on one bus: a room that spans them, and a bus that is not there.

use rejoin::config;
use serde_json::{Value, json};

use super::support::{
    nats::NatsServer,
    server::TestServer,
    ws::{TestClient, until, within},
};

async fn on(bus: &str) -> TestServer {
    let url = rejoin::agent::Secret::new(bus);
    TestServer::start_with(|config| config.bus = config::Bus::Nats(url)).await.0
}

async fn ready(server: &TestServer) -> (u16, Value) {
    let answer =
        reqwest::Client::builder().no_proxy().build().unwrap().get(server.http("/readyz")).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn join(server: &TestServer, user: &str, topic: &str) -> TestClient {
    let mut client = TestClient::connect(&server.ws(user)).await;
    client.frame(json!(["11", "1", topic, "phx_join", {}])).await;
    assert_eq!(client.next().await[4]["status"], "ok");
    client
}

/// The next push of that event.
async fn push(client: &mut TestClient, event: &str) -> Value {
    within("a push", async {
        loop {
            let frame = client.next().await;
            if frame[3] == event {
                return frame[4].clone();
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_room_spans_servers_that_share_a_bus_and_nobody_hears_twice() {
    let nats = NatsServer::start();
    let (a, b) = (on(&nats.url()).await, on(&nats.url()).await);
    let other = on(&format!("{}/other", nats.url())).await;
    let mut ada = join(&a, "ada", "room:1").await;
    let mut bob = join(&b, "bob", "room:1").await;
    let mut eve = join(&other, "eve", "room:1").await;
    // What is published while a node begins to listen may pass it by, so it is said until it is heard.
    let mut said = 0;
    let heard = loop {
        said += 1;
        ada.push("room:1", "probe", json!({ "n": said })).await;
        tokio::select! {
            heard = push(&mut bob, "probe") => break heard,
            () = tokio::time::sleep(std::time::Duration::from_millis(50)) => {}
        }
    };
    assert!(heard["n"].as_u64().unwrap() <= said);
    for n in 0..20 {
        ada.push("room:1", "shout", json!({ "n": n, "text": "ü\n\"" })).await;
    }
    for n in 0..20 {
        assert_eq!(push(&mut bob, "shout").await, json!({ "n": n, "text": "ü\n\"" }));
    }
    bob.push("room:1", "back", json!({})).await;
    push(&mut ada, "back").await;
    // A server of another cluster on the same bus heard nothing of it: the first that eve hears is her own server's.
    let mut mia = join(&other, "mia", "room:1").await;
    mia.push("room:1", "own", json!({})).await;
    within("the first broadcast", async {
        loop {
            let frame = eve.next().await;
            assert!(frame[3] != "shout" && frame[3] != "probe" && frame[3] != "back", "{frame}");
            if frame[3] == "own" {
                return;
            }
        }
    })
    .await;
    assert_eq!(ready(&a).await, (200, json!({ "ready": true, "draining": false, "bus": "connected" })));
    for server in [a, b, other] {
        server.stop().await;
    }
}

#[tokio::test]
async fn a_server_starts_without_its_bus_says_so_and_finds_it_later() {
    let mut nats = NatsServer::start();
    nats.kill();
    let server = on(&nats.url()).await;
    assert_eq!(ready(&server).await, (200, json!({ "ready": true, "draining": false, "bus": "away" })));
    let mut ada = join(&server, "ada", "room:1").await;
    let mut bob = join(&server, "bob", "room:1").await;
    ada.push("room:1", "here", json!({})).await;
    push(&mut bob, "here").await;
    nats.start_again();
    until("the bus is found", || server.server.sessions().bus().name() == "connected").await;
    server.stop().await;
}
