//! All connections of this server, whatever moves their bytes.
//!
//! Knows no channel. Its invariant: a connection is counted from before it is accepted until its task has ended, there
//! are never more than may be, and once a drain has begun none is accepted.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Transport;
use crate::{
    auth::Identity,
    channel::ConnectionId,
    protocol::codes::{CloseCode, close},
    socket::Socket,
};

/// How long the connections that are told to close may take to do so.
const CLOSING: Duration = Duration::from_secs(5);

/// Seconds after which a client may try a server that is about to stop again.
const RETRY_WHEN_DRAINING: &str = "1";
/// The same for one that holds as many connections as it may.
pub(super) const RETRY_WHEN_FULL: &str = "5";

/// The connections of a server. Clones share them.
#[derive(Clone, Default)]
pub struct Connections {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    sockets: Mutex<HashMap<ConnectionId, Arc<Socket>>>,
    /// How many there are, in the order of [`Transport::ALL`].
    by_transport: [AtomicUsize; Transport::ALL.len()],
    /// How many there may be at once; none for any number.
    max: Option<usize>,
    draining: AtomicBool,
    /// How many were refused, by why.
    refused_draining: AtomicU64,
    refused_full: AtomicU64,
    /// Rung when a connection has gone.
    gone: Notify,
    tasks: TaskTracker,
}

/// Why there is no room for another connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// The server is about to stop.
    Draining,
    /// There are as many as there may be.
    Full,
}

impl NoRoom {
    /// How many seconds to wait before the next try.
    pub(super) fn retry_after(self) -> &'static str {
        match self {
            Self::Draining => RETRY_WHEN_DRAINING,
            Self::Full => RETRY_WHEN_FULL,
        }
    }
}

/// How many connections were refused so far for want of room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusedCounts {
    /// While the server was about to stop.
    pub draining: u64,
    /// While there were as many as there may be.
    pub full: u64,
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
    transport: Transport,
}

/// What waits to be written to all connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unwritten {
    /// For all of them, in bytes.
    pub bytes: usize,
    /// For the one for which most waits.
    pub largest: usize,
}

impl Connections {
    /// None yet, and at most `max` at once; any number without it.
    pub fn new(max: Option<usize>) -> Self {
        Self { inner: Arc::new(Inner { max, ..Inner::default() }) }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.inner.sockets().len()
    }

    /// How many there are of each transport.
    pub fn by_transport(&self) -> [(Transport, usize); Transport::ALL.len()] {
        Transport::ALL.map(|transport| (transport, self.inner.of(transport).load(Ordering::Relaxed)))
    }

    /// What waits to be written. Looks at every connection.
    pub fn unwritten(&self) -> Unwritten {
        let sockets: Vec<Arc<Socket>> = self.inner.sockets().values().cloned().collect();
        sockets.iter().fold(Unwritten::default(), |all, socket| {
            let bytes = socket.outbox().bytes();
            Unwritten { bytes: all.bytes + bytes, largest: all.largest.max(bytes) }
        })
    }

    /// Whether no more are accepted.
    pub fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::Acquire)
    }

    /// How many were refused.
    pub fn refused(&self) -> RefusedCounts {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        RefusedCounts { draining: count(&self.inner.refused_draining), full: count(&self.inner.refused_full) }
    }

    /// Accepts no more: new ones are answered 503.
    pub fn refuse_new(&self) {
        self.inner.draining.store(true, Ordering::Release);
    }

    /// Closes those that speak for an identity that `which` picks, with 1001. How many.
    pub fn disconnect(&self, which: impl Fn(&Identity) -> bool) -> usize {
        self.close_where(which, close::DISCONNECTED, "disconnected by the server")
    }

    /// Looks at every connection this often, until `stop`: those whose token has run out are closed with 1008, and
    /// channels end that a renewed token does not open any more. Turns go on.
    pub async fn review(self, every: Duration, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
            let due = |socket: &&Arc<Socket>| socket.is_due_for_review();
            let sockets: Vec<Arc<Socket>> = self.inner.sockets().values().filter(due).cloned().collect();
            for socket in sockets {
                socket.review();
            }
        }
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

    /// Whether there is room for one more, which is not yet taken: to be asked before a refusal costs anything.
    pub(super) fn check_room(&self) -> Result<(), NoRoom> {
        self.inner.room(self.count()).inspect_err(|why| self.inner.count_refused(*why))
    }

    /// Takes a place. Whoever comes while a drain begins may still get one: the drain finds it.
    pub(super) fn enter(&self, socket: &Arc<Socket>, transport: Transport) -> Result<Place, NoRoom> {
        let mut sockets = self.inner.sockets();
        if let Err(why @ NoRoom::Full) = self.inner.room(sockets.len()) {
            drop(sockets);
            self.inner.count_refused(why);
            return Err(why);
        }
        sockets.insert(socket.id(), Arc::clone(socket));
        self.inner.of(transport).fetch_add(1, Ordering::Relaxed);
        Ok(Place { inner: Arc::clone(&self.inner), id: socket.id(), transport })
    }
}

/// Milliseconds until a client should come back: spread over half a second to five, so that not all come at once.
fn come_back(index: usize, of: usize) -> u64 {
    let window = u64::try_from(of).unwrap_or(u64::MAX).clamp(500, 5_000);
    let scattered = u64::try_from(index).unwrap_or(0).wrapping_mul(2_654_435_761) % window;
    100 + scattered
}

impl Inner {
    fn of(&self, transport: Transport) -> &AtomicUsize {
        &self.by_transport[transport as usize]
    }

    fn room(&self, count: usize) -> Result<(), NoRoom> {
        if self.draining.load(Ordering::Acquire) {
            return Err(NoRoom::Draining);
        }
        if self.max.is_some_and(|max| count >= max) { Err(NoRoom::Full) } else { Ok(()) }
    }

    fn count_refused(&self, why: NoRoom) {
        let count = match why {
            NoRoom::Draining => &self.refused_draining,
            NoRoom::Full => &self.refused_full,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn sockets(&self) -> MutexGuard<'_, HashMap<ConnectionId, Arc<Socket>>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let gone = self.inner.sockets().remove(&self.id);
        // A socket's own drop ends its channels, which is not done under the lock.
        drop(gone);
        self.inner.of(self.transport).fetch_sub(1, Ordering::Relaxed);
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
