//! Rings the host's doorbells: I/O port writes.

use guest_protocol::{
    doorbell::{DOORBELL_PORT, FREEZE, PROGRESS_PORT, ring},
    record::PAGE_BYTES,
};
use std::{
    arch::asm,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

/// Whether the kernel has given us the ports. Without them a write would be the end of us.
static OPEN: AtomicBool = AtomicBool::new(false);

/// Asks the kernel for the two ports. If it refuses, init runs on; the host just hears nothing.
pub(crate) fn open() {
    // SAFETY: ioperm only changes which ports this thread may use.
    let progress = unsafe { libc::ioperm(PROGRESS_PORT.into(), 1, 1) };
    // SAFETY: as above; four ports, because the doorbell is 32 bits wide.
    let doorbell = unsafe { libc::ioperm(DOORBELL_PORT.into(), 4, 1) };
    OPEN.store(progress == 0 && doorbell == 0, Relaxed);
}

/// One byte of progress.
pub(crate) fn progress(byte: u8) {
    if OPEN.load(Relaxed) {
        // SAFETY: this thread may use the port, and no driver does.
        unsafe { asm!("out dx, al", in("dx") PROGRESS_PORT, in("al") byte, options(nomem, nostack, preserves_flags)) };
    }
}

/// The doorbell at which the host may copy the machine, and write a record into the page.
pub(crate) fn freeze(page: &mut [u8; PAGE_BYTES]) {
    // It must be there, and this process's own, when the host looks for it.
    page.fill(0);
    if OPEN.load(Relaxed) {
        let word = ring(FREEZE, 0);
        // SAFETY: as in [`progress`]; the host writes into the page, which is borrowed for that and of its length, and this block does not
        // claim to leave memory alone.
        unsafe {
            asm!("out dx, eax", in("dx") DOORBELL_PORT, in("eax") word, in("rdi") page.as_mut_ptr(), options(nostack, preserves_flags))
        };
    }
}

/// The doorbell of that kind.
pub(crate) fn doorbell(kind: u8, value: u32) {
    if OPEN.load(Relaxed) {
        let word = ring(kind, value);
        // SAFETY: as in [`progress`], four bytes wide.
        unsafe {
            asm!("out dx, eax", in("dx") DOORBELL_PORT, in("eax") word, options(nomem, nostack, preserves_flags))
        };
    }
}
