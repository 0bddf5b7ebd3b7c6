//! Machines that stand still on the disk, to be gone on from: the difference between a boot and an answer.
//!
//! ```text
//! DATA_DIR/templates/secret             what seals are made with
//! DATA_DIR/templates/KEY/memory         the guest's memory, with holes where it is zero; clones map it
//! DATA_DIR/templates/KEY/state          the rest of the machine
//! DATA_DIR/templates/KEY/volume-N       its ephemeral volumes, as they were then; each clone gets a copy
//! DATA_DIR/templates/KEY/seal           written last: facts, digests, mark
//! DATA_DIR/templates/KEY/working-set    the pages that its clones touch first, once one has answered a call; a hint, so not sealed
//! DATA_DIR/templates/KEY.new            one that is being made
//! ```
//!
//! A template is made while the first machine of its kind comes up, and used from then on. Its key is a digest of everything that went into
//! it ([`key`]), so one that does not fit any more is simply not found; it goes when room is needed, or at the next start of the node when
//! its seal does not fit this installation. One that fails to become a machine is removed, and made again.

pub mod key;
pub mod seal;

use crate::{
    volume::copy::contents,
    worth::{self, Worth},
};
use key::{Installation, Key, Level};
use seal::{Facts, SealError, Secret};
use std::{
    collections::{HashMap, HashSet},
    fmt,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use vmm::{
    hole::{self, Hole},
    working_set::{MAX_TEXT_BYTES, WorkingSet},
};

/// Ends the name of a folder that is being filled.
const DRAFT_SUFFIX: &str = ".new";
/// Name of the file with the working set.
const WORKING_SET: &str = "working-set";
/// Name of the file with the node's secret.
const SECRET: &str = "secret";

/// One that is ready to be gone on from. It stays usable for whoever holds it, even when it is removed.
#[derive(Debug)]
pub struct Template {
    /// Its name.
    pub key: Key,
    /// How far its guest has come.
    pub level: Level,
    /// The guest's memory.
    pub memory: File,
    /// The rest.
    pub state: File,
    /// Where the memory has nothing. Looked for once: what clones write to may take a page of the file.
    pub holes: Vec<Hole>,
    /// What was on its ephemeral volumes, in order.
    pub volumes: Vec<File>,
    working_set: OnceLock<WorkingSet>,
    /// A clone was made that finds the working set out.
    watched: AtomicBool,
}

/// The files of a template, for reading alone.
struct Files {
    memory: File,
    state: File,
    volumes: Vec<File>,
}

impl Files {
    fn open(folder: &Path) -> io::Result<Self> {
        let open = |name: &str| File::open(folder.join(name));
        let mut volumes = Vec::new();
        loop {
            match open(&volume_name(volumes.len())) {
                Ok(volume) => volumes.push(volume),
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Self { memory: open("memory")?, state: open("state")?, volumes })
    }
}

fn volume_name(index: usize) -> String {
    format!("volume-{index}")
}

impl Template {
    fn new(key: Key, level: Level, Files { memory, state, volumes }: Files) -> Self {
        // Without them it takes more memory, and is none the worse.
        let holes = hole::largest(&memory).unwrap_or_default();
        Self {
            key,
            level,
            memory,
            state,
            holes,
            volumes,
            working_set: OnceLock::new(),
            watched: AtomicBool::new(false),
        }
    }

    /// The pages that clones touch first; none while nobody knows.
    #[must_use]
    pub fn working_set(&self) -> WorkingSet {
        self.working_set.get().cloned().unwrap_or_default()
    }

    /// Whether the next clone is to find them out. True once.
    #[must_use]
    pub fn is_to_be_watched(&self) -> bool {
        self.level == Level::Function && self.working_set.get().is_none() && !self.watched.swap(true, Relaxed)
    }
}

/// What became of templates since the node started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Made.
    pub made: u64,
    /// Machines that went on from one.
    pub used: u64,
    /// Machines that should have and did not: each was answered by the next way to start.
    pub failed: u64,
    /// That could not be made.
    pub not_made: u64,
    /// Removed to make room.
    pub evicted: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { made, used, failed, not_made, evicted } = self;
        write!(
            formatter,
            "{made} templates made, {used} machines went on from one, {failed} did not, {not_made} could not be made, {evicted} evicted"
        )
    }
}

