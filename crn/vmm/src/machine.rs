//! A machine from its configuration to its end.
//!
//! [`Shell::new`] makes what a machine needs of KVM before anything is known of it. [`Machine::build`] reads as the recipe of one that
//! boots: memory, images, tables, devices, processors; [`Machine::restore`] as that of a clone. [`Machine::run`] is the loop of the one
//! thread that works on devices; each processor has a thread of its own.
//!
//! ```text
//!   vcpu threads ---- effects (bounded channel) ----.
//!   KVM (ioeventfd) - queue notifications ----------+--> event loop --> devices --> interrupts (irqfd) --> KVM
//!   host streams, taps, timers -- readiness (edges) +
//!   front ----------- connect, snapshot, stop ------'
//! ```

mod event_loop;
mod freeze;
mod front;
mod shell;

pub use front::{Front, Order, Terminal};
pub use shell::Shell;

use crate::{
    arch::x86_64::{boot, mp_table},
    bus::{Bus, lock},
    config::{Config, ConfigError, Descriptor, Restore},
    devices::{
        balloon::Balloon,
        block::Block,
        console::DebugConsole,
        entropy::Entropy,
        network::{Identity, Network, Tap},
        timer::MonotonicTimer,
        vsock::{Muxer, VsockDevice},
    },
    kernel,
    memory::{self, MemoryError, Ram},
    snapshot::{MachineState, SnapshotError},
    statistics::{Stamps, Statistics, Stopwatch, page_faults},
    vcpu::{self, VcpuError},
    virtio::{device::Device, mmio::Transport},
    vm::VmError,
    working_set::{
        self, WorkingSet,
        watch::{PageMap, Watch},
    },
};
use freeze::Frozen;
use guest_protocol::record::Record;
use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};
use virtio_bindings::virtio_ids::{VIRTIO_ID_BALLOON, VIRTIO_ID_BLOCK, VIRTIO_ID_NET, VIRTIO_ID_RNG, VIRTIO_ID_VSOCK};
use vm_memory::{Bytes as _, GuestAddress};

