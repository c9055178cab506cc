//! What every bus must do, run unchanged by each form.
//!
//! The cases know [`PubSub`] and the trait [`Bus`]: no subject, no channel, no server. Their helper is a [`World`]: a
//! bus, how its server is stopped and started, and the nodes on it. [`bad_network`] has those that need a bus which
//! loses and repeats; [`forms`] brings the buses.

mod bad_network;
mod forms;

use std::{
    fmt::Debug,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{self, Instant};

use super::{
    Bus, Control, Gap, Kind, MaxWaiting, NodeId, Options, PubSub, Published, Receiver, Relay, Status, Subscriber,
    Subscription, Watcher,
    bus::{Address, Parcel},
    pack,
};
use crate::protocol::{Broadcast, Payload};

/// Nothing takes this long.
const LIMIT: Duration = Duration::from_secs(30);

/// How a form's server is handled.
pub(super) trait Server: Send {
    /// It is gone from one moment to the next, with every connection.
    fn stop(&mut self);
    /// It is there again, at the same address.
    fn start(&mut self);
}

/// A bus and its server.
pub(super) struct World {
    pub(super) bus: Arc<dyn Bus>,
    pub(super) server: Box<dyn Server>,
}

/// A node and all that reached it.
pub(super) struct Node {
    pub(super) pubsub: PubSub,
    pub(super) relay: Relay,
    seen: Arc<Seen>,
    kept: Vec<Arc<dyn Watcher>>,
}

/// What reached a node: messages, what other nodes said, gaps.
#[derive(Default)]
struct Seen {
    messages: Mutex<Vec<Arc<Published>>>,
    said: Mutex<Vec<(NodeId, Bytes)>>,
    gaps: Mutex<Vec<Gap>>,
}

impl Subscriber for Seen {
    fn deliver(&self, message: &Arc<Published>) {
        self.messages.lock().unwrap().push(message.clone());
    }
}

impl Receiver for Seen {
    fn receive(&self, from: &NodeId, body: Bytes) {
        self.said.lock().unwrap().push((from.clone(), body));
    }
}

impl Watcher for Seen {
    fn missed(&self, gap: &Gap) {
        self.gaps.lock().unwrap().push(gap.clone());
    }
}

/// Waits for a condition.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + LIMIT;
    let mut looks = time::interval(Duration::from_millis(2));
    while !holds() {
        assert!(Instant::now() < limit, "this did not happen in time: {what}");
        looks.tick().await;
    }
}

impl World {
    /// A node that is connected.
    pub(super) async fn node(&self) -> Node {
        self.node_with(Options { scope: Some("log".into()), ..Options::default() }).await
    }

    pub(super) async fn node_with(&self, options: Options) -> Node {
        let (pubsub, relay) = PubSub::start(self.bus.clone(), options);
        let seen = Arc::<Seen>::default();
        let watcher: Arc<dyn Watcher> = seen.clone();
        pubsub.watch(&watcher);
        let receiver: Arc<dyn Receiver> = seen.clone();
        pubsub.receive("test", &receiver);
        assert!(relay.connected(LIMIT).await, "a node cannot connect");
        Node { pubsub, relay, seen, kept: vec![watcher] }
    }
}

impl Node {
    fn subscribe(&self, topic: &str) -> Subscription {
        self.pubsub.subscribe(topic, self.seen.clone())
    }

    /// Subscribes, and waits until what `other` publishes arrives.
    async fn join(&self, topic: &str, other: &Self) -> Subscription {
        let subscription = self.subscribe(topic);
        until("a node hears a topic that it has joined", || {
            other.publish(topic, Kind::Ephemeral, "probe", Payload::empty());
            self.seen.messages.lock().unwrap().iter().any(|message| is(message, topic, "probe"))
        })
        .await;
        subscription
    }

    fn publish(&self, topic: &str, kind: Kind, event: &str, payload: Payload) {
        let broadcast = Broadcast::new(topic, event, payload);
        self.pubsub.publish(topic, Published { kind, from: None, broadcast });
    }

