//! What goes when there is no room, of templates and of idle machines: those that save the least for the room they take. Pure.
//!
//! A thing is worth the time that it saves, as often as it was used, for each unit of room that it takes. What was once worth much and is
//! not used any more ages by the rule of GreedyDual-Size-Frequency (Cherkasova, 1998): the worth of whatever went last is added to the worth
//! of what is used or comes after it.

/// A thing as far as its worth goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Worth {
    /// What it takes, in the unit of all things that it is held against: bytes of disk, MiB of memory.
    pub size: u64,
    /// What a start without it takes longer, milliseconds.
    pub saves_ms: u64,
    /// How often it was used.
    uses: u64,
    /// The age that was current when it was last used.
    age: f64,
}

impl Worth {
    /// Of a thing that is new at that age.
    #[must_use]
    pub fn new(size: u64, saves_ms: u64, age: f64) -> Self {
        Self { size, saves_ms, uses: 1, age }
    }

    /// It was used once more, at that age.
    pub fn used(&mut self, age: f64) {
        self.uses = self.uses.saturating_add(1);
        self.age = age;
    }

    /// What it is worth; only held against others'.
    #[must_use]
    pub fn value(&self) -> f64 {
        let saved = self.uses as f64 * self.saves_ms.max(1) as f64;
        self.age + saved / self.size.max(1) as f64
    }
}

/// The things that go so that the others take no more than the limit, and the age after that.
#[must_use]
pub fn select<K: Clone>(things: &[(K, Worth)], limit: u64, age: f64) -> (Vec<K>, f64) {
    let mut taken: u64 = things.iter().fold(0, |sum, (_, worth)| sum.saturating_add(worth.size));
    let mut by_value: Vec<&(K, Worth)> = things.iter().collect();
    by_value.sort_by(|one, other| one.1.value().total_cmp(&other.1.value()));
    let (mut gone, mut age) = (Vec::new(), age);
    for (key, worth) in by_value {
        if taken <= limit {
            break;
        }
        taken = taken.saturating_sub(worth.size);
        age = age.max(worth.value());
        gone.push(key.clone());
    }
    (gone, age)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn used(size: u64, saves_ms: u64, uses: u64) -> Worth {
        Worth { uses, ..Worth::new(size, saves_ms, 0.0) }
    }

    #[test]
    fn what_saves_least_for_its_room_goes_first() {
        let templates = [
            ("large", used(1000, 100, 5)),
            ("small", used(10, 100, 5)),
            ("rare", used(10, 100, 1)),
            ("quick", used(10, 1, 5)),
        ];
        assert_eq!(select(&templates, 2000, 0.0).0, Vec::<&str>::new());
        assert_eq!(select(&templates, 1029, 0.0).0, ["large"]);
        assert_eq!(select(&templates, 15, 0.0).0, ["large", "quick", "rare"]);
    }

    #[test]
    fn what_is_not_used_any_more_goes_in_the_end() {
        let mut age = 0.0;
        let old = used(10, 100, 50);
        for turn in 0..1000 {
            let newcomer = Worth::new(10, 100, age);
            let (gone, now) = select(&[("old", old), ("new", newcomer)], 10, age);
            age = now;
            if gone == ["old"] {
                return assert!(turn > 1, "fifty uses count for something");
            }
        }
        panic!("it stays for ever");
    }

    proptest! {
        #[test]
        fn the_limit_holds_and_nothing_goes_without_need(
            sizes in proptest::collection::vec((1..1000_u64, 0..100_u64, 1..9_u64), 0..20),
            limit in 0..5000_u64,
        ) {
            let templates: Vec<_> = sizes.iter().enumerate().map(|(key, (size, saves, uses))| (key, used(*size, *saves, *uses))).collect();
            let (gone, age) = select(&templates, limit, 0.0);
            let left = |gone: &[usize]| templates.iter().filter(|(key, _)| !gone.contains(key)).map(|(_, worth)| worth.size).sum::<u64>();
            prop_assert!(left(&gone) <= limit);
            if let Some((_, fewer)) = gone.split_last() {
                prop_assert!(left(fewer) > limit, "the last one was needed");
            }
            prop_assert!(age >= 0.0);
        }
    }
}
