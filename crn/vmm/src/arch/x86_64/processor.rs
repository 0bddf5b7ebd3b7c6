//! The state of a stopped processor, out of KVM and back into it.
//!
//! The order of each is part of the matter (vmm spec 5.2): reading the run state makes KVM process what is pending for the APIC, writing
//! general registers clears pending exceptions, and so on. The comments name what would be lost otherwise.

use super::{emulator, msr};
use crate::vcpu::VcpuError;
use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry,
    kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::VcpuFd;
use serde::{Deserialize, Serialize};

/// A stopped processor. Structures of KVM are kept as their bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProcessorState {
    cpuid: Vec<kvm_cpuid_entry2>,
    /// Frequency of its time stamp counter, kHz.
    tsc_khz: u32,
    run_state: kvm_mp_state,
    general: kvm_regs,
    special: kvm_sregs,
    /// Floating point and vector registers: the 4 KiB of `kvm_xsave`, which hold every feature that a process need not ask for first.
    extended: Vec<u32>,
    control: kvm_xcrs,
    debug: kvm_debugregs,
    apic: kvm_lapic_state,
    msrs: Vec<kvm_msr_entry>,
    events: kvm_vcpu_events,
}

/// How much the frequency of a time stamp counter may differ from the one that a guest was told, parts per million: a host measures its own
/// anew at each start, and no guest notices less (vmm spec 5.2).
const TSC_TOLERANCE_PPM: u64 = 250;

impl ProcessorState {
    /// Reads a processor that does not run; `indices` are the registers that KVM knows.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn save(fd: &VcpuFd, indices: &[u32]) -> Result<Self, VcpuError> {
        let fail = |what| move |error| VcpuError::Kvm { what, error };
        // First: KVM works on pending events of the APIC when it is asked for this.
        let run_state = fd.get_mp_state().map_err(fail("run state"))?;
        let general = fd.get_regs().map_err(fail("registers"))?;
        let special = fd.get_sregs().map_err(fail("control registers"))?;
        let extended = fd.get_xsave().map_err(fail("extended state"))?.region.to_vec();
        let control = fd.get_xcrs().map_err(fail("extended control registers"))?;
        let debug = fd.get_debug_regs().map_err(fail("debug registers"))?;
        let apic = fd.get_lapic().map_err(fail("local APIC"))?;
        // A host whose counter has no stable frequency says so by an error.
        let tsc_khz = fd.get_tsc_khz().unwrap_or(0);
        let cpuid = fd.get_cpuid2(KVM_MAX_CPUID_ENTRIES).map_err(fail("CPUID"))?;
        // KVM fills the table up with zeros.
        let cpuid = cpuid.as_slice().iter().filter(|entry| **entry != kvm_cpuid_entry2::default()).copied().collect();
        let msrs = read_msrs(fd, &msr::kept(indices))?;
        // Last: reading the registers above may have added to them.
        let events = fd.get_vcpu_events().map_err(fail("events"))?;
        Ok(Self { cpuid, tsc_khz, run_state, general, special, extended, control, debug, apic, msrs, events })
    }

    /// Puts the state into a new processor.
    ///
    /// # Errors
    /// KVM refuses, or the host's time stamp counter is another.
    pub fn restore(&self, fd: &VcpuFd) -> Result<(), VcpuError> {
        let fail = |what| move |error| VcpuError::Kvm { what, error };
        let tsc_khz = fd.get_tsc_khz().unwrap_or(0);
        if u64::from(tsc_khz.abs_diff(self.tsc_khz)) * 1_000_000 > u64::from(self.tsc_khz) * TSC_TOLERANCE_PPM {
            return Err(VcpuError::Frequency { saved: self.tsc_khz, host: tsc_khz });
        }
        // Before the registers that depend on it.
        let cpuid = CpuId::from_entries(&self.cpuid).map_err(|error| VcpuError::Tables(format!("{error:?}")))?;
        fd.set_cpuid2(&cpuid).map_err(fail("CPUID"))?;
        fd.set_mp_state(self.run_state).map_err(fail("run state"))?;
        // Before the events: writing these clears a pending exception.
        fd.set_regs(&self.general).map_err(fail("registers"))?;
        // Before the APIC, whose base is in them.
        let special = if emulator::is_host() { emulator::segments(self.special) } else { self.special };
        fd.set_sregs(&special).map_err(fail("control registers"))?;
        let region = self.extended.as_slice().try_into();
        let region = region.map_err(|_| VcpuError::Tables("the extended state has another length".to_owned()))?;
        let extended = kvm_xsave { region, extra: Default::default() };
        // SAFETY: KVM reads 4 KiB, the length of the structure, unless this process has asked for features whose registers are kept beyond
        // that (`arch_prctl`), which nothing here does.
        unsafe { fd.set_xsave(&extended) }.map_err(fail("extended state"))?;
        fd.set_xcrs(&self.control).map_err(fail("extended control registers"))?;
        fd.set_debug_regs(&self.debug).map_err(fail("debug registers"))?;
        // Before the timer's deadline, which is written as a register.
        fd.set_lapic(&self.apic).map_err(fail("local APIC"))?;
        write_all_msrs(fd, self.msrs.iter().copied())?;
        fd.set_vcpu_events(&self.events).map_err(fail("events"))?;
        resumes(fd);
        Ok(())
    }

    /// Sets the time stamp counter to where it was when the state was read.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn rewind(&self, fd: &VcpuFd) -> Result<(), VcpuError> {
        let clocks = [msr::IA32_TSC, msr::IA32_TSC_DEADLINE];
        write_all_msrs(fd, self.msrs.iter().copied().filter(|entry| clocks.contains(&entry.index)))
    }

    /// What the register RDI holds, and CR3, which says where the page tables are.
    #[must_use]
    pub fn rdi_and_cr3(&self) -> (u64, u64) {
        (self.general.rdi, self.special.cr3)
    }
}

