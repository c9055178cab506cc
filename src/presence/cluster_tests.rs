use serde_json::Map;

use super::*;
use crate::{
    ids::Incarnation,
    presence::{Flusher, Options, Tracker},
    pubsub::{Local, Options as BusOptions, Relay},
};

const LIMIT: Duration = Duration::from_secs(20);

/// A node on a bus, and the rows that it reads.
struct Node {
    tracker: Tracker,
    cluster: Cluster,
    rows: watch::Sender<Roster>,
    kept: (Flusher, Relay),
}

async fn node(bus: &Local, scope: &str, own: &str, rows: &[&str]) -> Node {
    let (pubsub, relay) = PubSub::start(Arc::new(bus.clone()), BusOptions::default());
    assert!(relay.connected(LIMIT).await);
    let (tracker, flusher) = Tracker::start(pubsub.clone(), Options { shared: true, ..Options::default() });
    let rows = watch::Sender::new(roster(own, rows));
    let options = ClusterOptions { scope: scope.into() };
    let cluster = Cluster::start(tracker.clone(), pubsub, rows.subscribe(), Roster::clone, &options).unwrap();
    Node { tracker, cluster, rows, kept: (flusher, relay) }
}

fn roster(own: &str, rows: &[&str]) -> Roster {
    let rows = rows.iter().map(|name| (Incarnation((*name).to_owned()), false)).collect();
    Roster { own: Incarnation(own.to_owned()), rows, asked: Instant::now() }
}

async fn until(what: &str, ready: impl Fn() -> bool) {
    let wait = async {
        while !ready() {
            tokio::task::yield_now().await;
        }
    };
    assert!(time::timeout(LIMIT, wait).await.is_ok(), "this did not happen in time: {what}");
}

#[tokio::test]
async fn a_node_that_starts_late_knows_everybody_before_it_is_settled() {
    let bus = Local::new();
    let a = node(&bus, "s", "a", &["a"]).await;
    let tracked: Vec<_> = (0..1_000).map(|user| a.tracker.track("t", user, &Map::new()).unwrap()).collect();
    let b = node(&bus, "s", "b", &["a", "b"]).await;
    assert_eq!(b.cluster.settled().await, 0);
    assert_eq!(b.tracker.count("t"), 1_000);
    assert_eq!(b.tracker.state("t").as_json(), a.tracker.state("t").as_json());
    let _own = b.tracker.track("t", "b", &Map::new()).unwrap();
    until("a join", || a.tracker.count("t") == 1_001).await;
    // What was tracked before the end is told, and leaves with the end.
    let last = a.tracker.track("t", "last", &Map::new()).unwrap();
    a.cluster.stop().await;
    until("the goodbye", || b.tracker.count("t") == 1).await;
    drop((tracked, last));
    a.kept.1.stop().await;
    assert_eq!(b.tracker.count("t"), 1);
}

#[tokio::test]
async fn rows_that_are_gone_take_members_away_and_silence_does_not() {
    let bus = Local::new();
    let (a, b) = (node(&bus, "s", "a", &["a", "b"]).await, node(&bus, "s", "b", &["a", "b"]).await);
    let _shown = a.tracker.track("t", "u", &Map::new()).unwrap();
    until("a join", || b.tracker.count("t") == 1).await;
    // It cannot even say goodbye.
    a.kept.1.stop().await;
    drop(a.cluster);
    assert_eq!(b.cluster.settled().await, 0);
    assert_eq!(b.tracker.count("t"), 1);
    b.rows.send_replace(roster("b", &["b"]));
    until("its row is gone", || b.tracker.count("t") == 0).await;
}

#[tokio::test]
async fn others_on_the_same_bus_are_another_cluster_and_a_silent_node_is_not_waited_for_long() {
    let bus = Local::new();
    let a = node(&bus, "one", "a", &["a"]).await;
    let other = node(&bus, "two", "b", &["a", "b"]).await;
    let _shown = a.tracker.track("t", "u", &Map::new()).unwrap();
    assert_eq!(other.cluster.settled().await, 1, "a row of a node that does not speak");
    assert_eq!(other.tracker.count("t"), 0);
}

#[tokio::test]
async fn alone_there_is_nothing_to_do() {
    let options = ClusterOptions { scope: "s".into() };
    let rows = || watch::Sender::new(roster("a", &["a"])).subscribe();
    let (tracker, _flusher) = Tracker::start(PubSub::new(), Options { shared: true, ..Options::default() });
    assert!(Cluster::start(tracker, PubSub::new(), rows(), Roster::clone, &options).is_none());
    let (pubsub, _relay) = PubSub::start(Arc::new(Local::new()), BusOptions::default());
    let (tracker, _flusher) = Tracker::start(pubsub.clone(), Options::default());
    assert!(Cluster::start(tracker, pubsub, rows(), Roster::clone, &options).is_none(), "it is not shared");
}