/// All templates of a node. Clones share them.
#[derive(Debug, Clone)]
pub struct Templates {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    limit_bytes: u64,
    level: Level,
    installation: Installation,
    secret: Secret,
    index: Mutex<Index>,
    made: AtomicU64,
    used: AtomicU64,
    failed: AtomicU64,
    not_made: AtomicU64,
    evicted: AtomicU64,
}

#[derive(Debug, Default)]
struct Index {
    entries: HashMap<Key, Entry>,
    /// Being made, or being read.
    busy: HashSet<Key>,
    age: f64,
}

#[derive(Debug)]
struct Entry {
    /// None for one that an earlier process has left and nobody has asked for yet.
    template: Option<Arc<Template>>,
    program: Option<String>,
    worth: Worth,
}

impl Templates {
    /// Opens the folder, which is made if it is not there. What was not finished in it goes, and what was made with another installation.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn open(folder: &Path, limit_bytes: u64, level: Level, installation: Installation) -> io::Result<Self> {
        // Programs and what they keep secret are in it: nobody else reads it.
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        let secret = Secret::open(&folder.join(SECRET))?;
        let mut index = Index::default();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Ok(key) = name.parse::<Key>() {
                match secret.read(&key, &path.join("seal")) {
                    Ok(Facts { installation: of, level: at, program, size_bytes, saves_ms, .. })
                        if of == installation.to_string() && at <= level =>
                    {
                        let worth = Worth::new(size_bytes, saves_ms, index.age);
                        index.entries.insert(key, Entry { template: None, program, worth });
                    }
                    Ok(_) | Err(_) => fs::remove_dir_all(path)?,
                }
            } else if name.ends_with(DRAFT_SUFFIX) {
                fs::remove_dir_all(path)?;
            }
        }
        let shared = Shared {
            folder: folder.to_owned(),
            limit_bytes,
            level,
            installation,
            secret,
            index: Mutex::new(index),
            made: AtomicU64::new(0),
            used: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            not_made: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// How far templates go on this node.
    #[must_use]
    pub fn level(&self) -> Level {
        self.shared.level
    }

    /// What became of them.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let Shared { made, used, failed, not_made, evicted, .. } = &*self.shared;
        Counts {
            made: made.load(Relaxed),
            used: used.load(Relaxed),
            failed: failed.load(Relaxed),
            not_made: not_made.load(Relaxed),
            evicted: evicted.load(Relaxed),
        }
    }

    /// The template of that name. One that an earlier process has left is read whole first, and removed when it is not what it was.
    pub async fn find(&self, key: Key) -> Option<Arc<Template>> {
        {
            let mut index = self.shared.index();
            let age = index.age;
            let entry = index.entries.get_mut(&key)?;
            entry.worth.used(age);
            if let Some(template) = &entry.template {
                return Some(Arc::clone(template));
            }
            // Whoever comes while it is read starts without it.
            if !index.busy.insert(key) {
                return None;
            }
        }
        let shared = Arc::clone(&self.shared);
        let checked = tokio::task::spawn_blocking(move || shared.check(key)).await;
        let mut index = self.shared.index();
        index.busy.remove(&key);
        match checked {
            Ok(Ok(template)) => {
                let template = Arc::new(template);
                // One that was evicted in the meantime is good once.
                if let Some(entry) = index.entries.get_mut(&key) {
                    entry.template = Some(Arc::clone(&template));
                }
                Some(template)
            }
            Ok(Err(error)) => {
                tracing::warn!(%key, %error, "a template of an earlier run is not used");
                index.entries.remove(&key);
                drop(index);
                self.shared.remove_folder(key);
                None
            }
            Err(_) => None,
        }
    }

    /// Begins to make a template. None when there is one, somebody makes it, or there is no room on the disk for a memory that long.
    #[must_use]
    pub fn begin(&self, key: Key, level: Level, memory_bytes: u64) -> Option<Draft> {
        {
            let mut index = self.shared.index();
            if level > self.shared.level || index.entries.contains_key(&key) || !index.busy.insert(key) {
                return None;
            }
        }
        match self.shared.make_files(key, memory_bytes) {
            Ok((memory, state)) => {
                Some(Draft { shared: Arc::clone(&self.shared), key, level, memory, state, finished: false })
            }
            Err(error) => {
                tracing::warn!(%error, folder = %self.shared.folder.display(), "there is no place for a template");
                self.shared.discard_draft(key);
                None
            }
        }
    }

    /// What a clone has touched until its first call was answered.
    pub async fn learn(&self, template: &Template, working_set: WorkingSet) {
        let lines = working_set.to_string();
        if working_set.is_empty() || template.working_set.set(working_set).is_err() {
            return;
        }
        // One that was evicted in the meantime has no folder.
        let path = self.shared.path(template.key).join(WORKING_SET);
        if let Err(error) = tokio::fs::write(&path, lines).await {
            tracing::debug!(%error, "what clones touch is not kept beyond this run");
        }
    }

    /// A machine went on from it.
    pub fn succeeded(&self) {
        self.shared.used.fetch_add(1, Relaxed);
    }

    /// No machine went on from it: it goes, and is made again by whoever starts without it.
    pub fn failed(&self, template: &Template) {
        self.shared.failed.fetch_add(1, Relaxed);
        self.shared.index().entries.remove(&template.key);
        self.shared.remove_folder(template.key);
    }
}

