//! A virtual processor and the thread that runs it.

use crate::{
    arch::x86_64::{boot::Start, cpuid, msr, registers},
    bus::{Bus, Effect},
    memory::Ram,
    statistics::ExitCounters,
    working_set::{WorkingSet, pre_fault},
};
use guest_protocol::doorbell;
use kvm_bindings::{CpuId, Msrs};
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::sync::{
    Arc,
    mpsc::{self, SyncSender},
};

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
    /// The host counts time at another speed than the host of the snapshot did.
    #[error(
        "the snapshot's time stamp counter runs at {saved} kHz, this host's at {host}: it was taken on another machine"
    )]
    Frequency {
        /// Of the snapshot, kHz.
        saved: u32,
        /// Of this host, kHz.
        host: u32,
    },
    /// The host has no thread.
    #[error("no thread for the processor: {0}")]
    Thread(std::io::Error),
}

/// Where what a guest does is reported.
pub trait Listener: Send {
    /// The guest said where it is.
    fn effect(&self, effect: Effect);
    /// The guest stands still for a snapshot; the processor is handed over, and runs on when it is given back.
    fn frozen(&self, fd: VcpuFd);
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

/// What a processor's thread is given to run: the processor, and where its accesses go.
#[derive(Debug)]
pub struct Go {
    /// The processor, its state complete.
    pub fd: VcpuFd,
    /// The devices.
    pub bus: Arc<Bus>,
    /// What a clone's processor is to have mapped once init is itself.
    pub ahead: Option<WorkingSet>,
}

/// Starts the thread of a processor, which confines itself and then runs what it is given, as often as it is given something.
///
/// # Errors
/// No thread.
pub fn spawn(
    id: u8,
    exits: Arc<ExitCounters>,
    listener: impl Listener + 'static,
    confine: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> Result<SyncSender<Go>, VcpuError> {
    let (sender, orders) = mpsc::sync_channel::<Go>(1);
    std::thread::Builder::new()
        .name(format!("vcpu{id}"))
        .stack_size(STACK_BYTES)
        .spawn(move || {
            if let Err(error) = confine() {
                return listener.ended(VcpuEnd::Failed(error));
            }
            // A machine that is over gives nothing more.
            while let Ok(Go { mut fd, bus, ahead }) = orders.recv() {
                match run(&mut fd, &bus, ahead, &exits, &listener) {
                    Stop::Frozen => listener.frozen(fd),
                    Stop::Ended(end) => return listener.ended(end),
                }
            }
        })
        .map_err(VcpuError::Thread)?;
    Ok(sender)
}

/// Why a processor does not run.
enum Stop {
    /// The guest stands still for a snapshot.
    Frozen,
    Ended(VcpuEnd),
}

fn run(
    fd: &mut VcpuFd,
    bus: &Bus,
    mut ahead: Option<WorkingSet>,
    exits: &ExitCounters,
    listener: &impl Listener,
) -> Stop {
    loop {
        match fd.run() {
            Ok(VcpuExit::IoOut(port, data)) => {
                ExitCounters::count(&exits.port_out);
                match bus.port_out(port, data) {
                    Effect::None => {}
                    Effect::Reset => return Stop::Ended(VcpuEnd::Reset),
                    Effect::Freeze => {
                        return match complete(fd) {
                            Ok(()) => Stop::Frozen,
                            Err(error) => Stop::Ended(VcpuEnd::Failed(error)),
                        };
                    }
                    effect @ (Effect::Progress(_) | Effect::Doorbell(_)) => {
                        listener.effect(effect);
                        if effect.is_bell(doorbell::THAWED)
                            && let Some(set) = ahead.take()
                        {
                            // Meanwhile the first call comes.
                            ExitCounters::add(&exits.mapped_ranges, pre_fault::map(fd, &set));
                        }
                    }
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
                return Stop::Ended(VcpuEnd::Reset);
            }
            // With an interrupt controller in KVM a halt does not come here; if it does, the processor waits again.
            Ok(VcpuExit::Hlt | VcpuExit::Intr | VcpuExit::IrqWindowOpen) => ExitCounters::count(&exits.other),
            Ok(exit) => return Stop::Ended(VcpuEnd::Failed(format!("KVM stopped the processor: {exit:?}"))),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => ExitCounters::count(&exits.other),
            Err(error) => return Stop::Ended(VcpuEnd::Failed(format!("KVM cannot run the processor: {error}"))),
        }
    }
}

/// Has KVM complete the port access that it left for: until then its registers are from before the instruction (vmm spec 5.2).
fn complete(fd: &mut VcpuFd) -> Result<(), String> {
    fd.set_kvm_immediate_exit(1);
    let left = match fd.run() {
        Err(error) if error.errno() == libc::EINTR => Ok(()),
        Err(error) => Err(format!("KVM cannot complete an access: {error}")),
        Ok(exit) => Err(format!("KVM left for another reason while it completed an access: {exit:?}")),
    };
    fd.set_kvm_immediate_exit(0);
    left
}
