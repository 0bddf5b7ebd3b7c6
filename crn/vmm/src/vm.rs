//! KVM's side of the machine: memory, interrupt controllers, processors.

use crate::{
    arch::x86_64::layout,
    memory::Ram,
    virtio::mmio::{QUEUE_NOTIFY, Transport},
};
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VcpuFd, VmFd};
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

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

/// A machine without processors or devices.
#[derive(Debug)]
pub struct Vm {
    fd: VmFd,
    supported_cpuid: CpuId,
}

impl Vm {
    /// Makes a machine with that memory.
    ///
    /// # Errors
    /// See [`VmError`].
    pub fn create(ram: &Ram) -> Result<Self, VmError> {
        let kvm = Kvm::new().map_err(VmError::Open)?;
        Self::create_with(&kvm, ram)
    }

    /// The same on an open KVM.
    ///
    /// # Errors
    /// See [`VmError`].
    pub fn create_with(kvm: &Kvm, ram: &Ram) -> Result<Self, VmError> {
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
        let fd = kvm.create_vm().map_err(fail("create a machine"))?;
        // No PIT: the guest's kernel is told enough to need none (vmm spec 1.5), so no kernel thread is made for it.
        fd.set_tss_address(layout::KVM_TSS_GPA).map_err(fail("place its task state segment"))?;
        fd.create_irq_chip().map_err(fail("create interrupt controllers"))?;
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
            unsafe { fd.set_user_memory_region(memory) }.map_err(fail("map memory"))?;
        }
        Ok(Self { fd, supported_cpuid })
    }

    /// What processors of this machine can do at most.
    #[must_use]
    pub fn supported_cpuid(&self) -> &CpuId {
        &self.supported_cpuid
    }

    /// Makes a processor.
    ///
    /// # Errors
    /// KVM has no more.
    pub fn create_vcpu(&self, id: u8) -> Result<VcpuFd, VmError> {
        self.fd.create_vcpu(u64::from(id)).map_err(|error| VmError::Kvm { what: "create a processor", error })
    }

    /// Connects a device's interrupt and notifications, so that neither leaves the kernel.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn attach(&self, position: usize, transport: &Transport) -> Result<(), VmError> {
        let fail = |what| move |error| VmError::Kvm { what, error };
        self.fd.register_irqfd(transport.line(), layout::device_gsi(position)).map_err(fail("connect an interrupt"))?;
        let address = IoEventAddress::Mmio(layout::device_gpa(position) + QUEUE_NOTIFY);
        for (queue, notification) in (0_u32..).zip(transport.notifications()) {
            self.fd.register_ioevent(notification, &address, queue).map_err(fail("connect a notification"))?;
        }
        Ok(())
    }
}
