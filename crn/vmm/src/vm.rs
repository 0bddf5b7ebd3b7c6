//! KVM's side of the machine: memory, interrupt controllers, processors.

use crate::{arch::x86_64::layout, memory::Ram, virtio::mmio::QUEUE_NOTIFY, working_set::pre_fault};
use kvm_bindings::{
    CpuId, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_MAX_CPUID_ENTRIES, kvm_clock_data,
    kvm_irqchip, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VcpuFd, VmFd};
use serde::{Deserialize, Serialize};
use std::io;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};
use vmm_sys_util::eventfd::EventFd;

/// Version of the KVM interface, the only one there is.
const KVM_API_VERSION: i32 = 12;
/// What the machine is made with; every kernel of the last decade has them.
const CAPABILITIES: &[(Cap, &str)] = &[
    (Cap::Irqchip, "interrupt controllers in the kernel"),
    (Cap::Irqfd, "interrupts from event descriptors"),
    (Cap::Ioeventfd, "event descriptors for device notifications"),
    (Cap::UserMemory, "guest memory from user space"),
    (Cap::ExtCpuid, "CPUID control"),
    (Cap::TscDeadlineTimer, "the TSC deadline timer"),
    (Cap::ImmediateExit, "immediate exit"),
];

/// Why KVM gives no machine. The host's fault.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// `/dev/kvm` does not open.
    #[error("cannot open /dev/kvm: {0}")]
    Open(kvm_ioctls::Error),
    /// KVM of another age.
    #[error("KVM speaks version {0} of its interface, version {KVM_API_VERSION} is needed")]
    Version(i32),
    /// Something is missing.
    #[error("this KVM has no {0}")]
    Capability(&'static str),
    /// An operation failed.
    #[error("KVM: cannot {what}: {error}")]
    Kvm {
        /// What was tried.
        what: &'static str,
        /// What it said.
        error: kvm_ioctls::Error,
    },
}

/// A machine of KVM: interrupt controllers, and memory once it is mapped.
#[derive(Debug)]
pub struct Vm {
    fd: VmFd,
    supported_cpuid: CpuId,
    msr_indices: Vec<u32>,
    pre_faults: bool,
}

impl Vm {
    /// Makes a machine without memory, on a KVM that was opened where there was a `/dev/kvm`.
    ///
    /// # Errors
    /// See [`VmError`].
    pub fn create(kvm: &Kvm) -> Result<Self, VmError> {
        let fail = |what| move |error| VmError::Kvm { what, error };
        let version = kvm.get_api_version();
        if version != KVM_API_VERSION {
            return Err(VmError::Version(version));
        }
        for (capability, name) in CAPABILITIES {
            if !kvm.check_extension(*capability) {
                return Err(VmError::Capability(name));
            }
        }
        let supported_cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(fail("ask for CPUID"))?;
        let msr_indices = kvm.get_msr_index_list().map_err(fail("ask for its registers"))?.as_slice().to_vec();
        let fd = kvm.create_vm().map_err(fail("create a machine"))?;
        // No PIT: the guest's kernel is told enough to need none (vmm spec 1.5), so no kernel thread is made for it.
        fd.set_tss_address(layout::KVM_TSS_GPA).map_err(fail("place its task state segment"))?;
        fd.create_irq_chip().map_err(fail("create interrupt controllers"))?;
        Ok(Self { fd, supported_cpuid, msr_indices, pre_faults: pre_fault::is_offered(kvm) })
    }

