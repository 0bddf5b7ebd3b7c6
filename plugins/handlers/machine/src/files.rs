//! The files that a machine is made of, as of the position of its message.
//!
//! A reference names a STORE, or the tag that begins with it. Of a tag counts the newest version before the machine that is not forgotten as of
//! then; if there is none, the STORE that was named, should it be the first of its tag: clocks differ, and what is named was there.

use plugin_sdk::{
    Fate, FileInfo, Message, Need, View,
    layout::{Key, Moment, store},
    message::content::{store::StoreContent, volume::FileReference},
};
use std::collections::BTreeMap;

/// The type whose messages bring files.
const STORE: &str = "STORE";
/// Most versions of a tag that are looked at. Whoever forgets more in a row names the version that is meant.
const MAX_VERSIONS: u32 = 100;

/// A file that a reference stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The STORE that brought it.
    pub store: String,
    /// The file.
    pub file: String,
    /// How large it is.
    pub info: FileInfo,
}

/// Why a reference stands for nothing.
#[derive(Debug, Clone, PartialEq)]
enum Lack {
    /// What is missing.
    Needs(Vec<Need>),
    /// It names a message that brings no file, and never will.
    Never,
}

/// Every reference of a machine, looked up once.
#[derive(Debug, Default)]
pub struct Files(BTreeMap<(String, bool), Result<Resolved, Lack>>);

fn place(reference: &FileReference) -> (String, bool) {
    (reference.item_hash.to_string(), reference.use_latest)
}

impl Files {
    /// Looks references up as a message sees them.
    #[must_use]
    pub fn find(references: &[&FileReference], message: &Message, view: &dyn View) -> Self {
        let at = Moment::of(message);
        let mut files = Self::default();
        for reference in references {
            files.0.entry(place(reference)).or_insert_with(|| resolve(reference, &at, view));
        }
        files
    }

    /// What a reference stands for.
    #[must_use]
    pub fn get(&self, reference: &FileReference) -> Option<&Resolved> {
        self.0.get(&place(reference))?.as_ref().ok()
    }

    /// What is missing; none when a reference can never stand for anything.
    #[must_use]
    pub fn missing(&self) -> Option<Vec<Need>> {
        let mut missing = Vec::new();
        for lack in self.0.values().filter_map(|found| found.as_ref().err()) {
            match lack {
                Lack::Needs(needs) => missing.extend(needs.iter().cloned()),
                Lack::Never => return None,
            }
        }
        let mut seen = Vec::new();
        missing.retain(|need| {
            let is_new = !seen.contains(need);
            seen.push(need.clone());
            is_new
        });
        Some(missing)
    }

    /// The STORE messages that are named, each once.
    #[must_use]
    pub fn uses(&self) -> Vec<String> {
        let mut uses: Vec<String> = self.0.keys().map(|(hash, _)| hash.clone()).collect();
        uses.dedup();
        uses
    }

    /// Keys of state that change when a tag gets or loses a version.
    #[must_use]
    pub fn watches(&self) -> Vec<(String, Vec<u8>)> {
        let tags = self.0.keys().filter(|(_, use_latest)| *use_latest);
        tags.map(|(tag, _)| (store::NAMESPACE.to_owned(), store::tally(tag))).collect()
    }
}

/// The need that is met when a tag gets or loses a version.
pub(crate) fn another_version(reference: &FileReference) -> Need {
    Need::State((store::NAMESPACE.to_owned(), store::tally(&reference.item_hash.to_string())))
}

fn resolve(reference: &FileReference, at: &Moment, view: &dyn View) -> Result<Resolved, Lack> {
    let named = reference.item_hash.to_string();
    if reference.use_latest {
        let newest = versions_before(&named, at, view).into_iter().find(|hash| view.fate_of(hash) == Fate::Standing);
        if let Some(hash) = newest
            && let Some(Ok(content)) = read(&hash, view)
        {
            return with_file(hash, &content, view);
        }
    }
    match read(&named, view) {
        Some(Ok(content)) if !reference.use_latest || content.reference.is_none() => with_file(named, &content, view),
        // An update is no tag. Its own tag is named by its first version.
        Some(Ok(_)) | None => {
            let mut needs = vec![Need::Message(named)];
            if reference.use_latest {
                needs.push(another_version(reference));
            }
            Err(Lack::Needs(needs))
        }
        Some(Err(NoStore)) => Err(Lack::Never),
    }
}

/// A message that is here and of another type.
struct NoStore;

/// The content of a STORE as of the position of the one that asks; none when it is not to be seen.
fn read(hash: &str, view: &dyn View) -> Option<Result<StoreContent, NoStore>> {
    let message = view.message(hash)?.message;
    if message.kind != STORE {
        return Some(Err(NoStore));
    }
    let content = std::str::from_utf8(&message.content).ok().and_then(|text| StoreContent::parse(text).ok());
    Some(content.ok_or(NoStore))
}

fn with_file(store: String, content: &StoreContent, view: &dyn View) -> Result<Resolved, Lack> {
    let file = content.item_hash.to_string();
    match view.file(&file) {
        Some(info) => Ok(Resolved { store, file, info }),
        None => Err(Lack::Needs(vec![Need::File(file)])),
    }
}

/// Versions of a tag before a moment, newest first: those that stand, and those that were forgotten.
fn versions_before(tag: &str, at: &Moment, view: &dyn View) -> Vec<String> {
    let moments = |table: Key| {
        let (prefix, end) = (table.clone().done(), table.moment(at));
        let rows = view.scan_in(store::NAMESPACE, &prefix, &end, MAX_VERSIONS, true).items;
        rows.into_iter().filter_map(move |(key, _)| Moment::of_key(&prefix, &key)).collect::<Vec<Moment>>()
    };
    let mut versions = [moments(store::versions(tag)), moments(store::gone(tag))].concat();
    versions.sort_by(|a, b| b.time.total_cmp(&a.time).then_with(|| b.item_hash.cmp(&a.item_hash)));
    versions.truncate(MAX_VERSIONS as usize);
    versions.into_iter().map(|version| version.item_hash).collect()
}

#[cfg(test)]
mod tests;
