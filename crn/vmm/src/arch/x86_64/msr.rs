//! Model-specific registers: at entry (vmm spec 1.4), and those that a snapshot keeps (5.1).

use kvm_bindings::kvm_msr_entry;

/// The time stamp counter.
pub const IA32_TSC: u32 = 0x10;
/// When the local APIC's timer fires, as a value of the counter.
pub const IA32_TSC_DEADLINE: u32 = 0x6e0;
const IA32_SYSENTER_CS: u32 = 0x174;
const IA32_SYSENTER_ESP: u32 = 0x175;
const IA32_SYSENTER_EIP: u32 = 0x176;
const IA32_MISC_ENABLE: u32 = 0x1a0;
const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;
const STAR: u32 = 0xc000_0081;
const LSTAR: u32 = 0xc000_0082;
const CSTAR: u32 = 0xc000_0083;
const SYSCALL_MASK: u32 = 0xc000_0084;
const KERNEL_GS_BASE: u32 = 0xc000_0102;

const MISC_ENABLE_FAST_STRING: u64 = 1;
/// MTRRs enabled, default type write-back: without it all RAM would be uncached.
const MTRR_ENABLED_WRITE_BACK: u64 = (1 << 11) | 6;

/// What every processor starts with.
#[must_use]
pub fn at_entry() -> Vec<kvm_msr_entry> {
    let entry = |index, data| kvm_msr_entry { index, data, ..Default::default() };
    vec![
        entry(IA32_SYSENTER_CS, 0),
        entry(IA32_SYSENTER_ESP, 0),
        entry(IA32_SYSENTER_EIP, 0),
        entry(STAR, 0),
        entry(LSTAR, 0),
        entry(CSTAR, 0),
        entry(SYSCALL_MASK, 0),
        entry(KERNEL_GS_BASE, 0),
        entry(IA32_TSC, 0),
        entry(IA32_MISC_ENABLE, MISC_ENABLE_FAST_STRING),
        entry(IA32_MTRR_DEF_TYPE, MTRR_ENABLED_WRITE_BACK),
    ]
}

/// What a snapshot keeps, as ranges with their reasons. Others are constant, measure the host, or belong to what this machine does not have
/// (performance counters, machine checks, nested guests); segment bases and the APIC's base travel with the control registers.
///
/// Not here though a guest writes them: where KVM puts the wall clock (0x11, 0x4b564d00). Writing these makes KVM write to the guest's memory,
/// and a guest that wants the time writes them again.
const KEPT: &[(u32, u32, &str)] = &[
    (0x10, 0x10, "time stamp counter"),
    (0x12, 0x12, "KVM's clock, its older number"),
    (0x3b, 0x3b, "what software has added to the counter"),
    (0x48, 0x48, "speculation control"),
    (0x122, 0x122, "transactional memory, where it is off"),
    (0x140, 0x140, "faulting CPUID"),
    (0x174, 0x176, "entry of SYSENTER"),
    (0x1a0, 0x1a0, "miscellaneous features"),
    (0x277, 0x277, "page attribute table"),
    (0x2ff, 0x2ff, "default memory type"),
    (0x6a0, 0x6a8, "shadow stacks and indirect branch tracking"),
    (0x6e0, 0x6e0, "deadline of the timer"),
    (0xda0, 0xda0, "supervisor extended state"),
    (0x4b56_4d01, 0x4b56_4d07, "KVM's clock, page faults, stolen time, end of interrupt, polling"),
    (0xc000_0081, 0xc000_0084, "entry of SYSCALL"),
    (0xc000_0102, 0xc000_0103, "kernel's GS base, processor number"),
    (0xc001_011f, 0xc001_011f, "speculation control of older processors"),
];

/// Of the registers that KVM knows, those that a snapshot keeps. The counter comes first: others are held against it.
#[must_use]
pub fn kept(known: &[u32]) -> Vec<u32> {
    let mut indices: Vec<u32> = known
        .iter()
        .filter(|index| KEPT.iter().any(|(first, last, _)| (first..=last).contains(index)))
        .copied()
        .collect();
    indices.sort_unstable();
    indices.dedup();
    indices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_comes_first_and_what_measures_the_host_does_not_come() {
        let known = [0xc000_0081, 0x4b56_4d00, 0x4b56_4d02, 0xc1, 0x10, 0x11, 0x6e0, 0x10];
        assert_eq!(kept(&known), [0x10, 0x6e0, 0x4b56_4d02, 0xc000_0081]);
    }
}
