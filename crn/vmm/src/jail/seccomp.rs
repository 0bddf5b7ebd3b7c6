//! The system calls that each kind of thread may make once a guest runs. Any other ends the process.
//!
//! The tables are data: a call, which of them, and why. A call that is not needed for a reason written here is not allowed.

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Is, SeccompCondition, SeccompFilter,
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

/// A system call that is allowed.
struct Allowed {
    call: c_long,
    /// Position and value of the one argument that must match; none for any arguments.
    argument: Option<(u8, u64)>,
    #[expect(dead_code, reason = "the reason is for whoever reads the table")]
    reason: &'static str,
}

const fn any(call: c_long, reason: &'static str) -> Allowed {
    Allowed { call, argument: None, reason }
}

const fn only(call: c_long, position: u8, value: u64, reason: &'static str) -> Allowed {
    Allowed { call, argument: Some((position, value)), reason }
}

/// `ioctl` numbers (`linux/kvm.h`, `asm-generic/ioctls.h`).
const KVM_RUN: u64 = 0xae80;
const FIONBIO: u64 = 0x5421;

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
    any(libc::SYS_madvise, "the allocator gives pages back"),
    only(libc::SYS_mmap, 4, u32::MAX as u64, "the allocator takes pages: anonymous ones only"),
    any(libc::SYS_mremap, "the allocator grows a large block"),
    any(libc::SYS_munmap, "the allocator gives pages back, a thread its stack"),
    any(libc::SYS_rt_sigaction, "part of an abort"),
    any(libc::SYS_rt_sigprocmask, "a thread starts and ends"),
    any(libc::SYS_rt_sigreturn, "a signal handler returns"),
    any(libc::SYS_sched_yield, "a lock is contended"),
    any(libc::SYS_sigaltstack, "a thread ends"),
    any(libc::SYS_tkill, "an abort"),
    any(libc::SYS_write, "event descriptors, the debug console, the log"),
    any(libc::SYS_writev, "the log"),
];

const VCPU: &[Allowed] = &[only(libc::SYS_ioctl, 1, KVM_RUN, "runs the processor")];

const DEVICES: &[Allowed] = &[
    any(libc::SYS_epoll_ctl, "a new connection is watched"),
    any(libc::SYS_epoll_pwait, "waits for events"),
    any(libc::SYS_epoll_wait, "waits for events"),
    any(libc::SYS_fcntl, "a descriptor that came in is made close-on-exec"),
    any(libc::SYS_fdatasync, "a flush of a disk"),
    any(libc::SYS_getrandom, "hash tables are seeded"),
    only(libc::SYS_ioctl, 1, FIONBIO, "a connection is made non-blocking"),
    any(libc::SYS_pread64, "a disk is read, a proc file for statistics"),
    any(libc::SYS_pwrite64, "a disk is written"),
    any(libc::SYS_read, "event descriptors"),
    any(libc::SYS_recvfrom, "data of a connection"),
    any(libc::SYS_recvmsg, "a request of the supervisor, with a connection"),
    any(libc::SYS_sendmsg, "a notice to the supervisor"),
    any(libc::SYS_sendto, "data to a connection"),
    any(libc::SYS_shutdown, "one direction of a connection ends"),
    any(libc::SYS_socketpair, "a connection that the guest makes"),
];

/// What sockets in a folder take instead of descriptors that a supervisor passes.
const TERMINAL: &[Allowed] = &[
    any(libc::SYS_accept4, "a connection for the guest"),
    any(libc::SYS_connect, "a connection that the guest makes"),
    any(libc::SYS_ppoll, "the first line of a connection is awaited"),
    only(libc::SYS_socket, 0, libc::AF_UNIX as u64, "a connection that the guest makes"),
];

/// Confines the calling thread, for good.
///
/// # Errors
/// The kernel has no seccomp filters.
pub fn confine(thread: Thread) -> Result<(), String> {
    let program = compile(thread)?;
    seccompiler::apply_filter(&program).map_err(|error| format!("cannot confine a thread: {error}"))
}

fn tables(thread: Thread) -> &'static [&'static [Allowed]] {
    match thread {
        Thread::Vcpu => &[BOTH, VCPU],
        Thread::Devices => &[BOTH, DEVICES],
        Thread::TerminalDevices => &[BOTH, DEVICES, TERMINAL],
    }
}

fn compile(thread: Thread) -> Result<BpfProgram, String> {
    let fail = |error: seccompiler::BackendError| format!("cannot build a system call filter: {error}");
    let own = tables(thread);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for allowed in own.iter().copied().flatten() {
        let of_call = rules.entry(allowed.call).or_default();
        if let Some((position, value)) = allowed.argument {
            let condition = SeccompCondition::new(position, Width::Dword, Is::Eq, value).map_err(fail)?;
            of_call.push(SeccompRule::new(vec![condition]).map_err(fail)?);
        }
    }
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)
        .and_then(TryInto::try_into)
        .map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Thread; 3] = [Thread::Vcpu, Thread::Devices, Thread::TerminalDevices];

    #[test]
    fn all_filters_compile() {
        for thread in ALL {
            assert!(compile(thread).is_ok_and(|program| !program.is_empty()), "{thread:?}");
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
