//! Namespaces and the process in them (namespaces(7)).

use super::{JailError, Place, step};
use crate::working_set::watch::PageMap;
use rustix::{
    fs::{Mode, OFlags, open},
    process::{Signal, getegid, geteuid, pidfd_send_signal},
    thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};
use std::{
    fs, io,
    io::{Read as _, Write as _},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

/// What the monitor has of its own.
const NAMESPACES: libc::c_int = libc::CLONE_NEWUSER // ids: one, which is not root's
    | libc::CLONE_NEWNS // mounts: an empty root
    | libc::CLONE_NEWPID // processes: itself
    | libc::CLONE_NEWNET // network: none, not even a loopback that is up
    | libc::CLONE_NEWIPC // shared memory, semaphores and message queues of System V
    | libc::CLONE_NEWUTS // the host's name
    | libc::CLONE_NEWCGROUP; // control groups: its own is the root

/// Born in the control group of the descriptor in [`CloneArguments::cgroup`] (Linux 5.7).
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The one id that is mapped, user's and group's: not root's, which the kernel means by 0 in any namespace.
const ID_INSIDE: u32 = 1;

/// Its name for the host.
const HOST_NAME: &[u8] = b"machine";

/// `struct clone_args` (clone(2)), as of Linux 5.7.
#[repr(C)]
#[derive(Debug, Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// How many namespaces of each kind may be made in the monitor's user namespace (namespaces(7), `/proc/sys/user`): a process without
/// capabilities could otherwise have all of them again, in a user namespace that it makes.
const MORE_NAMESPACES: &[u8] = b"0";
const KINDS: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

/// The two processes after the division.
enum Side {
    Launcher { monitor: OwnedFd, process_id: u32 },
    Monitor,
}

/// Divides the process; returns in the monitor, under its new id, with all capabilities in its namespaces. Returned is what tells it of its own
/// pages, on a kernel that does.
pub(super) fn enter(
    place: &Place,
    tell: impl FnOnce(u32, BorrowedFd<'_>) -> io::Result<()>,
) -> Result<Option<PageMap>, JailError> {
    if fs::read_dir("/proc/self/task").map_err(step("count its threads"))?.count() != 1 {
        return Err(JailError::Threads);
    }
    let cgroup = place
        .cgroup
        .as_ref()
        .map(|path| open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()))
        .transpose()
        .map_err(|error| JailError::Cgroup(error.into()))?;
    if place.id.is_some() {
        // The groups of root are not the monitor's, and it cannot leave them itself. One of another user keeps those of its
        // supervisor (`kvm`, as a rule), of which there is no file in an empty root.
        set_thread_groups(&[]).map_err(step("leave the groups of root"))?;
    }
    let (mut go, permission) = io::pipe().map_err(step("make a pipe"))?;
    match divide(cgroup.as_ref().map(OwnedFd::as_fd)).map_err(refused)? {
        Side::Launcher { monitor, process_id } => {
            drop(go);
            match launch(place, process_id, &monitor, permission, tell) {
                // Nothing is left to do here, not even to clean up: all of it is the monitor's now.
                // SAFETY: ends the process.
                Ok(()) => unsafe { libc::_exit(0) },
                Err(error) => {
                    // It ends by itself too, without its permission.
                    let _ = pidfd_send_signal(&monitor, Signal::KILL);
                    Err(error)
                }
            }
        }
        Side::Monitor => {
            drop(permission);
            drop(cgroup);
            // With the id of before, whose files those of this process in /proc are; and with no capability that counts outside, so that
            // nothing is told of where pages are in the host's memory.
            let page_map = PageMap::open().ok();
            let mut word = [0];
            go.read_exact(&mut word).map_err(|_| JailError::Alone)?;
            drop(go);
            let (user, group) = (Uid::from_raw(ID_INSIDE), Gid::from_raw(ID_INSIDE));
            set_thread_res_gid(group, group, group).map_err(step("take its group"))?;
            set_thread_res_uid(user, user, user).map_err(step("take its user"))?;
            rustix::system::sethostname(HOST_NAME).map_err(step("take a name"))?;
            forbid_more().map_err(step("forbid itself more namespaces (/proc/sys must be writable)"))?;
            Ok(page_map)
        }
    }
}

/// Which part of the division was refused (clone(2), "ERRORS").
fn refused(error: io::Error) -> JailError {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EBADF | libc::EBUSY | libc::ENODEV | libc::EOPNOTSUPP) => JailError::Cgroup(error),
        _ => JailError::Namespaces(error),
    }
}

/// Nothing in these namespaces makes others.
fn forbid_more() -> io::Result<()> {
    for kind in KINDS {
        match fs::write(format!("/proc/sys/user/max_{kind}_namespaces"), MORE_NAMESPACES) {
            // A kernel without this kind. User namespaces are there: this process is in one.
            Err(error) if error.kind() == io::ErrorKind::NotFound && kind != "user" => {}
            done => done?,
        }
    }
    Ok(())
}

/// What the launcher does: hands the monitor over, maps its id, lets it go on.
fn launch(
    place: &Place,
    process_id: u32,
    monitor: &OwnedFd,
    mut permission: io::PipeWriter,
    tell: impl FnOnce(u32, BorrowedFd<'_>) -> io::Result<()>,
) -> Result<(), JailError> {
    // First: who has a child must know, however it ends.
    tell(process_id, monitor.as_fd()).map_err(step("hand the monitor over"))?;
    let (user, group) = match place.id {
        Some(id) => (id, id),
        None => (geteuid().as_raw(), getegid().as_raw()),
    };
    let write = |name: &str, text: String| fs::write(format!("/proc/{process_id}/{name}"), text);
    // Before the groups, or an ordinary user may not map one (user_namespaces(7)).
    write("setgroups", "deny".to_owned()).map_err(step("deny other groups"))?;
    write("gid_map", format!("{ID_INSIDE} {group} 1")).map_err(step("map its group"))?;
    write("uid_map", format!("{ID_INSIDE} {user} 1")).map_err(step("map its user"))?;
    permission.write_all(&[1]).map_err(step("let the monitor go on"))
}

/// Makes the monitor: a copy of this process in other namespaces, with the same parent.
fn divide(cgroup: Option<BorrowedFd<'_>>) -> io::Result<Side> {
    let mut pidfd: RawFd = -1;
    let flags = NAMESPACES | libc::CLONE_PARENT | libc::CLONE_PIDFD;
    let mut arguments = CloneArguments {
        flags: u64::from(flags.cast_unsigned()),
        pidfd: (&raw mut pidfd) as u64,
        ..CloneArguments::default()
    };
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    // SAFETY: the structure is as long as the call is told, and its one pointer is to `pidfd`, which outlives the call. As with
    // fork(2), the child goes on with a copy of this memory, stack included (no `CLONE_VM`, no stack). A fork is unsound
    // where other threads hold locks that are copied and never released; the caller has counted one thread. What the C
    // library remembers of the thread's id is stale in the child: it is used for signals to the thread itself, of which there is
    // the one that aborts, and that one ends the process either way.
    let made = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArguments>()) };
    match u32::try_from(made) {
        Ok(0) => Ok(Side::Monitor),
        Ok(process_id) => {
            // SAFETY: the call has put a new descriptor there, which has no other owner.
            let monitor = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Side::Launcher { monitor, process_id })
        }
        Err(_) => Err(io::Error::last_os_error()),
    }
}