/// Tells the guest's watchdogs that its processor stood still.
pub fn resumes(fd: &VcpuFd) {
    // Refused where the guest does not use KVM's clock, and then nobody watches.
    let _ = fd.kvmclock_ctrl();
}

/// Reads registers; one that KVM lists and does not read is left out.
fn read_msrs(fd: &VcpuFd, indices: &[u32]) -> Result<Vec<kvm_msr_entry>, VcpuError> {
    let mut wanted: Vec<_> =
        indices.iter().map(|index| kvm_msr_entry { index: *index, ..Default::default() }).collect();
    loop {
        let mut msrs = Msrs::from_entries(&wanted).map_err(|error| VcpuError::Tables(format!("{error:?}")))?;
        let read =
            fd.get_msrs(&mut msrs).map_err(|error| VcpuError::Kvm { what: "model-specific registers", error })?;
        if read == wanted.len() {
            let mut entries = msrs.as_slice().to_vec();
            keep_expired_deadline(&mut entries);
            return Ok(entries);
        }
        // The count names the first that was refused. Each turn leaves one out.
        wanted.remove(read);
    }
}

/// A deadline that has passed reads as zero until its interrupt is delivered; it would be lost.
fn keep_expired_deadline(entries: &mut [kvm_msr_entry]) {
    let counter = entries.iter().find(|entry| entry.index == msr::IA32_TSC).map(|entry| entry.data);
    if let Some(counter) = counter
        && let Some(deadline) = entries.iter_mut().find(|entry| entry.index == msr::IA32_TSC_DEADLINE)
        && deadline.data == 0
    {
        deadline.data = counter;
    }
}

/// Writes registers, the deadline of the timer by a call of its own: once the counter that it is held against is set.
fn write_all_msrs(fd: &VcpuFd, entries: impl Iterator<Item = kvm_msr_entry>) -> Result<(), VcpuError> {
    let (deadline, others): (Vec<_>, Vec<_>) = entries.partition(|entry| entry.index == msr::IA32_TSC_DEADLINE);
    write_msrs(fd, &others)?;
    write_msrs(fd, &deadline)
}

fn write_msrs(fd: &VcpuFd, entries: &[kvm_msr_entry]) -> Result<(), VcpuError> {
    if entries.is_empty() {
        return Ok(());
    }
    let msrs = Msrs::from_entries(entries).map_err(|error| VcpuError::Tables(format!("{error:?}")))?;
    let written = fd.set_msrs(&msrs).map_err(|error| VcpuError::Kvm { what: "model-specific registers", error })?;
    entries.get(written).map_or(Ok(()), |refused| Err(VcpuError::Msr(refused.index)))
}

#[cfg(test)]
impl ProcessorState {
    /// A state that no processor had, different in every part.
    pub(crate) fn for_test() -> Self {
        Self {
            cpuid: vec![kvm_cpuid_entry2 { function: 7, eax: 1, ..Default::default() }],
            tsc_khz: 2_400_000,
            run_state: kvm_mp_state { mp_state: 0 },
            general: kvm_regs { rip: 0x1000, rdi: 0x7000, ..Default::default() },
            special: kvm_sregs { cr3: 0x9000, ..Default::default() },
            extended: vec![0x37f, 1 << 31],
            control: kvm_xcrs { nr_xcrs: 1, ..Default::default() },
            debug: kvm_debugregs { dr6: 0xffff_0ff0, ..Default::default() },
            apic: kvm_lapic_state::default(),
            msrs: vec![kvm_msr_entry { index: msr::IA32_TSC, data: 5, ..Default::default() }],
            events: kvm_vcpu_events { flags: 1, ..Default::default() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_that_has_expired_fires_in_the_copy() {
        let entry = |index, data| kvm_msr_entry { index, data, ..Default::default() };
        let mut entries = [entry(msr::IA32_TSC, 1000), entry(msr::IA32_TSC_DEADLINE, 0)];
        keep_expired_deadline(&mut entries);
        assert_eq!(entries[1].data, 1000);
        let mut entries = [entry(msr::IA32_TSC, 1000), entry(msr::IA32_TSC_DEADLINE, 2000)];
        keep_expired_deadline(&mut entries);
        assert_eq!(entries[1].data, 2000);
    }

    /// The structures lie in state files as their bytes: another length is another version of the file.
    #[test]
    fn structures_are_as_long_as_they_were() {
        let lengths = [
            size_of::<kvm_cpuid_entry2>(),
            size_of::<kvm_mp_state>(),
            size_of::<kvm_regs>(),
            size_of::<kvm_sregs>(),
            size_of::<kvm_xsave>(),
            size_of::<kvm_xcrs>(),
            size_of::<kvm_debugregs>(),
            size_of::<kvm_lapic_state>(),
            size_of::<kvm_msr_entry>(),
            size_of::<kvm_vcpu_events>(),
        ];
        assert_eq!(lengths, [40, 4, 144, 312, 4096, 392, 128, 1024, 16, 64]);
    }
}
