//! What PROGRAM, INSTANCE and V-PROGRAM have in common (messages spec 6, ccn spec 2.4 and 6). No plugin of its own: they call it.
//!
//! A verdict rests on the messages that a machine names, as of its own position, and on nothing else that changes: which version of a file is
//! the newest is asked of the versions before it, and the row that says that one has come is watched.

pub mod cost;
mod files;
pub mod rules;

pub use files::{Files, Resolved};
use plugin_sdk::{
    Payment, WorkloadKind,
    message::content::{
        instance::{InstanceContent, Rootfs},
        machine::Machine,
        program::ProgramContent,
        volume::{FileReference, VolumeKind},
    },
    price,
};

/// A machine as the rules see it.
#[derive(Debug, Clone)]
pub struct Parts<'a> {
    /// What every machine says.
    pub machine: &'a Machine,
    /// What it is.
    pub kind: Kind,
    /// Files of its own, and their rows in a price.
    files: Vec<(&'static str, &'a FileReference)>,
    /// The disk of an instance.
    rootfs: Option<&'a Rootfs>,
}

/// What a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A program on demand.
    OnDemand {
        /// Whether it reaches the internet.
        internet: bool,
    },
    /// A program that always runs.
    Persistent,
    /// An instance.
    Instance {
        /// Whether it keeps its host out.
        confidential: bool,
    },
}

impl<'a> Parts<'a> {
    /// A program's.
    #[must_use]
    pub fn of_program(content: &'a ProgramContent) -> Self {
        let mut files = vec![
            ("EXECUTION_PROGRAM_VOLUME_CODE", &content.code.file),
            ("EXECUTION_PROGRAM_VOLUME_RUNTIME", &content.runtime),
        ];
        files.extend(content.data.iter().map(|data| ("EXECUTION_PROGRAM_VOLUME_DATA", data)));
        let kind = if content.triggers.persistent {
            Kind::Persistent
        } else {
            Kind::OnDemand { internet: content.environment.internet }
        };
        Self { machine: &content.machine, kind, files, rootfs: None }
    }

    /// An instance's.
    #[must_use]
    pub fn of_instance(content: &'a InstanceContent) -> Self {
        let kind = Kind::Instance { confidential: content.trusted_execution.is_some() };
        Self { machine: &content.machine, kind, files: Vec::new(), rootfs: Some(&content.rootfs) }
    }

    /// The files that it names, each once for each place: its own, then those of the volumes in order.
    #[must_use]
    pub fn references(&self) -> Vec<&'a FileReference> {
        let mut references: Vec<&FileReference> = self.files.iter().map(|(_, file)| *file).collect();
        references.extend(self.rootfs.map(|rootfs| &rootfs.parent));
        references.extend(self.machine.volumes.iter().filter_map(|volume| match &volume.kind {
            VolumeKind::Immutable(reference) => Some(reference),
            VolumeKind::Persistent { parent, .. } => parent.as_ref(),
            VolumeKind::Ephemeral { .. } => None,
        }));
        references
    }

    /// How it is paid.
    #[must_use]
    pub fn payment(&self) -> Payment {
        price::payment(self.machine.payment_type())
    }

    /// Space that it takes on a host beside files, MiB.
    fn disk_mib(&self) -> u64 {
        let volumes = self.machine.volumes.iter().map(|volume| match &volume.kind {
            VolumeKind::Ephemeral { size_mib } | VolumeKind::Persistent { size_mib, .. } => *size_mib,
            VolumeKind::Immutable(_) => 0,
        });
        volumes.chain(self.rootfs.map(|rootfs| rootfs.size_mib)).sum()
    }
}

impl Kind {
    fn workload(self) -> WorkloadKind {
        match self {
            Self::OnDemand { .. } => WorkloadKind::MicroVm,
            Self::Persistent => WorkloadKind::PersistentProgram,
            Self::Instance { .. } => WorkloadKind::Instance,
        }
    }
}
