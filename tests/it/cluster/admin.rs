//! What operators are shown of a cluster, on whatever node they look.

use serde_json::{Map, Value};

use crate::support::{
    fleet::{Fleet, Plan},
    operator::{Operator, turns},
    scrape::Scrape,
};

fn node<'a>(held: &'a Map<String, Value>, name: &str) -> &'a Value {
    let nodes = held["nodes"].as_array().unwrap();
    nodes.iter().find(|node| node["name"] == name).unwrap_or_else(|| panic!("{name} is not in {held:?}"))
}

async fn scrape(cluster: &Fleet, node: usize) -> Scrape {
    let text = reqwest::get(format!("http://{}/metrics", cluster.address(node))).await.unwrap().text().await.unwrap();
    Scrape::read(&text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_is_followed_from_another_node_until_its_owner_dies() {
    let mut cluster = Fleet::start(Plan::short(3)).await;
    let (kept, lost) = (cluster.turn(0, "kept", 2_000).await, cluster.turn(1, "lost", 2_000).await);
    let mut operator = Operator::watch(&cluster.ws(2, "op")).await;
    operator.until("both turns", |held| turns(held, "running").len() == 2).await;
    let owners: Vec<_> = turns(&operator.held, "running").iter().map(|e| e["turn"]["owner"]["node"].clone()).collect();
    assert_eq!(owners, ["n0", "n1"], "the oldest first");
    let told = |held: &Map<String, Value>, name| node(held, name)["rates"]["events_per_second"].as_f64() > Some(0.0);
    operator.until("how busy the others are", |held| told(held, "n0") && told(held, "n1")).await;
    cluster.kill(1).await;
    operator.until("the end of its turn", |held| held["lost"][0]["turn"]["id"] == *lost).await;
    let entry = &operator.held["lost"][0];
    assert_eq!((&entry["session"], &entry["turn"]["reason"]), (&"lost".into(), &"owner_gone".into()));
    operator
        .until("the dead node", |held| node(held, "n1")["state"] == "dead" && node(held, "n1")["rates"].is_null())
        .await;
    let (status, answer) = operator.cancel("kept", &kept.into()).await;
    assert_eq!((status.as_str(), &answer["outcome"]), ("ok", &"cancelled".into()), "{answer}");
    operator.until("that nothing runs", |held| turns(held, "running").is_empty()).await;
    assert_eq!(operator.held["lost"].as_array().unwrap().len(), 1, "a cancel is no loss");
    let (mut gone, mut user, mut buried) = (0.0, 0.0, 0.0);
    for by in [0, 2] {
        let scrape = scrape(&cluster, by).await;
        let ended = |reason| scrape.value("rejoin_turns_ended_total", &[("status", "cancelled"), ("reason", reason)]);
        (gone, user) = (gone + ended("owner_gone"), user + ended("user"));
        buried += scrape.value("rejoin_tombstones_total", &[]);
        assert_eq!(scrape.value("rejoin_nodes", &[("state", "live")]), 2.0);
        assert_eq!(scrape.value("rejoin_bus", &[("state", "connected")]), 1.0);
    }
    assert_eq!((gone, user, buried), (1.0, 1.0, 1.0), "each is counted by one node");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_bus_the_turns_of_all_nodes_are_shown_and_what_it_lost_is_counted() {
    let cluster = Fleet::start(Plan::patient(2)).await;
    let mut member = crate::support::client::SessionClient::join(&cluster.ws(1, "ada"), "s").await;
    cluster.lose_bus(1, true);
    cluster.turn(0, "s", 100).await;
    let mut operator = Operator::watch(&cluster.ws(1, "op")).await;
    operator.until("the turn", |held| turns(held, "running").len() == 1).await;
    operator.until("the bus to be away", |held| held["server"]["bus"] == "away").await;
    member.until("what the bus did not bring", |member| member.view.last_seq > 5).await;
    let repaired = scrape(&cluster, 1).await.value("rejoin_bus_gaps_repaired_total", &[]);
    assert!(repaired >= 1.0, "{repaired}");
    assert_eq!(scrape(&cluster, 1).await.value("rejoin_slow_consumers_total", &[]), 0.0, "nobody was slow");
}
