//! The loop of the thread that works on devices: waits, decides what an event means, does it.

use super::{
    Machine,
    front::{Acceptor, DESCRIPTOR_EDGES, EVENTS_PER_WAIT, Front, Order, STREAM_EDGES},
};
use crate::{
    bus::{Effect, lock},
    control::{Cause, Notice},
    devices::vsock::StreamRegistry,
    statistics::{Stopwatch, resident_kib},
    vcpu::{Listener, VcpuEnd},
    virtio::device::Event,
};
use guest_protocol::{doorbell, record::Record};
use kvm_ioctls::VcpuFd;
use rustix::event::{
    Timespec,
    epoll::{self, CreateFlags, EventData, EventFlags},
};
use std::{
    fs::File,
    io::{self, Write as _},
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender},
    },
    time::{Duration, Instant},
};
use vmm_sys_util::eventfd::EventFd;

/// Effects that wait for the loop. A guest that rings faster than they are heard waits at its doorbell.
const MAX_WAITING_EFFECTS: usize = 64;
/// How long a guest's last bytes may take to reach their readers after its exit doorbell.
const LAST_BYTES_LIMIT: Duration = Duration::from_millis(500);

/// What woke the loop, as the 64 bits that epoll keeps: the kind in the upper half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wake {
    /// The front has an order.
    Front,
    /// A processor has reported.
    Vcpu,
    /// A queue of a device was notified.
    Queue { position: usize, queue: usize },
    /// A stream of the vsock device is ready.
    Stream { token: u32 },
    /// A descriptor of a device's own is ready.
    Descriptor { position: usize, index: usize },
}

impl Wake {
    #[expect(clippy::cast_possible_truncation, reason = "positions and queues are below 256 by the layout")]
    fn to_data(self) -> EventData {
        let word = |kind: u64, low: u32| EventData::new_u64(kind << 32 | u64::from(low));
        match self {
            Self::Front => word(0, 0),
            Self::Vcpu => word(1, 0),
            Self::Queue { position, queue } => word(2, (position as u32) << 8 | queue as u32),
            Self::Stream { token } => word(3, token),
            Self::Descriptor { position, index } => word(4, (position as u32) << 8 | index as u32),
        }
    }

    fn from_data(data: EventData) -> Option<Self> {
        let word = data.u64();
        let low = u32::try_from(word & u64::from(u32::MAX)).ok()?;
        Some(match word >> 32 {
            0 => Self::Front,
            1 => Self::Vcpu,
            2 => Self::Queue { position: (low >> 8) as usize, queue: (low & 0xff) as usize },
            3 => Self::Stream { token: low },
            4 => Self::Descriptor { position: (low >> 8) as usize, index: (low & 0xff) as usize },
            _ => return None,
        })
    }
}

/// The kernel's list of what the loop waits for.
#[derive(Debug)]
pub(super) struct Events {
    epoll: Arc<OwnedFd>,
    /// Written by processors when they report.
    vcpu: EventFd,
}

impl Events {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = Arc::new(epoll::create(CreateFlags::CLOEXEC)?);
        let vcpu = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        epoll::add(&epoll, fd_of(&vcpu), Wake::Vcpu.to_data(), EventFlags::IN)?;
        Ok(Self { epoll, vcpu })
    }

    pub(super) fn watch_queue(&self, notification: &EventFd, position: usize, queue: usize) -> io::Result<()> {
        epoll::add(&self.epoll, fd_of(notification), Wake::Queue { position, queue }.to_data(), EventFlags::IN)?;
        Ok(())
    }

    pub(super) fn watch_descriptor(&self, own: BorrowedFd<'_>, position: usize, index: usize) -> io::Result<()> {
        epoll::add(&self.epoll, own, Wake::Descriptor { position, index }.to_data(), DESCRIPTOR_EDGES)?;
        Ok(())
    }

    /// The next events; none when the time is over.
    fn wait(&self, limit: Option<Duration>) -> io::Result<Vec<(Wake, EventFlags)>> {
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let mut events = Vec::with_capacity(EVENTS_PER_WAIT);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(events.iter().filter_map(|event| Some((Wake::from_data(event.data)?, event.flags))).collect())
    }
}

