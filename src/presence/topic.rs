//! One topic: who is on it, and which changes have not been told yet. Pure: no lock, no clock, no publishing.
//!
//! Changes gather in a [`Batch`] until it is taken to be published. The invariant: a batch never holds a join and a
//! leave of one `phx_ref`, so it does not matter which side a client applies first; and a meta that was handed out in
//! a state is never cancelled out of a batch, because whoever holds it must be told that it left.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::{Map, Value};

use super::state::{Entry, Extras, Meta, State};
use crate::protocol::Payload;

/// From how many keys on the whole state is kept encoded. Below, it is put together from the keys' own encodings in no
/// time, and most topics are never asked again.
const LARGE: usize = 8;

/// What one topic holds.
#[derive(Debug, Default)]
pub(super) struct Topic {
    state: State,
    pending: Batch,
    /// How many changes there were so far.
    changes: u64,
    /// How many there were when the state was last handed out.
    given: u64,
    /// The state of a large topic as it is sent; made when it is asked for, thrown away by a change.
    encoded: Option<Arc<Payload>>,
}

/// Changes that are told together, as one diff.
#[derive(Debug, Default)]
#[must_use = "changes that are not published leave clients with another list"]
pub(super) struct Batch {
    joins: BTreeMap<String, Vec<Untold>>,
    leaves: BTreeMap<String, Vec<Untold>>,
}

/// A meta that came or went.
#[derive(Debug)]
struct Untold {
    meta: Meta,
    /// The number of the change that it is.
    change: u64,
    /// The meta that clients know and in whose place this one comes.
    before: Option<String>,
}

impl Serialize for Untold {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.meta.serialize(serializer)
    }
}

impl Topic {
    /// Nobody is here, and everybody has been told.
    pub(super) fn is_empty(&self) -> bool {
        self.state.is_empty() && self.pending.is_empty()
    }

    /// Nothing is pending.
    pub(super) fn is_told(&self) -> bool {
        self.pending.is_empty()
    }

    /// The members, to count them and look them up.
    pub(super) fn members(&self) -> &State {
        &self.state
    }

    /// Adds a meta under `key`.
    pub(super) fn join(&mut self, key: &str, phx_ref: &str, fields: &Map<String, Value>) {
        self.add(key, Meta::new(phx_ref, None, fields));
    }

    /// Adds a meta of another node, which may be one that has just left: nobody hears of that if nobody has yet. What
    /// has to be published before this change is, if there is any.
    pub(super) fn enter(&mut self, key: &str, meta: Meta) -> Option<Batch> {
        let left = self.pending.left(key, meta.phx_ref()).map(|left| left.change);
        let first = left.is_some_and(|change| change <= self.given).then(|| self.take()).flatten();
        if left.is_some() && first.is_none() {
            self.pending.take_leave(key, meta.phx_ref());
            self.state.insert(key, meta);
            self.changed();
        } else {
            self.add(key, meta);
        }
        first
    }

    /// Puts a meta `new` in the place of `old`. What has to be published before this change is, if there is any.
    /// Nothing happens where `old` is not there.
    pub(super) fn update(&mut self, key: &str, old: &str, new: &str, fields: &Map<String, Value>) -> Option<Batch> {
        let first = self.settle(key, old);
        let before = match self.pending.joined(key, old) {
            Some(joined) => joined.before.clone(),
            None => Some(old.to_owned()),
        };
        let meta = Meta::new(new, before.as_deref(), fields);
        self.swap(key, old, meta, before);
        first
    }

    /// As [`Topic::update`], with a meta of another node; it is shown also where `old` is not there.
    pub(super) fn replace(&mut self, key: &str, old: &str, meta: Meta) -> Option<Batch> {
        let first = self.settle(key, old);
        if !self.swap(key, old, meta.clone(), None) {
            self.add(key, meta);
        }
        first
    }

    /// Takes a meta away. What has to be published before this change is, if there is any.
    pub(super) fn leave(&mut self, key: &str, phx_ref: &str) -> Option<Batch> {
        let first = self.settle(key, phx_ref);
        let untold = self.pending.take_join(key, phx_ref);
        let Some(left) = self.state.remove(key, phx_ref) else { return first };
        self.changed();
        if untold.is_none() {
            self.pending.leave(key, left, self.changes);
        }
        first
    }

    fn add(&mut self, key: &str, meta: Meta) {
        self.state.insert(key, meta.clone());
        self.changed();
        self.pending.join(key, Untold { meta, change: self.changes, before: None });
    }

