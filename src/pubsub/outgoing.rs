//! What waits to be sent to the other nodes.
//!
//! Knows no bus. Publishers put messages in and never wait; one task takes them out. Its invariant is its bound: when
//! too much waits, records of a log become one hint per topic, broadcasts are left out and counted, messages to nodes
//! become a gap of their name, and what even those would be too many of becomes one gap of everything.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::{
    Counts, Kind, NodeId, Published, Status,
    bus::Parcel,
    envelope::{self, Needs},
};
use crate::ids::Incarnation;

/// Topics that have a hint waiting, and names that have a gap waiting; beyond, everything has a gap.
const MAX_HINTS: usize = 16_384;
/// What is taken out at once, at most, beside the hints.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 1024 * 1024;
/// About what an envelope costs beside its payload.
const OVERHEAD: usize = 256;

/// How much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxWaiting {
    /// Messages.
    pub messages: usize,
    /// Their payloads, in bytes.
    pub bytes: usize,
}

impl Default for MaxWaiting {
    fn default() -> Self {
        Self { messages: 8_192, bytes: 16 * 1024 * 1024 }
    }
}

enum Item {
    Publish(Arc<Published>),
    Say { to: Option<NodeId>, name: Arc<str>, body: Bytes },
}

impl Item {
    fn size(&self) -> usize {
        OVERHEAD
            + match self {
                Self::Publish(message) => message.broadcast.payload().len(),
                Self::Say { body, .. } => body.len(),
            }
    }
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    bytes: usize,
    /// The newest head of topics whose records did not fit.
    heads: HashMap<Arc<str>, u64>,
    /// Names under which something did not fit.
    gaps: HashSet<Arc<str>>,
    /// The others cannot know what they miss.
    gap: bool,
    number: u64,
    counts: Counts,
}

/// The queue, and what the rest of this node asks of its bus.
pub(super) struct Outgoing {
    node: NodeId,
    /// Which log this node's records belong to, if others share it.
    scope: Option<Arc<str>>,
    limits: MaxWaiting,
    waiting: Mutex<Waiting>,
    bell: Notify,
    status: watch::Sender<Status>,
}

impl Outgoing {
    pub(super) fn new(scope: Option<Arc<str>>, limits: MaxWaiting) -> Self {
        let node = NodeId(Incarnation::mint().0.into());
        let (waiting, bell) = (Mutex::default(), Notify::new());
        Self { node, scope, limits, waiting, bell, status: watch::Sender::new(Status::Away) }
    }

    pub(super) fn node(&self) -> &NodeId {
        &self.node
    }

    pub(super) fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    pub(super) fn shares_log(&self) -> bool {
        self.scope.is_some()
    }

    pub(super) fn status(&self) -> Status {
        *self.status.borrow()
    }

    pub(super) fn set_status(&self, status: Status) {
        self.status.send_replace(status);
    }

