//! A handle on one machine: the monitor process that runs it, and the control socket to it.
//!
//! Made by [`crate::executor`] for a start, shared by the calls that the machine serves. There is nothing
//! of a machine outside its process but its place ([`crate::confinement`]) and its wire ([`crate::network::card`]): no path, no listening socket. The monitor ends when the
//! control socket does, so it ends with this process however that ends; [`Machine`] only makes sure that
//! it is asked, then made, to end in the ordinary case too.

use crate::{
    confinement::{Cell, Confinement},
    network::card::Card,
    process::Process,
    template::{Template, key::Installation},
};
use futures_util::StreamExt as _;
use guest_protocol::{doorbell, record::Record};
use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Stdio},
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};
use tokio::{
    io::Interest,
    net::{UnixDatagram, UnixStream, unix::pipe},
    sync::watch,
    time::timeout,
};
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use vmm::{
    config::{Config, ConfigError, Restore, Shape},
    control::{Cause, ControlError, Notice},
    statistics::Statistics,
    supervisor::{self, Link},
    working_set::WorkingSet,
};

/// How long a monitor may take to be ready for an order, when the node finds out whether one ever is.
const REHEARSE_WITHIN: Duration = Duration::from_secs(30);

/// How long a monitor without a machine may take to end, before it is killed.
const EXIT_WITHIN: Duration = Duration::from_secs(5);

/// How long a monitor may leave orders where they are; it is a loop that never waits.
const ORDER_WITHIN: Duration = Duration::from_secs(30);

/// Longest line of a monitor's log that is passed on, bytes.
const MAX_LOG_LINE_BYTES: usize = 4096;

/// What is behind the disks of one machine.
#[derive(Debug, Default)]
pub struct Disks<'a> {
    /// The files, in order: open for reading, and for writing where the machine writes.
    pub descriptors: Vec<BorrowedFd<'a>>,
    /// What those that it writes to may take of the host's memory, because they are there and not on a disk, MiB.
    pub in_memory_mib: u64,
}

/// What every machine is started with.
#[derive(Debug)]
pub struct Images {
    /// The machine monitor.
    pub monitor: PathBuf,
    /// The flat kernel.
    pub kernel: File,
    /// The initramfs with init in it.
    pub initramfs: File,
    /// All of them, as one name.
    pub installation: Installation,
    /// Where monitors are put.
    pub confinement: Confinement,
}

/// A piece of the installation is not where it should be. The operator's to mend.
#[derive(Debug, thiserror::Error)]
#[error("{what} is missing: {path} cannot be read ({reason}). {advice}")]
pub struct Missing {
    /// What is missing.
    pub what: &'static str,
    /// Where it was looked for.
    pub path: PathBuf,
    /// What the system says.
    pub reason: io::Error,
    /// What to do.
    pub advice: &'static str,
}

impl Images {
    /// Opens what the machines need, so that a missing piece is told at once and not at the first call.
    ///
    /// # Errors
    /// The first piece that is missing.
    pub fn open(monitor: &Path, folder: &Path, confinement: Confinement) -> Result<Self, Missing> {
        let open =
            |what, path: PathBuf, advice| File::open(&path).map_err(|reason| Missing { what, path, reason, advice });
        open("the machine monitor", monitor.to_owned(), "Install vmm beside crn, or name it with --vmm.")?;
        let advice = "Build the guest images with `cargo xtask images`, and name their folder with --images.";
        let kernel = open("the guest kernel", folder.join("kernel"), advice)?;
        let initramfs = open("the guest's initramfs", folder.join("initramfs"), advice)?;
        let installation = Installation::of(monitor, &kernel, &initramfs).map_err(|reason| Missing {
            what: "a part of the installation",
            path: monitor.to_owned(),
            reason,
            advice: "It is there and cannot be read to its end: is the disk all right?",
        })?;
        Ok(Self { monitor: monitor.to_owned(), kernel, initramfs, installation, confinement })
    }
}

/// How a machine ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Why.
    pub cause: Cause,
    /// What it did; zeros when its monitor could not say.
    pub statistics: Statistics,
}

