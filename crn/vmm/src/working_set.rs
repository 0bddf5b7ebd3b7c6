//! The pages that a clone writes to on its first call: nearly the same for every clone of a template.
//!
//! A page that a clone reads first and then writes costs three exits: one to map the template's page, one to copy it, one to map the copy. One
//! that was written to before the processor runs costs one. So the first clone of a template has KVM note what it writes, and every later one
//! has those pages copied before it runs, by an access of each from here (vmm spec section 5.5).

use crate::{kernel::PAGE_BYTES, memory::Ram};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use vm_memory::{GuestAddress, GuestMemoryBackend as _, VolatileMemory as _};

/// Most ranges of a set: as many as fit a control packet beside the rest. What is more is left to be copied when it is written.
pub const MAX_RANGES: usize = 2000;
/// Most pages of a set, 64 MiB: a clone that writes more is no quicker for having it all copied first.
pub const MAX_PAGES: u32 = 16_384;

/// Pages that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRange {
    /// The first, as a guest-physical address in pages.
    pub first: u32,
    /// How many.
    pub pages: u16,
}

/// The set bits of a log of written pages as ranges, added to those before; `first` is the page of the first bit.
pub fn add_ranges(ranges: &mut Vec<PageRange>, first: u64, log: &[u64]) {
    let mut total: u32 = ranges.iter().map(|range| u32::from(range.pages)).sum();
    for (word, bits) in (0_u64..).zip(log) {
        let mut left = *bits;
        while left != 0 {
            let page = first + word * 64 + u64::from(left.trailing_zeros());
            left &= left - 1;
            let Ok(page) = u32::try_from(page) else { return };
            if total == MAX_PAGES {
                return;
            }
            let full = ranges.len() == MAX_RANGES;
            match ranges.last_mut() {
                Some(last) if last.first.checked_add(last.pages.into()) == Some(page) && last.pages < u16::MAX => {
                    last.pages += 1;
                }
                _ if full => return,
                _ => ranges.push(PageRange { first: page, pages: 1 }),
            }
            total += 1;
        }
    }
}

/// Has the host make the pages this machine's own. Pages that are not in memory are passed over: a set may be of another machine.
pub fn make_own(ram: &Ram, ranges: &[PageRange]) {
    let mut left = MAX_PAGES;
    for range in ranges.iter().take(MAX_RANGES) {
        for page in 0..u32::from(range.pages).min(left) {
            let gpa = (u64::from(range.first) + u64::from(page)) * PAGE_BYTES;
            // A write that changes nothing: reading first would map the template's page.
            if let Ok(slice) = ram.get_slice(GuestAddress(gpa), 1)
                && let Ok(byte) = slice.get_atomic_ref::<AtomicU8>(0)
            {
                byte.fetch_or(0, Relaxed);
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
        let mut ranges = Vec::new();
        add_ranges(&mut ranges, 0, &[0b1011, 1 << 63, 1]);
        add_ranges(&mut ranges, 1 << 20, &[1]);
        let expected = [(0, 2), (3, 1), (127, 2), (1 << 20, 1)].map(|(first, pages)| PageRange { first, pages });
        assert_eq!(ranges, expected);
    }

    #[test]
    fn making_pages_own_changes_nothing_and_has_a_bound() {
        let ram = memory::allocate(32 << 20).expect("memory");
        ram.write_obj(7_u8, GuestAddress(0x5000)).expect("a write");
        let far = PageRange { first: u32::MAX, pages: u16::MAX };
        make_own(&ram, &[PageRange { first: 5, pages: 1 }, far, PageRange { first: 8190, pages: 100 }]);
        assert_eq!(ram.read_obj::<u8>(GuestAddress(0x5000)).expect("a read"), 7);
    }

    proptest! {
        #[test]
        fn every_bit_is_in_a_range_up_to_the_bounds(log in proptest::collection::vec(any::<u64>(), 0..300)) {
            let mut ranges = Vec::new();
            add_ranges(&mut ranges, 0, &log);
            let bits: u32 = log.iter().map(|word| word.count_ones()).sum();
            let pages: u32 = ranges.iter().map(|range| u32::from(range.pages)).sum();
            prop_assert!(pages == bits || ranges.len() == MAX_RANGES || pages == MAX_PAGES);
            prop_assert!(ranges.windows(2).all(|pair| pair[0].first + u32::from(pair[0].pages) < pair[1].first));
        }
    }
}
