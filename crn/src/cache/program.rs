//! What a program is made of: its message, and the files that the message refers to as they are now.
//!
//! [`Programs::blueprint`] asks the core channel node as little as it can: messages and files that a hash
//! names do not change and are remembered; only "the newest version" is asked for again and again.

use crate::ccn::{CcnError, Client, Message, Store};
use ccn_message::ItemHash;
use futures_util::future::try_join_all;
use guest_protocol::{Encoding, Program};
use moka::future::Cache as Memory;
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Messages that are remembered; more push the least used out.
const MAX_MESSAGES: u64 = 4096;

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
    stores: Memory<ItemHash, Store>,
    newest: Memory<ItemHash, Option<(ItemHash, Store)>>,
}

/// Everything that a start needs to know of a program. All hashes are resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Blueprint {
    /// The program.
    pub item_hash: ItemHash,
    /// The STORE message that the code comes from now.
    pub code_ref: ItemHash,
    /// Guest memory, MiB.
    pub memory_mib: u32,
    /// Virtual processors.
    pub vcpus: u32,
    /// How long the program may take to answer.
    pub seconds: Duration,
    /// How the code is run.
    pub program: Program,
    /// How the code is packed.
    pub encoding: Encoding,
    /// `module.path:attribute`, or a path inside the code.
    pub entrypoint: String,
    /// Arguments of the entry point.
    pub arguments: Vec<String>,
    /// Environment.
    pub variables: BTreeMap<String, String>,
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
    /// Read-only volumes, in order.
    pub volumes: Vec<Mount>,
}

/// A read-only volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its file.
    pub file: ItemHash,
    /// Where it goes.
    pub path: String,
}