/// Why a machine does not start, or is not there any more.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The monitor does not start. The operator's to mend.
    #[error("{path} does not start: {reason}")]
    Spawn {
        /// The program.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// The program asks for what no machine can be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The monitor is gone, or does not take orders.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A machine that stands still is not copied.
    #[error("the machine is not copied: {0}")]
    NotCopied(String),
    /// The monitor is there and takes no orders.
    #[error("the machine monitor takes no orders for {0:?}")]
    Deaf(Duration),
    /// The host has no descriptors or no memory left.
    #[error("the host refuses: {0}")]
    Host(#[from] io::Error),
}

/// A machine, from spawn to end. Clones share it; when the last one is dropped, the machine is stopped.
#[derive(Debug, Clone)]
pub struct Machine {
    handle: Arc<Handle>,
    heard: watch::Receiver<Heard>,
    ended: watch::Receiver<Option<Ended>>,
}

/// What a machine has said so far.
#[derive(Debug, Clone, Default)]
struct Heard {
    /// Init is up.
    init_up: bool,
    /// How often it stood still for a snapshot.
    frozen: u32,
    /// How often it was to be copied, and was or was not.
    answers: u32,
    /// How the last copy went: bytes of memory that are not zero, or why there is none.
    copied: Option<Result<u64, String>>,
    /// What it has touched, if it was watched.
    working_set: Option<WorkingSet>,
    /// The generation that it has become last, its low 24 bits.
    thawed: Option<u32>,
}

/// A monitor without a machine. It is ended on drop.
#[derive(Debug)]
pub struct Monitor {
    /// What it will be; none once it is.
    machine: Option<Machine>,
    /// What it writes, until there is a name for it.
    log: Option<ChildStderr>,
}

impl Heard {
    fn answer(&mut self, copied: Result<u64, String>) {
        self.answers += 1;
        self.copied = Some(copied);
    }
}

impl Monitor {
    /// Starts a monitor, in a place of its own.
    ///
    /// # Errors
    /// [`MachineError::Spawn`]; the host has no place left.
    pub async fn spawn(images: &Arc<Images>) -> Result<Self, MachineError> {
        let cell = Arc::new(images.confinement.cell()?);
        let spawned = tokio::task::spawn_blocking({
            let (images, place) = (Arc::clone(images), cell.place());
            move || supervisor::spawn(&images.monitor, &place, Stdio::piped())
        });
        let (link, mut child) = spawned
            .await
            .unwrap_or_else(|panic| Err(io::Error::other(panic)))
            .map_err(|reason| MachineError::Spawn { path: images.monitor.clone(), reason })?;
        let log = child.stderr.take();
        let begun = Process::started(&child).and_then(|started| Ok((started, Socket::new(link.clone())?)));
        let (started, socket) = match begun {
            Ok((started, socket)) => (started, Arc::new(socket)),
            Err(error) => {
                tokio::task::spawn_blocking(move || abandon(&link, child, &cell));
                return Err(error.into());
            }
        };
        let processes = Arc::new(Processes { started, jailed: OnceLock::new() });
        let (say, heard) = watch::channel(Heard::default());
        let (end, ended) = watch::channel(None);
        let handle =
            Handle { socket: Arc::clone(&socket), processes: Arc::clone(&processes), cell: Arc::downgrade(&cell) };
        // From here on, whatever becomes of it: its processes must be waited for.
        tokio::spawn(listen(socket, processes, cell, say, end));
        Ok(Self { machine: Some(Machine { handle: Arc::new(handle), heard, ended }), log })
    }

    /// Whether monitors get into their jail here: one is started, and ended without a machine.
    ///
    /// # Errors
    /// Why not, in the monitor's words.
    pub async fn rehearse(images: &Arc<Images>) -> Result<(), String> {
        let monitor = Self::spawn(images).await.map_err(|error| error.to_string())?;
        let Some(machine) = monitor.machine.clone() else { return Ok(()) };
        machine.stop();
        let ended = timeout(REHEARSE_WITHIN, machine.ended()).await;
        match ended.map(|ended| ended.cause) {
            Ok(Cause::Stopped) => Ok(()),
            Ok(Cause::Failed(reason)) => Err(reason),
            Ok(other) => Err(format!("a machine monitor without a machine ended with {other:?}")),
            Err(_) => Err(format!("a machine monitor takes no orders for {REHEARSE_WITHIN:?}")),
        }
    }

    /// Has it make what a machine of that shape needs, in its own time.
    ///
    /// # Errors
    /// It is gone.
    pub fn prepare(&self, shape: Shape) -> Result<(), MachineError> {
        let machine = self.machine.as_ref().ok_or(ControlError::Closed)?;
        Ok(machine.handle.socket.link.prepare(shape)?)
    }

    /// Ends it; returns when its processes are gone and its place is free.
    pub async fn end(mut self) {
        if let Some(machine) = self.machine.take() {
            end_unused(machine).await;
        }
    }

    /// Whether it can become a machine, as far as is known.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.machine.as_ref().is_some_and(|machine| !machine.is_over())
    }

    /// Boots a machine with these disks, and `card` as its one network card, if there is any. The monitor's log goes to this process's own,
    /// marked with `name`.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub fn boot(
        self,
        images: &Images,
        config: &Config,
        disks: &Disks<'_>,
        card: Option<&Card>,
        name: String,
    ) -> Result<Machine, MachineError> {
        let first = [images.kernel.as_fd(), images.initramfs.as_fd()];
        self.become_machine(config, disks, card, name, first, |link, descriptors| link.start(config, descriptors))
    }

    /// Makes a machine that goes on from a template, as the one of the record.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub fn restore(
        self,
        template: &Template,
        restore: &Restore,
        disks: &Disks<'_>,
        card: Option<&Card>,
        name: String,
    ) -> Result<Machine, MachineError> {
        let first = [template.memory.as_fd(), template.state.as_fd()];
        self.become_machine(&restore.config, disks, card, name, first, |link, descriptors| {
            link.restore(restore, descriptors)
        })
    }

    fn become_machine(
        mut self,
        config: &Config,
        disks: &Disks<'_>,
        card: Option<&Card>,
        name: String,
        first: [BorrowedFd<'_>; 2],
        order: impl FnOnce(&Link, &[BorrowedFd<'_>]) -> Result<(), ControlError>,
    ) -> Result<Machine, MachineError> {
        config.check()?;
        let handle = &self.machine.as_ref().ok_or(ControlError::Closed)?.handle;
        if let Some(log) = self.log.take() {
            let log = pipe::Receiver::from_owned_fd(OwnedFd::from(log))?;
            tokio::spawn(pass_on(log, name));
        }
        // Before the order, which all its work comes with.
        if let Some(cell) = handle.cell.upgrade() {
            cell.limit(u64::from(config.memory_mib), u32::from(config.vcpus))?;
            if disks.in_memory_mib > 0 {
                cell.allow_more(u64::from(config.memory_mib), disks.in_memory_mib)?;
            }
        }
        let mut descriptors = Vec::from(first);
        descriptors.extend(&disks.descriptors);
        descriptors.extend(card.map(Card::tap));
        // One of the first packets on a new socket finds room.
        order(&handle.socket.link, &descriptors)?;
        Ok(self.machine.take().ok_or(ControlError::Closed)?)
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let Some(machine) = self.machine.take() else { return };
        machine.stop();
        // Without a runtime this process ends, and so does the monitor.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(end_unused(machine));
        }
    }
}

/// The end of a monitor that never became a machine.
async fn end_unused(machine: Machine) {
    machine.stop();
    if timeout(EXIT_WITHIN, machine.ended()).await.is_err() {
        tracing::warn!("a machine monitor did not end and is killed");
        machine.kill();
        machine.ended().await;
    }
}

/// The processes of a monitor: the one that was started makes the one that stays, and ends.
#[derive(Debug)]
struct Processes {
    started: Process,
    jailed: OnceLock<Process>,
}

impl Processes {
    fn monitor(&self) -> &Process {
        self.jailed.get().unwrap_or(&self.started)
    }
}

#[derive(Debug)]
struct Handle {
    socket: Arc<Socket>,
    processes: Arc<Processes>,
    /// Its id and its group, as long as it runs.
    cell: Weak<Cell>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // One that is gone already needs no telling.
        let _ = self.socket.link.stop();
    }
}

