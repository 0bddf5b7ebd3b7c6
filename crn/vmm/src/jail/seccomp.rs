//! The system calls that each kind of thread may make once a guest runs. Any other ends the process.
//!
//! The tables are data: a call, which of them, and why. A call that is not needed for a reason written here is not allowed.

use crate::working_set::pre_fault::KVM_PRE_FAULT_MEMORY;
use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Compare, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// The kinds of thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thread {
    /// Runs a virtual processor.
    Vcpu,
    /// Waits for events and works on the devices.
    Devices,
    /// The same in a machine that has a terminal instead of a supervisor.
    TerminalDevices,
}

/// What an argument, by its position, must be: its lower 32 bits, as nothing here is wider.
#[derive(Debug, Clone, Copy)]
enum Argument {
    /// This value.
    Is(u8, u64),
    /// Anything without these bits.
    Lacks(u8, u64),
    /// The id of the calling thread.
    IsSelf(u8),
}

use Argument::{Is as is, IsSelf as is_self, Lacks as lacks};

/// A system call that is allowed.
struct Allowed {
    call: c_long,
    /// One of these combinations must hold, each as a whole; none for any arguments.
    combinations: &'static [&'static [Argument]],
    #[expect(dead_code, reason = "the reason is for whoever reads the table")]
    reason: &'static str,
}

const fn any(call: c_long, reason: &'static str) -> Allowed {
    only(call, &[], reason)
}

const fn only(call: c_long, combinations: &'static [&'static [Argument]], reason: &'static str) -> Allowed {
    Allowed { call, combinations, reason }
}

/// `ioctl` numbers (`linux/kvm.h`, `asm-generic/ioctls.h`, `linux/if_tun.h`).
const KVM_RUN: u64 = 0xae80;
const KVM_GET_REGS: u64 = 0x8090_ae81;
const KVM_GET_SREGS: u64 = 0x8138_ae83;
const KVM_GET_MSRS: u64 = 0xc008_ae88;
const KVM_SET_MSRS: u64 = 0x4008_ae89;
const KVM_GET_LAPIC: u64 = 0x8400_ae8e;
const KVM_GET_CPUID2: u64 = 0xc008_ae91;
const KVM_GET_MP_STATE: u64 = 0x8004_ae98;
const KVM_GET_VCPU_EVENTS: u64 = 0x8040_ae9f;
const KVM_GET_DEBUGREGS: u64 = 0x8080_aea1;
const KVM_GET_XSAVE: u64 = 0x9000_aea4;
const KVM_GET_XCRS: u64 = 0x8188_aea6;
const KVM_GET_TSC_KHZ: u64 = 0xaea3;
const KVM_KVMCLOCK_CTRL: u64 = 0xaead;
const KVM_GET_IRQCHIP: u64 = 0xc208_ae62;
const KVM_GET_CLOCK: u64 = 0x8030_ae7c;
const KVM_SET_CLOCK: u64 = 0x4030_ae7b;
const FIONBIO: u64 = 0x5421;
const TUNSETOFFLOAD: u64 = 0x4004_54d0;
/// A signal of an abort, a protection that makes pages executable, the family and kind of our connections, a mode of `fallocate`,
/// operations of `fcntl`.
const SIGABRT: u64 = libc::SIGABRT as u64;
const PROT_EXEC: u64 = libc::PROT_EXEC as u64;
const AF_UNIX: u64 = libc::AF_UNIX as u64;
const STREAM: u64 = (libc::SOCK_STREAM | libc::SOCK_CLOEXEC) as u64;
const PUNCH_HOLE: u64 = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u64;
const F_GETFD: u64 = libc::F_GETFD as u64;
const F_SETFD: u64 = libc::F_SETFD as u64;
const F_DUPFD_CLOEXEC: u64 = libc::F_DUPFD_CLOEXEC as u64;

/// What every thread needs: memory, locks, time, an end.
const BOTH: &[Allowed] = &[
    any(libc::SYS_brk, "the allocator grows"),
    any(libc::SYS_clock_gettime, "time, where the host has no fast clock"),
    any(libc::SYS_close, "connections end"),
    any(libc::SYS_exit, "a thread ends"),
    any(libc::SYS_exit_group, "the machine ends"),
    any(libc::SYS_futex, "locks and channels between the threads"),
    any(libc::SYS_getpid, "part of an abort"),
    any(libc::SYS_gettid, "part of an abort"),
    any(libc::SYS_madvise, "the allocator and the guest give pages back"),
    only(
        libc::SYS_mmap,
        &[&[is(4, u32::MAX as u64), lacks(2, PROT_EXEC)]],
        "the allocator takes pages: anonymous ones only, and never code",
    ),
    any(libc::SYS_mremap, "the allocator grows a large block"),
    any(libc::SYS_munmap, "the allocator gives pages back, a thread its stack"),
    any(libc::SYS_rt_sigaction, "part of an abort"),
    any(libc::SYS_rt_sigprocmask, "a thread starts and ends"),
    any(libc::SYS_rt_sigreturn, "a signal handler returns"),
    any(libc::SYS_sched_yield, "a lock is contended"),
    any(libc::SYS_sigaltstack, "a thread ends"),
    only(libc::SYS_tkill, &[&[is_self(0), is(1, SIGABRT)]], "an abort: nobody else's"),
    any(libc::SYS_write, "event descriptors, the debug console, the log, frames to a tap"),
    any(libc::SYS_writev, "the log"),
];

