//! The files that a program is made of, found through the state of STORE.

use plugin_sdk::{
    FileInfo, Need, View,
    decimal::Decimal,
    layout::store,
    message::content::{
        program::ProgramContent,
        volume::{FileReference, Volume, VolumeKind},
    },
    price,
};

/// The files that a program names, each once for each place: code, runtime, data, then volumes in order.
pub(crate) fn references(content: &ProgramContent) -> Vec<&FileReference> {
    let mut references = vec![&content.code.file, &content.runtime];
    references.extend(&content.data);
    references.extend(content.volumes.iter().filter_map(|volume| match &volume.kind {
        VolumeKind::Immutable(reference) => Some(reference),
        VolumeKind::Persistent { parent, .. } => parent.as_ref(),
        VolumeKind::Ephemeral { .. } => None,
    }));
    references
}

/// A file that a reference stands for.
pub(crate) struct Resolved {
    pub(crate) file: String,
    pub(crate) info: FileInfo,
}

/// Finds the file behind a reference: the newest version of the tag, or the one that the STORE message itself brought.
///
/// # Errors
/// What is missing.
pub(crate) fn resolve(reference: &FileReference, view: &dyn View) -> Result<Resolved, Need> {
    let hash = reference.item_hash.to_string();
    let (key, file) = if reference.use_latest {
        let key = store::latest(&hash);
        let value = view.get_in(store::NAMESPACE, &key);
        (key, value.and_then(|value| Some(store::read_latest(&value)?.1.to_owned())))
    } else {
        let key = store::message(&hash);
        let value = view.get_in(store::NAMESPACE, &key);
        (key, value.and_then(|value| Some(store::Record::read(&value)?.file)))
    };
    let file = file.ok_or_else(|| Need::State((store::NAMESPACE.to_owned(), key)))?;
    match view.file(&file) {
        Some(info) => Ok(Resolved { file, info }),
        None => Err(Need::File(file)),
    }
}

/// The same reference without the wish for newer versions.
pub(crate) fn first_version(reference: &FileReference) -> FileReference {
    FileReference { use_latest: false, ..reference.clone() }
}

/// The size of a file, MiB, as an estimate says it or as it is; none when neither is known.
pub(crate) fn size_mib(reference: &FileReference, view: &dyn View) -> Option<Decimal> {
    match reference.estimated_size_mib {
        Some(size_mib) => Some(Decimal::from_integer(size_mib.unsigned_abs())),
        None => resolve(reference, view).ok().map(|resolved| price::mib(resolved.info.size)),
    }
}

/// What a volume is called in errors: its name, its mount point, or its place in the list.
pub(crate) fn label(index: usize, volume: &Volume) -> String {
    let name = match &volume.kind {
        VolumeKind::Persistent { name, .. } => name.as_ref(),
        VolumeKind::Immutable(_) | VolumeKind::Ephemeral { .. } => None,
    };
    name.or(volume.mount.as_ref()).cloned().unwrap_or_else(|| format!("#{index}"))
}
