//! What was used: by the calls of one machine, and of the host altogether.

use procfs::Current as _;
use serde::Serialize;
use std::{
    fmt,
    path::Path,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread::available_parallelism,
    time::{Duration, SystemTime},
};

/// What the calls of one machine used.
#[derive(Debug, Default)]
pub struct Usage {
    calls: AtomicU64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    busy_us: AtomicU64,
}

impl Usage {
    /// Calls that are over.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    /// Adds a call that is over: bytes to the program, bytes from it, and how long its stream was open.
    pub fn add(&self, to_program_bytes: u64, from_program_bytes: u64, took: Duration) {
        self.calls.fetch_add(1, Relaxed);
        self.received_bytes.fetch_add(to_program_bytes, Relaxed);
        self.sent_bytes.fetch_add(from_program_bytes, Relaxed);
        self.busy_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} calls, {} bytes in, {} bytes out, {} ms",
            self.calls.load(Relaxed),
            self.received_bytes.load(Relaxed),
            self.sent_bytes.load(Relaxed),
            self.busy_us.load(Relaxed) / 1000
        )
    }
}

/// The host, in the shape of `GET /about/usage/system` (spec: crn, section 6.1). kB are 1,000 bytes.
#[derive(Debug, Serialize)]
pub struct System {
    cpu: Cpu,
    mem: Amount,
    disk: Amount,
    period: Period,
    properties: Properties,
    gpu: Gpu,
    active: bool,
}

#[derive(Debug, Serialize)]
struct Cpu {
    count: usize,
    load_average: LoadAverage,
    core_frequencies: Frequencies,
}

#[derive(Debug, Serialize)]
struct LoadAverage {
    load1: f32,
    load5: f32,
    load15: f32,
}

/// MHz.
#[derive(Debug, Serialize)]
struct Frequencies {
    min: f64,
    max: f64,
}

#[derive(Debug, Serialize)]
#[expect(non_snake_case, reason = "the names of the API")]
struct Amount {
    total_kB: u64,
    available_kB: u64,
}

#[derive(Debug, Serialize)]
struct Period {
    start_timestamp: f64,
    duration_seconds: f64,
}

#[derive(Debug, Serialize)]
struct Properties {
    cpu: CpuProperties,
}

#[derive(Debug, Serialize)]
struct CpuProperties {
    architecture: &'static str,
    vendor: String,
    features: Vec<&'static str>,
}

#[derive(Debug, Default, Serialize)]
struct Gpu {
    devices: Vec<()>,
    available_devices: Vec<()>,
}

/// The period that the figures stand for.
const PERIOD: Duration = Duration::from_secs(60);

impl System {
    /// The host now; `data` is on the disk that counts, `active` whether it takes programs.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn now(data: &Path, active: bool) -> Result<Self, procfs::ProcError> {
        let load = procfs::LoadAverage::current()?;
        let memory = procfs::Meminfo::current()?;
        let processor = procfs::CpuInfo::current()?;
        let disk = rustix::fs::statvfs(data).map_err(std::io::Error::from)?;
        let megahertz: Vec<f64> =
            (0..processor.num_cores()).filter_map(|core| processor.get_field(core, "cpu MHz")?.parse().ok()).collect();
        let start = SystemTime::now().checked_sub(PERIOD).unwrap_or(SystemTime::UNIX_EPOCH);
        Ok(Self {
            cpu: Cpu {
                count: available_parallelism().map_or(1, usize::from),
                load_average: LoadAverage { load1: load.one, load5: load.five, load15: load.fifteen },
                core_frequencies: Frequencies {
                    min: megahertz.iter().copied().reduce(f64::min).unwrap_or_default(),
                    max: megahertz.iter().copied().reduce(f64::max).unwrap_or_default(),
                },
            },
            mem: Amount {
                total_kB: memory.mem_total / 1000,
                available_kB: memory.mem_available.unwrap_or(memory.mem_free) / 1000,
            },
            disk: Amount {
                total_kB: disk.f_blocks.saturating_mul(disk.f_frsize) / 1000,
                available_kB: disk.f_bavail.saturating_mul(disk.f_frsize) / 1000,
            },
            period: Period {
                start_timestamp: start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
                duration_seconds: PERIOD.as_secs_f64(),
            },
            properties: Properties {
                cpu: CpuProperties {
                    architecture: std::env::consts::ARCH,
                    vendor: processor.vendor_id(0).unwrap_or_default().to_owned(),
                    features: confidential_features(processor.flags(0).unwrap_or_default()),
                },
            },
            gpu: Gpu::default(),
            active,
        })
    }
}

/// The features that the scheduler asks for, as far as the processor has them.
fn confidential_features(flags: Vec<&str>) -> Vec<&'static str> {
    ["sev", "sev_es", "sev_snp"].into_iter().filter(|feature| flags.contains(feature)).collect()
}

/// Memory of the host, MiB.
///
/// # Errors
/// The kernel does not say.
pub fn host_memory_mib() -> Result<u64, procfs::ProcError> {
    Ok(procfs::Meminfo::current()?.mem_total / (1 << 20))
}