/// The streams of the vsock device among the events.
#[derive(Debug)]
pub(super) struct Streams {
    epoll: Arc<OwnedFd>,
    acceptor: Acceptor,
}

impl Streams {
    pub(super) fn new(events: &Events, front: &Front) -> io::Result<Self> {
        Ok(Self { epoll: Arc::clone(&events.epoll), acceptor: front.acceptor()? })
    }
}

impl StreamRegistry for Streams {
    fn watch(&mut self, stream: BorrowedFd<'_>, token: u32) {
        // A stream that cannot be watched is never ready: its connection stands still until the guest gives up.
        let _ = epoll::add(&self.epoll, stream, Wake::Stream { token }.to_data(), STREAM_EDGES);
    }

    fn accept(&mut self, port: u32) -> Option<UnixStream> {
        self.acceptor.accept(port)
    }
}

/// What a processor reports.
#[derive(Debug)]
pub(super) enum Report {
    Effect(Effect),
    /// The guest stands still; the processor comes with it.
    Frozen(VcpuFd),
    Ended(VcpuEnd),
}

/// The processors' end of the channel to the loop.
pub(super) struct Reporter {
    reports: SyncSender<Report>,
    wake: EventFd,
}

/// The channel from the processors to the loop.
pub(super) fn channel() -> (SyncSender<Report>, Receiver<Report>) {
    mpsc::sync_channel(MAX_WAITING_EFFECTS)
}

impl Reporter {
    pub(super) fn new(reports: SyncSender<Report>, events: &Events) -> io::Result<Self> {
        Ok(Self { reports, wake: events.vcpu.try_clone()? })
    }

    fn report(&self, report: Report) {
        // The loop is gone only when the process ends.
        if self.reports.send(report).is_ok() {
            let _ = self.wake.write(1);
        }
    }
}

impl Listener for Reporter {
    fn effect(&self, effect: Effect) {
        let last = matches!(effect, Effect::Doorbell(word) if doorbell::heard(word).0 == doorbell::EXIT);
        self.report(Report::Effect(effect));
        if last {
            // The guest has said its last word: its processor does not run on.
            loop {
                std::thread::park();
            }
        }
    }

    fn frozen(&self, fd: VcpuFd) {
        self.report(Report::Frozen(fd));
    }

    fn ended(&self, end: VcpuEnd) {
        self.report(Report::Ended(end));
    }
}

/// Proc files that are read once the thread is confined.
#[derive(Debug)]
struct MemoryFiles {
    status: File,
    smaps: File,
}

impl Machine {
    /// Runs the machine to its end, tells the front, returns why.
    ///
    /// Confines the calling thread and every processor's before the first instruction.
    pub fn run(mut self, front: &Front) -> Cause {
        let mut resident = (0, 0);
        let cause = match self.start(front) {
            Ok(memory_files) => self.serve(front, memory_files.as_ref(), &mut resident),
            Err(error) => Cause::Failed(error),
        };
        let statistics = self.statistics(resident);
        if let Front::Standalone(terminal) = front
            && terminal.verbose
        {
            eprintln!("{}", serde_json::to_string(&statistics).unwrap_or_default());
        }
        front.notify(&Notice::Ended { cause: cause.clone(), statistics }, &[]);
        cause
    }

    /// Confines the calling thread, as the processors' are since they began, and has the processors run.
    fn start(&mut self, front: &Front) -> Result<Option<MemoryFiles>, String> {
        let text = |error: io::Error| error.to_string();
        let memory_files = if self.config.measure_memory {
            let status = File::open("/proc/self/status").map_err(text)?;
            Some(MemoryFiles { status, smaps: File::open("/proc/self/smaps").map_err(text)? })
        } else {
            None
        };
        if let Some(descriptor) = front.descriptor() {
            let data = Wake::Front.to_data();
            epoll::add(&self.shell.events.epoll, descriptor, data, EventFlags::IN)
                .map_err(|error| error.to_string())?;
            rustix::io::ioctl_fionbio(descriptor, true).map_err(|error| error.to_string())?;
        }
        self.shell.confinement.enter()?;
        self.stamps.running = self.stopwatch.elapsed_us();
        for index in 0..self.shell.processors.len() {
            if let Some(fd) = self.shell.processors[index].fd.take() {
                self.release(index, fd)?;
            }
        }
        Ok(memory_files)
    }

