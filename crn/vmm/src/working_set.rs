//! The pages that a clone touches until its first call is answered: nearly the same for every clone of a template.
//!
//! A page that the guest touches for the first time costs an exit, in which the host finds the template's page or makes a copy of it; one that
//! the clone reads first and then writes costs three. So the first clone of a template is watched, and every later one has those pages before
//! it needs them: those that it writes to are copied before its processor runs, by an access of each from here, and when its init is itself, all
//! are mapped for the processor while the first call is on its way (vmm spec section 5.5). Counted in the emulated host, a FastAPI program's
//! clone took 5,300 exits for pages to its first answer, 3,200 with copies made before, and takes 690 so.
//!
//! What is watched is the monitor's own page table, which says what there is of the template's file and what is a copy: accesses of
//! devices are in it as well. The kernel maps the neighbours of a page that is read; it does not where userfaultfd might want to hear of
//! writes, so a watched clone asks for that and never protects a page.

pub mod pre_fault;
pub mod watch;

use crate::{kernel::PAGE_BYTES, memory::Ram};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    str::FromStr,
    sync::atomic::{AtomicU8, Ordering::Relaxed},
};
use vm_memory::{GuestAddress, GuestMemoryBackend as _, VolatileMemory as _};

/// Most ranges of each half of a set: as many as fit a control packet beside the rest. What is more is left to when it is touched.
pub const MAX_RANGES: usize = 2000;
/// Most pages of each half, 64 MiB: a clone that writes more is no quicker for having it all copied first.
pub const MAX_PAGES: u32 = 16_384;
/// Longest text of a set, bytes.
pub const MAX_TEXT_BYTES: u64 = 2 * MAX_RANGES as u64 * "written 4294967295 65535\n".len() as u64;

/// The halves in a text.
const WRITTEN: &str = "written";
const READ: &str = "read";

/// Pages that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRange {
    /// The first, as a guest-physical address in pages.
    pub first: u32,
    /// How many.
    pub pages: u16,
}

/// What a clone touches first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WorkingSet {
    /// Pages that it writes to.
    pub written: Vec<PageRange>,
    /// Pages that it reads and leaves as they are.
    pub read: Vec<PageRange>,
}

impl WorkingSet {
    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.written.is_empty() && self.read.is_empty()
    }
}

/// One range in a line: `written FIRST PAGES` or `read FIRST PAGES`.
impl fmt::Display for WorkingSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, ranges) in [(WRITTEN, &self.written), (READ, &self.read)] {
            for PageRange { first, pages } in ranges {
                writeln!(formatter, "{name} {first} {pages}")?;
            }
        }
        Ok(())
    }
}

/// A text is not a working set, or one beyond the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a working set")]
pub struct NoWorkingSet;

impl FromStr for WorkingSet {
    type Err = NoWorkingSet;

    fn from_str(text: &str) -> Result<Self, NoWorkingSet> {
        let mut set = Self::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let half = match words.next() {
                Some(WRITTEN) => &mut set.written,
                Some(READ) => &mut set.read,
                _ => return Err(NoWorkingSet),
            };
            let (Some(first), Some(pages), None) = (words.next(), words.next(), words.next()) else {
                return Err(NoWorkingSet);
            };
            if half.len() == MAX_RANGES {
                return Err(NoWorkingSet);
            }
            let number = |_| NoWorkingSet;
            half.push(PageRange { first: first.parse().map_err(number)?, pages: pages.parse().map_err(number)? });
        }
        Ok(set)
    }
}

/// Half of a set that is being found out, in rising order.
#[derive(Debug, Default)]
struct Half {
    ranges: Vec<PageRange>,
    pages: u32,
}

impl Half {
    /// Adds a page that comes after all that are in it. Beyond the bounds nothing is added.
    fn add(&mut self, page: u64) {
        let Ok(page) = u32::try_from(page) else { return };
        if self.pages == MAX_PAGES {
            return;
        }
        let is_full = self.ranges.len() == MAX_RANGES;
        match self.ranges.last_mut() {
            Some(last) if last.first.checked_add(last.pages.into()) == Some(page) && last.pages < u16::MAX => {
                last.pages += 1;
            }
            _ if is_full => return,
            _ => self.ranges.push(PageRange { first: page, pages: 1 }),
        }
        self.pages += 1;
    }
}

