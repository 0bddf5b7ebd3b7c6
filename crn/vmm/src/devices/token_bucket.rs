//! A bound on how much of the host a guest takes over time: so much at once, so much per second.
//!
//! The time is passed in, as time since any fixed moment, so that a bucket is plain data. It keeps the moment at
//! which it will be full again: what is taken moves that moment away, time brings it nearer.

use serde::{Deserialize, Serialize};
use std::time::Duration;

const NANOSECONDS_PER_SECOND: u128 = 1_000_000_000;

/// What a bucket holds and how fast it fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Tokens that come back in a second; at least one does.
    pub per_second: u64,
    /// Tokens that can be taken at once after a rest.
    pub burst: u64,
}

impl Rate {
    /// So many a second, and at once what comes back in 50 ms.
    #[must_use]
    pub const fn of(per_second: u64) -> Self {
        let burst = per_second / 20;
        Self { per_second, burst: if burst == 0 { 1 } else { burst } }
    }

    /// How long that many tokens take to come back.
    fn time_for(self, tokens: u64) -> Duration {
        let per_second = u128::from(self.per_second.max(1));
        let nanoseconds = (u128::from(tokens) * NANOSECONDS_PER_SECOND).div_ceil(per_second);
        // 584 years are as good as never.
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

/// A bucket of tokens; full at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    rate: Rate,
    full_at: Duration,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub const fn new(rate: Rate) -> Self {
        Self { rate, full_at: Duration::ZERO }
    }

    /// How long to wait until that many tokens are there; zero when they are. More than a full bucket has are
    /// as many as it has: whoever asks for them waits until it is full, not for ever.
    #[must_use]
    pub fn wait_for(&self, tokens: u64, now: Duration) -> Duration {
        let tokens = tokens.min(self.rate.burst);
        self.after(tokens, now).saturating_sub(now).saturating_sub(self.rate.time_for(self.rate.burst))
    }

    /// Takes tokens that [`Self::wait_for`] says are there. Any more are owed.
    pub fn take(&mut self, tokens: u64, now: Duration) {
        self.full_at = self.after(tokens.min(self.rate.burst), now);
    }

    /// When it is full again after that many were taken.
    fn after(&self, tokens: u64, now: Duration) -> Duration {
        self.full_at.max(now).saturating_add(self.rate.time_for(tokens))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: Rate = Rate { per_second: 100, burst: 50 };
    const START: Duration = Duration::from_secs(1000);

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_its_pace() {
        let mut bucket = TokenBucket::new(RATE);
        assert_eq!(bucket.wait_for(50, START), Duration::ZERO);
        bucket.take(50, START);
        assert_eq!(bucket.wait_for(1, START), Duration::from_millis(10));
        let later = START + Duration::from_millis(10);
        assert_eq!((bucket.wait_for(1, later), bucket.wait_for(2, later)), (Duration::ZERO, Duration::from_millis(10)));
        // A long rest fills it, and no more than that.
        let rested = START + Duration::from_secs(3600);
        bucket.take(50, rested);
        assert_eq!(bucket.wait_for(1, rested), Duration::from_millis(10));
    }

    #[test]
    fn more_than_a_full_bucket_is_a_full_bucket() {
        let mut bucket = TokenBucket::new(RATE);
        assert_eq!(bucket.wait_for(u64::MAX, START), Duration::ZERO);
        bucket.take(u64::MAX, START);
        assert_eq!(bucket.wait_for(u64::MAX, START), Duration::from_millis(500));
    }

    #[test]
    fn a_bucket_that_hardly_fills_is_no_error() {
        let mut bucket = TokenBucket::new(Rate { per_second: 0, burst: u64::MAX });
        bucket.take(u64::MAX, Duration::MAX);
        assert_eq!(bucket.wait_for(1, Duration::MAX), Duration::ZERO);
    }

    proptest! {
        /// Whoever takes what is there, whenever, never has more than a burst and what came back meanwhile; and
        /// whoever waits as long as it was told has what it waited for.
        #[test]
        fn nobody_takes_more_than_there_is(
            per_second in 1..10_000_u64,
            burst in 1..10_000_u64,
            asked in proptest::collection::vec((0..20_000_u64, 0..5_000_u64, any::<bool>()), 1..60),
        ) {
            let mut bucket = TokenBucket::new(Rate { per_second, burst });
            let (mut now, mut taken) = (START, 0_u64);
            for (tokens, pause_ms, waits) in asked {
                now += Duration::from_millis(pause_ms);
                let wait = bucket.wait_for(tokens, now);
                if waits {
                    now += wait;
                    prop_assert_eq!(bucket.wait_for(tokens, now), Duration::ZERO);
                } else if !wait.is_zero() {
                    continue;
                }
                bucket.take(tokens, now);
                taken += tokens.min(burst);
                let most = u128::from(burst) + (now - START).as_nanos() * u128::from(per_second) / NANOSECONDS_PER_SECOND;
                prop_assert!(u128::from(taken) <= most, "{taken} of {most}");
            }
        }
    }
}
