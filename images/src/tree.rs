//! A file tree in memory: filled from packages, changed by a recipe, written in one canonical form
//! (sorted, owned by root, one time), so that the same content is the same bytes whatever machine
//! and user it was put together on.

use crate::{ImagesError, archive, at};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Stdio,
    sync::Arc,
};

/// The time of every file: 2000-01-01. Not zero, because zip archives cannot say years before 1980
/// and programs that pack their own files would fail.
pub(crate) const MODIFIED: u64 = 946_684_800;

/// Folders of the root that are links into `/usr` (Debian's merged layout): packages may name
/// files by either path.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Directory { mode: u32 },
    File { mode: u32, content: Arc<[u8]> },
    Link { target: String },
}

/// A file of a tree: its path, its content.
pub(crate) type Matched<'a> = (&'a str, &'a Arc<[u8]>);

/// A file tree. Paths have no leading slash; the root is not an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    nodes: BTreeMap<String, Node>,
}

impl Tree {
    pub(crate) fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(&merged(path))
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// Puts a node at a path, over what was there, and makes the folders above it.
    pub(crate) fn put(&mut self, path: &str, node: Node) {
        let path = merged(path);
        let mut above = path.as_str();
        while let Some((parent, _)) = above.rsplit_once('/') {
            self.nodes.entry(parent.to_owned()).or_insert(Node::Directory { mode: 0o755 });
            above = parent;
        }
        self.nodes.insert(path, node);
    }

    pub(crate) fn put_file(&mut self, path: &str, mode: u32, content: impl Into<Arc<[u8]>>) {
        self.put(path, Node::File { mode, content: content.into() });
    }

    pub(crate) fn put_directory(&mut self, path: &str, mode: u32) {
        self.put(path, Node::Directory { mode });
    }

    pub(crate) fn put_link(&mut self, path: &str, target: &str) {
        self.put(path, Node::Link { target: target.to_owned() });
    }

    /// The links of the root that [`MERGED`] stands for.
    pub(crate) fn put_merged_links(&mut self) {
        for name in MERGED {
            self.nodes.insert(name.to_owned(), Node::Link { target: format!("usr/{name}") });
            self.put_directory(&format!("usr/{name}"), 0o755);
        }
    }

    /// Adds the files of a package. Nothing of it is run.
    pub(crate) fn add_package(&mut self, package: &Path) -> Result<(), ImagesError> {
        let wrong = |reason: String| ImagesError::Package { package: package.display().to_string(), reason };
        let mut child = archive::unpacker(package)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(at("dpkg-deb"))?;
        let stdout = child.stdout.take().ok_or_else(|| wrong("no output".into()))?;
        let added = self.add_archive(stdout);
        let output = child.wait_with_output().map_err(at("dpkg-deb"))?;
        if !output.status.success() {
            return Err(wrong(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        added.map_err(|error| wrong(error.to_string()))
    }

    fn add_archive(&mut self, archive: impl io::Read) -> io::Result<()> {
        let mut archive = tar::Archive::new(archive);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = clean(&entry.path()?)?;
            if path.is_empty() {
                continue;
            }
            let mode = entry.header().mode()? & 0o7777;
            let link_target = |entry: &tar::Entry<'_, _>| -> io::Result<String> {
                let target = entry.link_name()?.ok_or_else(|| invalid("a link without target"))?;
                Ok(target.to_str().ok_or_else(|| invalid("a name that is not UTF-8"))?.to_owned())
            };
            let node = match entry.header().entry_type() {
                tar::EntryType::Directory => {
                    if MERGED.contains(&path.as_str()) || self.get(&path).is_some() {
                        continue;
                    }
                    Node::Directory { mode }
                }
                tar::EntryType::Regular => {
                    let mut content = Vec::new();
                    entry.read_to_end(&mut content)?;
                    Node::File { mode, content: content.into() }
                }
                tar::EntryType::Symlink if MERGED.contains(&path.as_str()) => continue,
                tar::EntryType::Symlink => Node::Link { target: link_target(&entry)? },
                // A second name becomes a second file: few packages have any, small ones.
                tar::EntryType::Link => {
                    let target = clean(Path::new(&link_target(&entry)?))?;
                    match self.get(&target) {
                        Some(node @ Node::File { .. }) => node.clone(),
                        _ => return Err(invalid("a hard link to nothing")),
                    }
                }
                _ => return Err(invalid("an entry that is neither folder, file nor link")),
            };
            if self.get(&path).is_some_and(|there| *there != node) {
                return Err(invalid(&format!("brings /{path}, which another package brought")));
            }
            self.put(&path, node);
        }
        Ok(())
    }

    /// Removes what the patterns name, with everything below. Patterns are absolute; `*` stays
    /// within a folder, `**` does not. Returns the patterns that matched nothing.
    pub(crate) fn trim(&mut self, patterns: &[&str]) -> Result<Vec<String>, globset::Error> {
        let set = glob_set(patterns)?;
        let mut used = vec![false; patterns.len()];
        self.nodes.retain(|path, _| {
            let mut keep = true;
            let mut part = path.as_str();
            loop {
                for index in set.matches(format!("/{part}")) {
                    used[index] = true;
                    keep = false;
                }
                match part.rsplit_once('/') {
                    Some((parent, _)) => part = parent,
                    None => return keep,
                }
            }
        });
        let unused = patterns.iter().zip(&used).filter(|(_, used)| !**used);
        Ok(unused.map(|(pattern, _)| (*pattern).to_owned()).collect())
    }

    /// The files that a pattern names, in order.
    pub(crate) fn matching(&self, pattern: &str) -> Result<Vec<Matched<'_>>, globset::Error> {
        let set = glob_set(&[pattern])?;
        let files = self.nodes.iter().filter_map(|(path, node)| match node {
            Node::File { content, .. } => Some((path.as_str(), content)),
            Node::Directory { .. } | Node::Link { .. } => None,
        });
        Ok(files.filter(|(path, _)| set.is_match(format!("/{path}"))).collect())
    }

