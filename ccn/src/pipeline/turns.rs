//! When messages that wait for a plugin's time are taken up. No I/O; the clock is given.
//!
//! While messages come, a plugin of the operator's own has its ration and no more. When nothing has come for a while, nobody is kept waiting by it.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Without a message for so long, nobody else wants the time.
const QUIET: Duration = Duration::from_millis(100);
/// How often a message is taken up again that this node could not decide.
const MAX_RETRIES: u8 = 3;
/// Messages whose retries are counted at once; beyond it nothing is taken up again.
const MAX_COUNTED: usize = 10_000;

/// When the last message came, and who has another turn. A restart forgets it: what was tried before it is tried anew.
#[derive(Debug)]
pub(super) struct Turns {
    last_message: Cell<Instant>,
    retries: RefCell<BTreeMap<Vec<u8>, u8>>,
}

impl Turns {
    pub(super) fn new(now: Instant) -> Self {
        Self { last_message: Cell::new(now), retries: RefCell::default() }
    }

    /// A message has come.
    pub(super) fn came(&self, now: Instant) {
        self.last_message.set(now);
    }

    /// True when no message has come for a while.
    pub(super) fn is_quiet(&self, now: Instant) -> bool {
        self.until_quiet(now).is_zero()
    }

    /// How long until that may be.
    pub(super) fn until_quiet(&self, now: Instant) -> Duration {
        QUIET.saturating_sub(now.saturating_duration_since(self.last_message.get()))
    }

    /// Counts a try that came to nothing by the node's own trouble; false when it was the last.
    pub(super) fn may_retry(&self, message: &[u8]) -> bool {
        let mut retries = self.retries.borrow_mut();
        let count = retries.get(message).copied().unwrap_or(0);
        if count >= MAX_RETRIES || (count == 0 && retries.len() >= MAX_COUNTED) {
            retries.remove(message);
            return false;
        }
        retries.insert(message.to_owned(), count + 1);
        true
    }

    /// A message is decided.
    pub(super) fn done(&self, message: impl FnOnce() -> Vec<u8>) {
        let mut retries = self.retries.borrow_mut();
        if !retries.is_empty() {
            retries.remove(&message());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_three_more_turns() {
        let turns = Turns::new(Instant::now());
        let tries = |message: &[u8]| (0..5).map(|_| turns.may_retry(message)).collect::<Vec<_>>();
        assert_eq!(tries(b"a"), [true, true, true, false, true]);
        turns.done(|| b"a".to_vec());
        assert_eq!(tries(b"a"), [true, true, true, false, true]);
    }

    #[test]
    fn it_is_quiet_when_nothing_has_come_for_a_while() {
        let now = Instant::now();
        let turns = Turns::new(now);
        assert!(!turns.is_quiet(now) && turns.is_quiet(now + QUIET));
        turns.came(now + QUIET);
        assert_eq!(turns.until_quiet(now + QUIET + QUIET / 4), QUIET / 4 * 3);
    }
}
