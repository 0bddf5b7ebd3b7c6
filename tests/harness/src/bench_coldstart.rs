//! `cargo xtask bench coldstart`: from a call's connection to the first byte of its answer, for each way in which a program comes up, in one
//! host and one run.
//!
//! Every way has a compute node of its own, one after the other: `boot` keeps no templates, `runtime` those of runtimes, `function` all; they
//! end a machine as soon as its call is over, and the next call waits until it is gone. `warm` keeps machines. The first call of each program is
//! not counted: it fetches files and makes templates. Times are only compared within one report; counts hold anywhere.

use crate::{
    bench_boot::at,
    bench_network::{BenchNetwork, FIRST_ANSWER_WITHIN, PORT},
    devnet::{ComputeNode, ComputeSite, Program},
    installation::Installation,
    kvm_host::{Kind, KvmHost},
    sdk::Sdk,
    trace::Trace,
};
use anyhow::{Context as _, Result, ensure};
use kvm_host::call::{CALL, Call};
use serde::Serialize;
use serde_json::json;
use std::{collections::BTreeMap, path::PathBuf, thread, time::Duration};

/// Ways to come up: their names here, and in the node's log of a program that is ready, and the settings of their nodes.
const WAYS: [(&str, &str, &[&str]); 4] = [
    ("boot", "boot", &[PLACES, COLD, "templates.level=off"]),
    ("runtime template", "template of its runtime", &[PLACES, COLD, ROOM, "templates.level=runtime"]),
    (FUNCTION, "template of its function", &[PLACES, COLD, ROOM, "templates.level=function"]),
    (WARM, "", &[PLACES, ROOM, "templates.level=function"]),
];
/// For a machine of each program that is called at once.
const PLACES: &str = "programs.vcpus=64";
/// For their templates.
const ROOM: &str = "templates.limit_mib=2560";
/// Every call is the first of its machine.
const COLD: &str = "programs.idle_seconds=0";
/// The way that is compared with the others.
const FUNCTION: &str = "function template";
const WARM: &str = "warm";
/// Memory of an emulated host, MiB.
const HOST_MIB: u32 = 8192;
/// Counts of a machine's end that are reported, by their names in the node's log.
const COUNTS: [&str; 16] = [
    "mapped_ranges",
    "port_in",
    "port_out",
    "mmio_read",
    "mmio_write",
    "minor_faults",
    "major_faults",
    "disk_read_bytes",
    "vsock_from_guest_bytes",
    "vsock_to_guest_bytes",
    "configured",
    "memory",
    "built",
    "running",
    "thawed",
    "program_ready",
];

/// Counts of a cold start that was traced: system calls of its monitor before the guest's first instruction, and entries of the guest up to the
/// answer, after exits of all kinds.
pub const SYSTEM_CALLS: &str = "system_calls";
/// See [`SYSTEM_CALLS`].
pub const ENTRIES: &str = "entries";
/// How long monitors that will be traced are left alone before.
const SETTLE: Duration = Duration::from_secs(4);

/// What is measured.
#[derive(Debug)]
pub struct Bench {
    /// Programs and images.
    pub installation: Installation,
    /// Where the SDK is kept.
    pub cache: PathBuf,
    /// The top of the repository.
    pub repository: PathBuf,
    /// Calls of each program by the quick ways.
    pub calls: u32,
    /// By boot and by the runtime's template, which take seconds.
    pub slow_calls: u32,
    /// How many programs are called at once.
    pub concurrency: u32,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// `local` or `emulated`.
    pub host: String,
    /// Programs called at once.
    pub concurrency: u32,
    /// One for each program and way.
    pub rows: Vec<Row>,
}

/// A program that came up by one way.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The program.
    pub program: String,
    /// The way.
    pub way: String,
    /// Calls that were counted.
    pub calls: usize,
    /// Half of them took at most this long, microseconds.
    pub p50_us: u64,
    /// Nine tenths.
    pub p90_us: u64,
    /// 99 of 100.
    pub p99_us: u64,
    /// Medians over the machines that ended: exits, page faults, bytes, and microseconds to each stage.
    pub counts: BTreeMap<String, u64>,
}

