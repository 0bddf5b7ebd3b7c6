//! `cargo xtask bench plugins`: what a plugin that does its worst takes from everybody else.
//!
//! A node takes in POSTs as fast as clients can send them, while messages of another type come at a steady rate, whose plugin is harmless or one of
//! the hostile ones. Each measurement has a node of its own, so that it sees the plugin come, misbehave and be stopped. The cases are by turns,
//! and rates are compared within a round.

use crate::{
    devnet::{ANSWER_WITHIN, CoreNode},
    hand_made::HandMade,
    http::Client,
    installation::Installation,
};
use anyhow::{Context as _, Result, ensure};
use ccn_message::{
    ItemHash,
    sign::{Account, Draft, to_json},
};
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

/// The message type of the plugin beside.
const KIND: &str = "BENCH";
/// Clients that send POSTs all the time.
const CLIENTS: usize = 8;
/// Senders: each has its own account.
const SENDERS: u8 = 8;
/// Memory of the hand-made plugins, fuel of a call: the default of the manifest.
const FUEL: u64 = 100_000_000;

/// What is measured.
#[derive(Debug, Clone)]
pub struct Bench {
    /// The core node.
    pub installation: Installation,
    /// Measurements of each case.
    pub rounds: usize,
    /// How long one takes.
    pub seconds: f64,
    /// Messages of the other type, per second.
    pub feed: f64,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Measurements of each case.
    pub rounds: usize,
    /// How long one takes.
    pub seconds: f64,
    /// Messages of the other type, per second.
    pub feed: f64,
    /// By turns.
    pub cases: Vec<Case>,
    /// The lowest of the medians of `to_harmless`.
    pub lowest_ratio: f64,
}

/// One plugin.
#[derive(Debug, Clone, Serialize)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// POSTs that were answered, per second, by round.
    pub rates: Vec<f64>,
    /// The median.
    pub rate: f64,
    /// The median of the rate by that without any plugin in the same round.
    pub to_alone: f64,
    /// The median of the rate by that with a harmless plugin that gets as many messages.
    pub to_harmless: f64,
    /// What the node said of the plugin at the end of the last round.
    pub state: String,
    /// And why.
    pub reason: String,
}

/// The cases: a name, and a plugin unless there is none.
fn plugins() -> Vec<(&'static str, Option<HandMade>)> {
    let manifest = json!({
        "name": "bench", "version": "1", "wit": "aleph:plugin@0.2", "kind": "handler", "types": [KIND],
        "state": {"own": "bench", "version": 1}, "grants": [], "routes": [],
        "limits": {"fuel": FUEL, "memory-mib": 64, "write-kib": 1024, "writes": 10_000},
    })
    .to_string();
    let with = |process: &str| {
        let mut plugin = HandMade::new(&manifest);
        plugin.process = process.to_owned();
        Some(plugin)
    };
    let counted = |count: u32, body: &str| {
        format!(
            "(local.set $i (i32.const {count})) (loop $on {body}
            (local.set $i (i32.sub (local.get $i) (i32.const 1))) (br_if $on (local.get $i))) (i32.const 4096)"
        )
    };
    vec![
        ("alone", None),
        ("harmless", with("i32.const 4096")),
        ("loop", with("(loop $on (br $on)) unreachable")),
        // Takes all memory that it may have, touches every page of it, and ends well.
        (
            "memory",
            with(
                "(drop (memory.grow (i32.const 1020))) (local.set $i (i32.const 66846720))
                (loop $on (local.set $i (i32.sub (local.get $i) (i32.const 4096)))
                (i32.store8 (local.get $i) (i32.const 1)) (br_if $on (i32.gt_u (local.get $i) (i32.const 200000))))
                (memory.fill (i32.const 8192) (i32.const 0) (i32.const 64)) (i32.const 8192)",
            ),
        ),
        ("trap", with("unreachable")),
        // Asks as often as its fuel allows, fills the log, and ends well.
        (
            "flood",
            with(&counted(
                3_000,
                "(call $get (i32.const 1024) (i32.const 6) (i32.const 8192))
                (call $log (i32.const 3) (i32.const 4096) (i32.const 100))",
            )),
        ),
        // Nearly all of its fuel, each time, and never a failure.
        ("slow", with(&counted(14_000_000, ""))),
        // How deep the stack goes is all that is left of the machine to see.
        ("stack", with("(call $deep (i32.const 0))")),
        // A mark that is not the node's on the compiled code: it is compiled again while POSTs come.
        ("corrupted", with("i32.const 4096")),
    ]
}

