//! Which topics have gained their first or lost their last subscriber since the bus was last told.
//!
//! Knows names, no subscriber: whether a topic is wanted is asked of the map of topics when the bus is told, so that
//! coming and going in between costs nothing. Its invariant: a topic that changed while the bus is connected is told
//! of, and nothing is kept while it is not.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// The names of topics that changed.
#[derive(Default)]
pub(super) struct Interest {
    changed: Mutex<Changed>,
    bell: Notify,
}

#[derive(Default)]
struct Changed {
    /// Whether the bus listens. While it does not, it will ask for everything when it does again.
    heard: bool,
    topics: HashSet<Arc<str>>,
}

impl Interest {
    /// A topic may have changed.
    pub(super) fn touch(&self, topic: &Arc<str>) {
        let mut changed = self.lock();
        if changed.heard && changed.topics.insert(Arc::clone(topic)) {
            drop(changed);
            self.bell.notify_one();
        }
    }

    /// The bus listens from now on, or not any more. What changed before is forgotten.
    pub(super) fn hear(&self, heard: bool) {
        let mut changed = self.lock();
        changed.heard = heard;
        changed.topics = HashSet::new();
    }

    /// What has changed, once something has. Cancel safe.
    pub(super) async fn changed(&self) -> Vec<Arc<str>> {
        loop {
            let rung = self.bell.notified();
            let topics = std::mem::take(&mut self.lock().topics);
            if !topics.is_empty() {
                return topics.into_iter().collect();
            }
            rung.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Changed> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_topic_that_changes_often_is_told_of_once_and_only_while_somebody_hears() {
        let interest = Interest::default();
        let topic: Arc<str> = "t".into();
        interest.touch(&topic);
        interest.hear(true);
        interest.touch(&topic);
        interest.touch(&topic);
        assert_eq!(interest.changed().await, std::slice::from_ref(&topic));
        interest.touch(&topic);
        interest.hear(false);
        interest.touch(&topic);
        assert!(interest.lock().topics.is_empty());
    }
}
