//! A machine as two files: its memory, and its state.
//!
//! The memory file is as long as the guest's memory, region after region, with holes where it is zero. Clones map it privately, so it must
//! never change again. The state file is small:
//!
//! ```text
//! offset  bytes
//! 0       8      "BETHSNAP"
//! 8       4      version, little-endian
//! 12      4      length of the body
//! 16             postcard of a MachineState; structures of KVM as their bytes
//! ```
//!
//! Both are untrusted here as far as decoding goes: any bytes give a precise error or a state that is checked against the machine it is for.
//! Whether they are what this node has written is for the node to know, which keeps a mark of them (`crn`, templates).

use crate::{
    arch::x86_64::processor::ProcessorState,
    config::Config,
    virtio::state::{StateError, TransportState},
    vm::ChipState,
};
use kvm_bindings::{CpuId, kvm_cpuid_entry2};
use serde::{Deserialize, Serialize};
use std::{fs::File, io, os::unix::fs::FileExt as _};

/// Version of the state file. Any change of what is in it is a new one: templates of another version are not read but made again.
pub const STATE_VERSION: u32 = 1;

/// Longest body of a state file, bytes. One processor and a dozen devices take 20 KiB.
pub const MAX_STATE_BYTES: usize = 1 << 20;

const MAGIC: [u8; 8] = *b"BETHSNAP";
const HEADER_BYTES: usize = 16;

/// Everything of a machine besides its memory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MachineState {
    /// What the machine is made of.
    pub config: Config,
    /// What processors could do at most on the host where it ran.
    pub supported_cpuid: Vec<kvm_cpuid_entry2>,
    /// The one processor.
    pub processor: ProcessorState,
    /// Interrupt controllers and clock.
    pub chips: ChipState,
    /// The devices, by position.
    pub devices: Vec<TransportState>,
    /// Where in guest memory the record of a clone goes.
    pub record_gpa: u64,
}

