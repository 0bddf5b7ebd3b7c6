//! A machine from its configuration to its end.
//!
//! [`Machine::build`] reads as the recipe: memory, images, tables, KVM, devices, processors. [`Machine::run`] is the loop of
//! the one thread that works on devices; each processor has a thread of its own.
//!
//! ```text
//!   vcpu threads ---- effects (bounded channel) ----.
//!   KVM (ioeventfd) - queue notifications ----------+--> event loop --> devices --> interrupts (irqfd) --> KVM
//!   host streams, taps, timers -- readiness (edges) +
//!   front ----------- connect, stop ----------------'
//! ```

mod event_loop;
mod front;

pub use front::{Front, Order, Terminal};

use crate::{
    arch::x86_64::{boot, layout, mp_table},
    bus::Bus,
    config::{Config, ConfigError, Descriptor},
    devices::{
        balloon::Balloon,
        block::Block,
        console::DebugConsole,
        entropy::Entropy,
        network::{DEFAULT_RATES, Identity, Network, Tap},
        timer::MonotonicTimer,
        vsock::{Muxer, VsockDevice},
    },
    kernel,
    memory::{self, MemoryError, Ram},
    statistics::{ExitCounters, Stamps, Statistics, Stopwatch},
    vcpu::{self, VcpuError},
    virtio::{device::Device, mmio::Transport},
    vm::{Vm, VmError},
};
use kvm_ioctls::VcpuFd;
use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
};
use virtio_bindings::virtio_ids::{VIRTIO_ID_BALLOON, VIRTIO_ID_BLOCK, VIRTIO_ID_NET, VIRTIO_ID_RNG, VIRTIO_ID_VSOCK};
use vmm_sys_util::eventfd::EventFd;

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
    /// A device could not be made: the host lacks descriptors, or a file cannot be used.
    #[error("cannot make a device: {0}")]
    Device(#[from] io::Error),
}

/// A machine that has not run yet.
#[derive(Debug)]
pub struct Machine {
    ram: Arc<Ram>,
    #[expect(dead_code, reason = "kept for as long as the processors run")]
    vm: Vm,
    bus: Arc<Bus>,
    vcpus: Vec<VcpuFd>,
    /// Position of the vsock device, if there is one.
    vsock: Option<usize>,
    events: event_loop::Events,
    exits: Arc<ExitCounters>,
    stopwatch: Stopwatch,
    stamps: Stamps,
    measure_memory: bool,
}

