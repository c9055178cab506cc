//! Telling those who repair that something may have been missed.
//!
//! Knows no bus and no topic. Its invariant: a gap is told to everybody who watches at that moment, in the call that
//! found it; whoever watches reads the truth elsewhere, so a gap too many costs a look and nothing else.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::NodeId;

/// What may have been missed on its way from other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gap {
    /// Anything that any node has sent until now.
    Everything,
    /// What was published on these topics until now: this node has just begun to listen to them.
    Topics(Vec<Arc<str>>),
    /// Anything that this node has sent until now.
    Node(NodeId),
    /// What a node has said under a name: it had more to say than the bus took.
    Messages {
        /// The node.
        from: NodeId,
        /// The name.
        name: Arc<str>,
    },
}

/// Repairs what may have been missed.
pub trait Watcher: Send + Sync {
    /// Learns of a gap. Called by the task that serves the bus: must not wait.
    fn missed(&self, gap: &Gap);
}

/// Everybody who watches.
#[derive(Default)]
pub(super) struct Watchers {
    all: Mutex<Vec<Weak<dyn Watcher>>>,
}

impl Watchers {
    pub(super) fn add(&self, watcher: &Arc<dyn Watcher>) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(watcher));
    }

    /// Tells everybody; those who have gone are forgotten.
    pub(super) fn tell(&self, gap: &Gap) {
        let present: Vec<_> = {
            let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|watcher| watcher.strong_count() > 0);
            all.iter().filter_map(Weak::upgrade).collect()
        };
        present.iter().for_each(|watcher| watcher.missed(gap));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen(Mutex<Vec<Gap>>);

    impl Watcher for Seen {
        fn missed(&self, gap: &Gap) {
            self.0.lock().unwrap().push(gap.clone());
        }
    }

    #[test]
    fn who_has_gone_is_told_nothing_and_forgotten() {
        let watchers = Watchers::default();
        let seen = Arc::new(Seen::default());
        let (staying, leaving): (Arc<dyn Watcher>, Arc<dyn Watcher>) = (seen.clone(), Arc::new(Seen::default()));
        watchers.add(&staying);
        watchers.add(&leaving);
        drop(leaving);
        watchers.tell(&Gap::Everything);
        assert_eq!(*seen.0.lock().unwrap(), [Gap::Everything]);
        assert_eq!(watchers.all.lock().unwrap().len(), 1);
    }
}