    fn append(&self, topic: &str, seq: u64) {
        let payload = Payload::raw(format!("{{\"prev\":{},\"events\":[ {{\"seq\":{seq}}} ]}}", seq - 1));
        self.publish(topic, Kind::Logged { first: seq, last: seq }, "events", payload);
    }

    /// What arrived on a topic, but for the probes.
    fn messages(&self, topic: &str) -> Vec<Arc<Published>> {
        let all = self.seen.messages.lock().unwrap();
        let wanted =
            |message: &&Arc<Published>| message.broadcast.topic() == topic && message.broadcast.event() != "probe";
        all.iter().filter(wanted).cloned().collect()
    }

    fn events(&self, topic: &str) -> Vec<String> {
        self.messages(topic).iter().map(|message| message.broadcast.event().to_owned()).collect()
    }

    fn seqs(&self, topic: &str) -> Vec<u64> {
        let last = |message: &Arc<Published>| match message.kind {
            Kind::Logged { last, .. } => Some(last),
            _ => None,
        };
        self.messages(topic).iter().filter_map(last).collect()
    }

    fn said(&self) -> Vec<(NodeId, Bytes)> {
        self.seen.said.lock().unwrap().clone()
    }

    fn has_gap(&self, wanted: &Gap) -> bool {
        self.seen.gaps.lock().unwrap().contains(wanted)
    }

    fn forget(&self) {
        self.seen.messages.lock().unwrap().clear();
        self.seen.gaps.lock().unwrap().clear();
    }

    fn id(&self) -> NodeId {
        self.pubsub.node().unwrap().clone()
    }

    async fn leave(self) {
        assert_eq!(self.kept.len(), 1);
        self.relay.stop().await;
    }
}

/// A reader as a channel is one: shows what follows, and reads the log where something is missing, or may be.
pub(super) struct Reader {
    topic: &'static str,
    pubsub: PubSub,
    log: Mutex<Vec<u64>>,
    shown: Mutex<Vec<u64>>,
}

impl Reader {
    /// A reader at a node, until the last of these is dropped.
    fn at(node: &Node, topic: &'static str) -> (Arc<Self>, Arc<dyn Watcher>, Subscription) {
        let reader =
            Arc::new(Self { topic, pubsub: node.pubsub.clone(), log: Mutex::default(), shown: Mutex::default() });
        let watcher: Arc<dyn Watcher> = reader.clone();
        node.pubsub.watch(&watcher);
        (reader.clone(), watcher, node.pubsub.subscribe(topic, reader))
    }

    /// Commits a record, before it is published.
    fn append(&self, seq: u64) {
        self.log.lock().unwrap().push(seq);
    }

    fn shown(&self) -> Vec<u64> {
        self.shown.lock().unwrap().clone()
    }

    /// Compares with the log.
    fn compare(&self) {
        let head = self.log.lock().unwrap().last().copied();
        self.pubsub.hint(self.topic, head.unwrap_or(0));
    }
}

impl Subscriber for Reader {
    fn deliver(&self, message: &Arc<Published>) {
        let mut shown = self.shown.lock().unwrap();
        let position = shown.last().copied().unwrap_or(0);
        match message.kind {
            Kind::Logged { first, last } if first == position + 1 => shown.extend(first..=last),
            Kind::Logged { last, .. } | Kind::Head { last } if last > position => {
                let log = self.log.lock().unwrap();
                shown.extend(log.iter().filter(|seq| **seq > position));
            }
            _ => {}
        }
    }
}

impl Watcher for Reader {
    fn missed(&self, _gap: &Gap) {
        self.compare();
    }
}

fn is(message: &Published, topic: &str, event: &str) -> bool {
    message.broadcast.topic() == topic && message.broadcast.event() == event
}

fn same<T: PartialEq + Debug>(what: &str, left: T, right: T) {
    assert_eq!(left, right, "{what}");
}

