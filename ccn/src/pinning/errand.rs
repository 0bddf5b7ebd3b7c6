//! What is done about one file: what is needed is read from the store, asked of the IPFS node, and written down before and after.

use super::{
    archive,
    board::Rows,
    plan::{self, Here, Step, Whose},
    queue::Look,
    record::{IpfsPinRecord, NODE_KEY, PinState},
    rpc::{Identity, Rpc, RpcError},
    walk,
};
use crate::{
    clock::now_ms,
    files::Files,
    pipeline::{EngineError, Pipeline},
    store::{
        Changes, Reader as _, Store, StoreError,
        record::{FileKind, FileRecord, Record as _},
        schema::{Table, hash_key},
    },
};
use ccn_message::ItemHash;
use std::io;

/// What errands work with.
#[derive(Debug)]
pub(super) struct Tools {
    pub(super) store: Store,
    pub(super) files: Files,
    pub(super) pipeline: Pipeline,
    pub(super) rpc: Rpc,
    /// The name of this node's pins.
    pub(super) name: String,
}

/// Why an errand came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error("the file cannot be read: {0}")]
    File(#[from] io::Error),
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// It does not keep its word.
    #[error("it said that the file is pinned, and does not list it")]
    Unlisted,
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Engine(error.into())
    }
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Pinned,
    Unpinned,
    /// Nothing was to be done, or to be written down alone.
    Nothing,
}

/// A row as it was, and as it is.
type BeforeAndAfter = (Option<PinState>, Option<PinState>);

/// How an errand ended.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) look: Look,
    pub(super) rows: BeforeAndAfter,
    pub(super) result: Result<Deed, Trouble>,
}

/// Looks at a file, and does what it needs.
pub(super) async fn look(tools: &Tools, look: Look) -> Looked {
    let mut rows = (None, None);
    let result = settle(tools, &look, &mut rows).await;
    Looked { look, rows, result }
}

async fn settle(tools: &Tools, look: &Look, rows: &mut BeforeAndAfter) -> Result<Deed, Trouble> {
    let hash = &look.hash;
    let (file, row) = read(tools, hash).await?;
    *rows = (row, row);
    let here = here(file.as_ref());
    match plan::step(here, row, look.checking) {
        None => Ok(Deed::Nothing),
        Some(Step::Pin | Step::Check) => {
            let Some(file) = file else { return Ok(Deed::Nothing) };
            match tools.rpc.pin(hash).await?.map(|name| plan::whose(&name, &tools.name, row)) {
                Some(Whose::Ours { named }) => note(tools, hash, Some(PinState::Pinned { named }), rows).await?,
                Some(Whose::Others) => note(tools, hash, Some(PinState::Found), rows).await?,
                None => return pin(tools, hash, file, rows).await,
            }
            Ok(Deed::Nothing)
        }
        Some(Step::Unpin) => {
            let pin = tools.rpc.pin(hash).await?.map(|name| plan::whose(&name, &tools.name, row));
            let is_ours = matches!(pin, Some(Whose::Ours { .. }));
            if is_ours {
                tools.rpc.remove_pin(hash).await?;
            }
            note(tools, hash, None, rows).await?;
            Ok(if is_ours { Deed::Unpinned } else { Deed::Nothing })
        }
        Some(Step::LetGo) => {
            note(tools, hash, None, rows).await?;
            Ok(Deed::Nothing)
        }
    }
}

/// Gives the file to the IPFS node and has it pinned. That it has begun is written down first: whatever cuts it off, the pin is known to be ours.
async fn pin(tools: &Tools, hash: &ItemHash, file: FileRecord, rows: &mut BeforeAndAfter) -> Result<Deed, Trouble> {
    // Ours would take the place of such a pin, and it would be gone with ours: so ours is left to whoever made it.
    let is_anothers = rows.1 != Some(PinState::Begun) && tools.rpc.has_direct_pin(hash).await?;
    if !is_anothers {
        note(tools, hash, Some(PinState::Begun), rows).await?;
    }
    let bytes = match archive::open(&tools.files, hash, file.kind).await? {
        Some(archive) => {
            let bytes = archive.bytes;
            tools.rpc.import(archive).await?;
            bytes
        }
        None => {
            tracing::debug!("the blocks of {hash} cannot be made from its bytes: the IPFS node looks for them itself");
            if file.kind == FileKind::File { file.size } else { 0 }
        }
    };
    tools.rpc.add_pin(hash, bytes, if is_anothers { "" } else { &tools.name }).await?;
    let name = tools.rpc.pin(hash).await?.ok_or(Trouble::Unlisted)?;
    let state = if is_anothers { PinState::Found } else { PinState::Pinned { named: name == tools.name } };
    note(tools, hash, Some(state), rows).await?;
    tracing::debug!("{hash} is pinned");
    Ok(Deed::Pinned)
}

/// What this node has of a file.
pub(super) fn here(file: Option<&FileRecord>) -> Here {
    match file {
        Some(file) if file.pins > 0 => Here::Kept,
        Some(_) => Here::Lingering,
        None => Here::Gone,
    }
}

async fn read(tools: &Tools, hash: &ItemHash) -> Result<(Option<FileRecord>, Option<PinState>), Trouble> {
    let (store, hash) = (tools.store.clone(), hash.clone());
    let read = move || {
        let snapshot = store.snapshot()?;
        let row = snapshot.get(Table::IpfsPins, &hash_key(&hash))?;
        let row = row.map(|row| IpfsPinRecord::read(&row)).transpose()?;
        Ok::<_, StoreError>((snapshot.file(&hash)?, row.map(|row| row.state)))
    };
    Ok(tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??)
}

/// Writes down how far a file is, unless that is known. Durable once this returns.
async fn note(
    tools: &Tools,
    hash: &ItemHash,
    state: Option<PinState>,
    rows: &mut BeforeAndAfter,
) -> Result<(), Trouble> {
    if rows.1 == state {
        return Ok(());
    }
    let row = state.map(|state| IpfsPinRecord { state, since: now_ms() }.to_bytes());
    tools.pipeline.note(Table::IpfsPins, hash_key(hash), row).await?;
    rows.1 = state;
    Ok(())
}

/// Writes down which IPFS node the rows are of; returns how many there are. Those of another one are deleted: what is pinned there is not here.
///
/// Nobody says when it became another one. What was pinned since `seen`, when it was the one before for the last time, may be here, and is ours in any
/// case: those rows stay, and are looked at again.
pub(super) async fn adopt(tools: &Tools, identity: &Identity, seen: Option<u64>) -> Result<Rows, Trouble> {
    let store = tools.store.clone();
    let read = move || store.snapshot()?.get(Table::IpfsPins, NODE_KEY);
    let known = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??;
    if known.as_deref() != Some(identity.id.as_bytes()) {
        if known.is_some() {
            tracing::warn!(
                "the IPFS node is another one than before: what was pinned there stays there, and is pinned here anew"
            );
        }
        let (mut next, moment) = (Some(walk::all().0), seen.unwrap_or(u64::MAX));
        while let Some(from) = next.take() {
            let (older, rest) = walk::older(tools.store.clone(), from, moment).await?;
            let deletions = older.into_iter().map(|key| ((Table::IpfsPins, key), None)).collect::<Changes>();
            tools.pipeline.keep_rows(deletions).await?;
            next = rest;
        }
        tools.pipeline.note(Table::IpfsPins, NODE_KEY.to_vec(), Some(identity.id.clone().into_bytes())).await?;
    }
    walk::count(tools.store.clone()).await
}
