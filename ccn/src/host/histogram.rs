//! Quantiles of what calls take, in a fixed amount of memory and without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

/// Steps from one power of two to the next: a quantile is at most an eighth too high.
const STEPS: usize = 8;
/// Bits of a step.
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Numbers below `STEPS` have a place each; each further power of two has `STEPS` places.
const PLACES: usize = STEPS * (64 - STEP_BITS as usize + 1);

/// How often which number was seen.
pub(super) struct Histogram {
    counts: Box<[AtomicU64; PLACES]>,
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Histogram").field("median", &self.quantile(50)).finish_non_exhaustive()
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: Box::new([const { AtomicU64::new(0) }; PLACES]) }
    }
}

impl Histogram {
    /// Counts a number.
    pub(super) fn add(&self, number: u64) {
        self.counts[place_of(number)].fetch_add(1, Ordering::Relaxed);
    }

    /// A number that so many percent of those seen do not exceed; zero when none was seen.
    pub(super) fn quantile(&self, percent: u64) -> u64 {
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let wanted = (counts.iter().sum::<u64>() * percent).div_ceil(100);
        let mut seen = 0;
        for (place, count) in counts.iter().enumerate() {
            seen += count;
            if seen >= wanted.max(1) {
                return highest_of(place);
            }
        }
        0
    }
}

fn place_of(number: u64) -> usize {
    if number < STEPS as u64 {
        return number as usize;
    }
    let shift = number.ilog2() - STEP_BITS;
    let step = (number >> shift) as usize - STEPS;
    STEPS * (shift as usize + 1) + step
}

/// The highest number that is counted at a place.
fn highest_of(place: usize) -> u64 {
    if place < STEPS {
        return place as u64;
    }
    let (shift, step) = (place / STEPS - 1, place % STEPS);
    let first = ((STEPS + step) as u128) << shift;
    u64::try_from(first + (1_u128 << shift) - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantiles_are_of_what_was_seen() {
        let seen = Histogram::default();
        assert_eq!(seen.quantile(50), 0);
        (1..=100).for_each(|number| seen.add(number));
        assert!((50..=56).contains(&seen.quantile(50)) && (99..=111).contains(&seen.quantile(99)));
        seen.add(u64::MAX);
        assert_eq!(seen.quantile(100), u64::MAX);
    }

    proptest! {
        #[test]
        fn a_number_is_at_most_an_eighth_below_the_highest_of_its_place(number: u64) {
            let highest = highest_of(place_of(number));
            prop_assert!(highest >= number && highest - number <= number / 8);
            prop_assert!(place_of(number) < PLACES);
        }
    }
}
