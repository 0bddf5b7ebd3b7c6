//! The folder that `cargo xtask` puts what it built into, laid out as an operator would install it.
//!
//! ```text
//! ccn                 the core channel node
//! crn  vmm  images/   the compute node, as it expects them beside each other: images/kernel, images/initramfs
//! kvm-host            init of the emulated KVM host
//! static-http         a program that the tests deploy
//! runtimes/NAME.erofs root file systems, to be uploaded
//! ```
//!
//! `crn`, `vmm`, `kvm-host` and `static-http` are static programs: they run in the emulated host as they are.

use anyhow::{Result, bail};
use std::{
    env,
    path::{Path, PathBuf},
};

/// Names the folder to the programs that `cargo xtask` starts.
pub const VARIABLE: &str = "BETH_INSTALLATION";

/// What was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    folder: PathBuf,
}

impl Installation {
    /// The installation in a folder, complete or not.
    #[must_use]
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The installation that `cargo xtask` names.
    ///
    /// # Errors
    /// It names none.
    pub fn from_environment() -> Result<Self> {
        match env::var_os(VARIABLE) {
            Some(folder) if !folder.is_empty() => Ok(Self::at(folder)),
            _ => bail!("{VARIABLE} names no installation: run `cargo xtask test`, which builds one"),
        }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A program by name.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The flat guest kernel.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.folder.join("images/kernel")
    }

    /// The guest's initramfs.
    #[must_use]
    pub fn initramfs(&self) -> PathBuf {
        self.folder.join("images/initramfs")
    }

    /// A runtime's image.
    #[must_use]
    pub fn runtime(&self, name: &str) -> PathBuf {
        self.folder.join("runtimes").join(format!("{name}.erofs"))
    }
}