    /// The loop.
    fn serve(&mut self, front: &Front, memory_files: Option<&MemoryFiles>, resident: &mut (u64, u64)) -> Cause {
        if self.thawing {
            for device in &self.bus.devices {
                lock(device).take_up();
            }
        }
        loop {
            let events = match self.shell.events.wait(None) {
                Ok(events) => events,
                Err(error) => return Cause::Failed(format!("cannot wait for events: {error}")),
            };
            for (wake, flags) in events {
                match wake {
                    Wake::Queue { .. } | Wake::Stream { .. } | Wake::Descriptor { .. } => self.work(wake, flags),
                    Wake::Front => {
                        if let Some(cause) = self.obey(front) {
                            return cause;
                        }
                    }
                    Wake::Vcpu => {
                        let _ = self.shell.events.vcpu.read();
                        // As many as can have waited; processors that go on reporting do not keep the front from its orders.
                        for _ in 0..MAX_WAITING_EFFECTS {
                            let Ok(report) = self.shell.reports.try_recv() else { break };
                            if let Some(cause) = self.hear(report, front, memory_files, resident) {
                                self.deliver_last_bytes();
                                return cause;
                            }
                        }
                    }
                }
            }
        }
    }

    /// A device has something to do.
    fn work(&self, wake: Wake, flags: EventFlags) {
        match wake {
            Wake::Queue { position, queue } => {
                if let Some(device) = self.bus.devices.get(position) {
                    let mut transport = lock(device);
                    if let Some(notification) = transport.notifications().get(queue) {
                        let _ = notification.read();
                    }
                    transport.process(Event::Queue(queue));
                }
            }
            Wake::Stream { token } => {
                if let Some(device) = self.vsock.and_then(|position| self.bus.devices.get(position)) {
                    let any = |of: EventFlags| flags.intersects(of);
                    lock(device).process(Event::Stream {
                        token,
                        readable: any(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR),
                        writable: any(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR),
                        hung_up: any(EventFlags::HUP | EventFlags::ERR),
                    });
                }
            }
            Wake::Descriptor { position, index } => {
                if let Some(device) = self.bus.devices.get(position) {
                    lock(device).process(Event::Descriptor(index));
                }
            }
            Wake::Front | Wake::Vcpu => {}
        }
    }

    /// The front has orders; one of them may be the end.
    fn obey(&mut self, front: &Front) -> Option<Cause> {
        match front.order() {
            Some(Order::Stop) => Some(Cause::Stopped),
            Some(Order::Connect(port, stream)) => {
                if let Some(device) = self.vsock.and_then(|position| self.bus.devices.get(position)) {
                    lock(device).connect(port, stream);
                }
                None
            }
            Some(Order::Snapshot { memory, state }) => {
                let notice = match self.copy_to(&memory, &state) {
                    Ok(memory_bytes) => Notice::Copied { memory_bytes },
                    Err(error) => Notice::NotCopied(error.to_string()),
                };
                front.notify(&notice, &[]);
                None
            }
            Some(Order::TellWorkingSet) => {
                let touched = self.watch.take().and_then(|watch| watch.touched(&self.ram).ok());
                front.notify(&Notice::WorkingSet(touched.unwrap_or_default()), &[]);
                None
            }
            Some(Order::Resume(record)) => self.go_on(record).err().map(Cause::Failed),
            None => None,
        }
    }

