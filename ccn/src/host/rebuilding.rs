//! The plugins whose state is being made anew. The one who decides makes it, in the store; here is for whom, and how far it is.

use super::{Plugin, PluginInfo, PluginState};
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// By namespace.
#[derive(Default)]
pub(super) struct Rebuilding(RwLock<BTreeMap<String, Rebuilt>>);

struct Rebuilt {
    plugin: Arc<Plugin>,
    /// How far, for people.
    progress: String,
}

impl Rebuilding {
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Rebuilt>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Rebuilt>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self, plugin: &Arc<Plugin>) {
        let rebuilt = Rebuilt { plugin: plugin.clone(), progress: "it is begun".to_owned() };
        self.write().insert(plugin.manifest().namespace().to_owned(), rebuilt);
    }

    pub(super) fn end(&self, namespace: &str) {
        self.write().remove(namespace);
    }

    /// Ends it for a plugin whose state is made, after doing `last`; nothing when it is not wanted any more. Whoever ends it otherwise waits for that.
    pub(super) fn finish(&self, plugin: &Arc<Plugin>, last: impl FnOnce()) -> bool {
        let mut all = self.write();
        let namespace = plugin.manifest().namespace();
        let is_wanted = all.get(namespace).is_some_and(|rebuilt| Arc::ptr_eq(&rebuilt.plugin, plugin));
        if is_wanted {
            last();
            all.remove(namespace);
        }
        is_wanted
    }

    pub(super) fn plugins(&self) -> Vec<Arc<Plugin>> {
        self.read().values().map(|rebuilt| rebuilt.plugin.clone()).collect()
    }

    pub(super) fn for_kind(&self, kind: &str) -> Option<Arc<Plugin>> {
        let all = self.read();
        let mut plugins = all.values().map(|rebuilt| &rebuilt.plugin);
        plugins.find(|plugin| plugin.manifest().types.iter().any(|each| each == kind)).cloned()
    }

    pub(super) fn say(&self, plugin: &Plugin, progress: String) {
        if let Some(rebuilt) = self.write().get_mut(plugin.manifest().namespace()) {
            rebuilt.progress = progress;
        }
    }

    pub(super) fn infos(&self) -> Vec<PluginInfo> {
        let info = |rebuilt: &Rebuilt| {
            let (state, reason) = (PluginState::Rebuilding, Some(rebuilt.progress.clone()));
            PluginInfo { state, reason, ..rebuilt.plugin.info() }
        };
        self.read().values().map(info).collect()
    }
}