    /// Follows the status.
    pub(super) fn follow_status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    pub(super) fn counts(&self) -> Counts {
        self.lock().counts
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.lock().counts);
    }

    /// Puts a message in, if it concerns others.
    pub(super) fn offer(&self, message: &Arc<Published>) {
        match envelope::concerns_others(message.kind) {
            Some(Needs::SharedLog) if self.shares_log() => {}
            Some(Needs::Nothing) => {}
            _ => return,
        }
        let mut waiting = self.lock();
        if let Some(refused) = waiting.put(Item::Publish(Arc::clone(message)), self.limits) {
            waiting.collapse(&refused);
        }
        drop(waiting);
        self.bell.notify_one();
    }

    /// Puts a message to another node, or to all, in.
    pub(super) fn say(&self, to: Option<&NodeId>, name: &str, body: Bytes) {
        let item = Item::Say { to: to.cloned(), name: name.into(), body };
        let mut waiting = self.lock();
        if let Some(refused) = waiting.put(item, self.limits) {
            waiting.collapse(&refused);
        }
        drop(waiting);
        self.bell.notify_one();
    }

    /// The others may miss what was sent before.
    pub(super) fn mark_gap(&self) {
        self.lock().gap = true;
        self.bell.notify_one();
    }

    /// The next batch, once there is one; in the order in which it was put in, then hints and gaps. Cancel
    /// safe.
    pub(super) async fn take(&self) -> Vec<Parcel> {
        loop {
            let rung = self.bell.notified();
            let batch = self.try_take();
            if !batch.is_empty() {
                return batch;
            }
            rung.await;
        }
    }

    /// The next batch; empty if nothing waits.
    pub(super) fn try_take(&self) -> Vec<Parcel> {
        let mut waiting = self.lock();
        let (mut items, mut bytes) = (Vec::new(), 0);
        while items.len() < BATCH
            && bytes < BATCH_BYTES
            && let Some(item) = waiting.items.pop_front()
        {
            bytes += item.size();
            waiting.number += 1;
            items.push((waiting.number, item));
        }
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
        let mut rest = waiting.rest(self.scope());
        drop(waiting);
        // Written outside the lock: publishers do not wait for it.
        let mut parcels: Vec<Parcel> = items.into_iter().map(|(number, item)| self.write(number, &item)).collect();
        parcels.append(&mut rest);
        parcels
    }

    fn write(&self, number: u64, item: &Item) -> Parcel {
        match item {
            Item::Publish(message) => envelope::publish(number, self.scope(), message),
            Item::Say { to, name, body } => envelope::say(number, to.as_ref(), name, body),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// The item back, if it does not fit. The end of a topic fits where nothing else does.
    fn put(&mut self, item: Item, limits: MaxWaiting) -> Option<Item> {
        let ends = matches!(&item, Item::Publish(message) if matches!(message.kind, Kind::Control(_)));
        let share = if ends { 2 } else { 1 };
        let size = item.size();
        if self.items.len() >= limits.messages * share || self.bytes + size > limits.bytes * share {
            return Some(item);
        }
        self.bytes += size;
        self.items.push_back(item);
        None
    }

    /// What did not fit leaves as little as tells the others that they miss it.
    fn collapse(&mut self, refused: &Item) {
        match refused {
            Item::Publish(message) => match message.kind {
                Kind::Logged { last, .. } => {
                    self.counts.hinted += 1;
                    let topic = message.broadcast.topic();
                    if let Some(head) = self.heads.get_mut(topic) {
                        *head = last.max(*head);
                    } else if self.heads.len() < MAX_HINTS {
                        self.heads.insert(topic.into(), last);
                    } else {
                        self.gap = true;
                    }
                }
                Kind::Control(_) => self.gap = true,
                Kind::Ephemeral | Kind::Presence | Kind::Head { .. } => self.counts.dropped += 1,
            },
            Item::Say { name, .. } => {
                self.counts.dropped += 1;
                if self.gaps.len() < MAX_HINTS || self.gaps.contains(name) {
                    self.gaps.insert(Arc::clone(name));
                } else {
                    self.gap = true;
                }
            }
        }
    }

    /// Gaps, and as many hints as a batch has.
    fn rest(&mut self, scope: Option<&str>) -> Vec<Parcel> {
        let mut parcels = Vec::new();
        if std::mem::take(&mut self.gap) {
            self.number += 1;
            parcels.push(envelope::gap(self.number, None));
            // It says all that these would.
            self.heads = HashMap::new();
            self.gaps = HashSet::new();
        }
        for name in std::mem::take(&mut self.gaps) {
            self.number += 1;
            parcels.push(envelope::gap(self.number, Some(&name)));
        }
        let topics: Vec<_> = self.heads.keys().take(BATCH).cloned().collect();
        for topic in topics {
            if let Some(last) = self.heads.remove(&topic) {
                self.number += 1;
                parcels.push(envelope::head(self.number, scope, &topic, last));
            }
        }
        parcels
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        protocol::{Broadcast, Payload},
        pubsub::{
            Control,
            envelope::{Content, Envelope},
        },
    };

    const FEW: MaxWaiting = MaxWaiting { messages: 3, bytes: 1 << 20 };

    fn outgoing(limits: MaxWaiting) -> Outgoing {
        Outgoing::new(Some("s".into()), limits)
    }

    fn message(topic: &str, kind: Kind) -> Arc<Published> {
        Arc::new(Published { kind, from: None, broadcast: Broadcast::new(topic, "e", Payload::empty()) })
    }

    fn logged(topic: &str, seq: u64) -> Arc<Published> {
        message(topic, Kind::Logged { first: seq, last: seq })
    }

    fn contents(outgoing: &Outgoing) -> Vec<Content> {
        let mut all = Vec::new();
        loop {
            let batch = outgoing.try_take();
            if batch.is_empty() {
                return all;
            }
            let texts = batch.iter().map(|parcel| parcel.text.as_str());
            let (_, envelopes, _) = envelope::read(envelope::frame(outgoing.node(), texts).as_bytes()).unwrap();
            all.extend(envelopes.into_iter().map(|Envelope { content, .. }| content));
        }
    }

    fn heads(contents: &[Content]) -> Vec<(String, u64)> {
        let head = |content: &Content| match content {
            Content::Publish { message, .. } => match message.kind {
                Kind::Head { last } => Some((message.broadcast.topic().to_owned(), last)),
                _ => None,
            },
            _ => None,
        };
        let mut heads: Vec<_> = contents.iter().filter_map(head).collect();
        heads.sort();
        heads
    }

    #[test]
    fn records_that_do_not_fit_become_one_hint_per_topic() {
        let outgoing = outgoing(FEW);
        (1..=10).for_each(|seq| outgoing.offer(&logged("a", seq)));
        (1..=5).for_each(|seq| outgoing.offer(&logged("b", seq)));
        let contents = contents(&outgoing);
        assert_eq!(contents.len(), 3 + 2);
        assert_eq!(heads(&contents), [("a".to_owned(), 10), ("b".to_owned(), 5)]);
        assert_eq!(outgoing.counts().hinted, 12);
    }

    #[test]
    fn broadcasts_that_do_not_fit_are_counted_and_messages_to_nodes_leave_a_gap() {
        let outgoing = outgoing(FEW);
        (0..5).for_each(|_| outgoing.offer(&message("a", Kind::Ephemeral)));
        (0..4).for_each(|_| outgoing.say(None, "presence", Bytes::new()));
        let contents = contents(&outgoing);
        assert_eq!(outgoing.counts().dropped, 6);
        let gaps = contents.iter().filter(|content| matches!(content, Content::Gap { name: Some(_) }));
        assert_eq!((contents.len(), gaps.count()), (4, 1));
    }

    #[test]
    fn the_end_of_a_topic_fits_where_nothing_else_does_and_is_never_lost_in_silence() {
        let outgoing = outgoing(FEW);
        (1..=9).for_each(|seq| outgoing.offer(&logged("a", seq)));
        (0..4).for_each(|_| outgoing.offer(&message("a", Kind::Control(Control::Close))));
        let contents = contents(&outgoing);
        let is_end = |content: &&Content| matches!(content, Content::Publish { message, .. } if matches!(message.kind, Kind::Control(_)));
        assert_eq!(contents.iter().filter(is_end).count(), 3);
        assert!(contents.iter().any(|content| matches!(content, Content::Gap { name: None })));
    }

    #[test]
    fn a_million_topics_cost_as_much_as_the_limit() {
        let outgoing = outgoing(FEW);
        (0..MAX_HINTS + 1_000).for_each(|n| outgoing.offer(&logged(&format!("t{n}"), 1)));
        let contents = contents(&outgoing);
        assert_eq!(contents.len(), 4, "three that fit, and a gap of everything");
        assert!(matches!(contents[3], Content::Gap { name: None }));
    }

    #[test]
    fn bytes_count_too() {
        let outgoing = outgoing(MaxWaiting { messages: 1_000, bytes: 3 * OVERHEAD });
        (1..=10).for_each(|seq| outgoing.offer(&logged("a", seq)));
        assert_eq!(contents(&outgoing).len(), 2 + 1);
    }

    #[test]
    fn what_concerns_nobody_else_is_not_taken() {
        let alone = Outgoing::new(None, FEW);
        alone.offer(&logged("a", 1));
        alone.offer(&message("a", Kind::Control(Control::Close)));
        assert!(contents(&alone).is_empty(), "nobody shares the log");
        alone.offer(&message("a", Kind::Ephemeral));
        assert_eq!(contents(&alone).len(), 1);
        let outgoing = outgoing(FEW);
        for kind in [Kind::Presence, Kind::Head { last: 1 }, Kind::Control(Control::Restart)] {
            outgoing.offer(&message("a", kind));
        }
        assert!(contents(&outgoing).is_empty());
    }
}
