//! What a program is made of: its message, and the files that the message refers to as they are now.
//!
//! [`Programs::blueprint`] asks the core channel node as little as it can: messages and files that a hash
//! names do not change and are remembered; only "the newest version" is asked for again and again.

use crate::ccn::{CcnError, Client, Message};
use ccn_message::{
    ItemHash,
    content::{
        machine::Machine,
        program::{Encoding, Interface, ProgramContent},
        store::StoreContent,
        volume::{FileReference, Persistence, VolumeKind},
    },
};
use futures_util::future::try_join_all;
use moka::future::Cache as Memory;
use std::{collections::HashSet, sync::Arc, time::Duration};

/// Bytes of the messages that are remembered; more push the least used out. A message may take 4 MiB.
const MAX_MESSAGE_BYTES: u64 = 64 << 20;

/// Versions of files that are remembered; more push the least used out. They are of a few hundred bytes.
const MAX_STORES: u64 = 4096;

/// How long a message is believed to be in force without asking again.
const MESSAGE_KEPT_FOR: Duration = Duration::from_secs(60);

/// How long a STORE message is believed to be in force: its file is in our own cache anyway.
const STORE_KEPT_FOR: Duration = Duration::from_secs(3600);

/// Most volumes of a program on this node: what is left of a machine's disks after runtime, code and data.
pub const MAX_VOLUMES: usize = vmm::config::MAX_DISKS - 3;

/// Looks programs up. Clones share what is remembered.
#[derive(Debug, Clone)]
pub struct Programs {
    client: Arc<Client>,
    messages: Memory<ItemHash, Message>,
    stores: Memory<ItemHash, StoreContent>,
    newest: Memory<ItemHash, Option<(ItemHash, StoreContent)>>,
}

/// Everything that a start needs to know of a program. All hashes are resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Blueprint {
    /// The program.
    pub item_hash: ItemHash,
    /// The STORE message that the code comes from now.
    pub code_ref: ItemHash,
    /// Guest memory, MiB.
    pub memory_mib: u64,
    /// Virtual processors.
    pub vcpus: u32,
    /// How long the program may take to answer.
    pub seconds: Duration,
    /// How the code is run.
    pub interface: Interface,
    /// How the code is packed.
    pub encoding: Encoding,
    /// `module.path:attribute`, or a path inside the code.
    pub entrypoint: String,
    /// Arguments of the entry point.
    pub arguments: Vec<String>,
    /// Environment.
    pub variables: Vec<(String, String)>,
    /// Keys for the guest's `authorized_keys`.
    pub authorized_keys: Vec<String>,
    /// Whether it asks for a network.
    pub internet: bool,
    /// The root file system.
    pub runtime: ItemHash,
    /// The code.
    pub code: ItemHash,
    /// A zip for `/data`.
    pub data: Option<ItemHash>,
    /// Volumes, in order.
    pub volumes: Vec<Mount<ItemHash>>,
}

/// A volume and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount<F> {
    /// Where it goes.
    pub path: String,
    /// What it is.
    pub source: Source<F>,
}

/// What a volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source<F> {
    /// An image that is only read.
    Image(F),
    /// Space of one machine.
    Ephemeral {
        /// Its size, MiB.
        size_mib: u64,
    },
    /// Space of the program on this node. No two of a program have the same name.
    Persistent {
        /// Its name.
        name: String,
        /// Its size, MiB.
        size_mib: u64,
    },
}

impl Blueprint {
    /// The disks of a machine, in order: runtime, code, data if there is any, volumes.
    pub fn disks(&self) -> impl Iterator<Item = Source<&ItemHash>> {
        let first = [&self.runtime, &self.code].into_iter().chain(&self.data).map(Source::Image);
        first.chain(self.volumes.iter().map(|volume| volume.source.as_ref()))
    }

    /// The files among them, in order.
    pub fn files(&self) -> impl Iterator<Item = &ItemHash> {
        self.disks().filter_map(|disk| match disk {
            Source::Image(file) => Some(file),
            Source::Ephemeral { .. } | Source::Persistent { .. } => None,
        })
    }

    /// What the message says for a variable.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Whether it has a volume that only one machine may have open, and that is not what it was when another machine began.
    #[must_use]
    pub fn has_persistent_volume(&self) -> bool {
        self.volumes.iter().any(|volume| matches!(volume.source, Source::Persistent { .. }))
    }
}

