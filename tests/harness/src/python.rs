//! Virtual environments of the tests' own, made once and kept.

use anyhow::{Context as _, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// A Python environment with packages.
#[derive(Debug, Clone)]
pub struct Environment {
    folder: PathBuf,
}

/// Held while an environment is looked for and made: tests of several threads ask for the same.
static MAKING: Mutex<()> = Mutex::new(());

impl Environment {
    /// Makes the environment of that name in `cache`, or takes the one made before from the same requirements; one older than `fresh_for` is made anew.
    ///
    /// # Errors
    /// No Python, or a package cannot be installed.
    pub fn install(cache: &Path, name: &str, requirements: &Path, fresh_for: Option<Duration>) -> Result<Self> {
        let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = fs::read_to_string(requirements).with_context(|| requirements.display().to_string())?;
        let environment = Self { folder: cache.join(name) };
        let stamp = environment.folder.join("requirements.txt");
        let age = fs::metadata(&stamp).ok().and_then(|stamp| stamp.modified().ok()?.elapsed().ok());
        let is_stale = matches!((age, fresh_for), (Some(age), Some(limit)) if age > limit);
        if is_stale || fs::read_to_string(&stamp).ok().as_deref() != Some(wanted.as_str()) {
            // The stamp is written last: an interrupted installation is made again.
            if environment.folder.exists() {
                fs::remove_dir_all(&environment.folder)?;
            }
            run(Command::new("python3").args(["-m", "venv"]).arg(&environment.folder))?;
            run(Command::new(environment.python())
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
                .arg(requirements))?;
            fs::write(&stamp, wanted)?;
        }
        Ok(environment)
    }

    /// Its interpreter.
    #[must_use]
    pub fn python(&self) -> PathBuf {
        self.programs().join("python")
    }

    /// The folder of its programs.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.folder.join("bin")
    }

    /// The version of a package in it.
    ///
    /// # Errors
    /// It is not there.
    pub fn version(&self, package: &str) -> Result<String> {
        let question = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))";
        let answer = run(Command::new(self.python()).args(["-c", question, package]))?;
        Ok(answer.trim().to_owned())
    }
}

/// What a command prints.
fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
