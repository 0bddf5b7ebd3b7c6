//! Starts two machine monitors by turns and takes the time from the spawn of each to the first byte that
//! its guest writes. Runs inside the host, so that nothing but the host's own clock is between.
//!
//! A guest's first byte arrives on the monitor's standard output. The monitor is stopped there, looked at
//! (memory, exits that KVM has counted, bytes read) and killed.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    io::{self, Read as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

/// The word that makes this program measure.
pub const MEASURE: &str = "measure";
/// Where KVM counts; mounted when it is not.
const KVM_COUNTERS: &str = "/sys/kernel/debug/kvm";

/// One run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Which command: 0 or 1.
    pub command: usize,
    /// From just before the spawn to the guest's first byte, microseconds.
    pub microseconds: u64,
    /// Resident memory of the monitor's process outside of guest memory, KiB.
    pub overhead_kib: u64,
    /// Bytes that the process read through system calls.
    pub read_bytes: u64,
    /// What KVM has counted for the machine, by its own names; zeros are left out.
    pub counters: Vec<(String, u64)>,
}

impl Run {
    /// As a line, for who reads standard output.
    #[must_use]
    pub fn to_line(&self) -> String {
        let counters: Vec<String> = self.counters.iter().map(|(name, count)| format!("{name}={count}")).collect();
        let Self { command, microseconds, overhead_kib, read_bytes, .. } = self;
        format!("run {command} {microseconds} {overhead_kib} {read_bytes} {}", counters.join(","))
    }

    /// From such a line.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("run ")?.split(' ');
        let command = words.next()?.parse().ok()?;
        let mut number = || words.next()?.parse().ok();
        let (microseconds, overhead_kib, read_bytes) = (number()?, number()?, number()?);
        let counters = words.next()?.split(',').filter_map(|counter| counter.split_once('='));
        let counters = counters.filter_map(|(name, count)| Some((name.to_owned(), count.parse().ok()?)));
        Some(Self { command, microseconds, overhead_kib, read_bytes, counters: counters.collect() })
    }
}

/// Runs both commands by turns and prints each [`Run`] with `print`. `arguments`: how many runs of each, how
/// much memory guests have (MiB), then the two command lines, each after a `--`.
///
/// # Errors
/// A command does not start, or its guest never writes; the error has what the monitor said.
pub fn measure(arguments: &[String], mut print: impl FnMut(&Run)) -> io::Result<()> {
    let wrong = || io::Error::other("usage: kvm-host measure RUNS GUEST_MIB -- COMMAND... -- COMMAND...");
    let mut parts = arguments.split(|word| word == "--");
    let [runs, guest_mib] = parts.next().ok_or_else(wrong)? else {
        return Err(wrong());
    };
    let runs: u32 = runs.parse().map_err(|_| wrong())?;
    let guest_mib: u64 = guest_mib.parse().map_err(|_| wrong())?;
    let commands: Vec<&[String]> = parts.collect();
    if commands.len() != 2 || commands.iter().any(|command| command.is_empty()) {
        return Err(wrong());
    }
    mount_counters();
    for turn in 0..runs {
        // Who goes first changes: what one leaves behind is not always the other's burden.
        let order = if turn % 2 == 0 { [0, 1] } else { [1, 0] };
        for command in order {
            print(&run(command, commands[command], guest_mib)?);
        }
    }
    Ok(())
}

fn run(number: usize, words: &[String], guest_mib: u64) -> io::Result<Run> {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let began = Instant::now();
    let mut child = command.spawn()?;
    let outcome = first_byte(&mut child).and_then(|()| {
        let microseconds = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        signal(&child, Signal::STOP)?;
        let process = child.id();
        let smaps = fs::read_to_string(format!("/proc/{process}/smaps"))?;
        let input = fs::read_to_string(format!("/proc/{process}/io")).unwrap_or_default();
        Ok(Run {
            command: number,
            microseconds,
            overhead_kib: overhead_kib(&smaps, guest_mib << 10),
            read_bytes: field(&input, "rchar:").unwrap_or(0),
            counters: counters(Path::new(KVM_COUNTERS), process),
        })
    });
    child.kill()?;
    child.wait()?;
    outcome
}

fn first_byte(child: &mut Child) -> io::Result<()> {
    let mut byte = [0];
    if child.stdout.take().map_or(Ok(0), |mut stdout| stdout.read(&mut byte))? == 1 {
        return Ok(());
    }
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said)?;
    }
    Err(io::Error::other(format!("a monitor ended before its guest wrote: {said}")))
}

fn signal(child: &Child, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::other("no process"))?;
    Ok(kill_process(pid, signal)?)
}

