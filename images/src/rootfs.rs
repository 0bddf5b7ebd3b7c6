//! Runtime root file systems: packages unpacked, never configured, trimmed and completed by a
//! recipe, packed as one read-only image.

use crate::{
    Cache, ImagesError, Manifest, Progress,
    archive::{Archive, Dependencies, RELEASE},
    at, cache, digest, process,
    recipe::{self, Recipe},
    tools::{self, Tools},
    tree::{Node, Tree},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Raised when what the builder makes of the same recipe and packages changes.
const FORMAT: u32 = 3;
/// The image's name in its folder.
const IMAGE: &str = "image.erofs";

/// A built runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootFs {
    /// The read-only file system image, a multiple of 4,096 bytes long.
    pub image: PathBuf,
    /// What it was made of.
    pub manifest: PathBuf,
    /// The image's sha256, in hex.
    pub digest: String,
}

impl Cache {
    /// A runtime by name, built if it is not there.
    ///
    /// # Errors
    /// No such runtime, a missing program, or a failed download.
    pub fn rootfs(&self, name: &str, progress: &dyn Progress) -> Result<RootFs, ImagesError> {
        let folder = self.find_or_build("rootfs", &folder_name(name)?, progress, |work| {
            let tools = Tools::get(self, progress)?;
            progress.step(&format!("runtime {name}"));
            build(self, name, None, &tools, work, progress)
        })?;
        rootfs_in(&folder)
    }

    /// The folder of a current runtime, if it was built.
    pub(crate) fn rootfs_folder(&self, name: &str) -> Result<Option<PathBuf>, ImagesError> {
        Ok(self.find("rootfs", &folder_name(name)?))
    }
}

/// Builds the runtime of a manifest anew in `work`.
pub(crate) fn rebuild(
    cache: &Cache,
    manifest: &Manifest,
    work: &Path,
    progress: &dyn Progress,
) -> Result<RootFs, ImagesError> {
    let tools = Tools::get(cache, progress)?;
    build(cache, &manifest.name, Some(manifest), &tools, work, progress)?;
    rootfs_in(work)
}

pub(crate) fn rootfs_in(folder: &Path) -> Result<RootFs, ImagesError> {
    Ok(RootFs {
        image: folder.join(IMAGE),
        manifest: folder.join(crate::manifest::FILE_NAME),
        digest: Manifest::read(folder)?.digest,
    })
}

fn folder_name(name: &str) -> Result<String, ImagesError> {
    let mut key = digest::Key::new("rootfs", FORMAT);
    key.add(RELEASE).add(&crate::tree::MODIFIED.to_string());
    for text in recipe::texts(name)? {
        key.add(text);
    }
    Ok(format!("{name}-{}", key.finish()))
}

fn build(
    cache: &Cache,
    name: &str,
    like: Option<&Manifest>,
    tools: &Tools,
    work: &Path,
    progress: &dyn Progress,
) -> Result<(), ImagesError> {
    let recipe = Recipe::named(name)?;
    let archive = Archive::new(cache);
    let packages = match like {
        Some(manifest) => {
            archive.exactly(&manifest.packages, progress)?;
            manifest.packages.clone()
        }
        None if recipe.packages.is_empty() => Vec::new(),
        None => {
            let names: Vec<&str> = recipe.packages.keys().map(String::as_str).collect();
            let wanted = |name: &str| !recipe.leave_out.contains_key(name);
            archive.packages(&names, Dependencies::Included, wanted, progress)?
        }
    };

    let mut tree = Tree::default();
    for (index, package) in packages.iter().enumerate() {
        progress.update(Some(index as f32 / packages.len() as f32), &package.name);
        tree.add_package(&archive.file(package))?;
    }
    tree.put_merged_links();
    apply(&recipe, name, &mut tree, work, progress)?;

    progress.update(None, "packing the image");
    let image = work.join(IMAGE);
    let options = recipe.image.map(|image| image.options).unwrap_or_default();
    tools::make_erofs(tools, &tree, &options, &image)?;
    let manifest = Manifest {
        name: name.to_owned(),
        digest: digest::of_file(&image)?,
        release: RELEASE.to_owned(),
        host_programs: Vec::new(),
        tools: tools.packages.clone(),
        packages,
    };
    manifest.write(work)
}

