//! What a machine did: counts that do not depend on how fast the host is, and a few stamps.

use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Most that is read of a proc file, bytes.
const MAX_PROC_BYTES: usize = 1 << 20;

/// Counts and stamps of one machine, as of its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Exits to this process, by reason. Exits that KVM answers itself are in KVM's own statistics.
    pub exits: Exits,
    /// Microseconds to each stage from the start of the process, or from the order that a process made in advance was given; 0 for a stage
    /// not reached.
    pub stamps_us: Stamps,
    /// Page faults of the process that took no reading from a disk, its guest's included.
    pub minor_faults: u64,
    /// Page faults that did.
    pub major_faults: u64,
    /// Bytes read from all disks.
    pub disk_read_bytes: u64,
    /// Bytes written to all disks.
    pub disk_written_bytes: u64,
    /// Bytes carried from the guest to host streams.
    pub vsock_from_guest_bytes: u64,
    /// Bytes carried from host streams to the guest.
    pub vsock_to_guest_bytes: u64,
    /// Bytes of frames carried to the guest.
    pub network_to_guest_bytes: u64,
    /// Bytes of frames carried from the guest.
    pub network_from_guest_bytes: u64,
    /// Frames of the guest that were not sent: of others' addresses, broken, or not taken by the host.
    pub network_refused_frames: u64,
    /// Random bytes given to the guest.
    pub entropy_bytes: u64,
    /// Bytes of free memory that the guest gave back, however often the same.
    pub released_bytes: u64,
    /// Most resident memory of the process, guest memory included, KiB.
    pub max_resident_kib: u64,
    /// Resident memory at the last doorbell that is neither guest memory nor mapped from the
    /// guest's images, KiB: what the monitor itself costs.
    pub overhead_kib: u64,
}

/// Exits to this process by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exits {
    /// I/O port reads.
    pub port_in: u64,
    /// I/O port writes.
    pub port_out: u64,
    /// Memory-mapped register reads.
    pub mmio_read: u64,
    /// Memory-mapped register writes.
    pub mmio_write: u64,
    /// Everything else: signals, resets.
    pub other: u64,
    /// No exits, but ranges of pages that were mapped to have fewer.
    pub mapped_ranges: u64,
}

/// Microseconds to each stage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamps {
    /// The configuration arrived.
    pub configured: u64,
    /// Guest memory is mapped and filled.
    pub memory: u64,
    /// KVM has the machine, devices are attached.
    pub built: u64,
    /// The first vCPU is about to run.
    pub running: u64,
    /// First byte on the progress port: user space.
    pub progress: u64,
    /// The doorbell `INIT_UP`.
    pub init_up: u64,
    /// The doorbell `PROGRAM_READY`.
    pub program_ready: u64,
    /// The last doorbell `THAWED`: init has become itself, in a clone or after a snapshot.
    pub thawed: u64,
}

/// Exit counters that vCPU threads raise without disturbing each other.
#[derive(Debug, Default)]
pub struct ExitCounters {
    /// See [`Exits::port_in`].
    pub port_in: AtomicU64,
    /// See [`Exits::port_out`].
    pub port_out: AtomicU64,
    /// See [`Exits::mmio_read`].
    pub mmio_read: AtomicU64,
    /// See [`Exits::mmio_write`].
    pub mmio_write: AtomicU64,
    /// See [`Exits::other`].
    pub other: AtomicU64,
    /// See [`Exits::mapped_ranges`].
    pub mapped_ranges: AtomicU64,
}

impl ExitCounters {
    /// Adds one.
    pub fn count(counter: &AtomicU64) {
        Self::add(counter, 1);
    }

    /// Adds several.
    pub fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Relaxed);
    }

    /// The counts so far.
    #[must_use]
    pub fn read(&self) -> Exits {
        Exits {
            port_in: self.port_in.load(Relaxed),
            port_out: self.port_out.load(Relaxed),
            mmio_read: self.mmio_read.load(Relaxed),
            mmio_write: self.mmio_write.load(Relaxed),
            other: self.other.load(Relaxed),
            mapped_ranges: self.mapped_ranges.load(Relaxed),
        }
    }
}

/// Measures stages from the start of the process.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch {
    started: Instant,
    /// Time the process had existed when the stopwatch was made.
    before: Duration,
}

