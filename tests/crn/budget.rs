//! What a cold start costs its monitor, in counts: they are the same on any hardware.

use super::clones::{COLD, FUNCTION, TEMPLATES, wait_until_idle, ways};
use crate::{
    answer::expect,
    stage::{self, COLD_WITHIN, wait_until},
};
use anyhow::{Result, ensure};
use harness::{kvm_host::Kind, trace::Trace};
use serde_json::json;
use std::{fs, time::Duration};

/// System calls of a monitor from the order to the guest's first instruction, at most.
const SYSTEM_CALLS: usize = 60;
/// What a monitor that waits has behind it: making processes and programs, mounts, namespaces. By number, for x86_64.
const BEFOREHAND: [(u32, &str); 13] = [
    (56, "clone"),
    (57, "fork"),
    (58, "vfork"),
    (59, "execve"),
    (155, "pivot_root"),
    (165, "mount"),
    (166, "umount2"),
    (272, "unshare"),
    (308, "setns"),
    (322, "execveat"),
    (429, "move_mount"),
    (432, "fsmount"),
    (435, "clone3"),
];

pub(crate) fn system_calls() -> Result<()> {
    let network = stage::network()?;
    if network.host.kind() != Kind::Emulated {
        println!("skipped: it sets up the kernel's tracing, which is only ours in an emulated host");
        return Ok(());
    }
    let node = network.another_compute_node("crn-budget", &[COLD, TEMPLATES, "templates.monitors=1"])?;
    let hash = network.binary("budget", 60, json!({}))?;
    let client = node.client(COLD_WITHIN);
    // Makes the template, then shows which machines the one monitor in advance is to get ready for.
    for _ in 0..2 {
        expect(200, client.get(&format!("/vm/{hash}/"))?)?;
        wait_until_idle(&node)?;
    }
    let mut waiting = Vec::new();
    wait_until(Duration::from_secs(120), "a monitor waits and does nothing", || {
        waiting = node.monitors()?;
        let [monitor] = waiting[..] else { return Ok(false) };
        // Its loop and its processor's thread.
        Ok(network.host.shell(&format!("ls /proc/{monitor}/task | wc -l"))?.trim().parse::<usize>()? >= 2)
    })?;
    let call = || expect(200, client.get(&format!("/vm/{hash}/"))?);
    let (_, trace) = Trace::of(network.host, &waiting, call)?;
    ensure!(ways(&node, hash)?.last().is_some_and(|way| way == FUNCTION), "{:?}", ways(&node, hash)?);

    fs::write(stage::folder("budget")?.join("trace"), &trace.text)?;
    let calls = trace.system_calls_before_entry()?;
    let count: usize = calls.values().sum();
    println!("{count} system calls from the order to the guest's first instruction, by number: {calls:?}");
    ensure!(count <= SYSTEM_CALLS, "{count} system calls, by number: {calls:?}");
    for (number, name) in BEFOREHAND {
        ensure!(!calls.contains_key(&number), "{name} is for before the order");
    }
    node.stop()
}
