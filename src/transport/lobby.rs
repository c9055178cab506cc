//! The streams that this server has accepted: how many there are, which have not said yet what they want, and how often
//! those of one address begin a long-polling session, which costs no stream.
//!
//! Knows no HTTP. A proxy, or everybody in one building, may be one address, so none is ever refused; one with too many
//! streams whose first request is still to come loses the oldest of them, which has had the longest time to send it.
//! Its invariant: of one address at most so many wait, each for a bounded time, and where the system has a limit on open
//! files some are left for the server itself.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use super::{Address, Options, Rates};

/// How many streams are still told that there is no room, beyond those that there is room for.
const TURNED_AWAY: usize = 32;
/// How long such a stream may take to ask.
const BRIEF: Duration = Duration::from_secs(1);
/// How many seconds' worth of sessions may be begun at once: everybody behind a proxy comes back at once.
const OPENINGS: u32 = 10;

/// The streams of a server. Clones share them.
#[derive(Clone)]
pub struct Lobby {
    inner: Arc<Inner>,
}

struct Inner {
    max_handshakes: usize,
    max_streams: usize,
    head_timeout: Duration,
    patience: Patience,
    waiting: Mutex<Waiting>,
    openings: Rates<Address>,
    open: AtomicUsize,
    late: AtomicU64,
    displaced: AtomicU64,
    no_room: AtomicU64,
    too_often: AtomicU64,
}

/// Those whose first request is still to come, in the order in which they came.
#[derive(Default)]
struct Waiting {
    last: u64,
    by_address: HashMap<Address, BTreeMap<u64, Arc<Notify>>>,
}

/// How long a stream is waited for once its first request has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For the next request, with its head.
    pub(super) keep_alive: Duration,
    /// For a request's body, whatever its length.
    pub(super) body_grace: Duration,
}

/// What has happened to streams so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamCounts {
    /// Streams that are open now, those of WebSockets among them.
    pub open: usize,
    /// Those that were cut because their first request did not come in time.
    pub late: u64,
    /// Those that were cut because too many of their address waited.
    pub displaced: u64,
    /// Those for which the limit of open files left no room.
    pub no_room: u64,
    /// Long-polling sessions that were refused because too many of their address were begun.
    pub too_often: u64,
}

/// One stream's place; dropping it says that the stream is closed.
pub(super) struct Guest {
    inner: Arc<Inner>,
    address: Address,
    number: u64,
    displaced: Arc<Notify>,
    has_room: bool,
    is_admitted: AtomicBool,
}

