//! What a monitor that a guest has taken over tries.

use crate::{
    Kept,
    prey::{LEFT_OPEN, Prey, SECRET},
};
use rustix::{
    process::DumpableBehavior,
    thread::{CapabilitySet, capabilities, capability_is_in_bounding_set},
};
use std::{
    ffi::CString,
    fs::File,
    io,
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::AsRawFd as _,
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixStream},
        },
    },
    path::Path,
    ptr,
};
use vmm::jail::landlock;

/// One act.
pub(crate) struct Act {
    pub(crate) name: &'static str,
    /// What becomes of it outside of the jail.
    pub(crate) outside: Outside,
    /// Which layers stop it by themselves.
    pub(crate) alone: Alone,
    /// Does it. An error is the kernel's, with its number.
    pub(crate) act: fn(&Prey, &Kept) -> io::Result<()>,
}

/// What becomes of an act outside of the jail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outside {
    /// Anybody can do it.
    Works,
    /// Root can.
    WorksForRoot,
    /// It depends on the host: what its kernel was built with, and how it is set up.
    Depends,
}

/// Which layers stop an act by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alone {
    /// Namespaces, root, id and capabilities; the filter lets the call through, for another use.
    Jail,
    /// The filter: the call reaches no further than the process itself, but is one more part of the kernel to attack.
    Filter,
    /// Either.
    Both,
    /// Either, if the kernel has this version of Landlock; else the filter.
    Landlock(u32),
}

impl Alone {
    /// With what this kernel has.
    pub(crate) fn here(self) -> Self {
        match self {
            Self::Landlock(version) if version <= landlock::version() => Self::Both,
            Self::Landlock(_) => Self::Filter,
            other => other,
        }
    }
}

use Alone::{Both, Filter, Jail, Landlock};
use Outside::{Depends, Works, WorksForRoot};

const fn act(name: &'static str, outside: Outside, alone: Alone, act: fn(&Prey, &Kept) -> io::Result<()>) -> Act {
    Act { name, outside, alone, act }
}

