//! Needs that have arrived, and how far those who waited for each are decided. No I/O, no clock.
//!
//! An arrival is one pass over those who wait, in the order of their keys: who goes on waiting for the same thing is behind the pass and is not met
//! again. What arrives while its pass is under way makes it be done once more, however often it does so.

use std::collections::{BTreeMap, VecDeque};

/// A pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wake {
    /// The need, as it stands in keys.
    pub(super) need: Vec<u8>,
    /// The first key of `needs` that is still to be looked at.
    pub(super) from: Vec<u8>,
}

/// What becomes of a pass when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// It has not begun: whatever arrives is met by it.
    Due,
    /// It is under way.
    Begun,
    /// It is under way, and its need has arrived since.
    Again,
}

/// Passes that are to be made, each in turn, one for each need.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    turns: VecDeque<Wake>,
    passes: BTreeMap<Vec<u8>, Pass>,
}

impl Wakes {
    /// Makes a pass be made.
    pub(super) fn arrived(&mut self, need: Vec<u8>) {
        match self.passes.get_mut(&need) {
            None => self.begin(need),
            Some(Pass::Due | Pass::Again) => {}
            Some(pass @ Pass::Begun) => *pass = Pass::Again,
        }
    }

    fn begin(&mut self, need: Vec<u8>) {
        self.passes.insert(need.clone(), Pass::Due);
        self.turns.push_back(Wake { from: need.clone(), need });
    }

    /// Whose turn it is. Whoever takes it gives it back or ends it.
    pub(super) fn next(&mut self) -> Option<Wake> {
        let wake = self.turns.pop_front()?;
        if let Some(pass @ Pass::Due) = self.passes.get_mut(&wake.need) {
            *pass = Pass::Begun;
        }
        Some(wake)
    }

    /// Goes on with a pass after the others had their turn.
    pub(super) fn go_on(&mut self, wake: Wake) {
        self.turns.push_back(wake);
    }

    /// Ends a pass. True when nothing arrived meanwhile: then the need is dealt with.
    pub(super) fn end(&mut self, wake: Wake) -> bool {
        match self.passes.remove(&wake.need) {
            Some(Pass::Again) => {
                self.begin(wake.need);
                false
            }
            _ => true,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_during_a_pass_makes_it_be_done_once_more() {
        let mut wakes = Wakes::default();
        for need in [1, 1, 2] {
            wakes.arrived(vec![need]);
        }
        let first = wakes.next().expect("a pass");
        assert_eq!((first.need.as_slice(), first.from.as_slice()), (&[1][..], &[1][..]));
        wakes.go_on(Wake { from: vec![1, 5], ..first });
        wakes.arrived(vec![1]);
        wakes.arrived(vec![1]);
        let second = wakes.next().expect("a pass");
        assert_eq!(second.need, [2]);
        assert!(wakes.end(second));
        let first = wakes.next().expect("the rest of the first");
        assert_eq!(first.from, [1, 5]);
        assert!(!wakes.end(first), "it is to be done once more");
        let again = wakes.next().expect("once more");
        assert_eq!(again.from, [1]);
        assert!(wakes.end(again) && wakes.is_empty());
    }
}
