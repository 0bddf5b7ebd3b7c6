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
        volume::{FileReference, VolumeKind},
    },
};
use futures_util::future::try_join_all;
use moka::future::Cache as Memory;
use std::{sync::Arc, time::Duration};

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
        let volumes = immutable_volumes(&content)?;
        let mut wanted = vec![
            Wanted { role: Role::Runtime, file: &content.runtime },
            Wanted { role: Role::Code, file: &content.code.file },
        ];
        wanted.extend(content.data.as_ref().map(|file| Wanted { role: Role::Data, file }));
        wanted.extend(volumes.iter().map(|(file, _)| Wanted { role: Role::Volume, file }));
        let found = try_join_all(wanted.into_iter().map(|wanted| self.resolve(wanted))).await?;
        let paths = volumes.into_iter().map(|(_, path)| path).collect();
        Ok(assemble(item_hash.clone(), content, paths, found))
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

/// The volumes and their mount points, as long as they are of the one kind that there is yet.
fn immutable_volumes(content: &ProgramContent) -> Result<Vec<(FileReference, String)>, LookupError> {
    if content.machine.volumes.len() > MAX_VOLUMES {
        return Err(LookupError::Unsupported(format!(
            "The program has {} volumes; this node attaches at most {MAX_VOLUMES}",
            content.machine.volumes.len()
        )));
    }
    let only = |(index, volume): (usize, &ccn_message::content::volume::Volume)| {
        let kind = match &volume.kind {
            VolumeKind::Immutable(file) => {
                let path = volume.mount.clone().unwrap_or_else(|| format!("/mnt/unnamed_volume_{index}"));
                return Ok((file.clone(), path));
            }
            VolumeKind::Ephemeral { .. } => "an ephemeral",
            VolumeKind::Persistent { .. } => "a persistent",
        };
        Err(LookupError::Unsupported(format!(
            "The program asks for {kind} volume; this node offers immutable volumes only, so far"
        )))
    };
    content.machine.volumes.iter().enumerate().map(only).collect()
}

/// Puts the pieces together. `found` has the runtime, the code, the data if there is any, and the volumes.
fn assemble(
    item_hash: ItemHash,
    content: ProgramContent,
    paths: Vec<String>,
    found: Vec<(ItemHash, ItemHash)>,
) -> Blueprint {
    let ProgramContent { machine, code, data, environment, .. } = content;
    let Machine { resources, variables, authorized_keys, .. } = machine;
    let mut found = found.into_iter();
    let mut next = || found.next().expect("every reference was resolved");
    let (_, runtime) = next();
    let (code_ref, code_file) = next();
    let data = data.map(|_| next().1);
    let volumes = paths.into_iter().map(|path| Mount { file: next().1, path }).collect();
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