/// All of them.
pub(crate) const ACTS: &[Act] = &[
    // Files.
    act("reads the users of the host", Works, Both, |_, _| File::open("/etc/passwd").map(drop)),
    act("reads what the kernel says of it", Works, Both, |_, _| File::open("/proc/self/status").map(drop)),
    act("opens KVM again", Depends, Both, |_, _| File::options().read(true).write(true).open("/dev/kvm").map(drop)),
    // Landlock hides no names.
    act("finds out whether a file is there", Works, Both, |_, _| std::fs::metadata("/etc/passwd").map(drop)),
    act("lists its root", Works, Both, |_, _| std::fs::read_dir("/").map(drop)),
    act("makes a file in its root", WorksForRoot, Both, |prey, _| anywhere(prey, |path| File::create(path).map(drop))),
    act("makes a folder in its root", WorksForRoot, Both, |prey, _| anywhere(prey, |path| std::fs::create_dir(path))),
    act("makes a device", WorksForRoot, Both, |prey, _| anywhere(prey, make_device)),
    act("runs a program", Works, Both, |_, _| run_program()),
    act("uses a descriptor that was left open", Works, Jail, |_, _| {
        // SAFETY: asks only.
        done(unsafe { libc::fcntl(LEFT_OPEN, libc::F_GETFD) }.into())
    }),
    // Other machines.
    act("connects to a socket by its path", Works, Both, |prey, _| UnixStream::connect(&prey.socket).map(drop)),
    act("connects to a socket by its name", Works, Both, |prey, _| {
        UnixStream::connect_addr(&SocketAddr::from_abstract_name(&prey.name)?).map(drop)
    }),
    act("reads the memory of another machine", Works, Both, |prey, _| read_memory(prey)),
    act("opens the memory of another machine", Works, Both, |prey, _| {
        File::open(format!("/proc/{}/mem", prey.process)).map(drop)
    }),
    act("traces another machine", Works, Both, |prey, _| {
        // SAFETY: no structure is taken or given; the prey is let go when this process ends.
        let traced = unsafe {
            libc::ptrace(
                libc::PTRACE_SEIZE,
                prey.process,
                ptr::null_mut::<libc::c_void>(),
                ptr::null_mut::<libc::c_void>(),
            )
        };
        done(traced)
    }),
    act("attaches the shared memory of another machine", Works, Both, |prey, _| {
        // SAFETY: at an address of the kernel's choice, which nothing uses.
        match unsafe { libc::shmat(prey.shared_memory, ptr::null(), libc::SHM_RDONLY) } as isize {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }),
    // SAFETY: signal 0 is none.
    act("signals another machine", Works, Both, |prey, _| done(unsafe { libc::kill(prey.process, 0) }.into())),
    act("signals its supervisor", Works, Both, |_, _| signal_parent()),
    act("opens the process of another machine", Works, Both, |prey, _| {
        // SAFETY: two numbers.
        done(unsafe { libc::syscall(libc::SYS_pidfd_open, prey.process, 0) })
    }),
    act("slows another machine down", Works, Both, |prey, _| {
        // SAFETY: three numbers.
        let asked = unsafe { libc::setpriority(libc::PRIO_PROCESS, prey.process.cast_unsigned(), 19) };
        done(asked.into())
    }),
    act("makes a machine on the KVM that it was given", Depends, Filter, |_, kept| {
        // Without one, on another descriptor: the filter does not look at which.
        let kvm = kept.kvm.as_ref().map_or(0, |kvm| kvm.as_raw_fd());
        /// `KVM_CREATE_VM` (`linux/kvm.h`).
        const CREATE: libc::c_ulong = 0xae01;
        // SAFETY: takes a number; the descriptor that it gives is closed when the process ends.
        done(unsafe { libc::ioctl(kvm, CREATE as _, 0) }.into())
    }),
    // The network.
    act("connects to the host's loopback", Works, Both, |prey, _| {
        TcpStream::connect(("127.0.0.1", prey.port)).map(drop)
    }),
    // Landlock leaves datagrams alone.
    act("sends to the host's loopback", Works, Both, |prey, _| {
        UdpSocket::bind("0.0.0.0:0")?.send_to(b"x", ("127.0.0.1", prey.port)).map(drop)
    }),
    // Its own loopback is down, but binding does not ask.
    act("listens on a port", Works, Landlock(4), |_, _| TcpListener::bind("0.0.0.0:0").map(drop)),
    act("listens to all that the network carries", WorksForRoot, Both, |_, _| {
        socket(libc::AF_PACKET, libc::SOCK_RAW, 0)
    }),
    act("makes a socket to the hypervisor of the host", Depends, Filter, |_, _| {
        socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)
    }),
    act("makes a socket to the kernel", Works, Filter, |_, _| {
        socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)
    }),
    // Mounts and namespaces.
    act("mounts", WorksForRoot, Both, |prey, _| mount(prey)),
    act("changes its root", WorksForRoot, Both, |_, _| rustix::process::chroot("/").map_err(Into::into)),
    act("makes a user namespace", Works, Both, |_, _| unshare(libc::CLONE_NEWUSER)),
    act("makes a mount namespace", WorksForRoot, Both, |_, _| unshare(libc::CLONE_NEWNS)),
    act("makes all namespaces", Works, Both, |_, _| {
        unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWPID)
    }),
    act("makes a process in a user namespace", Works, Both, |_, _| clone_into_namespace()),
    act("learns the host's name", Works, Both, |prey, _| {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        if name == prey.host_name { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ENOENT)) }
    }),
    // Privileges.
    act("lets others of its id look into it", Works, Both, |_, _| match rustix::process::dumpable_behavior()? {
        DumpableBehavior::Dumpable => Ok(()),
        _ => Err(io::Error::from_raw_os_error(libc::EPERM)),
    }),
    act("becomes root", WorksForRoot, Both, |_, _| {
        // SAFETY: three numbers, and of this thread alone.
        done(unsafe { libc::syscall(libc::SYS_setresuid, 0, 0, 0) })
    }),
    act("joins the group of root", WorksForRoot, Both, |_, _| {
        // SAFETY: three numbers, and of this thread alone.
        done(unsafe { libc::syscall(libc::SYS_setresgid, 0, 0, 0) })
    }),
    act("joins other groups", WorksForRoot, Both, |_, _| {
        rustix::thread::set_thread_groups(&[rustix::thread::Gid::from_raw(0)]).map_err(Into::into)
    }),
    act("has a capability", WorksForRoot, Both, |_, _| has_capability()),
    act("could get a capability", Works, Both, |_, _| could_get_capability()),
    act("raises a limit", Depends, Both, |_, _| raise_limit()),
    act("sets the clock", WorksForRoot, Both, |_, _| {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let now = libc::timespec { tv_sec: now.tv_sec, tv_nsec: now.tv_nsec };
        // SAFETY: the structure is there for the call, which reads it.
        done(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const now) }.into())
    }),
    // More of the kernel.
    act("asks for a key", Depends, Filter, |_, _| {
        /// `KEYCTL_GET_KEYRING_ID` of `KEY_SPEC_SESSION_KEYRING` (`linux/keyctl.h`).
        const SESSION: libc::c_int = -3;
        // SAFETY: numbers.
        done(unsafe { libc::syscall(libc::SYS_keyctl, 0, SESSION, 1) })
    }),
    act("loads a program into the kernel", Depends, Filter, |_, _| with_zeros(libc::SYS_bpf, 0)),
    act("measures the processor", Depends, Filter, |_, _| {
        let attributes = [0_u64; 16];
        // SAFETY: the structure, zeros, is longer than the kernel reads.
        done(unsafe { libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), 0, -1, -1, 0) })
    }),
    act("handles page faults", Depends, Filter, |_, _| {
        // SAFETY: one number: faults of user mode only.
        done(unsafe { libc::syscall(libc::SYS_userfaultfd, 1) })
    }),
    act("makes a ring of requests", Depends, Filter, |_, _| with_zeros(libc::SYS_io_uring_setup, 1)),
    act("makes a process", Works, Filter, |_, _| {
        // SAFETY: a copy that ends at once.
        match unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } {
            // SAFETY: ends the copy.
            0 => unsafe { libc::_exit(0) },
            other => done(other),
        }
    }),
    act("reads the kernel's log", Depends, Filter, |_, _| {
        let mut text = [0_u8; 64];
        /// `SYSLOG_ACTION_READ_ALL` (syslog(2)).
        const READ_ALL: libc::c_int = 3;
        // SAFETY: the buffer has the length that is said.
        done(unsafe { libc::syscall(libc::SYS_syslog, READ_ALL, text.as_mut_ptr(), 64) })
    }),
];

