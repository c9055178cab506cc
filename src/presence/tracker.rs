//! Keeps the presence of all topics on this node and publishes each change.
//!
//! A topic's change and its publication happen under the topic's one short lock, so that everybody sees the changes in
//! the order in which they happened.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use dashmap::DashMap;
use serde_json::{Map, Value};

use super::state::State;
use crate::{
    ids,
    protocol::{Broadcast, Payload},
    pubsub::{Kind, PubSub, Published},
};

/// Presence of all topics. Cheap to clone.
#[derive(Clone)]
pub struct Tracker {
    inner: Arc<Inner>,
}

struct Inner {
    pubsub: PubSub,
    topics: DashMap<Arc<str>, Arc<Mutex<Topic>>>,
    /// Random at each start, so that no `phx_ref` is used twice.
    prefix: String,
    next: AtomicU64,
}

#[derive(Default)]
struct Topic {
    state: State,
    /// The state as it is sent; made when it is asked for, thrown away by a change.
    encoded: Option<Payload>,
    /// It was empty and is off the map: whoever holds it must look for the one that took its place.
    gone: bool,
}

/// A presence that lasts until this is dropped.
pub struct Tracked {
    tracker: Tracker,
    topic: Arc<str>,
    key: String,
    phx_ref: Mutex<String>,
}

impl Tracker {
    /// Nobody is anywhere yet.
    pub fn new(pubsub: PubSub) -> Self {
        let inner = Inner { pubsub, topics: DashMap::new(), prefix: ids::short(), next: AtomicU64::new(0) };
        Self { inner: Arc::new(inner) }
    }

    /// Shows `fields` under `key` on `topic`, and tells everybody there.
    pub fn track(&self, topic: &str, key: &str, fields: &Map<String, Value>) -> Tracked {
        let topic: Arc<str> = topic.into();
        let phx_ref = self.next_ref();
        self.change(&topic, |state| Some(state.join(key, &phx_ref, fields)));
        Tracked { tracker: self.clone(), topic, key: key.to_owned(), phx_ref: Mutex::new(phx_ref) }
    }

    /// Who is on a topic, as `presence_state` sends it. Encoded once per change.
    pub fn state(&self, topic: &str) -> Payload {
        let Some(entry) = self.inner.topics.get(topic).map(|entry| Arc::clone(&entry)) else {
            return Payload::empty();
        };
        let mut entry = entry.lock().unwrap_or_else(PoisonError::into_inner);
        let Topic { state, encoded, .. } = &mut *entry;
        encoded.get_or_insert_with(|| Payload::raw(state.encode())).clone()
    }

    fn next_ref(&self) -> String {
        format!("{}{:x}", self.inner.prefix, self.inner.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Changes a topic's state and publishes the diff, both under its lock.
    fn change(&self, topic: &Arc<str>, mut change: impl FnMut(&mut State) -> Option<String>) {
        loop {
            let entry = Arc::clone(&self.inner.topics.entry(topic.clone()).or_default());
            let mut entry = entry.lock().unwrap_or_else(PoisonError::into_inner);
            if entry.gone {
                continue;
            }
            let diff = change(&mut entry.state);
            entry.encoded = None;
            entry.gone = entry.state.is_empty();
            if let Some(diff) = diff {
                let broadcast = Broadcast::new(topic.clone(), "presence_diff", Payload::raw(diff));
                self.inner.pubsub.publish(topic, Published { kind: Kind::Presence, from: None, broadcast });
            }
            let gone = entry.gone;
            drop(entry);
            if gone {
                self.inner
                    .topics
                    .remove_if(topic, |_, topic| topic.lock().unwrap_or_else(PoisonError::into_inner).gone);
            }
            return;
        }
    }
}

impl Tracked {
    /// Replaces what is shown.
    pub fn update(&self, fields: &Map<String, Value>) {
        let mut phx_ref = self.phx_ref.lock().unwrap_or_else(PoisonError::into_inner);
        let new = self.tracker.next_ref();
        self.tracker.change(&self.topic, |state| state.update(&self.key, &phx_ref, &new, fields));
        *phx_ref = new;
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let phx_ref = self.phx_ref.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.tracker.change(&self.topic, |state| state.leave(&self.key, &phx_ref));
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_topic_is_forgotten_with_its_last_presence_and_comes_back_with_the_next() {
        let tracker = Tracker::new(PubSub::new());
        for _ in 0..3 {
            let tracked = tracker.track("t", "u", &Map::new());
            assert!(tracker.state("t").as_json().unwrap().contains("\"u\""));
            drop(tracked);
            assert_eq!(tracker.state("t").as_json(), Some("{}"));
            assert!(tracker.inner.topics.is_empty());
        }
    }

    #[test]
    fn i18_presences_that_come_and_go_at_once_leave_nothing_behind() {
        let tracker = Tracker::new(PubSub::new());
        thread::scope(|scope| {
            for user in 0..8 {
                let tracker = &tracker;
                scope.spawn(move || {
                    for _ in 0..500 {
                        let tracked = tracker.track("t", &user.to_string(), &Map::new());
                        tracked.update(&Map::from_iter([("a".to_owned(), 1.into())]));
                    }
                });
            }
        });
        assert_eq!(tracker.state("t").as_json(), Some("{}"));
        assert!(tracker.inner.topics.is_empty());
    }
}