impl Shared {
    /// The index. A thread that panicked while it held it has left it whole: each change is one call.
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, key: Key) -> PathBuf {
        self.folder.join(key.to_string())
    }

    fn draft_path(&self, key: Key) -> PathBuf {
        self.folder.join(format!("{key}{DRAFT_SUFFIX}"))
    }

    /// The files of a template that is being made: memory, as long as it will be, and state.
    fn make_files(&self, key: Key, memory_bytes: u64) -> io::Result<(File, File)> {
        let folder = self.draft_path(key);
        fs::create_dir_all(&folder)?;
        let make = |name| File::options().read(true).write(true).create_new(true).open(folder.join(name));
        let (memory, state) = (make("memory")?, make("state")?);
        memory.set_len(memory_bytes)?;
        Ok((memory, state))
    }

    /// Takes back what was begun: the folder first, since it is the next one's as soon as that may begin.
    fn discard_draft(&self, key: Key) {
        let folder = self.draft_path(key);
        if let Err(error) = fs::remove_dir_all(&folder)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(folder = %folder.display(), %error, "an unfinished template cannot be removed");
        }
        self.index().busy.remove(&key);
    }

    /// Reads a template of an earlier process.
    fn check(&self, key: Key) -> Result<Template, SealError> {
        let path = self.path(key);
        let files = Files::open(&path)?;
        let facts = self.secret.check(&key, &path.join("seal"), &files.memory, &files.state, &files.volumes)?;
        let template = Template::new(key, facts.level, files);
        if let Some(working_set) = read_working_set(&path.join(WORKING_SET)) {
            let _ = template.working_set.set(working_set);
        }
        Ok(template)
    }

    /// Takes one in. What it takes the place of goes, and what there is no room for.
    fn add(&self, template: Template, program: Option<String>, size_bytes: u64, saves_ms: u64) {
        let key = template.key;
        let (replaced, evicted) = {
            let mut index = self.index();
            index.busy.remove(&key);
            let earlier = |entry: &Entry| program.is_some() && entry.program == program;
            let replaced: Vec<Key> =
                index.entries.iter().filter(|(_, entry)| earlier(entry)).map(|(key, _)| *key).collect();
            for key in &replaced {
                index.entries.remove(key);
            }
            let worth = Worth::new(size_bytes, saves_ms, index.age);
            index.entries.insert(key, Entry { template: Some(Arc::new(template)), program, worth });
            let all: Vec<_> = index.entries.iter().map(|(key, entry)| (*key, entry.worth)).collect();
            let (evicted, age) = worth::select(&all, self.limit_bytes, index.age);
            index.age = age;
            for key in &evicted {
                index.entries.remove(key);
            }
            (replaced, evicted)
        };
        for key in replaced {
            tracing::info!(%key, "the template of an earlier version of a program goes");
            self.remove_folder(key);
        }
        for key in evicted {
            self.evicted.fetch_add(1, Relaxed);
            tracing::info!(%key, "a template makes room for others (templates.limit_mib)");
            self.remove_folder(key);
        }
    }

    /// Machines that go on from it hold the files open.
    fn remove_folder(&self, key: Key) {
        if let Err(error) = fs::remove_dir_all(self.path(key))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%key, %error, "a template cannot be removed");
        }
    }
}