/// Makes of unpacked packages what the recipe describes.
fn apply(
    recipe: &Recipe,
    name: &str,
    tree: &mut Tree,
    work: &Path,
    progress: &dyn Progress,
) -> Result<(), ImagesError> {
    let wrong = |reason: String| ImagesError::Recipe { recipe: name.to_owned(), reason };
    for (path, pattern) in &recipe.concatenate {
        let mut content = Vec::new();
        for (_, part) in tree.matching(pattern).map_err(|error| wrong(error.to_string()))? {
            content.extend_from_slice(part);
        }
        if content.is_empty() {
            return Err(wrong(format!("{pattern} names no file")));
        }
        tree.put_file(path, 0o644, content);
    }
    let patterns: Vec<&str> = recipe.trim.keys().map(String::as_str).collect();
    tree.trim(&patterns).map_err(|error| wrong(error.to_string()))?;

    let mode_of = |path: &str, default: u32| match recipe.modes.get(path) {
        Some(mode) => u32::from_str_radix(mode, 8).map_err(|_| wrong(format!("mode {mode:?} of {path}"))),
        None => Ok(default),
    };
    for path in recipe.folders.keys() {
        tree.put_directory(path, mode_of(path, 0o755)?);
    }
    for (path, content) in &recipe.files {
        tree.put_file(path, mode_of(path, 0o644)?, content.as_bytes());
    }
    for (path, target) in &recipe.links {
        tree.put_link(path, target);
    }
    if let Some(program) = &recipe.applets {
        link_applets(program, tree, work)?;
    }
    if let Some(python) = &recipe.python {
        progress.update(None, "compiling Python's library");
        compile_python(python, tree, work).map_err(|error| match error {
            ImagesError::Recipe { reason, .. } => wrong(reason),
            other => other,
        })?;
    }
    Ok(())
}

/// Links a multi-call program under the names that it answers to, where nothing else is.
fn link_applets(program: &str, tree: &mut Tree, work: &Path) -> Result<(), ImagesError> {
    let Some(Node::File { content, .. }) = tree.get(program) else {
        return Err(ImagesError::Recipe { recipe: program.to_owned(), reason: "no such file".to_owned() });
    };
    // Such a program does what its name says: the copy keeps it.
    let name = program.rsplit('/').next().unwrap_or(program);
    let mut alone = Tree::default();
    alone.put_file(name, 0o755, content.clone());
    let folder = work.join("applets");
    alone.write_folder(&folder)?;
    let list = process::output(program, Command::new(folder.join(name)).arg("--list-full"))?;
    cache::remove(&folder)?;
    for applet in String::from_utf8_lossy(&list).lines() {
        if tree.get(applet).is_none() {
            tree.put_link(applet, program);
        }
    }
    Ok(())
}

/// Compiles Python sources with the interpreter that will run them. The compiled files are marked
/// as never to be checked against their sources: the image is read-only.
fn compile_python(python: &recipe::Python, tree: &mut Tree, work: &Path) -> Result<(), ImagesError> {
    if !tools::has_program(tree, &python.interpreter) {
        return Err(ImagesError::Recipe {
            recipe: String::new(),
            reason: format!("there is no interpreter at {}", python.interpreter),
        });
    }
    let stage = work.join("stage");
    tree.write_folder(&stage)?;
    let mut command = tools::loaded(&stage, &python.interpreter);
    command
        .env("PYTHONHOME", stage.join("usr"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        // Sets are stored in the order of their hashes.
        .env("PYTHONHASHSEED", "0")
        // One process: what is shared between constants depends on what was compiled before.
        // Not isolated (`-I`), which would ignore the variables above: modules that the compiler itself imports were
        // then compiled on import, with the time of the stage in them.
        .args(["-s", "-P", "-m", "compileall", "-q", "-j", "1"])
        .args(["--invalidation-mode", "unchecked-hash"])
        .arg("-s")
        .arg(&stage)
        .args(["-p", "/"]);
    for folder in &python.folders {
        command.arg(stage.join(folder.trim_start_matches('/')));
    }
    process::run("compiling Python's library", &mut command, |_| {})?;
    for folder in &python.folders {
        collect_compiled(&stage, &stage.join(folder.trim_start_matches('/')), tree)?;
    }
    cache::remove(&stage)
}

fn collect_compiled(stage: &Path, folder: &Path, tree: &mut Tree) -> Result<(), ImagesError> {
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let path = entry.map_err(at(folder))?.path();
        if path.is_dir() && !path.is_symlink() {
            collect_compiled(stage, &path, tree)?;
        } else if path.extension().is_some_and(|extension| extension == "pyc") {
            let name = path.strip_prefix(stage).unwrap_or(&path);
            if let Some(name) = name.to_str() {
                tree.put_file(name, 0o644, fs::read(&path).map_err(at(&path))?);
            }
        }
    }
    Ok(())
}
