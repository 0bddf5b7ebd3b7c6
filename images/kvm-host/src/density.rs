//! Many machines at once: has a program get them, by calls that last, and tells what each process takes. Runs inside the host.

use crate::call::{Call, ask};
use std::{
    fs,
    io::{self, Read as _},
    time::Instant,
};

/// The word that makes this program hold calls.
pub const HOLD: &str = "hold";
/// The word that makes this program tell what processes take.
pub const FOOTPRINT: &str = "footprint";
/// Name of the file that clones map as their memory.
const TEMPLATE_MEMORY: &str = "/memory";
/// Where control groups are.
const GROUPS: &str = "/sys/fs/cgroup";

/// What a process that has mapped a template's memory takes, KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Of the guest's memory, what is its own: pages that it has written to.
    pub guest_private: u64,
    /// What else is its own: the monitor itself.
    pub monitor_private: u64,
    /// All that it has mapped, shared pages in equal parts with those who share them.
    pub proportional: u64,
    /// What its control group is charged with, the kernel's own structures included; none where it has no group of its own.
    pub group: Option<u64>,
}

impl Footprint {
    /// As a line, for who reads standard output.
    #[must_use]
    pub fn to_line(&self) -> String {
        let Self { guest_private, monitor_private, proportional, group } = self;
        let group = group.map_or_else(|| "-".to_owned(), |group| group.to_string());
        format!("footprint {guest_private} {monitor_private} {proportional} {group}")
    }

    /// From such a line.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("footprint ")?.split(' ');
        let mut number = || words.next()?.parse().ok();
        let (guest_private, monitor_private, proportional) = (number()?, number()?, number()?);
        let group = match words.next()? {
            "-" => None,
            group => Some(group.parse().ok()?),
        };
        Some(Self { guest_private, monitor_private, proportional, group })
    }

    /// From `/proc/PID/smaps`; none for a process that has no template's memory mapped.
    fn of(smaps: &str) -> Option<Self> {
        let (mut guest, mut other, mut proportional) = (None, 0, 0);
        let mut in_guest = false;
        for line in smaps.lines() {
            let mut words = line.split_whitespace();
            let Some(name) = words.next() else { continue };
            match name.strip_suffix(':') {
                // The head of a mapping: addresses first, the file last.
                None => {
                    in_guest = line.trim_end_matches(" (deleted)").ends_with(TEMPLATE_MEMORY);
                    if in_guest {
                        guest = guest.or(Some(0));
                    }
                }
                Some(kind) => {
                    let Some(kib) = words.next().and_then(|word| word.parse::<u64>().ok()) else { continue };
                    match kind {
                        "Pss" => proportional += kib,
                        "Private_Clean" | "Private_Dirty" if in_guest => guest = guest.map(|sum: u64| sum + kib),
                        "Private_Clean" | "Private_Dirty" => other += kib,
                        _ => {}
                    }
                }
            }
        }
        Some(Self { guest_private: guest?, monitor_private: other, proportional, group: None })
    }
}

/// Opens calls one after the other, prints each [`Call`] with `print` as its first byte comes, and ends them all together.
/// `arguments`: the node's address, the path, and how many.
///
/// # Errors
/// A call gets no answer.
pub fn hold(arguments: &[String], mut print: impl FnMut(&Call)) -> io::Result<()> {
    let wrong = || io::Error::other("usage: kvm-host hold ADDRESS PATH CALLS");
    let [address, path, calls] = arguments else { return Err(wrong()) };
    let mut held = Vec::new();
    for _ in 0..calls.parse().map_err(|_| wrong())? {
        let began = Instant::now();
        let mut stream = ask(address, path)?;
        let mut first = [0; 12];
        stream.read_exact(&mut first)?;
        let microseconds = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let first = String::from_utf8_lossy(&first);
        let status = first.rsplit(' ').next().and_then(|status| status.parse().ok());
        print(&Call { microseconds, status: status.ok_or_else(|| io::Error::other(format!("no answer: {first}")))? });
        held.push(stream);
    }
    Ok(())
}

/// Prints a [`Footprint`] of each of these processes that has a template's memory mapped.
///
/// # Errors
/// A process cannot be looked at. One that is gone is left out.
pub fn footprint(processes: &[String], mut print: impl FnMut(&Footprint)) -> io::Result<()> {
    for process in processes {
        let read = |name: &str| match fs::read_to_string(format!("/proc/{process}/{name}")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            read => read,
        };
        let Some(mut footprint) = Footprint::of(&read("smaps")?) else { continue };
        let group = read("cgroup")?;
        let group = group.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        if !group.is_empty()
            && let Ok(current) = fs::read_to_string(format!("{GROUPS}/{group}/memory.current"))
        {
            footprint.group = current.trim().parse().ok().map(|bytes: u64| bytes >> 10);
        }
        print(&footprint);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "7f0000000000-7f0008000000 rw-p 00000000 00:1b 42    /srv/templates/ab/memory
Size:             131072 kB
Rss:                9000 kB
Pss:                5000 kB
Private_Clean:        40 kB
Private_Dirty:      4000 kB
VmFlags: rd wr mr
55d000000000-55d000100000 r-xp 00000000 00:1b 7    /srv/vmm
Pss:                 100 kB
Private_Clean:         0 kB
Private_Dirty:        12 kB
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0    [stack]
Pss:                  16 kB
Private_Dirty:        16 kB
";

    #[test]
    fn memory_of_the_guest_and_of_the_monitor_are_told_apart() {
        let footprint = Footprint { guest_private: 4040, monitor_private: 28, proportional: 5116, group: None };
        assert_eq!(Footprint::of(SMAPS), Some(footprint));
        let gone = SMAPS.replace("ab/memory", "ab/memory (deleted)");
        assert_eq!(Footprint::of(&gone), Some(footprint));
        assert_eq!(Footprint::of(&SMAPS.replace("ab/memory", "ab/memoir")), None);
        assert_eq!(Footprint::of(""), None);
    }

    #[test]
    fn a_line_reads_back() {
        for group in [None, Some(9000)] {
            let footprint = Footprint { guest_private: 1, monitor_private: 2, proportional: 3, group };
            assert_eq!(Footprint::parse(&footprint.to_line()), Some(footprint));
        }
        assert_eq!(Footprint::parse("footprint 1 2"), None);
        assert_eq!(Footprint::parse("call 1 2"), None);
    }
}
