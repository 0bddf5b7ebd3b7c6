//! More programs at once than a node has room for.

use super::jail::machine_groups;
use crate::{
    answer::at_once,
    stage::{self, COLD_WITHIN},
};
use anyhow::{Context as _, Result, ensure};
use harness::{devnet::ComputeNode, kvm_host::Kind};
use serde_json::{Value, json};
use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Programs that are called at once, and machines that fit. `BETH_STORM=200,40` is a storm in earnest.
const PROGRAMS: usize = 18;
const FIT: usize = 4;
/// What a machine of 128 MiB counts for, MiB.
const MACHINE_MIB: usize = 136;
/// How long each call lasts in its program, milliseconds: machines come up faster than these end, so that all are busy and others are refused.
const CALL_MS: usize = 12_000;
/// How long a call waits for room, seconds; then it is refused, and comes again.
const PATIENCE_SECONDS: usize = 5;
/// How often the node is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long one program may take to be answered in the end, for each that fits.
const WITHIN_EACH: Duration = Duration::from_secs(60);

pub(crate) fn more_than_fit() -> Result<()> {
    let (programs, fit) = match std::env::var("BETH_STORM") {
        Ok(text) => {
            let (programs, fit) = text.split_once(',').context("BETH_STORM=PROGRAMS,FIT")?;
            (programs.parse()?, fit.parse()?)
        }
        Err(_) => (PROGRAMS, FIT),
    };
    let network = stage::network()?;
    let memory = format!("programs.memory_mib={}", fit * MACHINE_MIB);
    let patience = format!("programs.patience_seconds={PATIENCE_SECONDS}");
    let settings = ["templates.level=runtime", "programs.vcpus=1000", &memory, &patience];
    let node = network.another_compute_node("crn-storm", &settings)?;
    let hashes: Vec<&str> = (0..programs)
        .map(|copy| network.binary(&format!("storm {copy}"), 300, json!({"COPY": copy.to_string()})))
        .collect::<Result<_>>()?;

    let deadline = Instant::now() + WITHIN_EACH * u32::try_from(programs.div_ceil(fit) + 2)?;
    let (refusals, most_machines) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let over = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let looking = scope.spawn(|| -> Result<()> {
            while !over.load(Ordering::Relaxed) {
                most_machines.fetch_max(machines_there_are(&node, fit)?, Ordering::Relaxed);
                thread::sleep(LOOK_EVERY);
            }
            Ok(())
        });
        let answered = at_once(programs, |index| {
            // The emulated host's network resets connections of a burst that its one queue has no room for.
            thread::sleep(Duration::from_millis(10 * index as u64));
            answered_in_the_end(&node, hashes[index], &refusals, deadline)
        });
        over.store(true, Ordering::Relaxed);
        looking.join().unwrap_or_else(|_| Err(anyhow::anyhow!("looking panicked")))?;
        answered.map(drop)
    })?;
    let (refusals, most) = (refusals.into_inner(), most_machines.into_inner());
    println!("{programs} programs on a node for {fit}: all answered, {refusals} refusals, {most} machines at most");
    // Forty may not come up as fast as their calls end.
    ensure!(refusals > 0 || fit > FIT, "nobody was refused: no storm");
    let log = node.process().log()?;
    let told = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    ensure!(told("a program is ready") >= programs, "each start is in the log");
    ensure!(told("a call is refused") >= refusals, "each refusal is in the log");
    node.stop()
}

/// Calls a program as long as it is refused, as its client would: when it is told to come again.
fn answered_in_the_end(node: &ComputeNode<'_>, hash: &str, refusals: &AtomicUsize, deadline: Instant) -> Result<()> {
    let client = node.client(COLD_WITHIN);
    loop {
        let answer = client.get(&format!("/vm/{hash}/machine?{CALL_MS}"))?;
        match answer.status {
            200 => return Ok(()),
            503 => {
                refusals.fetch_add(1, Ordering::Relaxed);
                let wait = answer.header("retry-after").context("a refusal says when to come again")?.parse()?;
                ensure!(Instant::now() < deadline, "{hash} is still refused: {}", answer.text());
                thread::sleep(Duration::from_secs(wait));
            }
            status => anyhow::bail!("{hash}: {status}: {}", answer.text()),
        }
    }
}

/// How many machines there are, in the node's own words and by what the host sees of them.
fn machines_there_are(node: &ComputeNode<'_>, fit: usize) -> Result<usize> {
    let listed: Value = serde_json::from_slice(&node.client(COLD_WITHIN).get("/v2/about/executions/list")?.body)?;
    let machines = listed.as_object().context("an object")?.len();
    ensure!(machines <= fit, "{machines} machines on a node for {fit}");
    if node.host().kind() == Kind::Emulated {
        let limit: u64 = (fit * MACHINE_MIB + 4 * 16) as u64 * (1 << 20);
        let groups = machine_groups(node)?.into_iter().map(|group| format!("{group}/memory.current"));
        let script = format!("cat {} 2>/dev/null; true", groups.collect::<Vec<_>>().join(" "));
        let text = node.host().shell(&script)?;
        let taken: u64 = text.split_whitespace().filter_map(|word| word.parse::<u64>().ok()).sum();
        ensure!(taken <= limit, "machines take {taken} bytes of {limit}");
    }
    Ok(machines)
}