impl Blueprint {
    /// The files of a start in the order of the machine's disks: runtime, code, data if there is any,
    /// volumes.
    pub fn files(&self) -> impl Iterator<Item = &ItemHash> {
        [&self.runtime, &self.code].into_iter().chain(&self.data).chain(self.volumes.iter().map(|volume| &volume.file))
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

/// What is read of a PROGRAM's content (spec: messages, section 6).
#[derive(Debug, Deserialize)]
struct Content {
    code: Code,
    runtime: Reference,
    data: Option<Reference>,
    #[serde(default)]
    environment: Environment,
    #[serde(default)]
    resources: Resources,
    variables: Option<BTreeMap<String, String>>,
    authorized_keys: Option<Vec<String>>,
    #[serde(default)]
    volumes: Vec<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct Code {
    encoding: String,
    entrypoint: String,
    #[serde(rename = "ref")]
    reference: ItemHash,
    interface: Option<String>,
    args: Option<Vec<String>>,
    use_latest: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Reference {
    #[serde(rename = "ref")]
    reference: ItemHash,
    use_latest: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Environment {
    internet: bool,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct Resources {
    vcpus: u32,
    memory: u32,
    seconds: u64,
}

impl Default for Resources {
    fn default() -> Self {
        Self { vcpus: 1, memory: 128, seconds: 1 }
    }
}

#[derive(Debug, Deserialize)]
struct ImmutableVolume {
    #[serde(rename = "ref")]
    reference: ItemHash,
    use_latest: Option<bool>,
    mount: Option<String>,
}

/// A file as a message names it.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    role: Role,
    reference: &'a ItemHash,
    use_latest: bool,
}

impl Programs {
    /// Looks programs up at that node. What is the newest version of a file is asked again after
    /// `latest`.
    #[must_use]
    pub fn new(client: Arc<Client>, latest: Duration) -> Self {
        Self {
            client,
            messages: Memory::builder().max_capacity(MAX_MESSAGES).time_to_live(MESSAGE_KEPT_FOR).build(),
            stores: Memory::builder().max_capacity(MAX_MESSAGES).time_to_live(STORE_KEPT_FOR).build(),
            newest: Memory::builder().max_capacity(MAX_MESSAGES).time_to_live(latest).build(),
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
        let content: Content = serde_json::from_str(&message.content)
            .map_err(|error| LookupError::Invalid { item_hash: item_hash.clone(), reason: error.to_string() })?;
        let volumes = immutable_volumes(&content)?;
        let mut wanted = vec![
            Wanted {
                role: Role::Runtime,
                reference: &content.runtime.reference,
                use_latest: content.runtime.use_latest.unwrap_or(true),
            },
            Wanted {
                role: Role::Code,
                reference: &content.code.reference,
                use_latest: content.code.use_latest.unwrap_or(false),
            },
        ];
        wanted.extend(content.data.as_ref().map(|data| Wanted {
            role: Role::Data,
            reference: &data.reference,
            use_latest: data.use_latest.unwrap_or(false),
        }));
        wanted.extend(volumes.iter().map(|volume| Wanted {
            role: Role::Volume,
            reference: &volume.reference,
            use_latest: volume.use_latest.unwrap_or(true),
        }));
        let found = try_join_all(wanted.into_iter().map(|wanted| self.resolve(wanted))).await?;
        assemble(item_hash.clone(), content, &volumes, found)
    }

    /// The STORE message that a reference means now, and its file.
    async fn resolve(&self, wanted: Wanted<'_>) -> Result<(ItemHash, ItemHash), LookupError> {
        let failed = |error: Arc<CcnError>| LookupError::File {
            role: wanted.role,
            reference: wanted.reference.clone(),
            error: (*error).clone(),
        };
        let store =
            self.stores.try_get_with_by_ref(wanted.reference, self.client.store(wanted.reference)).await.map_err(failed)?;
        if wanted.use_latest {
            let newest = self
                .newest
                .try_get_with_by_ref(wanted.reference, self.client.newest_amend(wanted.reference, &store.address))
                .await
                .map_err(failed)?;
            if let Some((item_hash, newest)) = newest {
                return Ok((item_hash, newest.item_hash));
            }
        }
        Ok((wanted.reference.clone(), store.item_hash))
    }
}

/// The volumes, as long as they are of the one kind that there is yet.
fn immutable_volumes(content: &Content) -> Result<Vec<ImmutableVolume>, LookupError> {
    if content.volumes.len() > MAX_VOLUMES {
        return Err(LookupError::Unsupported(format!(
            "The program has {} volumes; this node attaches at most {MAX_VOLUMES}",
            content.volumes.len()
        )));
    }
    let parse = |volume: &serde_json::Value| {
        let kind = if volume.get("ref").is_some() {
            return serde_json::from_value(volume.clone())
                .map_err(|error| LookupError::Unsupported(format!("A volume of the program is not valid: {error}")));
        } else if volume.get("ephemeral").is_some() {
            "an ephemeral"
        } else {
            "a persistent"
        };
        Err(LookupError::Unsupported(format!(
            "The program asks for {kind} volume; this node offers immutable volumes only, so far"
        )))
    };
    content.volumes.iter().map(parse).collect()
}

/// Puts the pieces together; `found` is in the order of [`Blueprint::files`].
fn assemble(
    item_hash: ItemHash,
    content: Content,
    volumes: &[ImmutableVolume],
    found: Vec<(ItemHash, ItemHash)>,
) -> Result<Blueprint, LookupError> {
    let invalid = |reason: String| LookupError::Invalid { item_hash: item_hash.clone(), reason };
    let Content { code, data, environment, resources, variables, authorized_keys, .. } = content;
    let encoding = match code.encoding.as_str() {
        "plain" => Encoding::Plain,
        "zip" => Encoding::Zip,
        "squashfs" => Encoding::Squashfs,
        other => return Err(invalid(format!("code.encoding {other:?}"))),
    };
    // What is said counts; else a colon tells an attribute of a module from a path.
    let program = match code.interface.as_deref() {
        Some("asgi") => Program::Asgi,
        Some("binary" | "executable") => Program::Binary,
        Some(other) => return Err(invalid(format!("code.interface {other:?}"))),
        None if code.entrypoint.contains(':') => Program::Asgi,
        None => Program::Binary,
    };
    let mut found = found.into_iter();
    let mut next = || found.next().ok_or_else(|| invalid("a reference without a file".to_owned()));
    let (_, runtime) = next()?;
    let (code_ref, code_file) = next()?;
    let data = data.map(|_| next()).transpose()?.map(|(_, file)| file);
    let volumes = volumes
        .iter()
        .enumerate()
        .map(|(index, volume)| {
            let path = volume.mount.clone().unwrap_or_else(|| format!("/mnt/unnamed_volume_{index}"));
            Ok(Mount { file: next()?.1, path })
        })
        .collect::<Result<_, LookupError>>()?;
    Ok(Blueprint {
        item_hash,
        code_ref,
        memory_mib: resources.memory,
        vcpus: resources.vcpus,
        seconds: Duration::from_secs(resources.seconds),
        program,
        encoding,
        entrypoint: code.entrypoint,
        arguments: code.args.unwrap_or_default(),
        variables: variables.unwrap_or_default(),
        authorized_keys: authorized_keys.unwrap_or_default(),
        internet: environment.internet,
        runtime,
        code: code_file,
        data,
        volumes,
    })
}
