//! What a template is a template of: everything that went into it, as one digest.
//!
//! A template whose key nobody asks for any more is of no use: code, runtime, kernel, monitor or host have changed.

use crate::{
    cache::{
        CachedFile,
        program::{Blueprint, Source},
    },
    volume,
};
use guest_protocol::{Command, Configuration, frame};
use rustix::system::uname;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{fmt, fs::File, io, path::Path};

/// How far a template's guest has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing is kept: every start is a boot.
    Off,
    /// The kernel has booted and the runtime is mounted: the guest can become any program of it.
    Runtime,
    /// The program listens.
    Function,
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Off => "off",
            Self::Runtime => "runtime",
            Self::Function => "function",
        })
    }
}

/// Names a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key([u8; 32]);

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

impl std::str::FromStr for Key {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut key = [0; 32];
        hex::decode_to_slice(text, &mut key)?;
        Ok(Self(key))
    }
}

/// What all templates of this installation on this host have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Installation([u8; 32]);

impl fmt::Display for Installation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

impl Installation {
    #[cfg(test)]
    pub(crate) fn for_test(first: u8) -> Self {
        Self([first; 32])
    }

    /// Of the machine monitor, the guest's kernel and initramfs, and the host's kernel: a snapshot is only good with those that it was
    /// taken with. Processors are compared by the monitor, leaf by leaf.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn of(monitor: &Path, kernel: &File, initramfs: &File) -> io::Result<Self> {
        let mut digest = Parts::new("installation");
        let monitor = File::open(monitor)?;
        for file in [&monitor, kernel, initramfs] {
            digest.add(&crate::digest::of_file(file)?);
        }
        let host = uname();
        digest.add(host.release().to_bytes());
        digest.add(host.version().to_bytes());
        Ok(Self(digest.end()))
    }

    /// Of the templates of a program's runtime, for machines of its size with that many network cards.
    #[must_use]
    pub fn runtime_key(&self, blueprint: &Blueprint, memory_mib: u64, nets: usize) -> Key {
        let mut digest = self.parts(Level::Runtime, blueprint, memory_mib, nets);
        digest.add(blueprint.runtime.to_string().as_bytes());
        // The disks that it will have, and how long those are that it writes to: the guest's kernel has asked once.
        for disk in blueprint.disks() {
            match disk {
                Source::Image(_) => digest.add(&[]),
                Source::Ephemeral { size_mib } | Source::Persistent { size_mib, .. } => {
                    digest.add(&volume::length_bytes(size_mib).to_le_bytes());
                }
            }
        }
        Key(digest.end())
    }

    /// Of the template of a program as it is now; `lasting` is its configuration without what differs from start to start. None for a configuration that is no frame, which no guest ever gets.
    #[must_use]
    pub fn function_key(
        &self,
        blueprint: &Blueprint,
        memory_mib: u64,
        nets: usize,
        files: &[CachedFile],
        lasting: &Configuration,
    ) -> Option<Key> {
        let mut digest = self.parts(Level::Function, blueprint, memory_mib, nets);
        for file in files {
            digest.add(file.hash.to_string().as_bytes());
        }
        digest.add(&frame::encode(&Command::Configure(lasting.clone())).ok()?);
        Some(Key(digest.end()))
    }

    fn parts(&self, level: Level, blueprint: &Blueprint, memory_mib: u64, nets: usize) -> Parts {
        let mut digest = Parts::new(&level.to_string());
        digest.add(&self.0);
        digest.add(&guest_protocol::VERSION.to_le_bytes());
        digest.add(&memory_mib.to_le_bytes());
        digest.add(&blueprint.vcpus.to_le_bytes());
        digest.add(&nets.to_le_bytes());
        digest
    }
}

/// A digest of parts that cannot be mistaken for each other: the length of each goes before it.
struct Parts(Sha256);

impl Parts {
    fn new(what: &str) -> Self {
        let mut parts = Self(Sha256::new());
        parts.add(what.as_bytes());
        parts
    }

    fn add(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
    }

    fn end(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}
