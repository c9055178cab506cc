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
    joins: BTreeMap<String, Vec<Joined>>,
    leaves: BTreeMap<String, Vec<Meta>>,
}

#[derive(Debug)]
struct Joined {
    meta: Meta,
    /// The number of the change that brought it.
    change: u64,
    /// The meta that clients know and in whose place this one comes.
    before: Option<String>,
}

impl Serialize for Joined {
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
        let meta = Meta::new(phx_ref, None, fields);
        self.state.insert(key, meta.clone());
        self.changed();
        self.pending.join(key, Joined { meta, change: self.changes, before: None });
    }

    /// Puts a meta `new` in the place of `old`. What has to be published before this change is, if there is any.
    /// Nothing happens where `old` is not there.
    pub(super) fn update(&mut self, key: &str, old: &str, new: &str, fields: &Map<String, Value>) -> Option<Batch> {
        let first = self.settle(key, old);
        let untold = self.pending.take_join(key, old);
        let before = match &untold {
            Some(joined) => joined.before.clone(),
            None => Some(old.to_owned()),
        };
        let meta = Meta::new(new, before.as_deref(), fields);
        let Some(left) = self.state.replace(key, old, meta.clone()) else { return first };
        self.changed();
        if untold.is_none() {
            self.pending.leave(key, left);
        }
        self.pending.join(key, Joined { meta, change: self.changes, before });
        first
    }

    /// Takes a meta away. What has to be published before this change is, if there is any.
    pub(super) fn leave(&mut self, key: &str, phx_ref: &str) -> Option<Batch> {
        let first = self.settle(key, phx_ref);
        let untold = self.pending.take_join(key, phx_ref);
        let Some(left) = self.state.remove(key, phx_ref) else { return first };
        self.changed();
        if untold.is_none() {
            self.pending.leave(key, left);
        }
        first
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

    fn join(&mut self, key: &str, joined: Joined) {
        self.joins.entry(key.to_owned()).or_default().push(joined);
    }

    fn leave(&mut self, key: &str, meta: Meta) {
        self.leaves.entry(key.to_owned()).or_default().push(meta);
    }

    fn joined(&self, key: &str, phx_ref: &str) -> Option<&Joined> {
        self.joins.get(key)?.iter().find(|joined| joined.meta.phx_ref() == phx_ref)
    }

    fn take_join(&mut self, key: &str, phx_ref: &str) -> Option<Joined> {
        let metas = self.joins.get_mut(key)?;
        let place = metas.iter().position(|joined| joined.meta.phx_ref() == phx_ref)?;
        let joined = metas.remove(place);
        if metas.is_empty() {
            self.joins.remove(key);
        }
        Some(joined)
    }

    /// The diff as it is sent: `{"joins":{KEY:{"metas":[…]}},"leaves":{…}}`. `fetch` is asked once, for all keys.
    pub(super) fn encode(&self, fetch: &dyn Fn(&[&str]) -> Extras) -> Payload {
        let mut keys: Vec<&str> = self.joins.keys().chain(self.leaves.keys()).map(String::as_str).collect();
        keys.sort_unstable();
        keys.dedup();
        Payload::json(&Diff { batch: self, extras: &fetch(&keys) })
    }
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