/// Every case, one after the other on one server. The last one stops it in between.
pub(super) async fn exercise(world: &mut World) {
    records_arrive_in_order_with_the_same_bytes_and_never_at_their_sender(world).await;
    what_stays_on_a_node_stays_there(world).await;
    a_large_broadcast_arrives_whole_and_a_large_record_at_least_as_a_hint(world).await;
    identical_messages_are_not_folded(world).await;
    nodes_speak_to_all_and_to_one(world).await;
    a_topic_that_nobody_joined_is_not_brought(world).await;
    strange_topics_are_topics(world).await;
    records_of_another_log_are_left_out(world).await;
    unknown_kinds_and_versions_are_skipped(world).await;
    a_flood_stays_bounded_and_its_end_is_known(world).await;
    after_a_restart_a_gap_is_told_and_everything_works_again(world).await;
}

async fn records_arrive_in_order_with_the_same_bytes_and_never_at_their_sender(world: &World) {
    let (a, b) = (world.node().await, world.node().await);
    let _at_a = a.join("session:1", &b).await;
    let _at_b = b.join("session:1", &a).await;
    a.forget();
    (1..=300).for_each(|seq| a.append("session:1", seq));
    a.publish("session:1", Kind::Control(Control::Close), "deleted", Payload::json(&serde_json::json!({ "by": 1 })));
    until("the end arrives", || b.events("session:1").last().is_some_and(|event| event == "deleted")).await;
    same("seqs at b", b.seqs("session:1"), (1..=300).collect());
    same("seqs at a", a.seqs("session:1"), (1..=300).collect());
    for (sent, arrived) in a.messages("session:1").iter().zip(&b.messages("session:1")) {
        same("payloads", sent.broadcast.payload().as_json(), arrived.broadcast.payload().as_json());
    }
    same("the end", b.messages("session:1").last().unwrap().kind, Kind::Control(Control::Close));
    // Something of b that a hears proves that whatever came before it has arrived, echoes among it.
    b.publish("session:1", Kind::Ephemeral, "answer", Payload::empty());
    until("an answer arrives", || a.events("session:1").contains(&"answer".to_owned())).await;
    same("messages at a", a.messages("session:1").len(), 302);
    a.leave().await;
    b.leave().await;
}

async fn what_stays_on_a_node_stays_there(world: &World) {
    let (a, b) = (world.node().await, world.node().await);
    let _at_b = b.join("room:1", &a).await;
    for kind in [Kind::Presence, Kind::Control(Control::Restart), Kind::Head { last: 7 }] {
        a.publish("room:1", kind, "own", Payload::empty());
    }
    a.publish("room:1", Kind::Ephemeral, "all", Payload::empty());
    until("a broadcast arrives", || !b.events("room:1").is_empty()).await;
    same("events", b.events("room:1"), vec!["all".to_owned()]);
    a.leave().await;
    b.leave().await;
}