/// Has the host give this machine its own copies of the pages that it writes to. Pages that are not in memory are passed over: a set may be of
/// another machine.
pub fn have_written(ram: &Ram, set: &WorkingSet) {
    // A write that changes nothing, and of which the compiler does not know that: it would make a read of it, which maps the template's page.
    touch(ram, &set.written, |byte| byte.fetch_or(std::hint::black_box(0), Relaxed));
}

/// The same of those that it reads, which are the template's. For a host whose KVM does not map them ([`pre_fault`]): its page faults are less
/// work then.
pub fn have_read(ram: &Ram, set: &WorkingSet) {
    touch(ram, &set.read, |byte| byte.load(Relaxed));
}

fn touch(ram: &Ram, ranges: &[PageRange], access: impl Fn(&AtomicU8) -> u8) {
    let mut left = MAX_PAGES;
    for range in ranges.iter().take(MAX_RANGES) {
        for page in 0..u32::from(range.pages).min(left) {
            let gpa = (u64::from(range.first) + u64::from(page)) * PAGE_BYTES;
            if let Ok(slice) = ram.get_slice(GuestAddress(gpa), 1)
                && let Ok(byte) = slice.get_atomic_ref::<AtomicU8>(0)
            {
                std::hint::black_box(access(byte));
            }
        }
        left = left.saturating_sub(range.pages.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;
    use proptest::prelude::*;
    use vm_memory::Bytes as _;

    #[test]
    fn neighbours_are_one_range() {
        let mut half = Half::default();
        [0, 1, 3, 127, 128, 1 << 20].into_iter().for_each(|page| half.add(page));
        let expected = [(0, 2), (3, 1), (127, 2), (1 << 20, 1)].map(|(first, pages)| PageRange { first, pages });
        assert_eq!((half.ranges, half.pages), (expected.to_vec(), 6));
    }

    #[test]
    fn having_pages_changes_nothing_and_has_a_bound() {
        let ram = memory::allocate(32 << 20).expect("memory");
        ram.write_obj(7_u8, GuestAddress(0x5000)).expect("a write");
        let far = PageRange { first: u32::MAX, pages: u16::MAX };
        let ranges = vec![PageRange { first: 5, pages: 1 }, far, PageRange { first: 8190, pages: 100 }];
        let set = WorkingSet { written: ranges.clone(), read: ranges };
        have_written(&ram, &set);
        have_read(&ram, &set);
        assert_eq!(ram.read_obj::<u8>(GuestAddress(0x5000)).expect("a read"), 7);
    }

    #[test]
    fn a_text_reads_back_and_no_other_is_taken() {
        let range = |first, pages| PageRange { first, pages };
        let set = WorkingSet { written: vec![range(7, 2), range(u32::MAX, u16::MAX)], read: vec![range(0, 1)] };
        assert_eq!(set.to_string().parse(), Ok(set));
        assert_eq!("".parse(), Ok(WorkingSet::default()));
        for text in ["7 2", "written 7", "written 7 2 1", "written -7 2", "read 1 65536", "other 1 1", "read  1"] {
            assert_eq!(text.parse::<WorkingSet>(), Err(NoWorkingSet), "{text}");
        }
        let most = vec![range(u32::MAX, u16::MAX); MAX_RANGES];
        let largest = WorkingSet { written: most.clone(), read: most };
        let text = largest.to_string();
        assert!(text.len() as u64 <= MAX_TEXT_BYTES);
        assert_eq!(text.parse(), Ok(largest));
        assert_eq!(format!("{text}read 1 1\n").parse::<WorkingSet>(), Err(NoWorkingSet));
    }

    proptest! {
        #[test]
        fn every_page_is_in_a_range_up_to_the_bounds(gaps in proptest::collection::vec(1..4_u64, 0..20_000)) {
            let mut half = Half::default();
            let pages: Vec<u64> = gaps.iter().scan(0, |page, gap| { *page += gap; Some(*page) }).collect();
            pages.iter().for_each(|page| half.add(*page));
            let has = |range: &PageRange| u64::from(range.first)..u64::from(range.first) + u64::from(range.pages);
            let all: Vec<u64> = half.ranges.iter().flat_map(has).collect();
            prop_assert_eq!(all.len(), half.pages as usize);
            prop_assert!(half.ranges.len() <= MAX_RANGES && half.pages <= MAX_PAGES);
            prop_assert!(all.len() == pages.len() || half.ranges.len() == MAX_RANGES || half.pages == MAX_PAGES);
            prop_assert!(pages.starts_with(&all) || half.ranges.len() == MAX_RANGES);
            prop_assert!(half.ranges.windows(2).all(|pair| has(&pair[0]).end < pair[1].first.into()));
        }
    }
}