/// The error of a call that gives -1 for one.
fn done(result: libc::c_long) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Does something with a path that is not there: in the root, and where anybody may.
fn anywhere(prey: &Prey, mut make: impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let name = format!("beth-test-{}", std::process::id());
    let mut remove = |path: &Path| {
        make(path)?;
        // As it has worked, so does this.
        let _ = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir(path));
        Ok(())
    };
    remove(&prey.folder.join(&name)).or_else(|_| remove(&Path::new("/").join(&name)))
}

fn make_device(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path ends with a zero.
    done(unsafe { libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o600, libc::makedev(10, 232)) }.into())
}

/// In place of this one: `true` ends with 0.
fn run_program() -> io::Result<()> {
    let arguments = [c"true".as_ptr(), ptr::null()];
    // SAFETY: the path and the one argument end with zeros, the list with a null pointer.
    done(unsafe { libc::execv(c"/bin/true".as_ptr(), arguments.as_ptr()) }.into())
}

fn read_memory(prey: &Prey) -> io::Result<()> {
    let mut word = 0_u64;
    let local = libc::iovec { iov_base: (&raw mut word).cast(), iov_len: 8 };
    let remote = libc::iovec { iov_base: prey.secret as *mut libc::c_void, iov_len: 8 };
    // SAFETY: eight bytes are written to a place of eight bytes.
    let read = unsafe { libc::process_vm_readv(prey.process, &raw const local, 1, &raw const remote, 1, 0) };
    done(read as libc::c_long)?;
    assert_eq!(word, SECRET);
    Ok(())
}

fn signal_parent() -> io::Result<()> {
    // SAFETY: no arguments.
    let parent = unsafe { libc::getppid() };
    if parent == 0 {
        // Not to be seen; 0 would mean this process's own group.
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: signal 0 is none. An ordinary user's parent here is the test itself, which may be root: there, and allowed to be asked.
    match unsafe { libc::kill(parent, 0) } {
        0 => Ok(()),
        _ if io::Error::last_os_error().raw_os_error() == Some(libc::EPERM) => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn socket(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> io::Result<()> {
    // SAFETY: three numbers; what is made is closed when the process ends.
    done(unsafe { libc::socket(family, kind, protocol) }.into())
}

fn mount(prey: &Prey) -> io::Result<()> {
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
    let mount_at = |folder: &Path| {
        mount("none", folder, "tmpfs", MountFlags::empty(), None)?;
        // The host's other tests want it back.
        let _ = unmount(folder, UnmountFlags::DETACH);
        Ok(())
    };
    mount_at(&prey.folder).or_else(|_: io::Error| mount_at(Path::new("/")))
}

fn unshare(namespaces: libc::c_int) -> io::Result<()> {
    // SAFETY: a number; of this process alone, which has one thread.
    done(unsafe { libc::unshare(namespaces) }.into())
}

fn clone_into_namespace() -> io::Result<()> {
    let flags = libc::CLONE_NEWUSER | libc::SIGCHLD;
    // SAFETY: a copy that ends at once.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        // SAFETY: ends the copy.
        0 => unsafe { libc::_exit(0) },
        other => done(other),
    }
}

fn has_capability() -> io::Result<()> {
    let sets = capabilities(None)?;
    if (sets.effective | sets.permitted | sets.inheritable).is_empty() {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    Ok(())
}

fn could_get_capability() -> io::Result<()> {
    for bit in 0..u64::BITS {
        match capability_is_in_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(false) => {}
            Ok(true) => return Ok(()),
            // The kernel knows no more.
            Err(_) if bit > 0 => break,
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EPERM))
}

fn raise_limit() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let lower = maximum.map(|maximum| maximum - 1);
    setrlimit(Resource::Nofile, Rlimit { current: lower, maximum: lower })?;
    Ok(setrlimit(Resource::Nofile, Rlimit { current, maximum })?)
}

/// A call whose structure is all zeros.
fn with_zeros(call: libc::c_long, first: libc::c_int) -> io::Result<()> {
    let mut zeros = [0_u64; 32];
    // SAFETY: the structure is longer than any that these calls read or write.
    done(unsafe { libc::syscall(call, first, zeros.as_mut_ptr(), 256) })
}
