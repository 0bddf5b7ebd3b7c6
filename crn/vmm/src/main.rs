//! `vmm`: one process, one microVM. See `vmm --help`.
#![expect(clippy::print_stdout, reason = "a command line's answers go to standard output")]

use kvm_ioctls::Kvm;
use lexopt::prelude::{Long, Value};
use std::{
    fs::File,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    process::ExitCode,
};
use vmm::{
    config::{Config, Disk, Entry, Net, Vsock},
    control::{self, Cause, ControlError, Notice, Request},
    devices::network::{DEFAULT_RATES, Tap},
    jail::{self, JailError, Place, seccomp::Thread},
    machine::{BuildError, Front, Machine, Shell},
    probe,
    statistics::{Statistics, Stopwatch},
    supervisor::SUPERVISED,
    vm::VmError,
    working_set::watch::PageMap,
};

const HELP: &str = "\
One process, one microVM.

Usage:
  vmm run --kernel FILE --initramfs FILE [options]   boot a machine from a terminal
  vmm probe                                          find out whether this host runs guests
  vmm supervised                                     take orders from standard input (crn uses this)

Options of run:
  --kernel FILE              flat kernel image (`cargo xtask images` makes it)
  --initramfs FILE           initramfs that holds /init
  --disk FILE                a read-only block device; may be repeated
  --disk-rw FILE             a writable block device; may be repeated
  --memory-mib N             guest memory [default: 128]
  --vcpus N                  virtual processors [default: 1]
  --pvh                      enter the kernel by PVH instead of its 64-bit entry
  --vsock-dir DIR            sockets of the guest's ports: DIR/connect takes `CONNECT port`,
                             DIR/port_N gets connections that the guest makes to port N
  --accept-port N            a port that the guest may connect to; may be repeated
  --tap NAME                 a network card on that tap, which is made if it is missing; may be repeated
  --mac MAC                  the card's Ethernet address [default: 02:00:00:00:00:01, :02, ...]
  --address ADDRESS          an IP address that the guest may send from; may be repeated
  --entropy                  give the guest random bytes of the host
  --balloon                  take back memory that the guest has freed
  --console                  print the kernel's log
  --cmdline TEXT             added to the kernel's command line
  --exit-on-progress BYTE    end at this byte of progress (a character)
  --pass-progress            write the bytes of progress to standard output
  --quiet                    print no progress, doorbells and statistics
  --measure-memory           measure the process's memory at doorbells
  -h, --help                 this text
  -V, --version              the version

Exit status of run: the guest's own, 125 when the machine could not be built, 126 when the guest reset.";

/// Exit statuses besides the guest's own.
const STATUS_FAILED: u8 = 125;
const STATUS_RESET: u8 = 126;
const STATUS_USAGE: u8 = 2;

