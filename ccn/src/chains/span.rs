//! How many blocks to ask for at once: as many as the provider bears. No I/O.

/// A width that halves when it was too much and grows again when it was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    width: u64,
    most: u64,
}

impl Span {
    /// Begins with the most.
    pub(super) fn new(most: u64) -> Self {
        Self { width: most.max(1), most: most.max(1) }
    }

    /// Blocks to ask for.
    pub(super) fn width(self) -> u64 {
        self.width
    }

    /// So many were too much. False when it cannot be less.
    pub(super) fn shrink(&mut self, asked: u64) -> bool {
        let asked = asked.clamp(1, self.width);
        self.width = (asked / 2).max(1);
        asked > 1
    }

    /// That went well. It grows by a quarter: where a limit is, it is met once in four answers and not every second time.
    pub(super) fn grow(&mut self) {
        self.width = self.width.saturating_add(self.width / 4 + 1).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever limit a provider has, and however it changes, everything is asked for, and few questions are refused.
        #[test]
        fn every_limit_is_found(most in 1..100_000_u64, limit in 1..100_000_u64, total in 1..1_000_000_u64) {
            let mut span = Span::new(most);
            let (mut next, mut refused, mut answered) = (0, 0_u64, 0_u64);
            while next < total {
                let asked = span.width().min(total - next);
                if asked > limit {
                    prop_assert!(span.shrink(asked), "a limit of at least one block");
                    refused += 1;
                } else {
                    next += asked;
                    answered += 1;
                    span.grow();
                }
                prop_assert!((1..=most).contains(&span.width()));
                prop_assert!(answered + refused < 5_000_000);
            }
            // Finding it takes the logarithm; afterwards at most one in three is refused.
            prop_assert!(refused <= 18 + answered / 2, "{refused} of {answered}");
        }
    }

    #[test]
    fn one_block_is_not_halved() {
        let mut span = Span::new(3);
        assert!(span.shrink(3) && span.width() == 1);
        assert!(!span.shrink(1) && span.width() == 1);
        span.grow();
        assert_eq!(span.width(), 2);
        assert_eq!(Span::new(0).width(), 1);
    }
}
