//! Reproducible builders: guest kernel, initramfs, runtime root file systems and the KVM host, all
//! from Debian's packages, all kept outside the source tree under a key made of what went in.
//!
//! | module | what it does |
//! |---|---|
//! | [`Cache`] | finds finished outputs, runs builders one at a time, publishes by rename |
//! | `archive` | resolves and downloads packages with apt, in a state of its own |
//! | `tree` | a file tree in memory, made of packages, written in one canonical form |
//! | `kernel`, `initramfs`, `rootfs`, `kvm_host` | a builder each |
//! | `tools` | Debian's own `mkfs.erofs`, so that images do not depend on the host's version |
//! | `progress` | how a builder tells a person where it is |
//!
//! What always holds: a folder of the cache that has its final name is complete; finding one costs
//! no download, no package manager and no hashing of large files; a builder that was interrupted
//! leaves nothing but a folder under `work`, which the next run removes.

mod archive;
mod cache;
mod digest;
mod initramfs;
mod kernel;
mod kvm_host;
mod manifest;
mod process;
mod progress;
mod recipe;
mod rootfs;
mod status;
mod system;
mod tools;
mod tree;
mod verify;

pub use cache::Cache;
pub use kernel::Kernel;
pub use kvm_host::KvmHostImage;
pub use manifest::{Manifest, Package};
pub use progress::Progress;
pub use recipe::RECIPE_NAMES;
pub use rootfs::RootFs;
pub use status::{Output, State};
pub use system::{Sign, SystemPackage, system_packages};
pub use verify::Verified;

use std::{io, path::PathBuf};

/// Why an image cannot be had. Nothing half-made is left behind by any of these.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// A program that building needs is not installed. The machine's owner installs the package.
    #[error("`{program}` is not installed: apt-get install {package}")]
    MissingProgram {
        /// What was looked for: a program's name or a file's path.
        program: String,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// Packages did not come. Usually the network or a mirror: worth another try.
    #[error("cannot download {what}: {reason}")]
    Download {
        /// Package lists, or the packages' names.
        what: String,
        /// The last words of apt.
        reason: String,
    },
    /// Debian has no such package. The recipe is at fault.
    #[error("Debian {suite} cannot provide {names}: {reason}")]
    Unresolved {
        /// The release that was asked.
        suite: &'static str,
        /// The packages that were asked for.
        names: String,
        /// The last words of apt.
        reason: String,
    },
    /// A program that a builder runs failed.
    #[error("{what} failed ({status}):\n{tail}")]
    Command {
        /// What it was to do.
        what: String,
        /// How it ended.
        status: String,
        /// The last lines it wrote.
        tail: String,
    },
    /// Kconfig dropped a line of our configuration, so that the kernel would lack something.
    #[error("the kernel's configuration did not keep {0}: its dependencies changed, see images/kernel")]
    KernelOptions(String),
    /// The kernel that was built cannot be made into a flat image.
    #[error("the kernel that was built is unusable: {0}")]
    Flatten(#[from] vmm::kernel::FlattenError),
    /// No recipe of that name.
    #[error("there is no runtime named {0:?}; there are: {known}", known = RECIPE_NAMES.join(", "))]
    UnknownRuntime(String),
    /// A recipe says something that cannot be done.
    #[error("recipe {recipe}: {reason}")]
    Recipe {
        /// The recipe's name.
        recipe: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A package's content is not what packages look like.
    #[error("package {package}: {reason}")]
    Package {
        /// The package's file.
        package: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A kernel module that the KVM host needs is missing, or is not a module.
    #[error("kernel module {module}: {reason}")]
    Module {
        /// The module's name.
        module: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Two builds of the same inputs differ. A defect of the builder.
    #[error("{what} is not reproducible: {first} became {second}")]
    Differs {
        /// Which output.
        what: String,
        /// Digest of the one in the cache.
        first: String,
        /// Digest of the one just built.
        second: String,
    },
    /// A stored manifest cannot be read: remove the folder and build again.
    #[error("{path}: {reason}", path = .path.display())]
    Manifest {
        /// The manifest's file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file system said no. The machine's owner makes room, or corrects permissions.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Names the file in an I/O error: `result.map_err(at(path))`.
fn at(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> ImagesError {
    let path = path.into();
    move |source| ImagesError::Io { path, source }
}
