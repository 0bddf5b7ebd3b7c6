//! Files that are to be deleted from a bucket: already gone for all who ask, and held in a folder of this machine until the bucket has deleted them.
//!
//! ```text
//! removed ─> waits ─> is being deleted ─> forgotten
//!              │  └── skipped while that file is being sent
//!              └─ the file was sent anew ─> forgotten, and the file is there
//! ```
//!
//! Nobody waits for a bucket to remove a file, and no file stays in a bucket because it was away or the node was killed. Between its deletion and its new
//! arrival a file is never in doubt: while it is being deleted a new arrival waits, and while it arrives it is not deleted.

use ccn_message::ItemHash;
use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Files that may wait to be deleted; some 200 bytes each. Beyond it a file stays in the bucket, and the log says so.
const MAX_LEAVING: usize = 1_000_000;

/// Those files.
#[derive(Debug)]
pub(super) struct Leaving {
    folder: PathBuf,
    state: Mutex<State>,
    /// There may be one to delete.
    wanted: Notify,
    /// One is not being deleted any more.
    settled: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// True for those that are being deleted.
    leaving: HashMap<ItemHash, bool>,
    /// Files that are being sent, and how often.
    arriving: HashMap<ItemHash, usize>,
}

/// A file that is being sent: until this is dropped it is not deleted.
#[derive(Debug)]
pub(super) struct Arriving {
    leaving: Arc<Leaving>,
    hash: ItemHash,
}

impl Leaving {
    /// Takes up what an earlier run left to delete. Each is an empty file of that name.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut leaving = HashMap::new();
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name();
            if let Some(hash) = name.to_str().and_then(|name| ItemHash::parse(name).ok()) {
                leaving.insert(hash, false);
            }
        }
        let state = Mutex::new(State { leaving, arriving: HashMap::new() });
        Ok(Self { folder: folder.to_owned(), state, wanted: Notify::new(), settled: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics that holds it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when it is gone for all who ask.
    pub(super) fn contains(&self, hash: &ItemHash) -> bool {
        self.state().leaving.contains_key(hash)
    }

    /// Has a file deleted.
    pub(super) fn add(&self, hash: &ItemHash) -> io::Result<()> {
        let mut state = self.state();
        if state.leaving.len() >= MAX_LEAVING {
            return Err(io::Error::other(format!("{MAX_LEAVING} files wait already to be deleted from the bucket")));
        }
        // One that is being deleted was there again, or it could not be removed: it is deleted once more.
        state.leaving.entry(hash.clone()).or_insert(false);
        // It is of no use to a power cut: then the file stays, and that is all.
        fs::write(self.folder.join(hash.to_string()), [])?;
        drop(state);
        self.wanted.notify_one();
        Ok(())
    }

    /// The next one to delete, once there is one. Whoever takes it says what became of it.
    pub(super) async fn next(&self) -> ItemHash {
        loop {
            // Asked for before it is looked: what is added in between is not missed.
            let wanted = self.wanted.notified();
            {
                let State { leaving, arriving } = &mut *self.state();
                let waits = |(hash, is_taken): &(&ItemHash, &mut bool)| !**is_taken && !arriving.contains_key(*hash);
                if let Some((hash, is_taken)) = leaving.iter_mut().find(waits) {
                    *is_taken = true;
                    // There may be another one for another taker.
                    self.wanted.notify_one();
                    return hash.clone();
                }
            }
            wanted.await;
        }
    }

    /// It is deleted.
    pub(super) fn deleted(&self, hash: &ItemHash) {
        let mut state = self.state();
        state.leaving.remove(hash);
        self.forget(hash);
        drop(state);
        self.settled.notify_waiters();
    }

    /// It is not deleted yet.
    pub(super) fn put_back(&self, hash: &ItemHash) {
        self.state().leaving.insert(hash.clone(), false);
        self.settled.notify_waiters();
        self.wanted.notify_one();
    }

    /// Says that a file is being sent, once it is not being deleted.
    pub(super) async fn arriving(self: &Arc<Self>, hash: &ItemHash) -> Arriving {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            // From here on it hears of those that settle.
            settled.as_mut().enable();
            {
                let mut state = self.state();
                if state.leaving.get(hash) != Some(&true) {
                    *state.arriving.entry(hash.clone()).or_default() += 1;
                    return Arriving { leaving: self.clone(), hash: hash.clone() };
                }
            }
            settled.await;
        }
    }

    fn forget(&self, hash: &ItemHash) {
        match fs::remove_file(self.folder.join(hash.to_string())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("{hash} is looked for in the bucket at the next start, to be deleted: {error}");
            }
            _ => {}
        }
    }
}

