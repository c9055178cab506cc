//! Publishing to everybody who is subscribed to a topic: on this node at once, on the others by a bus.
//!
//! Knows no session, no channel and no connection: a [`Subscriber`] takes a message and must not wait. Its invariant:
//! all subscribers of a topic on this node see its messages in one order, that in which [`PubSub::publish`] and the bus
//! brought them, because each call hands its message to everybody under the topic's lock. What the bus brings is a
//! hint: it may be lost, and [`Watcher`]s learn when that is possible.

pub mod bus;
mod envelope;
mod gap;
mod interest;
mod local;
mod nats;
mod outgoing;
mod pack;
mod postgres;
mod relay;
mod topic;
mod window;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod lossy;

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use dashmap::DashMap;

pub use self::{
    bus::{Bus, Counts, Status},
    gap::{Gap, Watcher},
    local::Local,
    nats::Nats,
    outgoing::MaxWaiting,
    postgres::Postgres,
    relay::{Options, Relay},
};
use self::{gap::Watchers, interest::Interest, outgoing::Outgoing, topic::Topic};
use crate::protocol::Broadcast;

/// Names one subscription on this node; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriberId(pub u64);

impl SubscriberId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Names one life of a process on the bus: random, never reused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub Arc<str>);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a message is to those who order and repair: part of a log, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Records of the topic's log, gapless from `first` to `last`. Whoever misses them reads them in the log.
    Logged {
        /// The seq of the first record.
        first: u64,
        /// The seq of the last record.
        last: u64,
    },
    /// The topic's log reaches at least `last`: whoever holds less reads it. Nothing is shown. Stays on this node.
    Head {
        /// The seq of a record that exists.
        last: u64,
    },
    /// Nobody can read it again.
    Ephemeral,
    /// A change of who is there. Whoever misses one needs the whole state. Stays on this node.
    Presence,
    /// The channels on this topic end.
    Control(Control),
}

/// How the channels on a topic end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// For good, on every node, with `phx_close`; the broadcast is shown before it if its event is not empty.
    Close,
    /// As [`Control::Close`], but only those that show this log of the topic's: it is gone. Each node is told by other
    /// means, so it stays on this one.
    Deleted(LogId),
    /// With `phx_error`, so that clients rejoin: what they were shown is no longer what the log says. Each node finds
    /// that out for itself, so it stays on this one.
    Restart,
}

/// Names one of the logs that a topic has had: a digest, the same on every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogId(u64);

impl LogId {
    /// The log of this name.
    pub fn of(name: &str) -> Self {
        // FNV-1a: names are random already, so that what counts is that it never changes.
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(name.bytes().fold(0xcbf2_9ce4_8422_2325, mix))
    }
}

/// A message on its way to the subscribers of a topic.
#[derive(Debug)]
pub struct Published {
    /// What it is.
    pub kind: Kind,
    /// The subscription that is left out, for messages that do not go back to their sender. Without effect on
    /// [`Kind::Logged`], [`Kind::Head`] and [`Kind::Control`], which concern everybody.
    pub from: Option<SubscriberId>,
    /// What is shown.
    pub broadcast: Broadcast,
}

/// Takes messages.
pub trait Subscriber: Send + Sync {
    /// Takes one message. Called under the topic's lock: must not wait, and must not subscribe, publish or drop a
    /// [`Subscription`] on the same topic.
    fn deliver(&self, message: &Arc<Published>);
}

/// Takes what other nodes say to this one, by the name of what they speak of.
pub trait Receiver: Send + Sync {
    /// Takes one message. Called by the task that receives for the whole node: must not wait. Messages of one sender
    /// come in its order, those to all nodes and those to this one each for themselves; whether some are missing is for
    /// [`Watcher`]s.
    fn receive(&self, from: &NodeId, body: Bytes);
}

/// The topics of this node and who listens to them, and the way to the other nodes. Clones share them.
#[derive(Clone, Default)]
pub struct PubSub {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    topics: DashMap<Arc<str>, Arc<Topic>>,
    receivers: DashMap<Arc<str>, Weak<dyn Receiver>>,
    watchers: Watchers,
    interest: Interest,
    /// What waits for the bus; nothing where this node is alone.
    outgoing: Option<Arc<Outgoing>>,
}

impl PubSub {
    /// A node with no subscribers yet that is alone.
    pub fn new() -> Self {
        Self::default()
    }

    /// A node with no subscribers yet among others on `bus`, and the task that keeps the connection: it tries for ever.
    /// To be called inside a tokio runtime.
    pub fn start(bus: Arc<dyn Bus>, options: Options) -> (Self, Relay) {
        let outgoing = Arc::new(Outgoing::new(options.scope.clone(), options.max_waiting));
        let pubsub = Self { inner: Arc::new(Inner { outgoing: Some(outgoing.clone()), ..Inner::default() }) };
        let relay = Relay::start(pubsub.clone(), bus, outgoing);
        (pubsub, relay)
    }

