//! What a machine needs of KVM and of the host before anything is known of it but its shape.
//!
//! Everything slow and the same for all machines is done here, in advance: a process waits with it in a pool, and a clone takes the rest of
//! the way (vmm spec section 7). Nothing of a guest is in it.

use super::{BuildError, event_loop};
use crate::{
    arch::x86_64::layout,
    config::Shape,
    jail::seccomp::{self, Confinement, Thread},
    statistics::ExitCounters,
    vcpu::{self, Go},
    vm::{Slot, Vm},
};
use event_loop::{Events, Report, Reporter};
use kvm_ioctls::{Kvm, VcpuFd};
use std::sync::{
    Arc,
    mpsc::{Receiver, SyncSender},
};

/// KVM's machine, its processors' threads, and places for devices.
#[derive(Debug)]
pub struct Shell {
    shape: Shape,
    pub(super) vm: Vm,
    pub(super) events: Events,
    pub(super) slots: Vec<Slot>,
    pub(super) processors: Vec<Processor>,
    pub(super) reports: Receiver<Report>,
    pub(super) exits: Arc<ExitCounters>,
    /// For the thread that works on devices, when a guest is about to run.
    pub(super) confinement: Confinement,
}

/// A processor and the thread that will run it.
#[derive(Debug)]
pub(super) struct Processor {
    /// Here until it runs.
    pub(super) fd: Option<VcpuFd>,
    pub(super) thread: SyncSender<Go>,
}

impl Shell {
    /// Makes a shell on an open KVM; `devices` is what the calling thread will be once a guest runs. KVM itself is not needed after
    /// that, and must be closed before a guest runs: nothing beside one makes another machine.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn new(kvm: &Kvm, shape: Shape, devices: Thread) -> Result<Self, BuildError> {
        let queues = shape.queues();
        if queues.len() > layout::MAX_DEVICES {
            return Err(BuildError::Shell);
        }
        let vm = Vm::create(kvm)?;
        let events = Events::new()?;
        let mut slots = Vec::with_capacity(queues.len());
        for (position, queues) in queues.into_iter().enumerate() {
            let slot = Slot::new(queues)?;
            vm.attach(position, &slot)?;
            for (queue, notification) in slot.notifications.iter().enumerate() {
                events.watch_queue(notification, position, queue)?;
            }
            slots.push(slot);
        }
        let exits: Arc<ExitCounters> = Arc::default();
        let (sender, reports) = event_loop::channel();
        let mut processors = Vec::with_capacity(usize::from(shape.vcpus));
        for id in 0..shape.vcpus {
            let fd = vm.create_vcpu(id)?;
            let reporter = Reporter::new(sender.clone(), &events)?;
            // Each thread confines itself before it is given anything to run.
            let confine = || seccomp::compile(Thread::Vcpu)?.enter();
            let thread = vcpu::spawn(id, Arc::clone(&exits), reporter, confine)?;
            processors.push(Processor { fd: Some(fd), thread });
        }
        let confinement = seccomp::compile(devices).map_err(BuildError::Confinement)?;
        Ok(Self { shape, vm, events, slots, processors, reports, exits, confinement })
    }

    /// What it was made for.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }
}
