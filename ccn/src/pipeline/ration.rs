//! A ration of time for work that few senders can make long for all: putting movements of credits in order, running a plugin of the operator's own.
//! No I/O; the clock is given.
//!
//! A movement that comes late has everything made anew that transfers link it with, and nothing bounds how much that is. It is never refused for that,
//! or two nodes would differ by the order of arrival: once the ration is used up, movements wait, and everything else goes on.

use std::time::{Duration, Instant};

/// One part in so many of all time.
const SHARE: u32 = 4;
/// What may be saved up.
const MOST: Duration = Duration::from_millis(250);

/// What is left of the ration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ration {
    /// One part in so many of all time.
    share: u32,
    /// What may be saved up.
    most: Duration,
    left: Duration,
    /// Used beyond what was there; it is made up for first.
    owed: Duration,
    since: Instant,
}

impl Ration {
    /// A full one, for putting movements in order.
    pub(super) fn new(now: Instant) -> Self {
        Self::of(SHARE, MOST, now)
    }

    /// A full one of that size.
    pub(crate) fn of(share: u32, most: Duration, now: Instant) -> Self {
        Self { share, most, left: most, owed: Duration::ZERO, since: now }
    }

    /// True when work may begin. How long it takes is known only afterwards.
    pub(crate) fn may_begin(&mut self, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.since) / self.share;
        self.since = self.since.max(now);
        self.left = (self.left + gained.saturating_sub(self.owed)).min(self.most);
        self.owed = self.owed.saturating_sub(gained);
        !self.left.is_zero()
    }

    /// Work took so long.
    pub(crate) fn used(&mut self, time: Duration) {
        self.owed += time.saturating_sub(self.left);
        self.left = self.left.saturating_sub(time);
    }

    /// Work may begin once, whatever is owed: nobody else wants the time. Nothing is saved up by that for when somebody does.
    pub(crate) fn forgive(&mut self) {
        self.owed = Duration::ZERO;
        self.left = self.left.max(Duration::from_nanos(1));
    }

    /// How long until work may begin.
    pub(crate) fn wait(&self) -> Duration {
        if self.left.is_zero() { (self.owed + Duration::from_millis(1)) * self.share } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_work_is_made_up_for() {
        let start = Instant::now();
        let at = |milliseconds: u64| start + Duration::from_millis(milliseconds);
        let mut ration = Ration::new(start);
        assert!(ration.may_begin(at(0)));
        ration.used(Duration::from_millis(100));
        assert!(ration.may_begin(at(0)), "it was saved up");
        // A hundred and fifty were left.
        ration.used(Duration::from_millis(400));
        assert!(!ration.may_begin(at(0)) && !ration.may_begin(at(1000)));
        assert_eq!(ration.wait(), Duration::from_millis(4));
        assert!(ration.may_begin(at(1004)));
        ration.used(Duration::from_millis(1));
        assert!(!ration.may_begin(at(1004)));
        assert!(ration.may_begin(at(1_000_000)));
        ration.used(MOST);
        assert!(!ration.may_begin(at(1_000_000)), "no more than the most is saved up");
        ration.used(MOST);
        ration.forgive();
        assert!(ration.may_begin(at(1_000_000)), "what was owed is forgiven");
        ration.used(Duration::from_millis(1));
        assert!(!ration.may_begin(at(1_000_000)), "and no more is given");
    }
}