/// A hint that somebody has left; one that cannot be read is none. The monitor holds it against its bounds.
fn read_working_set(path: &Path) -> Option<WorkingSet> {
    if fs::metadata(path).ok()?.len() > MAX_TEXT_BYTES {
        return None;
    }
    fs::read_to_string(path).ok()?.parse().ok()
}

/// A template that is being made. Dropped, it was not.
#[derive(Debug)]
pub struct Draft {
    shared: Arc<Shared>,
    key: Key,
    level: Level,
    /// For the guest's memory: as long as that.
    pub memory: File,
    /// For the rest.
    pub state: File,
    finished: bool,
}

impl Draft {
    /// How far its guest has come.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// Copies the volumes of the machine that stands still. Returns how many bytes they take.
    ///
    /// # Errors
    /// The disk.
    pub async fn keep_volumes(&mut self, volumes: Vec<Arc<File>>) -> io::Result<u64> {
        let folder = self.shared.draft_path(self.key);
        let copying = move || {
            let mut bytes = 0;
            for (index, volume) in volumes.iter().enumerate() {
                let name = folder.join(volume_name(index));
                bytes += contents(volume, &File::options().write(true).create_new(true).open(name)?)?;
            }
            Ok(bytes)
        };
        tokio::task::spawn_blocking(copying).await.unwrap_or_else(|panic| Err(io::Error::other(panic)))
    }