impl<F> Source<F> {
    fn as_ref(&self) -> Source<&F> {
        match self {
            Self::Image(file) => Source::Image(file),
            Self::Ephemeral { size_mib } => Source::Ephemeral { size_mib: *size_mib },
            Self::Persistent { name, size_mib } => Source::Persistent { name: name.clone(), size_mib: *size_mib },
        }
    }

    fn map<G>(self, change: impl FnOnce(F) -> G) -> Source<G> {
        match self {
            Self::Image(file) => Source::Image(change(file)),
            Self::Ephemeral { size_mib } => Source::Ephemeral { size_mib },
            Self::Persistent { name, size_mib } => Source::Persistent { name, size_mib },
        }
    }
}

/// Which file of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Its code.
    Code,
    /// Its root file system.
    Runtime,
    /// Its data.
    Data,
    /// One of its volumes.
    Volume,
}

/// Why a program cannot be looked up.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LookupError {
    /// Its message cannot be had; see there.
    #[error(transparent)]
    Message(CcnError),
    /// The message is of another type. The caller's fault. Reject.
    #[error("message {item_hash} is of type {kind}, which is not a program")]
    NotProgram {
        /// The message.
        item_hash: ItemHash,
        /// Its type.
        kind: String,
    },
    /// The content is not that of a PROGRAM, which the network should have rejected. Reject.
    #[error("message {item_hash} has no valid content: {reason}")]
    Invalid {
        /// The message.
        item_hash: ItemHash,
        /// What is wrong.
        reason: String,
    },
    /// A file that it refers to cannot be had; see there.
    #[error("{reference}: {error}")]
    File {
        /// What the file is to the program.
        role: Role,
        /// The reference in the message.
        reference: ItemHash,
        /// Why.
        error: CcnError,
    },
    /// It asks for something that this node does not have yet. Reject; the sentence says what.
    #[error("{0}")]
    Unsupported(String),
}

/// A file as a message names it.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    role: Role,
    file: &'a FileReference,
}

impl Programs {
    /// Looks programs up at that node. What is the newest version of a file is asked again after
    /// `latest`.
    #[must_use]
    pub fn new(client: Arc<Client>, latest: Duration) -> Self {
        Self {
            client,
            messages: Memory::builder()
                .max_capacity(MAX_MESSAGE_BYTES)
                .weigher(|_, message: &Message| u32::try_from(message.content.len()).unwrap_or(u32::MAX))
                .time_to_live(MESSAGE_KEPT_FOR)
                .build(),
            stores: Memory::builder().max_capacity(MAX_STORES).time_to_live(STORE_KEPT_FOR).build(),
            newest: Memory::builder().max_capacity(MAX_STORES).time_to_live(latest).build(),
        }
    }

    /// What the program is made of now.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub async fn blueprint(&self, item_hash: &ItemHash) -> Result<Blueprint, LookupError> {
        let message = self
            .messages
            .try_get_with_by_ref(item_hash, self.client.message(item_hash))
            .await
            .map_err(|error| LookupError::Message((*error).clone()))?;
        if message.kind != "PROGRAM" {
            return Err(LookupError::NotProgram { item_hash: item_hash.clone(), kind: message.kind });
        }
        let content = ProgramContent::parse(&message.content)
            .map_err(|error| LookupError::Invalid { item_hash: item_hash.clone(), reason: error.to_string() })?;
        let volumes = mounts(&content)?;
        let mut wanted = vec![
            Wanted { role: Role::Runtime, file: &content.runtime },
            Wanted { role: Role::Code, file: &content.code.file },
        ];
        wanted.extend(content.data.as_ref().map(|file| Wanted { role: Role::Data, file }));
        wanted.extend(volumes.iter().filter_map(|volume| match &volume.source {
            Source::Image(file) => Some(Wanted { role: Role::Volume, file }),
            Source::Ephemeral { .. } | Source::Persistent { .. } => None,
        }));
        let found = try_join_all(wanted.into_iter().map(|wanted| self.resolve(wanted))).await?;
        Ok(assemble(item_hash.clone(), content, volumes, found))
    }

    /// The STORE message that a reference means now, and its file.
    async fn resolve(&self, wanted: Wanted<'_>) -> Result<(ItemHash, ItemHash), LookupError> {
        let FileReference { item_hash, use_latest, .. } = wanted.file;
        let failed = |error: Arc<CcnError>| LookupError::File {
            role: wanted.role,
            reference: item_hash.clone(),
            error: (*error).clone(),
        };
        let store = self.stores.try_get_with_by_ref(item_hash, self.client.store(item_hash)).await.map_err(failed)?;
        if *use_latest {
            let asking = self.client.newest_amend(item_hash, &store.header.address);
            let newest = self.newest.try_get_with_by_ref(item_hash, asking).await.map_err(failed)?;
            if let Some((newest_hash, newest)) = newest {
                return Ok((newest_hash, newest.item_hash));
            }
        }
        Ok((item_hash.clone(), store.item_hash))
    }
}

