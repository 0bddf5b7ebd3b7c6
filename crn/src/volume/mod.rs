//! Volumes that a machine writes to.
//!
//! ```text
//! DATA_DIR/volumes/PROGRAM/NAME-DIGEST        a persistent volume: an ext4 file system, sparse
//! DATA_DIR/volumes/PROGRAM/NAME-DIGEST.new    one that is being made
//! DATA_DIR/volumes/(no name)                  an ephemeral volume: gone with the last process that has it open
//! ```
//!
//! A persistent volume is of one program and one name. It is made at the first start that asks for it and never removed by the node: only its
//! operator does that. One machine has it at a time: its file is locked (`flock`) and the lock goes with the descriptor into the monitor, so that
//! the kernel holds it for as long as any process has the volume open, a monitor that outlives a killed node among them.
//!
//! What all volumes may take together ([`Volumes::open`]) is counted by the lengths that programs were promised, not by what they have
//! written: whoever got a volume can fill it.

pub mod copy;
pub mod ext4;

use crate::random;
use ccn_message::ItemHash;
use ext4::Identity;
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};
use tokio::time::{Instant, sleep};

/// How often a volume is tried that another machine has open.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Ends the name of a file that is not a volume yet.
const DRAFT_SUFFIX: &str = ".new";
/// Characters of a volume's name that its file's name begins with.
const SHOWN_CHARS: usize = 40;

/// Volumes of a node. Clones share them.
#[derive(Debug, Clone)]
pub struct Volumes {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    limit_bytes: u64,
    /// Whether what is written to volumes stays in memory.
    in_memory: bool,
    /// Bytes promised to ephemeral volumes.
    ephemeral_bytes: AtomicU64,
    /// Bytes of all persistent volumes, as they were counted last.
    persistent_bytes: AtomicU64,
    /// Held while room is looked for and taken, so that no two volumes get the same. For threads that may wait for the disk.
    taking: Mutex<()>,
}

/// A volume that is open. A persistent one is nobody else's as long as a clone of this is there, or of its descriptor.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Open for reading and writing.
    pub file: Arc<File>,
    /// Its length, bytes.
    pub length_bytes: u64,
    _room: Option<Arc<Room>>,
}

/// What an ephemeral volume was promised, given back on drop.
#[derive(Debug)]
struct Room {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.shared.ephemeral_bytes.fetch_sub(self.bytes, Relaxed);
    }
}

/// Why there is no volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Volumes take what they may together. The operator's to change; another node may have room.
    #[error(
        "a volume of {wanted_mib} MiB does not fit: {left_mib} MiB of the {limit_mib} MiB for volumes on this node are left (volumes.limit_mib)"
    )]
    Full {
        /// Its size, MiB.
        wanted_mib: u64,
        /// What is left, MiB.
        left_mib: u64,
        /// What there is for all, MiB.
        limit_mib: u64,
    },
    /// An earlier machine of the program still has it open. Retry when that has ended.
    #[error("the volume {name:?} is still in use by an earlier machine of the program after {waited:?}")]
    InUse {
        /// Its name.
        name: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The file is shorter or longer than it was made. The operator's to mend.
    #[error(
        "the volume {path} has {found_bytes} bytes and not the {wanted_bytes} that it was made with: it was changed from outside"
    )]
    Length {
        /// Its file.
        path: PathBuf,
        /// Its length.
        found_bytes: u64,
        /// What it should be.
        wanted_bytes: u64,
    },
    /// The disk failed, or is full. The operator's to mend.
    #[error("the volume {path} cannot be used: {reason}")]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
}

/// Length of a volume of that size: a file system with a journal takes two MiB at least.
#[must_use]
pub fn length_bytes(size_mib: u64) -> u64 {
    size_mib.saturating_mul(1 << 20).max(ext4::MIN_BYTES)
}