fn main() -> ExitCode {
    let stopwatch = Stopwatch::of_process();
    let mut arguments = lexopt::Parser::from_env();
    match arguments.next() {
        Ok(Some(Value(word))) if word == SUPERVISED => match Place::parse(&mut arguments) {
            Ok(place) => supervised(&place, stopwatch),
            Err(error) => usage(&error.to_string()),
        },
        Ok(Some(Value(word))) if word == "probe" => report_probe(),
        Ok(Some(Value(word))) if word == "run" => match parse_run(&mut arguments) {
            Ok(run) => standalone(run, stopwatch),
            Err(error) => usage(&error.to_string()),
        },
        Ok(Some(Long("help") | lexopt::Arg::Short('h'))) => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        Ok(Some(Long("version") | lexopt::Arg::Short('V'))) => {
            println!("vmm {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Ok(Some(argument)) => usage(&argument.unexpected().to_string()),
        Ok(None) => usage("what to do?"),
        Err(error) => usage(&error.to_string()),
    }
}

fn usage(error: &str) -> ExitCode {
    eprintln!("vmm: {error}\n\n{HELP}");
    ExitCode::from(STATUS_USAGE)
}

fn report_probe() -> ExitCode {
    let verdict = probe::probe();
    println!("{verdict}");
    if let Some(advice) = verdict.advice() {
        println!("{advice}");
    }
    if verdict.is_usable() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A machine for a supervisor, whose socket is standard input.
fn supervised(place: &Place, stopwatch: Stopwatch) -> ExitCode {
    // SAFETY: this thread is the only one, and has opened nothing that is still open.
    if let Err(error) = unsafe { jail::close_inherited() } {
        return failed(&format!("cannot close descriptors (Linux 5.9 or newer can): {error}"));
    }
    let socket = match std::io::stdin().as_fd().try_clone_to_owned() {
        Ok(socket) => socket,
        Err(error) => return failed(&format!("no control socket on standard input: {error}")),
    };
    let (kvm, page_map) = match enter_jail(place, &socket) {
        Ok(entered) => entered,
        // The other half of this process knows why, and tells the supervisor: one reason is enough, and the right one.
        Err(error @ JailError::Alone) => return failed(&error.to_string()),
        Err(error) => return refuse(&socket, error.to_string()),
    };
    let front = Front::Supervised(socket);
    match take_orders(kvm, page_map, &front, stopwatch) {
        Ok(Some(machine)) => exit_code(&machine.run(&front)),
        // A shell that was made in advance and is not needed.
        Ok(None) => {
            front.notify(&Notice::Ended { cause: Cause::Stopped, statistics: Statistics::default() }, &[]);
            ExitCode::SUCCESS
        }
        Err(error) => {
            let Front::Supervised(socket) = front else {
                return ExitCode::from(STATUS_FAILED);
            };
            refuse(&socket, error)
        }
    }
}

/// From the first order to a machine that is ready to run; none when it is not wanted any more. KVM is closed by then: nothing
/// that runs beside a guest makes another machine.
fn take_orders(
    kvm: Kvm,
    mut page_map: Option<PageMap>,
    front: &Front,
    stopwatch: Stopwatch,
) -> Result<Option<Machine>, String> {
    let Front::Supervised(socket) = front else { return Ok(None) };
    let text = |error: BuildError| error.to_string();
    let mut prepared: Option<Shell> = None;
    let new_shell = |shape| Shell::new(&kvm, shape, Thread::Devices).map_err(text);
    loop {
        let (order, descriptors) = match control::receive::<Request>(socket) {
            Ok((Request::Stop, _)) | Err(ControlError::Closed) => return Ok(None),
            Ok(order) => order,
            Err(error) => return Err(error.to_string()),
        };
        // What was made in advance is not on anybody's time.
        let stopwatch = if prepared.is_some() { Stopwatch::of_order() } else { stopwatch };
        let mut shell_for = |config: &Config| match prepared.take() {
            Some(shell) if shell.shape().fits(config) => Ok(shell),
            _ => new_shell(config.shape()),
        };
        let machine = match order {
            Request::Prepare(shape) => {
                prepared = Some(new_shell(shape)?);
                continue;
            }
            Request::Start(config) => Machine::build(shell_for(&config)?, config, descriptors, front, stopwatch),
            Request::Restore(restore) => {
                let shell = shell_for(&restore.config)?;
                Machine::restore(shell, restore, descriptors, page_map.take(), front, stopwatch)
            }
            Request::Connect { .. }
            | Request::Snapshot
            | Request::Resume(_)
            | Request::TellWorkingSet
            | Request::Stop => {
                return Err("an order for a machine that is not there".to_owned());
            }
        };
        return machine.map(Some).map_err(text);
    }
}

/// From here on this is a process that has nothing of the host but KVM, and what tells it of its own pages.
fn enter_jail(place: &Place, socket: &OwnedFd) -> Result<(Kvm, Option<PageMap>), JailError> {
    jail::limit_process().map_err(JailError::Limits)?;
    let kvm = Kvm::new().map_err(|error| JailError::Kvm(VmError::Open(error).to_string()))?;
    let tell = |process_id, process: BorrowedFd<'_>| {
        control::send(socket, &Notice::Jailed { process_id }, &[process]).map_err(std::io::Error::other)
    };
    Ok((kvm, jail::enter(place, tell)?))
}

/// Tells the supervisor why there is no machine.
fn refuse(socket: &OwnedFd, reason: String) -> ExitCode {
    let notice = Notice::Ended { cause: Cause::Failed(reason.clone()), statistics: Statistics::default() };
    // A supervisor that is gone reads the log.
    let _ = control::send(socket, &notice, &[]);
    failed(&reason)
}

fn failed(reason: &str) -> ExitCode {
    eprintln!("vmm: {reason}");
    ExitCode::from(STATUS_FAILED)
}

fn exit_code(cause: &Cause) -> ExitCode {
    match cause {
        Cause::Exit(status) => ExitCode::from(*status),
        Cause::Stopped => ExitCode::SUCCESS,
        Cause::Reset => {
            eprintln!("vmm: the guest reset (a kernel panic, most likely: --console shows it)");
            ExitCode::from(STATUS_RESET)
        }
        Cause::Failed(reason) => failed(reason),
    }
}

/// The options of `run`.
struct Run {
    config: Config,
    kernel: PathBuf,
    initramfs: PathBuf,
    disks: Vec<(PathBuf, bool)>,
    taps: Vec<String>,
    vsock_folder: Option<PathBuf>,
    exit_on_progress: Option<u8>,
    pass_progress: bool,
    verbose: bool,
}

fn parse_run(arguments: &mut lexopt::Parser) -> Result<Run, lexopt::Error> {
    use lexopt::ValueExt as _;
    let mut config = Config::new(128, 1);
    let (mut kernel, mut initramfs, mut vsock_folder) = (None, None, None);
    let (mut disks, mut taps, mut accept_ports) = (Vec::new(), Vec::new(), Vec::new());
    let (mut exit_on_progress, mut pass_progress, mut verbose) = (None, false, true);
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("kernel") => kernel = Some(PathBuf::from(arguments.value()?)),
            Long("initramfs") => initramfs = Some(PathBuf::from(arguments.value()?)),
            Long("disk") => disks.push((PathBuf::from(arguments.value()?), true)),
            Long("disk-rw") => disks.push((PathBuf::from(arguments.value()?), false)),
            Long("memory-mib") => config.memory_mib = arguments.value()?.parse()?,
            Long("vcpus") => config.vcpus = arguments.value()?.parse()?,
            Long("pvh") => config.entry = Entry::Pvh,
            Long("vsock-dir") => vsock_folder = Some(PathBuf::from(arguments.value()?)),
            Long("accept-port") => accept_ports.push(arguments.value()?.parse()?),
            Long("tap") => {
                taps.push(arguments.value()?.string()?);
                let number = u8::try_from(taps.len()).map_err(|_| "too many taps")?;
                config.nets.push(Net { mac: [2, 0, 0, 0, 0, number], addresses: Vec::new(), rates: DEFAULT_RATES });
            }
            Long("mac") => card(&mut config)?.mac = arguments.value()?.parse_with(parse_mac)?,
            Long("address") => card(&mut config)?.addresses.push(arguments.value()?.parse()?),
            Long("entropy") => config.entropy = true,
            Long("balloon") => config.balloon = true,
            Long("console") => config.console = true,
            Long("cmdline") => config.extra_command_line = arguments.value()?.string()?,
            Long("exit-on-progress") => {
                exit_on_progress = arguments.value()?.string()?.bytes().next();
            }
            Long("pass-progress") => pass_progress = true,
            Long("quiet") => verbose = false,
            Long("measure-memory") => config.measure_memory = true,
            other => return Err(other.unexpected()),
        }
    }
    config.disks = disks.iter().map(|(_, read_only)| Disk { read_only: *read_only }).collect();
    if vsock_folder.is_some() {
        config.vsock = Some(Vsock { guest_cid: guest_protocol::GUEST_CID, accept_ports });
    }
    Ok(Run {
        config,
        kernel: kernel.ok_or("--kernel is missing")?,
        initramfs: initramfs.ok_or("--initramfs is missing")?,
        disks,
        taps,
        vsock_folder,
        exit_on_progress,
        pass_progress,
        verbose,
    })
}

