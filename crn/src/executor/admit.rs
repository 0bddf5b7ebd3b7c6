//! Whether a program fits on this node, and what has to go for it. Pure.

/// What a machine takes of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Need {
    /// Guest memory and the monitor's own, MiB.
    pub memory_mib: u64,
    /// Virtual processors.
    pub vcpus: u64,
}

/// Memory of a machine besides its guest's, MiB: the monitor process and the kernel's tables for it.
pub const OVERHEAD_MIB: u64 = 8;

impl Need {
    /// Everything taken by several machines.
    #[must_use]
    pub fn sum(needs: impl IntoIterator<Item = Self>) -> Self {
        needs.into_iter().fold(Self::default(), Self::plus)
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            memory_mib: self.memory_mib.saturating_add(other.memory_mib),
            vcpus: self.vcpus.saturating_add(other.vcpus),
        }
    }

    fn fits(self, limit: Self) -> bool {
        self.memory_mib <= limit.memory_mib && self.vcpus <= limit.vcpus
    }
}

/// A machine as admission sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tenant<K> {
    /// Which.
    pub key: K,
    /// What it takes.
    pub need: Need,
    /// What it would take to get that back.
    pub hold: Hold,
}

/// How firmly a machine holds what it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// It works or starts, and stays.
    Busy,
    /// It waits for calls; larger is since later.
    Idle(u64),
    /// It ends already.
    Ending,
}

/// The decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<K> {
    /// There is room.
    Admit,
    /// There will be room when these idle machines, and those that end already, have ended.
    AfterEnding(Vec<K>),
    /// There is no room as long as the busy ones are busy.
    Full,
    /// Not even an empty node would do.
    TooLarge,
}

/// Decides over one newcomer. Idle machines that were used least recently go first, no more than needed.
#[must_use]
pub fn decide<K: Copy>(limit: Need, tenants: &[Tenant<K>], newcomer: Need) -> Verdict<K> {
    if !newcomer.fits(limit) {
        return Verdict::TooLarge;
    }
    let taken = |keep: &dyn Fn(&Tenant<K>) -> bool| {
        Need::sum(tenants.iter().filter(|tenant| keep(tenant)).map(|tenant| tenant.need)).plus(newcomer)
    };
    if taken(&|_| true).fits(limit) {
        return Verdict::Admit;
    }
    if !taken(&|tenant| tenant.hold == Hold::Busy).fits(limit) {
        return Verdict::Full;
    }
    let mut staying = taken(&|tenant| tenant.hold != Hold::Ending);
    let mut idle: Vec<(u64, &Tenant<K>)> = tenants
        .iter()
        .filter_map(|tenant| match tenant.hold {
            Hold::Idle(since) => Some((since, tenant)),
            Hold::Busy | Hold::Ending => None,
        })
        .collect();
    idle.sort_by_key(|(since, _)| *since);
    let mut going = Vec::new();
    for (_, tenant) in idle {
        if staying.fits(limit) {
            break;
        }
        staying.memory_mib -= tenant.need.memory_mib;
        staying.vcpus -= tenant.need.vcpus;
        going.push(tenant.key);
    }
    Verdict::AfterEnding(going)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: Need = Need { memory_mib: 1000, vcpus: 10 };

    fn need(memory_mib: u64, vcpus: u64) -> Need {
        Need { memory_mib, vcpus }
    }

    fn check(tenants: &[(u64, u64, Hold)], newcomer: Need, expected: Verdict<usize>) {
        let tenants: Vec<_> = tenants
            .iter()
            .enumerate()
            .map(|(key, (memory_mib, vcpus, hold))| Tenant { key, need: need(*memory_mib, *vcpus), hold: *hold })
            .collect();
        assert_eq!(decide(LIMIT, &tenants, newcomer), expected, "{tenants:?} {newcomer:?}");
    }

    #[test]
    fn memory_and_processors_both_count() {
        check(&[], need(1000, 10), Verdict::Admit);
        check(&[], need(1001, 1), Verdict::TooLarge);
        check(&[], need(1, 11), Verdict::TooLarge);
        check(&[(900, 1, Hold::Busy)], need(100, 9), Verdict::Admit);
        check(&[(900, 1, Hold::Busy)], need(101, 1), Verdict::Full);
        check(&[(1, 9, Hold::Busy)], need(1, 2), Verdict::Full);
    }

    #[test]
    fn the_longest_idle_goes_first_and_what_ends_anyway_is_waited_for() {
        let tenants = [(300, 1, Hold::Idle(2)), (300, 1, Hold::Idle(1)), (300, 1, Hold::Ending), (100, 1, Hold::Busy)];
        check(&tenants, need(300, 1), Verdict::AfterEnding(vec![]));
        check(&tenants, need(301, 1), Verdict::AfterEnding(vec![1]));
        check(&tenants, need(900, 1), Verdict::AfterEnding(vec![1, 0]));
        check(&tenants, need(901, 1), Verdict::Full);
    }

    proptest! {
        #[test]
        fn the_limit_holds_whatever_goes(
            tenants in proptest::collection::vec((0..400_u64, 0..4_u64, 0..3_u8, 0..9_u64), 0..9),
            memory_mib in 0..1200_u64,
            vcpus in 0..12_u64,
        ) {
            let tenants: Vec<_> = tenants.into_iter().enumerate().map(|(key, (memory_mib, vcpus, hold, since))| Tenant {
                key,
                need: need(memory_mib, vcpus),
                hold: [Hold::Busy, Hold::Idle(since), Hold::Ending][usize::from(hold)],
            }).collect();
            let newcomer = need(memory_mib, vcpus);
            let after = |gone: &[usize], ending_too: bool| {
                Need::sum(tenants.iter().filter(|tenant| !(gone.contains(&tenant.key) || ending_too && tenant.hold == Hold::Ending)).map(|tenant| tenant.need)).plus(newcomer)
            };
            match decide(LIMIT, &tenants, newcomer) {
                Verdict::Admit => prop_assert!(after(&[], false).fits(LIMIT)),
                Verdict::AfterEnding(going) => {
                    prop_assert!(after(&going, true).fits(LIMIT));
                    prop_assert!(going.iter().all(|key| matches!(tenants[*key].hold, Hold::Idle(_))));
                    if let Some((_, fewer)) = going.split_last() {
                        prop_assert!(!after(fewer, true).fits(LIMIT), "the last one was needed");
                    }
                }
                Verdict::Full => {
                    let all: Vec<_> = tenants.iter().filter(|tenant| tenant.hold != Hold::Busy).map(|tenant| tenant.key).collect();
                    prop_assert!(!after(&all, true).fits(LIMIT) && newcomer.fits(LIMIT));
                }
                Verdict::TooLarge => prop_assert!(!newcomer.fits(LIMIT)),
            }
        }
    }
}
