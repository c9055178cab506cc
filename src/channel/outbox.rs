//! What waits to be written to one connection.
//!
//! Knows no topic and no transport: channels put whole messages in, one writer takes them out. Its invariant: what
//! waits stays bounded. Broadcasts are refused beyond the limit ([`Outbox::try_push`]); replies and pushes are always
//! taken ([`Outbox::push`]), since those who make them first wait for [`Outbox::room`], and a connection that piles up
//! several limits all the same is closed.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::protocol::{
    Wire,
    codes::{CloseCode, close},
};

/// How many times the limit may wait before the connection is given up, and how much at least: a page of a log, and what
/// is answered beside it, must find room however small the limit.
const OVERRUN: usize = 4;
const MIN_OVERRUN_BYTES: usize = 4 * 1024 * 1024;
/// What a queued message costs beside its bytes.
const ENTRY_BYTES: usize = 48;

/// The way out of one connection. Clones share it.
#[derive(Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
}

struct Shared {
    max_bytes: usize,
    queue: Mutex<Queue>,
    /// Set with the first close, so that waiting needs no lock.
    closing: AtomicBool,
    /// Rung for the writer.
    bell: Notify,
    /// Rung for those who wait for room, and when the outbox closes.
    room: Notify,
    /// Held by the one channel that sends pages of its log.
    replay: Semaphore,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Wire>,
    bytes: usize,
    closed: Option<Closing>,
}

/// How a connection is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// The code of the close frame.
    pub code: CloseCode,
    /// Its text, for those who read traces.
    pub reason: &'static str,
    /// Whether what already waits is written first.
    pub flush: bool,
}

/// What the writer does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Write this message.
    Write(Wire),
    /// Close the connection.
    Close(Closing),
    /// Nothing waits.
    Idle,
}