/// The network card that an option is about: the last one.
fn card(config: &mut Config) -> Result<&mut Net, &'static str> {
    config.nets.last_mut().ok_or("--mac and --address come after the --tap that they belong to")
}

/// Six bytes in hex with colons between them.
fn parse_mac(text: &str) -> Result<[u8; 6], &'static str> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or("an Ethernet address is six bytes in hex with colons between them")
}

/// A machine for a person at a terminal.
fn standalone(run: Run, stopwatch: Stopwatch) -> ExitCode {
    match open_and_run(&run, stopwatch) {
        Ok(cause) => exit_code(&cause),
        Err(error) => failed(&error),
    }
}

fn open_and_run(run: &Run, stopwatch: Stopwatch) -> Result<Cause, String> {
    let open = |path: &PathBuf, read_only: bool| -> Result<OwnedFd, String> {
        let file = File::options().read(true).write(!read_only).open(path);
        file.map(Into::into).map_err(|error| format!("cannot open {}: {error}", path.display()))
    };
    let mut descriptors = vec![open(&run.kernel, true)?, open(&run.initramfs, true)?];
    for (path, read_only) in &run.disks {
        descriptors.push(open(path, *read_only)?);
    }
    for name in &run.taps {
        descriptors.push(Tap::open(name).map_err(|error| format!("cannot open the tap {name}: {error}"))?);
    }
    if run.config.console {
        descriptors.push(std::io::stdout().as_fd().try_clone_to_owned().map_err(|error| error.to_string())?);
    }
    jail::limit_process()?;
    let mut terminal = vmm::machine::Terminal::default();
    terminal.exit_on_progress = run.exit_on_progress;
    terminal.pass_progress = run.pass_progress;
    terminal.verbose = run.verbose;
    if let Some(folder) = &run.vsock_folder {
        terminal.listen(folder).map_err(|error| format!("cannot listen in {}: {error}", folder.display()))?;
    }
    let front = Front::Standalone(terminal);
    let text = |error: BuildError| error.to_string();
    let kvm = Kvm::new().map_err(|error| VmError::Open(error).to_string())?;
    let shell = Shell::new(&kvm, run.config.shape(), Thread::TerminalDevices).map_err(text)?;
    drop(kvm);
    let machine = Machine::build(shell, run.config.clone(), descriptors, &front, stopwatch).map_err(text)?;
    Ok(machine.run(&front))
}
