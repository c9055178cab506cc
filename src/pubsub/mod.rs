//! Publishing to everybody who is subscribed to a topic on this node.
//!
//! Knows no session, no channel and no connection: a [`Subscriber`] takes a message and must not wait. Its invariant:
//! all subscribers of a topic see its messages in one order, that of the calls to [`PubSub::publish`], because each
//! call hands its message to everybody under the topic's lock, in the publisher's own context.

mod topic;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use dashmap::DashMap;

use crate::protocol::Broadcast;
use topic::Topic;

/// Names one subscription on this node; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriberId(pub u64);

impl SubscriberId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
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
    /// Nobody can read it again.
    Ephemeral,
    /// A change of who is there. Whoever misses one needs the whole state.
    Presence,
    /// The channels on this topic end.
    Control(Control),
}

/// How the channels on a topic end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// For good, with `phx_close`; the broadcast is shown before it if its event is not empty.
    Close,
    /// With `phx_error`, so that clients rejoin: what they were shown is no longer what the log says.
    Restart,
}

/// A message on its way to the subscribers of a topic.
#[derive(Debug)]
pub struct Published {
    /// What it is.
    pub kind: Kind,
    /// The subscription that is left out, for messages that do not go back to their sender. Without effect on
    /// [`Kind::Logged`] and [`Kind::Control`], which concern everybody.
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

/// The topics of this node and who listens to them. Clones share them.
#[derive(Clone, Default)]
pub struct PubSub {
    topics: Arc<DashMap<Arc<str>, Arc<Topic>>>,
}

impl PubSub {
    /// A node with no subscribers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Hands every message that is published on `topic` from now on to `subscriber`, until the subscription is
    /// dropped. Once the drop has returned nothing more is delivered.
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

    /// Hands `message` to all subscribers of `topic`, in this call. How many there were.
    pub fn publish(&self, topic: &str, message: Published) -> usize {
        self.find(topic).map_or(0, |entry| entry.deliver(&Arc::new(message)))
    }

    /// How many subscribers `topic` has.
    pub fn subscribers(&self, topic: &str) -> usize {
        self.find(topic).map_or(0, |entry| entry.len())
    }

    /// How many topics have subscribers.
    pub fn topics(&self) -> usize {
        self.topics.len()
    }

    /// The topics that have subscribers at this moment.
    pub fn topic_names(&self) -> Vec<Arc<str>> {
        self.topics.iter().map(|entry| Arc::clone(entry.key())).collect()
    }

    fn find(&self, topic: &str) -> Option<Arc<Topic>> {
        self.topics.get(topic).map(|entry| Arc::clone(&entry))
    }

    fn open(&self, topic: &str) -> Arc<Topic> {
        if let Some(entry) = self.find(topic) {
            return entry;
        }
        let name: Arc<str> = topic.into();
        Arc::clone(&self.topics.entry(Arc::clone(&name)).or_insert_with(|| Arc::new(Topic::new(name))))
    }

    /// Takes `gone` off the map, unless a new one has its place already.
    fn forget(&self, gone: &Arc<Topic>) {
        self.topics.remove_if(gone.name(), |_, there| Arc::ptr_eq(there, gone));
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