impl Report {
    /// The median of a program by a way.
    #[must_use]
    pub fn median_us(&self, program: &str, way: &str) -> Option<u64> {
        self.rows.iter().find(|row| row.program == program && row.way == way).map(|row| row.p50_us)
    }

    /// For each program: the median of a boot by that of a function's template, and that of a function's template by that of a warm call.
    #[must_use]
    pub fn ratios(&self) -> Vec<(String, f64, f64)> {
        let mut programs: Vec<&String> = self.rows.iter().map(|row| &row.program).collect();
        programs.dedup();
        let mut ratios: Vec<(String, f64, f64)> = Vec::new();
        for program in programs {
            if let (Some(boot), Some(function), Some(warm)) =
                (self.median_us(program, WAYS[0].0), self.median_us(program, FUNCTION), self.median_us(program, WARM))
                && !ratios.iter().any(|(name, ..)| name == program)
            {
                ratios.push((
                    program.clone(),
                    boot as f64 / function.max(1) as f64,
                    function as f64 / warm.max(1) as f64,
                ));
            }
        }
        ratios
    }
}

/// Measures; `say` is told what happens.
///
/// # Errors
/// No host, a node that does not start, a program that does not answer.
pub fn run(bench: &Bench, say: impl Fn(&str)) -> Result<Report> {
    let sdk = Sdk::install(&bench.cache, &bench.repository.join("tests/both/sdk"))?;
    let session = sdk.session()?;
    say("starting the nodes");
    let network = BenchNetwork::start(&bench.installation, &session, sdk.python(), HOST_MIB)?;
    say("publishing the programs");
    let programs = publish(bench, &network)?;
    let (host, core) = (&network.host, &network.core);
    let site = ComputeSite::install(host, &bench.installation)?;
    let caller = host.install(&bench.installation.program("kvm-host"), "kvm-host")?;

    let mut rows = Vec::new();
    for (way, logged, settings) in WAYS {
        let node = site.start(&way.replace(' ', "-"), PORT, core.port(), settings)?;
        for (program, hashes) in &programs {
            let quick = way == FUNCTION || way == WARM;
            let calls = if quick { bench.calls } else { bench.slow_calls };
            say(&format!("{program}, {way}: {calls} calls"));
            let mut row = measure(&node, &caller, program, (way, logged), hashes, calls)?;
            if way == FUNCTION && host.kind() == Kind::Emulated {
                count(host, &node, &hashes[0], &mut row)?;
            }
            rows.push(row);
        }
        node.stop()?;
    }
    Ok(Report { host: network.kind().to_owned(), concurrency: bench.concurrency, rows })
}

/// The programs by name, each as often as programs are called at once: they differ in a variable.
fn publish(bench: &Bench, network: &BenchNetwork<'_>) -> Result<Vec<(&'static str, Vec<String>)>> {
    let sources = bench.repository.join("tests/programs/coldstart");
    let runtime = |name: &str| network.user.upload(&bench.installation.runtime(name));
    let (base, python_runtime) = (runtime("base")?, runtime("python")?);
    let binary = network.archive(&bench.installation.program("static-http"))?;
    let hello = network.archive(&sources.join("hello.py"))?;
    let imports = network.archive(&sources.join("imports.py"))?;
    let mut programs = Vec::new();
    for (name, code, runtime, entrypoint, memory_mib) in [
        ("hello", &binary, &base, "static-http", 128),
        ("FastAPI hello", &hello, &python_runtime, "hello:app", 128),
        ("FastAPI, 50 MB imports", &imports, &python_runtime, "imports:app", 256),
    ] {
        let mut hashes = Vec::new();
        for copy in 0..bench.concurrency {
            hashes.push(network.publish(&Program {
                code,
                runtime,
                entrypoint,
                encoding: "zip",
                memory_mib,
                seconds: 300,
                variables: json!({"COPY": copy.to_string()}),
                internet: false,
            })?);
        }
        programs.push((name, hashes));
    }
    Ok(programs)
}

