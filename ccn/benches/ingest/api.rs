//! What reading costs: each endpoint of a node that holds many messages, at several concurrencies.

use super::{
    CONCURRENCY, STORE,
    served::{Served, fill},
    workload::Workload,
};
use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use serde_json::Value;
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// Messages by which endpoints are asked for.
const SAMPLE: usize = 200;
/// Aims: processor time of a page of 20 elements; resident memory; bytes on disk for each byte of a message.
const PAGE_AIM_US: f64 = 2000.0;
const MEMORY_AIM_KIB: f64 = 200.0 * 1024.0;
const DISK_AIM: f64 = 2.0;
/// One in how many requests is slower than the tail that is shown.
const TAIL: usize = 100;

/// What an endpoint took at one concurrency.
#[derive(Debug, Serialize)]
struct Figures {
    at_once: usize,
    /// Milliseconds: the middle, and what all but one in a hundred keep below.
    median_ms: f64,
    tail_ms: f64,
    /// Processor time of the node, microseconds a request.
    cpu_us: f64,
}

#[derive(Debug, Serialize)]
struct Endpoint {
    name: &'static str,
    figures: Vec<Figures>,
}

#[derive(Debug, Serialize)]
struct Report {
    messages: usize,
    endpoints: Vec<Endpoint>,
    resident_kib_at_start: u64,
    resident_kib: u64,
    ready_ms: f64,
    disk_bytes_a_message: f64,
    disk_to_message_bytes: f64,
}

/// A message of the sample.
struct Sample {
    hash: String,
    sender: String,
}

/// Makes a path from a message of the sample.
type ToPath = fn(&Sample) -> String;

/// Endpoints with the parameters that clients give.
const ENDPOINTS: [(&str, ToPath); 16] = [
    ("version", |_| "/api/v0/version".into()),
    ("messages.json", |_| "/api/v0/messages.json".into()),
    ("messages.json, sender and type", |sample| {
        format!("/api/v0/messages.json?addresses={}&msgTypes=POST", sample.sender)
    }),
    ("messages.json, owner and type", |sample| {
        format!("/api/v0/messages.json?owners={}&msgTypes=AGGREGATE", sample.sender)
    }),
    ("messages.json, channel and type", |_| "/api/v0/messages.json?channels=BENCH&msgTypes=FORGET".into()),
    ("messages.json, kind of post", |_| "/api/v0/messages.json?contentTypes=note".into()),
    ("messages.json, tag", |_| "/api/v0/messages.json?tags=bench".into()),
    ("messages.json, by confirmation", |_| "/api/v0/messages.json?sortBy=tx-time".into()),
    ("messages.json, hash", |sample| format!("/api/v0/messages.json?hashes={}", sample.hash)),
    ("messages/HASH", |sample| format!("/api/v0/messages/{}", sample.hash)),
    ("messages/HASH/status", |sample| format!("/api/v0/messages/{}/status", sample.hash)),
    ("posts.json, owner", |sample| format!("/api/v0/posts.json?addresses={}", sample.sender)),
    ("aggregates/ADDRESS.json", |sample| format!("/api/v0/aggregates/{}.json", sample.sender)),
    ("addresses/ADDRESS/balance", |sample| format!("/api/v0/addresses/{}/balance", sample.sender)),
    ("addresses/stats.json", |_| "/api/v1/addresses/stats.json".into()),
    ("metrics.json", |_| "/metrics.json".into()),
];

/// Fills a store, starts a node on it and asks it.
pub(super) async fn measure(messages: usize, requests: usize, json: Option<&Path>) -> Result<()> {
    ensure!(messages > 0 && requests > 0, "there is nothing to measure: at least one message and one request");
    let folder = tempfile::tempdir()?;
    let bytes = fill(folder.path(), Workload::of_many(7), messages).await?;
    // The first start writes the code of the plugins for this very program.
    drop(Served::start(folder.path())?);
    let node = Served::start(folder.path())?;
    let client = reqwest::Client::builder().build()?;
    let sample = sample(&client, &node.url).await?;
    let resident_kib_at_start = node.resident_kib()?;
    let mut endpoints = Vec::new();
    for (name, to_path) in ENDPOINTS {
        let mut figures = Vec::new();
        for at_once in CONCURRENCY {
            figures.push(ask(&client, &node, &sample, to_path, requests, at_once).await?);
        }
        endpoints.push(Endpoint { name, figures });
    }
    let stored = fs::metadata(folder.path().join(STORE))?.len() as f64;
    let report = Report {
        messages,
        endpoints,
        resident_kib_at_start,
        resident_kib: node.resident_kib()?,
        ready_ms: node.ready.as_secs_f64() * 1e3,
        disk_bytes_a_message: stored / messages as f64,
        disk_to_message_bytes: stored / bytes as f64,
    };
    if let Some(path) = json {
        fs::write(path, serde_json::to_string_pretty(&report)? + "\n").with_context(|| path.display().to_string())?;
    }
    print(&report);
    Ok(())
}

