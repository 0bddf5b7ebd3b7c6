//! `ccn plugin check`: what a node does with a file that is dropped into its folder, up to the moment at which it would be active.

use super::scene;
use crate::host::{self, Manifest, Refusal};
use anyhow::Result;
use std::path::Path;

pub(super) fn check(file: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let source = scene::source(folder.path())?;
    match host::inspect(source.clone(), file) {
        Ok((_, plugin)) => {
            describe(plugin.manifest(), plugin.sha256());
            println!("\na node takes this plugin");
        }
        Err(Refusal::Indexer) => {
            let indexer = host::inspect_indexer(source, file)?;
            describe(indexer.manifest(), indexer.sha256());
            println!("\na node takes this indexer where `chains` in its settings names it");
        }
        Err(refusal) => return Err(refusal.into()),
    }
    Ok(())
}

/// Prints what a plugin says of itself.
pub(super) fn describe(manifest: &Manifest, sha256: &str) {
    let line = |name: &str, value: String| println!("{name:<12} {value}");
    let list = |values: &[String]| if values.is_empty() { "none".to_owned() } else { values.join(", ") };
    line("plugin", format!("{} {}", manifest.name, manifest.version));
    line("sha256", sha256.to_owned());
    line("contract", format!("{} ({})", manifest.contract(), manifest.kind()));
    line("types", list(&manifest.types));
    line("routes", list(&manifest.routes));
    line("state", format!("namespace `{}`, reads {}", manifest.namespace(), list(manifest.reads())));
    line("grants", asked(manifest));
    let limits = manifest.limits;
    line(
        "limits",
        format!(
            "{} fuel, {} MiB of memory, {} keys and {} KiB written, per message",
            limits.fuel, limits.memory_mib, limits.writes, limits.write_kib
        ),
    );
    line("profile", host::PROFILE.to_owned());
}

/// What an operator would have to write into the settings for it.
fn asked(manifest: &Manifest) -> String {
    let reads = manifest.reads().iter().map(|namespace| format!("read:{namespace}"));
    let asked: Vec<String> = manifest.grants.iter().cloned().chain(reads).collect();
    if asked.is_empty() {
        return "none".to_owned();
    }
    format!("{} (an operator grants them in `plugin_grants`, to this very sha256)", asked.join(", "))
}