    /// They are full: the template can be used at once. Its seal, for which all of it is read, is made meanwhile; a node that ends before has
    /// no template.
    ///
    /// # Errors
    /// The disk.
    pub fn finish(mut self, program: Option<String>, size_bytes: u64, saves: Duration) -> io::Result<()> {
        let (draft, place) = (self.shared.draft_path(self.key), self.shared.path(self.key));
        // What an earlier template of that name has left, if it could not be removed.
        self.shared.remove_folder(self.key);
        fs::rename(&draft, &place)?;
        // Opened anew, for reading alone: nobody writes to them from now on.
        let (files, to_read) = (Files::open(&place)?, Files::open(&place)?);
        let (shared, key, level) = (Arc::clone(&self.shared), self.key, self.level);
        let saves_ms = u64::try_from(saves.as_millis()).unwrap_or(u64::MAX);
        self.finished = true;
        shared.made.fetch_add(1, Relaxed);
        shared.add(Template::new(key, level, files), program.clone(), size_bytes, saves_ms);
        let seal = move || -> io::Result<()> {
            let (memory, state) = (seal::digest(&to_read.memory)?, seal::digest(&to_read.state)?);
            let volumes = seal::digests(&to_read.volumes)?;
            let installation = shared.installation.to_string();
            let facts = Facts { installation, level, program, size_bytes, saves_ms, memory, state, volumes };
            let (path, draft) = (place.join("seal"), place.join("seal.new"));
            fs::write(&draft, shared.secret.seal(&key, &facts))?;
            fs::rename(draft, path)
        };
        tokio::task::spawn_blocking(move || {
            if let Err(error) = seal() {
                // Evicted in the meantime, most likely.
                tracing::debug!(%key, %error, "a template is not kept beyond this run");
            }
        });
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.finished {
            self.shared.not_made.fetch_add(1, Relaxed);
            self.shared.discard_draft(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;
    use vmm::working_set::PageRange;

    fn key(first: u8) -> Key {
        format!("{first:02x}{}", "0".repeat(62)).parse().expect("a key")
    }

    fn open(folder: &Path, limit_bytes: u64) -> Templates {
        open_as(folder, limit_bytes, Level::Function, 7)
    }

    fn open_as(folder: &Path, limit_bytes: u64, level: Level, installation: u8) -> Templates {
        Templates::open(folder, limit_bytes, level, Installation::for_test(installation)).expect("opened")
    }

    fn make(templates: &Templates, key: Key, size_bytes: u64) {
        make_of(templates, key, size_bytes, &key.to_string());
    }

    fn make_of(templates: &Templates, key: Key, size_bytes: u64, program: &str) {
        let draft = templates.begin(key, Level::Function, 1 << 20).expect("a draft");
        draft.memory.write_all_at(b"memory", 4096).expect("a write");
        draft.state.write_all_at(b"state", 0).expect("a write");
        draft.finish(Some(program.into()), size_bytes, Duration::from_secs(1)).expect("finished");
    }

    fn read(file: &File, at: u64) -> Vec<u8> {
        let mut bytes = vec![0; 6];
        let read = file.read_at(&mut bytes, at).expect("a read");
        bytes.truncate(read);
        bytes
    }

    /// Seals are made beside; waits for one.
    async fn sealed(folder: &Path, key: Key) {
        while !folder.join(key.to_string()).join("seal").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_template_is_found_again_after_a_restart_and_only_if_nobody_has_changed_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        let templates = open(path, 1 << 30);
        for first in 1..=4 {
            make(&templates, key(first), 100);
            sealed(path, key(first)).await;
        }
        let found = templates.find(key(1)).await.expect("made");
        assert!(found.is_to_be_watched() && !found.is_to_be_watched(), "one clone is enough");
        let working_set = WorkingSet {
            written: vec![PageRange { first: 7, pages: 2 }, PageRange { first: 4000, pages: 1 }],
            read: vec![PageRange { first: 9, pages: 1 }],
        };
        templates.learn(&found, working_set.clone()).await;
        assert_eq!(found.working_set(), working_set);
        assert_eq!((read(&found.memory, 4096), read(&found.state, 0)), (b"memory".to_vec(), b"state".to_vec()));
        let of = |first: u8, name: &str| path.join(key(first).to_string()).join(name);
        File::options()
            .write(true)
            .open(of(2, "memory"))
            .and_then(|file| file.write_all_at(b"M", 4096))
            .expect("a write");
        File::options().write(true).open(of(3, "state")).and_then(|file| file.write_all_at(b"S", 0)).expect("a write");
        fs::copy(of(1, "seal"), of(4, "seal")).expect("a copy");
        drop(templates);

        let templates = open(path, 1 << 30);
        assert!(templates.begin(key(1), Level::Function, 1 << 20).is_none(), "there is one");
        let found = templates.find(key(1)).await.expect("found again");
        assert_eq!((found.level, found.working_set()), (Level::Function, working_set));
        assert!(!found.is_to_be_watched());
        assert!(!of(4, "").exists(), "its seal is another's");
        for first in 2..=4 {
            assert!(templates.find(key(first)).await.is_none(), "{first} was changed");
            assert!(!of(first, "").exists(), "what is not believed goes");
            make(&templates, key(first), 100);
        }
    }

    #[tokio::test]
    async fn a_template_keeps_the_volumes_of_its_machine() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        let templates = open(path, 1 << 30);
        let volumes = [b"first!", b"second"].map(|bytes| {
            let file = tempfile::tempfile().expect("a file");
            file.set_len(2 << 20).expect("a length");
            file.write_all_at(bytes, 1 << 20).expect("a write");
            Arc::new(file)
        });
        for first in [1, 2] {
            let mut draft = templates.begin(key(first), Level::Function, 1 << 20).expect("a draft");
            let bytes = draft.keep_volumes(volumes.to_vec()).await.expect("kept");
            draft.finish(None, bytes, Duration::from_secs(1)).expect("finished");
            sealed(path, key(first)).await;
        }
        // The machine that was copied goes on.
        volumes[0].write_all_at(b"later.", 1 << 20).expect("a write");
        let kept = |template: &Template| template.volumes.iter().map(|file| read(file, 1 << 20)).collect::<Vec<_>>();
        let expected = [b"first!".to_vec(), b"second".to_vec()];
        assert_eq!(kept(&templates.find(key(1)).await.expect("made")), expected);
        drop(templates);
        let changed = File::options().write(true).open(path.join(key(2).to_string()).join("volume-1"));
        changed.and_then(|file| file.write_all_at(b"S", 1 << 20)).expect("a write");
        let templates = open(path, 1 << 30);
        assert_eq!(kept(&templates.find(key(1)).await.expect("found again")), expected);
        assert!(templates.find(key(2)).await.is_none(), "somebody has changed a volume");
    }

    #[tokio::test]
    async fn what_is_out_of_date_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        let there = |first: u8| path.join(key(first).to_string()).exists();
        let templates = open(path, 1 << 30);
        make_of(&templates, key(1), 100, "program");
        make_of(&templates, key(2), 100, "another");
        sealed(path, key(1)).await;
        make_of(&templates, key(3), 100, "program");
        assert!(!there(1) && there(2) && there(3), "one template of a program");
        assert!(templates.find(key(1)).await.is_none());
        sealed(path, key(2)).await;
        sealed(path, key(3)).await;
        drop(open_as(path, 1 << 30, Level::Function, 7));
        assert!(there(2) && there(3));
        drop(open_as(path, 1 << 30, Level::Function, 8));
        assert!(!there(2) && !there(3), "made with another kernel, monitor or host");
    }

    #[tokio::test]
    async fn what_is_not_finished_is_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("templates");
        fs::create_dir(&path).expect("made by an earlier version");
        drop(open(&path, 1 << 30));
        assert_eq!(path.metadata().expect("metadata").permissions().mode() & 0o777, 0o700);
        let templates = open(folder.path(), 1 << 30);
        let draft = templates.begin(key(1), Level::Runtime, 4096).expect("a draft");
        assert!(templates.begin(key(1), Level::Runtime, 4096).is_none(), "one at a time");
        assert!(templates.find(key(1)).await.is_none());
        let kept = draft.shared.draft_path(draft.key);
        drop(draft);
        assert!(!kept.exists());
        assert_eq!(templates.counts().not_made, 1);
        fs::create_dir(&kept).expect("left by a node that was killed");
        let templates = open(folder.path(), 1 << 30);
        assert!(!kept.exists());
        assert!(templates.begin(key(1), Level::Runtime, 4096).is_some());
        let off = open_as(folder.path(), 1 << 30, Level::Runtime, 7);
        assert!(off.begin(key(2), Level::Function, 4096).is_none(), "this node does not keep such templates");
    }

    #[tokio::test]
    async fn room_is_made_and_what_is_held_stays_usable() {
        let folder = tempfile::tempdir().expect("a folder");
        let templates = open(folder.path(), 250);
        make(&templates, key(1), 100);
        let held = templates.find(key(1)).await.expect("made");
        for _ in 0..3 {
            templates.find(key(1)).await.expect("used");
        }
        make(&templates, key(2), 100);
        make(&templates, key(3), 100);
        assert_eq!(templates.counts().evicted, 1);
        assert!(templates.find(key(1)).await.is_some(), "it was used more often");
        templates.failed(&held);
        assert!(templates.find(key(1)).await.is_none());
        assert_eq!(read(&held.memory, 4096), b"memory");
        assert_eq!((templates.counts().failed, templates.counts().made), (1, 3));
    }
}
