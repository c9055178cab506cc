//! What a bus that loses, repeats and reorders can do: nothing is shown twice, and a reader of the log misses nothing.

use std::sync::Arc;

use async_trait::async_trait;

use super::{LIMIT, Node, Reader, Server, World, forms, until};
use crate::{
    protocol::Payload,
    pubsub::{
        Bus, Gap, Kind, Local, NodeId,
        bus::{Error, Inward, Outward, Parcel, Result, Sent},
        lossy::{Lossy, Mischief},
    },
};

fn mischievous(bus: Arc<dyn Bus>, seed: u64) -> World {
    let mischief = Mischief { seed, drop: seed % 4 * 10, repeat: 30, hold: 30 };
    World { bus: Arc::new(Lossy { bus, mischief }), server: Box::new(NoServer) }
}

struct NoServer;

impl Server for NoServer {
    fn stop(&mut self) {}
    fn start(&mut self) {}
}

async fn broadcasts_are_shown_at_most_once(a: &Node, b: &Node) {
    let _at_b = b.join("room:1", a).await;
    for n in 0..400 {
        a.publish("room:1", Kind::Ephemeral, &format!("{n}"), Payload::empty());
    }
    until("something arrives after them", || {
        a.publish("room:1", Kind::Ephemeral, "last", Payload::empty());
        b.events("room:1").contains(&"last".to_owned())
    })
    .await;
    let mut events: Vec<_> = b.events("room:1").into_iter().filter(|event| event != "last").collect();
    let all = events.len();
    events.sort();
    events.dedup();
    assert_eq!(events.len(), all, "a broadcast was shown twice");
}

async fn a_reader_of_the_log_misses_nothing(a: &Node, b: &Node) {
    const RECORDS: u64 = 400;
    let (reader, _watcher, _reading) = Reader::at(b, "session:1");
    let _at_b = b.join("session:1", a).await;
    for seq in 1..=RECORDS {
        reader.append(seq);
        a.append("session:1", seq);
    }
    until("all is shown", || {
        // What compares heads, in a loop: the last record may be among those that were lost.
        reader.compare();
        reader.shown().last() == Some(&RECORDS)
    })
    .await;
    assert_eq!(reader.shown(), (1..=RECORDS).collect::<Vec<_>>());
}

async fn exercise(world: World, seed: u64) {
    let (a, b) = (world.node().await, world.node().await);
    assert!(a.relay.connected(LIMIT).await, "seed {seed}");
    broadcasts_are_shown_at_most_once(&a, &b).await;
    a_reader_of_the_log_misses_nothing(&a, &b).await;
    a.leave().await;
    b.leave().await;
}

/// A bus whose connection breaks over one content, as a database's does that cannot store a sign.
struct Touchy(Local);

struct TouchyEnd(Box<dyn Outward>);

#[async_trait]
impl Bus for Touchy {
    async fn connect(&self, node: &NodeId) -> Result<(Box<dyn Outward>, Box<dyn Inward>)> {
        let (outward, inward) = self.0.connect(node).await?;
        Ok((Box::new(TouchyEnd(outward)), inward))
    }
}

#[async_trait]
impl Outward for TouchyEnd {
    async fn send(&mut self, parcels: &[Parcel]) -> Result<Sent> {
        if parcels.iter().any(|parcel| parcel.text.contains("poison")) {
            return Err(Error::broken("sending poison"));
        }
        self.0.send(parcels).await
    }
}

#[tokio::test]
async fn what_breaks_every_connection_is_left_out_and_told_to_be_missing() {
    let world = World { bus: Arc::new(Touchy(Local::new())), server: Box::new(NoServer) };
    let (a, b) = (world.node().await, world.node().await);
    let _at_b = b.join("room:1", &a).await;
    a.publish("room:1", Kind::Ephemeral, "poison", Payload::empty());
    let missing = Gap::Node(a.id());
    until("the others learn of it", || b.has_gap(&missing)).await;
    a.publish("room:1", Kind::Ephemeral, "food", Payload::empty());
    until("what follows arrives", || b.events("room:1") == ["food"]).await;
    assert!(a.pubsub.counts().dropped >= 1);
    a.leave().await;
    b.leave().await;
}

#[tokio::test]
async fn local() {
    for seed in 0..20 {
        exercise(mischievous(Arc::new(Local::new()), seed), seed).await;
    }
}

#[tokio::test]
async fn nats() {
    let World { bus, server } = forms::nats_world();
    for seed in 0..4 {
        exercise(mischievous(bus.clone(), seed), seed).await;
    }
    drop(server);
}
