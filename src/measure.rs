//! What parts measure with: how often something took how long, or was how large.
//!
//! Knows no name and nobody who reads. It takes no lock, so that the busiest path may observe. Its invariant: a reading's
//! count is that of its buckets, and neither ever goes back.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Bounds for what should take milliseconds, in microseconds.
const QUICK: &[u64] = &[
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];
/// Bounds for what may take minutes, in microseconds.
const SLOW: &[u64] = &[
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
    300_000_000,
    600_000_000,
];
/// Bounds for numbers of things.
const NUMBERS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

/// A distribution of what was observed.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// What a unit of the observed numbers is in that of the readings.
    unit: f64,
    /// One for each bound, and one for what is beyond the last.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// A distribution as it was at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Of everything that was observed.
    pub sum: f64,
    /// How often anything was.
    pub count: u64,
    /// The upper bound of each bucket, and how often something fell into this bucket and none before; the last is
    /// infinite.
    pub buckets: Vec<(f64, u64)>,
}

impl Histogram {
    /// Of seconds, finely below a second.
    pub fn quick() -> Self {
        Self::new(QUICK, 1e-6)
    }

    /// Of seconds, up to ten minutes.
    pub fn slow() -> Self {
        Self::new(SLOW, 1e-6)
    }

    /// Of numbers, up to 512.
    pub fn numbers() -> Self {
        Self::new(NUMBERS, 1.0)
    }

    fn new(bounds: &'static [u64], unit: f64) -> Self {
        let buckets = std::iter::repeat_with(AtomicU64::default).take(bounds.len() + 1).collect();
        Self { bounds, unit, buckets, sum: AtomicU64::new(0) }
    }

    /// Something took so long.
    pub fn took(&self, time: Duration) {
        self.observe(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// There were so many.
    pub fn were(&self, number: usize) {
        self.observe(u64::try_from(number).unwrap_or(u64::MAX));
    }

    fn observe(&self, value: u64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// What was observed so far.
    pub fn read(&self) -> Reading {
        let bounds = self.bounds.iter().map(|bound| *bound as f64 * self.unit).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> =
            bounds.zip(&self.buckets).map(|(bound, bucket)| (bound, bucket.load(Ordering::Relaxed))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        Reading { sum: self.sum.load(Ordering::Relaxed) as f64 * self.unit, count, buckets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_observed_falls_into_the_first_bucket_that_takes_it() {
        let numbers = Histogram::numbers();
        [0, 1, 2, 3, 512, 513, usize::MAX].into_iter().for_each(|number| numbers.were(number));
        let reading = numbers.read();
        let of = |bound: f64| reading.buckets.iter().find(|(upper, _)| *upper == bound).unwrap().1;
        assert_eq!((of(1.0), of(2.0), of(4.0), of(512.0), of(f64::INFINITY)), (2, 1, 1, 1, 2));
        assert_eq!(reading.count, 7);
    }

    #[test]
    fn times_are_read_in_seconds() {
        let times = Histogram::quick();
        times.took(Duration::from_millis(20));
        times.took(Duration::from_secs(3));
        let reading = times.read();
        assert!((reading.sum - 3.02).abs() < 1e-9, "{reading:?}");
        let full: Vec<f64> = reading.buckets.iter().filter(|(_, n)| *n > 0).map(|(bound, _)| *bound).collect();
        assert!(full.len() == 2 && (full[0] - 0.025).abs() < 1e-9 && (full[1] - 5.0).abs() < 1e-9, "{full:?}");
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let numbers = Histogram::numbers();
        std::thread::scope(|scope| {
            (0..4).for_each(|_| _ = scope.spawn(|| (0..1_000).for_each(|number| numbers.were(number % 8))));
        });
        let reading = numbers.read();
        assert_eq!((reading.count, reading.sum), (4_000, 14_000.0));
    }
}
