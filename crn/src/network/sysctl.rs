//! The kernel's switches for networks, as files below `/proc/sys/net`.

use std::{fs, io, path::PathBuf};

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net").join(name)
}

/// Reads one; `name` is its path below `net`.
///
/// # Errors
/// There is no such switch.
pub fn read(name: &str) -> io::Result<String> {
    Ok(fs::read_to_string(path(name))?.trim().to_owned())
}

/// Sets one; true if it was otherwise before. What is as it should be is not written: it may be read-only.
///
/// # Errors
/// There is no such switch, or this process may not.
pub fn set(name: &str, value: &str) -> io::Result<bool> {
    if read(name)? == value {
        return Ok(false);
    }
    fs::write(path(name), value)?;
    Ok(true)
}

/// The same for a switch that kernels without IPv6 do not have.
///
/// # Errors
/// This process may not.
pub fn set_if_there(name: &str, value: &str) -> io::Result<bool> {
    match set(name, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        outcome => outcome,
    }
}