    /// A processor has reported; it may be the end.
    fn hear(
        &mut self,
        report: Report,
        front: &Front,
        memory_files: Option<&MemoryFiles>,
        resident: &mut (u64, u64),
    ) -> Option<Cause> {
        let effect = match report {
            Report::Ended(VcpuEnd::Reset) => return Some(Cause::Reset),
            Report::Ended(VcpuEnd::Failed(reason)) => return Some(Cause::Failed(reason)),
            Report::Frozen(fd) => {
                let frozen = self.freeze(fd).and_then(|()| match front.seed() {
                    // Nobody is there to copy it.
                    Some(seed) => self.go_on(Record { generation: 0, wall_time_us: 0, seed, network: None }),
                    None => {
                        front.notify(&Notice::Frozen, &[]);
                        Ok(())
                    }
                });
                return frozen.err().map(Cause::Failed);
            }
            Report::Effect(effect) => effect,
        };
        let terminal = match front {
            Front::Standalone(terminal) => Some(terminal),
            Front::Supervised(_) => None,
        };
        if terminal.is_some_and(|terminal| terminal.verbose) {
            eprintln!("[{:>9} us] {effect:?}", self.stopwatch.elapsed_us());
        }
        match effect {
            Effect::None | Effect::Reset | Effect::Freeze => None,
            Effect::Progress(byte) => {
                stamp(&mut self.stamps.progress, self.stopwatch);
                if terminal.is_some_and(|terminal| terminal.pass_progress) {
                    // Who measures reads it; nobody else is told.
                    let mut out = io::stdout().lock();
                    let _ = out.write_all(&[byte]).and_then(|()| out.flush());
                }
                let last = terminal.and_then(|terminal| terminal.exit_on_progress) == Some(byte);
                if last {
                    self.measure(memory_files, resident);
                }
                last.then_some(Cause::Exit(0))
            }
            Effect::Doorbell(word) => {
                let (kind, value) = doorbell::heard(word);
                let first = match kind {
                    doorbell::INIT_UP => stamp(&mut self.stamps.init_up, self.stopwatch),
                    doorbell::PROGRAM_READY => stamp(&mut self.stamps.program_ready, self.stopwatch),
                    // Once for each time that the host has let it go on.
                    doorbell::THAWED => {
                        self.stamps.thawed = self.stopwatch.elapsed_us();
                        std::mem::take(&mut self.thawing)
                    }
                    // A guest that rings for no known reason is not heard, however often.
                    kind => kind == doorbell::EXIT,
                };
                if first {
                    self.measure(memory_files, resident);
                    front.notify(&Notice::Doorbell { word }, &[]);
                }
                (kind == doorbell::EXIT).then_some(Cause::Exit(value.to_le_bytes()[0]))
            }
        }
    }

    /// After the guest's last word: what it has sent reaches its readers, as far as they read.
    fn deliver_last_bytes(&self) {
        for device in &self.bus.devices {
            lock(device).settle(1);
        }
        let deadline = Instant::now() + LAST_BYTES_LIMIT;
        while self.bus.devices.iter().any(|device| lock(device).device().has_undelivered()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let Ok(events) = self.shell.events.wait(Some(left)) else {
                return;
            };
            for (wake, flags) in events {
                if matches!(wake, Wake::Stream { .. }) {
                    self.work(wake, flags);
                }
            }
        }
    }

    fn measure(&self, files: Option<&MemoryFiles>, resident: &mut (u64, u64)) {
        if let Some(files) = files {
            let ranges = crate::memory::host_ranges(&self.ram);
            *resident = resident_kib(&files.status, &files.smaps, &ranges);
        }
    }
}

/// Notes the time of a first occurrence; false for later ones.
fn stamp(place: &mut u64, stopwatch: Stopwatch) -> bool {
    let first = *place == 0;
    if first {
        *place = stopwatch.elapsed_us().max(1);
    }
    first
}

/// The descriptor of an event.
fn fd_of(event: &EventFd) -> BorrowedFd<'_> {
    use std::os::fd::AsRawFd as _;
    // SAFETY: the descriptor is open for as long as `event`, whose lifetime the result carries.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn what_woke_the_loop_survives_the_kernel() {
        for wake in [
            Wake::Front,
            Wake::Vcpu,
            Wake::Queue { position: 18, queue: 2 },
            Wake::Stream { token: u32::MAX },
            Wake::Descriptor { position: 18, index: 1 },
        ] {
            assert_eq!(Wake::from_data(wake.to_data()), Some(wake));
        }
        assert_eq!(Wake::from_data(EventData::new_u64(u64::MAX)), None);
    }

    #[test]
    fn streams_hang_up() {
        let events = Events::new().expect("events");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        epoll::add(&events.epoll, ours.as_fd(), Wake::Stream { token: 7 }.to_data(), STREAM_EDGES).expect("watched");
        drop(theirs);
        let heard = events.wait(Some(Duration::from_secs(1))).expect("events");
        assert_eq!(heard.len(), 1);
        assert_eq!(heard[0].0, Wake::Stream { token: 7 });
        assert!(heard[0].1.contains(EventFlags::HUP));
    }
}
