//! What an output was made of, stored beside it: enough to make the same bytes again.

use crate::{ImagesError, at};
use serde::{Deserialize, Serialize};
use std::{fs, path::Path};

/// The name of the manifest in an output's folder.
pub(crate) const FILE_NAME: &str = "manifest.toml";

/// A Debian package, as the signed package lists describe it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its full version, epoch and revision included.
    pub version: String,
    /// `amd64` or `all`.
    pub architecture: String,
    /// The sha256 of the `.deb` file, in hex.
    pub sha256: String,
    /// Length of the `.deb` file, bytes.
    pub size_bytes: u64,
    /// Where it was found.
    pub uri: String,
}

/// What an output was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The output: `kernel`, or the name of a runtime.
    pub name: String,
    /// The digest of the main file, sha256 in hex.
    pub digest: String,
    /// The release that the packages come from.
    pub release: String,
    /// Programs of this machine that shaped the bytes, such as the compiler, with their versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_programs: Vec<String>,
    /// The packages that made the tools that made the output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Package>,
    /// The packages that the output was made of.
    pub packages: Vec<Package>,
}

impl Manifest {
    pub(crate) fn write(&self, folder: &Path) -> Result<(), ImagesError> {
        let path = folder.join(FILE_NAME);
        let text = toml::to_string(self)
            .map_err(|error| ImagesError::Manifest { path: path.clone(), reason: error.to_string() })?;
        fs::write(&path, text).map_err(at(path))
    }

    pub(crate) fn read(folder: &Path) -> Result<Self, ImagesError> {
        let path = folder.join(FILE_NAME);
        let text = fs::read_to_string(&path).map_err(at(&path))?;
        toml::from_str(&text).map_err(|error| ImagesError::Manifest { path, reason: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let package = Package {
            name: "libc6".into(),
            version: "1:2.41-12+deb13u5".into(),
            architecture: "amd64".into(),
            sha256: "ab".repeat(32),
            size_bytes: 2_850_108,
            uri: "http://deb.debian.org/debian/pool/main/g/glibc/libc6_2.41-12%2bdeb13u5_amd64.deb".into(),
        };
        let manifest = Manifest {
            name: "base".into(),
            digest: "cd".repeat(32),
            release: "trixie".into(),
            host_programs: vec!["gcc 12".into()],
            tools: vec![package.clone()],
            packages: vec![package],
        };
        let folder = tempfile::tempdir().expect("a scratch folder");
        manifest.write(folder.path()).expect("it can be written");
        assert_eq!(Manifest::read(folder.path()).expect("it can be read"), manifest);
    }
}