async fn a_large_broadcast_arrives_whole_and_a_large_record_at_least_as_a_hint(world: &World) {
    let (a, b) = (world.node().await, world.node().await);
    let _at_b = b.join("room:large", &a).await;
    let text = format!("{{\"text\":\"{}\"}}", "ü\\n".repeat(60_000));
    let bytes = Bytes::from((0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect::<Vec<_>>());
    a.publish("room:large", Kind::Ephemeral, "text", Payload::raw(text.clone()));
    a.publish("room:large", Kind::Ephemeral, "bytes", Payload::Binary(bytes.clone()));
    a.publish("room:large", Kind::Logged { first: 1, last: 9 }, "events", Payload::raw(text.clone()));
    a.publish("room:large", Kind::Ephemeral, "small", Payload::empty());
    until("the last arrives", || b.messages("room:large").len() == 4).await;
    let all = b.messages("room:large");
    same("text", all[0].broadcast.payload().as_json(), Some(text.as_str()));
    assert!(matches!(all[1].broadcast.payload(), Payload::Binary(arrived) if *arrived == bytes));
    assert!(matches!(all[2].kind, Kind::Logged { last: 9, .. } | Kind::Head { last: 9 }), "{:?}", all[2].kind);
    same("small", all[3].broadcast.event(), "small");
    a.leave().await;
    b.leave().await;
}

async fn identical_messages_are_not_folded(world: &World) {
    let (a, b) = (world.node().await, world.node().await);
    let _at_b = b.join("room:same", &a).await;
    (0..500).for_each(|_| a.publish("room:same", Kind::Ephemeral, "typing", Payload::empty()));
    until("all arrive", || b.messages("room:same").len() == 500).await;
    a.leave().await;
    b.leave().await;
}

async fn nodes_speak_to_all_and_to_one(world: &World) {
    let (a, b, c) = (world.node().await, world.node().await, world.node().await);
    let large = Bytes::from(vec![200; 50_000]);
    a.pubsub.publish_to_all("test", Bytes::from_static(b"all"));
    a.pubsub.publish_to_all("nobody receives this", Bytes::from_static(b"x"));
    a.pubsub.publish_to_all("test", large.clone());
    a.pubsub.publish_to(&b.id(), "test", Bytes::from_static(b"b"));
    until("b and c hear", || b.said().len() == 3 && c.said().len() == 2).await;
    let to_all = vec![(a.id(), Bytes::from_static(b"all")), (a.id(), large)];
    same("c", c.said(), to_all.clone());
    let (to_b, both): (Vec<_>, Vec<_>) = b.said().into_iter().partition(|(_, body)| body.len() == 1);
    same("b", (to_b, both), (vec![(a.id(), Bytes::from_static(b"b"))], to_all));
    b.pubsub.publish_to(&a.id(), "test", Bytes::from_static(b"back"));
    until("a hears", || !a.said().is_empty()).await;
    same("a", a.said(), vec![(b.id(), Bytes::from_static(b"back"))]);
    for node in [a, b, c] {
        node.leave().await;
    }
}

async fn a_topic_that_nobody_joined_is_not_brought(world: &World) {
    let (a, b) = (world.node().await, world.node().await);
    // Two that no form puts together.
    let shard = |topic: &str| pack::digest(topic) % 64;
    let other = (0..).map(|n| format!("room:o{n}")).find(|other| shard(other) != shard("room:here")).unwrap();
    let _here = b.join("room:here", &a).await;
    let there = b.join(&other, &a).await;
    until("the topic is told of", || {
        b.seen
            .gaps
            .lock()
            .unwrap()
            .iter()
            .any(|gap| matches!(gap, Gap::Topics(topics) if topics[..] == [other.as_str().into()]))
    })
    .await;
    drop(there);
    let probe = |event: &str| a.publish("room:here", Kind::Ephemeral, event, Payload::empty());
    // Leaving takes a moment to reach the server; from then on nothing is brought.
    let (limit, mut looks) = (Instant::now() + LIMIT, time::interval(Duration::from_millis(2)));
    for round in 0.. {
        assert!(Instant::now() < limit, "a topic that was left is brought all the same");
        looks.tick().await;
        let before = b.pubsub.counts().received;
        a.publish(&other, Kind::Ephemeral, "x", Payload::empty());
        probe(&format!("after {round}"));
        until("the probe arrives", || b.events("room:here").last() == Some(&format!("after {round}"))).await;
        if b.pubsub.counts().received == before + 1 {
            break;
        }
    }
    a.leave().await;
    b.leave().await;
}

async fn strange_topics_are_topics(world: &World) {
    let (a, b) = (world.node().await, world.node().await);
    let long = format!("room:{}", "x".repeat(3_000));
    for topic in ["room:a b", "room:*", "room:>", "room:ü.\"'\\\n", &long] {
        let _at_b = b.join(topic, &a).await;
        a.publish(topic, Kind::Ephemeral, "here", Payload::empty());
        until("it arrives", || b.events(topic) == ["here"]).await;
    }
    a.leave().await;
    b.leave().await;
}

async fn records_of_another_log_are_left_out(world: &World) {
    let a = world.node().await;
    let other = world.node_with(Options { scope: Some("another log".into()), ..Options::default() }).await;
    let alone = world.node_with(Options::default()).await;
    let _here = a.join("session:1", &other).await;
    let _there = other.join("session:1", &a).await;
    let _alone = alone.join("session:1", &a).await;
    for node in [&a, &other, &alone] {
        node.append("session:1", 5);
        node.publish("session:1", Kind::Control(Control::Close), "", Payload::empty());
        node.publish("session:1", Kind::Ephemeral, "typing", Payload::empty());
    }
    for node in [&a, &other, &alone] {
        until("broadcasts arrive", || node.events("session:1").iter().filter(|event| *event == "typing").count() == 3)
            .await;
        same("records", node.seqs("session:1"), vec![5]);
    }
    for node in [a, other, alone] {
        node.leave().await;
    }
}

async fn unknown_kinds_and_versions_are_skipped(world: &World) {
    let (a, b) = (world.node().await, world.node().await);
    let _at_b = b.join("room:1", &a).await;
    let newer = NodeId("newer".into());
    let (mut outward, _inward) = world.bus.connect(&newer).await.unwrap();
    let parcel = |text: &str| Parcel { to: Address::Topic("room:1".into()), text: text.to_owned(), short: None };
    let known = r#"{"n":3,"kind":"broadcast","topic":"room:1","event":"known","json":{},"more":[1]}"#;
    for text in [r#"{"n":1,"kind":"dance","topic":"room:1","steps":[1,2]}"#, r#"{"n":2,"kind":"broadcast"}"#, known] {
        outward.send(&[parcel(text)]).await.unwrap();
    }
    until("the known one arrives", || b.events("room:1") == ["known"]).await;
    same("gaps", b.has_gap(&Gap::Node(newer.clone())), false);
    // What cannot be read at all may have been anything.
    outward.send(&[parcel("]")]).await.unwrap();
    until("the gap is told", || b.has_gap(&Gap::Node(newer.clone()))).await;
    a.leave().await;
    b.leave().await;
}

async fn a_flood_stays_bounded_and_its_end_is_known(world: &World) {
    let few = MaxWaiting { messages: 50, bytes: 1 << 20 };
    let a = world.node_with(Options { scope: Some("log".into()), max_waiting: few }).await;
    let b = world.node().await;
    let _at_b = b.join("session:1", &a).await;
    const FLOOD: u64 = 20_000;
    for seq in 1..=FLOOD {
        a.append("session:1", seq);
        if seq % 100 == 0 {
            a.publish("session:1", Kind::Ephemeral, "typing", Payload::empty());
            a.pubsub.publish_to_all("test", Bytes::from_static(b"x"));
        }
    }
    until("the end is known", || b.pubsub.delivered("session:1") == FLOOD).await;
    let counts = a.pubsub.counts();
    assert!(counts.hinted > FLOOD / 2 && counts.dropped > 0, "{counts:?}");
    let lost = Gap::Messages { from: a.id(), name: "test".into() };
    until("messages to nodes are told to be missing", || b.has_gap(&lost)).await;
    a.leave().await;
    b.leave().await;
}

async fn after_a_restart_a_gap_is_told_and_everything_works_again(world: &mut World) {
    let (a, b) = (world.node().await, world.node().await);
    let _at_b = b.join("session:1", &a).await;
    let (reader, _watcher, _reading) = Reader::at(&b, "session:1");
    let append = |seq| {
        reader.append(seq);
        a.append("session:1", seq);
    };
    (1..=10).for_each(append);
    until("all arrive", || reader.shown().len() == 10).await;
    b.forget();
    world.server.stop();
    (11..=20).for_each(append);
    until("both notice", || a.pubsub.status() == Status::Away && b.pubsub.status() == Status::Away).await;
    until("b is told", || b.has_gap(&Gap::Everything)).await;
    (21..=30).for_each(append);
    b.forget();
    world.server.start();
    assert!(a.relay.connected(LIMIT).await && b.relay.connected(LIMIT).await);
    until("b is told again", || b.has_gap(&Gap::Everything)).await;
    until("what was committed meanwhile is shown", || reader.shown().len() == 30).await;
    let news = b.join("session:2", &a).await;
    append(31);
    a.publish("session:2", Kind::Ephemeral, "again", Payload::empty());
    until("both topics work", || b.seqs("session:1").contains(&31) && b.events("session:2") == ["again"]).await;
    same("what was shown", reader.shown(), (1..=31).collect());
    drop(news);
    a.leave().await;
    b.leave().await;
}
