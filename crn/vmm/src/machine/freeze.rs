//! A machine that stands still: what is copied of it, and how it goes on.

use super::Machine;
use crate::{
    arch::x86_64::{
        paging,
        processor::{self, ProcessorState},
    },
    bus::lock,
    memory,
    snapshot::{MachineState, SnapshotError},
    vcpu::Go,
    vm::ChipState,
};
use guest_protocol::record::{PAGE_BYTES, Record};
use kvm_ioctls::VcpuFd;
use std::{fs::File, sync::Arc, time::SystemTime};
use vm_memory::{GuestAddress, GuestMemoryBackend as _};

/// Turns of a device before a machine is copied: each carries out as many requests as a queue holds. A guest that stands still has handed over no
/// more than its queues hold.
const MAX_SETTLING_TURNS: usize = 64;

/// The processor of a machine that stands still, and its state as of then.
#[derive(Debug)]
pub(super) struct Frozen {
    fd: VcpuFd,
    processor: ProcessorState,
    chips: ChipState,
    record_gpa: u64,
}

impl Machine {
    /// Takes over the processor of a guest that has rung for it. Devices come to rest, so that what the guest has handed over is done, once.
    pub(super) fn freeze(&mut self, fd: VcpuFd) -> Result<(), String> {
        let settled = self.bus.devices.iter().all(|device| lock(device).settle(MAX_SETTLING_TURNS));
        if !settled {
            return Err(SnapshotError::Restless.to_string());
        }
        let processor = ProcessorState::save(&fd, self.shell.vm.msr_indices()).map_err(|error| error.to_string())?;
        let chips = self.shell.vm.save().map_err(|error| error.to_string())?;
        let record_gpa = self.record_place(&processor).map_err(|error| error.to_string())?;
        self.frozen = Some(Frozen { fd, processor, chips, record_gpa });
        Ok(())
    }

    /// Where in guest memory the page is that the processor's register names: it is mapped for the process that rang, at this instruction.
    fn record_place(&self, processor: &ProcessorState) -> Result<u64, SnapshotError> {
        let (address, cr3) = processor.rdi_and_cr3();
        let gpa = paging::translate(&self.ram, cr3, address).ok_or(SnapshotError::Record(address))?;
        let whole = gpa.is_multiple_of(PAGE_BYTES as u64) && self.ram.check_range(GuestAddress(gpa), PAGE_BYTES);
        if whole { Ok(gpa) } else { Err(SnapshotError::Record(gpa)) }
    }

    /// Copies the machine into two files. Returns the bytes of memory that are not zero.
    pub(super) fn copy_to(&self, memory: &File, state: &File) -> Result<u64, SnapshotError> {
        let frozen = self.frozen.as_ref().ok_or(SnapshotError::Shape("it does not stand still"))?;
        if self.config.vcpus != 1 {
            return Err(SnapshotError::Processors);
        }
        let machine = MachineState {
            config: self.config.clone(),
            supported_cpuid: self.shell.vm.supported_cpuid().as_slice().to_vec(),
            processor: frozen.processor.clone(),
            chips: frozen.chips,
            devices: self.bus.devices.iter().map(|device| lock(device).save()).collect(),
            record_gpa: frozen.record_gpa,
        };
        let bytes =
            memory::save(&self.ram, memory).map_err(|error| SnapshotError::File { what: "write the memory", error })?;
        machine.write(state)?;
        Ok(bytes)
    }

    /// Lets a machine that stands still go on as the one of this record. Its clocks have stood still with it, as a clone's have.
    pub(super) fn go_on(&mut self, record: Record) -> Result<(), String> {
        let Some(Frozen { fd, processor, chips, record_gpa }) = self.frozen.take() else {
            return Err("the machine does not stand still".to_owned());
        };
        processor.rewind(&fd).map_err(|error| error.to_string())?;
        let runs_from = SystemTime::now();
        self.shell.vm.rewind(&chips).map_err(|error| error.to_string())?;
        processor::resumes(&fd);
        self.write_record(record_gpa, record, runs_from).map_err(|error| error.to_string())?;
        self.release(0, fd)
    }

    /// Gives a processor to its thread.
    pub(super) fn release(&mut self, index: usize, fd: VcpuFd) -> Result<(), String> {
        let go = Go { fd, bus: Arc::clone(&self.bus), ahead: self.ahead.take() };
        let thread = self.shell.processors.get(index).map(|processor| &processor.thread);
        // A thread that could not confine itself is gone, and has said why.
        match thread.map(|thread| thread.send(go)) {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) | None => Err("the processor's thread is gone".to_owned()),
        }
    }
}