    /// Hands every message that is published on `topic` from now on to `subscriber`, until the subscription is
    /// dropped. Once the drop has returned nothing more is delivered. Other nodes' messages follow within a moment:
    /// watchers are told of the topic then ([`Gap::Topics`]).
    pub fn subscribe(&self, topic: &str, subscriber: Arc<dyn Subscriber>) -> Subscription {
        let id = SubscriberId::next();
        let mut waiting = subscriber;
        loop {
            let entry = self.open(topic);
            match entry.add(id, waiting) {
                Ok(slot) => return Subscription { id, slot, topic: entry, pubsub: self.clone() },
                // It was emptied between the two steps; whoever did so is about to take it off the map.
                Err(refused) => {
                    waiting = refused;
                    self.forget(&entry);
                }
            }
        }
    }

    /// Hands `message` to all subscribers of `topic` on this node, in this call, and to the bus what concerns others.
    /// Never waits: what the bus cannot take in time becomes a hint or a gap. How many subscribers there were here.
    pub fn publish(&self, topic: &str, message: Published) -> usize {
        let message = Arc::new(message);
        let here = self.deliver(topic, &message);
        if let Some(outgoing) = &self.inner.outgoing {
            outgoing.offer(&message);
        }
        here
    }

    /// Hands a message to the subscribers of this node only.
    fn deliver(&self, topic: &str, message: &Arc<Published>) -> usize {
        self.find(topic).map_or(0, |entry| entry.deliver(message))
    }

    /// Says to those who hold less of the topic's log than up to `last` that there is more.
    pub fn hint(&self, topic: &str, last: u64) {
        if let Some(entry) = self.find(topic) {
            let broadcast = Broadcast::new(topic, "", crate::protocol::Payload::empty());
            entry.deliver(&Arc::new(Published { kind: Kind::Head { last }, from: None, broadcast }));
        }
    }

    /// Says `body` to the [`Receiver`] of `name` on every other node. Never waits; what does not fit is left out, and
    /// the others' watchers learn of it. Without effect where this node is alone.
    pub fn publish_to_all(&self, name: &str, body: Bytes) {
        if let Some(outgoing) = &self.inner.outgoing {
            outgoing.say(None, name, body);
        }
    }

    /// As [`PubSub::publish_to_all`], to one other node.
    pub fn publish_to(&self, node: &NodeId, name: &str, body: Bytes) {
        if let Some(outgoing) = &self.inner.outgoing {
            outgoing.say(Some(node), name, body);
        }
    }

    /// Hands what other nodes say under `name` to `receiver`, as long as somebody else keeps it. A second receiver of
    /// one name takes the first one's place.
    pub fn receive(&self, name: &str, receiver: &Arc<dyn Receiver>) {
        self.inner.receivers.insert(name.into(), Arc::downgrade(receiver));
    }

    /// Tells `watcher` of every gap from now on, as long as somebody else keeps it.
    pub fn watch(&self, watcher: &Arc<dyn Watcher>) {
        self.inner.watchers.add(watcher);
    }

    /// This node as the others know it; nothing where it is alone.
    pub fn node(&self) -> Option<&NodeId> {
        self.inner.outgoing.as_deref().map(Outgoing::node)
    }

    /// How the bus is.
    pub fn status(&self) -> Status {
        self.inner.outgoing.as_ref().map_or(Status::Alone, |outgoing| outgoing.status())
    }

    /// What went over the bus so far.
    pub fn counts(&self) -> Counts {
        self.inner.outgoing.as_ref().map_or_else(Counts::default, |outgoing| outgoing.counts())
    }

    /// Whether anybody may want records of `topic`: a subscriber here, or other nodes that share the log.
    pub fn wants_log(&self, topic: &str) -> bool {
        self.inner.outgoing.as_ref().is_some_and(|outgoing| outgoing.shares_log()) || self.subscribers(topic) > 0
    }

    /// The highest seq that was published on `topic` here since it has subscribers; 0 if none was.
    pub fn delivered(&self, topic: &str) -> u64 {
        self.find(topic).map_or(0, |entry| entry.delivered())
    }

    /// How many subscribers `topic` has on this node.
    pub fn subscribers(&self, topic: &str) -> usize {
        self.find(topic).map_or(0, |entry| entry.len())
    }

    /// How many topics have subscribers on this node.
    pub fn topics(&self) -> usize {
        self.inner.topics.len()
    }

    /// The topics that have subscribers on this node at this moment.
    pub fn topic_names(&self) -> Vec<Arc<str>> {
        self.inner.topics.iter().map(|entry| Arc::clone(entry.key())).collect()
    }

