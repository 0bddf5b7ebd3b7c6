//! Unpacks a zip archive that a stranger has made.
//!
//! Every path stays below its folder, nothing but files, folders and links inside the archive is made, and what it may unfold to is
//! bounded: by a total, by a number of entries and by what the archive announces.

use rawzip::{CompressionMethod, ReaderAt, ZipArchiveEntryWayfinder, ZipLocator};
use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Component, Path, PathBuf},
};

/// Most entries of an archive.
pub(crate) const MAX_ENTRIES: u64 = 65_536;
/// Longest path of an entry, bytes.
const MAX_PATH_BYTES: usize = 1024;
/// Longest target of a link, bytes.
const MAX_LINK_BYTES: u64 = 1024;
/// Where rawzip looks for the end of the archive, from its last byte.
const BUFFER_BYTES: usize = 64 * 1024;

/// Why an archive is not unpacked. Its author's fault, except for [`UnpackError::Write`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    /// Not a zip archive, or a damaged one.
    #[error("the zip archive is damaged: {0}")]
    Damaged(String),
    /// A path that leaves the folder.
    #[error("the zip archive holds the path `{0}`, which leads out of its folder")]
    Escapes(String),
    /// Something that is neither file, folder nor link, or an entry that is encrypted.
    #[error("the zip archive's entry `{0}` is {1}")]
    Unsupported(String, &'static str),
    /// The same path twice.
    #[error("the zip archive holds the path `{0}` twice")]
    Duplicate(String),
    /// Too many entries.
    #[error("the zip archive has more than {MAX_ENTRIES} entries")]
    TooMany,
    /// Unfolds to too much.
    #[error("the zip archive unfolds to more than the {limit} bytes that fit the memory of its machine")]
    TooLarge {
        /// Most bytes that were allowed.
        limit: u64,
    },
    /// The guest's own disk is full or broken.
    #[error("cannot unpack `{path}`: {error}")]
    Write {
        /// Which file.
        path: String,
        /// What happened.
        error: io::Error,
    },
}

/// What an entry is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Folder,
    File { mode: u32 },
    Link,
}

/// Unpacks the archive in the first `length` bytes of `device` into `folder`, to at most `limit` bytes in all.
pub(crate) fn unpack(device: &File, length: u64, folder: &Path, limit: u64) -> Result<(), UnpackError> {
    let damaged = |error: rawzip::Error| UnpackError::Damaged(error.to_string());
    let mut buffer = vec![0; BUFFER_BYTES];
    let archive = ZipLocator::new()
        .locate_in_reader(
            rawzip::FileReader::from(device.try_clone().map_err(|error| write_error(folder, error))?),
            &mut buffer,
            length,
        )
        .map_err(|(_, error)| damaged(error))?;
    if archive.entries_hint() > MAX_ENTRIES {
        return Err(UnpackError::TooMany);
    }
    let mut seen = HashSet::new();
    let mut links = Vec::new();
    let mut left = limit;
    let mut count = 0;
    let mut entries = archive.entries(&mut buffer);
    while let Some(entry) = entries.next_entry().map_err(damaged)? {
        count += 1;
        if count > MAX_ENTRIES {
            return Err(UnpackError::TooMany);
        }
        let path = check_path(&String::from_utf8_lossy(entry.file_path().as_bytes()))?;
        let name = path.display().to_string();
        if entry.flags().is_encrypted() {
            return Err(UnpackError::Unsupported(name, "encrypted"));
        }
        let kind = kind_of(entry.is_dir(), entry.mode().value(), &name)?;
        if path.as_os_str().is_empty() {
            continue; // the folder itself
        }
        if !seen.insert(path.clone()) {
            if kind == Kind::Folder {
                continue;
            }
            return Err(UnpackError::Duplicate(name));
        }
        let target = folder.join(&path);
        match kind {
            Kind::Folder => fs::create_dir_all(&target).map_err(|error| write_error(&path, error))?,
            Kind::File { mode } => {
                if entry.uncompressed_size_hint() > left {
                    return Err(UnpackError::TooLarge { limit });
                }
                let found = Found { wayfinder: entry.wayfinder(), method: entry.compression_method() };
                left -= write_file(&archive, found, &path, &target, mode, left, limit)?;
            }
            Kind::Link => {
                // Links come last, so that no file is ever written through one.
                let found = Found { wayfinder: entry.wayfinder(), method: entry.compression_method() };
                let mut text = Vec::new();
                read_entry(&archive, found, &mut text, MAX_LINK_BYTES, &name, limit)?;
                links.push((path, text));
            }
        }
    }
    let link_paths: HashSet<PathBuf> = links.iter().map(|(path, _)| path.clone()).collect();
    for (path, text) in links {
        // Nothing is made through a link either: where it leads is only known on the disk.
        if path.ancestors().skip(1).any(|above| link_paths.contains(above)) {
            return Err(UnpackError::Escapes(path.display().to_string()));
        }
        make_link(folder, &path, &text)?;
    }
    Ok(())
}

