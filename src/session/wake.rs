//! What nodes say to each other about turns: that a cancel waits for its owner, and that such a turn has ended.
//!
//! Knows no bus. Both are hints that may be lost or come twice, and nothing is done on their word: an owner reads its
//! intents with a renewal, and whoever waits for an end reads the turn. So its invariant is that without any of them
//! everything happens all the same, a little later.

use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::{Inner, deletion};
use crate::pubsub::{NodeId, PubSub, Receiver};

/// A cancel waits for a turn, which is the body.
const INTENT: &str = "turn.intent";
/// A turn has ended, which is the body.
const ENDED: &str = "turn.ended";

/// Hears what others say. To be kept as long as it shall.
pub(super) struct Ears {
    _intent: Arc<dyn Receiver>,
    _ended: Arc<dyn Receiver>,
    _deleted: Arc<dyn Receiver>,
}

impl Ears {
    pub(super) fn open(pubsub: &PubSub, inner: &Weak<Inner>) -> Self {
        let intent: Arc<dyn Receiver> = Arc::new(IntentEar(inner.clone()));
        let ended: Arc<dyn Receiver> = Arc::new(EndedEar(inner.clone()));
        pubsub.receive(INTENT, &intent);
        pubsub.receive(ENDED, &ended);
        let deleted: Arc<dyn Receiver> = Arc::new(deletion::Ear(inner.clone()));
        pubsub.receive(deletion::Ear::NAME, &deleted);
        Self { _intent: intent, _ended: ended, _deleted: deleted }
    }
}

struct IntentEar(Weak<Inner>);

impl Receiver for IntentEar {
    fn receive(&self, from: &NodeId, body: Bytes) {
        let (Some(inner), Ok(turn_id)) = (self.0.upgrade(), std::str::from_utf8(&body)) else { return };
        if inner.runners.has(turn_id) {
            inner.log.tell_end_to(turn_id, from.clone());
            // The renewal reads back whether there is an intent; runners stop on that.
            inner.renew_now.notify_one();
        }
    }
}

struct EndedEar(Weak<Inner>);

impl Receiver for EndedEar {
    fn receive(&self, _from: &NodeId, body: Bytes) {
        if let (Some(inner), Ok(turn_id)) = (self.0.upgrade(), std::str::from_utf8(&body)) {
            inner.log.ended(turn_id);
        }
    }
}

/// Tells whoever owns a turn that a cancel for it is durable (I17).
pub(super) fn intent(pubsub: &PubSub, turn_id: &str) {
    pubsub.publish_to_all(INTENT, Bytes::copy_from_slice(turn_id.as_bytes()));
}

/// Tells a node that waits for it that a turn has ended.
pub(super) fn ended(pubsub: &PubSub, node: &NodeId, turn_id: &str) {
    pubsub.publish_to(node, ENDED, Bytes::copy_from_slice(turn_id.as_bytes()));
}
