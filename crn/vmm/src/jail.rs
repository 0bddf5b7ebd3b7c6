//! What a machine monitor gives up before a guest's first instruction.
//!
//! A monitor that has a supervisor enters the jail by itself, before it takes its first order ([`enter`]):
//!
//! ```text
//!  supervisor ---- spawn ---> launcher: limits, no new privileges, opens /dev/kvm
//!     |                          |
//!     |                          |---- clone3 ----> monitor, in namespaces and a control group of its own
//!     |<- monitor's descriptor --|                     |
//!     |                          |-- maps one id ----->|
//!     |                        ends                    | takes that id, leaves the root for an empty one,
//!     |                                                | drops its capabilities, is under Landlock
//!     |---- order ------------------------------------>|
//!     |                                                | threads under seccomp, then the guest
//! ```
//!
//! A pid namespace is for children, not for the process that makes it. So the launcher makes a child, but as its own
//! sibling (`CLONE_PARENT`): the supervisor is the monitor's parent and waits for it, and no process stays that only waits
//! for another, and has to be paid for and ended too. The supervisor learns the monitor's process by descriptor
//! ([`crate::control::Notice::Jailed`]). The monitor is the first process of its namespace: it sees no other, signals
//! that it has no handler for do not reach it from inside, and whatever it could start ends with it.
//!
//! What is left: its memory, the control socket, the log, `/dev/null`, `/dev/kvm` until the machine is built, and the
//! descriptors that come with orders. Each layer holds without the others; `tests/jail.rs` plays a monitor that a guest has
//! taken over, with and without the last one.

mod capabilities;
mod descriptors;
pub mod landlock;
mod namespaces;
mod place;
mod root;
pub mod seccomp;

pub use descriptors::close_inherited;
pub use place::Place;

use crate::working_set::watch::PageMap;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use std::{io, os::fd::BorrowedFd};

/// Most descriptors: one per vsock connection, and room for the machine's own.
pub const MAX_DESCRIPTORS: u64 = 1024 + 256;

/// Why there is no jail. Without one there is no machine: the host, or what it lets this user do, is the operator's to change.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// Namespaces are refused.
    #[error(
        "cannot make the namespaces of a machine: {0}. `sysctl user.max_user_namespaces` must not be 0; unless crn is root, \
         its user must be allowed to make user namespaces too (`kernel.unprivileged_userns_clone=1` on Debian, \
         `kernel.apparmor_restrict_unprivileged_userns=0` or an AppArmor profile for vmm on Ubuntu)"
    )]
    Namespaces(io::Error),
    /// The control group is not one, or takes no processes of this user.
    #[error("cannot put a machine into its control group: {0}")]
    Cgroup(io::Error),
    /// The process has several threads: a copy of one of them could wait for the others for ever.
    #[error("a process of several threads cannot enter the jail")]
    Threads,
    /// Limits of the process.
    #[error("{0}")]
    Limits(String),
    /// What the jail is entered with is not there.
    #[error("{0}")]
    Kvm(String),
    /// The launcher is gone.
    #[error("the launcher of the monitor ended before the monitor was in its jail")]
    Alone,
    /// A step failed.
    #[error("cannot {what}: {error}")]
    Step {
        /// Which.
        what: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}

/// For `map_err`: which step failed.
fn step<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> JailError {
    move |error| JailError::Step { what, error: error.into() }
}

/// Limits of the whole process, set first.
///
/// # Errors
/// The text is for an operator.
pub fn limit_process() -> Result<(), String> {
    rustix::thread::set_no_new_privs(true).map_err(|error| format!("cannot give up new privileges: {error}"))?;
    let limit = |resource, value| {
        let limit = Rlimit { current: Some(value), maximum: Some(value) };
        setrlimit(resource, limit).map_err(|error| format!("cannot limit a resource: {error}"))
    };
    // A core dump would hold the guest's memory.
    limit(Resource::Core, 0)?;
    limit(Resource::Nofile, MAX_DESCRIPTORS)
}

/// Puts the rest of the program into the jail: returns in the monitor, a new process. The process that calls, which must have one
/// thread, ends in here, or returns with an error.
///
/// `tell` is called once, in the calling process, with the monitor's id (as this process sees it) and a descriptor of it: for
/// the parent, who has a child more and must wait for both. Returned is what tells the monitor of its own pages, on a kernel that does.
///
/// # Errors
/// See [`JailError`]. Returned in whichever process the step was to be done in; the other one ends.
pub fn enter(
    place: &Place,
    tell: impl FnOnce(u32, BorrowedFd<'_>) -> io::Result<()>,
) -> Result<Option<PageMap>, JailError> {
    let page_map = namespaces::enter(place, tell)?;
    root::leave_for_an_empty_one()?;
    capabilities::drop_all().map_err(step("drop capabilities"))?;
    // Nobody with the same id looks into this process: neither ptrace nor its files in /proc.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(step("hide its memory"))?;
    landlock::restrict().map_err(step("put itself under Landlock"))?;
    Ok(page_map)
}
