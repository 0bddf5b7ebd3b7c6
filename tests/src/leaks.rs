//! What machines leave behind when they are gone: nothing. Looked at after every test, in the host that all share.

use anyhow::{Result, bail};
use harness::kvm_host::{Kind, KvmHost};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// How long the end of what a test has killed may take, in a busy emulated host.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Prints a line for each thing that nobody has any more: monitors without a node, groups of machines without a process.
const LOOK: &str = "
for status in /proc/[0-9]*/status; do
  name= parent= state=
  while read -r key value rest; do
    case $key in Name:) name=$value;; PPid:) parent=$value;; State:) state=$value;; esac
  done < $status 2>/dev/null
  case \"$name $parent $state\" in
    'vmm 1 Z') ;;
    'vmm 1 '*) echo \"process ${status%/status} is a monitor without a node\";;
  esac
done
for group in $(find /sys/fs/cgroup -type d -name 'machine-*' 2>/dev/null); do
  [ -e $group/cgroup.procs ] && [ -z \"$(cat $group/cgroup.procs 2>/dev/null)\" ] && echo \"control group $group has no process\"
done
true";

/// Fails if something is there that belongs to no machine, and does not go by itself.
pub(crate) fn check(host: &KvmHost) -> Result<()> {
    // In a host that others use too, what belongs to nobody here may be theirs.
    if host.kind() != Kind::Emulated {
        return Ok(());
    }
    let deadline = Instant::now() + SETTLED_WITHIN;
    // What is only passing, such as the group of a machine that is just being made, is not there at every look.
    let mut left = look(host)?;
    while !left.is_empty() {
        if Instant::now() > deadline {
            bail!("left behind: {}", left.into_iter().collect::<Vec<_>>().join("; "));
        }
        std::thread::sleep(LOOK_EVERY);
        left = left.intersection(&look(host)?).cloned().collect();
    }
    Ok(())
}

/// Once every node has stopped, no machine is left at all.
pub(crate) fn check_end(host: &KvmHost, interfaces: &[String]) -> Result<()> {
    if host.kind() != Kind::Emulated {
        return Ok(());
    }
    check(host)?;
    let processes: Vec<String> = host.processes()?.into_iter().map(|process| process.command).collect();
    let monitors: Vec<&String> = processes.iter().filter(|command| command.contains("/vmm")).collect();
    let groups = host.run(&["find", "/sys/fs/cgroup", "-type", "d", "-name", "machine-*"])?.text();
    let now = host.network_interfaces()?;
    if !monitors.is_empty() || !groups.is_empty() || now != interfaces {
        bail!("left behind when all nodes had stopped: processes {monitors:?}, groups {groups:?}, interfaces {now:?}");
    }
    Ok(())
}

fn look(host: &KvmHost) -> Result<BTreeSet<String>> {
    Ok(host.shell(LOOK)?.lines().map(str::to_owned).collect())
}
