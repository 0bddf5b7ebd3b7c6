//! Volumes of programs and instances (messages spec section 6): three closed shapes, tried in order.

use crate::{
    ItemHash,
    json::{FormatError, Object, Value},
};

/// Most volumes of a machine.
pub const MAX_VOLUMES: usize = 256;
/// Longest comment, mount point or name, characters.
pub const MAX_LABEL_CHARS: usize = 256;
/// Largest ephemeral volume, MiB.
pub const MAX_EPHEMERAL_MIB: i64 = 1000;
/// Largest persistent volume, MiB: 2048 GB.
pub const MAX_PERSISTENT_MIB: i64 = 1_953_125;

/// A file by the STORE message that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReference {
    /// The STORE message.
    pub item_hash: ItemHash,
    /// Whether a newer version of it is to be taken.
    pub use_latest: bool,
    /// A size that a client expects, MiB: only for estimates.
    pub estimated_size_mib: Option<i64>,
}

/// A volume and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Where it is mounted, as it came.
    pub mount: Option<String>,
    /// What it is.
    pub kind: VolumeKind,
}

/// What a volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeKind {
    /// A file system image, read-only.
    Immutable(FileReference),
    /// Space that is empty at every start.
    Ephemeral {
        /// Its size, MiB.
        size_mib: u64,
    },
    /// Space that stays.
    Persistent {
        /// Its size, MiB.
        size_mib: u64,
        /// The image that it starts as.
        parent: Option<FileReference>,
        /// `host` or `store`.
        persistence: Option<Persistence>,
        /// Its name on the host.
        name: Option<String>,
    },
}

/// Where a persistent volume persists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// On the compute node.
    Host,
    /// In the network's storage.
    Store,
}

impl Persistence {
    /// Both with their words.
    pub const WORDS: [(&'static str, Self); 2] = [("host", Self::Host), ("store", Self::Store)];
}

impl Volume {
    /// Reads a volume: the first shape that fits.
    ///
    /// # Errors
    /// None fits; the error is that of the shape which its fields point to.
    pub fn read(value: Value<'_>) -> Result<Self, FormatError> {
        let shape = value.object()?;
        let has = |name: &str| shape.rest().any(|(key, value)| key == name && !value.is_null());
        if has("ref") {
            read_immutable(shape)
        } else if has("ephemeral") {
            read_ephemeral(shape)
        } else {
            read_persistent(shape)
        }
    }
}

fn read_labels(object: &mut Object<'_>) -> Result<Option<String>, FormatError> {
    let label = |value: Value<'_>| value.string_up_to(MAX_LABEL_CHARS);
    object.optional("comment", label)?;
    object.optional("mount", label)
}

fn read_immutable(mut object: Object<'_>) -> Result<Volume, FormatError> {
    let mount = read_labels(&mut object)?;
    let reference = read_file(&mut object, true)?;
    object.close()?;
    Ok(Volume { mount, kind: VolumeKind::Immutable(reference) })
}

fn read_ephemeral(mut object: Object<'_>) -> Result<Volume, FormatError> {
    let mount = read_labels(&mut object)?;
    if !object.required("ephemeral", Value::boolean)? {
        return Err(FormatError::new("ephemeral", "can only be true"));
    }
    let size_mib = object.required("size_mib", |value| value.strict_integer(1..=MAX_EPHEMERAL_MIB))?;
    object.close()?;
    Ok(Volume { mount, kind: VolumeKind::Ephemeral { size_mib: size_mib.unsigned_abs() } })
}

fn read_persistent(mut object: Object<'_>) -> Result<Volume, FormatError> {
    let mount = read_labels(&mut object)?;
    let size_mib = object.required("size_mib", |value| value.strict_integer(1..=MAX_PERSISTENT_MIB))?;
    let parent = object.optional("parent", read_parent)?;
    let persistence = object.optional("persistence", |value| value.one_of(&Persistence::WORDS))?;
    let name = object.optional("name", |value| value.string_up_to(MAX_LABEL_CHARS))?;
    object.close()?;
    let kind = VolumeKind::Persistent { size_mib: size_mib.unsigned_abs(), parent, persistence, name };
    Ok(Volume { mount, kind })
}

/// Reads a parent image: open.
///
/// # Errors
/// Another value.
pub fn read_parent(value: Value<'_>) -> Result<FileReference, FormatError> {
    read_file(&mut value.object()?, true)
}

/// Takes `ref` and `use_latest` (and the size of an estimate) out of an object.
pub(super) fn read_file(object: &mut Object<'_>, use_latest: bool) -> Result<FileReference, FormatError> {
    Ok(FileReference {
        item_hash: object.required("ref", Value::item_hash)?,
        use_latest: object.optional("use_latest", Value::boolean)?.unwrap_or(use_latest),
        estimated_size_mib: object.optional("estimated_size_mib", |value| value.integer(0..=MAX_PERSISTENT_MIB))?,
    })
}
