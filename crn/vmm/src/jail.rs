//! What a machine monitor gives up before a guest's first instruction.
//!
//! Today: core dumps, new privileges, descriptors beyond what its connections take, and every system call that is not in
//! the tables of [`seccomp`]. Namespaces, an unprivileged id and an empty root join it with the jail.

pub mod seccomp;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Most descriptors: one per vsock connection, and room for the machine's own.
pub const MAX_DESCRIPTORS: u64 = 1024 + 256;

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