impl Stopwatch {
    /// Starts now, counting the time that the process already exists (its loading included).
    #[must_use]
    pub fn of_process() -> Self {
        Self { started: Instant::now(), before: age_of_process().unwrap_or_default() }
    }

    /// Starts now: for a process that was made in advance and is given work.
    #[must_use]
    pub fn of_order() -> Self {
        Self { started: Instant::now(), before: Duration::ZERO }
    }

    /// Microseconds since the process started.
    #[must_use]
    pub fn elapsed_us(&self) -> u64 {
        u64::try_from((self.before + self.started.elapsed()).as_micros()).unwrap_or(u64::MAX)
    }
}

/// Page faults of this process so far: (without, with reading from a disk).
#[must_use]
pub fn page_faults() -> (u64, u64) {
    // SAFETY: all-zero bytes are a valid `rusage`: numbers alone.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the call writes one `rusage`, which `usage` is.
    let read = unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    let count = |faults| if read == 0 { u64::try_from(faults).unwrap_or(0) } else { 0 };
    (count(usage.ru_minflt), count(usage.ru_majflt))
}

/// How long ago this process was started, to the clock tick (10 ms): the kernel keeps no more.
/// Coarse, so it is only counted when it is at least a tick.
fn age_of_process() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold anything; fields are counted after it. Field 22 is the start.
    let start_ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let uptime = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let uptime_ms = u64::try_from(uptime.tv_sec).ok()? * 1000 + u64::try_from(uptime.tv_nsec).ok()? / 1_000_000;
    Some(Duration::from_millis(uptime_ms.checked_sub(start_ticks * 10)? / 10 * 10))
}

/// Resident memory of this process, KiB: (most so far, what it has now outside of guest memory).
///
/// The two proc files were opened before the thread was confined; `guest` are the address ranges of guest memory, whose
/// pages are the guest's, not ours.
#[must_use]
pub fn resident_kib(status: &File, smaps: &File, guest: &[(usize, usize)]) -> (u64, u64) {
    let most = field_kib(read_again(status).lines(), "VmHWM:").unwrap_or(0);
    (most, overhead_kib(&read_again(smaps), guest))
}

fn read_again(file: &File) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    // Plain reads: the library's own asks for the file's size first, one more system call to allow.
    while bytes.len() < MAX_PROC_BYTES {
        match file.read_at(&mut chunk, bytes.len() as u64) {
            Ok(0) | Err(_) => break,
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sums `Rss:` over the mappings of an smaps text that lie outside the given address ranges.
fn overhead_kib(smaps: &str, guest: &[(usize, usize)]) -> u64 {
    let mut counted = false;
    let mut total = 0;
    for line in smaps.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if let Some((start, end)) = first.split_once('-')
            && let (Ok(start), Ok(end)) = (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16))
        {
            counted = !guest.iter().any(|(from, to)| start < *to && end > *from);
        } else if counted && let Some(kib) = field_kib(std::iter::once(line), "Rss:") {
            total += kib;
        }
    }
    total
}

fn field_kib<'a>(mut lines: impl Iterator<Item = &'a str>, name: &str) -> Option<u64> {
    lines.find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_memory_is_not_overhead() {
        let smaps = "00400000-00500000 r-xp 00000000 fe:00 1 /usr/bin/vmm\nSize: 1024 kB\nRss:  300 kB\n\
                     7f0000000000-7f0008000000 rw-p 0 0\nRss:  9000 kB\n\
                     7f0008000000-7f0008001000 rw-p 0 0\nRss:  4 kB\n";
        assert_eq!(overhead_kib(smaps, &[(0x7f00_0000_0000, 0x7f00_0800_0000)]), 304);
    }

    #[test]
    fn the_clock_of_a_process_runs() {
        let stopwatch = Stopwatch::of_process();
        let first = stopwatch.elapsed_us();
        assert!(stopwatch.elapsed_us() >= first);
        let open = |name: &str| File::open(name).expect("a proc file");
        let (most, overhead) = resident_kib(&open("/proc/self/status"), &open("/proc/self/smaps"), &[]);
        assert!(most > 0 && overhead > 0);
        assert!(page_faults().0 > 0);
    }
}
