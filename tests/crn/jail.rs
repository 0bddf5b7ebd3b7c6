//! What a running machine monitor is, as its host sees it. What one that a guest has taken over can do is tried by
//! `crn/vmm/tests/jail`.

use crate::{
    answer::expect,
    stage::{self, COLD_WITHIN, NONE_IN_ADVANCE},
};
use anyhow::{Context as _, Result, ensure};
use harness::{devnet::ComputeNode, kvm_host::Kind};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// Every kind of namespace that a monitor has of its own.
const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// What the kernel says of a thread.
pub(crate) type Status = BTreeMap<String, String>;

pub(crate) fn confined() -> Result<()> {
    let network = stage::network()?;
    let node = network.another_compute_node("crn-jail", &[NONE_IN_ADVANCE])?;
    let client = node.client(COLD_WITHIN);
    for program in [network.binary("plain", 60, json!({}))?, network.binary("jailed", 60, json!({"N": "3"}))?] {
        expect(200, client.get(&format!("/vm/{program}/"))?)?;
    }
    let monitors = node.monitors()?;
    ensure!(monitors.len() == 2, "two machines run, not {monitors:?}");
    let own = statuses(&node, node.process().id())?.swap_remove(0);
    let is_root = own["Uid"].starts_with("0\t");

    let mut users = BTreeSet::new();
    for monitor in &monitors {
        let threads = statuses(&node, *monitor)?;
        ensure!(threads.len() >= 2, "a monitor has a thread for its devices and one for its processor: {threads:?}");
        for thread in &threads {
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                ensure!(thread[set] == "0000000000000000", "{set} of {thread:?}");
            }
            ensure!(thread["NoNewPrivs"] == "1" && thread["Seccomp"] == "2", "{thread:?}");
        }
        users.insert(threads[0]["Uid"].clone());
        if is_root {
            ensure!(threads[0]["Uid"] != own["Uid"] && threads[0]["Gid"] == threads[0]["Uid"], "{:?}", threads[0]);
            ensure!(threads[0]["Groups"].is_empty(), "{:?}", threads[0]);
            for kind in NAMESPACES {
                let of = |process: u32| said(&node, &format!("readlink /proc/{process}/ns/{kind}"));
                ensure!(of(*monitor)? != of(node.process().id())?, "{kind} is the node's own");
            }
            let root = said(&node, &format!("ls -A /proc/{monitor}/root/"))?;
            ensure!(root.is_empty(), "its root is not empty: {root}");
            let open = said(&node, &format!("ls -l /proc/{monitor}/fd"))?;
            ensure!(!open.contains("/dev/kvm"), "no other machine can be made: {open}");
        }
    }
    ensure!(!is_root || users.len() == 2, "each machine has an id of its own: {users:?}");

    // This host of ours has control groups.
    if network.host.kind() == Kind::Emulated {
        ensure!(machine_groups(&node)?.len() == 2, "{:?}", machine_groups(&node)?);
        for monitor in &monitors {
            let group = group_of(&node, *monitor)?;
            let limit = |file: &str| said(&node, &format!("cat {group}/{file}"));
            // 128 MiB for the guest, one for page tables, eight for the monitor.
            ensure!(limit("memory.max")? == (137_u64 << 20).to_string(), "{group}: {}", limit("memory.max")?);
            ensure!(limit("pids.max")? == "9", "{group}: {}", limit("pids.max")?);
        }
    }
    node.stop()?;
    Ok(())
}

/// The folders of the groups of machines that a node has: other nodes of this host have groups of the same names.
pub(crate) fn machine_groups(node: &ComputeNode<'_>) -> Result<Vec<String>> {
    let own = group_of(node, node.process().id())?;
    let all = own.strip_suffix("/node").with_context(|| format!("{own} is not the node's place"))?;
    // By the shell's own pattern: `ls` fails when a group goes while it looks.
    let list = said(
        node,
        &format!("cd {all} || exit 1; for group in machine-*; do [ -d $group ] && echo {all}/$group; done; true"),
    )?;
    Ok(list.lines().map(str::to_owned).collect())
}

/// The folder of a process's control group.
fn group_of(node: &ComputeNode<'_>, process: u32) -> Result<String> {
    let text = said(node, &format!("cat /proc/{process}/cgroup"))?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::")).with_context(|| text.clone())?;
    Ok(format!("/sys/fs/cgroup{path}"))
}

/// What the kernel says of each thread of a process; the first is the process's own.
pub(crate) fn statuses(node: &ComputeNode<'_>, process: u32) -> Result<Vec<Status>> {
    let text = said(node, &format!("cat /proc/{process}/task/*/status"))?;
    let mut threads: Vec<Status> = Vec::new();
    for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
        if name == "Name" {
            threads.push(Status::new());
        }
        threads.last_mut().context("a status begins with a name")?.insert(name.to_owned(), value.trim().to_owned());
    }
    ensure!(!threads.is_empty(), "process {process} is gone");
    Ok(threads)
}

/// What a command says in the node's host.
fn said(node: &ComputeNode<'_>, command: &str) -> Result<String> {
    Ok(node.host().shell(command)?.trim().to_owned())
}
