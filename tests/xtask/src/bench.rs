//! `cargo xtask bench NAME`: figures as ratios measured in one run on one machine, and counts that hold anywhere.

use crate::{
    build,
    command::{cargo, repository, run_quietly},
    images,
    progress::Progress,
    setup,
};
use ::images::Cache;
use anyhow::{Context as _, Result, ensure};
use harness::{
    bench_boot::{self, Comparison, Figures, Report},
    bench_coldstart, bench_density, bench_plugins,
    devnet::CoreNode,
    installation::Installation,
    overload::{self, Load},
};
use serde::Serialize;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};
use vmm::probe::probe;

/// The runtime that has QEMU in it.
const QEMU_RUNTIME: &str = "qemu";
/// Width of the column of names.
const NAME_WIDTH: usize = 34;

/// What to measure.
#[derive(clap::Subcommand)]
pub(crate) enum Bench {
    /// From the start of a machine monitor to the first byte from guest user space, against QEMU's microvm machine.
    Boot(BootArguments),
    /// From a call to the first byte of its answer: by boot, by template of the runtime, by template of the function, and warm.
    Coldstart(ColdstartArguments),
    /// What idle clones of one program take of their host, at several numbers of them.
    Density(DensityArguments),
    /// What a core node takes in while a plugin does its worst, against what it takes in beside a harmless one.
    Plugins(PluginsArguments),
    /// Processor time of a core node for a message, in bulk and over HTTP, against one signature check.
    Ingest(IngestArguments),
    /// From the start of a core node that holds many messages, after a kill, to its first answer.
    Start(StartArguments),
    /// What a core node that holds many messages takes to answer: each endpoint, at several concurrencies, against what is aimed at.
    Api(ApiArguments),
    /// What those wait who ask a core node for little, while others take all that they can get, against what they wait otherwise.
    Overload(OverloadArguments),
}

