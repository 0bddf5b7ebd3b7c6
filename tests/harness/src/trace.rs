//! What a start costs the monitor that waits for it, in system calls and entries of its guest, by the tracing of an emulated host's kernel:
//! counts, which are the same on any hardware.

use crate::kvm_host::KvmHost;
use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeMap;

const TRACING: &str = "/sys/kernel/tracing";
/// What begins the number of a system call in a line.
const SYSTEM_CALL: &str = "sys_enter: NR ";
/// What is in the line of a guest's entry.
const ENTRY: &str = "kvm_entry:";

/// What monitors did while something was done.
#[derive(Debug)]
pub struct Trace {
    /// In the kernel's words, for who looks closer.
    pub text: String,
}

impl Trace {
    /// Traces these monitors, which wait for a machine and do nothing else, while `act` is done.
    ///
    /// # Errors
    /// The host does not trace; or those of `act`, once tracing has ended.
    pub fn of<T>(host: &KvmHost, monitors: &[u32], act: impl FnOnce() -> Result<T>) -> Result<(T, Self)> {
        let tasks: Vec<String> = monitors.iter().map(|monitor| format!("/proc/{monitor}/task")).collect();
        ensure!(!tasks.is_empty(), "no monitor waits for a machine");
        host.shell(&format!(
            "[ -e {TRACING}/trace ] || mount -t tracefs tracefs {TRACING}
            cd {TRACING} && echo 0 > tracing_on && echo > trace && echo 16384 > buffer_size_kb
            echo $(ls {} | grep -v :) > set_event_pid && echo 1 > options/event-fork
            echo 1 > events/raw_syscalls/sys_enter/enable && echo 1 > events/kvm/kvm_entry/enable && echo 1 > tracing_on",
            tasks.join(" ")
        ))?;
        let done = act();
        let text = host.shell(&format!(
            "cd {TRACING} && echo 0 > tracing_on && cat trace && echo 0 > events/enable && echo > set_event_pid && echo > trace"
        ))?;
        Ok((done?, Self { text }))
    }

    /// System calls before the guest's first instruction, by number.
    ///
    /// # Errors
    /// No guest was entered, or nothing was traced before.
    pub fn system_calls_before_entry(&self) -> Result<BTreeMap<u32, usize>> {
        let (before, _) = self.text.split_once(ENTRY).context("no guest was entered")?;
        let mut calls = BTreeMap::new();
        for line in before.lines().filter_map(|line| line.split_once(SYSTEM_CALL)) {
            let number = line.1.split_whitespace().next().unwrap_or_default().parse()?;
            *calls.entry(number).or_insert(0) += 1;
        }
        ensure!(!calls.is_empty(), "nothing was traced");
        Ok(calls)
    }

    /// How often a guest was entered: exits of all kinds, those that the kernel deals with included.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.text.matches(ENTRY).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_count_up_to_the_first_entry() {
        let text = "# tracer: nop\n vmm-7 [000] ..... 1.0: sys_enter: NR 16 (1f, aea2, 0)\n vmm-7 [000] ..... 1.1: sys_enter: NR 9 (0)\n \
                    vmm-7 [000] ..... 1.2: sys_enter: NR 16 (1f)\n vcpu0-8 [000] ..... 1.3: kvm_entry: vcpu 0, rip 0x1\n \
                    vcpu0-8 [000] ..... 1.4: sys_enter: NR 16 (5)\n vcpu0-8 [000] ..... 1.5: kvm_entry: vcpu 0, rip 0x2\n";
        let trace = Trace { text: text.to_owned() };
        assert_eq!(trace.system_calls_before_entry().expect("counts"), BTreeMap::from([(9, 1), (16, 2)]));
        assert_eq!(trace.entries(), 2);
        assert!(Trace { text: String::new() }.system_calls_before_entry().is_err());
    }
}
