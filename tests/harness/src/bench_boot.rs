//! `cargo xtask bench boot`: from the spawn of a machine monitor to the first byte that its guest writes from
//! user space, ours against QEMU's `microvm` machine, with the same kernel, initramfs and command line in
//! the same host, by turns.
//!
//! Times are only compared within one report; counts hold anywhere.

use crate::kvm_host::{Kind, KvmHost, Options};
use anyhow::{Context as _, Result, bail, ensure};
use kvm_host::measure::{MEASURE, Run};
use serde::Serialize;
use std::{collections::BTreeMap, path::PathBuf};

/// Least number of runs of each that a ratio is taken from.
pub const MIN_RUNS: u32 = 50;
/// Memory of the guests, MiB.
const GUEST_MIB: u32 = 128;
/// The debug console of the emulator: the port that init's first byte goes to.
const PROGRESS_PORT: &str = "0xe9";
/// What `vmm` itself gives the kernel without devices; QEMU is to give the same.
const KERNEL_COMMAND_LINE: &str = "quiet loglevel=0 reboot=t panic=-1 noreplace-smp tsc=reliable no_timer_check \
                                   random.trust_cpu=on cryptomgr.notests swiotlb=noforce nomodule rdinit=/init";
/// Where QEMU's file tree is mounted in an emulated host.
const QEMU_ROOT: &str = "/mnt/qemu";

/// What is compared.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// The machine monitor.
    pub vmm: PathBuf,
    /// The static program `kvm-host`: the emulated host's init, and what measures.
    pub kvm_host: PathBuf,
    /// The guest kernel as `vmm` takes it.
    pub kernel_flat: PathBuf,
    /// The same kernel as QEMU takes it.
    pub kernel_elf: PathBuf,
    /// The guest's initramfs.
    pub initramfs: PathBuf,
    /// The image of the runtime `qemu`, for an emulated host; a local one uses the QEMU that it has.
    pub qemu_image: PathBuf,
    /// Runs of each.
    pub runs: u32,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `local` or `emulated`.
    pub host: String,
    /// Runs of each.
    pub runs: u32,
    /// QEMU's version.
    pub qemu_version: String,
    /// Our monitor.
    pub ours: Figures,
    /// QEMU.
    pub qemu: Figures,
    /// Our median time by QEMU's: below 1 is faster.
    pub median_ratio: f64,
}

/// The figures of one monitor.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// Times to the first byte, in the order that they were taken, microseconds.
    pub times_us: Vec<u64>,
    /// The median of them.
    pub median_us: u64,
    /// A tenth took at most this long.
    pub p10_us: u64,
    /// Nine tenths took at most this long.
    pub p90_us: u64,
    /// Median of the process's resident memory outside of guest memory at the first byte, KiB.
    pub overhead_kib: u64,
    /// The same in pages of 4 KiB.
    pub overhead_pages: u64,
    /// Median of the bytes that the process read through system calls.
    pub read_bytes: u64,
    /// Medians of what KVM has counted, by its own names (`exits`: all of them; `io_exits`, `mmio_exits`,
    /// `irq_exits`, `insn_emulation`, `pf_taken`, …). Empty where the host's kernel does not tell.
    pub kvm_counters: BTreeMap<String, u64>,
}

/// Measures.
///
/// # Errors
/// No host, no QEMU in it, or a guest that does not start.
pub fn compare(comparison: &Comparison) -> Result<Report> {
    ensure!(comparison.runs > 0, "no runs were asked for");
    let mut options = Options::new(&comparison.vmm, &comparison.kvm_host);
    options.disks = vec![comparison.qemu_image.clone()];
    // Alone in the host: no other guest, no node.
    let host = KvmHost::start(&options)?;
    let install = |file: &PathBuf, name: &str| host.install(file, name);
    let vmm = install(&comparison.vmm, "vmm")?;
    let meter = install(&comparison.kvm_host, "kvm-host")?;
    let (flat, elf) = (install(&comparison.kernel_flat, "kernel")?, install(&comparison.kernel_elf, "vmlinux")?);
    let initramfs = install(&comparison.initramfs, "initramfs")?;

    let memory = GUEST_MIB.to_string();
    let ours: Vec<&str> = vec![
        &vmm,
        "run",
        "--kernel",
        &flat,
        "--initramfs",
        &initramfs,
        "--memory-mib",
        &memory,
        "--quiet",
        "--pass-progress",
    ];
    let program = qemu_program(&host)?;
    let debug_console = format!("isa-debugcon,iobase={PROGRESS_PORT},chardev=progress");
    let mut qemu: Vec<&str> = program.iter().map(String::as_str).collect();
    qemu.extend([
        "-machine",
        // Without everything that our machine lacks too.
        "microvm,accel=kvm,x-option-roms=off,pit=off,pic=off,rtc=off,acpi=off,isa-serial=off,auto-kernel-cmdline=off",
        "-cpu",
        "host",
        "-m",
        &memory,
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-kernel",
        &elf,
        "-initrd",
        &initramfs,
        "-append",
        KERNEL_COMMAND_LINE,
        "-chardev",
        "stdio,id=progress",
        "-device",
        &debug_console,
    ]);
    let version: Vec<&str> = program.iter().map(String::as_str).chain(["--version"]).collect();
    let version = host.run(&version)?.expect_success()?.text();

    let runs = comparison.runs.to_string();
    let mut measure: Vec<&str> = vec![&meter, MEASURE, &runs, &memory, "--"];
    measure.extend(ours);
    measure.push("--");
    measure.extend(qemu);
    let output = host.run(&measure)?.expect_success()?.text();
    let taken: Vec<Run> = output.lines().filter_map(Run::parse).collect();
    let of = |command: usize| figures(taken.iter().filter(|run| run.command == command));
    let (ours, qemu) = (of(0)?, of(1)?);
    for figures in [&ours, &qemu] {
        ensure!(figures.times_us.len() == comparison.runs as usize, "runs were lost:\n{output}");
    }
    Ok(Report {
        host: match host.kind() {
            Kind::Local => "local".to_owned(),
            Kind::Emulated => "emulated".to_owned(),
        },
        runs: comparison.runs,
        qemu_version: version.lines().next().unwrap_or_default().to_owned(),
        median_ratio: ours.median_us as f64 / qemu.median_us.max(1) as f64,
        ours,
        qemu,
    })
}

