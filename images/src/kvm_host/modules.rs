//! Kernel modules: finds them in a kernel package, reads what they depend on and puts them in the
//! order that they are loaded in. What `depmod` and `modprobe` do on an installed system.

use crate::{
    ImagesError, at, process,
    tree::{Node, Tree},
};
use object::{Object as _, ObjectSection as _};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

/// A module, decompressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Module {
    /// Its name with underscores, as the kernel lists it.
    pub(super) name: String,
    /// The ELF file.
    pub(super) content: Vec<u8>,
}

/// The named modules and what they depend on, dependencies first. Modules that are built into the
/// kernel are left out.
pub(super) fn in_load_order(tree: &Tree, names: &[&str], work: &Path) -> Result<Vec<Module>, ImagesError> {
    let mut files = BTreeMap::new();
    let mut built_in = BTreeSet::new();
    for (path, node) in tree.nodes().filter(|(path, _)| path.starts_with("usr/lib/modules/")) {
        let Node::File { content, .. } = node else {
            continue;
        };
        let file = path.rsplit('/').next().unwrap_or(path);
        if file == "modules.builtin" {
            let text = String::from_utf8_lossy(content);
            built_in.extend(text.lines().filter_map(|line| name_of(line.rsplit('/').next()?)));
        } else if let Some(name) = name_of(file) {
            files.insert(name, (file, content));
        }
    }
    let read = |name: &str| -> Result<Option<Vec<u8>>, ImagesError> {
        match files.get(name) {
            Some((file, content)) => decompressed(file, content, work).map(Some),
            None if built_in.contains(name) => Ok(None),
            None => Err(missing(name)),
        }
    };
    order(names, read)
}

/// Depth first: what a module depends on comes before it.
fn order(
    names: &[&str],
    mut read: impl FnMut(&str) -> Result<Option<Vec<u8>>, ImagesError>,
) -> Result<Vec<Module>, ImagesError> {
    let mut ordered = Vec::new();
    let mut begun = BTreeSet::new();
    // A module stays on the stack, with its content once that is read, until all that it depends
    // on is in the list.
    let mut stack: Vec<(String, Option<Vec<u8>>)> = names.iter().rev().map(|name| (canonical(name), None)).collect();
    while let Some((name, content)) = stack.pop() {
        if let Some(content) = content {
            ordered.push(Module { name, content });
            continue;
        }
        if !begun.insert(name.clone()) {
            continue;
        }
        let Some(content) = read(&name)? else {
            continue;
        };
        let dependencies = dependencies_of(&name, &content)?;
        stack.push((name, Some(content)));
        stack.extend(dependencies.into_iter().map(|dependency| (dependency, None)));
    }
    Ok(ordered)
}

/// What a module says it depends on, in its section `.modinfo`: `key=value`, each ended by zero.
fn dependencies_of(name: &str, content: &[u8]) -> Result<Vec<String>, ImagesError> {
    let wrong = |reason: String| ImagesError::Module { module: name.to_owned(), reason };
    let file = object::File::parse(content).map_err(|error| wrong(error.to_string()))?;
    let section =
        file.section_by_name(".modinfo").ok_or_else(|| wrong("not a kernel module: it has no .modinfo".to_owned()))?;
    let information = section.data().map_err(|error| wrong(error.to_string()))?;
    Ok(depends_in(information))
}

fn depends_in(information: &[u8]) -> Vec<String> {
    let fields = information.split(|byte| *byte == 0);
    let depends = fields.filter_map(|field| std::str::from_utf8(field).ok()?.strip_prefix("depends="));
    depends.flat_map(|list| list.split(',')).filter(|name| !name.is_empty()).map(canonical).collect()
}

fn decompressed(file: &str, content: &[u8], work: &Path) -> Result<Vec<u8>, ImagesError> {
    if !file.ends_with(".xz") {
        return Ok(content.to_vec());
    }
    let path = work.join(file);
    fs::write(&path, content).map_err(at(&path))?;
    let bytes = process::output("xz", Command::new("xz").args(["-dc"]).arg(&path))?;
    crate::cache::remove(&path)?;
    Ok(bytes)
}

/// `kvm-amd.ko.xz` → `kvm_amd`.
fn name_of(file: &str) -> Option<String> {
    let (name, extension) = file.split_once(".ko")?;
    matches!(extension, "" | ".xz").then(|| canonical(name))
}

/// Files are named with either; the kernel means the same.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

fn missing(name: &str) -> ImagesError {
    ImagesError::Module { module: name.to_owned(), reason: "the kernel's package does not have it".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_become_module_names() {
        for (file, name) in
            [("kvm-amd.ko.xz", Some("kvm_amd")), ("tun.ko", Some("tun")), ("modules.order", None), ("x.ko.gz", None)]
        {
            assert_eq!(name_of(file).as_deref(), name, "{file}");
        }
    }

    #[test]
    fn dependencies_are_read_from_module_information() {
        let information = b"license=GPL\0depends=kvm,ccp-crypto\0retpoline=Y\0";
        assert_eq!(depends_in(information), ["kvm", "ccp_crypto"]);
        assert_eq!(depends_in(b"depends=\0"), Vec::<String>::new());
        assert_eq!(depends_in(b"\xff\xfe\0"), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_a_module_is_refused() {
        let error = order(&["kvm-amd"], |_| Ok(Some(b"not ELF".to_vec()))).expect_err("not ELF");
        assert!(error.to_string().contains("kvm_amd"), "{error}");
        let error = order(&["nothing"], |name| Err(missing(name))).expect_err("not there");
        assert!(error.to_string().contains("nothing"), "{error}");
    }

    #[test]
    fn what_is_built_in_is_left_out() {
        assert_eq!(order(&["virtio_pci"], |_| Ok(None)).expect("nothing to load"), []);
    }
}
