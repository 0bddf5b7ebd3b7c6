//! What a machine's monitor is confined to from outside: an id and a control group of its own. The rest it does itself
//! (`vmm::jail`).

use crate::cgroup::{Group, Groups};
use std::{
    collections::BTreeSet,
    io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use vmm::jail::{Place, landlock};

/// How many ids there are for monitors, from the first on.
pub const IDS: u32 = 65_536;

/// The ids of monitors: each has one that no other running one has.
#[derive(Debug)]
struct Ids {
    first: u32,
    /// Where the search begins: one that was given back is taken again as late as can be.
    next: u32,
    taken: BTreeSet<u32>,
}

impl Ids {
    fn new(first: u32) -> Self {
        Self { first, next: 0, taken: BTreeSet::new() }
    }

    fn take(&mut self) -> Option<u32> {
        let offset = (0..IDS).map(|step| (self.next + step) % IDS).find(|offset| !self.taken.contains(offset))?;
        self.taken.insert(offset);
        self.next = (offset + 1) % IDS;
        Some(self.first + offset)
    }

    fn give_back(&mut self, id: u32) {
        self.taken.remove(&(id - self.first));
    }
}

/// Where the monitors of one node are put.
#[derive(Debug, Default)]
pub struct Confinement {
    ids: Option<Arc<Mutex<Ids>>>,
    groups: Option<Arc<Groups>>,
}

impl Confinement {
    /// As far as this process may; what it may not is said once, in the log. `first_uid` is the first of [`IDS`] ids,
    /// `data` the data folder.
    #[must_use]
    pub fn new(first_uid: u32, data: &Path) -> Self {
        let root = rustix::process::geteuid().is_root();
        if root {
            let last = first_uid + (IDS - 1);
            tracing::info!("each machine has a user id of its own, from {first_uid} to {last}");
        } else {
            tracing::info!("machines have the node's user id, each in a user namespace of its own");
        }
        match landlock::version() {
            0 => tracing::debug!("this kernel has no Landlock: machines do without"),
            version => tracing::debug!(version, "machines are under Landlock"),
        }
        let groups = match Groups::open(&name(data)) {
            Ok(groups) => Some(Arc::new(groups)),
            Err(error) => {
                let advice = error.advice();
                tracing::warn!(
                    "machines have no control groups, and share processors and disks as they come: {error}. {advice}"
                );
                None
            }
        };
        Self { ids: root.then(|| Arc::new(Mutex::new(Ids::new(first_uid)))), groups }
    }

    /// A place for one monitor.
    ///
    /// # Errors
    /// All ids are taken, or the kernel has no more control groups.
    pub fn cell(&self) -> io::Result<Cell> {
        let group = self.groups.as_ref().map(Groups::make).transpose()?;
        let id = match &self.ids {
            None => None,
            Some(ids) => {
                let id = ids.lock().unwrap_or_else(PoisonError::into_inner).take();
                let id = id.ok_or_else(|| io::Error::other("all user ids of machines are taken"))?;
                Some(Id { id, ids: ids.clone() })
            }
        };
        Ok(Cell { group, id, allowed_mib: AtomicU64::new(0) })
    }
}

/// The name of a node's groups: that of its data folder, which no other node uses.
fn name(data: &Path) -> String {
    use sha2::{Digest as _, Sha256};
    use std::os::unix::ffi::OsStrExt as _;
    let path = data.canonicalize().unwrap_or_else(|_| data.to_owned());
    hex::encode(&Sha256::digest(path.as_os_str().as_bytes())[..4])
}

/// The place of one monitor. To be dropped when its process has been waited for.
#[derive(Debug)]
pub struct Cell {
    group: Option<Group>,
    id: Option<Id>,
    /// What it was allowed for copies and volumes, MiB.
    allowed_mib: AtomicU64,
}

#[derive(Debug)]
struct Id {
    id: u32,
    ids: Arc<Mutex<Ids>>,
}

impl Drop for Id {
    fn drop(&mut self) {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).give_back(self.id);
    }
}

impl Cell {
    /// As the monitor is told.
    #[must_use]
    pub fn place(&self) -> Place {
        Place {
            id: self.id.as_ref().map(|id| id.id),
            cgroup: self.group.as_ref().map(|group| group.folder().to_owned()),
        }
    }

    /// Limits it to a machine of that size, before its first order.
    ///
    /// # Errors
    /// The kernel does not take the limits.
    pub fn limit(&self, memory_mib: u64, vcpus: u32) -> io::Result<()> {
        let overhead_mib = crate::executor::admit::OVERHEAD_MIB;
        self.group.as_ref().map_or(Ok(()), |group| group.limit(memory_mib, overhead_mib, vcpus))
    }

    /// Allows it another copy of its machine's memory: it writes the copy, and what it writes is counted as its own, for good where
    /// the file is in memory. Its guest gets no more of that.
    ///
    /// # Errors
    /// The kernel does not take the limit.
    pub fn allow_copy(&self, memory_mib: u64) -> io::Result<()> {
        self.allow_more(memory_mib, memory_mib)
    }

    /// Allows the monitor of a machine of that size that much more, for files in memory that it writes.
    ///
    /// # Errors
    /// The kernel does not take the limit.
    pub fn allow_more(&self, memory_mib: u64, more_mib: u64) -> io::Result<()> {
        let allowed_mib = self.allowed_mib.fetch_add(more_mib, Relaxed).saturating_add(more_mib);
        let overhead_mib = crate::executor::admit::OVERHEAD_MIB.saturating_add(allowed_mib);
        self.group.as_ref().map_or(Ok(()), |group| group.limit_memory(memory_mib, overhead_mib))
    }

    /// Whether the kernel has killed it because it wanted more memory than it may have.
    #[must_use]
    pub fn ran_out_of_memory(&self) -> bool {
        self.group.as_ref().is_some_and(Group::ran_out_of_memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_monitors_have_the_same_id_at_a_time() {
        let mut ids = Ids::new(524_288);
        assert_eq!((ids.take(), ids.take()), (Some(524_288), Some(524_289)));
        ids.give_back(524_288);
        assert_eq!(ids.take(), Some(524_290), "one that was given back comes last");
        let rest: BTreeSet<u32> = std::iter::from_fn(|| ids.take()).collect();
        assert_eq!(rest.len(), IDS as usize - 2);
        assert!(!rest.contains(&524_289) && !rest.contains(&524_290) && rest.contains(&524_288));
        assert_eq!(rest.last(), Some(&(524_288 + IDS - 1)));
        ids.give_back(524_300);
        assert_eq!((ids.take(), ids.take()), (Some(524_300), None));
    }

    #[test]
    fn a_cell_gives_its_id_back() {
        let confinement = Confinement { ids: Some(Arc::new(Mutex::new(Ids::new(u32::MAX - IDS)))), groups: None };
        let cells: Vec<_> = (0..IDS).map(|_| confinement.cell().expect("an id")).collect();
        assert!(confinement.cell().is_err());
        assert_eq!(cells[0].place(), Place { id: Some(u32::MAX - IDS), cgroup: None });
        drop(cells);
        assert!(confinement.cell().is_ok());
    }
}