/// The volumes, as long as they are of the kinds that there are.
fn mounts(content: &ProgramContent) -> Result<Vec<Mount<FileReference>>, LookupError> {
    let unsupported = |sentence: String| Err(LookupError::Unsupported(sentence));
    let volumes = &content.machine.volumes;
    if volumes.len() > MAX_VOLUMES {
        let count = volumes.len();
        return unsupported(format!("The program has {count} volumes; this node attaches at most {MAX_VOLUMES}"));
    }
    let mut names = HashSet::new();
    let mut mounts = Vec::new();
    for (index, volume) in volumes.iter().enumerate() {
        let (default, source) = match &volume.kind {
            VolumeKind::Immutable(file) => (format!("unnamed_volume_{index}"), Source::Image(file.clone())),
            VolumeKind::Ephemeral { size_mib } => {
                (format!("unnamed_volume_{index}"), Source::Ephemeral { size_mib: *size_mib })
            }
            VolumeKind::Persistent { persistence: Some(Persistence::Store), .. } => {
                return unsupported(
                    "The program asks for a volume with persistence \"store\"; this node keeps volumes on its own disk only: persistence \"host\"".into(),
                );
            }
            VolumeKind::Persistent { parent: Some(_), .. } => {
                return unsupported(
                    "The program asks for a volume that starts as a copy of another (\"parent\"); this node makes empty ones only".into(),
                );
            }
            VolumeKind::Persistent { size_mib, name, persistence: Some(Persistence::Host) | None, parent: None } => {
                let given = name.clone().filter(|name| !name.is_empty());
                // Spelt as it always was: programs may look there.
                let name = given.unwrap_or_else(|| format!("unamed_volume_{index}"));
                if !names.insert(name.clone()) {
                    return unsupported(format!(
                        "The program has two persistent volumes named {name:?}; this node attaches a volume once"
                    ));
                }
                (name.clone(), Source::Persistent { name, size_mib: *size_mib })
            }
        };
        let path = volume.mount.clone().unwrap_or_else(|| format!("/mnt/{default}"));
        mounts.push(Mount { path, source });
    }
    Ok(mounts)
}

