//! How fast a client may send.
//!
//! Knows no frame. A client that sends faster than it may is refused, and told so; one that goes on regardless is to be
//! closed. The invariant: whatever a client sends, it is answered at most at its rate and so many refusals beside.

use std::{num::NonZeroU32, time::Duration};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::channel::Options;

/// How many seconds' worth of refusals a client is given at once.
const REFUSALS: u32 = 10;

/// What is to be done with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may come.
    Take,
    /// It comes too soon.
    Refuse,
    /// The client was refused often enough.
    Close,
}

/// The pace of one connection.
pub(super) struct Pace {
    frames: Option<DefaultDirectRateLimiter>,
    joins: Option<DefaultDirectRateLimiter>,
    refusals: Option<DefaultDirectRateLimiter>,
}

impl Pace {
    pub(super) fn new(options: &Options) -> Self {
        let (frames, joins) = (options.rate_limit, options.join_limit);
        // Whoever comes back joins all that it had at once.
        let topics = u32::try_from(options.max_topics).unwrap_or(u32::MAX);
        let burst = |rate: NonZeroU32, least: u32| rate.get().saturating_add(topics.max(least));
        Self {
            frames: frames.map(|rate| limiter(rate, burst(rate, rate.get()))),
            joins: joins.map(|rate| limiter(rate, burst(rate, 0))),
            refusals: frames.or(joins).map(refusals),
        }
    }

    /// One more frame.
    pub(super) fn frame(&self) -> Verdict {
        self.judge(self.frames.as_ref())
    }

    /// One more join, which was counted as a frame already.
    pub(super) fn join(&self) -> Verdict {
        self.judge(self.joins.as_ref())
    }

    fn judge(&self, limiter: Option<&DefaultDirectRateLimiter>) -> Verdict {
        let within = |limiter: Option<&DefaultDirectRateLimiter>| limiter.is_none_or(|limiter| limiter.check().is_ok());
        if within(limiter) {
            Verdict::Take
        } else if within(self.refusals.as_ref()) {
            Verdict::Refuse
        } else {
            Verdict::Close
        }
    }
}

fn limiter(rate: NonZeroU32, burst: u32) -> DefaultDirectRateLimiter {
    RateLimiter::direct(Quota::per_second(rate).allow_burst(NonZeroU32::new(burst).unwrap_or(rate)))
}

/// As many as ten seconds of the rate, and a tenth of the rate again each second: who is a little too fast is refused
/// for ever, who is much too fast is found out soon.
fn refusals(rate: NonZeroU32) -> DefaultDirectRateLimiter {
    let burst = NonZeroU32::new(rate.get().saturating_mul(REFUSALS)).unwrap_or(rate);
    let each = Duration::from_secs(REFUSALS.into()) / rate.get();
    RateLimiter::direct(Quota::with_period(each).unwrap_or(Quota::per_second(rate)).allow_burst(burst))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(rate_limit: u32, join_limit: u32, max_topics: usize) -> Pace {
        let (rate_limit, join_limit) = (NonZeroU32::new(rate_limit), NonZeroU32::new(join_limit));
        Pace::new(&Options { rate_limit, join_limit, max_topics, ..Options::default() })
    }

    /// How often each verdict is given in so many tries at once.
    fn count(tries: usize, mut verdict: impl FnMut() -> Verdict) -> [usize; 3] {
        let given: Vec<Verdict> = (0..tries).map(|_| verdict()).collect();
        assert!(given.is_sorted_by_key(|verdict| *verdict as u8), "{given:?}");
        [Verdict::Take, Verdict::Refuse, Verdict::Close].map(|which| given.iter().filter(|v| **v == which).count())
    }

    // A rate of one a second stands still for as long as a test runs.
    #[test]
    fn a_burst_is_taken_then_refused_then_closed() {
        let slow = pace(1, 0, 1);
        assert_eq!(count(20, || slow.frame()), [2, 10, 8]);
        // Who holds many topics may come back with all of them at once.
        assert_eq!(count(20, || pace(1, 0, 9).frame())[0], 20, "each has a pace of its own");
        let wide = pace(1, 0, 9);
        assert_eq!(count(30, || wide.frame()), [10, 10, 10]);
    }

    #[test]
    fn joins_have_a_rate_of_their_own_and_share_the_refusals() {
        let slow = pace(1, 1, 5);
        assert_eq!(count(7, || slow.join()), [6, 1, 0]);
        assert_eq!(count(20, || slow.frame()), [6, 9, 5]);
    }

    #[test]
    fn without_rates_everything_is_taken() {
        let free = pace(0, 0, 1);
        assert_eq!(count(5_000, || free.frame()), [5_000, 0, 0]);
        assert_eq!(count(5_000, || free.join()), [5_000, 0, 0]);
        let joins = pace(0, 1, 1);
        assert_eq!(count(5_000, || joins.frame()), [5_000, 0, 0]);
        assert_eq!(count(20, || joins.join()), [2, 10, 8]);
    }

    #[test]
    fn a_pace_is_small() {
        assert!(size_of::<Pace>() <= 192, "{} bytes", size_of::<Pace>());
    }
}
