//! Fixtures: a folder with a JSON file for each message, the files that they keep, and the questions that are asked in the end.
//!
//! A message is `{"sender": "alice", "content": {…}, "expect": {"status": "rejected", "error_code": 600}}`; names become keys, owner and time are filled
//! in, and a text `$hash:NAME`, `$address:NAME` or `$file:NAME` becomes what it stands for. A recorded message, `{"message": {…}}`, is taken as it is.

use anyhow::{Context as _, Result, bail, ensure};
use ccn_message::{
    ItemHash, MessageStatus,
    sign::{Account, Draft, to_json},
};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Time of the first message, seconds; the others follow a second apart.
const BEGINNING: u64 = 1_800_000_000;
/// Largest fixture, and largest file, bytes.
const MAX_BYTES: u64 = 16 << 20;
/// Most fixtures of a folder.
const MAX_FIXTURES: usize = 10_000;

/// What is expected of a message.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    pub(super) status: String,
    pub(super) error_code: Option<i32>,
}

#[derive(Debug, Deserialize)]
struct Form {
    sender: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    channel: Option<String>,
    content: Option<Map<String, Value>>,
    message: Option<Map<String, Value>>,
    expect: Option<Expect>,
}

/// A message.
#[derive(Debug, Clone)]
pub(super) struct Fixture {
    pub(super) name: String,
    pub(super) hash: ItemHash,
    pub(super) envelope: String,
    pub(super) expect: Option<Expect>,
}

/// A folder.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) messages: Vec<Fixture>,
    pub(super) files: Vec<PathBuf>,
    /// Paths of `queries.txt`, with what they stand for filled in.
    pub(super) queries: Vec<String>,
}

/// Somebody of that name: the same key everywhere.
fn account(name: &str) -> Result<Account> {
    let seed = ItemHash::sha256_of(name.as_bytes()).to_string();
    let key: Vec<u8> = seed
        .as_bytes()
        .chunks(2)
        .map_while(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    let key = key.try_into().ok().context("a digest has 32 bytes")?;
    Account::ethereum(key).with_context(|| format!("{name} makes no key; choose another name"))
}

impl Folder {
    /// Reads a folder; messages without a type are of `kind`.
    pub(super) fn read(folder: &Path, kind: &str) -> Result<Self> {
        let mut paths = listed(folder)?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        ensure!(!paths.is_empty(), "{}: no messages (files that end with .json)", folder.display());
        ensure!(paths.len() <= MAX_FIXTURES, "{}: more than {MAX_FIXTURES} messages", folder.display());
        let files = if folder.join("files").is_dir() { listed(&folder.join("files"))? } else { Vec::new() };
        let mut known = Known::default();
        for file in &files {
            let hash = ItemHash::sha256_of(&read(file)?);
            known.files.insert(name_of(file), hash.to_string());
        }
        let mut waiting = Vec::new();
        for (number, path) in (0..).zip(&paths) {
            let form: Form = serde_json::from_slice(&read(path)?).with_context(|| path.display().to_string())?;
            waiting.push((name_of(path), BEGINNING + number, form));
        }
        // Hashes of others are filled in as soon as those are known.
        let mut done: BTreeMap<String, Fixture> = BTreeMap::new();
        while !waiting.is_empty() {
            let before = waiting.len();
            let mut left = Vec::new();
            for (name, time, form) in waiting {
                let fixture = known.fixture(&name, time, &form, kind).with_context(|| format!("{name}.json"))?;
                match fixture {
                    Some(fixture) => {
                        known.hashes.insert(name.clone(), fixture.hash.to_string());
                        done.insert(name, fixture);
                    }
                    None => left.push((name, time, form)),
                }
            }
            if left.len() == before {
                let names: Vec<String> = left.into_iter().map(|(name, ..)| name).collect();
                bail!("{}: a `$hash:` names no other fixture, or they name each other in a circle", names.join(", "));
            }
            waiting = left;
        }
        let queries = fs::read_to_string(folder.join("queries.txt")).unwrap_or_default();
        let queries = queries.lines().map(str::trim).filter(|line| line.starts_with('/'));
        let queries = queries.map(|line| known.path(line)).collect::<Result<_>>()?;
        Ok(Self { messages: done.into_values().collect(), files, queries })
    }
}

/// What placeholders stand for.
#[derive(Debug, Default)]
struct Known {
    hashes: BTreeMap<String, String>,
    files: BTreeMap<String, String>,
}

impl Known {
    /// A message; none while it names another that is not known yet.
    fn fixture(&self, name: &str, time: u64, form: &Form, kind: &str) -> Result<Option<Fixture>> {
        let expect = form.expect.clone();
        if let Some(expect) = &expect {
            ensure!(expect.status.parse::<MessageStatus>().is_ok(), "expect.status: `{}` is no status", expect.status);
        }
        if let Some(message) = &form.message {
            let hash = message.get("item_hash").and_then(Value::as_str).context("message.item_hash: missing")?;
            let (hash, envelope) = (ItemHash::parse(hash)?, Value::Object(message.clone()).to_string());
            return Ok(Some(Fixture { name: name.to_owned(), hash, envelope, expect }));
        }
        let mut content = form.content.clone().context("content: missing")?;
        for value in content.values_mut() {
            if !self.fill(value)? {
                return Ok(None);
            }
        }
        let sender = account(form.sender.as_deref().unwrap_or("alice"))?;
        let mut draft = Draft::new(form.kind.as_deref().unwrap_or(kind), &Value::Object(content).to_string());
        draft = draft.time(time as f64);
        if let Some(channel) = &form.channel {
            draft = draft.channel(channel);
        }
        let envelope = draft.sign(&sender);
        Ok(Some(Fixture {
            name: name.to_owned(),
            hash: envelope.item_hash.clone(),
            envelope: to_json(&envelope),
            expect,
        }))
    }

    /// Fills in placeholders; false when one is not known yet.
    fn fill(&self, value: &mut Value) -> Result<bool> {
        match value {
            Value::String(text) => match self.meant(text)? {
                Meant::Itself => Ok(true),
                Meant::Is(other) => {
                    *text = other;
                    Ok(true)
                }
                Meant::Unknown => Ok(false),
            },
            Value::Array(values) => all(values.iter_mut().map(|value| self.fill(value))),
            Value::Object(fields) => all(fields.values_mut().map(|value| self.fill(value))),
            _ => Ok(true),
        }
    }

    fn meant(&self, text: &str) -> Result<Meant> {
        let find = |map: &BTreeMap<String, String>, name: &str| map.get(name).cloned();
        if let Some(name) = text.strip_prefix("$hash:") {
            return Ok(find(&self.hashes, name).map_or(Meant::Unknown, Meant::Is));
        }
        if let Some(name) = text.strip_prefix("$file:") {
            let hash = find(&self.files, name).with_context(|| format!("there is no files/{name}"))?;
            return Ok(Meant::Is(hash));
        }
        if let Some(name) = text.strip_prefix("$address:") {
            return Ok(Meant::Is(account(name)?.address().to_owned()));
        }
        Ok(Meant::Itself)
    }

    /// A path whose parts may be placeholders.
    fn path(&self, line: &str) -> Result<String> {
        let part = |part: &str| match self.meant(part)? {
            Meant::Itself => Ok(part.to_owned()),
            Meant::Is(other) => Ok(other),
            Meant::Unknown => bail!("queries.txt: `{part}` names no fixture"),
        };
        let (path, question) = line.split_once('?').map_or((line, None), |(path, question)| (path, Some(question)));
        let mut filled = path.split('/').map(part).collect::<Result<Vec<_>>>()?.join("/");
        if let Some(question) = question {
            filled = format!("{filled}?{question}");
        }
        Ok(filled)
    }
}

enum Meant {
    Itself,
    Is(String),
    Unknown,
}

fn all(mut results: impl Iterator<Item = Result<bool>>) -> Result<bool> {
    results.try_fold(true, |so_far, result| Ok(so_far && result?))
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.is_file());
    paths.sort();
    Ok(paths)
}