/// Measures.
///
/// # Errors
/// A node does not start, or does not take what it is sent.
pub fn run(bench: &Bench, progress: impl Fn(&str)) -> Result<Report> {
    ensure!(bench.rounds > 0 && bench.seconds > 0.0, "nothing is to be measured");
    let scratch = tempfile::tempdir()?;
    progress("signing messages");
    let posts = Messages::sign("POST", 60_000, |number| json!({"type": "note", "content": {"number": number}}))?;
    let others = (bench.feed * bench.seconds).ceil() as usize + 10;
    let others = Messages::sign(KIND, others, |number| json!({"number": number}))?;
    // What is compiled once is compiled for all: it would be measured otherwise.
    let template = scratch.path().join("template");
    let compiled = |folder: &Path| folder.join("data/compiled-plugins");
    let cases = plugins();
    let mut components = Vec::new();
    for (name, plugin) in &cases {
        let component = plugin.as_ref().map(HandMade::component).transpose().with_context(|| (*name).to_owned())?;
        let folder = template.join("data/plugins");
        fs::create_dir_all(&folder)?;
        if let Some(component) = &component {
            fs::write(folder.join("own.wasm"), component)?;
            progress(&format!("compiling {name}"));
            CoreNode::start(&bench.installation, &template, &[])?.stop()?;
        }
        components.push(component);
    }
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); cases.len()];
    let mut ends = vec![(String::new(), String::new()); cases.len()];
    for round in 0..bench.rounds {
        for place in 0..cases.len() {
            // Another one begins each round.
            let place = (place + round) % cases.len();
            let name = cases[place].0;
            progress(&format!("round {} of {}: {name}", round + 1, bench.rounds));
            let folder = scratch.path().join(format!("{name}-{round}"));
            fs::create_dir_all(folder.join("data/plugins"))?;
            copy(&compiled(&template), &compiled(&folder))?;
            let place_it = |component: &Vec<u8>| -> Result<PathBuf> {
                let path = folder.join("data/plugins/own.wasm");
                fs::write(&path, component)?;
                Ok(path)
            };
            let is_late = name == "corrupted";
            if let Some(component) = &components[place] {
                if is_late {
                    corrupt(&compiled(&folder), &ItemHash::sha256_of(component).to_string())?;
                } else {
                    place_it(component)?;
                }
            }
            let mut node = CoreNode::start(&bench.installation, &folder, &[])?;
            if let Some(component) = components[place].as_ref().filter(|_| is_late) {
                place_it(component)?;
            }
            let feed = if components[place].is_some() { bench.feed } else { 0.0 };
            rates[place].push(measure(&node, &posts, &others, feed, bench.seconds)?);
            ends[place] = end(&node.client())?;
            node.stop()?;
            fs::remove_dir_all(&folder)?;
        }
    }
    let cases: Vec<Case> = cases
        .iter()
        .zip(&rates)
        .zip(ends)
        .map(|(((name, _), own), (state, reason))| Case {
            name: (*name).to_owned(),
            rates: own.clone(),
            rate: median(own.clone()),
            to_alone: ratio(own, &rates[0]),
            to_harmless: ratio(own, &rates[1]),
            state,
            reason,
        })
        .collect();
    let lowest_ratio = cases[2..].iter().map(|case| case.to_harmless).fold(f64::INFINITY, f64::min);
    Ok(Report { rounds: bench.rounds, seconds: bench.seconds, feed: bench.feed, cases, lowest_ratio })
}

/// Signed messages, as bodies of requests.
struct Messages(Vec<Vec<u8>>);

