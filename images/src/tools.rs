//! Debian's own tools, run from the cache through their own loader: the bytes of an image do not
//! depend on which version the host happens to have, and the host needs none.

use crate::{
    Cache, ImagesError, Manifest, Package, Progress,
    archive::{Archive, Dependencies, RELEASE},
    cache,
    digest::Key,
    tree::{Node, Tree},
};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Raised when the way tools are put together changes.
const FORMAT: u32 = 1;
/// The package that has what file systems are made with; its dependencies come along.
const PACKAGE: &str = "erofs-utils";

/// The tools, and the packages they came in.
pub(crate) struct Tools {
    root: PathBuf,
    pub(crate) packages: Vec<Package>,
}

impl Tools {
    /// Finds or fetches the tools.
    pub(crate) fn get(cache: &Cache, progress: &dyn Progress) -> Result<Self, ImagesError> {
        let mut key = Key::new("tools", FORMAT);
        key.add(RELEASE).add(PACKAGE);
        let folder = cache.find_or_build("tools", &key.finish(), progress, |work| {
            progress.step("file system tools");
            let archive = Archive::new(cache);
            let packages = archive.packages(&[PACKAGE], Dependencies::Included, |_| true, progress)?;
            let mut tree = Tree::default();
            for package in &packages {
                tree.add_package(&archive.file(package))?;
            }
            tree.put_merged_links();
            tree.trim(&["/usr/share", "/etc"])
                .map_err(|error| ImagesError::Recipe { recipe: "tools".to_owned(), reason: error.to_string() })?;
            tree.write_folder(&work.join("root"))?;
            let manifest = Manifest {
                name: "tools".to_owned(),
                digest: String::new(),
                release: RELEASE.to_owned(),
                host_programs: Vec::new(),
                tools: Vec::new(),
                packages,
            };
            manifest.write(work)
        })?;
        let packages = Manifest::read(&folder)?.packages;
        Ok(Self { root: folder.join("root"), packages })
    }

    /// A command that runs one of the tools.
    pub(crate) fn command(&self, program: &str) -> Command {
        loaded(&self.root, program)
    }
}

/// A command that runs a program of a file tree which lies at `root`, with the libraries of that
/// tree and without changing root: needs no privilege.
pub(crate) fn loaded(root: &Path, program: &str) -> Command {
    let mut command = Command::new(root.join("usr/lib64/ld-linux-x86-64.so.2"));
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    command.arg("--library-path").arg(libraries).arg(root.join(program.trim_start_matches('/')));
    command.env_clear().env("LC_ALL", "C.UTF-8").env("PATH", "/usr/bin:/bin");
    command
}

/// Makes a compressed, read-only EROFS image of a tree at `image`.
pub(crate) fn make_erofs(tools: &Tools, tree: &Tree, options: &[String], image: &Path) -> Result<(), ImagesError> {
    let archive = image.with_extension("tar");
    let file = std::fs::File::create(&archive).map_err(crate::at(&archive))?;
    tree.write_tar(std::io::BufWriter::new(file)).map_err(crate::at(&archive))?;
    let mut command = tools.command("/usr/bin/mkfs.erofs");
    command
        .arg("--tar=f")
        // One time for all files, and an identity that does not change with each run.
        .arg(format!("-T{}", crate::tree::MODIFIED))
        .args(["-U", "clear", "--quiet"])
        .args(options)
        .arg(image)
        .arg(&archive);
    crate::process::run("mkfs.erofs", &mut command, |_| {})?;
    cache::remove(&archive)
}

/// Whether a tree has a program that [`loaded`] can run.
pub(crate) fn has_program(tree: &Tree, program: &str) -> bool {
    matches!(tree.get(program), Some(Node::File { .. } | Node::Link { .. }))
}