    /// Gives the machine its memory. The caller keeps `ram` for as long as the machine's processors exist.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn map(&self, ram: &Ram) -> Result<(), VmError> {
        for (slot, region) in (0_u32..).zip(ram.iter()) {
            let memory = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.start_addr().0,
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
            };
            // SAFETY: the address range is a mapping that `ram` owns, and `ram` lives until the process ends: the machine
            // keeps a reference to it beside this descriptor.
            unsafe { self.fd.set_user_memory_region(memory) }
                .map_err(|error| VmError::Kvm { what: "map memory", error })?;
        }
        Ok(())
    }

    /// What processors of this machine can do at most.
    #[must_use]
    pub fn supported_cpuid(&self) -> &CpuId {
        &self.supported_cpuid
    }

    /// The model-specific registers that this KVM keeps.
    #[must_use]
    pub fn msr_indices(&self) -> &[u32] {
        &self.msr_indices
    }

    /// Whether pages can be mapped for a processor in advance.
    #[must_use]
    pub fn pre_faults(&self) -> bool {
        self.pre_faults
    }

    /// Makes a processor.
    ///
    /// # Errors
    /// KVM has no more.
    pub fn create_vcpu(&self, id: u8) -> Result<VcpuFd, VmError> {
        self.fd.create_vcpu(u64::from(id)).map_err(|error| VmError::Kvm { what: "create a processor", error })
    }

    /// Connects a slot's interrupt and notifications, so that neither leaves the kernel.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn attach(&self, position: usize, slot: &Slot) -> Result<(), VmError> {
        let fail = |what| move |error| VmError::Kvm { what, error };
        self.fd.register_irqfd(&slot.line, layout::device_gsi(position)).map_err(fail("connect an interrupt"))?;
        let address = IoEventAddress::Mmio(layout::device_gpa(position) + QUEUE_NOTIFY);
        for (queue, notification) in (0_u32..).zip(&slot.notifications) {
            self.fd.register_ioevent(notification, &address, queue).map_err(fail("connect a notification"))?;
        }
        Ok(())
    }

    /// The state of the interrupt controllers and of the clock.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn save(&self) -> Result<ChipState, VmError> {
        let mut chips = CHIPS.map(|chip_id| kvm_irqchip { chip_id, ..Default::default() });
        for chip in &mut chips {
            self.fd.get_irqchip(chip).map_err(|error| VmError::Kvm { what: "read an interrupt controller", error })?;
        }
        let clock = self.fd.get_clock().map_err(|error| VmError::Kvm { what: "read the clock", error })?;
        Ok(ChipState { chips, clock })
    }

    /// Puts such a state in place, after the processors' own (vmm spec 5.2).
    ///
    /// # Errors
    /// KVM refuses.
    pub fn restore(&self, state: &ChipState) -> Result<(), VmError> {
        self.rewind(state)?;
        for chip in &state.chips {
            self.fd.set_irqchip(chip).map_err(|error| VmError::Kvm { what: "set an interrupt controller", error })?;
        }
        Ok(())
    }

    /// Sets the machine's clock, which its guest's monotonic time follows, to the moment of the state: it goes on from there, whatever the
    /// host's clocks say.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn rewind(&self, state: &ChipState) -> Result<(), VmError> {
        let moment = kvm_clock_data { clock: state.clock.clock, ..Default::default() };
        self.fd.set_clock(&moment).map_err(|error| VmError::Kvm { what: "set the clock", error })
    }
}

/// The interrupt controllers in KVM's order: two PICs, the IOAPIC.
const CHIPS: [u32; 3] = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC];

/// The machine's state in KVM besides its processors.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ChipState {
    chips: [kvm_irqchip; 3],
    clock: kvm_clock_data,
}

#[cfg(test)]
impl ChipState {
    pub(crate) fn for_test() -> Self {
        let clock = kvm_clock_data { clock: 77, ..Default::default() };
        Self { chips: CHIPS.map(|chip_id| kvm_irqchip { chip_id, ..Default::default() }), clock }
    }
}

/// A device's place in the machine: the line that interrupts the guest, and what the guest's notifications write to.
#[derive(Debug)]
pub struct Slot {
    /// Written to raise the line; KVM injects it.
    pub line: EventFd,
    /// Written by KVM when the guest notifies; one per queue.
    pub notifications: Vec<EventFd>,
}

impl Slot {
    /// A place for a device with that many queues.
    ///
    /// # Errors
    /// The host has no more event descriptors.
    pub fn new(queues: usize) -> io::Result<Self> {
        let event = || EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
        Ok(Self { line: event()?, notifications: (0..queues).map(|_| event()).collect::<Result<_, _>>()? })
    }
}