impl Messages {
    fn sign(kind: &str, count: usize, content: impl Fn(usize) -> Value + Sync) -> Result<Self> {
        let accounts = (1..=SENDERS).map(|number| Account::ethereum([number; 32]));
        let accounts = accounts.collect::<Result<Vec<_>, _>>().context("a key")?;
        let sign = |number: usize| {
            let draft = Draft::new(kind, &content(number).to_string()).time(1_790_000_000.0 + number as f64);
            let message = to_json(&draft.sign(&accounts[number % accounts.len()]));
            format!(r#"{{"sync":true,"message":{message}}}"#).into_bytes()
        };
        Ok(Self((0..count).map(sign).collect()))
    }
}

/// POSTs that are answered per second.
fn measure(node: &CoreNode, posts: &Messages, others: &Messages, feed: f64, seconds: f64) -> Result<f64> {
    let (over, next, taken) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let client = |_| Client::new(node.url(), ANSWER_WITHIN);
    thread::scope(|scope| {
        let senders: Vec<_> = (0..CLIENTS)
            .map(client)
            .map(|client| {
                let (over, next, taken) = (&over, &next, &taken);
                scope.spawn(move || -> Result<()> {
                    while !over.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let message =
                            posts.0.get(number).context("the node is faster than messages were signed for")?;
                        let answer = client.post("/api/v0/messages", "application/json", message)?;
                        ensure!(answer.status == 200, "a POST is answered {}: {}", answer.status, answer.text());
                        taken.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        let feeder = (feed > 0.0).then(|| {
            let (over, client) = (&over, client(0));
            scope.spawn(move || -> Result<()> {
                let began = Instant::now();
                for (number, message) in others.0.iter().enumerate() {
                    let due = Duration::from_secs_f64(number as f64 / feed);
                    thread::sleep(due.saturating_sub(began.elapsed()));
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    // Whatever is said to it: it must not wait for a verdict that takes its time.
                    let text = String::from_utf8_lossy(message).replacen("\"sync\":true", "\"sync\":false", 1);
                    client.post("/api/v0/messages", "application/json", text.as_bytes())?;
                }
                Ok(())
            })
        });
        let (began, before) = (Instant::now(), taken.load(Ordering::Relaxed));
        thread::sleep(Duration::from_secs_f64(seconds));
        let rate = (taken.load(Ordering::Relaxed) - before) as f64 / began.elapsed().as_secs_f64();
        over.store(true, Ordering::Relaxed);
        for thread in senders.into_iter().chain(feeder) {
            thread.join().map_err(|_| anyhow::anyhow!("a client ended in a panic"))??;
        }
        Ok(rate)
    })
}

/// What the node says of the plugin, and why.
fn end(client: &Client) -> Result<(String, String)> {
    let list = client.get("/api/v0/plugins")?.json()?;
    let own = list["plugins"].as_array().into_iter().flatten().find(|plugin| plugin["file"] == "own.wasm").cloned();
    let own = own.unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let reason = match &own["reason"] {
        Value::String(reason) => reason.clone(),
        _ => match own["statistics"]["deferred"].as_u64() {
            Some(deferred) if deferred > 0 => format!("{deferred} calls waited for time"),
            _ => "-".to_owned(),
        },
    };
    Ok((text(&own["state"]), reason))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let place = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &place)?
        } else {
            fs::copy(entry.path(), place).map(drop)?
        }
    }
    Ok(())
}

/// Changes a byte of compiled code.
fn corrupt(folder: &Path, sha256: &str) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path().join(format!("{sha256}.cwasm"));
        if path.is_file() {
            let mut bytes = fs::read(&path)?;
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&path, bytes)?;
            return Ok(());
        }
    }
    anyhow::bail!("{sha256} was not compiled")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        length if length % 2 == 1 => values[length / 2],
        length => f64::midpoint(values[length / 2 - 1], values[length / 2]),
    }
}

/// The median of the ratios round by round.
fn ratio(own: &[f64], other: &[f64]) -> f64 {
    median(own.iter().zip(other).map(|(own, other)| own / other.max(f64::MIN_POSITIVE)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_round_by_round() {
        assert_eq!(ratio(&[1.0, 20.0, 3.0], &[2.0, 10.0, 3.0]), 1.0);
        assert_eq!((median(vec![4.0, 1.0]), median(vec![])), (2.5, 0.0));
    }

    #[test]
    fn every_hostile_plugin_is_a_component() {
        for (name, plugin) in plugins() {
            if let Some(plugin) = plugin {
                plugin.component().unwrap_or_else(|error| panic!("{name}: {error:#}"));
            }
        }
    }
}
