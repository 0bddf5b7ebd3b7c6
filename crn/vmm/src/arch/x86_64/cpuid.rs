//! What the guest's processors say they can do.
//!
//! Starts from what KVM supports and makes it one processor's view: its own APIC id, a flat topology of
//! single-threaded cores in one package, and the features that let a kernel start without calibrating
//! anything (vmm spec 1.3).

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

// Leaf 1.
const ECX_TSC_DEADLINE: u32 = 1 << 24;
const ECX_HYPERVISOR: u32 = 1 << 31;
const ECX_PDCM: u32 = 1 << 15;
const EDX_HTT: u32 = 1 << 28;
const CLFLUSH_LINES: u32 = 8;
// Leaf 6.
const EAX_ARAT: u32 = 1 << 2;
const EAX_TURBO: u32 = 1 << 1;
const ECX_ENERGY_BIAS: u32 = 1 << 3;
// Leaf 0x8000_0001.
const ECX_TOPOLOGY_EXTENSIONS: u32 = 1 << 22;
// Leaf 0x8000_0007.
const EDX_INVARIANT_TSC: u32 = 1 << 8;
// KVM's own features: page faults that a guest need not wait for, in each of the three forms.
const KVM_FEATURES: u32 = 0x4000_0001;
const EAX_ASYNC_PAGE_FAULTS: u32 = 1 << 4 | 1 << 10 | 1 << 14;
// Topology levels of leaf 0xB.
const LEVEL_THREAD: u32 = 1;
const LEVEL_CORE: u32 = 2;

/// The view of the processor with that id, out of `vcpus`.
#[must_use]
pub fn for_vcpu(supported: &CpuId, id: u8, vcpus: u8) -> Vec<kvm_cpuid_entry2> {
    let id32 = u32::from(id);
    let count = u32::from(vcpus);
    let core_bits = count.next_power_of_two().trailing_zeros();
    let mut entries: Vec<kvm_cpuid_entry2> =
        supported.as_slice().iter().filter(|entry| !matches!(entry.function, 0xb | 0x1f)).copied().collect();
    for entry in &mut entries {
        match entry.function {
            1 => {
                entry.ebx = (entry.ebx & 0xff) | (CLFLUSH_LINES << 8) | (count << 16) | (id32 << 24);
                entry.ecx = (entry.ecx | ECX_TSC_DEADLINE | ECX_HYPERVISOR) & !ECX_PDCM;
                entry.edx = if vcpus > 1 { entry.edx | EDX_HTT } else { entry.edx & !EDX_HTT };
            }
            // Cache topology: every cache private to one core, as many cores as there are.
            4 => {
                entry.eax &= 0x3fff;
                if entry.eax & 0x1f != 0 {
                    entry.eax |= (count - 1) << 26;
                }
            }
            6 => {
                entry.eax = (entry.eax | EAX_ARAT) & !EAX_TURBO;
                entry.ecx &= !ECX_ENERGY_BIAS;
            }
            // A clone would be told, first of all, that every page it never waited for has come.
            KVM_FEATURES => entry.eax &= !EAX_ASYNC_PAGE_FAULTS,
            // No performance counters: nothing saves them.
            0xa => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
            0x8000_0001 => entry.ecx &= !ECX_TOPOLOGY_EXTENSIONS,
            0x8000_0007 => entry.edx |= EDX_INVARIANT_TSC,
            0x8000_0008 => entry.ecx = (core_bits << 12) | (count - 1),
            _ => {}
        }
    }
    ensure(&mut entries, 6, |entry| entry.eax = EAX_ARAT);
    ensure(&mut entries, 0x8000_0007, |entry| entry.edx = EDX_INVARIANT_TSC);
    entries.extend(topology(id32, count, core_bits));
    let highest = entries.iter().map(|entry| entry.function).filter(|function| *function < 0x4000_0000).max();
    for entry in entries.iter_mut().filter(|entry| entry.function == 0) {
        entry.eax = highest.unwrap_or(entry.eax);
    }
    entries
}

/// Leaf 0xB: one thread a core, all cores in one package.
fn topology(id: u32, count: u32, core_bits: u32) -> [kvm_cpuid_entry2; 3] {
    let level = |index: u32, kind: u32, shift: u32, processors: u32| kvm_cpuid_entry2 {
        function: 0xb,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: processors,
        ecx: index | (kind << 8),
        edx: id,
        ..Default::default()
    };
    [level(0, LEVEL_THREAD, 0, 1), level(1, LEVEL_CORE, core_bits, count), level(2, 0, 0, 0)]
}

/// Adds a leaf that KVM left out.
fn ensure(entries: &mut Vec<kvm_cpuid_entry2>, function: u32, fill: impl FnOnce(&mut kvm_cpuid_entry2)) {
    if !entries.iter().any(|entry| entry.function == function) {
        let mut entry = kvm_cpuid_entry2 { function, ..Default::default() };
        fill(&mut entry);
        entries.push(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supported() -> CpuId {
        let leaf =
            |function, eax, ebx, ecx, edx| kvm_cpuid_entry2 { function, eax, ebx, ecx, edx, ..Default::default() };
        CpuId::from_entries(&[
            leaf(0, 0x20, 0, 0, 0),
            leaf(1, 0xa20f10, 0x0310_0801, ECX_PDCM, EDX_HTT),
            leaf(4, 0xfc00_4121, 0, 0, 0),
            leaf(0xa, 5, 5, 5, 5),
            leaf(0xb, 1, 2, 3, 4),
            leaf(0x1f, 1, 2, 3, 4),
            leaf(0x4000_0001, 0x0100_7efb, 0, 0, 0),
            leaf(0x8000_0008, 0x3030, 0, 0x700f, 0),
        ])
        .expect("entries fit")
    }

    fn get(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        *entries.iter().find(|entry| entry.function == function && entry.index == index).expect("the leaf is there")
    }

    #[test]
    fn nothing_needs_calibration() {
        let entries = for_vcpu(&supported(), 0, 1);
        let one = get(&entries, 1, 0);
        assert_ne!(one.ecx & ECX_TSC_DEADLINE, 0);
        assert_ne!(one.ecx & ECX_HYPERVISOR, 0);
        assert_eq!(one.ecx & ECX_PDCM, 0);
        assert_eq!(one.edx & EDX_HTT, 0);
        assert_ne!(get(&entries, 6, 0).eax & EAX_ARAT, 0);
        assert_ne!(get(&entries, 0x8000_0007, 0).edx & EDX_INVARIANT_TSC, 0);
        assert_eq!(get(&entries, 0xa, 0).eax, 0);
        // All that KVM offers but page faults that come later.
        assert_eq!(get(&entries, KVM_FEATURES, 0).eax, 0x0100_3aeb);
    }

    #[test]
    fn each_processor_knows_itself() {
        let entries = for_vcpu(&supported(), 2, 3);
        assert_eq!(get(&entries, 1, 0).ebx >> 24, 2);
        assert_eq!(get(&entries, 1, 0).ebx >> 16 & 0xff, 3);
        assert_eq!(get(&entries, 0xb, 0).edx, 2);
        let cores = get(&entries, 0xb, 1);
        assert_eq!((cores.eax, cores.ebx), (2, 3));
        assert!(!entries.iter().any(|entry| entry.function == 0x1f));
        assert_eq!(get(&entries, 0, 0).eax, 0xb);
    }
}
