//! The node: its parts in the order that a message meets them, and their end in reverse.

use crate::{config::Config, files::Files, host::Plugins, pipeline::Pipeline, store::Store};
use std::sync::Arc;

/// What the HTTP interface works with.
#[derive(Debug)]
pub struct Service {
    /// Settings.
    pub config: Config,
    /// The way in.
    pub pipeline: Pipeline,
    /// What is known.
    pub store: Store,
    /// What message types mean.
    pub plugins: Arc<Plugins>,
    /// Files.
    pub files: Files,
}