const VCPU: &[Allowed] = &[only(
    libc::SYS_ioctl,
    &[&[is(1, KVM_RUN)], &[is(1, KVM_PRE_FAULT_MEMORY)]],
    "runs the processor; has the machine's own memory mapped for it",
)];

const DEVICES: &[Allowed] = &[
    any(libc::SYS_epoll_ctl, "a new connection is watched"),
    any(libc::SYS_epoll_pwait, "waits for events"),
    any(libc::SYS_epoll_wait, "waits for events"),
    only(
        libc::SYS_fcntl,
        &[&[is(1, F_GETFD)], &[is(1, F_SETFD)], &[is(1, F_DUPFD_CLOEXEC)]],
        "a descriptor that came in is made close-on-exec; not to have signals sent by it",
    ),
    only(libc::SYS_fallocate, &[&[is(1, PUNCH_HOLE)]], "a disk gives space back: nothing is made longer or filled"),
    any(libc::SYS_fdatasync, "a flush of a disk"),
    any(libc::SYS_getrandom, "hash tables are seeded, and the guest's generator"),
    any(libc::SYS_getrusage, "page faults, for statistics"),
    only(
        libc::SYS_ioctl,
        &[
            &[is(1, FIONBIO)],
            &[is(1, TUNSETOFFLOAD)],
            &[is(1, KVM_GET_REGS)],
            &[is(1, KVM_GET_SREGS)],
            &[is(1, KVM_GET_MSRS)],
            &[is(1, KVM_SET_MSRS)],
            &[is(1, KVM_GET_LAPIC)],
            &[is(1, KVM_GET_CPUID2)],
            &[is(1, KVM_GET_MP_STATE)],
            &[is(1, KVM_GET_VCPU_EVENTS)],
            &[is(1, KVM_GET_DEBUGREGS)],
            &[is(1, KVM_GET_XSAVE)],
            &[is(1, KVM_GET_XCRS)],
            &[is(1, KVM_GET_TSC_KHZ)],
            &[is(1, KVM_KVMCLOCK_CTRL)],
            &[is(1, KVM_GET_IRQCHIP)],
            &[is(1, KVM_GET_CLOCK)],
            &[is(1, KVM_SET_CLOCK)],
        ],
        "a connection is made non-blocking; a tap learns what its guest takes; a machine that stands still is read, and its clocks are set back",
    ),
    any(libc::SYS_pread64, "a disk is read, proc files for statistics and for what a clone has touched"),
    any(libc::SYS_pwrite64, "a disk is written"),
    any(libc::SYS_read, "event descriptors, frames of a tap"),
    any(libc::SYS_recvfrom, "data of a connection"),
    any(libc::SYS_recvmsg, "a request of the supervisor, with a connection"),
    any(libc::SYS_sendmsg, "a notice to the supervisor"),
    any(libc::SYS_sendto, "data to a connection"),
    any(libc::SYS_shutdown, "one direction of a connection ends"),
    only(libc::SYS_socketpair, &[&[is(0, AF_UNIX), is(1, STREAM)]], "a connection that the guest makes"),
    any(libc::SYS_timerfd_settime, "a device that has given what it may waits"),
];

/// What sockets in a folder take instead of descriptors that a supervisor passes.
const TERMINAL: &[Allowed] = &[
    any(libc::SYS_accept4, "a connection for the guest"),
    any(libc::SYS_connect, "a connection that the guest makes"),
    any(libc::SYS_ppoll, "the first line of a connection is awaited"),
    only(libc::SYS_socket, &[&[is(0, AF_UNIX)]], "a connection that the guest makes"),
];

/// A filter that is ready to be put on.
#[derive(Debug)]
pub struct Confinement(BpfProgram);

impl Confinement {
    /// Confines the calling thread, for good. It is the one that has compiled this: a filter knows its thread.
    ///
    /// # Errors
    /// The kernel has no seccomp filters.
    pub fn enter(&self) -> Result<(), String> {
        seccompiler::apply_filter(&self.0).map_err(|error| format!("cannot confine a thread: {error}"))
    }
}