impl Volumes {
    /// Opens the folder, which is made if it is not there; what was not finished in it goes. All volumes together may take `limit_bytes`.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn open(folder: &Path, limit_bytes: u64) -> io::Result<Self> {
        // What programs keep is in it: nobody else reads it.
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        for path in files(folder)? {
            if path.extension().is_some_and(|extension| extension == &DRAFT_SUFFIX[1..]) {
                fs::remove_file(path)?;
            }
        }
        // `linux/magic.h`: TMPFS_MAGIC, RAMFS_MAGIC.
        let kind = rustix::fs::statfs(folder)?.f_type;
        let in_memory = kind == 0x0102_1994 || kind == 0x8584_58f6;
        let shared = Shared {
            folder: folder.to_owned(),
            limit_bytes,
            in_memory,
            ephemeral_bytes: AtomicU64::new(0),
            persistent_bytes: AtomicU64::new(length_of_all(folder)?),
            taking: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What the volumes of a machine take of the memory that its monitor may have, MiB: nothing, but where the data folder is in memory.
    #[must_use]
    pub fn memory_mib<'a>(&self, volumes: impl IntoIterator<Item = &'a Volume>) -> u64 {
        if !self.shared.in_memory {
            return 0;
        }
        volumes.into_iter().map(|volume| volume.length_bytes.div_ceil(1 << 20)).sum()
    }

    /// The persistent volume of that name, made if there is none. Waits as long as `patience` for a machine that has it.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub async fn persistent(
        &self,
        program: &ItemHash,
        name: &str,
        size_mib: u64,
        patience: Duration,
    ) -> Result<Volume, VolumeError> {
        let path = self.shared.folder.join(program.to_string()).join(file_name(name));
        let length_bytes = length_bytes(size_mib);
        let shared = Arc::clone(&self.shared);
        let (file, path) =
            blocking(path, move |path| Ok((shared.open_persistent(path, length_bytes)?, path.to_owned()))).await?;
        let deadline = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    return Err(VolumeError::InUse { name: name.to_owned(), waited: patience });
                }
                Err(TryLockError::WouldBlock) => sleep(LOOK_EVERY).await,
                Err(TryLockError::Error(reason)) => return Err(VolumeError::Disk { path, reason }),
            }
        }
        Ok(Volume { file: Arc::new(file), length_bytes, _room: None })
    }

    /// An ephemeral volume: empty, or, where there is one to start from, a copy of that.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub async fn ephemeral(&self, size_mib: u64, original: Option<File>) -> Result<Volume, VolumeError> {
        let length_bytes = length_bytes(size_mib);
        let shared = Arc::clone(&self.shared);
        let (file, room) = blocking(self.shared.folder.clone(), move |folder| {
            let fail = |reason| VolumeError::Disk { path: folder.to_owned(), reason };
            let room = shared.reserve(length_bytes)?;
            let file = nameless(folder).map_err(fail)?;
            match original {
                Some(original) => copy::contents(&original, &file).map(drop).map_err(fail)?,
                None => write_file_system(&file, length_bytes).map_err(fail)?,
            }
            Ok((file, room))
        })
        .await?;
        Ok(Volume { file: Arc::new(file), length_bytes, _room: Some(Arc::new(room)) })
    }
}