/// The control socket, and the same socket as the runtime waits for it.
#[derive(Debug)]
struct Socket {
    link: Link,
    /// Only asked whether the socket is ready. The runtime has no type for packets in sequence, and
    /// readiness is the same for all sockets of this family.
    readiness: UnixDatagram,
}

impl Socket {
    fn new(link: Link) -> io::Result<Self> {
        link.set_nonblocking(true)?;
        let duplicate = link.as_fd().try_clone_to_owned()?;
        Ok(Self { link, readiness: UnixDatagram::from_std(std::os::unix::net::UnixDatagram::from(duplicate))? })
    }

    /// Does something with the link as soon as it does not block.
    async fn when<T>(
        &self,
        interest: Interest,
        mut work: impl FnMut(&Link) -> Result<T, ControlError>,
    ) -> Result<T, ControlError> {
        loop {
            self.readiness.ready(interest).await?;
            let mut outcome = None;
            let attempt = self.readiness.try_io(interest, || match work(&self.link) {
                Err(ControlError::Socket(error)) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
                done => {
                    outcome = Some(done);
                    Ok(())
                }
            });
            match (attempt, outcome) {
                (_, Some(done)) => return done,
                (Err(error), None) if error.kind() != io::ErrorKind::WouldBlock => return Err(error.into()),
                _ => {}
            }
        }
    }
}

