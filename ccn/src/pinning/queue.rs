//! Which file is next. No I/O and no clock: moments are given.

use crate::chains::Pauses;
use ccn_message::ItemHash;
use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

/// Files that are remembered to be looked at. More stay where they are: a walk through the store finds them.
pub(super) const MAX_READY: usize = 10_000;
/// Files that could not be pinned or unpinned and that are tried again by themselves. More are met by the next walk.
const MAX_FAILING: usize = 10_000;
/// Longest pause after failures with one.
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);

/// Something to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) hash: ItemHash,
    /// Whether what was done is looked at again.
    pub(super) checking: bool,
}

/// A file with which it did not go well.
#[derive(Debug)]
pub(super) struct Failing {
    pub(super) reason: String,
    pub(super) attempts: u32,
    /// When it is tried again.
    pub(super) at: Instant,
    pauses: Pauses,
}

/// Files to be looked at: each at most once, and none while it is being worked on.
#[derive(Debug)]
pub(super) struct Queue {
    /// Pause after the first failure with a file.
    first_pause: Duration,
    ready: VecDeque<ItemHash>,
    /// What is in `ready`, and whether to check it.
    known: HashMap<ItemHash, bool>,
    busy: HashSet<ItemHash>,
    /// What changed while it was worked on.
    again: HashSet<ItemHash>,
    failing: HashMap<ItemHash, Failing>,
    /// By when they are tried again; those that are tried are not in it.
    due: BTreeSet<(Instant, ItemHash)>,
}

impl Queue {
    /// An empty one.
    pub(super) fn new(first_pause: Duration) -> Self {
        Self {
            first_pause,
            ready: VecDeque::new(),
            known: HashMap::new(),
            busy: HashSet::new(),
            again: HashSet::new(),
            failing: HashMap::new(),
            due: BTreeSet::new(),
        }
    }

    /// A file is to be looked at, before those that a walk finds. False when there is no room.
    pub(super) fn changed(&mut self, hash: ItemHash) -> bool {
        if self.busy.contains(&hash) {
            self.again.insert(hash);
            return true;
        }
        self.put(Look { hash, checking: false }, true)
    }

    /// A walk has found a file. False when there is no room.
    pub(super) fn found(&mut self, look: Look) -> bool {
        // What fails has its own time.
        if self.busy.contains(&look.hash) || self.failing.contains_key(&look.hash) {
            return true;
        }
        self.put(look, false)
    }

    fn put(&mut self, look: Look, first: bool) -> bool {
        if let Some(checking) = self.known.get_mut(&look.hash) {
            *checking |= look.checking;
            return true;
        }
        if self.ready.len() >= MAX_READY {
            return false;
        }
        self.known.insert(look.hash.clone(), look.checking);
        if first {
            self.ready.push_front(look.hash)
        } else {
            self.ready.push_back(look.hash)
        }
        true
    }

    /// The next one to work on.
    pub(super) fn next(&mut self, now: Instant) -> Option<Look> {
        if self.next_due().is_some_and(|at| at <= now)
            && let Some((_, hash)) = self.due.pop_first()
            && !self.busy.contains(&hash)
            && !self.known.contains_key(&hash)
        {
            self.busy.insert(hash.clone());
            return Some(Look { hash, checking: false });
        }
        let hash = self.ready.pop_front()?;
        let checking = self.known.remove(&hash).unwrap_or_default();
        self.busy.insert(hash.clone());
        Some(Look { hash, checking })
    }

    /// When the next of those that fail is tried again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// It went well.
    pub(super) fn done(&mut self, hash: &ItemHash) {
        if let Some(failing) = self.failing.remove(hash) {
            self.due.remove(&(failing.at, hash.clone()));
        }
        self.leave(hash);
    }

    /// It was not tried in earnest: it is the next one again.
    pub(super) fn put_back(&mut self, look: Look) {
        self.busy.remove(&look.hash);
        self.again.remove(&look.hash);
        if self.known.insert(look.hash.clone(), look.checking).is_none() {
            self.ready.push_front(look.hash);
        }
    }

    /// It went wrong, and is tried again after a pause that grows.
    pub(super) fn failed(&mut self, hash: &ItemHash, reason: String, now: Instant) {
        let room = self.failing.len() < MAX_FAILING;
        if room || self.failing.contains_key(hash) {
            let failing = self.failing.entry(hash.clone()).or_insert_with(|| Failing {
                reason: String::new(),
                attempts: 0,
                at: now,
                pauses: Pauses::new(self.first_pause, LONGEST_PAUSE),
            });
            self.due.remove(&(failing.at, hash.clone()));
            failing.attempts += 1;
            failing.reason = reason;
            failing.at = now + failing.pauses.next(None);
            self.due.insert((failing.at, hash.clone()));
        }
        self.leave(hash);
    }

