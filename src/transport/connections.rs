//! All connections of this server, whatever moves their bytes.
//!
//! Knows no channel. Its invariant: a connection is counted from before it is accepted until its task has ended, and
//! once a drain has begun none is accepted.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::task::TaskTracker;

use crate::{
    auth::Identity,
    channel::ConnectionId,
    protocol::codes::{CloseCode, close},
    socket::Socket,
};

/// How long the connections that are told to close may take to do so.
const CLOSING: Duration = Duration::from_secs(5);

/// The connections of a server. Clones share them.
#[derive(Clone, Default)]
pub struct Connections {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    sockets: Mutex<HashMap<ConnectionId, Arc<Socket>>>,
    draining: AtomicBool,
    /// Rung when a connection has gone.
    gone: Notify,
    tasks: TaskTracker,
}

/// How a drain went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// How many were told to close.
    pub told: usize,
    /// How many had not closed in time; they are cut.
    pub left: usize,
}

/// One connection's place; dropping it says that the connection has gone.
pub(super) struct Place {
    inner: Arc<Inner>,
    id: ConnectionId,
}

impl Connections {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.inner.sockets().len()
    }

    /// Whether no more are accepted.
    pub fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::Acquire)
    }

    /// Accepts no more: new ones are answered 503.
    pub fn refuse_new(&self) {
        self.inner.draining.store(true, Ordering::Release);
    }

    /// Closes those that speak for an identity that `which` picks, with 1001. How many.
    pub fn disconnect(&self, which: impl Fn(&Identity) -> bool) -> usize {
        self.close_where(which, close::DISCONNECTED, "disconnected by the server")
    }

    fn close_where(&self, which: impl Fn(&Identity) -> bool, code: CloseCode, reason: &'static str) -> usize {
        let sockets = self.inner.sockets();
        let picked = sockets.values().filter(|socket| which(&socket.identity()));
        picked.inspect(|socket| socket.outbox().close(code, reason)).count()
    }

    /// Closes all, spread evenly over `spread`, those with a topic that `last` picks after the others; each channel is
    /// told first when to come back. Returns when all are gone, at the latest five seconds after the last was told;
    /// what is left then is cut.
    pub async fn drain(&self, spread: Duration, last: impl Fn(&str) -> bool) -> Drained {
        self.refuse_new();
        let mut order: Vec<Arc<Socket>> = self.inner.sockets().values().cloned().collect();
        order.sort_by_cached_key(|socket| socket.topics().iter().any(|topic| last(topic)));
        let (told, begun) = (order.len(), Instant::now());
        let share = |index: usize| spread.mul_f64(index as f64 / told.max(1) as f64);
        for (index, socket) in order.into_iter().enumerate() {
            tokio::time::sleep_until(begun + share(index)).await;
            socket.drain(come_back(index, told));
        }
        // Those that slipped in while the drain began were told nothing yet.
        for (index, socket) in self.inner.sockets().values().enumerate() {
            socket.drain(come_back(index, told));
        }
        let left = if tokio::time::timeout(CLOSING, self.all_gone()).await.is_ok() { 0 } else { self.cut() };
        Drained { told, left }
    }

    fn cut(&self) -> usize {
        self.close_where(|_| true, close::RESTART, "this server restarts")
    }

    /// Waits until there is none.
    pub async fn all_gone(&self) {
        loop {
            let rung = self.inner.gone.notified();
            if self.count() == 0 {
                return;
            }
            rung.await;
        }
    }

    /// The tasks of the connections.
    pub(super) fn tasks(&self) -> &TaskTracker {
        &self.inner.tasks
    }

    pub(super) fn enter(&self, socket: &Arc<Socket>) -> Place {
        self.inner.sockets().insert(socket.id(), Arc::clone(socket));
        Place { inner: Arc::clone(&self.inner), id: socket.id() }
    }
}

/// Milliseconds until a client should come back: spread over half a second to five, so that not all come at once.
fn come_back(index: usize, of: usize) -> u64 {
    let window = u64::try_from(of).unwrap_or(u64::MAX).clamp(500, 5_000);
    let scattered = u64::try_from(index).unwrap_or(0).wrapping_mul(2_654_435_761) % window;
    100 + scattered
}

impl Inner {
    fn sockets(&self) -> MutexGuard<'_, HashMap<ConnectionId, Arc<Socket>>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let gone = self.inner.sockets().remove(&self.id);
        // A socket's own drop ends its channels, which is not done under the lock.
        drop(gone);
        self.inner.gone.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_asked_back_at_different_times() {
        let times: std::collections::HashSet<_> = (0..1_000).map(|index| come_back(index, 1_000)).collect();
        assert!(times.len() > 900);
        assert!(times.iter().all(|ms| (100..=5_100).contains(ms)));
    }
}
