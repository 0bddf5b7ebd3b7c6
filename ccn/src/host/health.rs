//! When a plugin that fails is not called any more. No I/O, no clock.

use super::failure::FailureClass;
use std::collections::VecDeque;

/// Calls that are looked back at for failures of any class.
const RECENT: usize = 100;
/// Failures among them that suspend a plugin.
const MOST_RECENT_FAILURES: usize = 20;
/// Calls that are looked back at for the node's own trouble.
const LONG: usize = 1_000;
/// The node's own troubles among them that suspend a plugin: more than one in a hundred.
const MOST_NODE_FAILURES: usize = LONG / 100;
/// With every so many failures among the recent calls, one that fails counts once more.
const FAILURES_PER_WEIGHT: usize = 5;

/// How the last calls of a plugin ended.
#[derive(Debug, Default)]
pub(super) struct Health {
    last: VecDeque<Option<FailureClass>>,
    recent_failures: usize,
    node_failures: usize,
}

impl Health {
    /// How often the time of a call that fails is taken off what the plugin may take: the more has failed of late, the smaller its share.
    pub(super) fn weight(&self) -> u32 {
        1 + u32::try_from(self.recent_failures / FAILURES_PER_WEIGHT).unwrap_or(u32::MAX - 1)
    }

    /// Counts a call. The reason to suspend the plugin, when there is one.
    pub(super) fn record(&mut self, failure: Option<FailureClass>) -> Option<String> {
        if let Some(leaving) = self.last.len().checked_sub(RECENT).and_then(|place| self.last.get(place)) {
            self.recent_failures -= usize::from(leaving.is_some());
        }
        if self.last.len() == LONG {
            let oldest = self.last.pop_front();
            self.node_failures -= usize::from(oldest == Some(Some(FailureClass::Node)));
        }
        self.last.push_back(failure);
        self.recent_failures += usize::from(failure.is_some());
        self.node_failures += usize::from(failure == Some(FailureClass::Node));
        if self.recent_failures >= MOST_RECENT_FAILURES {
            return Some(format!("{} of its last {} calls failed", self.recent_failures, self.last.len().min(RECENT)));
        }
        if self.node_failures > MOST_NODE_FAILURES {
            let calls = self.last.len();
            return Some(format!(
                "{} of its last {calls} calls could not be run to their end here",
                self.node_failures
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where in a sequence of calls a plugin is suspended.
    fn check(calls: impl IntoIterator<Item = Option<FailureClass>>, expect: Option<(usize, &str)>) {
        let mut health = Health::default();
        let found = calls.into_iter().enumerate().find_map(|(place, call)| Some((place, health.record(call)?)));
        match (found, expect) {
            (None, None) => {}
            (Some((place, reason)), Some((expected, words))) => {
                assert_eq!(place, expected, "{reason}");
                assert!(reason.contains(words), "{reason}");
            }
            (found, expect) => panic!("{found:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn a_plugin_that_fails_often_is_suspended() {
        let trap = Some(FailureClass::Deterministic);
        check(std::iter::repeat_n(trap, 30), Some((19, "20 of its last 20 calls failed")));
        // One in six is too few, one in four too many.
        check((0..6_000).map(|call| trap.filter(|_| call % 6 == 0)), None);
        check((0..6_000).map(|call| trap.filter(|_| call % 4 == 0)), Some((76, "20 of its last 77 calls failed")));
        // What is long ago does not count.
        let bursts = (0..5_000).map(|call| trap.filter(|_| call % 200 < 19));
        check(bursts, None);
    }

    #[test]
    fn who_fails_has_a_smaller_share() {
        let mut health = Health::default();
        let weights = (0..16).map(|_| {
            assert_eq!(health.record(Some(FailureClass::OutOfFuel)), None);
            health.weight()
        });
        assert_eq!(weights.collect::<Vec<_>>(), [1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 4, 4]);
        for _ in 0..100 {
            health.record(None);
        }
        assert_eq!(health.weight(), 1, "what is long ago does not count");
    }

    #[test]
    fn the_nodes_own_trouble_is_looked_at_for_longer() {
        let late = Some(FailureClass::Node);
        check((0..20_000).map(|call| late.filter(|_| call % 100 == 99)), None);
        check((0..20_000).map(|call| late.filter(|_| call % 90 == 89)), Some((989, "11 of its last 990 calls")));
    }
}
