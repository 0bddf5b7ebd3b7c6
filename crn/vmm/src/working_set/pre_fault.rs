//! Mapping pages for a processor before it asks for them: an exit for each is what a clone's first call mostly costs.

use super::{MAX_PAGES, MAX_RANGES, PageRange, WorkingSet};
use crate::kernel::PAGE_BYTES;
use kvm_bindings::{KVM_CAP_PRE_FAULT_MEMORY, kvm_pre_fault_memory};
use kvm_ioctls::{Kvm, VcpuFd};
use vmm_sys_util::ioctl::ioctl_with_mut_ref;

/// `linux/kvm.h`; for a processor's thread alone.
pub const KVM_PRE_FAULT_MEMORY: u64 = 0xc040_aed5;

/// Whether this KVM can, since Linux 6.11.
#[must_use]
pub fn is_offered(kvm: &Kvm) -> bool {
    kvm.check_extension_raw(KVM_CAP_PRE_FAULT_MEMORY.into()) > 0
}

/// Maps the pages of a set for a processor that does not run: as the host has them, so its own copies of what it writes to must be there.
/// Returns how many ranges it has mapped, of no more pages than a set may have; a KVM that refuses one is asked no more.
pub fn map(processor: &VcpuFd, set: &WorkingSet) -> u64 {
    let mut mapped = 0;
    let mut left = 2 * MAX_PAGES;
    for PageRange { first, pages } in joined(set) {
        // A set that no machine has said.
        let Some(fewer) = left.checked_sub(pages.into()) else { break };
        left = fewer;
        let mut request = kvm_pre_fault_memory {
            gpa: u64::from(first) * PAGE_BYTES,
            size: u64::from(pages) * PAGE_BYTES,
            ..Default::default()
        };
        // SAFETY: the request reads and writes one `kvm_pre_fault_memory`; of guest memory it changes nothing.
        let result = unsafe { ioctl_with_mut_ref(processor, KVM_PRE_FAULT_MEMORY, &mut request) };
        if result != 0 {
            break;
        }
        mapped += 1;
    }
    mapped
}

/// Both halves in rising order, neighbours as one range.
fn joined(set: &WorkingSet) -> Vec<PageRange> {
    let halves = [&set.written, &set.read].map(|half| half.iter().take(MAX_RANGES));
    let mut all: Vec<PageRange> = halves.into_iter().flatten().copied().collect();
    all.sort_unstable_by_key(|range| range.first);
    let mut joined: Vec<PageRange> = Vec::with_capacity(all.len());
    for range in all {
        match joined.last_mut() {
            Some(last)
                if u64::from(last.first) + u64::from(last.pages) == u64::from(range.first)
                    && let Some(pages) = last.pages.checked_add(range.pages) =>
            {
                last.pages = pages;
            }
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_joined() {
        let range = |first, pages| PageRange { first, pages };
        let far = range(u32::MAX, u16::MAX);
        let set =
            WorkingSet { written: vec![range(4, 2), range(9, 1), far], read: vec![range(1, 3), range(6, 1), far] };
        assert_eq!(joined(&set), [range(1, 6), range(9, 1), far, far]);
    }
}