    fn leave(&mut self, hash: &ItemHash) {
        self.busy.remove(hash);
        if self.again.remove(hash) {
            self.put(Look { hash: hash.clone(), checking: false }, true);
        }
    }

    /// All that failed may be tried again at once.
    pub(super) fn revive(&mut self, now: Instant) {
        for (hash, failing) in &mut self.failing {
            if self.due.remove(&(failing.at, hash.clone())) {
                failing.at = now;
                self.due.insert((now, hash.clone()));
            }
        }
    }

    /// Files that wait, those that are worked on included, and those that failed not.
    pub(super) fn waiting(&self) -> usize {
        self.ready.len() + self.busy.iter().filter(|hash| !self.failing.contains_key(*hash)).count()
    }

    /// True when a walk may bring more.
    pub(super) fn has_room(&self) -> bool {
        self.ready.len() < MAX_READY / 2
    }

    /// How many failed.
    pub(super) fn failed_count(&self) -> usize {
        self.failing.len()
    }

    /// Those that failed, by when they are tried again; not those that are tried now.
    pub(super) fn failing(&self) -> impl Iterator<Item = (&ItemHash, &Failing)> {
        self.due.iter().filter_map(|(_, hash)| self.failing.get_key_value(hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST_PAUSE: Duration = Duration::from_secs(30);

    fn hash(number: u64) -> ItemHash {
        ItemHash::sha256_of(&number.to_be_bytes())
    }

    fn look(number: u64, checking: bool) -> Look {
        Look { hash: hash(number), checking }
    }

    #[test]
    fn each_is_worked_on_once_at_a_time_and_again_when_it_changed_meanwhile() {
        let (mut queue, now) = (Queue::new(FIRST_PAUSE), Instant::now());
        assert!(queue.found(look(1, false)) && queue.found(look(1, true)) && queue.changed(hash(2)));
        assert_eq!(queue.next(now), Some(look(2, false)), "what changed goes first");
        assert_eq!(queue.next(now), Some(look(1, true)), "once, and checked");
        assert_eq!(queue.next(now), None);
        assert!(queue.found(look(1, false)) && queue.changed(hash(2)));
        assert_eq!((queue.next(now), queue.waiting()), (None, 2), "both are being worked on");
        queue.done(&hash(1));
        queue.done(&hash(2));
        assert_eq!(queue.next(now), Some(look(2, false)));
        queue.put_back(look(2, false));
        assert_eq!(queue.next(now), Some(look(2, false)));
        queue.done(&hash(2));
        assert_eq!((queue.next(now), queue.waiting()), (None, 0));
    }

    #[test]
    fn what_fails_has_its_own_time() {
        let (mut queue, now) = (Queue::new(FIRST_PAUSE), Instant::now());
        queue.changed(hash(1));
        let mut now = now;
        let mut last = Duration::ZERO;
        for attempts in 1..=20 {
            assert_eq!(queue.next(now), Some(look(1, false)));
            queue.failed(&hash(1), "no".into(), now);
            assert!(queue.found(look(1, true)), "a walk leaves it alone");
            assert_eq!(queue.next(now), None);
            let (_, failing) = queue.failing().next().expect("one that fails");
            assert_eq!((failing.attempts, failing.reason.as_str()), (attempts, "no"));
            let pause = queue.next_due().expect("another attempt") - now;
            assert!((FIRST_PAUSE..=LONGEST_PAUSE).contains(&pause));
            (now, last) = (now + pause, pause);
        }
        assert_eq!(last, LONGEST_PAUSE);
        // A change does not wait for it.
        assert_eq!(queue.next(now), Some(look(1, false)));
        queue.failed(&hash(1), "no".into(), now);
        queue.changed(hash(1));
        assert_eq!(queue.next(now), Some(look(1, false)));
        queue.done(&hash(1));
        assert_eq!((queue.failed_count(), queue.next_due()), (0, None));
    }

    #[test]
    fn there_is_an_end_to_what_is_remembered() {
        let (mut queue, now) = (Queue::new(FIRST_PAUSE), Instant::now());
        let all = (0..MAX_READY as u64).all(|number| queue.found(look(number, false)));
        assert!(all && !queue.found(look(u64::MAX, false)) && !queue.changed(hash(u64::MAX)));
        assert!(!queue.has_room());
        for _ in 0..MAX_READY {
            let next = queue.next(now).expect("a file");
            queue.failed(&next.hash, "no".into(), now);
        }
        queue.changed(hash(u64::MAX));
        queue.next(now);
        queue.failed(&hash(u64::MAX), "no".into(), now);
        assert_eq!(queue.failed_count(), MAX_FAILING);
        queue.revive(now);
        assert_eq!(queue.next_due(), Some(now));
    }
}
