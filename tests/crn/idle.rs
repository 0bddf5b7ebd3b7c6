//! Machines that nobody calls: what they still do is what hundreds of them cost.

use super::{
    clones::{FUNCTION, TEMPLATES, ways},
    jail::statuses,
};
use crate::{
    answer::{at_once, expect},
    stage::{self, COLD_WITHIN, wait_until},
};
use anyhow::{Context as _, Result, ensure};
use harness::{devnet::ComputeNode, kvm_host::Kind};
use serde_json::json;
use std::{thread, time::Duration};

/// How long a machine may take for what it does beside others.
const WITHIN: Duration = Duration::from_secs(120);
/// How long machines are left alone before they are looked at: what they did last is over, free pages are reported.
const SETTLE: Duration = Duration::from_secs(25);
/// How long they are looked at.
const LOOK: Duration = Duration::from_secs(20);
/// How often, until they are found asleep: on a host with much to do, what they did last takes its time.
const LOOKS: u32 = 4;
/// How often a guest's processor may wake meanwhile. A server that polls ten times a second woke it 460 times, the kernel's compaction 80.
const WAKES: u64 = 60;

/// Makes orphans, and counts children that have ended and that nobody has waited for.
const ORPHANS: &str = "import asyncio, contextlib, os, subprocess
async def app(scope, receive, send):
    if scope['type'] != 'http':
        raise RuntimeError('only http')
    if scope['path'] == '/held':
        await asyncio.sleep(30)
    if scope['path'] == '/orphans':
        for _ in range(3):
            subprocess.run(['/bin/sh', '-c', '(sleep 0.2; exit 3) & exit 0'], check=True)
    stats = []
    for pid in os.listdir('/proc'):
        # One may end meanwhile.
        with contextlib.suppress(OSError):
            stats += [open(f'/proc/{pid}/stat').read()] if pid.isdigit() else []
    dead = sum(stat.rsplit(')', 1)[1].split()[0] == 'Z' for stat in stats)
    sleeps = sum('(sleep)' in stat for stat in stats)
    await send({'type': 'http.response.start', 'status': 200, 'headers': []})
    await send({'type': 'http.response.body', 'body': f'{dead} {sleeps}'.encode()})
";

pub(crate) fn asleep() -> Result<()> {
    let network = stage::network()?;
    let node = network.another_compute_node("crn-asleep", &[TEMPLATES, "programs.vcpus=16", "templates.monitors=1"])?;
    let hash = network.plain_with("orphans", ORPHANS, false, json!({"BETH_CONCURRENCY": "1"}))?;
    let client = node.client(COLD_WITHIN);
    let answer = expect(200, client.get(&format!("/vm/{hash}/"))?)?;
    // The server in the guest does not say it: it would have to look every second.
    ensure!(answer.header("date").is_some(), "an answer says what time it is: {answer:?}");
    expect(200, client.get(&format!("/vm/{hash}/orphans"))?)?;
    wait_until(WITHIN, "orphans end and are waited for", || {
        Ok(expect(200, client.get(&format!("/vm/{hash}/"))?)?.text() == "0 0")
    })?;

    // The one that was booted, and a clone, which comes up while the other is busy.
    at_once(2, |_| expect(200, client.get(&format!("/vm/{hash}/held"))?))?;
    wait_until(WITHIN, "a clone is ready", || Ok(ways(&node, hash)?.last().is_some_and(|way| way == FUNCTION)))?;

    if network.host.kind() == Kind::Emulated {
        thread::sleep(SETTLE);
        ensure!(wakes(&node)?.len() == 2, "two machines run: {:?}", wakes(&node)?);
        let mut awake = 0;
        for _ in 0..LOOKS {
            awake = most_wakes(&node)?;
            if awake <= WAKES {
                break;
            }
        }
        ensure!(awake <= WAKES, "the processor of an idle machine woke {awake} times in {LOOK:?}, however late");
    }
    node.stop()
}

/// How often the processor of a machine woke while it was looked at: of the one that woke most.
fn most_wakes(node: &ComputeNode<'_>) -> Result<u64> {
    let before = wakes(node)?;
    thread::sleep(LOOK);
    let woke = before.into_iter().zip(wakes(node)?).map(|((process, before), (_, after))| {
        println!("the processor of {process} woke {} times in {LOOK:?}", after - before);
        after - before
    });
    woke.max().context("machines run")
}

/// How often the processor of each machine that has run has slept: monitors, and counts.
fn wakes(node: &ComputeNode<'_>) -> Result<Vec<(u32, u64)>> {
    let mut all = Vec::new();
    for monitor in node.monitors()? {
        for thread in statuses(node, monitor)?.iter().filter(|thread| thread["Name"] == "vcpu0") {
            all.push((monitor, thread["voluntary_ctxt_switches"].parse()?));
        }
    }
    // One that waits for a machine has slept once.
    all.retain(|(_, count)| *count > 2);
    Ok(all)
}