    fn find(&self, topic: &str) -> Option<Arc<Topic>> {
        self.inner.topics.get(topic).map(|entry| Arc::clone(&entry))
    }

    fn open(&self, topic: &str) -> Arc<Topic> {
        if let Some(entry) = self.find(topic) {
            return entry;
        }
        let name: Arc<str> = topic.into();
        let entry = self.inner.topics.entry(Arc::clone(&name));
        let entry = Arc::clone(&entry.or_insert_with(|| Arc::new(Topic::new(Arc::clone(&name)))));
        self.inner.interest.touch(&name);
        entry
    }

    /// Takes `gone` off the map, unless a new one has its place already.
    fn forget(&self, gone: &Arc<Topic>) {
        if self.inner.topics.remove_if(gone.name(), |_, there| Arc::ptr_eq(there, gone)).is_some() {
            self.inner.interest.touch(gone.name());
        }
    }
}

/// A place among the subscribers of a topic; dropping it gives it up.
pub struct Subscription {
    id: SubscriberId,
    slot: usize,
    topic: Arc<Topic>,
    pubsub: PubSub,
}

impl Subscription {
    /// Its name on this node, for messages that leave it out.
    pub fn id(&self) -> SubscriberId {
        self.id
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if self.topic.remove(self.slot) {
            self.pubsub.forget(&self.topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::protocol::Payload;

    #[derive(Default)]
    struct Seen(Mutex<Vec<String>>);

    impl Subscriber for Seen {
        fn deliver(&self, message: &Arc<Published>) {
            self.0.lock().unwrap().push(message.broadcast.event().to_owned());
        }
    }

    fn message(event: &str) -> Published {
        let broadcast = Broadcast::new("t", event, Payload::empty());
        Published { kind: Kind::Ephemeral, from: None, broadcast }
    }

    #[test]
    fn subscribers_of_the_topic_and_no_others_get_a_message() {
        let pubsub = PubSub::new();
        let (one, two, other) = (Arc::new(Seen::default()), Arc::new(Seen::default()), Arc::new(Seen::default()));
        let first = pubsub.subscribe("t", one.clone());
        let second = pubsub.subscribe("t", two.clone());
        let _third = pubsub.subscribe("u", other.clone());
        assert_ne!(first.id(), second.id());
        assert_eq!(pubsub.publish("t", message("a")), 2);
        drop(first);
        assert_eq!(pubsub.publish("t", message("b")), 1);
        assert_eq!(pubsub.publish("nobody", message("c")), 0);
        assert_eq!(*one.0.lock().unwrap(), ["a"]);
        assert_eq!(*two.0.lock().unwrap(), ["a", "b"]);
        assert!(other.0.lock().unwrap().is_empty());
    }

    #[test]
    fn the_last_to_leave_takes_the_topic_away() {
        let pubsub = PubSub::new();
        let one = pubsub.subscribe("t", Arc::new(Seen::default()));
        let two = pubsub.subscribe("t", Arc::new(Seen::default()));
        assert_eq!((pubsub.subscribers("t"), pubsub.topics()), (2, 1));
        drop(one);
        assert_eq!((pubsub.subscribers("t"), pubsub.topics()), (1, 1));
        drop(two);
        assert_eq!((pubsub.subscribers("t"), pubsub.topics()), (0, 0));
    }

    #[test]
    fn j93_publishers_that_race_are_seen_in_one_order() {
        let pubsub = PubSub::new();
        let seen: Vec<_> = (0..3).map(|_| Arc::new(Seen::default())).collect();
        let _kept: Vec<_> = seen.iter().map(|seen| pubsub.subscribe("t", seen.clone())).collect();
        std::thread::scope(|scope| {
            for publisher in 0..4 {
                let pubsub = &pubsub;
                scope.spawn(move || {
                    (0..250).for_each(|n| _ = pubsub.publish("t", message(&format!("{publisher}:{n}"))))
                });
            }
        });
        let orders: Vec<_> = seen.iter().map(|seen| seen.0.lock().unwrap().clone()).collect();
        assert_eq!(orders[0].len(), 1_000);
        assert!(orders.iter().all(|order| *order == orders[0]));
    }

    #[test]
    fn subscribing_while_the_topic_is_taken_away_loses_nobody() {
        let pubsub = PubSub::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let seen = Arc::new(Seen::default());
                        let subscription = pubsub.subscribe("t", seen.clone());
                        pubsub.publish("t", message("x"));
                        assert!(!seen.0.lock().unwrap().is_empty());
                        drop(subscription);
                    }
                });
            }
        });
        assert_eq!(pubsub.topics(), 0);
    }
}
