//! What nodes tell each other of presence: members, and changes of them. Pure.
//!
//! Knows no node and no topic's state. Its invariant: a `phx_ref` names one meta for ever, on every node, so that two
//! lists are compared by their refs alone.

use std::{collections::HashMap, sync::Arc};

use super::state::Meta;

/// One meta, and where it is shown.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) topic: Arc<str>,
    pub(super) key: Arc<str>,
    pub(super) meta: Meta,
}

/// Members by their `phx_ref`. Everything in it is shared with the topic that shows it.
pub(super) type Members = HashMap<Arc<str>, Member>;

/// A change of one topic.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// A meta under a key.
    Join { key: Arc<str>, meta: Meta },
    /// A meta in the place of another one under the same key.
    Replace { key: Arc<str>, old: Arc<str>, meta: Meta },
    /// A meta is not there any more.
    Leave { key: Arc<str>, phx_ref: Arc<str> },
}

/// A change and its topic.
pub(super) type Located = (Arc<str>, Change);

impl Member {
    /// The change that shows it.
    pub(super) fn join(&self) -> Located {
        (self.topic.clone(), Change::Join { key: self.key.clone(), meta: self.meta.clone() })
    }

    /// The change that takes it away.
    pub(super) fn leave(&self) -> Located {
        let phx_ref = self.meta.shared_ref().clone();
        (self.topic.clone(), Change::Leave { key: self.key.clone(), phx_ref })
    }
}

/// What a list of members becomes by a change.
pub(super) fn apply(members: &mut Members, topic: &Arc<str>, change: &Change) {
    match change {
        Change::Join { key, meta } => put(members, topic, key, meta),
        Change::Replace { key, old, meta } => {
            members.remove(old);
            put(members, topic, key, meta);
        }
        Change::Leave { phx_ref, .. } => drop(members.remove(phx_ref)),
    }
}

fn put(members: &mut Members, topic: &Arc<str>, key: &Arc<str>, meta: &Meta) {
    let member = Member { topic: topic.clone(), key: key.clone(), meta: meta.clone() };
    members.insert(meta.shared_ref().clone(), member);
}

/// The changes of one topic, in their order.
type OfTopic = (Arc<str>, Vec<Change>);

/// Changes of one topic after the other, those of each in their order.
pub(super) fn by_topic(changes: impl IntoIterator<Item = Located>) -> Vec<OfTopic> {
    let (mut places, mut sorted) = (HashMap::new(), Vec::<OfTopic>::new());
    for (topic, change) in changes {
        let place = *places.entry(Arc::clone(&topic)).or_insert_with(|| {
            sorted.push((topic, Vec::new()));
            sorted.len() - 1
        });
        sorted[place].1.push(change);
    }
    sorted
}