impl Machine {
    /// The monitor's process.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.handle.processes.monitor().id()
    }

    /// Waits until init is up. False when the machine ended before.
    pub async fn init_up(&self) -> bool {
        self.hears(|heard| heard.init_up).await.is_some()
    }

    /// How often the guest stood still.
    #[must_use]
    pub fn freezes(&self) -> u32 {
        self.heard.borrow().frozen
    }

    /// Waits until the guest stands still once more than that often. False when the machine ended before.
    pub async fn frozen_after(&self, freezes: u32) -> bool {
        self.hears(|heard| heard.frozen > freezes).await.is_some()
    }

    /// Waits until the guest has become the machine of that generation. False when the machine ended before.
    pub async fn thawed(&self, generation: u64) -> bool {
        let generation = u32::try_from(generation & 0x00ff_ffff).ok();
        self.hears(|heard| heard.thawed.is_some() && heard.thawed == generation).await.is_some()
    }

    /// Has a machine that stands still copied into two files, the first as long as its memory. Returns the bytes of memory that are not zero.
    ///
    /// # Errors
    /// The machine is gone, or is not copied; then it still stands.
    pub async fn snapshot(&self, memory: &File, state: &File) -> Result<u64, MachineError> {
        let answers = self.heard.borrow().answers;
        if let Some(cell) = self.handle.cell.upgrade() {
            cell.allow_copy(memory.metadata()?.len() >> 20)?;
        }
        let (memory, state) = (memory.as_fd(), state.as_fd());
        self.handle.socket.when(Interest::WRITABLE, |link| link.snapshot(memory, state)).await?;
        let heard = self.hears(|heard| heard.answers > answers).await.ok_or(ControlError::Closed)?;
        heard.copied.unwrap_or(Err(String::new())).map_err(MachineError::NotCopied)
    }

    /// What a clone that is watched has touched so far; nothing of one that is not. It is watched no more.
    ///
    /// # Errors
    /// The machine is gone.
    pub async fn working_set(&self) -> Result<WorkingSet, MachineError> {
        self.handle.socket.when(Interest::WRITABLE, Link::ask_working_set).await?;
        let heard = self.hears(|heard| heard.working_set.is_some()).await.ok_or(ControlError::Closed)?;
        Ok(heard.working_set.unwrap_or_default())
    }

    /// Lets a machine that stands still go on as the one of this record.
    ///
    /// # Errors
    /// The machine is gone.
    pub async fn resume(&self, record: Record) -> Result<(), MachineError> {
        Ok(self.handle.socket.when(Interest::WRITABLE, |link| link.resume(record)).await?)
    }

    /// Waits until the machine has said that. None when it ended before.
    async fn hears(&self, is_so: impl Fn(&Heard) -> bool) -> Option<Heard> {
        let mut heard = self.heard.clone();
        let heard = heard.wait_for(|heard| is_so(heard)).await.ok()?;
        Some(heard.clone())
    }

    /// A stream to a port of the guest. It ends at once when the guest refuses.
    ///
    /// # Errors
    /// The machine is gone, or as good as gone: nothing was sent to it.
    pub async fn connect(&self, port: u32) -> Result<UnixStream, MachineError> {
        let order = self.handle.socket.when(Interest::WRITABLE, |link| link.connect(port));
        let stream = timeout(ORDER_WITHIN, order).await.map_err(|_| MachineError::Deaf(ORDER_WITHIN))??;
        stream.set_nonblocking(true)?;
        Ok(UnixStream::from_std(stream)?)
    }

    /// Ends the machine without asking the guest.
    pub fn stop(&self) {
        if let Err(error) = self.handle.socket.link.stop() {
            tracing::debug!(%error, "a machine that was to be stopped is gone already");
        }
    }

    /// Kills the monitor, for when it does not end by itself.
    pub fn kill(&self) {
        if let Err(error) = self.handle.processes.monitor().kill() {
            tracing::debug!(%error, "a machine monitor that was to be killed is gone already");
        }
    }

    /// Waits for the end, of the process too.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().unwrap_or_else(unexplained),
            Err(_) => unexplained(),
        }
    }

    /// Whether the end has come.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.ended.borrow().is_some()
    }
}

