//! What taking messages in costs, and beside it, in the same run, what one signature check and one sha256 cost.
//!
//! Two ways in: in bulk, as peers and archives deliver them, at one pipeline in this process; and over HTTP, at a real node in a process of its
//! own. Processor time is that of the node alone: signing and reading answers is not in it. Run by `cargo xtask bench ingest`, with
//! `--start-only` by `cargo xtask bench start`, and with `--api-only` by `cargo xtask bench api`.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]

mod api;
mod served;
mod workload;

use anyhow::{Context as _, Result, ensure};
use ccn::{host::PluginInfo, node::Service};
use ccn_message::{Envelope, signature};
use clap::Parser;
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use served::{Served, close, fill, open, submit_all};
use sha2::{Digest as _, Sha256};
use std::{
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use workload::Workload;

/// Messages that are signed and handed over in one go when a store is filled.
const SLICE: usize = 20_000;
/// Requests at once over HTTP.
const CONCURRENCY: [usize; 3] = [1, 16, 256];
/// Messages that one signature check is measured with.
const CHECKS: usize = 5000;
/// The database in a node's folder.
const STORE: &str = "store.redb";
/// How long a node may take to be ready: the first start compiles its plugins.
const READY_WITHIN: Duration = Duration::from_secs(120);

#[derive(Parser)]
struct Arguments {
    /// Messages in bulk
    #[arg(long, default_value_t = 20_000)]
    messages: usize,
    /// Messages over HTTP, at each concurrency (a tenth of it at 1)
    #[arg(long, default_value_t = 5000)]
    http_messages: usize,
    /// Messages that a node holds when its start is measured; 0: as many as came in bulk
    #[arg(long, default_value_t = 0)]
    start_messages: usize,
    /// Measure the start alone
    #[arg(long)]
    start_only: bool,
    /// Measure what reading costs alone, in a node that holds `--start-messages`
    #[arg(long)]
    api_only: bool,
    /// Requests to each endpoint, at each concurrency, when reading is measured
    #[arg(long, default_value_t = 1000)]
    requests: usize,
    /// Write the figures to a file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// What cargo passes to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one way in costs.
#[derive(Debug, Serialize)]
struct Figures {
    name: String,
    messages: usize,
    /// Messages a second.
    rate: f64,
    /// Processor time of the node, microseconds a message.
    cpu_us: f64,
    /// Processor time in units of one signature check.
    signature_checks: f64,
}

/// Everything.
#[derive(Debug, Serialize)]
struct Report {
    processors: usize,
    signature_check_us: f64,
    sha256_us: f64,
    ways: Vec<Figures>,
    /// Share of the bulk way's processor time in plugins, and of the owner's thread in commits.
    sandbox_us: f64,
    commit_us: f64,
    http_us: f64,
    bytes_on_disk_a_message: f64,
    aggregate: AggregateFigures,
    start: StartFigures,
}

/// What an update of one subkey costs, in fuel of the plugin.
#[derive(Debug, Serialize)]
struct AggregateFigures {
    subkeys: [usize; 2],
    fuel: [u64; 2],
    cpu_us: [f64; 2],
}

/// How soon a node answers.
#[derive(Debug, Serialize)]
struct StartFigures {
    messages: u64,
    ready_ms: f64,
    first_answer_ms: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if arguments.start_only {
        return runtime.block_on(only_start(&arguments));
    }
    if arguments.api_only {
        return runtime.block_on(api::measure(arguments.start_messages, arguments.requests, arguments.json.as_deref()));
    }
    let report = runtime.block_on(measure(&arguments))?;
    if let Some(path) = &arguments.json {
        fs::write(path, serde_json::to_string_pretty(&report)? + "\n").with_context(|| path.display().to_string())?;
    }
    print(&report);
    Ok(())
}

/// Fills a store and starts a node on it.
async fn only_start(arguments: &Arguments) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let messages = if arguments.start_messages == 0 { arguments.messages } else { arguments.start_messages };
    let filling = Instant::now();
    fill(folder.path(), Workload::new(7), messages).await?;
    let filling = filling.elapsed();
    let start = start(folder.path(), messages as u64).await?;
    if let Some(path) = &arguments.json {
        fs::write(path, serde_json::to_string_pretty(&start)? + "\n").with_context(|| path.display().to_string())?;
    }
    let megabytes = fs::metadata(folder.path().join(STORE))?.len() >> 20;
    println!(
        "\nstart: {messages} messages were signed and taken in, durable, in {:.0} s; the store has {megabytes} MiB; the node was killed, not stopped",
        filling.as_secs_f64()
    );
    print_start(&start);
    Ok(())
}

fn print_start(start: &StartFigures) {
    println!(
        "start with {} messages: ready after {:.0} ms, first answer after {:.0} ms",
        start.messages, start.ready_ms, start.first_answer_ms
    );
}

async fn measure(arguments: &Arguments) -> Result<Report> {
    let mut workload = Workload::new(7);
    let messages = workload.take(arguments.messages);
    let signature_check_us = signature_check(&messages);
    let sha256_us = sha256(&messages);
    let figures = |name: String, messages: usize, wall: Duration, cpu: Duration| {
        let cpu_us = cpu.as_secs_f64() * 1e6 / messages as f64;
        let rate = messages as f64 / wall.as_secs_f64();
        Figures { name, messages, rate, cpu_us, signature_checks: cpu_us / signature_check_us }
    };
    let folder = tempfile::tempdir()?;
    let bulk_folder = folder.path().join("bulk");
    let mut ways = Vec::new();

    let bulk = bulk(&bulk_folder, &messages).await?;
    ways.push(figures("bulk".into(), messages.len(), bulk.wall, bulk.cpu));
    let bulk_us = ways[0].cpu_us;
    drop(messages);

    let mut http_us = 0.0;
    for concurrency in CONCURRENCY {
        let count = if concurrency == 1 { arguments.http_messages / 10 } else { arguments.http_messages };
        workload.for_another_node();
        let messages = workload.take(count);
        let (wall, cpu) = http(&folder.path().join(format!("http-{concurrency}")), &messages, concurrency).await?;
        ways.push(figures(format!("HTTP, {concurrency} at once"), count, wall, cpu));
        http_us = ways.last().map_or(0.0, |way| way.cpu_us - bulk_us);
    }

    let aggregate = aggregate(folder.path(), &mut workload).await?;
    let stored = fs::metadata(bulk_folder.join(STORE))?.len();
    let bytes_on_disk_a_message = stored as f64 / arguments.messages as f64;
    workload.for_another_node();
    let missing = arguments.start_messages.saturating_sub(arguments.messages);
    fill(&bulk_folder, workload, missing).await?;
    let start = start(&bulk_folder, (arguments.messages + missing) as u64).await?;
    Ok(Report {
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        signature_check_us,
        sha256_us,
        sandbox_us: bulk.sandbox.as_secs_f64() * 1e6 / arguments.messages as f64,
        commit_us: bulk.commits.as_secs_f64() * 1e6 / arguments.messages as f64,
        http_us,
        bytes_on_disk_a_message,
        aggregate,
        start,
        ways,
    })
}

/// One check of a signature, microseconds.
fn signature_check(messages: &[Envelope]) -> f64 {
    let messages = &messages[..CHECKS.min(messages.len())];
    let started = thread_cpu();
    for message in messages {
        signature::verify(black_box(message)).expect("signed a moment ago");
    }
    (thread_cpu() - started).as_secs_f64() * 1e6 / messages.len() as f64
}

/// One sha256 of a content, microseconds.
fn sha256(messages: &[Envelope]) -> f64 {
    let messages = &messages[..CHECKS.min(messages.len())];
    let started = thread_cpu();
    for message in messages {
        black_box(Sha256::digest(message.item_content.as_deref().unwrap_or_default()));
    }
    (thread_cpu() - started).as_secs_f64() * 1e6 / messages.len() as f64
}

/// What the bulk way took.
struct Bulk {
    wall: Duration,
    cpu: Duration,
    sandbox: Duration,
    commits: Duration,
}

async fn bulk(folder: &Path, messages: &[Envelope]) -> Result<Bulk> {
    let service = open(folder).await?;
    let texts: Vec<String> = messages.iter().map(ccn_message::sign::to_json).collect();
    let (started, cpu, commits) = (Instant::now(), process_cpu(), service.store.commit_time());
    let sandbox = sandbox(&service);
    submit_all(&service, texts).await?;
    let bulk = Bulk {
        wall: started.elapsed(),
        cpu: process_cpu() - cpu,
        sandbox: self::sandbox(&service) - sandbox,
        commits: service.store.commit_time() - commits,
    };
    close(service).await;
    Ok(bulk)
}

/// Wall time in plugins, over all threads.
fn sandbox(service: &Service) -> Duration {
    Duration::from_micros(
        service.plugins.list().iter().filter_map(|plugin: &PluginInfo| Some(plugin.statistics.as_ref()?.micros)).sum(),
    )
}

async fn http(folder: &Path, messages: &[Envelope], concurrency: usize) -> Result<(Duration, Duration)> {
    // Compiled plugins are not what is measured.
    let node = Served::start(folder)?;
    let client = reqwest::Client::builder().build()?;
    let url = format!("{}/api/v0/messages", node.url);
    let body = |message| format!(r#"{{"message":{},"sync":true}}"#, ccn_message::sign::to_json(message));
    let bodies: Vec<String> = messages.iter().map(body).collect();
    let (started, cpu) = (Instant::now(), node.cpu()?);
    let mut answers = stream::iter(bodies)
        .map(|body| client.post(&url).header("content-type", "application/json").body(body).send())
        .buffer_unordered(concurrency);
    while let Some(answer) = answers.next().await {
        let answer = answer?;
        let status = answer.status();
        let text = answer.text().await?;
        // Requests overtake each other: what a FORGET has hidden before it came is gone.
        ensure!(status.is_success() || status == reqwest::StatusCode::GONE, "{status}: {text}");
    }
    Ok((started.elapsed(), node.cpu()? - cpu))
}

async fn aggregate(folder: &Path, workload: &mut Workload) -> Result<AggregateFigures> {
    const SUBKEYS: [usize; 2] = [10, 10_000];
    const UPDATES: usize = 200;
    let mut figures = AggregateFigures { subkeys: SUBKEYS, fuel: [0; 2], cpu_us: [0.0; 2] };
    for (index, subkeys) in SUBKEYS.into_iter().enumerate() {
        let service = open(&folder.join(format!("aggregate-{subkeys}"))).await?;
        let elements = workload.aggregate(subkeys);
        submit_all(&service, elements.iter().map(ccn_message::sign::to_json).collect()).await?;
        let updates = workload.updates(subkeys, UPDATES);
        let fuel =
            || service.plugins.list().iter().filter_map(|plugin| Some(plugin.statistics.as_ref()?.fuel)).sum::<u64>();
        let (before, cpu) = (fuel(), process_cpu());
        submit_all(&service, updates.iter().map(ccn_message::sign::to_json).collect()).await?;
        figures.fuel[index] = (fuel() - before) / UPDATES as u64;
        figures.cpu_us[index] = (process_cpu() - cpu).as_secs_f64() * 1e6 / UPDATES as f64;
        close(service).await;
    }
    Ok(figures)
}

/// Starts a node in a folder that holds messages, and asks for one.
async fn start(folder: &Path, messages: u64) -> Result<StartFigures> {
    // The first start writes the code of the plugins for this very program.
    drop(Served::start(folder)?);
    let node = Served::start(folder)?;
    let asked = Instant::now();
    let answer = reqwest::get(format!("{}/api/v0/messages.json?pagination=1", node.url)).await?.text().await?;
    let ready_ms = node.ready.as_secs_f64() * 1e3;
    let first_answer_ms = ready_ms + asked.elapsed().as_secs_f64() * 1e3;
    let answer: serde_json::Value = serde_json::from_str(&answer)?;
    let total = answer["pagination_total"].as_u64().context("a total")?;
    // Some were forgotten.
    ensure!(total > messages / 2, "the node holds {total} messages of {messages}");
    Ok(StartFigures { messages: total, ready_ms, first_answer_ms })
}

fn process_cpu() -> Duration {
    clock(rustix::time::ClockId::ProcessCPUTime)
}

fn thread_cpu() -> Duration {
    clock(rustix::time::ClockId::ThreadCPUTime)
}

fn clock(clock: rustix::time::ClockId) -> Duration {
    let time = rustix::time::clock_gettime(clock);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

fn print(report: &Report) {
    let Report { processors, signature_check_us, sha256_us, .. } = report;
    println!("\ningest: signed messages to committed ones, durable, {processors} processors");
    println!("mix: {}\n", workload::MIX);
    println!("{:<28}{:>10}{:>14}{:>14}{:>16}", "", "messages", "messages/s", "CPU µs each", "signature checks");
    println!("{:<28}{:>10}{:>14}{signature_check_us:>14.1}{:>16.2}", "one signature check", "", "", 1.0);
    let checks = sha256_us / signature_check_us;
    println!("{:<28}{:>10}{:>14}{sha256_us:>14.1}{checks:>16.2}", "one sha256 of a content", "", "");
    for way in &report.ways {
        println!(
            "{:<28}{:>10}{:>14.0}{:>14.1}{:>16.2}",
            way.name, way.messages, way.rate, way.cpu_us, way.signature_checks
        );
    }
    let bulk = &report.ways[0];
    println!(
        "\nof the bulk way's {:.1} µs: signature {signature_check_us:.1}, sandbox {:.1} (wall), commits {:.1} (wall, one thread); HTTP adds {:.1} at 256 at once",
        bulk.cpu_us, report.sandbox_us, report.commit_us, report.http_us
    );
    println!("bytes on disk: {:.0} a message", report.bytes_on_disk_a_message);
    let AggregateFigures { subkeys, fuel, cpu_us } = &report.aggregate;
    println!(
        "one subkey of an aggregate: with {} subkeys fuel {} and {:.0} µs, with {} subkeys fuel {} and {:.0} µs",
        subkeys[0], fuel[0], cpu_us[0], subkeys[1], fuel[1], cpu_us[1]
    );
    print_start(&report.start);
    let http: Vec<String> = report.ways[1..].iter().map(|way| format!("{:.2}", way.signature_checks)).collect();
    println!(
        "\nratios, to one signature check: bulk {:.2}, HTTP at 1/16/256 {}; aggregate of {} to {} subkeys {:.2}",
        bulk.signature_checks,
        http.join("/"),
        subkeys[1],
        subkeys[0],
        fuel[1] as f64 / fuel[0].max(1) as f64
    );
}