    /// Whether `old` was there.
    fn swap(&mut self, key: &str, old: &str, meta: Meta, before: Option<String>) -> bool {
        let Some(left) = self.state.replace(key, old, meta.clone()) else { return false };
        self.changed();
        if self.pending.take_join(key, old).is_none() {
            self.pending.leave(key, left, self.changes);
        }
        self.pending.join(key, Untold { meta, change: self.changes, before });
        true
    }

    /// The changes that are to be published, if there are any.
    pub(super) fn take(&mut self) -> Option<Batch> {
        (!self.pending.is_empty()).then(|| std::mem::take(&mut self.pending))
    }

    /// The whole state as it is sent, pending changes in it.
    pub(super) fn give(&mut self, fetch: &dyn Fn(&[&str]) -> Extras) -> Arc<Payload> {
        self.given = self.changes;
        if let Some(encoded) = &self.encoded {
            return Arc::clone(encoded);
        }
        let encoded = Arc::new(self.state.encode(fetch));
        self.encoded = (self.state.len() >= LARGE).then(|| Arc::clone(&encoded));
        encoded
    }

    /// As [`Topic::give`], for readers on this side of the wire.
    pub(super) fn list(&mut self) -> BTreeMap<String, Vec<Meta>> {
        self.given = self.changes;
        self.state.list()
    }

    /// What has to be published before the meta `phx_ref` changes: everything pending, where it is a part of that and
    /// somebody has been given a state with it.
    fn settle(&mut self, key: &str, phx_ref: &str) -> Option<Batch> {
        let given = self.pending.joined(key, phx_ref).is_some_and(|joined| joined.change <= self.given);
        if given { self.take() } else { None }
    }

    fn changed(&mut self) {
        self.changes += 1;
        self.encoded = None;
    }
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.joins.is_empty() && self.leaves.is_empty()
    }

    fn join(&mut self, key: &str, joined: Untold) {
        self.joins.entry(key.to_owned()).or_default().push(joined);
    }

    fn leave(&mut self, key: &str, meta: Meta, change: u64) {
        self.leaves.entry(key.to_owned()).or_default().push(Untold { meta, change, before: None });
    }

    fn joined(&self, key: &str, phx_ref: &str) -> Option<&Untold> {
        find(&self.joins, key, phx_ref)
    }

    fn left(&self, key: &str, phx_ref: &str) -> Option<&Untold> {
        find(&self.leaves, key, phx_ref)
    }

    fn take_join(&mut self, key: &str, phx_ref: &str) -> Option<Untold> {
        take(&mut self.joins, key, phx_ref)
    }

    fn take_leave(&mut self, key: &str, phx_ref: &str) -> Option<Untold> {
        take(&mut self.leaves, key, phx_ref)
    }

    /// The diff as it is sent: `{"joins":{KEY:{"metas":[…]}},"leaves":{…}}`. `fetch` is asked once, for all keys.
    pub(super) fn encode(&self, fetch: &dyn Fn(&[&str]) -> Extras) -> Payload {
        let mut keys: Vec<&str> = self.joins.keys().chain(self.leaves.keys()).map(String::as_str).collect();
        keys.sort_unstable();
        keys.dedup();
        Payload::json(&Diff { batch: self, extras: &fetch(&keys) })
    }
}

fn find<'a>(side: &'a BTreeMap<String, Vec<Untold>>, key: &str, phx_ref: &str) -> Option<&'a Untold> {
    side.get(key)?.iter().find(|untold| untold.meta.phx_ref() == phx_ref)
}

fn take(side: &mut BTreeMap<String, Vec<Untold>>, key: &str, phx_ref: &str) -> Option<Untold> {
    let metas = side.get_mut(key)?;
    let place = metas.iter().position(|untold| untold.meta.phx_ref() == phx_ref)?;
    let taken = metas.remove(place);
    if metas.is_empty() {
        side.remove(key);
    }
    Some(taken)
}

struct Diff<'a> {
    batch: &'a Batch,
    extras: &'a Extras,
}

/// One side of a diff.
struct Side<'a, M> {
    keys: &'a BTreeMap<String, Vec<M>>,
    extras: &'a Extras,
}

impl Serialize for Diff<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("joins", &Side { keys: &self.batch.joins, extras: self.extras })?;
        map.serialize_entry("leaves", &Side { keys: &self.batch.leaves, extras: self.extras })?;
        map.end()
    }
}

impl<M: Serialize> Serialize for Side<'_, M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.keys.iter().map(|(key, metas)| (key, Entry { metas, extra: self.extras.get(key) })))
    }
}

#[cfg(test)]
#[path = "topic_tests.rs"]
mod tests;