impl Lobby {
    pub(super) fn new(options: &Options) -> Self {
        let inner = Inner {
            max_handshakes: options.max_handshakes.max(1),
            max_streams: options.max_streams.unwrap_or(usize::MAX - TURNED_AWAY),
            head_timeout: options.head_timeout,
            patience: Patience { keep_alive: options.keep_alive, body_grace: options.body_grace },
            waiting: Mutex::default(),
            openings: Rates::new(
                options.open_rate,
                options.open_rate.map_or(1, |rate| rate.get().saturating_mul(OPENINGS)),
            ),
            open: AtomicUsize::new(0),
            late: AtomicU64::new(0),
            displaced: AtomicU64::new(0),
            no_room: AtomicU64::new(0),
            too_often: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// What has happened so far.
    pub fn counts(&self) -> StreamCounts {
        let inner = &self.inner;
        StreamCounts {
            open: inner.open.load(Ordering::Relaxed),
            late: inner.late.load(Ordering::Relaxed),
            displaced: inner.displaced.load(Ordering::Relaxed),
            no_room: inner.no_room.load(Ordering::Relaxed),
            too_often: inner.too_often.load(Ordering::Relaxed),
        }
    }

    /// Whether this address may begin another long-polling session now.
    pub(super) fn may_begin(&self, peer: IpAddr) -> bool {
        let may = self.inner.openings.take(&Address::from(peer)).is_ok();
        if !may {
            self.inner.too_often.fetch_add(1, Ordering::Relaxed);
        }
        may
    }

    /// How long a stream is waited for once its first request has come.
    pub(super) fn patience(&self) -> Patience {
        self.inner.patience
    }

    /// A place for a stream; `None` where it cannot even be told that there is no room.
    pub(super) fn enter(&self, peer: IpAddr) -> Option<Guest> {
        let inner = Arc::clone(&self.inner);
        let before = inner.open.fetch_add(1, Ordering::Relaxed);
        let has_room = before < inner.max_streams;
        let (address, displaced) = (Address::from(peer), Arc::new(Notify::new()));
        let number = if has_room { inner.wait(address, &displaced) } else { 0 };
        let guest = Guest { inner, address, number, displaced, has_room, is_admitted: AtomicBool::new(!has_room) };
        if !has_room {
            self.inner.no_room.fetch_add(1, Ordering::Relaxed);
        }
        (before < self.inner.max_streams + TURNED_AWAY).then_some(guest)
    }
}

impl Inner {
    /// Lets one more wait, and sends the oldest of its address away if they are too many.
    fn wait(&self, address: Address, displaced: &Arc<Notify>) -> u64 {
        let mut waiting = self.waiting();
        waiting.last += 1;
        let number = waiting.last;
        let neighbours = waiting.by_address.entry(address).or_default();
        if neighbours.len() >= self.max_handshakes
            && let Some((_, oldest)) = neighbours.pop_first()
        {
            oldest.notify_one();
        }
        neighbours.insert(number, Arc::clone(displaced));
        number
    }

    fn leave(&self, address: Address, number: u64) {
        let mut waiting = self.waiting();
        let Some(neighbours) = waiting.by_address.get_mut(&address) else { return };
        neighbours.remove(&number);
        if neighbours.is_empty() {
            waiting.by_address.remove(&address);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// Whether there is room for it. If not, all that it asks for is to be refused.
    pub(super) fn has_room(&self) -> bool {
        self.has_room
    }

    /// Its first request has come.
    pub(super) fn admit(&self) {
        if !self.is_admitted.swap(true, Ordering::AcqRel) {
            self.inner.leave(self.address, self.number);
        }
    }

    /// Waits until the stream is to be cut. Never once its first request has come, if there is room for it.
    pub(super) async fn expelled(&self) {
        let patience = if self.has_room { self.inner.head_timeout } else { BRIEF };
        let count = tokio::select! {
            () = self.displaced.notified() => &self.inner.displaced,
            () = tokio::time::sleep(patience) => &self.inner.late,
        };
        if self.has_room {
            if self.is_admitted.load(Ordering::Acquire) {
                std::future::pending().await
            }
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.admit();
        self.inner.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use futures::FutureExt as _;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

    fn lobby(change: impl FnOnce(&mut Options)) -> Lobby {
        let mut options = Options { head_timeout: Duration::from_secs(60), ..Options::default() };
        change(&mut options);
        Lobby::new(&options)
    }

    #[tokio::test]
    async fn the_oldest_of_an_address_goes_when_too_many_of_it_wait() {
        let lobby = lobby(|options| options.max_handshakes = 2);
        let enter = |peer| lobby.enter(peer).unwrap();
        let (elsewhere, first, second) = (enter(THERE), enter(HERE), enter(HERE));
        assert!(first.expelled().now_or_never().is_none());
        let third = enter(HERE);
        first.expelled().await;
        for stays in [&elsewhere, &second, &third] {
            assert!(stays.expelled().now_or_never().is_none());
        }
        // Whoever has asked for something takes nobody's place.
        second.admit();
        let fourth = enter(HERE);
        assert!(third.expelled().now_or_never().is_none());
        assert_eq!(lobby.counts(), StreamCounts { open: 5, late: 0, displaced: 1, no_room: 0, too_often: 0 });
        drop((elsewhere, first, second, third, fourth));
        assert_eq!(lobby.counts().open, 0);
        assert!(lobby.inner.waiting().by_address.is_empty());
    }

    #[tokio::test]
    async fn who_says_nothing_in_time_goes_and_who_has_asked_stays() {
        let lobby = lobby(|options| options.head_timeout = Duration::from_millis(20));
        let (silent, asks) = (lobby.enter(HERE).unwrap(), lobby.enter(HERE).unwrap());
        asks.admit();
        silent.expelled().await;
        assert!(tokio::time::timeout(Duration::from_millis(60), asks.expelled()).await.is_err());
        assert_eq!((lobby.counts().late, lobby.counts().displaced), (1, 0));
    }

    #[tokio::test]
    async fn some_of_those_without_room_are_told_so_and_the_rest_is_not() {
        let lobby = lobby(|options| options.max_streams = Some(2));
        let inside: Vec<Guest> = (0..2).map(|_| lobby.enter(HERE).unwrap()).collect();
        assert!(inside.iter().all(Guest::has_room));
        let outside: Vec<Guest> = (0..TURNED_AWAY).map(|_| lobby.enter(HERE).unwrap()).collect();
        assert!(!outside.iter().any(Guest::has_room));
        assert!(lobby.enter(HERE).is_none());
        assert_eq!((lobby.counts().open, lobby.counts().no_room), (2 + TURNED_AWAY, TURNED_AWAY as u64 + 1));
        drop((inside, outside));
        assert!(lobby.enter(HERE).unwrap().has_room());
    }

    #[test]
    fn an_address_begins_sessions_at_its_rate_and_a_burst_of_them_at_once() {
        let lobby = lobby(|options| options.open_rate = NonZeroU32::new(2));
        assert!((0..20).all(|_| lobby.may_begin(HERE)));
        assert!(!lobby.may_begin(HERE) && lobby.may_begin(THERE));
        assert_eq!(lobby.counts().too_often, 1);
    }
}
