//! Control groups of machines (version 2, `Documentation/admin-guide/cgroup-v2.rst` of the kernel).
//!
//! ```text
//!  the group that the node was started in (a unit of systemd, with Delegate=yes; or the root group)
//!  `-- beth-NAME             made here; NAME is the data folder's, so that the next node finds it
//!      |-- node              the node itself: a group that gives to others has no processes of its own
//!      |-- machine-1         one monitor, born in it
//!      `-- machine-2
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// What is limited. Without the first two there are no groups.
const NEEDED: [&str; 2] = ["memory", "pids"];
const WELCOME: [&str; 2] = ["cpu", "io"];

/// Threads of a monitor besides its processors': its own, and those of KVM that the kernel counts among them.
const OTHER_THREADS: u32 = 8;

/// The weight of one processor (the kernel's default for a group), and the most there is.
const WEIGHT: u32 = 100;
const MAX_WEIGHT: u32 = 10_000;

/// What nearly all machines have.
const USUAL_VCPUS: u32 = 1;

/// A page table entry takes 8 bytes for each 4,096 of a guest's memory, in the monitor's tables and in KVM's, and both are
/// counted: a 256th of the guest's memory when all of it is in small pages. This part is twice that.
const PAGE_TABLES_DIVISOR: u64 = 128;

/// How long the processes that a killed node has left may take to die.
const DIE_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Why machines have no control groups. The operator's to change; machines run without.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No such file system, or not the right version of it.
    #[error("this host has no control groups of version 2 ({0})")]
    Missing(String),
    /// The controllers are not there.
    #[error("{folder} has no controllers for {missing}: they are given to version 1, or not to this group")]
    Controllers {
        /// The node's group.
        folder: PathBuf,
        /// Which are missing.
        missing: String,
    },
    /// The group cannot be divided.
    #[error("{folder} is not this node's to divide: {reason}")]
    Refused {
        /// The node's group.
        folder: PathBuf,
        /// What the kernel said.
        reason: io::Error,
    },
}

impl CgroupError {
    /// What the operator can do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Missing(_) | Self::Controllers { .. } => {
                "Have systemd mount version 2 alone (`systemd.unified_cgroup_hierarchy=1` on the kernel's command line, the \
                 default of today's systems), and in a container have it writable."
            }
            Self::Refused { .. } => {
                "Set Delegate=yes in the unit; by hand, start it with `systemd-run --scope -p Delegate=yes`."
            }
        }
    }
}

/// The groups of one node.
#[derive(Debug)]
pub struct Groups {
    folder: PathBuf,
    made: AtomicU64,
    /// Groups that could not be removed when their machine ended.
    left: Mutex<Vec<PathBuf>>,
}

impl Groups {
    /// Takes this process's own group for machines, and removes what a node of the same name has left.
    ///
    /// # Errors
    /// See [`CgroupError`]. The process is then in the group that it was in.
    pub fn open(name: &str) -> Result<Self, CgroupError> {
        Self::open_in(&own_group()?, name)
    }

    fn open_in(base: &Path, name: &str) -> Result<Self, CgroupError> {
        let there = fs::read_to_string(base.join("cgroup.controllers"))
            .map_err(|error| CgroupError::Missing(error.to_string()))?;
        let missing: Vec<_> = NEEDED.into_iter().filter(|name| !has_word(&there, name)).collect();
        if !missing.is_empty() {
            return Err(CgroupError::Controllers { folder: base.to_owned(), missing: missing.join(" and ") });
        }
        let folder = base.join(format!("beth-{name}"));
        let refused = |reason| CgroupError::Refused { folder: base.to_owned(), reason };
        remove_leftovers(&folder);
        divide(base, &folder, &there).map_err(|reason| {
            // Back to where it was: out of groups that are then of no use.
            let _ = fs::write(base.join("cgroup.procs"), "0");
            let _ = fs::remove_dir(folder.join("node")).and_then(|()| fs::remove_dir(&folder));
            refused(reason)
        })?;
        Ok(Self { folder, made: AtomicU64::new(0), left: Mutex::default() })
    }

