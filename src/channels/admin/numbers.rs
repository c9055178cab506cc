//! How busy each node is: each counts for itself, and tells a node that asks.
//!
//! A node on which somebody looks asks the others once a second, over the bus, and each answers it alone; where nobody
//! looks nobody says anything. What they tell are totals and their own time, so that a rate is right however late an
//! answer comes. Its invariant: what a node has not told for a while is not shown.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    channel::Host,
    ids::Incarnation,
    pubsub::{NodeId, Receiver},
    session::Sessions,
};

/// How long what a node has told is shown.
const STALE: Duration = Duration::from_secs(5);
/// Two tellings that are closer to each other make no rate.
const APART_MS: u64 = 200;
/// Nodes that are heard at most.
const MOST: usize = 1_000;

/// What nodes say to each other.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Say {
    Ask,
    Tell(Totals),
}

/// What has happened on a node since it started.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Totals {
    incarnation: Incarnation,
    /// Milliseconds since it started.
    at_ms: u64,
    channels: u64,
    deliveries: u64,
    events: u64,
    joins: u64,
}

/// How busy a node is, a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Rates {
    channels: u64,
    deliveries_per_second: f64,
    events_per_second: f64,
    joins_per_second: f64,
}

#[derive(Debug)]
struct Heard {
    totals: Totals,
    rates: Option<Rates>,
    when: Instant,
}

/// See the module.
pub(super) struct Numbers {
    /// Under which nodes that share the store hear each other; nobody else does.
    name: String,
    sessions: Sessions,
    host: Host,
    started: Instant,
    heard: Mutex<HashMap<Incarnation, Heard>>,
}

impl Numbers {
    /// Of this node, and of those that share the store that `scope` names.
    pub(super) fn start(sessions: Sessions, host: Host, scope: Option<&str>) -> Arc<Self> {
        let name = format!("admin.numbers/{}", scope.unwrap_or_default());
        let numbers = Arc::new(Self { name, sessions, host, started: Instant::now(), heard: Mutex::default() });
        if scope.is_some() {
            let receiver: Arc<dyn Receiver> = numbers.clone();
            numbers.host.pubsub().receive(&numbers.name, &receiver);
        }
        numbers
    }

    /// Has every node count, this one at once.
    pub(super) fn ask(&self) {
        self.take(self.totals(), Instant::now());
        self.host.pubsub().publish_to_all(&self.name, body(&Say::Ask));
    }

    /// Forgets what was told: nobody looks any more.
    pub(super) fn forget(&self) {
        self.heard().clear();
    }

    /// How busy a node is, if it has told lately.
    pub(super) fn of(&self, node: &Incarnation) -> Option<Rates> {
        let heard = self.heard();
        heard.get(node).filter(|heard| heard.when.elapsed() < STALE).and_then(|heard| heard.rates)
    }

    fn totals(&self) -> Totals {
        let (counts, tally) = (self.host.counts(), self.sessions.tally());
        Totals {
            incarnation: self.sessions.owner().incarnation,
            at_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            channels: counts.channels,
            deliveries: counts.deliveries,
            events: tally.events.get(),
            joins: tally.join.read().count,
        }
    }

    fn take(&self, totals: Totals, now: Instant) {
        let mut heard = self.heard();
        heard.retain(|_, heard| now.saturating_duration_since(heard.when) < STALE);
        let has_room = heard.len() < MOST;
        match heard.get_mut(&totals.incarnation) {
            Some(known) if totals.at_ms < known.totals.at_ms.saturating_add(APART_MS) => {}
            Some(known) => {
                known.rates = Some(rates(&known.totals, &totals));
                (known.totals, known.when) = (totals, now);
            }
            None if has_room => {
                heard.insert(totals.incarnation.clone(), Heard { totals, rates: None, when: now });
            }
            None => {}
        }
    }

    fn heard(&self) -> MutexGuard<'_, HashMap<Incarnation, Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Receiver for Numbers {
    fn receive(&self, from: &NodeId, body: Bytes) {
        match serde_json::from_slice(&body) {
            Ok(Say::Ask) => self.host.pubsub().publish_to(from, &self.name, self::body(&Say::Tell(self.totals()))),
            Ok(Say::Tell(totals)) => self.take(totals, Instant::now()),
            Err(error) => tracing::debug!(%error, "another version says something of its numbers"),
        }
    }
}

fn body(say: &Say) -> Bytes {
    serde_json::to_vec(say).unwrap_or_default().into()
}

fn rates(before: &Totals, now: &Totals) -> Rates {
    let seconds = now.at_ms.saturating_sub(before.at_ms).max(1) as f64 / 1_000.0;
    let rate = |before: u64, now: u64| (now.saturating_sub(before) as f64 / seconds * 10.0).round() / 10.0;
    Rates {
        channels: now.channels,
        deliveries_per_second: rate(before.deliveries, now.deliveries),
        events_per_second: rate(before.events, now.events),
        joins_per_second: rate(before.joins, now.joins),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(at_ms: u64, deliveries: u64) -> Totals {
        let incarnation = Incarnation("a".to_owned());
        Totals { incarnation, at_ms, channels: 7, deliveries, events: deliveries / 2, joins: 0 }
    }

    #[test]
    fn a_rate_is_what_has_happened_between_two_tellings_by_the_clock_of_the_node() {
        let rates = rates(&totals(1_000, 100), &totals(3_000, 300));
        assert_eq!((rates.deliveries_per_second, rates.events_per_second, rates.joins_per_second), (100.0, 50.0, 0.0));
        assert_eq!(rates.channels, 7);
    }

    #[test]
    fn nodes_understand_each_other() {
        let tell = body(&Say::Tell(totals(5, 6)));
        let Ok(Say::Tell(read)) = serde_json::from_slice(&tell) else { panic!("{tell:?}") };
        assert_eq!((read.at_ms, read.deliveries), (5, 6));
        assert!(matches!(serde_json::from_slice(&body(&Say::Ask)), Ok(Say::Ask)));
    }
}