/// For a machine that nobody watches any more.
fn unexplained() -> Ended {
    silent(None, false)
}

/// For a monitor that could not say why it ended, for instance because it was killed.
fn silent(signal: Option<i32>, out_of_memory: bool) -> Ended {
    let mut reason = "the machine monitor ended without a word".to_owned();
    if let Some(signal) = signal {
        reason.push_str(&format!(", by signal {signal}"));
    }
    if out_of_memory {
        reason.push_str(": its control group had no memory left");
    }
    Ended { cause: Cause::Failed(reason), statistics: Statistics::default() }
}

/// Takes notices until the machine has ended and its processes are reaped.
async fn listen(
    socket: Arc<Socket>,
    processes: Arc<Processes>,
    cell: Arc<Cell>,
    say: watch::Sender<Heard>,
    end: watch::Sender<Option<Ended>>,
) {
    let mut last = None;
    loop {
        match socket.when(Interest::READABLE, Link::notice).await {
            Ok((Notice::Jailed { process_id }, Some(process))) => {
                // A second one would be of a monitor that is not ours any more, and is not believed.
                if processes.jailed.set(Process::handed_over(process_id, process)).is_ok() {
                    processes.started.reap().await;
                }
            }
            Ok((Notice::Doorbell { word }, _)) => say.send_modify(|heard| match doorbell::heard(word) {
                (doorbell::INIT_UP, _) => heard.init_up = true,
                (doorbell::THAWED, generation) => heard.thawed = Some(generation),
                _ => {}
            }),
            Ok((Notice::Frozen, _)) => say.send_modify(|heard| heard.frozen += 1),
            Ok((Notice::Copied { memory_bytes }, _)) => say.send_modify(|heard| heard.answer(Ok(memory_bytes))),
            Ok((Notice::NotCopied(reason), _)) => say.send_modify(|heard| heard.answer(Err(reason))),
            Ok((Notice::WorkingSet(set), _)) => say.send_modify(|heard| heard.working_set = Some(set)),
            // Its stream was dropped, which refuses it: no port is open to guests yet.
            Ok((Notice::Accepted { .. } | Notice::Jailed { .. }, _)) => {}
            Ok((Notice::Ended { cause, statistics }, _)) => last = Some(Ended { cause, statistics }),
            Err(ControlError::Closed) => break,
            Err(error) => {
                last = Some(Ended { cause: Cause::Failed(error.to_string()), statistics: Statistics::default() });
                break;
            }
        }
    }
    // It has closed its socket, which leaves it no reason to stay.
    let signal = processes.monitor().reap().await;
    tracing::debug!(process_id = processes.monitor().id(), ?signal, "a machine monitor ended");
    let last = last.unwrap_or_else(|| silent(signal, cell.ran_out_of_memory()));
    drop(cell);
    drop(say);
    end.send_replace(Some(last));
}

/// Ends a monitor that nobody can watch, for want of descriptors, and waits for its processes. Then its cell is free.
fn abandon(link: &Link, mut child: Child, _cell: &Cell) {
    // It may be gone already.
    let _ = link.set_nonblocking(false).and_then(|()| link.hang_up());
    while let Ok((notice, descriptor)) = link.notice() {
        if let (Notice::Jailed { process_id }, Some(descriptor)) = (notice, descriptor) {
            Process::handed_over(process_id, descriptor).wait();
        }
    }
    let _ = child.wait();
}

