//! A monitor that a guest has taken over: what it tries, and that it fails.
//!
//! Each act is tried by processes of its own: as the process was before the jail, which shows that the act would do harm; in the
//! jail; under each thread's seccomp filter alone; and under both. So that each layer is seen to hold by itself, and that a
//! test of one that was taken away fails. Then the program itself is looked at.

mod acts;
mod prey;
mod program;

use acts::{ACTS, Act, Alone};
use libtest_mimic::{Arguments, Failed, Trial};
use prey::Prey;
use rustix::{
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    process::{DumpableBehavior, WaitId, WaitIdOptions, geteuid, set_dumpable_behavior, waitid},
    thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};
use serde::{Deserialize, Serialize};
use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    process::{Command, ExitCode, Stdio},
    sync::Arc,
};
use vmm::{
    control::{self, Notice},
    jail::{
        self, Place,
        seccomp::{self, Thread},
    },
};

/// What a process of this program is to be; without it, it is the test.
const PART: &str = "BETH_TEST_JAIL_PART";

/// The id of a monitor whose supervisor is root, as an operator's range has it.
const OWN_ID: u32 = 524_288 + 7;
/// An ordinary user.
const NOBODY: u32 = 65_534;

/// Exit status of a process that could not even try. Above any error number of Linux.
const STATUS_NOT_TRIED: i32 = 200;

/// Who supervises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Supervisor {
    /// Root, whose monitors have ids of their own.
    Root,
    /// An ordinary user, whose monitors have its own.
    User,
}

/// What a process is under when it acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Layers {
    jail: bool,
    filter: Option<Filter>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Filter {
    Vcpu,
    Devices,
}

/// What a process of this program is.
#[derive(Debug, Serialize, Deserialize)]
enum Part {
    /// The process that acts.
    Monitor { supervisor: Supervisor, layers: Layers, act: usize, prey: Prey },
    /// The process that is acted upon.
    Prey { supervisor: Supervisor },
}

fn main() -> ExitCode {
    match std::env::var(PART).map(|part| serde_json::from_str(&part)) {
        Ok(Ok(Part::Monitor { supervisor, layers, act, prey })) => monitor(supervisor, layers, &ACTS[act], &prey),
        Ok(Ok(Part::Prey { supervisor })) => {
            supervisor.become_it().expect("a user");
            prey::wait_as_prey()
        }
        Ok(Err(error)) => panic!("{error}"),
        Err(_) => test(),
    }
}

/// The test itself.
fn test() -> ExitCode {
    let arguments = Arguments::from_args();
    let supervisors: &[Supervisor] =
        if geteuid().is_root() { &[Supervisor::Root, Supervisor::User] } else { &[Supervisor::User] };
    let trial = |name: &str, run: fn() -> Result<(), Failed>| Trial::test(format!("program::{name}"), run);
    let mut trials = vec![
        trial("waits_for_orders_in_the_jail", program::waits_for_orders_in_the_jail),
        trial("an_id_that_is_not_to_be_had_is_refused", program::an_id_that_is_not_to_be_had_is_refused),
        trial("a_control_group_that_is_not_there_is_refused", program::a_control_group_that_is_not_there_is_refused),
    ];
    let mut hunted = Vec::new();
    for supervisor in supervisors {
        // One for all acts: none of them may harm it.
        let hunt = Arc::new(prey::Hunt::start(*supervisor).expect("another machine's monitor"));
        for (index, act) in ACTS.iter().enumerate() {
            let hunt = Arc::clone(&hunt);
            let name = format!("monitor_of_{}::{}", supervisor.name(), act.name.replace(' ', "_"));
            trials.push(Trial::test(name, move || try_act(*supervisor, index, &hunt.prey)));
        }
        hunted.push(hunt);
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(hunted);
    conclusion.exit_code()
}

/// Tries one act under all combinations of layers.
fn try_act(supervisor: Supervisor, index: usize, prey: &Prey) -> Result<(), Failed> {
    let act = &ACTS[index];
    let end = |jail, filter| {
        let layers = Layers { jail, filter };
        run(&Part::Monitor { supervisor, layers, act: index, prey: prey.clone() })
    };
    let outside = end(false, None)?;
    let possible = match act.outside {
        acts::Outside::Works => true,
        acts::Outside::WorksForRoot => supervisor == Supervisor::Root,
        acts::Outside::Depends => outside == End::Done,
    };
    match outside {
        End::Done => {}
        End::Refused(_) if !possible => {}
        other => return Err(format!("outside of the jail: {other:?}").into()),
    }
    let filters = [Filter::Vcpu, Filter::Devices];
    let alone = act.alone.here();
    let jailed = end(true, None)?;
    match jailed {
        End::Refused(_) if matches!(alone, Alone::Jail | Alone::Both) => {}
        End::Refused(_) | End::Done if alone == Alone::Filter => {}
        other => return Err(format!("in the jail: {other:?}").into()),
    }
    for filter in filters {
        let filtered = end(false, Some(filter))?;
        match filtered {
            End::Killed if matches!(alone, Alone::Filter | Alone::Both) => {}
            _ if alone == Alone::Jail => {}
            other => return Err(format!("under the filter of {filter:?}: {other:?}").into()),
        }
        match end(true, Some(filter))? {
            End::Killed | End::Refused(_) => {}
            End::Done => return Err(format!("in the jail, under the filter of {filter:?}: it worked").into()),
        }
    }
    Ok(())
}

/// How an act ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It worked.
    Done,
    /// With this error number.
    Refused(i32),
    /// The process was killed for it by its filter.
    Killed,
}

