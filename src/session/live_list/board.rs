//! What this node knows of the list of sessions, and in which order that has changed.
//!
//! Pure: no lock, no I/O, no clock. Every change has a number, and a session only has its newest one, so that whoever
//! is slow is told less and not more. Its invariant: who asks what has changed after a number that it holds is told
//! every session that is not as it was then, once, as it is now; or is told that too much was forgotten to say so.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
    sync::Arc,
};

use super::{Summary, TOPIC};
use crate::{
    protocol::{
        Broadcast, Payload,
        codes::event::{SESSION_CHANGED, SESSION_REMOVED},
    },
    session::topic_of,
};

/// Sessions that are known at once; those that have not changed for longest are forgotten.
const KEPT: usize = 10_000;
/// Changes that are handed out at once, and about how many bytes of them.
const PAGE: usize = 256;
const PAGE_BYTES: usize = 256 * 1024;
/// Numbers that one look may use: more than it can find sessions.
const LOOK: u64 = 1 << 20;

/// A session as it is now, or the news that it is gone, to be shown to those who may read it.
#[derive(Debug)]
pub struct Change {
    number: u64,
    session: Arc<str>,
    topic: String,
    broadcast: Broadcast,
}

impl Change {
    /// Its place among all changes.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The session's id.
    pub fn session(&self) -> &str {
        &self.session
    }

    /// The session's topic, which rights are about.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// What is pushed, encoded once for all.
    pub fn broadcast(&self) -> &Broadcast {
        &self.broadcast
    }
}

/// What has changed, as far as it fits.
#[derive(Debug, Default)]
pub struct Changes {
    /// In the order in which they happened.
    pub changes: Vec<Arc<Change>>,
    /// The number to ask with next.
    pub last: u64,
    /// Whether that is all.
    pub complete: bool,
}

/// Why a look was made, which decides what it tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Something is said to have changed. A `last_seq` that has moved alone waits for its round.
    Said,
    /// It was time to.
    Round,
}

/// The numbers of a look that is under way.
#[derive(Debug)]
pub(super) struct Look {
    next: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Board {
    entries: HashMap<Arc<str>, Entry>,
    /// Every entry by the number of its change.
    order: BTreeMap<u64, Arc<str>>,
    /// The highest number that was given away.
    given: u64,
    /// Changes up to this one may be handed out: none with a lower number will come.
    told: u64,
    /// Changes up to this one may be forgotten.
    floor: u64,
    looking: bool,
    /// Sessions whose `last_seq` has moved alone.
    late: HashSet<Arc<str>>,
}

#[derive(Debug)]
struct Entry {
    /// Nothing where the session is gone.
    shown: Option<Summary>,
    change: Arc<Change>,
}

impl Board {
    /// Begins a look. What it finds was read after this call; there is one at a time.
    pub(super) fn begin(&mut self) -> Look {
        let next = self.given + 1;
        self.given += LOOK;
        self.looking = true;
        Look { next }
    }

    /// A session as it was found.
    pub(super) fn found(&mut self, look: &mut Look, summary: Summary, why: Why) {
        match self.entries.get(summary.id()).and_then(|entry| entry.shown.as_ref()) {
            Some(shown) if *shown == summary => {}
            Some(shown) if why == Why::Said && shown.differs_in_place_only(&summary) => {
                self.late.insert(Arc::clone(summary.id()));
            }
            _ => self.put(look.take(), Arc::clone(summary.id()), Some(summary)),
        }
    }

    /// A session that was asked for and is not there.
    pub(super) fn missing(&mut self, look: &mut Look, session: Arc<str>) {
        if self.entries.get(&session).is_none_or(|entry| entry.shown.is_some()) {
            self.put(look.take(), session, None);
        }
    }

    /// Ends a look, whatever came of it. The number up to which may be told now, if there is anything new.
    pub(super) fn finish(&mut self) -> Option<u64> {
        self.looking = false;
        self.tell()
    }