/// Puts the pieces together. `found` has the runtime, the code, the data if there is any, and the images of volumes.
fn assemble(
    item_hash: ItemHash,
    content: ProgramContent,
    volumes: Vec<Mount<FileReference>>,
    found: Vec<(ItemHash, ItemHash)>,
) -> Blueprint {
    let ProgramContent { machine, code, data, environment, .. } = content;
    let Machine { resources, variables, authorized_keys, .. } = machine;
    let mut found = found.into_iter();
    let mut next = || found.next().expect("every reference was resolved");
    let (_, runtime) = next();
    let (code_ref, code_file) = next();
    let data = data.map(|_| next().1);
    let volumes =
        volumes.into_iter().map(|Mount { path, source }| Mount { path, source: source.map(|_| next().1) }).collect();
    Blueprint {
        item_hash,
        code_ref,
        memory_mib: resources.memory_mib,
        vcpus: resources.vcpus,
        seconds: Duration::from_secs(resources.seconds),
        interface: code.interface,
        encoding: code.encoding,
        entrypoint: code.entrypoint,
        arguments: code.arguments,
        variables,
        authorized_keys,
        internet: environment.internet,
        runtime,
        code: code_file,
        data,
        volumes,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A program with these volumes and variables.
    pub(crate) fn blueprint(volumes: &Value, variables: &Value, vcpus: u32) -> Result<Blueprint, LookupError> {
        let hash = "ab".repeat(32);
        let content = json!({
            "address": "0x1", "time": 1.0, "type": "vm-function", "allow_amend": false,
            "environment": {"reproducible": false, "internet": false, "aleph_api": false, "shared_cache": false},
            "resources": {"vcpus": vcpus, "memory": 128, "seconds": 30},
            "code": {"encoding": "zip", "entrypoint": "main:app", "ref": hash, "use_latest": false},
            "runtime": {"ref": hash, "use_latest": false, "comment": ""},
            "on": {"http": true}, "variables": variables, "volumes": volumes,
        });
        let content = ProgramContent::parse(&content.to_string()).expect("a program");
        let volumes = mounts(&content)?;
        let found = |byte: u8| (ItemHash::sha256_of(&[byte]), ItemHash::sha256_of(&[byte, byte]));
        Ok(assemble(ItemHash::sha256_of(b"program"), content, volumes, (0..9).map(found).collect()))
    }

    fn volumes(volumes: &Value) -> Result<Vec<Mount<ItemHash>>, String> {
        blueprint(volumes, &json!({}), 1).map(|blueprint| blueprint.volumes).map_err(|error| error.to_string())
    }

    #[test]
    fn volumes_keep_their_order_and_have_names_and_places() {
        let image = json!({"ref": "cd".repeat(32), "use_latest": false, "mount": "/opt/venv"});
        let found = volumes(&json!([
            {"ephemeral": true, "size_mib": 7},
            image,
            {"persistence": "host", "name": "data", "size_mib": 5, "mount": "/var/lib/example"},
            {"persistence": "host", "name": "my db", "size_mib": 5},
            {"size_mib": 9},
            {"name": "", "size_mib": 9},
        ]));
        let persistent = |name: &str, size_mib| Source::Persistent { name: name.into(), size_mib };
        let expected = [
            ("/mnt/unnamed_volume_0", Source::Ephemeral { size_mib: 7 }),
            // Behind runtime and code.
            ("/opt/venv", Source::Image(ItemHash::sha256_of(&[2, 2]))),
            ("/var/lib/example", persistent("data", 5)),
            ("/mnt/my db", persistent("my db", 5)),
            ("/mnt/unamed_volume_4", persistent("unamed_volume_4", 9)),
            ("/mnt/unamed_volume_5", persistent("unamed_volume_5", 9)),
        ];
        let expected = expected.map(|(path, source)| Mount { path: path.to_owned(), source });
        assert_eq!(found.as_deref(), Ok(expected.as_slice()));
    }

    #[test]
    fn disks_are_files_and_what_is_written() {
        let volumes = json!([{"ephemeral": true, "size_mib": 7}, {"ref": "cd".repeat(32), "mount": "/opt"}]);
        let blueprint = blueprint(&volumes, &json!({}), 1).expect("a blueprint");
        let files: Vec<ItemHash> = blueprint.files().cloned().collect();
        assert_eq!(files, [0, 1, 2].map(|byte| ItemHash::sha256_of(&[byte, byte])));
        assert!(matches!(blueprint.disks().nth(2), Some(Source::Ephemeral { size_mib: 7 })));
        assert_eq!(blueprint.disks().count(), 4);
    }

    #[test]
    fn what_cannot_be_attached_is_said() {
        let check = |volume: Value, words: &str| {
            let error = volumes(&volume).expect_err("a refusal");
            assert!(error.contains(words), "{error}");
        };
        check(json!([{"persistence": "store", "name": "a", "size_mib": 5}]), "persistence \"store\"");
        let parent = json!({"ref": "cd".repeat(32)});
        check(json!([{"persistence": "host", "name": "a", "size_mib": 5, "parent": parent}]), "(\"parent\")");
        let twice = json!({"persistence": "host", "name": "a", "size_mib": 5});
        check(json!([twice, twice]), "two persistent volumes named \"a\"");
        let many = vec![json!({"ephemeral": true, "size_mib": 1}); MAX_VOLUMES + 1];
        check(json!(many), "at most 13");
    }
}
