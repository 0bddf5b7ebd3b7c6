//! Random bytes from the host's kernel.

use rustix::{
    io::Errno,
    rand::{GetRandomFlags, getrandom},
};

/// Fills a short buffer with random bytes.
///
/// # Panics
/// The host's kernel has none, which no Linux since 3.17 does.
pub fn fill(bytes: &mut [u8]) {
    let mut filled = 0;
    while filled < bytes.len() {
        // Requests of up to 256 bytes are served whole once the host's generator is seeded.
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(length) => filled += length,
            Err(Errno::INTR) => {}
            Err(error) => panic!("the host has no random numbers: {error}"),
        }
    }
}
