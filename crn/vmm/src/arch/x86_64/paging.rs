//! Where a virtual address lies in guest memory, by the guest's own page tables (four levels; our kernel has no fifth).
//!
//! KVM's own translation is that of the kernel's accesses, which may not go to pages of processes where SMAP is on.

use crate::memory::Ram;
use vm_memory::{Bytes as _, GuestAddress};

const PRESENT: u64 = 1;
/// In an entry of the second or third level: a page instead of a table.
const LARGE: u64 = 1 << 7;
/// Bits of an entry that are an address.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// The lowest bit that selects an entry of each level's table, from the top.
const LEVELS: [u32; 4] = [39, 30, 21, 12];
const INDEX: u64 = 0x1ff;
const ENTRY_BYTES: u64 = 8;

/// The guest-physical address, with the tables that this value of CR3 points to. None when the page is not there, or a table is not in memory.
#[must_use]
pub fn translate(ram: &Ram, cr3: u64, address: u64) -> Option<u64> {
    let mut table = cr3 & ADDRESS;
    for shift in LEVELS {
        let entry_gpa = table + ((address >> shift) & INDEX) * ENTRY_BYTES;
        let entry: u64 = ram.read_obj(GuestAddress(entry_gpa)).ok()?;
        if entry & PRESENT == 0 {
            return None;
        }
        let inside = (1 << shift) - 1;
        let is_page = shift == 12 || (shift < 39 && entry & LARGE != 0);
        if is_page {
            return Some((entry & ADDRESS & !inside) | (address & inside));
        }
        table = entry & ADDRESS;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;
    use proptest::prelude::*;

    const TABLES: [u64; 4] = [0x1000, 0x2000, 0x3000, 0x4000];

    /// Tables for the page of that address.
    fn map(ram: &Ram, address: u64, levels: usize, page: u64) {
        for (level, shift) in LEVELS.iter().enumerate().take(levels) {
            let entry = match TABLES.get(level + 1) {
                Some(next) if level + 1 < levels => next | 0x67,
                _ => page,
            };
            let at = TABLES[level] + ((address >> shift) & INDEX) * ENTRY_BYTES;
            ram.write_obj(entry, GuestAddress(at)).expect("a write");
        }
    }

    #[test]
    fn small_and_large_pages_are_found() {
        let ram = memory::allocate(32 << 20).expect("memory");
        let address = 0x7ffd_1234_5678;
        map(&ram, address, 4, 0x8000_0000_0012_3867);
        // The lower bits of CR3 are no address.
        assert_eq!(translate(&ram, TABLES[0] | 0x18, address), Some(0x12_3678));
        assert_eq!(translate(&ram, TABLES[0], address + 0x1000), None);
        map(&ram, address, 3, 0xa0_00e7);
        assert_eq!(translate(&ram, TABLES[0], address), Some(0xa0_0000 | (address & 0x1f_ffff)));
        map(&ram, address, 2, 0x4000_00e7);
        assert_eq!(translate(&ram, TABLES[0], address), Some(0x4000_0000 | (address & 0x3fff_ffff)));
    }

    proptest! {
        #[test]
        fn any_tables_are_an_answer(cr3: u64, address: u64, entries in proptest::collection::vec(any::<u64>(), 16)) {
            let ram = memory::allocate(32 << 20).expect("memory");
            for (index, entry) in (0_u64..).zip(entries) {
                ram.write_obj(entry | 1, GuestAddress((cr3 & 0xf000) + index * 256)).expect("a write");
            }
            let _ = translate(&ram, cr3 & 0xffff, address);
        }
    }
}