/// Runs a process of this program that acts, to its end.
fn run(part: &Part) -> Result<End, Failed> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let mut child = Command::new(std::env::current_exe()?)
        .env(PART, serde_json::to_string(part)?)
        .stdin(Stdio::from(theirs))
        .spawn()?;
    // Who enters the jail says that it is another process now; who does not, says nothing.
    let jailed = match control::receive::<Notice>(&ours) {
        Ok((Notice::Jailed { .. }, descriptors)) => descriptors.into_iter().next(),
        Ok((other, _)) => return Err(format!("{other:?}").into()),
        Err(_) => None,
    };
    let launched = child.wait()?;
    let (status, signal) = match &jailed {
        Some(process) => end_of(process)?,
        None => {
            use std::os::unix::process::ExitStatusExt as _;
            (launched.code(), launched.signal())
        }
    };
    match (status, signal) {
        (Some(0), _) => Ok(End::Done),
        (Some(STATUS_NOT_TRIED), _) => Err("the process could not try".into()),
        (Some(error), _) => Ok(End::Refused(error)),
        (None, Some(libc::SIGSYS)) => Ok(End::Killed),
        other => Err(format!("the process ended with {other:?}").into()),
    }
}

/// Waits for a child that was handed over.
fn end_of(process: &OwnedFd) -> io::Result<(Option<i32>, Option<i32>)> {
    let ended = waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED)?;
    let ended = ended.ok_or_else(|| io::Error::other("an end was waited for"))?;
    Ok((ended.exit_status(), ended.terminating_signal()))
}

impl Supervisor {
    fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::User => "a_user",
        }
    }

    /// Where it puts its monitors.
    fn place(self) -> Place {
        let id = match self {
            Self::Root => Some(OWN_ID),
            Self::User => None,
        };
        Place { id, cgroup: None }
    }

    /// What a program that it starts is.
    fn become_it(self) -> io::Result<()> {
        if self == Self::User && geteuid().is_root() {
            let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
            set_thread_groups(&[])?;
            set_thread_res_gid(group, group, group)?;
            set_thread_res_uid(user, user, user)?;
            // As after `execve`.
            set_dumpable_behavior(DumpableBehavior::Dumpable)?;
        }
        Ok(())
    }
}

/// A process that acts. By the code of the product up to the act.
fn monitor(supervisor: Supervisor, layers: Layers, act: &Act, prey: &Prey) -> ! {
    let prepared = prepare(supervisor, layers);
    let status = match prepared {
        Ok(kept) => match (act.act)(prey, &kept) {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().unwrap_or(STATUS_NOT_TRIED),
        },
        Err(error) => {
            eprintln!("{supervisor:?} {layers:?}: {error}");
            STATUS_NOT_TRIED
        }
    };
    // SAFETY: the process ends here.
    unsafe { libc::_exit(status) }
}

/// What a monitor keeps.
struct Kept {
    kvm: Option<OwnedFd>,
}

fn prepare(supervisor: Supervisor, layers: Layers) -> Result<Kept, String> {
    let text = |error: io::Error| error.to_string();
    prey::leave_descriptor_open().map_err(text)?;
    if layers.jail {
        // SAFETY: this thread is the only one, and what it has opened is open for nobody to own.
        unsafe { jail::close_inherited() }.map_err(text)?;
    }
    let kvm = std::fs::File::options().read(true).write(true).open("/dev/kvm").ok().map(OwnedFd::from);
    supervisor.become_it().map_err(text)?;
    let socket = io::stdin().as_fd().try_clone_to_owned().map_err(text)?;
    if layers.jail {
        jail::limit_process()?;
        let tell = |process_id, process: BorrowedFd<'_>| {
            control::send(&socket, &Notice::Jailed { process_id }, &[process]).map_err(io::Error::other)
        };
        jail::enter(&supervisor.place(), tell).map(drop).map_err(|error| error.to_string())?;
    }
    match layers.filter {
        Some(Filter::Vcpu) => seccomp::compile(Thread::Vcpu)?.enter()?,
        Some(Filter::Devices) => seccomp::compile(Thread::Devices)?.enter()?,
        None => {}
    }
    Ok(Kept { kvm })
}