/// Some messages, from all over the store.
async fn sample(client: &reqwest::Client, url: &str) -> Result<Vec<Sample>> {
    let page = async |number: usize| -> Result<Value> {
        let path = format!("{url}/api/v0/messages.json?msgTypes=POST&page={number}&contentFormat=none");
        let answer = client.get(path).send().await?.error_for_status()?;
        Ok(serde_json::from_str(&answer.text().await?)?)
    };
    let pages = usize::try_from(page(1).await?["pagination_total"].as_u64().context("a total")?)? / 20;
    let mut sample = Vec::new();
    for place in 0..(SAMPLE / 20) {
        let found = page(1 + place * pages.min(1000) / (SAMPLE / 20)).await?;
        for message in found["messages"].as_array().context("messages")? {
            let text = |name: &str| message[name].as_str().map(str::to_owned).context("a text");
            sample.push(Sample { hash: text("item_hash")?, sender: text("sender")? });
        }
    }
    ensure!(!sample.is_empty(), "the node has no posts");
    Ok(sample)
}

async fn ask(
    client: &reqwest::Client,
    node: &Served,
    sample: &[Sample],
    to_path: ToPath,
    requests: usize,
    at_once: usize,
) -> Result<Figures> {
    let cpu = node.cpu()?;
    let paths = (0..requests).map(|place| format!("{}{}", node.url, to_path(&sample[place % sample.len()])));
    let mut answers = stream::iter(paths)
        .map(async |path| -> Result<Duration> {
            let asked = Instant::now();
            let answer = client.get(&path).send().await?;
            let status = answer.status();
            let body = answer.bytes().await?;
            // A sender may have no aggregate, a message may have been forgotten.
            ensure!(
                status.is_success() || status.as_u16() == 404,
                "{path}: {status}: {}",
                String::from_utf8_lossy(&body)
            );
            Ok(asked.elapsed())
        })
        .buffer_unordered(at_once);
    let mut took = Vec::new();
    while let Some(answer) = answers.next().await {
        took.push(answer?);
    }
    drop(answers);
    took.sort();
    let ms = |place: usize| took[place.min(took.len() - 1)].as_secs_f64() * 1e3;
    Ok(Figures {
        at_once,
        median_ms: ms(took.len() / 2),
        tail_ms: ms(took.len() - took.len().div_ceil(TAIL)),
        cpu_us: (node.cpu()? - cpu).as_secs_f64() * 1e6 / requests as f64,
    })
}

fn print(report: &Report) {
    println!("\napi: a node with {} messages; client and node share the processors\n", report.messages);
    println!("{:<34}{:>26}{:>26}{:>26}", "", "1 at once", "16 at once", "256 at once");
    let heads = format!("{:>9}{:>8}{:>9}", "p50 ms", "p99", "CPU µs");
    println!("{:<34}{heads}{heads}{heads}", "");
    for endpoint in &report.endpoints {
        print!("{:<34}", endpoint.name);
        for figures in &endpoint.figures {
            print!("{:>9.2}{:>8.2}{:>9.0}", figures.median_ms, figures.tail_ms, figures.cpu_us);
        }
        println!();
    }
    println!(
        "\nresident memory: {} MiB at the start, {} MiB afterwards; ready after {:.0} ms; {:.0} bytes on disk a message",
        report.resident_kib_at_start >> 10,
        report.resident_kib >> 10,
        report.ready_ms,
        report.disk_bytes_a_message
    );
    let dearest = report.endpoints.iter().flat_map(|endpoint| &endpoint.figures).map(|figures| figures.cpu_us);
    println!(
        "ratios, to what is aimed at: dearest page {:.2} of 2 ms, memory {:.2} of 200 MiB, disk {:.2} of twice the messages' own bytes",
        dearest.fold(0.0, f64::max) / PAGE_AIM_US,
        report.resident_kib as f64 / MEMORY_AIM_KIB,
        report.disk_to_message_bytes / DISK_AIM,
    );
}