impl Shared {
    fn taking(&self) -> MutexGuard<'_, ()> {
        self.taking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self) -> impl Fn(io::Error) -> VolumeError {
        |reason| VolumeError::Disk { path: self.folder.clone(), reason }
    }

    /// Whether that many more bytes fit beside what there is. To be asked with [`Self::taking`] held until they are taken.
    fn admit(&self, more_bytes: u64) -> Result<(), VolumeError> {
        let left_bytes = |persistent_bytes: u64| {
            let taken_bytes = self.ephemeral_bytes.load(Relaxed).saturating_add(persistent_bytes);
            self.limit_bytes.saturating_sub(taken_bytes)
        };
        if more_bytes <= left_bytes(self.persistent_bytes.load(Relaxed)) {
            return Ok(());
        }
        // Counted anew: their operator may have removed some.
        let persistent_bytes = length_of_all(&self.folder).map_err(self.fail())?;
        self.persistent_bytes.store(persistent_bytes, Relaxed);
        let left_bytes = left_bytes(persistent_bytes);
        if more_bytes > left_bytes {
            let (wanted_mib, left_mib, limit_mib) = (more_bytes >> 20, left_bytes >> 20, self.limit_bytes >> 20);
            return Err(VolumeError::Full { wanted_mib, left_mib, limit_mib });
        }
        Ok(())
    }

    fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Room, VolumeError> {
        let _taking = self.taking();
        self.admit(bytes)?;
        self.ephemeral_bytes.fetch_add(bytes, Relaxed);
        Ok(Room { shared: Arc::clone(self), bytes })
    }

    fn open_persistent(&self, path: &Path, wanted_bytes: u64) -> Result<File, VolumeError> {
        let fail = |reason| VolumeError::Disk { path: path.to_owned(), reason };
        let open = || File::options().read(true).write(true).open(path);
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_persistent(path, wanted_bytes)?;
                open().map_err(fail)?
            }
            opened => opened.map_err(fail)?,
        };
        let found_bytes = file.metadata().map_err(fail)?.len();
        if found_bytes != wanted_bytes {
            return Err(VolumeError::Length { path: path.to_owned(), found_bytes, wanted_bytes });
        }
        Ok(file)
    }

    /// Whole or not at all: it gets its name once it is on the disk.
    fn make_persistent(&self, path: &Path, length_bytes: u64) -> Result<(), VolumeError> {
        let fail = |reason| VolumeError::Disk { path: path.to_owned(), reason };
        let _taking = self.taking();
        self.admit(length_bytes)?;
        let folder = path.parent().unwrap_or(&self.folder);
        let mut draft = path.as_os_str().to_owned();
        draft.push(DRAFT_SUFFIX);
        let made = (|| {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            let file = File::options().read(true).write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
            write_file_system(&file, length_bytes)?;
            file.sync_all()?;
            fs::rename(&draft, path)?;
            File::open(folder)?.sync_all()?;
            File::open(&self.folder)?.sync_all()
        })();
        match &made {
            Ok(()) => drop(self.persistent_bytes.fetch_add(length_bytes, Relaxed)),
            // What could not be made is not to take room.
            Err(_) => drop(fs::remove_file(&draft)),
        }
        made.map_err(fail)
    }
}

/// A file for one program, that has no name and is gone with its last descriptor.
fn nameless(folder: &Path) -> io::Result<File> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    Ok(openat(CWD, folder, flags, Mode::RUSR | Mode::WUSR)?.into())
}

fn write_file_system(file: &File, length_bytes: u64) -> io::Result<()> {
    let mut identity = Identity { uuid: [0; 16], hash_seed: [0; 16], made: 0 };
    random::fill(&mut identity.uuid);
    random::fill(&mut identity.hash_seed);
    // RFC 9562: version 4, this variant.
    identity.uuid[6] = identity.uuid[6] & 0x0f | 0x40;
    identity.uuid[8] = identity.uuid[8] & 0x3f | 0x80;
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    identity.made = u32::try_from(since_epoch.as_secs()).unwrap_or(u32::MAX);
    let pieces = ext4::format(length_bytes, &identity).map_err(io::Error::other)?;
    file.set_len(length_bytes)?;
    pieces.iter().try_for_each(|piece| file.write_all_at(&piece.bytes, piece.at))
}

/// The name of a volume's file: what can be shown of the name, and a digest that tells it from all others.
fn file_name(name: &str) -> String {
    let shown = name.chars().take(SHOWN_CHARS).map(|char| if char.is_ascii_alphanumeric() { char } else { '_' });
    format!("{}-{}", shown.collect::<String>(), hex::encode(&Sha256::digest(name.as_bytes())[..8]))
}

/// All files in the folders of programs.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for program in fs::read_dir(folder)? {
        let program = program?;
        if program.file_type()?.is_dir() {
            for file in fs::read_dir(program.path())? {
                files.push(file?.path());
            }
        }
    }
    Ok(files)
}

/// What all volumes in those folders may take, bytes.
fn length_of_all(folder: &Path) -> io::Result<u64> {
    files(folder)?.iter().try_fold(0_u64, |sum, path| Ok(sum.saturating_add(fs::metadata(path)?.len())))
}

/// Runs what waits for the disk where it holds up nobody.
async fn blocking<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce(&Path) -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, VolumeError> {
    let path_of_work = path.clone();
    let done = tokio::task::spawn_blocking(move || work(&path_of_work)).await;
    done.unwrap_or_else(|panic| Err(VolumeError::Disk { path, reason: io::Error::other(panic) }))
}

#[cfg(test)]
mod tests;
