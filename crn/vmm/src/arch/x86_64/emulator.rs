//! Where QEMU's emulation of AMD's virtualization differs from processors: the emulated KVM host of the tests and the demo runs on it.

use kvm_bindings::kvm_sregs;
use std::arch::x86_64::__cpuid;

/// Leaf of the hypervisor's signature, and the signature of QEMU's emulator.
const SIGNATURE_LEAF: u32 = 0x4000_0000;
const SIGNATURE: [u8; 12] = *b"TCGTCGTCGTCG";

/// Types of a task state segment: available, and in use.
const AVAILABLE: u8 = 9;
const BUSY: u8 = 11;

/// Whether this host's processor is QEMU's emulator.
#[must_use]
pub fn is_host() -> bool {
    let leaf = __cpuid(SIGNATURE_LEAF);
    let words = [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes);
    words.concat() == SIGNATURE
}

/// Segments as the emulator wants to be given them.
///
/// A processor's task register is busy from the moment that it is loaded. The emulator keeps it as available, reads it to KVM as busy as KVM
/// expects, and then refuses every port access of a process whose task state segment is busy.
#[must_use]
pub fn segments(mut special: kvm_sregs) -> kvm_sregs {
    if special.tr.type_ == BUSY {
        special.tr.type_ = AVAILABLE;
    }
    special
}
