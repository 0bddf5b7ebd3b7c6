//! Packages of npm in folders of the tests' own, installed once and kept.

use anyhow::{Context as _, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A folder with packages.
#[derive(Debug, Clone)]
pub struct Packages {
    folder: PathBuf,
}

impl Packages {
    /// Installs what `folder/package-lock.json` names in `cache`, or takes what was installed before from the same file. No script of a package is
    /// run.
    ///
    /// # Errors
    /// No npm, or a package cannot be installed.
    pub fn install(cache: &Path, name: &str, folder: &Path) -> Result<Self> {
        let place = cache.join(name);
        let lock = fs::read_to_string(folder.join("package-lock.json"))?;
        let stamp = place.join("installed");
        if fs::read_to_string(&stamp).ok().as_deref() != Some(lock.as_str()) {
            // The stamp is written last: an interrupted installation is made again.
            if place.exists() {
                fs::remove_dir_all(&place)?;
            }
            fs::create_dir_all(&place)?;
            for file in ["package.json", "package-lock.json"] {
                fs::copy(folder.join(file), place.join(file))?;
            }
            let mut command = Command::new("npm");
            command.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&place);
            let output = command.output().with_context(|| format!("cannot start npm, which installs {name}"))?;
            if !output.status.success() {
                bail!("npm ci in {} failed:\n{}", place.display(), String::from_utf8_lossy(&output.stderr));
            }
            fs::write(&stamp, lock)?;
        }
        Ok(Self { folder: place })
    }

    /// The folder that Node looks for packages in.
    #[must_use]
    pub fn modules(&self) -> PathBuf {
        self.folder.join("node_modules")
    }
}
