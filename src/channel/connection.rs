//! What all channels of one connection share.
//!
//! Knows no transport and no topic. Its invariant: there is one identity per connection at a time, and what waits in
//! the inboxes of its channels is bounded for all of them together.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use super::Outbox;
use crate::{auth::Identity, protocol::Serializer};

/// Names one connection on this node; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

impl ConnectionId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One client's link, as its channels see it.
pub struct Connection {
    id: ConnectionId,
    serializer: Serializer,
    outbox: Outbox,
    identity: Mutex<Arc<Identity>>,
    /// Set by a renewal, until somebody has looked at what it means for the channels.
    renewed: AtomicBool,
    inbox_bytes: AtomicUsize,
    max_inbox_bytes: usize,
}

impl Connection {
    /// A new connection. `max_inbox_bytes` bounds what waits for its channels to handle.
    pub fn new(serializer: Serializer, outbox: Outbox, identity: Identity, max_inbox_bytes: usize) -> Self {
        Self {
            id: ConnectionId::next(),
            serializer,
            outbox,
            identity: Mutex::new(Arc::new(identity)),
            renewed: AtomicBool::new(false),
            inbox_bytes: AtomicUsize::new(0),
            max_inbox_bytes,
        }
    }

    /// Its name on this node.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// How its frames are written.
    pub fn serializer(&self) -> Serializer {
        self.serializer
    }

    /// The way out.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Whom it speaks for at this moment.
    pub fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Renews whom it speaks for, for all its channels at once.
    pub fn set_identity(&self, identity: Identity) {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(identity);
        self.renewed.store(true, Ordering::Release);
    }

    /// Whether it was renewed since that was looked at last.
    pub fn is_renewed(&self) -> bool {
        self.renewed.load(Ordering::Acquire)
    }

    /// The same, and looks at it.
    pub fn take_renewed(&self) -> bool {
        self.renewed.swap(false, Ordering::AcqRel)
    }

    /// Takes room for a push of this size. An empty inbox takes any size.
    pub(super) fn reserve(&self, bytes: usize) -> bool {
        let fits = |held: usize| (held == 0 || held + bytes <= self.max_inbox_bytes).then(|| held + bytes);
        self.inbox_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// Gives room back.
    pub(super) fn release(&self, bytes: usize) {
        self.inbox_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
