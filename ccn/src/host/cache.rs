//! Compiled plugins: kept in the data folder, believed only with this node's own mark.
//!
//! Compiled code is run as it is, so whoever could exchange such a file could run anything. Each file therefore begins with an HMAC-SHA256, under a
//! key that is in the node's data folder, over the name and the code. A file without it, or of another engine, is made anew.

use ccn_message::ItemHash;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash as _, Hasher as _},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};
use wasmtime::{Engine, component::Component};

const MAC_BYTES: usize = 32;
const KEY_BYTES: usize = 32;

/// Compiled plugins of one engine.
pub(super) struct Cache {
    engine: Engine,
    folder: PathBuf,
    key: [u8; KEY_BYTES],
}

impl Cache {
    /// Opens or creates the folder and its key.
    pub(super) fn open(engine: &Engine, folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let key = key(&folder.join("key"))?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        super::profile::PROFILE.hash(&mut hasher);
        let folder = folder.join(format!("{:016x}", hasher.finish()));
        fs::create_dir_all(&folder)?;
        Ok(Self { engine: engine.clone(), folder, key })
    }

    /// The component of that sha256, when it is kept.
    pub(super) fn kept(&self, sha256: &str) -> Option<Component> {
        let path = self.path(sha256);
        let file = fs::read(&path).ok()?;
        let Some((mac, code)) = file.split_at_checked(MAC_BYTES) else {
            tracing::warn!("{} is cut short and is made anew", path.display());
            return None;
        };
        if self.mac(sha256, code).verify_slice(mac).is_err() {
            tracing::warn!("{} does not carry this node's mark and is made anew", path.display());
            return None;
        }
        self.trusted(code).inspect_err(|error| tracing::warn!("{}: {error}", path.display())).ok()
    }

    /// The component of code that this program has just compiled from bytes of that sha256; it is kept.
    pub(super) fn keep(&self, sha256: &str, code: &[u8]) -> wasmtime::Result<Component> {
        let path = self.path(sha256);
        if let Err(error) = self.write(sha256, &path, code) {
            tracing::warn!("{}: {error}; the plugin is compiled again at the next start", path.display());
        }
        self.trusted(code)
    }

    /// Keeps a plugin as it came: it may have to serve when its file is another one already.
    pub(super) fn keep_file(&self, sha256: &str, bytes: &[u8]) {
        let path = self.folder.join(format!("{sha256}.wasm"));
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
            file.write_all(bytes)?;
            file.persist(&path).map_err(|error| error.error).map(drop)
        };
        if !path.exists()
            && let Err(error) = write()
        {
            tracing::warn!("{}: {error}; it cannot serve over a restart once its file is replaced", path.display());
        }
    }

    /// A plugin as it came, if these are still its bytes.
    pub(super) fn kept_file(&self, sha256: &str) -> Option<Vec<u8>> {
        let bytes = fs::read(self.folder.join(format!("{sha256}.wasm"))).ok()?;
        (ItemHash::sha256_of(&bytes).to_string() == sha256).then_some(bytes)
    }

    fn path(&self, sha256: &str) -> PathBuf {
        self.folder.join(format!("{sha256}.cwasm"))
    }

    fn write(&self, sha256: &str, path: &Path, code: &[u8]) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(&self.mac(sha256, code).finalize().into_bytes())?;
        file.write_all(code)?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    fn mac(&self, sha256: &str, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(sha256.as_bytes());
        mac.update(code);
        mac
    }

    #[expect(unsafe_code, reason = "wasmtime cannot know where compiled code comes from; this module does")]
    fn trusted(&self, code: &[u8]) -> wasmtime::Result<Component> {
        // SAFETY: the bytes are what this program has just compiled, here or in a process of its own, or they carry this node's mark, which only a process that can read the
        // node's key can have made; wasmtime itself checks that they are of this version and these settings.
        unsafe { Component::deserialize(&self.engine, code) }
    }
}

/// The node's own key, made at the first start.
fn key(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    if let Ok(bytes) = fs::read(path)
        && let Ok(key) = bytes.try_into()
    {
        return Ok(key);
    }
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    file.write_all(&key)?;
    file.sync_all()?;
    Ok(key)
}