fn measure(
    node: &ComputeNode<'_>,
    caller: &str,
    program: &str,
    (way, logged): (&str, &str),
    hashes: &[String],
    calls: u32,
) -> Result<Row> {
    let client = node.client(FIRST_ANSWER_WITHIN);
    for hash in hashes {
        let answer = client.get(&format!("/vm/{hash}/"))?;
        ensure!(answer.status == 200, "{program} answers {}: {}", answer.status, answer.text());
    }
    let before = node.process().log()?.len();
    let address = format!("127.0.0.1:{PORT}");
    let rounds = calls.div_ceil(u32::try_from(hashes.len()).unwrap_or(1).max(1)).to_string();
    let kind = if way == WARM { "warm" } else { "cold" };
    let paths: Vec<String> = hashes.iter().map(|hash| format!("/vm/{hash}/")).collect();
    let mut command = vec![caller, CALL, &address, &rounds, kind];
    command.extend(paths.iter().map(String::as_str));
    let output = node.host().run(&command)?.expect_success()?.text();
    let taken: Vec<Call> = output.lines().filter_map(Call::parse).collect();
    ensure!(
        !taken.is_empty() && taken.iter().all(|call| call.status == 200),
        "{program}, {way}: not all calls were answered"
    );
    let log = node.process().log()?;
    let since = log.get(before..).context("a log only grows")?;
    // What came up by another way is not counted as this one.
    let mut ready = since.lines().filter(|line| line.contains("a program is ready"));
    let other = ready.find(|line| !line.contains(&format!(" way={logged} process=")));
    ensure!(other.is_none(), "{program}, {way}: a machine came up by another way: {}", other.unwrap_or_default());
    let ended: Vec<&str> = since
        .lines()
        .filter(|line| line.contains("a machine ended") && hashes.iter().any(|hash| line.contains(hash)))
        .collect();
    let counts = COUNTS
        .iter()
        .map(|name| ((*name).to_owned(), at(ended.iter().filter_map(|line| number(line, name)).collect(), 50)))
        .collect();
    let times = || taken.iter().map(|call| call.microseconds).collect();
    Ok(Row {
        program: program.to_owned(),
        way: way.to_owned(),
        calls: taken.len(),
        p50_us: at(times(), 50),
        p90_us: at(times(), 90),
        p99_us: at(times(), 99),
        counts,
    })
}

/// One more cold start, which is traced: the kernel's counts are of no hardware.
fn count(host: &KvmHost, node: &ComputeNode<'_>, hash: &str, row: &mut Row) -> Result<()> {
    thread::sleep(SETTLE);
    let client = node.client(FIRST_ANSWER_WITHIN);
    let (answer, trace) = Trace::of(host, &node.monitors()?, || client.get(&format!("/vm/{hash}/")))?;
    ensure!(answer.status == 200, "{} answers {}: {}", row.program, answer.status, answer.text());
    let calls: usize = trace.system_calls_before_entry()?.values().sum();
    row.counts.insert(SYSTEM_CALLS.to_owned(), calls as u64);
    row.counts.insert(ENTRIES.to_owned(), trace.entries() as u64);
    Ok(())
}

/// The number that follows `name: ` in a line.
fn number(line: &str, name: &str) -> Option<u64> {
    let start = line.find(&format!(" {name}: "))? + name.len() + 3;
    let digits: String = line[start..].chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_a_log() {
        let line =
            "a machine ended statistics=Statistics { exits: Exits { port_in: 3, port_out: 7 }, minor_faults: 12, max";
        assert_eq!(
            (number(line, "port_in"), number(line, "port_out"), number(line, "minor_faults")),
            (Some(3), Some(7), Some(12))
        );
        assert_eq!(number(line, "faults"), None);
    }

    #[test]
    fn ratios_are_of_medians() {
        let row = |way: &str, p50_us| Row {
            program: "hello".into(),
            way: way.into(),
            calls: 1,
            p50_us,
            p90_us: 0,
            p99_us: 0,
            counts: BTreeMap::new(),
        };
        let rows = vec![row("boot", 1000), row(FUNCTION, 20), row("warm", 10)];
        let report = Report { host: "local".into(), concurrency: 1, rows };
        assert_eq!(report.ratios(), [("hello".to_owned(), 50.0, 2.0)]);
    }
}
