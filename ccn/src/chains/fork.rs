//! Where two histories part. No I/O.
//!
//! Blocks that are remembered follow one another by their hashes: when one of them stands, all before it do. So the last that stands is found by halving.

/// The search for the last block that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ForkSearch {
    /// Blocks below this one stand, as far as they are remembered.
    stands_below: u64,
    /// This block and those above it do not stand.
    gone_from: u64,
}

impl ForkSearch {
    /// Blocks from `lowest` on are remembered, and `gone` does not stand.
    pub(super) fn new(lowest: u64, gone: u64) -> Self {
        Self { stands_below: lowest.min(gone), gone_from: gone }
    }

    /// The height to ask about; none when it is found.
    pub(super) fn question(self) -> Option<u64> {
        (self.stands_below < self.gone_from).then(|| self.stands_below + (self.gone_from - self.stands_below) / 2)
    }

    /// The answer.
    pub(super) fn answer(&mut self, height: u64, stands: bool) {
        if stands {
            self.stands_below = self.stands_below.max(height.saturating_add(1)).min(self.gone_from);
        } else {
            self.gone_from = self.gone_from.min(height).max(self.stands_below);
        }
    }

    /// The first block that does not stand.
    pub(super) fn gone_from(self) -> u64 {
        self.gone_from
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_fork_is_found_in_few_questions(lowest in 0..10_000_u64, length in 1..5_000_u64, fork in 0..5_000_u64) {
            let top = lowest + length - 1;
            // The first block that is gone: any of those remembered.
            let fork = lowest + fork % length;
            let mut search = ForkSearch::new(lowest, top);
            let mut questions = 0;
            while let Some(height) = search.question() {
                prop_assert!((lowest..top).contains(&height));
                search.answer(height, height < fork);
                questions += 1;
                prop_assert!(questions <= 14);
            }
            prop_assert_eq!(search.gone_from(), fork);
        }

        /// A provider that answers as it likes ends the search all the same.
        #[test]
        fn lies_end(lowest in 0..1_000_u64, length in 1..1_000_u64, lies in proptest::collection::vec(any::<bool>(), 32)) {
            let mut search = ForkSearch::new(lowest, lowest + length - 1);
            for lie in lies {
                let Some(height) = search.question() else { break };
                search.answer(height, lie);
            }
            prop_assert_eq!(search.question(), None);
        }
    }
}
