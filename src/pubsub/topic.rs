//! The subscribers of one topic.
//!
//! Knows no other topic. Its invariant: adding, removing and delivering exclude each other, and once the last
//! subscriber is gone the topic takes no new one, so that it can be taken off the map without a race.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use super::{Kind, Published, Subscriber, SubscriberId};

pub(super) struct Topic {
    name: Arc<str>,
    members: Mutex<Members>,
    /// The highest seq of its log that was handed out here.
    delivered: AtomicU64,
}

/// Slots that are reused, so that coming and going cost the same however many are there.
#[derive(Default)]
struct Members {
    slots: Vec<Option<(SubscriberId, Arc<dyn Subscriber>)>>,
    free: Vec<usize>,
    closed: bool,
}

impl Topic {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self { name, members: Mutex::default(), delivered: AtomicU64::new(0) }
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The new subscriber's slot; the subscriber itself where the topic has emptied meanwhile.
    pub(super) fn add(&self, id: SubscriberId, subscriber: Arc<dyn Subscriber>) -> Result<usize, Arc<dyn Subscriber>> {
        let mut members = self.lock();
        if members.closed {
            return Err(subscriber);
        }
        let member = Some((id, subscriber));
        if let Some(slot) = members.free.pop() {
            members.slots[slot] = member;
            return Ok(slot);
        }
        members.slots.push(member);
        Ok(members.slots.len() - 1)
    }

    /// Whether the topic is empty now, and thereby closed.
    pub(super) fn remove(&self, slot: usize) -> bool {
        let mut members = self.lock();
        let gone = members.slots.get_mut(slot).and_then(Option::take);
        members.free.push(slot);
        members.closed = members.free.len() == members.slots.len();
        let closed = members.closed;
        drop(members);
        // A subscriber's own drop may do anything, so it happens outside the lock.
        drop(gone);
        closed
    }

    pub(super) fn deliver(&self, message: &Arc<Published>) -> usize {
        let skipped = match message.kind {
            Kind::Ephemeral | Kind::Presence => message.from,
            Kind::Logged { .. } | Kind::Head { .. } | Kind::Control(_) => None,
        };
        let members = self.lock();
        if let Kind::Logged { last, .. } | Kind::Head { last } = message.kind {
            self.delivered.fetch_max(last, Ordering::Relaxed);
        } else if let Kind::Control(_) = message.kind {
            // Those who come back begin anew, perhaps with another log.
            self.delivered.store(0, Ordering::Relaxed);
        }
        let wanted = members.slots.iter().flatten().filter(|(id, _)| Some(*id) != skipped);
        wanted.inspect(|(_, subscriber)| subscriber.deliver(message)).count()
    }

    pub(super) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    pub(super) fn len(&self) -> usize {
        let members = self.lock();
        members.slots.len() - members.free.len()
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
