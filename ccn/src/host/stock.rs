//! What the store has for the plugins that are there, and what it has of those that are not.

use super::{Plugin, PluginInfo, Plugins, folder::Stamp};
use crate::{
    pipeline::rebuild::{self, namespace_key},
    store::{
        Changes, Reader as _, Store, StoreError,
        record::{NamespaceRecord, RebuildRecord, RebuildStage, Record as _, SuspensionRecord},
        schema::{IndexId, Table, index_prefix},
    },
};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What was found at the start, for the thread to go on with.
#[derive(Debug)]
pub struct FirstLook {
    pub(super) files: BTreeMap<PathBuf, Stamp>,
    /// Plugins whose state has to be made anew.
    pub(super) to_rebuild: Vec<Arc<Plugin>>,
}

/// What the store has for a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// The state that it reads, or nothing and nothing to make one of.
    Current,
    /// The state that it reads, and something is wrong with it.
    Stale,
    /// No state that it can read.
    Outdated,
}

/// Loads what is in the folder, before the first message is decided.
///
/// # Errors
/// The folder or the store cannot be read.
pub(crate) fn first_look(plugins: &Plugins, store: &Store) -> io::Result<FirstLook> {
    let files = plugins.files()?;
    let mut to_rebuild = Vec::new();
    for plugin in plugins.all() {
        match condition(store, &plugin).map_err(io::Error::other)? {
            Condition::Current => {}
            Condition::Stale => to_rebuild.push(plugin),
            Condition::Outdated => {
                plugins.hold(plugin.manifest().namespace());
                to_rebuild.push(plugin);
            }
        }
    }
    for path in files.keys() {
        match plugins.prepare(path, false) {
            Ok(Some(plugin)) => {
                let condition = condition(store, &plugin).map_err(io::Error::other)?;
                hold_back(store, &plugin).map_err(io::Error::other)?;
                if condition == Condition::Outdated {
                    serve_as_before(plugins, store, path, &plugin).map_err(io::Error::other)?;
                } else {
                    plugins.activate(&plugin);
                    tracing::info!("plugin {} from {}", title(&plugin), path.display());
                }
                if condition != Condition::Current {
                    to_rebuild.push(plugin);
                }
            }
            Ok(None) => {}
            Err(refusal) => tracing::error!("{} is not loaded: {refusal}", path.display()),
        }
    }
    take_stock(plugins, store, &to_rebuild).map_err(io::Error::other)?;
    Ok(FirstLook { files, to_rebuild })
}

/// Has the version that wrote the state serve until it is made anew for the one that is in the folder now.
fn serve_as_before(plugins: &Plugins, store: &Store, path: &Path, new: &Plugin) -> Result<(), StoreError> {
    let row = store.snapshot()?.get(Table::Namespaces, &namespace_key(new.manifest().namespace()))?;
    let Some(found) = row.map(|row| NamespaceRecord::read(&row)).transpose()? else { return Ok(()) };
    let old = plugins.prepare_kept(path, &found.sha256).filter(|old| old.namespace_record() == found);
    if let Some(old) = old
        && condition(store, &old)? != Condition::Outdated
    {
        hold_back(store, &old)?;
        plugins.activate(&old);
        tracing::info!("plugin {}, which was at {} before", title(&old), path.display());
    }
    Ok(())
}

/// Compares what the store has of states with the plugins that are there, while nobody else writes.
fn take_stock(plugins: &Plugins, store: &Store, to_rebuild: &[Arc<Plugin>]) -> Result<(), StoreError> {
    let snapshot = store.snapshot()?;
    let mut changes = Changes::new();
    for (key, row) in snapshot.prefixed(Table::Rebuilds, &[])? {
        let begun = RebuildRecord::read(&row)?;
        match to_rebuild.iter().find(|plugin| plugin.sha256() == begun.sha256) {
            // Every message that comes from now on is seen by it, as every one before was.
            Some(plugin) => plugins.begin_rebuild(plugin),
            // Without its plugin nobody brings it up to date: it is of no use any more.
            None => _ = changes.insert((Table::Rebuilds, key), Some(RebuildRecord::wanted().to_bytes())),
        }
    }
    let active = plugins.all();
    for plugin in &active {
        let record = plugin.namespace_record();
        changes.insert((Table::Namespaces, namespace_key(&record.namespace)), Some(record.to_bytes()));
    }
    let is_there =
        |namespace: &str| active.iter().chain(to_rebuild).any(|plugin| plugin.manifest().namespace() == namespace);
    for (_, row) in snapshot.prefixed(Table::Namespaces, &[])? {
        let left = NamespaceRecord::read(&row)?;
        if !is_there(&left.namespace) {
            plugins.say_removed(&left.namespace, PluginInfo::of_left(&left));
        }
    }
    store.commit(&changes)
}

/// What the store has for a plugin.
pub(super) fn condition(store: &Store, plugin: &Plugin) -> Result<Condition, StoreError> {
    let manifest = plugin.manifest();
    let snapshot = store.snapshot()?;
    let found = snapshot.get(Table::Namespaces, &namespace_key(manifest.namespace()))?;
    let found = found.map(|row| NamespaceRecord::read(&row)).transpose()?;
    let begun = rebuild::progress(&snapshot, manifest.namespace())?;
    let is_whole = begun.as_ref().is_none_or(|begun| begun.stage < RebuildStage::Emptying);
    Ok(match found {
        Some(found) if found.version == manifest.state_version() && found.plugin == manifest.name && is_whole => {
            if begun.is_some() {
                Condition::Stale
            } else {
                Condition::Current
            }
        }
        Some(_) => Condition::Outdated,
        None => {
            // Nothing stands of which it would know nothing, unless its state was dropped.
            let mut stand = begun.is_some();
            for kind in &manifest.types {
                stand |= snapshot.number(Table::Counts, &index_prefix(IndexId::Kind, kind))? > 0;
            }
            if stand { Condition::Outdated } else { Condition::Current }
        }
    })
}

/// A plugin that was suspended stays so over a restart.
pub(super) fn hold_back(store: &Store, plugin: &Plugin) -> Result<(), StoreError> {
    let row = store.snapshot()?.get(Table::Suspended, plugin.sha256().as_bytes())?;
    if let Some(row) = row {
        plugin.suspend(SuspensionRecord::read(&row)?.reason);
    }
    Ok(())
}

/// A plugin in a line of the log.
pub(super) fn title(plugin: &Plugin) -> String {
    let manifest = plugin.manifest();
    format!("{} {} ({})", manifest.name, manifest.version, &plugin.sha256()[..12])
}
