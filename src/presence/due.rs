//! What waits for its time: topics with changes that are not published yet.
//!
//! Knows neither topics nor publishing. Its invariant: what was taken in comes out once, in the order of its time, or
//! from [`Due::close`]; after that nothing is taken in.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Notify, time::Instant};

/// Values, each with the time at which it is due. Bounded by its users: each has at most one value in it.
pub(super) struct Due<T> {
    waiting: Mutex<Waiting<T>>,
    /// Rung when what is due first has changed.
    bell: Notify,
}

struct Waiting<T> {
    heap: BinaryHeap<Reverse<Timed<T>>>,
    open: bool,
}

struct Timed<T> {
    at: Instant,
    value: T,
}

impl<T> Due<T> {
    /// Takes nothing in before it is opened.
    pub(super) fn new() -> Self {
        Self { waiting: Mutex::new(Waiting { heap: BinaryHeap::new(), open: false }), bell: Notify::new() }
    }

    /// Takes values in from now on.
    pub(super) fn open(&self) {
        self.lock().open = true;
    }

    /// Whether `value` was taken in.
    #[must_use]
    pub(super) fn add(&self, at: Instant, value: T) -> bool {
        let mut waiting = self.lock();
        if !waiting.open {
            return false;
        }
        let first = waiting.heap.peek().is_none_or(|Reverse(first)| at < first.at);
        waiting.heap.push(Reverse(Timed { at, value }));
        drop(waiting);
        if first {
            self.bell.notify_one();
        }
        true
    }

    /// One value whose time has come.
    pub(super) fn pop(&self, now: Instant) -> Option<T> {
        let mut waiting = self.lock();
        if waiting.heap.peek().is_none_or(|Reverse(first)| first.at > now) {
            return None;
        }
        waiting.heap.pop().map(|Reverse(timed)| timed.value)
    }

    /// Takes nothing in any more; what still waits.
    pub(super) fn close(&self) -> Vec<T> {
        let mut waiting = self.lock();
        waiting.open = false;
        std::mem::take(&mut waiting.heap).into_iter().map(|Reverse(timed)| timed.value).collect()
    }

    /// Waits until the first value is due; for one waiter. Without any value it sets no timer. Cancel safe.
    pub(super) async fn ready(&self) {
        loop {
            let first = self.lock().heap.peek().map(|Reverse(first)| first.at);
            match first {
                None => self.bell.notified().await,
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => return,
                    () = self.bell.notified() => {}
                },
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> PartialEq for Timed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl<T> Eq for Timed<T> {}

impl<T> PartialOrd for Timed<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Timed<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.cmp(&other.at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn values_come_out_in_the_order_of_their_time_and_not_before() {
        let (due, now) = (Due::new(), Instant::now());
        due.open();
        for (after, value) in [(3, "c"), (1, "a"), (2, "b")] {
            assert!(due.add(now + Duration::from_secs(after), value));
        }
        assert_eq!(due.pop(now), None);
        let at = now + Duration::from_secs(2);
        assert_eq!((due.pop(at), due.pop(at), due.pop(at)), (Some("a"), Some("b"), None));
        assert_eq!(due.close(), ["c"]);
    }

    #[test]
    fn nothing_is_taken_in_before_the_beginning_and_after_the_end() {
        let due = Due::new();
        assert!(!due.add(Instant::now(), 1));
        due.open();
        assert!(due.add(Instant::now(), 2));
        assert_eq!(due.close(), [2]);
        assert!(!due.add(Instant::now(), 3));
        assert!(due.close().is_empty());
    }

    #[tokio::test]
    async fn an_earlier_value_wakes_who_waits_for_a_later_one() {
        let (due, now) = (Due::new(), Instant::now());
        due.open();
        assert!(due.add(now + Duration::from_secs(3_600), "late"));
        let wait = tokio::time::timeout(Duration::from_secs(10), due.ready());
        let (ready, ()) = tokio::join!(wait, async { assert!(due.add(now, "early")) });
        ready.unwrap();
        assert_eq!(due.pop(Instant::now()), Some("early"));
    }
}