/// Resident memory outside of guest memory: mappings that follow each other without a gap and make
/// exactly the guest's size together are the guest's.
fn overhead_kib(smaps: &str, guest_kib: u64) -> u64 {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        let range =
            first.split_once('-').map(|(start, end)| (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16)));
        if let Some((Ok(start), Ok(end))) = range {
            mappings.push(Mapping { start, end, resident_kib: 0 });
        } else if let (Some(mapping), Some(kib)) = (mappings.last_mut(), field(line, "Rss:")) {
            mapping.resident_kib = kib;
        }
    }
    let guest = guest_mappings(&mappings, guest_kib << 10).unwrap_or(0..0);
    let outside = mappings.iter().enumerate().filter(|(index, _)| !guest.contains(index));
    outside.map(|(_, mapping)| mapping.resident_kib).sum()
}

/// A line of a process's memory map.
struct Mapping {
    start: u64,
    end: u64,
    resident_kib: u64,
}

/// The neighbouring mappings that make `bytes` together.
fn guest_mappings(mappings: &[Mapping], bytes: u64) -> Option<std::ops::Range<usize>> {
    for first in 0..mappings.len() {
        let mut end = mappings[first].start;
        for (last, mapping) in mappings.iter().enumerate().skip(first) {
            if mapping.start != end || mapping.end - mappings[first].start > bytes {
                break;
            }
            end = mapping.end;
            if end - mappings[first].start == bytes {
                return Some(first..last + 1);
            }
        }
    }
    None
}

/// The number behind a name that begins a line, colon and all, as files of `/proc` have it.
#[must_use]
pub fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

fn mount_counters() {
    if !Path::new(KVM_COUNTERS).exists() {
        // Without them a report has no counts of KVM's, and says so by their absence.
        let _ = rustix::mount::mount(
            "debugfs",
            "/sys/kernel/debug",
            "debugfs",
            rustix::mount::MountFlags::empty(),
            None::<&std::ffi::CStr>,
        );
    }
}

/// What KVM has counted for the machines of a process, the processors' counts added up.
fn counters(folder: &Path, process: u32) -> Vec<(String, u64)> {
    let mut sums = std::collections::BTreeMap::new();
    let prefix = format!("{process}-");
    let machines = fs::read_dir(folder).into_iter().flatten().map_while(Result::ok);
    for machine in machines.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)) {
        let mut folders = vec![machine.path()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().map_while(Result::ok) {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with("vcpu") && entry.path().is_dir() {
                    folders.push(entry.path());
                } else if let Some(count) =
                    fs::read_to_string(entry.path()).ok().and_then(|text| text.trim().parse::<u64>().ok())
                {
                    *sums.entry(name).or_insert(0) += count;
                }
            }
        }
    }
    sums.into_iter().filter(|(_, count)| *count > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_that_of_its_line() {
        let text = "MemTotal: 8000 kB\nMemAvailable:    7000 kB\n";
        assert_eq!(field(text, "MemAvailable:"), Some(7000));
        assert_eq!(field(text, "Mem:"), None);
        assert_eq!(field("MemAvailable: x kB", "MemAvailable:"), None);
    }

    #[test]
    fn runs_are_read_as_they_were_written() {
        let run = Run {
            command: 1,
            microseconds: 7,
            overhead_kib: 8,
            read_bytes: 9,
            counters: vec![("exits".into(), 10), ("io_exits".into(), 11)],
        };
        assert_eq!(Run::parse(&run.to_line()), Some(run.clone()));
        let without = Run { counters: vec![], ..run };
        assert_eq!(Run::parse(&without.to_line()), Some(without));
        assert_eq!(Run::parse("run 1 2"), None);
        assert_eq!(Run::parse("walk 1 2 3 4 "), None);
    }

    #[test]
    fn guest_memory_is_the_neighbours_that_make_its_size() {
        let smaps = "00400000-00500000 r-xp 0 0\nRss: 300 kB\n\
                     10000000-10100000 rw-p 0 0\nRss: 900 kB\n10100000-10200000 rw-p 0 0\nRss: 800 kB\n\
                     10200000-10201000 ---p 0 0\nRss: 4 kB\n";
        assert_eq!(overhead_kib(smaps, 2 << 10), 304);
        assert_eq!(overhead_kib(smaps, 64 << 10), 2004);
    }

    #[test]
    fn both_commands_take_turns_and_are_killed() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let mut arguments = words("2 16 --");
        arguments.extend(["sh".to_owned(), "-c".to_owned(), "echo I; exec sleep 4713".to_owned()]);
        arguments.extend(words("-- yes"));
        let mut order = Vec::new();
        measure(&arguments, |run| order.push(run.command)).expect("both write");
        assert_eq!(order, [0, 1, 1, 0]);
        let error = measure(&words("1 16 -- true -- yes"), |_| {}).expect_err("one writes nothing");
        assert!(error.to_string().contains("before its guest wrote"), "{error}");
        assert!(measure(&words("1 16 -- true"), |_| {}).is_err());
    }
}
