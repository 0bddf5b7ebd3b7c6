//! `cargo xtask bench density`: what idle clones of one FastAPI program of 128 MiB take, at several numbers of them, and how long the last ones
//! took to come up.
//!
//! The program bears one call at once, so calls that last make the node start a clone for each. At each station the calls have ended and the
//! clones have been idle for a while when they are looked at. Bytes hold anywhere; times are only compared within one report.

use crate::{
    bench_boot::at,
    bench_network::{BenchNetwork, FIRST_ANSWER_WITHIN, PORT},
    devnet::{ComputeSite, Program},
    installation::Installation,
    sdk::Sdk,
};
use anyhow::{Context as _, Result, ensure};
use kvm_host::{
    call::Call,
    density::{FOOTPRINT, Footprint, HOLD},
    measure::field,
};
use serde::Serialize;
use serde_json::json;
use std::{path::PathBuf, thread, time::Duration};

/// Memory of an emulated host, MiB.
const HOST_MIB: u32 = 8192;
/// Guest memory of the program, MiB.
const GUEST_MIB: u32 = 128;
/// How long clones are idle before they are looked at: guests report free pages every two seconds.
const IDLE: Duration = Duration::from_secs(10);
/// Settings that let one program have them all; admission counts guests as if each used all its memory.
const SETTINGS: [&str; 7] = [
    "templates.level=function",
    "programs.idle_seconds=86400",
    "programs.max_machines=2000",
    "programs.memory_mib=1000000",
    "programs.vcpus=4000",
    "programs.patience_seconds=30",
    "http.stream_idle_seconds=86400",
];
/// How long a call of the program may take, seconds.
const CALL_SECONDS: u32 = 86_400;

/// What is measured.
#[derive(Debug)]
pub struct Bench {
    /// Programs and images.
    pub installation: Installation,
    /// Where the SDK is kept.
    pub cache: PathBuf,
    /// The top of the repository.
    pub repository: PathBuf,
    /// At how many clones it is looked, rising.
    pub stations: Vec<u32>,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// `local` or `emulated`.
    pub host: String,
    /// One for each station.
    pub rows: Vec<Row>,
}

/// Idle clones; medians over all of them where nothing else is said. KiB.
#[derive(Debug, Serialize)]
pub struct Row {
    /// How many there are.
    pub clones: usize,
    /// Of its guest's memory, what is a clone's own.
    pub guest_private_kib: u64,
    /// What else is its monitor's own.
    pub monitor_private_kib: u64,
    /// Proportional set size.
    pub proportional_kib: u64,
    /// What its control group is charged with; none where the host gives it none.
    pub group_kib: Option<u64>,
    /// What the host's available memory is less than before the first, for each.
    pub host_kib: u64,
    /// The node's own resident memory, all of it.
    pub node_kib: u64,
    /// From the call that needed it to the first byte, the clones that came up for this station, microseconds.
    pub start_p50_us: u64,
    /// The last of them.
    pub last_start_us: u64,
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
    let host = &network.host;
    let hash = network.publish(&Program {
        code: &network.archive(&bench.repository.join("tests/programs/coldstart/hello.py"))?,
        runtime: &network.user.upload(&bench.installation.runtime("python"))?,
        entrypoint: "hello:app",
        encoding: "zip",
        memory_mib: GUEST_MIB,
        seconds: CALL_SECONDS,
        variables: json!({"BETH_CONCURRENCY": "1"}),
        internet: false,
    })?;
    let site = ComputeSite::install(host, &bench.installation)?;
    let caller = host.install(&bench.installation.program("kvm-host"), "kvm-host")?;
    let node = site.start("density", PORT, network.core.port(), &SETTINGS)?;
    say("making the template");
    let answer = node.client(FIRST_ANSWER_WITHIN).get(&format!("/vm/{hash}/"))?;
    ensure!(answer.status == 200, "the program answers {}: {}", answer.status, answer.text());

    let kib = |path: &str, name: &str| -> Result<u64> {
        let text = String::from_utf8(host.read(path, 0)?)?;
        field(&text, name).with_context(|| format!("no {name} in {text:?}"))
    };
    let available = || kib("/proc/meminfo", "MemAvailable:");
    let status_path = format!("/proc/{}/status", node.process().id());
    let (address, path) = (format!("127.0.0.1:{PORT}"), format!("/vm/{hash}/held"));
    let before = available()?;
    let mut rows: Vec<Row> = Vec::new();
    for station in &bench.stations {
        say(&format!("{station} clones"));
        // One machine more: the first was booted and is none.
        let calls = (station + 1).to_string();
        let held = host.run(&[&caller, HOLD, &address, &path, &calls])?;
        let output = held.expect_success().with_context(|| node.process().log_end())?.text();
        let taken: Vec<Call> = output.lines().filter_map(Call::parse).collect();
        ensure!(
            taken.iter().all(|call| call.status == 200),
            "not all calls were answered: {output}\n{}",
            node.process().log_end()
        );
        thread::sleep(IDLE);
        let monitors: Vec<String> = node.monitors()?.iter().map(u32::to_string).collect();
        let mut look = vec![caller.as_str(), FOOTPRINT];
        look.extend(monitors.iter().map(String::as_str));
        let output = host.run(&look)?.expect_success()?.text();
        let footprints: Vec<Footprint> = output.lines().filter_map(Footprint::parse).collect();
        ensure!(footprints.len() >= usize::try_from(*station)?, "{} clones, not {station}", footprints.len());
        let median = |field: fn(&Footprint) -> u64| at(footprints.iter().map(field).collect(), 50);
        let groups: Vec<u64> = footprints.iter().filter_map(|footprint| footprint.group).collect();
        // Those that were there before are warm.
        let warm = rows.last().map_or(1, |row| row.clones + 1);
        let started: Vec<u64> = taken.iter().skip(warm).map(|call| call.microseconds).collect();
        rows.push(Row {
            clones: footprints.len(),
            guest_private_kib: median(|footprint| footprint.guest_private),
            monitor_private_kib: median(|footprint| footprint.monitor_private),
            proportional_kib: median(|footprint| footprint.proportional),
            group_kib: (!groups.is_empty()).then(|| at(groups, 50)),
            host_kib: before.saturating_sub(available()?) / footprints.len().max(1) as u64,
            node_kib: kib(&status_path, "VmRSS:")?,
            last_start_us: started.last().copied().unwrap_or_default(),
            start_p50_us: at(started, 50),
        });
    }
    // Hundreds of guests that shut down on one emulated processor take longer than a node is given; they end with it in any case.
    node.kill()?;
    Ok(Report { host: network.kind().to_owned(), rows })
}