/// Passes a monitor's log on, line by line.
async fn pass_on(log: pipe::Receiver, name: String) {
    let mut lines = FramedRead::new(log, LinesCodec::new_with_max_length(MAX_LOG_LINE_BYTES));
    loop {
        match lines.next().await {
            Some(Ok(line)) => tracing::info!(machine = name, "{}", line.replace(char::is_control, " ")),
            Some(Err(LinesCodecError::MaxLineLengthExceeded)) => {
                tracing::info!(machine = name, "a line of the monitor's log was too long and is left out");
                // After an error the reader says once that it is over; what follows the line is still to come.
                let _pause = lines.next().await;
            }
            Some(Err(LinesCodecError::Io(error))) => {
                tracing::info!(machine = name, %error, "a line of the monitor's log was left out");
                return;
            }
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write as _, time::Instant};

    /// Processes that this one started and did not reap, by the name of their program.
    fn children(name: &str) -> usize {
        let own = i32::try_from(std::process::id()).expect("a process id");
        procfs::process::all_processes()
            .expect("processes")
            .filter_map(|process| process.ok()?.stat().ok())
            .filter(|stat| stat.ppid == own && stat.comm == name)
            .count()
    }

    fn images(monitor: PathBuf) -> Arc<Images> {
        let file = || tempfile::tempfile().expect("a file");
        let installation = Installation::for_test(1);
        Arc::new(Images {
            monitor,
            kernel: file(),
            initramfs: file(),
            installation,
            confinement: Confinement::default(),
        })
    }

    /// Each start that failed after the spawn left a dead process behind, for as long as the node ran.
    #[tokio::test]
    async fn a_monitor_that_cannot_be_told_what_to_do_is_reaped() {
        let folder = tempfile::tempdir().expect("a folder");
        let monitor = folder.path().join("beth-unreaped");
        std::fs::copy("/bin/cat", &monitor).expect("a program");
        let images = images(monitor);
        let disk = tempfile::tempfile().expect("a file");
        // More descriptors than a packet takes.
        let descriptors = vec![disk.as_fd(); 2 * vmm::control::MAX_DESCRIPTORS];
        let disks = Disks { descriptors, in_memory_mib: 0 };
        let monitor = Monitor::spawn(&images).await.expect("a process");
        let failed = monitor.boot(&images, &Config::new(128, 1), &disks, None, "name".to_owned());
        assert!(matches!(failed, Err(MachineError::Control(ControlError::Truncated))), "{failed:?}");
        let deadline = Instant::now() + Duration::from_secs(20);
        while children("beth-unreaped") > 0 {
            assert!(Instant::now() < deadline, "the monitor is not reaped");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Once its socket was full, calls waited for it without end.
    #[tokio::test(start_paused = true)]
    async fn a_monitor_that_takes_no_orders_is_given_up() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let monitor = folder.path().join("monitor");
        std::fs::write(&monitor, "#!/bin/sh\nexec sleep 1000\n").expect("a script");
        std::fs::set_permissions(&monitor, std::fs::Permissions::from_mode(0o700)).expect("executable");
        let images = images(monitor);
        let monitor = Monitor::spawn(&images).await.expect("a process");
        let machine =
            monitor.boot(&images, &Config::new(128, 1), &Disks::default(), None, "name".to_owned()).expect("told");
        let mut streams = Vec::new();
        let error = timeout(Duration::from_secs(3600), async {
            loop {
                match machine.connect(80).await {
                    Ok(stream) => streams.push(stream),
                    Err(error) => return error,
                }
            }
        });
        let error = error.await.expect("in time");
        machine.kill();
        assert!(matches!(error, MachineError::Deaf(_)) && !streams.is_empty(), "{error}");
    }

    /// After one long line nobody read a monitor's log any more, and its next word there was its last.
    #[tokio::test]
    async fn a_long_line_of_a_monitor_does_not_close_its_log() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let log = pipe::Receiver::from_owned_fd(OwnedFd::from(reader)).expect("a log");
        let passing = tokio::spawn(pass_on(log, "name".to_owned()));
        let mut writer = File::from(OwnedFd::from(writer));
        for _ in 0..3 {
            writer.write_all(&[b'x'; MAX_LOG_LINE_BYTES * 2]).expect("a write");
            tokio::time::sleep(Duration::from_millis(100)).await;
            writer.write_all(b"\nshort\n").expect("somebody reads");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        drop(writer);
        timeout(Duration::from_secs(20), passing).await.expect("in time").expect("no panic");
    }
}