    /// A group for one machine, with the limits that nearly all have, and none on memory yet.
    ///
    /// # Errors
    /// The kernel has no more, or the operator has set a limit.
    pub fn make(self: &Arc<Self>) -> io::Result<Group> {
        let group = self.make_unlimited()?;
        group.set(&limits_of_all())?;
        group.set(&limits_of_processors(USUAL_VCPUS))?;
        Ok(group)
    }

    fn make_unlimited(self: &Arc<Self>) -> io::Result<Group> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain(|folder| fs::remove_dir(folder).is_err());
        drop(left);
        loop {
            let folder = self.folder.join(format!("machine-{}", self.made.fetch_add(1, Relaxed) + 1));
            match fs::create_dir(&folder) {
                Ok(()) => return Ok(Group { folder, groups: self.clone() }),
                // One of a node before that could not be removed. There are not many.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The group of one machine. It is removed on drop, when its process has been waited for.
#[derive(Debug)]
pub struct Group {
    folder: PathBuf,
    groups: Arc<Groups>,
}

impl Group {
    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Sets the limits of a machine of that size; `overhead_mib` is for the monitor.
    ///
    /// # Errors
    /// The kernel does not take one that is needed.
    pub fn limit(&self, memory_mib: u64, overhead_mib: u64, vcpus: u32) -> io::Result<()> {
        // Most machines have one processor, and somebody waits for them.
        if vcpus != USUAL_VCPUS {
            self.set(&limits_of_processors(vcpus))?;
        }
        self.limit_memory(memory_mib, overhead_mib)
    }

    /// Sets the limit of memory alone.
    ///
    /// # Errors
    /// The kernel does not take it.
    pub fn limit_memory(&self, memory_mib: u64, overhead_mib: u64) -> io::Result<()> {
        self.set(&[limit_of_memory(memory_mib, overhead_mib)])
    }

    /// Whether the kernel has killed a process of it because the limit of memory was reached.
    #[must_use]
    pub fn ran_out_of_memory(&self) -> bool {
        fs::read_to_string(self.folder.join("memory.events")).is_ok_and(|events| counts_kills(&events))
    }

    fn set(&self, limits: &[Limit]) -> io::Result<()> {
        for Limit { file, value, needed } in limits {
            match fs::write(self.folder.join(file), value) {
                Err(error) if *needed => return Err(io::Error::new(error.kind(), format!("{file}: {error}"))),
                // A kernel without it: no swap, no weights for disks.
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.folder) {
            tracing::debug!(group = %self.folder.display(), %error, "a control group is removed later");
            self.groups.left.lock().unwrap_or_else(PoisonError::into_inner).push(self.folder.clone());
        }
    }
}

/// One line in one file.
#[derive(Debug, PartialEq, Eq)]
struct Limit {
    file: &'static str,
    value: String,
    needed: bool,
}

fn limit_of_memory(memory_mib: u64, overhead_mib: u64) -> Limit {
    let memory_mib = memory_mib.saturating_add(memory_mib / PAGE_TABLES_DIVISOR).saturating_add(overhead_mib);
    Limit { file: "memory.max", value: memory_mib.saturating_mul(1 << 20).to_string(), needed: true }
}

fn limits_of_processors(vcpus: u32) -> [Limit; 3] {
    let weight = WEIGHT.saturating_mul(vcpus).clamp(1, MAX_WEIGHT).to_string();
    [
        Limit { file: "pids.max", value: vcpus.saturating_add(OTHER_THREADS).to_string(), needed: true },
        Limit { file: "cpu.weight", value: weight.clone(), needed: false },
        Limit { file: "io.weight", value: weight, needed: false },
    ]
}

fn counts_kills(events: &str) -> bool {
    events.lines().filter_map(|line| line.strip_prefix("oom_kill ")).any(|count| count.trim() != "0")
}

/// What is the same for all machines: no swap, and if one thread has to go for want of memory, all go.
fn limits_of_all() -> [Limit; 2] {
    [("memory.swap.max", "0"), ("memory.oom.group", "1")].map(|(file, value)| Limit {
        file,
        value: value.to_owned(),
        needed: false,
    })
}

/// The folder of the group that this process is in.
fn own_group() -> Result<PathBuf, CgroupError> {
    let missing = |error: procfs::ProcError| CgroupError::Missing(error.to_string());
    let process = procfs::process::Process::myself().map_err(missing)?;
    let own = process.cgroups().map_err(missing)?.into_iter().find(|group| group.hierarchy == 0);
    let own = own.ok_or_else(|| CgroupError::Missing("this process is in none".to_owned()))?;
    let mounts = process.mountinfo().map_err(missing)?;
    let mounted = mounts.into_iter().filter(|mount| mount.fs_type == "cgroup2");
    mounted.filter_map(|mount| folder_of(&own.pathname, &mount.root, &mount.mount_point)).next_back().ok_or_else(|| {
        CgroupError::Missing("no file system of type cgroup2 with this process in it is mounted".to_owned())
    })
}

/// Where a group is seen: of the hierarchy, `root` is mounted at `mount_point`.
fn folder_of(group: &str, root: &str, mount_point: &Path) -> Option<PathBuf> {
    let inside = Path::new(group).strip_prefix(root).ok()?;
    // A process outside of the namespace that this is mounted in is shown by a way up.
    let plain = inside.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    plain.then(|| mount_point.components().chain(inside.components()).collect())
}

/// Has the group give its controllers to groups below it, after this process has moved out of the way.
fn divide(base: &Path, folder: &Path, there: &str) -> io::Result<()> {
    let node = folder.join("node");
    fs::create_dir_all(&node)?;
    // This process, with all its threads.
    fs::write(node.join("cgroup.procs"), "0")?;
    for controller in NEEDED.into_iter().chain(WELCOME).filter(|name| has_word(there, name)) {
        let give = |folder: &Path| fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
        match give(base).and_then(|()| give(folder)) {
            Err(error) if NEEDED.contains(&controller) => {
                let why = "it has other processes, or is not delegated";
                return Err(io::Error::new(
                    error.kind(),
                    format!("cannot give {controller} to groups below: {error} ({why})"),
                ));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Ends what a killed node's machines have left, and removes their groups.
fn remove_leftovers(folder: &Path) {
    // No folder, nothing left.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with("machine-") {
            continue;
        }
        match end(&entry.path()) {
            Ok(()) => tracing::info!(group = %entry.path().display(), "a control group of a node before is removed"),
            Err(error) => {
                tracing::warn!(group = %entry.path().display(), %error, "a control group of a node before stays");
            }
        }
    }
}

/// Kills every process of a group, and removes it.
fn end(group: &Path) -> io::Result<()> {
    let deadline = Instant::now() + DIE_WITHIN;
    loop {
        match fs::remove_dir(group) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {}
            done => return done,
        }
        kill_all(group)?;
        std::thread::sleep(LOOK_EVERY);
    }
}

fn kill_all(group: &Path) -> io::Result<()> {
    match fs::write(group.join("cgroup.kill"), "1") {
        // Before Linux 5.14.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            for id in fs::read_to_string(group.join("cgroup.procs"))?.lines() {
                let process = id.parse().ok().and_then(rustix::process::Pid::from_raw);
                if let Some(process) = process {
                    // One that is gone already needs no killing.
                    let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
                }
            }
            Ok(())
        }
        done => done,
    }
}

fn has_word(text: &str, word: &str) -> bool {
    text.split_whitespace().any(|other| other == word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_group_is_found_where_it_is_mounted() {
        let mounted = Path::new("/sys/fs/cgroup");
        let folder = |group, root| folder_of(group, root, mounted);
        assert_eq!(folder("/", "/"), Some(mounted.to_owned()));
        assert_eq!(folder("/system.slice/beth.service", "/"), Some(mounted.join("system.slice/beth.service")));
        // A container sees its own part of the hierarchy as all of it.
        assert_eq!(folder("/docker/abc/node", "/docker/abc"), Some(mounted.join("node")));
        assert_eq!(folder("/elsewhere", "/docker/abc"), None);
        assert_eq!(folder("/../other", "/"), None);
    }

    #[test]
    fn a_machine_gets_what_it_was_admitted_with() {
        let memory = |memory_mib, overhead_mib| limit_of_memory(memory_mib, overhead_mib).value;
        assert_eq!(memory(128, 8), (137_u64 << 20).to_string());
        assert_eq!(memory(1 << 20, 8), (((1_u64 << 20) + (1 << 13) + 8) << 20).to_string());
        assert_eq!(memory(u64::MAX, u64::MAX), u64::MAX.to_string());
        let values = |vcpus| limits_of_processors(vcpus).map(|limit| limit.value);
        assert_eq!(values(1), ["9", "100", "100"]);
        assert_eq!(values(200), ["208", "10000", "10000"]);
        assert_eq!(values(u32::MAX)[0], u32::MAX.to_string());
    }

    #[test]
    fn kills_are_told_from_limits_that_were_only_reached() {
        assert!(!counts_kills("low 0\nhigh 0\nmax 7\noom 0\noom_kill 0\noom_group_kill 0\n"));
        assert!(counts_kills("max 7\noom 1\noom_kill 1\noom_group_kill 1\n"));
        assert!(!counts_kills(""));
    }

    #[test]
    fn a_group_without_controllers_is_not_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(matches!(Groups::open_in(folder.path(), "x"), Err(CgroupError::Missing(_))));
        fs::write(folder.path().join("cgroup.controllers"), "cpu io pids\n").expect("a file");
        let refused = Groups::open_in(folder.path(), "x");
        assert!(
            matches!(&refused, Err(CgroupError::Controllers { missing, .. }) if missing == "memory"),
            "{refused:?}"
        );
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing was made");
    }

    /// In the host's own hierarchy, where this user may.
    #[test]
    fn what_a_killed_node_left_is_ended_and_removed() {
        let Some(base) = own_group().ok().filter(|base| {
            rustix::fs::access(base, rustix::fs::Access::WRITE_OK).is_ok()
                && rustix::fs::access(base.join("cgroup.procs"), rustix::fs::Access::WRITE_OK).is_ok()
        }) else {
            return;
        };
        let folder = base.join(format!("beth-test-{}", std::process::id()));
        let left = folder.join("machine-7");
        fs::create_dir_all(&left).expect("a group");
        fs::create_dir(folder.join("machine-8")).expect("a group");
        let mut process = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().expect("a process");
        fs::write(left.join("cgroup.procs"), process.id().to_string()).expect("moved");
        // As of a process that has a parent to be waited for by: here it is this one.
        let waiting = std::thread::spawn(move || process.wait());
        remove_leftovers(&folder);
        assert!(!waiting.join().expect("no panic").expect("waited").success());
        assert_eq!(fs::read_dir(&folder).expect("a group").flatten().filter(|entry| entry.path().is_dir()).count(), 0);

        let groups = Arc::new(Groups { folder: folder.clone(), made: AtomicU64::new(0), left: Mutex::default() });
        let group = groups.make_unlimited().expect("a group");
        let other = groups.make_unlimited().expect("a group");
        assert_ne!(group.folder(), other.folder());
        fs::create_dir(folder.join("machine-3")).expect("a group that stayed");
        let mut process = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().expect("a process");
        fs::write(group.folder().join("cgroup.procs"), process.id().to_string()).expect("moved");
        let (busy, free) = (group.folder().to_owned(), other.folder().to_owned());
        drop((group, other));
        assert!(busy.exists() && !free.exists(), "one of them has a process");
        process.kill().expect("killed");
        process.wait().expect("waited");
        drop(groups.make_unlimited().expect("a group"));
        assert!(!busy.exists(), "what could not be removed is, with the next");
        fs::remove_dir(folder.join("machine-3")).expect("still there");
        fs::remove_dir(&folder).expect("nothing is left");
    }
}
