//! A virtual processor and the thread that runs it.

use crate::{
    arch::x86_64::{boot::Start, cpuid, msr, registers},
    bus::{Bus, Effect},
    memory::Ram,
    statistics::ExitCounters,
};
use kvm_bindings::{CpuId, Msrs};
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::sync::Arc;

/// A stack is small: the run loop has no deep calls.
const STACK_BYTES: usize = 128 * 1024;

/// Why a processor could not be set up: KVM, or an impossible machine.
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    /// KVM refused.
    #[error("KVM refuses the processor's {what}: {error}")]
    Kvm {
        /// Which state.
        what: &'static str,
        /// What it said.
        error: kvm_ioctls::Error,
    },
    /// Tables could not be written.
    #[error("cannot write the processor's tables: {0}")]
    Tables(String),
    /// A register was refused: the index of the first one.
    #[error("KVM refuses model-specific register {0:#x}")]
    Msr(u32),
    /// The host has no thread.
    #[error("no thread for the processor: {0}")]
    Thread(std::io::Error),
}

/// Where what a guest does is reported.
pub trait Listener: Send {
    /// The guest said where it is.
    fn effect(&self, effect: Effect);
    /// The processor runs no more.
    fn ended(&self, end: VcpuEnd);
}

/// Why a processor stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VcpuEnd {
    /// The guest reset the machine or faulted three times.
    Reset,
    /// KVM cannot go on.
    Failed(String),
}

/// Prepares a processor. Only the boot processor (id 0) gets an entry; the others wait for it to start them.
///
/// CPUID comes first: since Linux 6.13 KVM reads registers that depend on it as zero before (vmm spec 1.3).
///
/// # Errors
/// See [`VcpuError`].
pub fn prepare(fd: &VcpuFd, id: u8, vcpus: u8, supported: &CpuId, ram: &Ram, start: Start) -> Result<(), VcpuError> {
    let fail = |what| move |error| VcpuError::Kvm { what, error };
    let entries = cpuid::for_vcpu(supported, id, vcpus);
    let cpuid = CpuId::from_entries(&entries).map_err(|error| VcpuError::Tables(format!("{error:?}")))?;
    fd.set_cpuid2(&cpuid).map_err(fail("CPUID"))?;
    let registers = msr::at_entry();
    let msrs = Msrs::from_entries(&registers).map_err(|error| VcpuError::Tables(format!("{error:?}")))?;
    let written = fd.set_msrs(&msrs).map_err(fail("model-specific registers"))?;
    if let Some(refused) = registers.get(written) {
        return Err(VcpuError::Msr(refused.index));
    }
    fd.set_fpu(&registers::floating_point()).map_err(fail("floating point state"))?;
    let mut apic = fd.get_lapic().map_err(fail("local APIC"))?;
    registers::wire_local_apic(&mut apic);
    fd.set_lapic(&apic).map_err(fail("local APIC"))?;
    if id == 0 {
        let sregs = fd.get_sregs().map_err(fail("control registers"))?;
        let sregs = registers::special(ram, start, sregs).map_err(VcpuError::Tables)?;
        fd.set_sregs(&sregs).map_err(fail("control registers"))?;
        fd.set_regs(&registers::general(start)).map_err(fail("registers"))?;
    }
    Ok(())
}

/// Starts the thread that runs a processor until the machine ends. `confine` is called on it first.
///
/// # Errors
/// No thread.
pub fn spawn(
    fd: VcpuFd,
    id: u8,
    bus: Arc<Bus>,
    exits: Arc<ExitCounters>,
    listener: impl Listener + 'static,
    confine: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> Result<(), VcpuError> {
    std::thread::Builder::new()
        .name(format!("vcpu{id}"))
        .stack_size(STACK_BYTES)
        .spawn(move || {
            let end = match confine() {
                Ok(()) => run(fd, &bus, &exits, &listener),
                Err(error) => VcpuEnd::Failed(error),
            };
            listener.ended(end);
        })
        .map_err(VcpuError::Thread)?;
    Ok(())
}

fn run(mut fd: VcpuFd, bus: &Bus, exits: &ExitCounters, listener: &impl Listener) -> VcpuEnd {
    loop {
        match fd.run() {
            Ok(VcpuExit::IoOut(port, data)) => {
                ExitCounters::count(&exits.port_out);
                match bus.port_out(port, data) {
                    Effect::None => {}
                    Effect::Reset => return VcpuEnd::Reset,
                    effect @ (Effect::Progress(_) | Effect::Doorbell(_)) => listener.effect(effect),
                }
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                ExitCounters::count(&exits.port_in);
                bus.port_in(port, data);
            }
            Ok(VcpuExit::MmioRead(gpa, data)) => {
                ExitCounters::count(&exits.mmio_read);
                bus.mmio_read(gpa, data);
            }
            Ok(VcpuExit::MmioWrite(gpa, data)) => {
                ExitCounters::count(&exits.mmio_write);
                bus.mmio_write(gpa, data);
            }
            Ok(VcpuExit::Shutdown | VcpuExit::SystemEvent(..)) => {
                ExitCounters::count(&exits.other);
                return VcpuEnd::Reset;
            }
            // With an interrupt controller in KVM a halt does not come here; if it does, the processor waits again.
            Ok(VcpuExit::Hlt | VcpuExit::Intr | VcpuExit::IrqWindowOpen) => ExitCounters::count(&exits.other),
            Ok(exit) => return VcpuEnd::Failed(format!("KVM stopped the processor: {exit:?}")),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => ExitCounters::count(&exits.other),
            Err(error) => return VcpuEnd::Failed(format!("KVM cannot run the processor: {error}")),
        }
    }
}