#[derive(clap::Args)]
pub(crate) struct ColdstartArguments {
    /// Calls of each program by the quick ways
    #[arg(long, default_value_t = 500, value_name = "N")]
    calls: u32,
    /// Calls by boot and by the runtime's template, which take seconds [default: a tenth of the others]
    #[arg(long, value_name = "N")]
    slow_calls: Option<u32>,
    /// Programs that are called at once
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=32))]
    concurrency: u32,
    /// Write the whole report to a file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(crate) struct DensityArguments {
    /// At how many clones it is looked, rising
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 10, 100, 500])]
    clones: Vec<u32>,
    /// Write the whole report to a file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(crate) struct OverloadArguments {
    /// Websockets on which nobody says anything
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    websockets: usize,
    /// Uploads of a byte a second
    #[arg(long, default_value_t = 1000, value_name = "N")]
    uploads: usize,
    /// Clients that ask for long answers and do not read them
    #[arg(long, default_value_t = 200, value_name = "N")]
    readers: usize,
    /// A core node that is there already, instead of the one that tests use
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Write the whole report to a file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(crate) struct ApiArguments {
    /// Messages that the node holds
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    messages: usize,
    /// Requests to each endpoint, at each concurrency
    #[arg(long, default_value_t = 1000, value_name = "N")]
    requests: usize,
    /// Write the figures to a file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(crate) struct IngestArguments {
    /// Messages in bulk
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    messages: usize,
    /// Messages over HTTP, at each concurrency (a tenth of it at 1)
    #[arg(long, default_value_t = 5000, value_name = "N")]
    http_messages: usize,
    /// Write the whole report to a file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(crate) struct StartArguments {
    /// Messages that the node holds
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    messages: usize,
    /// Write the figures to a file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(crate) struct PluginsArguments {
    /// Measurements of each plugin, by turns
    #[arg(long, default_value_t = 5, value_name = "N")]
    rounds: usize,
    /// Seconds of each
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    seconds: f64,
    /// Messages for the plugin, per second
    #[arg(long, default_value_t = 20.0, value_name = "N")]
    feed: f64,
    /// A core node that is there already, instead of the one that tests use
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Write the whole report to a file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(crate) struct BootArguments {
    /// Runs of each, by turns
    #[arg(long, default_value_t = bench_boot::MIN_RUNS, value_name = "N")]
    runs: u32,
    /// Write the whole report to a file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(bench: &Bench, yes: bool) -> Result<()> {
    match bench {
        Bench::Boot(arguments) => boot(arguments, yes),
        Bench::Coldstart(arguments) => coldstart(arguments, yes),
        Bench::Density(arguments) => density(arguments, yes),
        Bench::Plugins(arguments) => plugins(arguments),
        Bench::Ingest(IngestArguments { messages, http_messages, json }) => {
            let (messages, http_messages) = (messages.to_string(), http_messages.to_string());
            ingest(&["--messages", &messages, "--http-messages", &http_messages], json.as_deref())
        }
        Bench::Api(ApiArguments { messages, requests, json }) => {
            let (messages, requests) = (messages.to_string(), requests.to_string());
            ingest(&["--api-only", "--start-messages", &messages, "--requests", &requests], json.as_deref())
        }
        Bench::Overload(arguments) => overload(arguments),
        Bench::Start(StartArguments { messages, json }) => {
            ingest(&["--start-only", "--start-messages", &messages.to_string()], json.as_deref())
        }
    }
}

/// Runs the bench of the core node, built as it is for operators.
fn ingest(arguments: &[&str], json: Option<&Path>) -> Result<()> {
    let progress = Progress::start("bench ingest");
    run_quietly(&progress, cargo().args(["bench", "--locked", "--package", "ccn", "--bench", "ingest", "--no-run"]))?;
    progress.done("built");
    let mut bench = cargo();
    bench.args(["bench", "--quiet", "--locked", "--package", "ccn", "--bench", "ingest", "--"]).args(arguments);
    if let Some(json) = json {
        // Cargo starts benches in the folder of their package.
        bench.arg("--json").arg(std::path::absolute(json).with_context(|| json.display().to_string())?);
    }
    let status = bench.status().context("cannot start cargo")?;
    ensure!(status.success(), "the bench ended with {status}");
    Ok(())
}

fn boot(arguments: &BootArguments, yes: bool) -> Result<()> {
    if !probe().is_usable() {
        setup::packages(&[&[setup::EMULATOR]], yes)?;
    }
    images::make(&[QEMU_RUNTIME], yes)?;
    let installation = build::installation();
    let progress = Progress::start("bench boot");
    progress.status(&format!("{} runs of each", arguments.runs));
    let report = bench_boot::compare(&Comparison {
        vmm: installation.program("vmm"),
        kvm_host: installation.program("kvm-host"),
        kernel_flat: installation.kernel(),
        kernel_elf: Cache::open()?.kernel(&progress)?.elf,
        initramfs: installation.initramfs(),
        qemu_image: installation.runtime(QEMU_RUNTIME),
        runs: arguments.runs,
    })?;
    progress.done("measured");
    write(&report, arguments.json.as_deref())?;
    print(&report);
    Ok(())
}

/// What benches of programs need: a host, runtimes, a compute node and a core node.
fn programs(name: &str, runtimes: &[&str], yes: bool) -> Result<Progress> {
    if !probe().is_usable() {
        setup::packages(&[&[setup::EMULATOR]], yes)?;
    }
    images::make(runtimes, yes)?;
    let progress = Progress::start(name);
    build::core_node(&progress)?;
    Ok(progress)
}

fn coldstart(arguments: &ColdstartArguments, yes: bool) -> Result<()> {
    let progress = programs("bench coldstart", &["base", "python"], yes)?;
    let bench = bench_coldstart::Bench {
        installation: build::installation(),
        cache: Cache::open()?.root().to_owned(),
        repository: repository(),
        calls: arguments.calls,
        slow_calls: arguments.slow_calls.unwrap_or_else(|| arguments.calls.div_ceil(10)),
        concurrency: arguments.concurrency,
    };
    let report = bench_coldstart::run(&bench, |what| progress.status(what))?;
    progress.done("measured");
    write(&report, arguments.json.as_deref())?;
    println!(
        "coldstart: from a call's connection to the first byte of its answer, µs; {} at once, {} host\n",
        report.concurrency, report.host
    );
    println!(
        "{:<24}{:<20}{:>6}{:>10}{:>10}{:>10}{:>8}{:>8}{:>10}",
        "", "", "calls", "p50", "p90", "p99", "exits", "faults", "bytes"
    );
    for row in &report.rows {
        let sum = |names: &[&str]| names.iter().filter_map(|name| row.counts.get(*name)).sum::<u64>();
        println!(
            "{:<24}{:<20}{:>6}{:>10}{:>10}{:>10}{:>8}{:>8}{:>10}",
            row.program,
            row.way,
            row.calls,
            row.p50_us,
            row.p90_us,
            row.p99_us,
            sum(&["port_in", "port_out", "mmio_read", "mmio_write"]),
            sum(&["minor_faults", "major_faults"]),
            sum(&["disk_read_bytes", "vsock_from_guest_bytes", "vsock_to_guest_bytes"]),
        );
    }
    println!("\nstages of a machine from the order, µs: configured, memory, built, running, thawed");
    for row in report.rows.iter().filter(|row| row.way.ends_with("template")) {
        let stage = |name: &str| row.counts.get(name).copied().unwrap_or_default();
        let stages = ["configured", "memory", "built", "running", "thawed"].map(|name| stage(name).to_string());
        println!("{:<24}{:<20}{}", row.program, row.way, stages.join(" "));
    }
    println!(
        "\none cold start, traced: system calls before the guest's first instruction (at most 60), exits of all kinds up to the answer"
    );
    for row in &report.rows {
        let count = |name| row.counts.get(name);
        if let (Some(calls), Some(entries)) = (count(bench_coldstart::SYSTEM_CALLS), count(bench_coldstart::ENTRIES)) {
            println!("{:<24}{:<20}{calls} {entries}", row.program, row.way);
        }
    }
    let ratios: Vec<String> = report
        .ratios()
        .iter()
        .map(|(program, boot, warm)| format!("{program}: boot/template {boot:.1}, template/warm {warm:.2}"))
        .collect();
    println!("\nratios of medians, by the function's template: {}", ratios.join("; "));
    Ok(())
}

fn density(arguments: &DensityArguments, yes: bool) -> Result<()> {
    ensure!(
        arguments.clones.is_sorted_by(|one, other| one < other),
        "--clones takes rising numbers, for example 1,10,100"
    );
    let progress = programs("bench density", &["python"], yes)?;
    let report = bench_density::run(
        &bench_density::Bench {
            installation: build::installation(),
            cache: Cache::open()?.root().to_owned(),
            repository: repository(),
            stations: arguments.clones.clone(),
        },
        |what| progress.status(what),
    )?;
    progress.done("measured");
    write(&report, arguments.json.as_deref())?;
    println!("density: idle clones of a FastAPI program of 128 MiB, KiB for each (medians), {} host\n", report.host);
    println!(
        "{:>8}{:>12}{:>12}{:>12}{:>12}{:>12}{:>14}{:>14}",
        "clones", "guest's", "monitor's", "PSS", "group", "host", "start p50 µs", "last start µs"
    );
    for row in &report.rows {
        let group = row.group_kib.map_or_else(|| "-".to_owned(), |group| group.to_string());
        println!(
            "{:>8}{:>12}{:>12}{:>12}{:>12}{:>12}{:>14}{:>14}",
            row.clones,
            row.guest_private_kib,
            row.monitor_private_kib,
            row.proportional_kib,
            group,
            row.host_kib,
            row.start_p50_us,
            row.last_start_us
        );
    }
    let last = report.rows.last().context("at least one number of clones")?;
    let aim = |kib: u64, aim_kib: u64| kib as f64 / aim_kib as f64;
    println!(
        "\nratios to what is aimed at: monitor's own / 1 MiB {:.2}; all that the host gives / 8 MiB {:.2}",
        aim(last.monitor_private_kib, 1024),
        aim(last.host_kib, 8192)
    );
    Ok(())
}

/// Where the core node is that is measured: this program, or the one that tests use.
fn installation(program: Option<&Path>, scratch: &Path, progress: &Progress) -> Result<Installation> {
    match program {
        Some(program) => {
            build::install(program, &scratch.join("ccn"))?;
            Ok(Installation::at(scratch))
        }
        None => {
            build::core_node(progress)?;
            Ok(build::installation())
        }
    }
}

fn write(report: &impl Serialize, path: Option<&Path>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(report)?;
    fs::write(path, format!("{text}\n")).with_context(|| format!("cannot write {}", path.display()))
}

fn overload(arguments: &OverloadArguments) -> Result<()> {
    let progress = Progress::start("bench overload");
    let scratch = tempfile::tempdir()?;
    let installation = installation(arguments.program.as_deref(), scratch.path(), &progress)?;
    let &OverloadArguments { websockets, uploads, readers, .. } = arguments;
    let folder = scratch.path().join("node");
    fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut node = CoreNode::start(&installation, &folder, &["--dev".to_owned()])?;
    let report = overload::run(&node, Load { websockets, uploads, readers }, |what| progress.status(what))?;
    node.stop()?;
    progress.done("measured");
    write(&report, arguments.json.as_deref())?;
    println!("overload: what became of those who take what they can get\n");
    println!("{:<28}{:>10}{:>10}{:>10}", "", "served", "refused", "other");
    for (name, outcome) in [
        ("idle websockets", report.websockets),
        ("uploads of a byte a second", report.uploads),
        ("clients that do not read", report.readers),
    ] {
        println!("{name:<28}{:>10}{:>10}{:>10}", outcome.served, outcome.refused, outcome.other);
    }
    let (quiet, loaded) = (report.quiet, report.loaded);
    println!(
        "\nothers, who ask for little: {:.2} ms (p99 {:.2}) beside them, {:.2} ms (p99 {:.2}) without",
        loaded.median_ms, loaded.tail_ms, quiet.median_ms, quiet.tail_ms
    );
    println!("memory: {} MiB before, at most {} MiB", report.resident_kib_before >> 10, report.resident_kib_most >> 10);
    println!(
        "ratios, beside the load to without: median {:.2}, p99 {:.2}",
        loaded.median_ms / quiet.median_ms,
        loaded.tail_ms / quiet.tail_ms
    );
    Ok(())
}

fn plugins(arguments: &PluginsArguments) -> Result<()> {
    let progress = Progress::start("bench plugins");
    let scratch = tempfile::tempdir()?;
    let installation = installation(arguments.program.as_deref(), scratch.path(), &progress)?;
    let (rounds, seconds, feed) = (arguments.rounds, arguments.seconds, arguments.feed);
    let bench = bench_plugins::Bench { installation, rounds, seconds, feed };
    let report = bench_plugins::run(&bench, |what| progress.status(what))?;
    progress.done("measured");
    write(&report, arguments.json.as_deref())?;
    println!(
        "plugins: POSTs answered per second by a core node, beside a plugin that gets {feed} messages per second; {rounds} rounds of {seconds} s, by turns\n"
    );
    println!("{:<12} {:>10} {:>12} {:>14}  {:<10} why", "", "POSTs/s", "by alone", "by harmless", "state");
    for case in &report.cases {
        let (name, state, reason) = (&case.name, &case.state, &case.reason);
        println!(
            "{name:<12} {:>10.0} {:>12.3} {:>14.3}  {state:<10} {reason}",
            case.rate, case.to_alone, case.to_harmless
        );
    }
    println!("\nratio, POSTs beside the worst plugin to those beside a harmless one: {:.3}", report.lowest_ratio);
    Ok(())
}

fn print(report: &Report) {
    println!(
        "boot: from spawn of the monitor to the first byte from guest user space; {} runs of each by turns, {} host, {}\n",
        report.runs, report.host, report.qemu_version
    );
    println!("{:<NAME_WIDTH$} {:>14} {:>14} {:>8}", "", "vmm", "qemu microvm", "ratio");
    for (name, ours, qemu) in rows(report) {
        println!("{name:<NAME_WIDTH$} {ours:>14} {qemu:>14} {:>8}", ratio(ours, qemu));
    }
    println!(
        "\nratios, vmm to qemu: time to init {:.3} (median), memory of the monitor {}, VM exits {}",
        report.median_ratio,
        ratio(report.ours.overhead_kib, report.qemu.overhead_kib),
        ratio(exits(&report.ours), exits(&report.qemu)),
    );
}

fn rows(report: &Report) -> Vec<(String, u64, u64)> {
    let (ours, qemu) = (&report.ours, &report.qemu);
    let mut rows = vec![
        ("time to init, median, µs".to_owned(), ours.median_us, qemu.median_us),
        ("memory of the monitor, KiB".to_owned(), ours.overhead_kib, qemu.overhead_kib),
        ("its resident pages".to_owned(), ours.overhead_pages, qemu.overhead_pages),
        ("bytes read from files".to_owned(), ours.read_bytes, qemu.read_bytes),
    ];
    let counters: BTreeSet<&String> = ours.kvm_counters.keys().chain(qemu.kvm_counters.keys()).collect();
    for counter in counters {
        let count = |figures: &Figures| figures.kvm_counters.get(counter).copied().unwrap_or_default();
        let (ours, qemu) = (count(ours), count(qemu));
        if ours + qemu > 0 {
            rows.push((format!("kvm: {counter}"), ours, qemu));
        }
    }
    rows
}

/// How often a guest left to its host.
fn exits(figures: &Figures) -> u64 {
    figures.kvm_counters.get("exits").copied().unwrap_or_default()
}

fn ratio(ours: u64, qemu: u64) -> String {
    if qemu == 0 {
        return "-".to_owned();
    }
    format!("{:.3}", ours as f64 / qemu as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_other_and_nothing_by_nothing_is_none() {
        assert_eq!(ratio(1, 4), "0.250");
        assert_eq!(ratio(1, 0), "-");
    }
}
