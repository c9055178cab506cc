//! The live list of several nodes: what one changes the viewers of all are told, also where the bus loses it.

use std::{collections::BTreeMap, sync::Arc};

use rejoin::{
    pubsub::{Kind, Local, Status, Subscription},
    session::{LIST_TOPIC, Watched},
};
use serde_json::Value;

use crate::support::{
    cluster::{ClusterNode, Member, SharedStore},
    script::scripted,
    ws::until,
};

/// A viewer as its channel would be one.
struct Viewer<'n> {
    node: &'n ClusterNode,
    told: Arc<Member>,
    _subscription: Subscription,
    position: u64,
    /// Status and place of each session, or null for one that is gone.
    holds: BTreeMap<String, Value>,
    /// How many changes it was handed.
    count: usize,
}

impl<'n> Viewer<'n> {
    async fn watch(node: &'n ClusterNode) -> Self {
        let told = Arc::<Member>::default();
        let subscription = node.pubsub.subscribe(LIST_TOPIC, told.clone());
        let Watched { sessions, position, .. } = node.sessions.watch(Some(""), |_| true).await.unwrap();
        let mut viewer = Self { node, told, _subscription: subscription, position, holds: BTreeMap::new(), count: 0 };
        sessions.iter().for_each(|summary| viewer.take(&serde_json::to_value(summary).unwrap()));
        viewer
    }

    fn take(&mut self, payload: &Value) {
        let id = payload["id"].as_str().unwrap().to_owned();
        let held = payload
            .get("status")
            .map_or(Value::Null, |status| Value::from(format!("{}@{}", status.as_str().unwrap(), payload["last_seq"])));
        self.holds.insert(id, held);
    }

    /// Reads what it was told of.
    fn read(&mut self) -> &BTreeMap<String, Value> {
        let head = |kind: &Kind| match kind {
            Kind::Head { last } => *last,
            other => panic!("{other:?}"),
        };
        let told = self.told.kinds().iter().map(head).max().unwrap_or(0);
        while told > self.position {
            let changes = self.node.sessions.changes(self.position).unwrap();
            self.position = changes.last;
            for change in &changes.changes {
                self.count += 1;
                self.take(&change.broadcast().payload().parse().unwrap());
            }
        }
        &self.holds
    }

    async fn until(&mut self, what: &str, session: &str, held: &str) {
        until(what, || self.read().get(session).is_some_and(|found| found == held)).await;
    }
}

async fn connected(nodes: &[&ClusterNode]) {
    until("all are connected", || nodes.iter().all(|node| node.pubsub.status() == Status::Connected)).await;
}

#[tokio::test]
async fn what_one_node_changes_the_viewers_of_all_are_told() {
    let (store, bus) = (SharedStore::open().await, Local::new());
    let (agents, mut script) = scripted();
    let a = ClusterNode::start(&store, Arc::new(bus.clone()), agents).await;
    let b = ClusterNode::start(&store, Arc::new(bus), scripted().0).await;
    connected(&[&a, &b]).await;
    let (mut at_a, mut at_b) = (Viewer::watch(&a).await, Viewer::watch(&b).await);
    a.sessions.create("s", Default::default(), true).await.unwrap();
    for viewer in [&mut at_a, &mut at_b] {
        viewer.until("it is made", "s", "idle@0").await;
    }
    a.send("s", "go", true).await;
    for viewer in [&mut at_a, &mut at_b] {
        viewer.until("it runs", "s", "running@2").await;
    }
    let turn = script.turn().await;
    turn.say("word").await;
    for viewer in [&mut at_a, &mut at_b] {
        viewer.until("it moves", "s", "running@3").await;
    }
    turn.done().await;
    for viewer in [&mut at_a, &mut at_b] {
        viewer.until("it has ended", "s", "idle@4").await;
        assert_eq!(viewer.count, 4, "each once");
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn what_the_bus_loses_is_found_in_the_store() {
    let (store, bus) = (SharedStore::open().await, Local::new());
    let (agents, mut script) = scripted();
    let a = ClusterNode::start(&store, Arc::new(bus.clone()), agents).await;
    let b = ClusterNode::start(&store, Arc::new(bus.clone()), scripted().0).await;
    connected(&[&a, &b]).await;
    a.sessions.create("old", Default::default(), true).await.unwrap();
    let mut viewer = Viewer::watch(&b).await;
    bus.close();
    until("the bus is away", || b.pubsub.status() == Status::Away && a.pubsub.status() == Status::Away).await;
    a.sessions.create("new", Default::default(), true).await.unwrap();
    a.send("old", "go", true).await;
    let turn = script.turn().await;
    viewer.until("a start", "old", "running@2").await;
    viewer.until("a session that is new", "new", "idle@0").await;
    turn.done().await;
    viewer.until("an end", "old", "idle@3").await;
    a.send("new", "a note", false).await;
    viewer.until("a place that moves", "new", "idle@1").await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn without_viewers_nothing_is_read_and_nothing_kept() {
    let (store, bus) = (SharedStore::open().await, Local::new());
    let a = ClusterNode::start(&store, Arc::new(bus.clone()), scripted().0).await;
    let b = ClusterNode::start(&store, Arc::new(bus), scripted().0).await;
    connected(&[&a, &b]).await;
    for n in 0..100 {
        a.sessions.create(&format!("s{n}"), Default::default(), true).await.unwrap();
        a.send(&format!("s{n}"), "x", false).await;
    }
    assert_eq!((store.picked(), a.sessions.changes(0).unwrap().changes.len()), (0, 0));
    let viewer = Viewer::watch(&b).await;
    assert_eq!((viewer.holds.len(), viewer.count), (100, 0));
    until("the viewers' node reads in its rounds", || store.picked() > 2).await;
    drop(viewer);
    until("it has given up", || b.sessions.changes(0).is_none()).await;
    let before = store.picked();
    a.send("s1", "y", false).await;
    assert_eq!(store.picked(), before);
    a.stop().await;
    b.stop().await;
}