fn name_of(path: &Path) -> String {
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let name = if is_json { path.file_stem() } else { path.file_name() };
    name.unwrap_or_default().to_string_lossy().into_owned()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let size = fs::metadata(path).with_context(|| path.display().to_string())?.len();
    ensure!(size <= MAX_BYTES, "{}: {size} bytes, more than {MAX_BYTES}", path.display());
    fs::read(path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn folder(files: &[(&str, Value)]) -> Result<Folder> {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, value) in files {
            fs::write(folder.path().join(name), value.to_string()).expect("a file");
        }
        fs::write(folder.path().join("queries.txt"), "# what\n/api/v0/x/$hash:a/$address:bob?page=1\n")
            .expect("a file");
        Folder::read(folder.path(), "T")
    }

    #[test]
    fn names_become_keys_hashes_and_addresses() {
        let later = json!({"sender": "bob", "content": {"of": ["$hash:b"], "who": "$address:alice"}});
        let read =
            folder(&[("a.json", later), ("b.json", json!({"content": {"x": 1}, "type": "U"}))]).expect("fixtures");
        let [a, b] = read.messages.as_slice() else { panic!("two messages") };
        let envelope = |fixture: &Fixture| -> Value { serde_json::from_str(&fixture.envelope).expect("JSON") };
        let content = |fixture: &Fixture| -> Value {
            serde_json::from_str(envelope(fixture)["item_content"].as_str().expect("a text")).expect("JSON")
        };
        assert_eq!(content(a)["of"][0], b.hash.to_string().as_str());
        assert_eq!(content(a)["who"], content(b)["address"]);
        assert_eq!((content(a)["time"].as_f64(), content(b)["time"].as_f64()), (Some(1.8e9), Some(1.8e9 + 1.0)));
        assert_eq!((&envelope(a)["type"], &envelope(b)["type"]), (&json!("T"), &json!("U")));
        let bob = account("bob").expect("an account");
        assert_eq!(read.queries, [format!("/api/v0/x/{}/{}?page=1", a.hash, bob.address())]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |files: &[(&str, Value)], expect: &str| {
            let error = format!("{:#}", folder(files).map(drop).expect_err("refused"));
            assert!(error.contains(expect), "{error}");
        };
        let of = |other: &str| json!({"content": {"of": other}});
        check(&[("a.json", of("$hash:b")), ("b.json", of("$hash:a"))], "in a circle");
        check(&[("a.json", json!({}))], "content: missing");
        check(&[("a.json", of("$file:x"))], "there is no files/x");
        check(&[("a.json", json!({"content": {}, "expect": {"status": "fine"}}))], "`fine` is no status");
        check(&[("a.json", json!([1]))], "a.json");
        check(&[], "no messages");
    }
}