/// The QEMU of the host, as the beginning of a command line.
fn qemu_program(host: &KvmHost) -> Result<Vec<String>> {
    if host.kind() == Kind::Local {
        return Ok(vec!["qemu-system-x86_64".to_owned()]);
    }
    host.run(&["mkdir", "-p", QEMU_ROOT])?.expect_success()?;
    host.run(&["mount", "-t", "erofs", "-o", "ro", "/dev/vdb", QEMU_ROOT])?
        .expect_success()
        .context("the image of the runtime `qemu` does not mount")?;
    // Through its own loader: the host has none, and changing root would be counted.
    Ok([
        "/usr/lib64/ld-linux-x86-64.so.2",
        "--library-path",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/bin/qemu-system-x86_64",
        "-L",
        "/usr/share/qemu",
    ]
    .into_iter()
    .map(|word| if word.starts_with('/') { format!("{QEMU_ROOT}{word}") } else { word.to_owned() })
    .collect())
}

fn figures<'a>(runs: impl Iterator<Item = &'a Run> + Clone) -> Result<Figures> {
    let collect = |value: fn(&Run) -> u64| runs.clone().map(value).collect::<Vec<_>>();
    let times_us = collect(|run| run.microseconds);
    if times_us.is_empty() {
        bail!("nothing was measured");
    }
    let overhead_kib = at(collect(|run| run.overhead_kib), 50);
    let mut counters: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (name, count) in runs.clone().flat_map(|run| &run.counters) {
        counters.entry(name.clone()).or_default().push(*count);
    }
    // Not counts: an id and a setting.
    counters.retain(|name, _| !matches!(name.as_str(), "pid" | "lapic_timer_advance_ns"));
    let length = times_us.len();
    let median_of = |mut counts: Vec<u64>| {
        // A run that does not have it has none.
        counts.resize(length, 0);
        at(counts, 50)
    };
    Ok(Figures {
        median_us: at(times_us.clone(), 50),
        p10_us: at(times_us.clone(), 10),
        p90_us: at(times_us.clone(), 90),
        times_us,
        overhead_kib,
        overhead_pages: overhead_kib / 4,
        read_bytes: at(collect(|run| run.read_bytes), 50),
        kvm_counters: counters
            .into_iter()
            .map(|(name, counts)| (name, median_of(counts)))
            .filter(|(_, count)| *count > 0)
            .collect(),
    })
}

/// The value that so many percent of the values do not exceed.
pub(crate) fn at(mut values: Vec<u64>, percent: usize) -> u64 {
    values.sort_unstable();
    let index = (values.len() * percent).div_ceil(100).saturating_sub(1);
    values.get(index).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<u64> = (1..=50).rev().collect();
        assert_eq!((at(values.clone(), 10), at(values.clone(), 50), at(values, 90)), (5, 25, 45));
        assert_eq!(at(vec![7], 50), 7);
        assert_eq!(at(vec![], 50), 0);
    }

    #[test]
    fn figures_are_medians_and_a_missing_count_is_none() {
        let run = |microseconds, counters: &[(&str, u64)]| Run {
            command: 0,
            microseconds,
            overhead_kib: 8,
            read_bytes: 9,
            counters: counters.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
        };
        let runs =
            [run(30, &[("exits", 5), ("pid", 1)]), run(10, &[("exits", 7), ("rare", 3)]), run(20, &[("exits", 6)])];
        let figures = figures(runs.iter()).expect("figures");
        assert_eq!((figures.median_us, figures.times_us), (20, vec![30, 10, 20]));
        assert_eq!((figures.overhead_kib, figures.overhead_pages, figures.read_bytes), (8, 2, 9));
        assert_eq!(figures.kvm_counters, BTreeMap::from([("exits".to_owned(), 6)]));
    }
}