/// Why a machine could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The configuration is impossible.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Memory or an image.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The start structures.
    #[error(transparent)]
    Boot(#[from] boot::BootError),
    /// The MP table.
    #[error("cannot write the MP table: {0}")]
    MpTable(String),
    /// KVM.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// A processor.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// The snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A filter of system calls.
    #[error("{0}")]
    Confinement(String),
    /// The shell was made for another machine.
    #[error("the machine was made in advance for another configuration")]
    Shell,
    /// A device could not be made: the host lacks descriptors, or a file cannot be used.
    #[error("cannot make a device: {0}")]
    Device(#[from] io::Error),
}

/// A machine that has not run yet.
#[derive(Debug)]
pub struct Machine {
    config: Config,
    ram: Arc<Ram>,
    bus: Arc<Bus>,
    /// Position of the vsock device, if there is one.
    vsock: Option<usize>,
    shell: Shell,
    stopwatch: Stopwatch,
    stamps: Stamps,
    /// Set while the guest stands still.
    frozen: Option<Frozen>,
    /// Notes what the guest touches.
    watch: Option<Watch>,
    /// What its processor is to have mapped once init is itself.
    ahead: Option<WorkingSet>,
    /// It was let go on, and has not said yet that it is itself.
    thawing: bool,
}

impl Machine {
    /// Builds a machine that starts at its kernel's entry; `descriptors` are those of [`Config::descriptors`].
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build(
        shell: Shell,
        config: Config,
        descriptors: Vec<OwnedFd>,
        front: &Front,
        stopwatch: Stopwatch,
    ) -> Result<Self, BuildError> {
        config.check()?;
        let mut stamps = Stamps { configured: stopwatch.elapsed_us(), ..Stamps::default() };
        let (mut kernel, mut initramfs, files) = Files::sort(config.descriptors(), descriptors)?;

        let memory_bytes = u64::from(config.memory_mib) << 20;
        let ram = Arc::new(memory::allocate(memory_bytes)?);
        let kernel: kernel::Header = memory::load_kernel(&ram, &mut kernel)?;
        let initramfs = memory::load_initramfs(&ram, &mut initramfs, &kernel)?;
        let command_line = boot::command_line(&config, config.devices());
        let start = boot::write(&ram, memory_bytes, &kernel, initramfs, &command_line, config.entry)?;
        mp_table::write(&ram, config.vcpus).map_err(BuildError::MpTable)?;
        stamps.memory = stopwatch.elapsed_us();

        shell.vm.map(&ram)?;
        let mut machine = Self::assemble(shell, config, ram, files, front, stopwatch)?;
        let vm = &machine.shell.vm;
        for (id, processor) in (0..).zip(&machine.shell.processors) {
            if let Some(fd) = &processor.fd {
                vcpu::prepare(fd, id, machine.config.vcpus, vm.supported_cpuid(), &machine.ram, start)?;
            }
        }
        stamps.built = stopwatch.elapsed_us();
        machine.stamps = stamps;
        Ok(machine)
    }

    /// Makes a clone that goes on where the machine of a snapshot stood still; `descriptors` are those of
    /// [`Config::restore_descriptors`]. One that is to be watched needs `page_map`.
    ///
    /// # Errors
    /// See [`BuildError`]; the snapshot is not for this host, this build or this machine.
    pub fn restore(
        shell: Shell,
        restore: Restore,
        descriptors: Vec<OwnedFd>,
        page_map: Option<PageMap>,
        front: &Front,
        stopwatch: Stopwatch,
    ) -> Result<Self, BuildError> {
        let Restore { config, record, holes, working_set, watched } = restore;
        config.check()?;
        let mut stamps = Stamps { configured: stopwatch.elapsed_us(), ..Stamps::default() };
        let (memory, state, files) = Files::sort(config.restore_descriptors(), descriptors)?;
        let state = MachineState::read(&state)?;
        state.check_processor(shell.vm.supported_cpuid())?;
        state.check_config(&config)?;
        let memory_bytes = u64::from(config.memory_mib) << 20;
        let ram = Arc::new(memory::map(memory, memory_bytes, &holes)?);
        stamps.memory = stopwatch.elapsed_us();

        let watch = page_map.filter(|_| watched).map(|page_map| page_map.watch(&ram));
        shell.vm.map(&ram)?;
        working_set::have_written(&ram, &working_set);
        let pre_faults = shell.vm.pre_faults();
        if !pre_faults {
            working_set::have_read(&ram, &working_set);
        }
        let mut machine = Self::assemble(shell, config, ram, files, front, stopwatch)?;
        machine.watch = watch;
        machine.ahead = pre_faults.then_some(working_set);
        if state.devices.len() != machine.bus.devices.len() {
            return Err(SnapshotError::Shape("the number of its devices differs").into());
        }
        let processor = machine.shell.processors.first().and_then(|processor| processor.fd.as_ref());
        // The order is part of the matter: processors, then the machine's clock and controllers, then devices (vmm spec 5.2).
        state.processor.restore(processor.ok_or(SnapshotError::Processors)?)?;
        let runs_from = SystemTime::now();
        machine.shell.vm.restore(&state.chips)?;
        machine.write_record(state.record_gpa, record, runs_from)?;
        for (position, (device, saved)) in machine.bus.devices.iter().zip(&state.devices).enumerate() {
            lock(device).restore(saved).map_err(|error| SnapshotError::Device { position, error })?;
        }
        stamps.built = stopwatch.elapsed_us();
        machine.stamps = stamps;
        Ok(machine)
    }

    /// What booting and restoring have in common: memory and devices become one machine.
    fn assemble(
        mut shell: Shell,
        config: Config,
        ram: Arc<Ram>,
        files: Files,
        front: &Front,
        stopwatch: Stopwatch,
    ) -> Result<Self, BuildError> {
        let mut slots = std::mem::take(&mut shell.slots).into_iter();
        let mut transports = Vec::new();
        let mut add = |device: Box<dyn Device>| -> Result<usize, BuildError> {
            let slot = slots.next().ok_or(BuildError::Shell)?;
            let position = transports.len();
            let transport = Transport::new(device, Arc::clone(&ram), slot)?;
            for (index, own) in transport.device().descriptors().into_iter().enumerate() {
                shell.events.watch_descriptor(own, position, index)?;
            }
            transports.push(Mutex::new(transport));
            Ok(position)
        };
        // The order of `Shape::queues`.
        let vsock = match &config.vsock {
            None => None,
            Some(vsock) => {
                let muxer = Muxer::new(vsock.guest_cid, vsock.accept_ports.clone());
                let device = VsockDevice::new(muxer, event_loop::Streams::new(&shell.events, front)?);
                Some(add(Box::new(device))?)
            }
        };
        if config.entropy {
            add(Box::new(Entropy::new(MonotonicTimer::new()?)))?;
        }
        if config.balloon {
            add(Box::new(Balloon::new()))?;
        }
        for (net, tap) in config.nets.iter().zip(files.taps) {
            let tap = Tap::new(tap.into())?;
            add(Box::new(Network::new(tap, MonotonicTimer::new()?, Identity::of(net), net.rates)))?;
        }
        for (index, (disk, file)) in config.disks.iter().zip(files.disks).enumerate() {
            add(Box::new(Block::open(file, index, disk.read_only)?))?;
        }
        // Places that are left over are not closed one by one before the guest runs.
        shell.slots = slots.collect();
        let console = files.console.map(DebugConsole::new);
        let bus = Arc::new(Bus { devices: transports, console });
        let stamps = Stamps::default();
        Ok(Self {
            config,
            ram,
            bus,
            vsock,
            shell,
            stopwatch,
            stamps,
            frozen: None,
            watch: None,
            ahead: None,
            thawing: false,
        })
    }

    /// Writes what makes this machine another one than all that went on from the same snapshot. Its guest adds to the wall clock what its own
    /// clock has run, which went on at `runs_from`.
    fn write_record(&mut self, gpa: u64, record: Record, runs_from: SystemTime) -> Result<(), SnapshotError> {
        let wall_time_us = runs_from.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let record = Record { wall_time_us: u64::try_from(wall_time_us).unwrap_or(u64::MAX), ..record };
        let page = record.to_page().map_err(|_| SnapshotError::Record(gpa))?;
        self.thawing = true;
        self.ram.write_slice(&page, GuestAddress(gpa)).map_err(|_| SnapshotError::Record(gpa))
    }

    /// What it did so far.
    fn statistics(&self, resident: (u64, u64)) -> Statistics {
        let (minor_faults, major_faults) = page_faults();
        let mut statistics = Statistics {
            exits: self.shell.exits.read(),
            stamps_us: self.stamps.clone(),
            minor_faults,
            major_faults,
            max_resident_kib: resident.0,
            overhead_kib: resident.1,
            ..Statistics::default()
        };
        for device in &self.bus.devices {
            let transport = lock(device);
            let device = transport.device();
            let (in_bytes, out_bytes) = device.traffic_bytes();
            match device.kind() {
                VIRTIO_ID_BLOCK => {
                    statistics.disk_read_bytes += in_bytes;
                    statistics.disk_written_bytes += out_bytes;
                }
                VIRTIO_ID_VSOCK => {
                    statistics.vsock_to_guest_bytes += in_bytes;
                    statistics.vsock_from_guest_bytes += out_bytes;
                }
                VIRTIO_ID_NET => {
                    statistics.network_to_guest_bytes += in_bytes;
                    statistics.network_from_guest_bytes += out_bytes;
                    statistics.network_refused_frames += device.refused_frames();
                }
                VIRTIO_ID_RNG => statistics.entropy_bytes += in_bytes,
                VIRTIO_ID_BALLOON => statistics.released_bytes += out_bytes,
                _ => {}
            }
        }
        statistics
    }
}

/// The descriptors of devices by what they are.
struct Files {
    disks: Vec<File>,
    taps: Vec<File>,
    console: Option<File>,
}

impl Files {
    /// Beside the first two, which are the kernel and the initramfs, or a snapshot's memory and state.
    fn sort(roles: Vec<Descriptor>, descriptors: Vec<OwnedFd>) -> Result<(File, File, Self), ConfigError> {
        let (given, needed) = (descriptors.len(), roles.len());
        let wrong = || ConfigError::Descriptors { given, needed };
        if given != needed {
            return Err(wrong());
        }
        let mut descriptors = descriptors.into_iter().map(File::from);
        let (first, second) = (descriptors.next().ok_or_else(wrong)?, descriptors.next().ok_or_else(wrong)?);
        let mut files = Self { disks: Vec::new(), taps: Vec::new(), console: None };
        for (role, file) in roles.into_iter().skip(2).zip(descriptors) {
            match role {
                Descriptor::Console => files.console = Some(file),
                Descriptor::Disk(_) => files.disks.push(file),
                Descriptor::Net(_) => files.taps.push(file),
                // The first two, wherever they are.
                Descriptor::Kernel | Descriptor::Initramfs | Descriptor::Memory | Descriptor::State => {}
            }
        }
        Ok((first, second, files))
    }
}