/// Why bytes are no state, or not one for this host. The node falls back to a start without it.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file is not one of ours.
    #[error("the file is not the state of a machine")]
    Magic,
    /// Of another version of this program.
    #[error("the state is of version {0}, this monitor reads {STATE_VERSION}: it was made by another build")]
    Version(u32),
    /// Longer than any state, or than the file.
    #[error("the state's length of {0} bytes is impossible")]
    Length(usize),
    /// The body does not decode.
    #[error("the state does not decode: {0}")]
    Malformed(#[from] postcard::Error),
    /// Bytes remain after the body.
    #[error("the state has {0} bytes too many")]
    Trailing(usize),
    /// Processors of this host can do other things than those of the host that it was taken on.
    #[error("the state was taken on a host with another processor or another KVM: leaf {leaf:#x} of CPUID differs")]
    Processor {
        /// The first leaf that differs.
        leaf: u32,
    },
    /// The machine asked for is another than the one that was saved.
    #[error("the state is of another machine: {0}")]
    Shape(&'static str),
    /// A device.
    #[error("device {position}: {error}")]
    Device {
        /// Its position.
        position: usize,
        /// What is wrong.
        error: StateError,
    },
    /// The record has no place.
    #[error("the place of the clone's record, {0:#x}, is not in memory")]
    Record(u64),
    /// A machine of several processors cannot be copied.
    #[error("machines of several processors are not copied")]
    Processors,
    /// A device goes on and on.
    #[error("the machine does not come to rest")]
    Restless,
    /// The host's disk.
    #[error("cannot {what}: {error}")]
    File {
        /// What was tried.
        what: &'static str,
        /// What the host said.
        error: io::Error,
    },
}

impl MachineState {
    /// The file's bytes.
    ///
    /// # Errors
    /// [`SnapshotError::Length`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, SnapshotError> {
        let mut bytes = Vec::from(MAGIC);
        bytes.extend(STATE_VERSION.to_le_bytes());
        bytes.extend([0; 4]);
        let mut bytes = postcard::to_extend(self, bytes)?;
        let length = bytes.len() - HEADER_BYTES;
        match u32::try_from(length) {
            Ok(announced) if length <= MAX_STATE_BYTES => {
                bytes[12..HEADER_BYTES].copy_from_slice(&announced.to_le_bytes())
            }
            _ => return Err(SnapshotError::Length(length)),
        }
        Ok(bytes)
    }

    /// Reads a state. It is well formed then, and no more is known of it.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let (header, body) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(SnapshotError::Magic)?;
        if header[..8] != MAGIC {
            return Err(SnapshotError::Magic);
        }
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if word(8) != STATE_VERSION {
            return Err(SnapshotError::Version(word(8)));
        }
        let length = word(12) as usize;
        if length > MAX_STATE_BYTES || length != body.len() {
            return Err(SnapshotError::Length(length));
        }
        match postcard::take_from_bytes(body)? {
            (state, []) => Ok(state),
            (_, rest) => Err(SnapshotError::Trailing(rest.len())),
        }
    }

    /// Reads a state file.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn read(file: &File) -> Result<Self, SnapshotError> {
        let fail = |error| SnapshotError::File { what: "read the state", error };
        // No more than there is: a clone pays for each page that it touches.
        let length = usize::try_from(file.metadata().map_err(fail)?.len()).unwrap_or(usize::MAX);
        if length > HEADER_BYTES + MAX_STATE_BYTES {
            return Err(SnapshotError::Length(length));
        }
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, 0).map_err(fail)?;
        Self::from_bytes(&bytes)
    }

    /// Writes a state file.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn write(&self, file: &File) -> Result<(), SnapshotError> {
        file.write_all_at(&self.to_bytes()?, 0).map_err(|error| SnapshotError::File { what: "write the state", error })
    }

    /// Whether this is the machine of that configuration. What a machine prints and what is measured of it may differ, and what its
    /// network cards may send: a clone has addresses of its own, which its init is told of in the record.
    ///
    /// # Errors
    /// [`SnapshotError::Shape`].
    pub fn check_config(&self, config: &Config) -> Result<(), SnapshotError> {
        let saved = &self.config;
        let differences = [
            (saved.memory_mib != config.memory_mib, "its memory differs"),
            (saved.vcpus != 1 || config.vcpus != 1, "it has several processors"),
            (saved.disks != config.disks, "its disks differ"),
            (saved.vsock != config.vsock, "its vsock device differs"),
            (
                !saved.nets.iter().map(|net| net.mac).eq(config.nets.iter().map(|net| net.mac)),
                "its network cards differ",
            ),
            (
                (saved.entropy, saved.balloon) != (config.entropy, config.balloon),
                "its entropy device or balloon differs",
            ),
            (saved.extra_command_line != config.extra_command_line, "its command line differs"),
        ];
        match differences.iter().find(|(differs, _)| *differs) {
            Some((_, what)) => Err(SnapshotError::Shape(what)),
            None => Ok(()),
        }
    }

    /// Whether processors of this host can do just what those of the state's could.
    ///
    /// # Errors
    /// [`SnapshotError::Processor`].
    pub fn check_processor(&self, supported: &CpuId) -> Result<(), SnapshotError> {
        let here = comparable(supported.as_slice());
        let there = comparable(&self.supported_cpuid);
        let mut pairs = here.iter().zip(&there);
        match pairs.find(|(here, there)| here != there) {
            Some((here, _)) => Err(SnapshotError::Processor { leaf: here.function }),
            None if here.len() != there.len() => Err(SnapshotError::Processor { leaf: 0 }),
            None => Ok(()),
        }
    }
}

/// Entries without what says on which processor of the host they were read.
fn comparable(entries: &[kvm_cpuid_entry2]) -> Vec<kvm_cpuid_entry2> {
    let mut entries = entries.to_vec();
    for entry in &mut entries {
        match entry.function {
            // The initial APIC id.
            1 => entry.ebx &= 0x00ff_ffff,
            // The x2APIC id.
            0xb | 0x1f => entry.edx = 0,
            // Sizes of the state that is switched on at the moment of reading.
            0xd => entry.ebx = 0,
            0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (0, 0, 0),
            _ => {}
        }
    }
    entries
}

#[cfg(test)]
mod tests;
