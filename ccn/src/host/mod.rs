//! Plugins: loads them and runs them inside bounds.

use crate::store::Store;
use serde::Serialize;
use std::sync::Arc;

/// All plugins that are active.
#[derive(Debug)]
pub struct Plugins {}

/// One plugin.
#[derive(Debug)]
pub struct Plugin {}

/// What can be said of a plugin.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PluginInfo {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Of its file, hex.
    pub sha256: String,
    /// Message types.
    pub types: Vec<String>,
    /// Route patterns.
    pub routes: Vec<String>,
}

/// A plugin's own answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// MIME type.
    pub content_type: String,
    /// Body.
    pub body: Vec<u8>,
}

/// Why a plugin gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum HostError {}

impl Plugins {
    /// The plugin of a message type.
    #[must_use]
    pub fn for_kind(&self, kind: &str) -> Option<Arc<Plugin>> {
        let _ = kind;
        None
    }

    /// All plugins.
    #[must_use]
    pub fn list(&self) -> Vec<PluginInfo> {
        Vec::new()
    }

    /// Answers a plugin's route; none when no plugin has it. `path` is the path as in the URL, percent-encoded; parameters are decoded.
    pub async fn query(
        &self,
        store: &Store,
        path: &str,
        parameters: Vec<(String, String)>,
    ) -> Option<Result<Response, HostError>> {
        let _ = (store, path, parameters);
        None
    }
}
