//! How often each of many may do something.
//!
//! Knows neither what is done nor who they are. Its invariant: only those who did something a moment ago are
//! remembered, so that it costs no more than what they did.

use std::{
    hash::Hash,
    num::NonZeroU32,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    state::keyed::HashMapStateStore,
};

/// How many are remembered before those are forgotten who could as well be new.
const KEPT: usize = 1_024;

/// A rate for each key.
pub struct Rates<K: Hash + Eq + Clone> {
    limiter: Option<RateLimiter<K, HashMapStateStore<K>, DefaultClock>>,
    /// How many are remembered when it is next tidied.
    tidy_at: AtomicUsize,
}

impl<K: Hash + Eq + Clone> Rates<K> {
    /// So many a second, and `burst` at once; any number without a rate.
    pub fn new(rate: Option<NonZeroU32>, burst: u32) -> Self {
        let quota = |rate| Quota::per_second(rate).allow_burst(NonZeroU32::new(burst).unwrap_or(rate));
        Self { limiter: rate.map(|rate| RateLimiter::hashmap(quota(rate))), tidy_at: AtomicUsize::new(KEPT) }
    }

    /// Takes one of `key`'s.
    ///
    /// # Errors
    /// How long to wait until there is one.
    pub fn take(&self, key: &K) -> Result<(), Duration> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        let taken = limiter.check_key(key).map_err(|until| until.wait_time_from(limiter.clock().now()));
        if limiter.len() >= self.tidy_at.load(Ordering::Relaxed) {
            limiter.retain_recent();
            limiter.shrink_to_fit();
            self.tidy_at.store(KEPT.max(2 * limiter.len()), Ordering::Relaxed);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_a_rate_of_its_own() {
        let rates = Rates::new(NonZeroU32::new(1), 3);
        for key in ["ada", "ben"] {
            for _ in 0..3 {
                assert_eq!(rates.take(&key), Ok(()), "{key}");
            }
            let wait = rates.take(&key).unwrap_err();
            assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        }
    }

    #[test]
    fn without_a_rate_nothing_is_counted() {
        let rates = Rates::new(None, 1);
        assert!((0..1_000).all(|_| rates.take(&"ada").is_ok()));
    }

    #[test]
    fn those_who_could_as_well_be_new_are_forgotten() {
        // A thousand a microsecond: whoever came before is as good as new at once.
        let rates = Rates::new(NonZeroU32::new(1_000_000_000), 1);
        (0..100 * KEPT).for_each(|key| assert_eq!(rates.take(&key), Ok(())));
        assert!(rates.limiter.unwrap().len() <= 2 * KEPT);
    }
}