impl Outbox {
    /// An outbox that takes broadcasts while less than `max_bytes` wait.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                max_bytes: max_bytes.max(1),
                queue: Mutex::default(),
                closing: AtomicBool::new(false),
                bell: Notify::new(),
                room: Notify::new(),
                replay: Semaphore::new(1),
            }),
        }
    }

    /// Queues a message if it fits. An empty outbox takes any message. A closed one takes none, but says yes: its
    /// client is past caring.
    #[must_use]
    pub fn try_push(&self, wire: Wire) -> bool {
        let queue = self.lock();
        if queue.closed.is_some() {
            return true;
        }
        let fits = queue.bytes == 0 || queue.bytes + cost(&wire) <= self.shared.max_bytes;
        if fits {
            self.put(queue, wire);
        }
        fits
    }

    /// Queues a message, also beyond the limit. Where several limits wait already the connection is closed instead,
    /// as one that does not read.
    pub fn push(&self, wire: Wire) {
        let queue = self.lock();
        if queue.closed.is_some() {
            return;
        }
        // A message that was taken because nothing else waited may be of any size.
        let others = queue.bytes.saturating_sub(queue.waiting.front().map_or(0, cost));
        if others > self.shared.max_bytes.saturating_mul(OVERRUN).max(MIN_OVERRUN_BYTES) {
            drop(queue);
            self.close(close::POLICY, "too much waits to be read");
            return;
        }
        self.put(queue, wire);
    }

    fn put(&self, mut queue: MutexGuard<'_, Queue>, wire: Wire) {
        queue.bytes += cost(&wire);
        queue.waiting.push_back(wire);
        let first = queue.waiting.len() == 1;
        drop(queue);
        // The writer empties the queue once it is woken; only the first message has to ring.
        if first {
            self.shared.bell.notify_one();
        }
    }

    /// Closes the connection now; what waits is dropped. The first call decides, but for a close that first flushes,
    /// which this one overtakes.
    pub fn close(&self, code: CloseCode, reason: &'static str) {
        let mut queue = self.lock();
        if queue.closed.as_ref().is_none_or(|closing| closing.flush) {
            queue.closed = Some(Closing { code, reason, flush: false });
            queue.waiting = VecDeque::new();
            queue.bytes = 0;
        }
        drop(queue);
        self.closed();
    }

    /// Closes the connection once everything that waits is written. Nothing more is taken.
    pub fn finish(&self, code: CloseCode, reason: &'static str) {
        let mut queue = self.lock();
        if queue.closed.is_none() {
            queue.closed = Some(Closing { code, reason, flush: true });
        }
        drop(queue);
        self.closed();
    }

    fn closed(&self) {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.bell.notify_one();
        self.shared.room.notify_waiters();
    }

    /// Whether the connection is being closed.
    pub fn is_closed(&self) -> bool {
        self.shared.closing.load(Ordering::Acquire)
    }

    /// Whether what already waits must not be written any more.
    pub fn is_cut(&self) -> bool {
        self.is_closed() && self.lock().closed.as_ref().is_some_and(|closing| !closing.flush)
    }

    /// Whether less than the limit waits, so that answers may be made.
    pub fn has_room(&self) -> bool {
        self.lock().bytes <= self.shared.max_bytes
    }

    /// Whether at most half the limit waits, so that a slow reader may be sent more of a log.
    pub fn is_drained(&self) -> bool {
        self.lock().bytes <= self.shared.max_bytes / 2
    }

    /// Waits until answers may be made, or the outbox is closed.
    pub async fn room(&self) {
        self.when(Self::has_room).await;
    }

    /// Waits until [`Outbox::is_drained`], or the outbox is closed.
    pub async fn drained(&self) {
        self.when(Self::is_drained).await;
    }

    async fn when(&self, ready: impl Fn(&Self) -> bool) {
        loop {
            let rung = self.shared.room.notified();
            if self.is_closed() || ready(self) {
                return;
            }
            rung.await;
        }
    }

    /// The right to send pages of a log; one channel of the connection has it at a time, so that what is read ahead
    /// stays bounded. `None` never happens while the outbox lives.
    pub(crate) async fn replay(&self) -> Option<SemaphorePermit<'_>> {
        self.shared.replay.acquire().await.ok()
    }

    /// For the writer: what to do next.
    pub fn next(&self) -> Next {
        let mut queue = self.lock();
        if let Some(closing) = queue.closed.clone().filter(|closing| !closing.flush || queue.waiting.is_empty()) {
            return Next::Close(closing);
        }
        let Some(wire) = queue.waiting.pop_front() else { return Next::Idle };
        let before = queue.bytes;
        queue.bytes = before.saturating_sub(cost(&wire));
        if queue.waiting.is_empty() {
            // What a burst has grown is given back: most connections are idle most of the time.
            queue.waiting = VecDeque::new();
        }
        let (after, half) = (queue.bytes, self.shared.max_bytes / 2);
        drop(queue);
        let crossed = |mark: usize| before > mark && after <= mark;
        if crossed(half) || crossed(self.shared.max_bytes) {
            self.shared.room.notify_waiters();
        }
        Next::Write(wire)
    }

    /// For the writer: waits until [`Outbox::next`] has something. Cancel safe; there is one writer.
    pub async fn ready(&self) {
        loop {
            if !self.is_idle() {
                return;
            }
            self.shared.bell.notified().await;
        }
    }

    /// Waits until the connection is being closed, whether or not what waits is written first. Cancel safe.
    pub async fn closing(&self) {
        loop {
            let rung = self.shared.room.notified();
            if self.is_closed() {
                return;
            }
            rung.await;
        }
    }

    /// For the writer: waits until what waits must not be written any more. Cancel safe; not to be used together with
    /// [`Outbox::ready`].
    pub async fn cut(&self) {
        loop {
            let rung = self.shared.room.notified();
            if self.is_cut() {
                return;
            }
            rung.await;
        }
    }

    fn is_idle(&self) -> bool {
        let queue = self.lock();
        queue.waiting.is_empty() && queue.closed.is_none()
    }

    /// How many bytes wait.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cost(wire: &Wire) -> usize {
    wire.len() + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;

    use super::*;
    use crate::protocol::Text;

    fn wire(len: usize) -> Wire {
        Wire::Text(Text::from("x".repeat(len)))
    }

    fn write(outbox: &Outbox) -> usize {
        match outbox.next() {
            Next::Write(wire) => wire.len(),
            other => panic!("expected a message, found {other:?}"),
        }
    }

    #[test]
    fn broadcasts_are_refused_beyond_the_limit_and_replies_are_not() {
        let outbox = Outbox::new(1_000);
        assert!(outbox.try_push(wire(3_000)), "an empty outbox takes anything");
        assert!(!outbox.try_push(wire(1)));
        outbox.push(wire(2));
        assert_eq!((write(&outbox), write(&outbox)), (3_000, 2));
        assert_eq!(outbox.bytes(), 0);
        assert!(outbox.try_push(wire(400)) && outbox.try_push(wire(400)) && !outbox.try_push(wire(400)));
    }

    #[test]
    fn several_limits_waiting_close_the_connection() {
        let outbox = Outbox::new(100);
        for _ in 0..10 {
            outbox.push(wire(MIN_OVERRUN_BYTES / 4));
        }
        let Next::Close(closing) = outbox.next() else { panic!("it is open") };
        assert_eq!(closing.code, close::POLICY);
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn a_close_overtakes_what_waits_and_a_finish_does_not() {
        let outbox = Outbox::new(1_000);
        outbox.push(wire(1));
        outbox.finish(close::RESTART, "restart");
        outbox.push(wire(2));
        assert_eq!(write(&outbox), 1);
        assert!(matches!(outbox.next(), Next::Close(closing) if closing.code == close::RESTART));

        let outbox = Outbox::new(1_000);
        outbox.push(wire(1));
        outbox.finish(close::RESTART, "restart");
        assert!(!outbox.is_cut());
        outbox.close(close::POLICY, "no");
        outbox.close(close::BAD_FRAME, "too late");
        assert!(outbox.is_cut());
        assert!(matches!(outbox.next(), Next::Close(closing) if closing.code == close::POLICY));
    }

    #[tokio::test]
    async fn those_who_wait_for_room_go_on_when_there_is_some() {
        let outbox = Outbox::new(1_000);
        (0..12).for_each(|_| outbox.push(wire(100)));
        assert!(outbox.room().now_or_never().is_none());
        let waiting = tokio::spawn({
            let outbox = outbox.clone();
            async move {
                outbox.room().await;
                let at_room = outbox.bytes();
                outbox.drained().await;
                (at_room, outbox.bytes())
            }
        });
        let emptying = async {
            while outbox.bytes() > 0 {
                write(&outbox);
                tokio::task::yield_now().await;
            }
        };
        let (_, levels) = tokio::join!(emptying, tokio::time::timeout(Duration::from_secs(5), waiting));
        let (at_room, at_half) = levels.unwrap().unwrap();
        assert!(at_room <= 1_000 && at_half <= 500, "{at_room} {at_half}");
    }

    #[tokio::test]
    async fn closing_wakes_everybody() {
        let outbox = Outbox::new(100);
        (0..2).for_each(|_| outbox.push(wire(100)));
        let all = async { tokio::join!(outbox.room(), outbox.drained(), outbox.closing(), outbox.cut()) };
        let close = async { outbox.close(close::POLICY, "done") };
        let both = async { tokio::join!(all, close) };
        tokio::time::timeout(Duration::from_secs(5), both).await.unwrap();
    }
}
