//! What to do next. No I/O.

use std::time::Duration;

/// Blocks that are asked for one by one and kept together.
const MAX_BLOCKS_A_STEP: u64 = 32;
/// Most blocks that are followed beyond the final ones: where a chain stops agreeing, so does what is kept to take blocks back.
pub(super) const MAX_UNSETTLED: u64 = 4096;
/// Blocks on top of one after which it is taken for final where the provider does not say what is.
pub(super) const USUAL_DEPTH: u64 = 64;

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask for the events of these blocks, which are final.
    Range { from: u64, to: u64 },
    /// Ask for these blocks one by one: they may yet be taken back.
    Blocks { from: u64, to: u64 },
    /// Nothing is new.
    Wait,
}

/// The step from a block on, where blocks below `settled` are final, the newest is `head`, and `width` blocks may be asked for at once.
pub(super) fn step(next: u64, settled: u64, head: u64, width: u64) -> Step {
    if next > head {
        return Step::Wait;
    }
    let last = |most: u64, end: u64| next.saturating_add(most - 1).min(end);
    if next < settled {
        return Step::Range { from: next, to: last(width.max(1), head.min(settled - 1)) };
    }
    let most = settled.saturating_add(MAX_UNSETTLED).saturating_sub(next);
    if most == 0 {
        return Step::Wait;
    }
    Step::Blocks { from: next, to: last(most.min(MAX_BLOCKS_A_STEP), head) }
}

/// The height below which blocks are final: what the provider calls final, or so many blocks under the newest. It never falls.
pub(super) fn settled(known: u64, head: u64, finalized: Option<u64>, depth: Option<u64>) -> u64 {
    let found = match (depth, finalized) {
        (Some(depth), _) => (head + 1).saturating_sub(depth),
        // A provider that calls a block final that it does not have is of two minds.
        (None, Some(height)) => height.min(head) + 1,
        (None, None) => (head + 1).saturating_sub(USUAL_DEPTH),
    };
    found.max(known)
}

/// How long to wait after failures, longer each time.
#[derive(Debug)]
pub(crate) struct Pauses {
    first: Duration,
    most: Duration,
    pauses: backon::ExponentialBackoff,
}

impl Pauses {
    /// Begins with `first` and doubles up to `most`, each a little different, so that many nodes do not come back at one moment.
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, pauses: pauses(first, most) }
    }

    /// The next pause; at least as long as the other side asks for.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let pause = self.pauses.next().unwrap_or(self.most).min(self.most);
        pause.max(asked.unwrap_or_default())
    }

    /// That went well.
    pub(crate) fn reset(&mut self) {
        self.pauses = pauses(self.first, self.most);
    }
}

fn pauses(first: Duration, most: Duration) -> backon::ExponentialBackoff {
    use backon::BackoffBuilder as _;
    let builder = backon::ExponentialBuilder::default().with_min_delay(first).with_max_delay(most);
    builder.with_factor(2.0).with_jitter().without_max_times().build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_final_is_asked_for_in_ranges_and_the_rest_by_blocks() {
        assert_eq!(step(0, 100, 163, 1000), Step::Range { from: 0, to: 99 });
        assert_eq!(step(0, 100, 163, 10), Step::Range { from: 0, to: 9 });
        assert_eq!(step(100, 100, 163, 10), Step::Blocks { from: 100, to: 131 });
        assert_eq!(step(160, 100, 163, 10), Step::Blocks { from: 160, to: 163 });
        assert_eq!(step(164, 100, 163, 10), Step::Wait);
        // A provider that has fallen behind what was final.
        assert_eq!(step(50, 100, 60, 1000), Step::Range { from: 50, to: 60 });
        assert_eq!(step(100 + MAX_UNSETTLED, 100, u64::MAX, 10), Step::Wait);
        assert_eq!(step(99 + MAX_UNSETTLED, 100, 1 << 40, 10), Step::Blocks { from: 4195, to: 4195 });
    }

    #[test]
    fn what_is_final_stays_so() {
        assert_eq!(settled(0, 100, Some(90), None), 91);
        assert_eq!(settled(95, 100, Some(90), None), 95);
        assert_eq!(settled(0, 100, Some(200), None), 101);
        assert_eq!(settled(0, 100, None, None), 37);
        assert_eq!(settled(0, 10, None, None), 0);
        assert_eq!(settled(0, 100, Some(36), Some(3)), 98);
        assert_eq!(settled(0, 100, None, Some(0)), 101);
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut pauses = Pauses::new(first, most);
        let all: Vec<Duration> = (0..40).map(|_| pauses.next(None)).collect();
        assert!(all.iter().all(|pause| (first..=most).contains(pause)), "{all:?}");
        assert!(all[0] < all[3] && all[39] == most, "{all:?}");
        assert_eq!(pauses.next(Some(Duration::from_secs(60))), Duration::from_secs(60));
        pauses.reset();
        assert!(pauses.next(None) <= first * 2);
    }

    proptest! {
        /// Every block is followed once, in order, whatever the widths; only final ones in ranges.
        #[test]
        fn no_block_is_left_out(start in 0..50_u64, settled in 0..300_u64, head in 0..400_u64, widths in proptest::collection::vec(0..40_u64, 1..50)) {
            let mut next = start;
            let mut widths = widths.iter().cycle();
            loop {
                let width = *widths.next().expect("a cycle");
                let (from, to) = match step(next, settled, head, width) {
                    Step::Range { from, to } => {
                        prop_assert!(to < settled && to - from < width.max(1));
                        (from, to)
                    }
                    Step::Blocks { from, to } => {
                        prop_assert!(from >= settled && to - from < MAX_BLOCKS_A_STEP);
                        (from, to)
                    }
                    Step::Wait => break,
                };
                prop_assert!(from == next && to >= from && to <= head);
                next = to + 1;
            }
            prop_assert_eq!(next, start.max(head + 1));
        }
    }
}
