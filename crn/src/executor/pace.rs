//! How often the same thing is said in the log: callers who are refused come again, and are many. Pure.

use std::time::Instant;
use vmm::devices::token_bucket::{Rate, TokenBucket};

/// Lines a second, and at once after a silence.
const LINES: Rate = Rate { per_second: 200, burst: 200 };

/// What may still be said, and what was not since something was said last.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    lines: TokenBucket,
    silent: u64,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, lines: TokenBucket::new(LINES), silent: 0 }
    }

    /// Whether a line may be written now; with it comes how many were not since the last one.
    pub(super) fn say(&mut self, now: Instant) -> Option<u64> {
        let now = now.saturating_duration_since(self.began);
        if !self.lines.wait_for(1, now).is_zero() {
            self.silent += 1;
            return None;
        }
        self.lines.take(1, now);
        Some(std::mem::take(&mut self.silent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_is_too_much_is_counted() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin);
        let said = (0..1000).filter_map(|_| pace.say(begin)).count();
        assert_eq!(said, 200);
        assert_eq!(pace.say(begin + Duration::from_secs(1)), Some(800));
        assert_eq!(pace.say(begin + Duration::from_secs(1)), Some(0));
    }
}