/// Where an entry's data is and how it is packed.
struct Found {
    wayfinder: ZipArchiveEntryWayfinder,
    method: CompressionMethod,
}

fn write_file<R: ReaderAt>(
    archive: &rawzip::ZipArchive<R>,
    found: Found,
    path: &Path,
    target: &Path,
    mode: u32,
    left: u64,
    limit: u64,
) -> Result<u64, UnpackError> {
    let fail = |error| write_error(path, error);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(fail)?;
    }
    // What the runtime has at that place gives way.
    let _ = fs::remove_file(target);
    let mut file = File::options().write(true).create_new(true).open(target).map_err(fail)?;
    let written = read_entry(archive, found, &mut file, left, &path.display().to_string(), limit)?;
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(fail)?;
    Ok(written)
}

/// Reads an entry into `sink`; never more than `left` bytes, and only what its checksum vouches for.
fn read_entry<R: ReaderAt>(
    archive: &rawzip::ZipArchive<R>,
    found: Found,
    sink: &mut impl io::Write,
    left: u64,
    name: &str,
    limit: u64,
) -> Result<u64, UnpackError> {
    let damaged = |error: &dyn std::fmt::Display| UnpackError::Damaged(format!("`{name}`: {error}"));
    let entry = archive.get_entry(found.wayfinder).map_err(|error| damaged(&error))?;
    let packed = entry.reader();
    let plain: Box<dyn Read + '_> = match found.method {
        CompressionMethod::STORE => Box::new(packed),
        CompressionMethod::DEFLATE => Box::new(flate2::read::DeflateDecoder::new(packed)),
        _ => {
            return Err(UnpackError::Unsupported(name.to_owned(), "packed with a method other than store and deflate"));
        }
    };
    let mut reader = entry.verifying_reader(plain);
    let mut chunk = vec![0; BUFFER_BYTES];
    let mut total = 0;
    loop {
        let read = reader.read(&mut chunk).map_err(|error| damaged(&error))?;
        if read == 0 {
            return Ok(total);
        }
        total += read as u64;
        if total > left {
            return Err(UnpackError::TooLarge { limit });
        }
        sink.write_all(&chunk[..read]).map_err(|error| UnpackError::Write { path: name.to_owned(), error })?;
    }
}

/// The path of an entry below the folder, or why it is none.
fn check_path(text: &str) -> Result<PathBuf, UnpackError> {
    let refuse = || UnpackError::Escapes(text.chars().take(MAX_PATH_BYTES).collect());
    if text.len() > MAX_PATH_BYTES || text.contains(['\\', '\0']) {
        return Err(refuse());
    }
    let mut path = PathBuf::new();
    for component in Path::new(text).components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(refuse());
            }
        }
    }
    Ok(path)
}

/// What an entry is to become, from its unix mode (0 where the archive has none).
fn kind_of(is_folder: bool, mode: u32, name: &str) -> Result<Kind, UnpackError> {
    const TYPE: u32 = 0o170_000;
    match mode & TYPE {
        _ if is_folder => Ok(Kind::Folder),
        0o040_000 => Ok(Kind::Folder),
        0 | 0o100_000 => {
            // Set-id bits mean nothing to a program that is root already; what can be executed stays so.
            let mode = mode & 0o777;
            Ok(Kind::File { mode: if mode == 0 { 0o644 } else { mode | 0o400 } })
        }
        0o120_000 => Ok(Kind::Link),
        _ => Err(UnpackError::Unsupported(name.to_owned(), "neither a file, a folder nor a link")),
    }
}

/// Makes a link whose target stays below the folder.
fn make_link(folder: &Path, path: &Path, text: &[u8]) -> Result<(), UnpackError> {
    let target = String::from_utf8_lossy(text).into_owned();
    let parent = path.parent().unwrap_or(Path::new(""));
    if !stays_inside(parent, &target) {
        return Err(UnpackError::Escapes(format!("{} -> {target}", path.display())));
    }
    let place = folder.join(path);
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent).map_err(|error| write_error(path, error))?;
    }
    symlink(&target, &place).map_err(|error| write_error(path, error))
}

/// True when a relative link in `parent` never climbs above the folder on its way.
fn stays_inside(parent: &Path, target: &str) -> bool {
    let mut depth = parent.components().count();
    for component in Path::new(target).components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir => match depth.checked_sub(1) {
                Some(above) => depth = above,
                None => return false,
            },
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    !target.is_empty()
}

fn write_error(path: &Path, error: io::Error) -> UnpackError {
    UnpackError::Write { path: path.display().to_string(), error }
}

#[cfg(test)]
mod tests;
