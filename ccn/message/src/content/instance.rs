//! INSTANCE (messages spec sections 6 and 7): closed at the top, mostly open inside.

use super::{
    machine::{Environment, Machine},
    payment::PaymentType,
    trusted::{Mode, TrustedExecution},
    volume::{FileReference, MAX_PERSISTENT_MIB, Persistence, read_parent},
};
use crate::json::{FormatError, Object, Value};

/// Most entries of a list that nobody reads.
const MAX_IGNORED: usize = 1000;

/// What an INSTANCE says.
#[derive(Debug, Clone)]
pub struct InstanceContent {
    /// What every machine says.
    pub machine: Machine,
    /// What it may use.
    pub environment: Environment,
    /// What runs it, if it says.
    pub hypervisor: Option<Hypervisor>,
    /// How the host is kept out.
    pub trusted_execution: Option<TrustedExecution>,
    /// Its root file system.
    pub rootfs: Rootfs,
}

/// What runs an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hypervisor {
    /// QEMU.
    Qemu,
    /// Firecracker.
    Firecracker,
}

/// A root file system: a disk that starts as an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// The image.
    pub parent: FileReference,
    /// Where it persists.
    pub persistence: Persistence,
    /// Its size, MiB.
    pub size_mib: u64,
}

impl InstanceContent {
    /// Reads a content object.
    ///
    /// # Errors
    /// It is not that of an INSTANCE.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let mut object = Object::parse(text)?;
        let machine = Machine::read(&mut object)?;
        let (environment, hypervisor, trusted_execution) = object.required("environment", read_environment)?;
        let rootfs = object.required("rootfs", read_rootfs)?;
        object.close()?;
        let content = Self { machine, environment, hypervisor, trusted_execution, rootfs };
        content.check()?;
        Ok(content)
    }

    /// What must go together.
    fn check(&self) -> Result<(), FormatError> {
        let refuse = |field: &str, problem: &str| Err(FormatError::new(field, problem));
        let payment = self.machine.payment_type();
        let trusted = self.trusted_execution.as_ref();
        if trusted.is_some_and(|trusted| trusted.mode != Mode::Sev) && payment != PaymentType::Credit {
            return refuse("payment", "measured instances are paid by credits");
        }
        let Some(requirements) = &self.machine.requirements else { return Ok(()) };
        let is_pinned = requirements.node_hash.is_some();
        if payment == PaymentType::Superfluid && !is_pinned {
            return refuse("requirements.node.node_hash", "is required when payment is streamed");
        }
        if !requirements.gpus.is_empty() {
            if trusted.is_some_and(|trusted| trusted.has_gpu) {
                return refuse("requirements.gpu", "a confidential instance names its GPUs in trusted_execution.gpu");
            }
            if payment != PaymentType::Credit && !is_pinned {
                return refuse("requirements.node.node_hash", "is required for GPUs that are not paid by credits");
            }
            if self.hypervisor != Some(Hypervisor::Qemu) {
                return refuse("environment.hypervisor", "GPUs need the hypervisor qemu");
            }
        }
        if requirements.terms_and_conditions.is_some() {
            if !is_pinned {
                return refuse("requirements.node.node_hash", "is required where terms are agreed to");
            }
            if payment == PaymentType::Hold && trusted.is_none() {
                let problem = "only instances that are streamed for, paid by credits or confidential agree to terms";
                return refuse("requirements.node.terms_and_conditions", problem);
            }
        }
        Ok(())
    }
}

type ReadEnvironment = (Environment, Option<Hypervisor>, Option<TrustedExecution>);

fn read_environment(value: Value<'_>) -> Result<ReadEnvironment, FormatError> {
    const HYPERVISORS: [(&str, Hypervisor); 2] = [("qemu", Hypervisor::Qemu), ("firecracker", Hypervisor::Firecracker)];
    let mut object = value.object()?;
    let environment = Environment::read(&mut object)?;
    let hypervisor = object.optional("hypervisor", |value| value.one_of(&HYPERVISORS))?;
    let trusted = object.take("trusted_execution");
    // The network does not ask this of an empty object.
    let says_something = trusted.is_some_and(|trusted| trusted.object().is_ok_and(|object| !object.is_empty()));
    if says_something && hypervisor != Some(Hypervisor::Qemu) {
        return Err(FormatError::new("trusted_execution", "needs the hypervisor qemu"));
    }
    let trusted = trusted.map(TrustedExecution::read).transpose();
    Ok((environment, hypervisor, trusted.map_err(|error| error.within("trusted_execution"))?))
}

fn read_rootfs(value: Value<'_>) -> Result<Rootfs, FormatError> {
    let mut object = value.object()?;
    let parent = object.required("parent", read_parent)?;
    let persistence = object.required("persistence", |value| value.one_of(&Persistence::WORDS))?;
    let size_mib = object.required("size_mib", |value| value.strict_integer(1..=MAX_PERSISTENT_MIB))?;
    object.optional("forgotten_by", |value| value.list_of(MAX_IGNORED, Value::string))?;
    Ok(Rootfs { parent, persistence, size_mib: size_mib.unsigned_abs() })
}

#[cfg(test)]
mod tests;
