//! How often the same thing is said in the log: callers who are refused come again, and are many. Pure.

use std::time::{Duration, Instant};

/// Lines in each [`PERIOD`].
const LINES: u32 = 200;
const PERIOD: Duration = Duration::from_secs(1);

/// What was said in this period, and what was not since something was said last.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    said: u32,
    silent: u64,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, said: 0, silent: 0 }
    }

    /// Whether a line may be written now; with it comes how many were not since the last one.
    pub(super) fn say(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.began) >= PERIOD {
            (self.began, self.said) = (now, 0);
        }
        if self.said == LINES {
            self.silent += 1;
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.silent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_counted() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin);
        let said = (0..1000).filter_map(|_| pace.say(begin)).count();
        assert_eq!(said, 200);
        assert_eq!(pace.say(begin + PERIOD), Some(800));
        assert_eq!(pace.say(begin + PERIOD), Some(0));
    }
}
