//! What makes this guest itself: entropy, time, name, loopback. Applied before anything of the user runs.

use rustix::{
    fd::AsRawFd as _,
    mount::mount_bind,
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
    rand::{GetRandomFlags, getrandom},
    time::{ClockId, Timespec, clock_settime},
};
use std::{fs::File, io};

/// Where this machine's boot id is.
const BOOT_ID_PATH: &str = "/run/boot_id";
/// Bits of entropy that the seed holds.
const SEED_BITS: libc::c_int = 256;
/// `linux/random.h`.
const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;

/// `struct rand_pool_info` with room for the seed.
#[repr(C)]
struct RandPoolInfo {
    entropy_count: libc::c_int,
    buf_size: libc::c_int,
    buf: [u8; 32],
}

/// Puts the seed into the kernel's generator and has it used at once.
pub(crate) fn seed_generator(seed: [u8; 32]) -> io::Result<()> {
    let random = File::options().write(true).open("/dev/urandom")?;
    let info = RandPoolInfo { entropy_count: SEED_BITS, buf_size: 32, buf: seed };
    // SAFETY: the request reads a `rand_pool_info` with `buf_size` bytes behind it, which `info` is.
    let added = unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY as _, &raw const info) };
    if added != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the request takes no argument.
    let reseeded = unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG as _) };
    if reseeded == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets the wall clock, microseconds since 1970.
pub(crate) fn set_clock(wall_time_us: u64) -> io::Result<()> {
    let seconds = i64::try_from(wall_time_us / 1_000_000).map_err(io::Error::other)?;
    // Below a billion by construction.
    let nanoseconds = (wall_time_us % 1_000_000 * 1000) as i64;
    clock_settime(ClockId::Realtime, Timespec { tv_sec: seconds, tv_nsec: nanoseconds })?;
    Ok(())
}

/// Gives this machine a boot id of its own: a file over the kernel's, which never changes again once it was read.
pub(crate) fn renew_boot_id() -> io::Result<()> {
    let mut bytes = [0; 16];
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    let known = std::fs::exists(BOOT_ID_PATH)?;
    std::fs::write(BOOT_ID_PATH, uuid(bytes) + "\n")?;
    if !known {
        mount_bind(BOOT_ID_PATH, "/proc/sys/kernel/random/boot_id")?;
    }
    Ok(())
}

/// Random bytes as a UUID of version 4 (RFC 9562 section 5.4).
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Sets the host name.
pub(crate) fn set_hostname(name: &str) -> io::Result<()> {
    rustix::system::sethostname(name.as_bytes())?;
    Ok(())
}

/// Brings the loopback interface up; the kernel gives it 127.0.0.1 and ::1 by itself.
pub(crate) fn raise_loopback() -> io::Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: all-zero bytes are a valid `ifreq`: names and flags, no references.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = *byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request reads an `ifreq`, which `request` is and stays during the call.
    let raised = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if raised == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_looks_like_the_kernels() {
        assert_eq!(uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid([0; 16]), "00000000-0000-4000-8000-000000000000");
    }
}