impl Machine {
    /// Builds a machine; `descriptors` are those of [`Config::descriptors`].
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build(
        config: &Config,
        descriptors: Vec<OwnedFd>,
        front: &Front,
        stopwatch: Stopwatch,
    ) -> Result<Self, BuildError> {
        config.check()?;
        let roles = config.descriptors();
        if roles.len() != descriptors.len() {
            return Err(ConfigError::Descriptors { given: descriptors.len(), needed: roles.len() }.into());
        }
        let mut stamps = Stamps { configured: stopwatch.elapsed_us(), ..Stamps::default() };
        let mut files = Files::sort(roles, descriptors);

        let memory_bytes = u64::from(config.memory_mib) << 20;
        let ram = Arc::new(memory::allocate(memory_bytes)?);
        let kernel: kernel::Header = memory::load_kernel(&ram, &mut files.kernel)?;
        let initramfs = memory::load_initramfs(&ram, &mut files.initramfs, &kernel)?;
        let command_line = boot::command_line(config, config.devices());
        let start = boot::write(&ram, memory_bytes, &kernel, initramfs, &command_line, config.entry)?;
        mp_table::write(&ram, config.vcpus).map_err(BuildError::MpTable)?;
        stamps.memory = stopwatch.elapsed_us();

        let vm = Vm::create(&ram)?;
        let events = event_loop::Events::new()?;
        let mut transports = Vec::new();
        for (position, (disk, file)) in config.disks.iter().zip(files.disks).enumerate() {
            let device = Block::open(file, position, disk.read_only)?;
            add_device(&vm, &events, &ram, &mut transports, Box::new(device))?;
        }
        let vsock = match &config.vsock {
            None => None,
            Some(vsock) => {
                let muxer = Muxer::new(vsock.guest_cid, vsock.accept_ports.clone());
                let device = VsockDevice::new(muxer, event_loop::Streams::new(&events, front)?);
                Some(add_device(&vm, &events, &ram, &mut transports, Box::new(device))?)
            }
        };
        if config.entropy {
            add_device(&vm, &events, &ram, &mut transports, Box::new(Entropy::new(MonotonicTimer::new()?)))?;
        }
        for (net, tap) in config.nets.iter().zip(files.taps) {
            let card = Network::new(Tap::new(tap.into())?, MonotonicTimer::new()?, Identity::of(net), DEFAULT_RATES);
            add_device(&vm, &events, &ram, &mut transports, Box::new(card))?;
        }
        if config.balloon {
            add_device(&vm, &events, &ram, &mut transports, Box::new(Balloon::new()))?;
        }
        let console = files.console.map(DebugConsole::new);
        let bus = Arc::new(Bus { devices: transports, console });

        let mut vcpus = Vec::with_capacity(usize::from(config.vcpus));
        for id in 0..config.vcpus {
            let fd = vm.create_vcpu(id)?;
            vcpu::prepare(&fd, id, config.vcpus, vm.supported_cpuid(), &ram, start)?;
            vcpus.push(fd);
        }
        stamps.built = stopwatch.elapsed_us();
        Ok(Self {
            ram,
            vm,
            bus,
            vcpus,
            vsock,
            events,
            exits: Arc::default(),
            stopwatch,
            stamps,
            measure_memory: config.measure_memory,
        })
    }

    /// What it did so far.
    fn statistics(&self, resident: (u64, u64)) -> Statistics {
        let mut statistics = Statistics {
            exits: self.exits.read(),
            stamps_us: self.stamps.clone(),
            max_resident_kib: resident.0,
            overhead_kib: resident.1,
            ..Statistics::default()
        };
        for device in &self.bus.devices {
            let transport = crate::bus::lock(device);
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

/// Gives a device its registers, its line and its place in the event loop; returns its position.
fn add_device(
    vm: &Vm,
    events: &event_loop::Events,
    ram: &Arc<Ram>,
    transports: &mut Vec<Mutex<Transport>>,
    device: Box<dyn Device>,
) -> Result<usize, BuildError> {
    debug_assert!(transports.len() < layout::MAX_DEVICES);
    let position = transports.len();
    let line = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
    let transport = Transport::new(device, Arc::clone(ram), line)?;
    vm.attach(position, &transport)?;
    for (queue, notification) in transport.notifications().iter().enumerate() {
        events.watch_queue(notification, position, queue)?;
    }
    for (index, own) in transport.device().descriptors().into_iter().enumerate() {
        events.watch_descriptor(own, position, index)?;
    }
    transports.push(Mutex::new(transport));
    Ok(position)
}

/// The descriptors by what they are.
struct Files {
    kernel: File,
    initramfs: File,
    disks: Vec<File>,
    taps: Vec<File>,
    console: Option<File>,
}

impl Files {
    /// As many descriptors as roles.
    fn sort(roles: Vec<Descriptor>, descriptors: Vec<OwnedFd>) -> Self {
        let mut descriptors = descriptors.into_iter().map(File::from);
        let mut next = || descriptors.next().expect("as many descriptors as roles, checked above");
        // The order of `Config::descriptors`.
        let (kernel, initramfs) = (next(), next());
        let mut files = Self { kernel, initramfs, disks: Vec::new(), taps: Vec::new(), console: None };
        for role in roles {
            match role {
                Descriptor::Kernel | Descriptor::Initramfs => {}
                Descriptor::Disk(_) => files.disks.push(next()),
                Descriptor::Net(_) => files.taps.push(next()),
                Descriptor::Console => files.console = Some(next()),
            }
        }
        files
    }
}