impl Arriving {
    /// It is there: what was to delete it has no reason any more. On the disk when this returns, or a power cut could bring the reason back.
    pub(super) fn arrived(&self) -> io::Result<()> {
        let mut state = self.leaving.state();
        if state.leaving.remove(&self.hash).is_some() {
            self.leaving.forget(&self.hash);
            fs::File::open(&self.leaving.folder)?.sync_all()?;
        }
        Ok(())
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let mut state = self.leaving.state();
        if let Some(count) = state.arriving.get_mut(&self.hash) {
            *count -= 1;
            if *count == 0 {
                state.arriving.remove(&self.hash);
            }
        }
        drop(state);
        self.leaving.wanted.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    fn open(folder: &Path) -> Arc<Leaving> {
        Arc::new(Leaving::open(folder).expect("a folder"))
    }

    #[tokio::test]
    async fn a_file_leaves_once_and_across_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let [first, second] = [b"a", b"b"].map(|bytes| ItemHash::sha256_of(bytes));
        let leaving = open(folder.path());
        leaving.add(&first).expect("a file");
        leaving.add(&second).expect("a file");
        let taken = leaving.next().await;
        assert!(leaving.contains(&taken), "gone for all who ask");
        leaving.deleted(&taken);
        assert!(!leaving.contains(&taken));
        let other = leaving.next().await;
        assert_ne!(other, taken);
        assert!(leaving.next().now_or_never().is_none(), "it is taken");
        let again = open(folder.path());
        assert_eq!(again.next().await, other, "what was not deleted is deleted later");
        leaving.put_back(&other);
        assert_eq!(leaving.next().await, other);
        leaving.deleted(&other);
        assert!(open(folder.path()).next().now_or_never().is_none());
    }

    #[tokio::test]
    async fn what_arrives_is_not_deleted_and_what_is_deleted_does_not_arrive() {
        let folder = tempfile::tempdir().expect("a folder");
        let hash = ItemHash::sha256_of(b"a");
        let leaving = open(folder.path());
        let arriving = leaving.arriving(&hash).await;
        leaving.add(&hash).expect("a file");
        assert!(leaving.next().now_or_never().is_none(), "it is being sent");
        arriving.arrived().expect("no error");
        drop(arriving);
        assert!(leaving.next().now_or_never().is_none(), "it was sent anew");
        assert!(!leaving.contains(&hash) && !open(folder.path()).contains(&hash));

        drop(leaving.arriving(&hash).await);
        leaving.add(&hash).expect("a file");
        let taken = leaving.next().await;
        assert!(leaving.arriving(&hash).now_or_never().is_none(), "it is being deleted");
        let waiting = tokio::spawn({
            let (leaving, hash) = (leaving.clone(), hash.clone());
            async move { leaving.arriving(&hash).await.arrived() }
        });
        tokio::task::yield_now().await;
        leaving.deleted(&taken);
        waiting.await.expect("no panic").expect("no error");

        // One that was not sent after all leaves.
        let broken = leaving.arriving(&hash).await;
        leaving.add(&hash).expect("a file");
        drop(broken);
        assert_eq!(leaving.next().await, hash);
    }
}