    fn tell(&mut self) -> Option<u64> {
        let before = std::mem::replace(&mut self.told, self.given);
        self.order.range(before + 1..).next().map(|_| self.told)
    }

    /// Where a reader begins: every look that begins from now on is told to it.
    pub(super) fn position(&self) -> u64 {
        self.given
    }

    /// Takes in what a reader was given, so that it is watched from now on. The numbers under which the others are told
    /// what was not known, and up to which may be told at once.
    pub(super) fn bring<'a>(&mut self, sessions: impl Iterator<Item = &'a Summary>) -> (Range<u64>, Option<u64>) {
        let first = self.given + 1;
        for summary in sessions {
            if !self.entries.contains_key(summary.id()) {
                self.given += 1;
                self.put(self.given, Arc::clone(summary.id()), Some(summary.clone()));
            }
        }
        let told = if self.looking || self.given < first { None } else { self.tell() };
        (first..self.given + 1, told)
    }

    /// What has changed after a number. `None` if some of it is forgotten.
    pub(super) fn after(&self, position: u64) -> Option<Changes> {
        if position < self.floor {
            return None;
        }
        let (mut changes, mut bytes) = (Vec::new(), 0);
        for session in self.order.range(position + 1..(self.told + 1).max(position + 1)).map(|(_, session)| session) {
            let Some(Entry { change, .. }) = self.entries.get(session) else { continue };
            if changes.len() == PAGE || bytes > PAGE_BYTES {
                let last = changes.last().map_or(position, |last: &Arc<Change>| last.number);
                return Some(Changes { changes, last, complete: false });
            }
            bytes += change.broadcast.payload().len();
            changes.push(Arc::clone(change));
        }
        Some(Changes { changes, last: self.told.max(position), complete: true })
    }

    /// Every session that is there as far as is known.
    pub(super) fn known(&self) -> HashSet<Arc<str>> {
        let there = self.entries.iter().filter(|(_, entry)| entry.shown.is_some());
        there.map(|(session, _)| Arc::clone(session)).collect()
    }

    /// What a round has to ask for by name: sessions that have moved alone, and those with a turn that is not over as
    /// far as is known.
    pub(super) fn due(&mut self) -> HashSet<Arc<str>> {
        let live = self.entries.iter().filter(|(_, entry)| entry.shown.as_ref().is_some_and(Summary::is_live));
        let mut due: HashSet<_> = live.map(|(session, _)| Arc::clone(session)).collect();
        due.extend(std::mem::take(&mut self.late));
        due
    }

    /// Forgets everything; who still holds a number has to begin anew.
    pub(super) fn clear(&mut self) {
        *self = Self { given: self.given, told: self.given, floor: self.given, ..Self::default() };
    }

    fn put(&mut self, number: u64, session: Arc<str>, shown: Option<Summary>) {
        #[derive(serde::Serialize)]
        struct Removed<'a> {
            id: &'a str,
        }
        let (event, payload) = match &shown {
            Some(summary) => (SESSION_CHANGED, Payload::json(summary)),
            None => (SESSION_REMOVED, Payload::json(&Removed { id: &session })),
        };
        let broadcast = Broadcast::new(TOPIC, event, payload);
        let topic = topic_of(&session);
        let change = Arc::new(Change { number, session: Arc::clone(&session), topic, broadcast });
        self.late.remove(&session);
        self.order.insert(number, Arc::clone(&session));
        if let Some(before) = self.entries.insert(session, Entry { shown, change }) {
            self.order.remove(&before.change.number);
        }
        while self.entries.len() > KEPT
            && let Some((number, session)) = self.order.pop_first()
        {
            self.floor = number;
            self.entries.remove(&session);
            self.late.remove(&session);
        }
    }
}

impl Look {
    fn take(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }
}

#[cfg(test)]
#[path = "board_tests.rs"]
mod tests;
