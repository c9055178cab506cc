//! Chance that can be repeated: every draw follows from a seed that the test prints.

use std::time::Duration;

/// A small generator (xorshift), seeded from `SEED` if that is set.
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    /// Prints its seed, so that a failure can be repeated.
    pub(crate) fn new(test: &str) -> Self {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| rejoin::ids::beat().unsigned_abs() | 1);
        println!("{test}: SEED={seed}");
        Self(seed | 1)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end.max(1)
    }

    /// A generator of its own that follows from this one, for work that runs beside other work.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.below(u64::MAX) | 1)
    }

    /// A pause of up to `micros` microseconds, for races: nothing depends on its length.
    pub(crate) fn pause(&mut self, micros: u64) -> impl Future<Output = ()> + use<> {
        tokio::time::sleep(Duration::from_micros(self.below(micros)))
    }
}