    /// Writes the tree as a tar archive in its canonical form.
    pub(crate) fn write_tar(&self, out: impl Write) -> io::Result<()> {
        let mut builder = tar::Builder::new(out);
        let header = |mode: u32| {
            let mut header = tar::Header::new_gnu();
            header.set_mode(mode);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(MODIFIED);
            header.set_size(0);
            header
        };
        let mut root = header(0o755);
        root.set_entry_type(tar::EntryType::Directory);
        builder.append_data(&mut root, "./", io::empty())?;
        for (path, node) in &self.nodes {
            match node {
                Node::Directory { mode } => {
                    let mut header = header(*mode);
                    header.set_entry_type(tar::EntryType::Directory);
                    builder.append_data(&mut header, format!("{path}/"), io::empty())?;
                }
                Node::File { mode, content } => {
                    let mut header = header(*mode);
                    header.set_entry_type(tar::EntryType::Regular);
                    header.set_size(content.len() as u64);
                    builder.append_data(&mut header, path, content.as_ref())?;
                }
                Node::Link { target } => {
                    let mut header = header(0o777);
                    header.set_entry_type(tar::EntryType::Symlink);
                    builder.append_link(&mut header, path, target)?;
                }
            }
        }
        builder.into_inner()?.flush()
    }

    /// Writes the tree as files below a folder, to run programs of it in place.
    pub(crate) fn write_folder(&self, folder: &Path) -> Result<(), ImagesError> {
        // The root is not an entry, and a link may be the first.
        fs::create_dir_all(folder).map_err(at(folder))?;
        for (path, node) in &self.nodes {
            let path = folder.join(path);
            match node {
                Node::Directory { .. } => fs::create_dir_all(&path).map_err(at(&path))?,
                Node::File { mode, content } => {
                    fs::write(&path, content).map_err(at(&path))?;
                    let mode = fs::Permissions::from_mode(mode & 0o755 | 0o400);
                    fs::set_permissions(&path, mode).map_err(at(&path))?;
                }
                Node::Link { target } => symlink(target, &path).map_err(at(&path))?,
            }
        }
        Ok(())
    }
}

/// A path of the root as it is inside `/usr`.
fn merged(path: &str) -> String {
    let path = path.trim_matches('/');
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    if MERGED.contains(&first) && !rest.is_empty() {
        return format!("usr/{path}");
    }
    path.to_owned()
}

/// A path of an archive, without `./` in front or anything that leads out.
fn clean(path: &Path) -> io::Result<String> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            std::path::Component::CurDir | std::path::Component::RootDir => {}
            std::path::Component::Normal(part) => {
                parts.push(part.to_str().ok_or_else(|| invalid("a name that is not UTF-8"))?);
            }
            std::path::Component::ParentDir | std::path::Component::Prefix(_) => {
                return Err(invalid("a path that leads out"));
            }
        }
    }
    Ok(parts.join("/"))
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}

fn glob_set(patterns: &[&str]) -> Result<GlobSet, globset::Error> {
    let mut builder = GlobSetBuilder::new();
    for pattern in patterns {
        builder.add(GlobBuilder::new(pattern).literal_separator(true).build()?);
    }
    builder.build()
}

#[cfg(test)]
mod tests;
