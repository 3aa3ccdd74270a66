//! Random choices that can be made again: the seed is printed, and taken from `PRISTINE_TEST_SEED` where that is set.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// SplitMix64: enough for picking moments and files.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Seeded from the environment or the clock; prints which.
    pub fn new() -> Self {
        let clock = || {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(1, |since| u64::from(since.subsec_nanos()))
        };
        let seed = std::env::var("PRISTINE_TEST_SEED")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(clock);
        eprintln!("PRISTINE_TEST_SEED={seed}");
        Self(seed)
    }

    /// From a seed of another one, which was printed.
    pub fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.bits() % (limit as u64)).expect("below a usize")
    }

    /// A moment up to `limit`.
    pub fn up_to(&mut self, limit: Duration) -> Duration {
        let micros = u64::try_from(limit.as_micros()).expect("a short time");
        Duration::from_micros(self.bits() % micros.max(1))
    }
}

impl Default for Random {
    fn default() -> Self {
        Self::new()
    }
}