/// The filter of the calling thread, which will be of that kind.
///
/// # Errors
/// A table that makes no filter.
pub fn compile(thread: Thread) -> Result<Confinement, String> {
    let fail = |error: seccompiler::BackendError| format!("cannot build a system call filter: {error}");
    let own = tables(thread);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for allowed in own.iter().copied().flatten() {
        let of_call = rules.entry(allowed.call).or_default();
        for combination in allowed.combinations {
            let conditions = combination.iter().map(|argument| condition(*argument)).collect::<Result<_, _>>();
            of_call.push(conditions.and_then(SeccompRule::new).map_err(fail)?);
        }
    }
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)
        .and_then(TryInto::try_into)
        .map(Confinement)
        .map_err(fail)
}

fn tables(thread: Thread) -> &'static [&'static [Allowed]] {
    match thread {
        Thread::Vcpu => &[BOTH, VCPU],
        Thread::Devices => &[BOTH, DEVICES],
        Thread::TerminalDevices => &[BOTH, DEVICES, TERMINAL],
    }
}

fn condition(argument: Argument) -> Result<SeccompCondition, seccompiler::BackendError> {
    let (position, comparison, value) = match argument {
        Argument::Is(position, value) => (position, Compare::Eq, value),
        Argument::Lacks(position, bits) => (position, Compare::MaskedEq(bits), 0),
        Argument::IsSelf(position) => {
            (position, Compare::Eq, u64::from(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()))
        }
    };
    SeccompCondition::new(position, Width::Dword, comparison, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::{self, ControlError, Request},
        devices::{
            block::Storage,
            timer::{MonotonicTimer, Timer as _},
            vsock::muxer::HostStream,
        },
    };
    use rustix::{
        event::epoll,
        fs::{FallocateFlags, fallocate},
        net::{AddressFamily, SocketFlags, SocketType, socketpair},
    };
    use std::{
        io::Write as _,
        os::{
            fd::{AsFd as _, OwnedFd},
            unix::net::UnixStream,
        },
        time::Duration,
    };

    const ALL: [Thread; 3] = [Thread::Vcpu, Thread::Devices, Thread::TerminalDevices];

    #[test]
    fn all_filters_compile() {
        for thread in ALL {
            assert!(compile(thread).is_ok_and(|filter| !filter.0.is_empty()), "{thread:?}");
        }
    }

    /// A guest of `vmm run --accept-port` ended its machine by connecting: the filter was the supervised one.
    #[test]
    fn only_a_terminal_opens_sockets() {
        let calls = |thread| tables(thread).iter().copied().flatten().map(|allowed| allowed.call).collect::<Vec<_>>();
        for call in [libc::SYS_socket, libc::SYS_connect, libc::SYS_accept4] {
            assert!(calls(Thread::TerminalDevices).contains(&call));
            assert!(!calls(Thread::Devices).contains(&call) && !calls(Thread::Vcpu).contains(&call));
        }
    }

    /// What one of the processes below does once it is confined.
    const ACTS: &[(&str, Thread, bool)] = &[
        ("nothing", Thread::Vcpu, true),
        ("maps memory", Thread::Vcpu, true),
        ("maps code", Thread::Vcpu, false),
        ("maps code", Thread::Devices, false),
        ("signals its parent", Thread::Vcpu, false),
        ("signals its parent", Thread::Devices, false),
        ("asks for descriptor flags", Thread::Devices, true),
        ("asks for descriptor flags", Thread::Vcpu, false),
        ("has a descriptor signal", Thread::Devices, false),
        ("tells a tap", Thread::Devices, true),
        ("tells a tap", Thread::Vcpu, false),
        ("renames a tap", Thread::Devices, false),
        ("makes a connection", Thread::Devices, true),
        ("gives space of a file back", Thread::Devices, true),
        ("gives space of a file back", Thread::Vcpu, false),
        ("takes space for a file", Thread::Devices, false),
        ("sets a timer", Thread::Devices, true),
        ("sets a timer", Thread::Vcpu, false),
        ("makes a timer", Thread::Devices, false),
        ("takes and makes connections", Thread::Devices, true),
        ("makes a datagram socket", Thread::Devices, false),
        ("makes a datagram socket", Thread::TerminalDevices, false),
    ];

    const ACT: &str = "BETH_TEST_SECCOMP_ACT";

    /// What the thread of the devices does for its connections, by the same code.
    fn carry_connections((ours, theirs): &(OwnedFd, OwnedFd), epoll: &OwnedFd) -> std::io::Result<()> {
        let made = UnixStream::pair()?;
        let fail = |error: ControlError| std::io::Error::other(error.to_string());
        control::send(ours, &Request::Connect { port: 80 }, &[made.0.as_fd()]).map_err(fail)?;
        let (_, descriptors) = control::receive::<Request>(theirs).map_err(fail)?;
        for descriptor in descriptors {
            let mut stream = UnixStream::from(descriptor);
            stream.set_nonblocking(true)?;
            let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
            epoll::add(epoll, stream.as_fd(), epoll::EventData::new_u64(1), flags)?;
            (&made.1).write_all(b"hello")?;
            let mut events = Vec::with_capacity(4);
            epoll::wait(epoll, rustix::buffer::spare_capacity(&mut events), None)?;
            let mut buffer = [0; 64 * 1024];
            assert_eq!(HostStream::read(&mut stream, &mut buffer)?, 5);
            assert_eq!(HostStream::write(&mut stream, &buffer[..5])?, 5);
            stream.shutdown_write();
        }
        Ok(())
    }

    /// A process that [`a_filter_lets_through_what_it_says`] starts: it ends by its act, or by the filter.
    fn act_confined(index: &str) -> ! {
        let (act, thread, _) = ACTS[index.parse::<usize>().expect("an act")];
        let mut pair = [0; 2];
        // SAFETY: no arguments.
        let parent = unsafe { libc::getppid() };
        let control =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("sockets");
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll");
        let file = tempfile::tempfile().expect("a file");
        let mut timer = MonotonicTimer::new().expect("a timer");
        compile(thread).and_then(|filter| filter.enter()).expect("confined");
        let map = |protection| {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            // SAFETY: a mapping at an address of the kernel's choice, which nothing uses.
            unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
        };
        let ioctl = |number: libc::Ioctl| {
            // SAFETY: standard output, which is no tap and refuses.
            unsafe { libc::ioctl(1, number, 0) };
        };
        let mut pair_of = |kind: libc::c_int| {
            // SAFETY: `pair` has room for two descriptors.
            unsafe { libc::socketpair(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0, pair.as_mut_ptr()) };
        };
        match act {
            "nothing" => {}
            "maps memory" => map(libc::PROT_READ | libc::PROT_WRITE),
            "maps code" => map(libc::PROT_READ | libc::PROT_EXEC),
            // SAFETY: signal 0 is none.
            "signals its parent" => drop(unsafe { libc::syscall(libc::SYS_tkill, parent, 0) }),
            // SAFETY: asks only.
            "asks for descriptor flags" => drop(unsafe { libc::fcntl(1, libc::F_GETFD) }),
            // SAFETY: standard output, which nothing else uses here.
            "has a descriptor signal" => drop(unsafe { libc::fcntl(1, libc::F_SETOWN, parent) }),
            "takes and makes connections" => carry_connections(&control, &epoll).expect("carried"),
            "tells a tap" => ioctl(libc::TUNSETOFFLOAD),
            "renames a tap" => ioctl(libc::TUNSETIFF),
            "gives space of a file back" => drop(Storage::discard(&file, 0, 4096)),
            "takes space for a file" => drop(fallocate(&file, FallocateFlags::empty(), 0, 4096)),
            "sets a timer" => timer.wake_in(Duration::from_millis(1)),
            "makes a timer" => drop(MonotonicTimer::new()),
            "makes a connection" => pair_of(libc::SOCK_STREAM),
            "makes a datagram socket" => pair_of(libc::SOCK_DGRAM),
            other => panic!("{other}"),
        }
        // SAFETY: the process ends here, without what the test harness would still do.
        unsafe { libc::_exit(0) };
    }

    /// A monitor that a guest has taken over could end the node with a signal, or map code of its own.
    #[test]
    fn a_filter_lets_through_what_it_says() {
        use std::os::unix::process::ExitStatusExt as _;
        // This very test in a process of its own: a filter cannot be taken off again.
        if let Ok(index) = std::env::var(ACT) {
            act_confined(&index);
        }
        let program = std::env::current_exe().expect("this program");
        for (index, (act, thread, allowed)) in ACTS.iter().enumerate() {
            let run = std::process::Command::new(&program)
                .args(["--exact", "jail::seccomp::tests::a_filter_lets_through_what_it_says", "--nocapture"])
                .args(["--test-threads", "1"])
                .env(ACT, index.to_string())
                .output()
                .expect("a process");
            let expected = if *allowed { (Some(0), None) } else { (None, Some(libc::SIGSYS)) };
            assert_eq!((run.status.code(), run.status.signal()), expected, "{thread:?} {act}: {run:?}");
        }
    }

    #[test]
    fn no_call_stands_twice_for_a_thread() {
        for thread in ALL {
            let mut calls: Vec<_> = tables(thread).iter().copied().flatten().map(|allowed| allowed.call).collect();
            calls.sort_unstable();
            let length = calls.len();
            calls.dedup();
            assert_eq!(calls.len(), length);
        }
    }
}
