//! `cargo xtask doctor`: can this machine run microVMs, and what is missing, in plain words.

use crate::{build, command, setup};
use anyhow::Result;
use std::{path::Path, process::Command, thread};
use vmm::probe::{Verdict, probe};

/// Disk space that building everything takes, GiB: target folder and image cache together.
const DISK_GIB: u64 = 25;
/// Memory that building and the emulated host take, GiB.
const MEMORY_GIB: u64 = 7;

/// How a part of the machine stands.
enum State {
    Good,
    /// It works, with a drawback.
    Fair,
    Bad,
}

/// A line of the report, with what to do about it.
struct Finding {
    state: State,
    name: &'static str,
    text: String,
    advice: Option<String>,
}

impl Finding {
    fn new(state: State, name: &'static str, text: impl Into<String>) -> Self {
        Self { state, name, text: text.into(), advice: None }
    }

    fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    fn print(&self) {
        let mark = match self.state {
            State::Good => '✓',
            State::Fair => '~',
            State::Bad => '✗',
        };
        println!("{mark} {:<12} {}", self.name, self.text);
        if let Some(advice) = &self.advice {
            println!("  {:<12} → {advice}", "");
        }
    }
}

/// Prints the report; an error when neither KVM nor the emulated host is there to run microVMs.
pub(crate) fn run() -> Result<bool> {
    let verdict = probe();
    let emulator = setup::EMULATOR.is_installed();
    let findings =
        [processor(), memory(), disk(), kvm(&verdict, emulator), emulated_host(&verdict), python(), packages()];
    for finding in &findings {
        finding.print();
    }
    println!();
    println!("{}", conclusion(&verdict, emulator));
    Ok(verdict.is_usable() || emulator)
}

/// The one sentence that matters.
fn conclusion(verdict: &Verdict, emulator: bool) -> String {
    match (verdict.is_usable(), emulator) {
        (true, _) => "This machine runs microVMs: it can be a compute node. Try `cargo xtask demo`.".to_owned(),
        (false, true) => {
            "This machine cannot run microVMs itself, so it is no place for a compute node. The demo and the \
                          tests run all the same, in an emulated host, many times slower: try `cargo xtask demo`."
                .to_owned()
        }
        (false, false) => format!(
            "This machine cannot run microVMs, and the emulated host that stands in for it is not installed: \
             `apt-get install {}`, or let `cargo xtask demo` install it.",
            setup::EMULATOR.name
        ),
    }
}

fn processor() -> Finding {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let text = format!("{}, {cores} core{}", std::env::consts::ARCH, if cores == 1 { "" } else { "s" });
    if cfg!(target_arch = "x86_64") {
        Finding::new(State::Good, "processor", text)
    } else {
        Finding::new(State::Bad, "processor", text).advice("Guests are x86_64; other processors are not supported yet.")
    }
}

fn memory() -> Finding {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |name: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(name))?.trim().trim_end_matches(" kB").trim().parse().ok()
    };
    match (kib("MemTotal:"), kib("MemAvailable:")) {
        (Some(total), Some(available)) => {
            let (total, available) = (total >> 20, available >> 20);
            let text = format!("{total} GiB, {available} GiB available");
            if available >= MEMORY_GIB {
                Finding::new(State::Good, "memory", text)
            } else {
                Finding::new(State::Fair, "memory", text)
                    .advice(format!("Building and the emulated host take up to {MEMORY_GIB} GiB."))
            }
        }
        _ => Finding::new(State::Fair, "memory", "unknown: /proc/meminfo does not say"),
    }
}

fn disk() -> Finding {
    let repository = command::repository();
    let target = build::target_folder();
    let place = if target.is_dir() { target.as_path() } else { &repository };
    match free_gib(place) {
        Some(free) if free >= DISK_GIB || target.join("beth").is_dir() && free >= 2 => {
            Finding::new(State::Good, "disk", format!("{free} GiB free in {}", place.display()))
        }
        Some(free) => Finding::new(State::Fair, "disk", format!("{free} GiB free in {}", place.display())).advice(
            format!("Building everything takes about {DISK_GIB} GiB; CARGO_TARGET_DIR and BETH_CACHE move it."),
        ),
        None => Finding::new(State::Fair, "disk", "unknown: the file system does not say"),
    }
}

fn free_gib(path: &Path) -> Option<u64> {
    let space = rustix::fs::statvfs(path).ok()?;
    Some(space.f_bavail.saturating_mul(space.f_frsize) >> 30)
}

fn kvm(verdict: &Verdict, emulator: bool) -> Finding {
    let state = match (verdict.is_usable(), emulator) {
        (true, _) => State::Good,
        (false, true) => State::Fair,
        (false, false) => State::Bad,
    };
    let finding = Finding::new(state, "KVM", format!("{verdict} (found out by running some)"));
    match verdict.advice() {
        Some(advice) => finding.advice(advice),
        None => finding,
    }
}

fn emulated_host(verdict: &Verdict) -> Finding {
    let version = Command::new("qemu-system-x86_64").arg("--version").output().ok();
    let version = version.and_then(|output| {
        Some(String::from_utf8_lossy(&output.stdout).lines().next()?.replace("QEMU emulator version ", ""))
    });
    match version {
        Some(version) => Finding::new(State::Good, "QEMU", format!("{version}, for the emulated host")),
        None if verdict.is_usable() => Finding::new(State::Good, "QEMU", "not here, and not needed"),
        None => Finding::new(State::Bad, "QEMU", "not here, and needed for the emulated host")
            .advice(format!("apt-get install {}", setup::EMULATOR.name)),
    }
}

fn python() -> Finding {
    let lacking = setup::lacking(&[&[setup::PYTHON]]);
    if lacking.is_empty() {
        let version = Command::new("python3").arg("--version").output().ok();
        let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        return Finding::new(State::Good, "Python", version.unwrap_or_default());
    }
    Finding::new(State::Bad, "Python", "lacks what the official SDK needs (tests and demo only)")
        .advice(install_line(&lacking))
}

fn packages() -> Finding {
    let lacking = setup::lacking(&[setup::TO_COMPILE, ::images::system_packages()]);
    if lacking.is_empty() {
        return Finding::new(State::Good, "packages", "all that building needs is installed");
    }
    Finding::new(State::Fair, "packages", "some of what building needs is missing").advice(install_line(&lacking))
}

fn install_line(lacking: &[setup::Lacking]) -> String {
    let names: Vec<&str> = lacking.iter().map(|(name, _)| *name).collect();
    format!("apt-get install --no-install-recommends {} (every command offers to do it)", names.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_conclusion_says_what_to_do_in_each_case() {
        let usable = Verdict::Usable { instructions_per_second: 1 << 30 };
        assert!(conclusion(&usable, false).contains("runs microVMs"));
        assert!(conclusion(&Verdict::Missing, true).contains("emulated host"));
        assert!(conclusion(&Verdict::Missing, false).contains("apt-get install qemu-system-x86"));
    }
}
