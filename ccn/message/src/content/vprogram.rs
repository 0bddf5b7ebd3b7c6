//! V-PROGRAM (messages spec section 7): a machine of which everything is measured. Closed, and its numbers and booleans are strict.

use super::{
    machine::{Requirements, Resources, read_metadata},
    payment::{Payment, PaymentType},
    trusted::{self, Mode, check_measurements, read_digits, read_measurements, refuse_unless_empty},
};
use crate::{
    ItemHash,
    envelope::ContentHeader,
    json::{FormatError, Object, Value},
};

/// Most volumes.
const MAX_VOLUMES: usize = 8;
/// Longest comment, characters.
const MAX_COMMENT_CHARS: usize = 1024;
/// Digits of a root hash.
const ROOT_HASH_DIGITS: usize = 64;
/// The policy of SEV-SNP unless it says otherwise.
const DEFAULT_SNP_POLICY: i128 = 0x30000;

/// What a V-PROGRAM says.
#[derive(Debug, Clone)]
pub struct VProgramContent {
    /// Owner and time.
    pub header: ContentHeader,
    /// Tags of its metadata.
    pub tags: Vec<String>,
    /// Reaches the internet.
    pub internet: bool,
    /// How large it is.
    pub resources: Resources,
    /// Where it is to run, if that was said.
    pub requirements: Option<Requirements>,
    /// The manifest of what is measured.
    pub runtime: ItemHash,
    /// The owner's part.
    pub workload: VerifiedVolume,
    /// Further volumes, in order.
    pub volumes: Vec<VerifiedVolume>,
    /// How the host is kept out.
    pub mode: Mode,
}

/// A read-only volume that is held against a root hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedVolume {
    /// Its image.
    pub image: ItemHash,
    /// The tree of its hashes.
    pub hash_tree: ItemHash,
    /// The root of that tree.
    pub root_hash: String,
}

impl VProgramContent {
    /// Reads a content object.
    ///
    /// # Errors
    /// It is not that of a V-PROGRAM.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let mut object = Object::parse(text)?;
        let time = object.rest().find(|(key, _)| *key == "time").map(|(_, value)| value);
        time.map(Value::strict_float).transpose().map_err(|error| error.within("time"))?;
        let header = ContentHeader::read(&mut object)?;
        if object.required("allow_amend", Value::strict_boolean)? || object.take("replaces").is_some() {
            return Err(FormatError::new("allow_amend", "what is measured does not change: publish another one"));
        }
        refuse_unless_empty(&mut object, "variables")?;
        refuse_unless_empty(&mut object, "authorized_keys")?;
        let tags = object.optional("metadata", read_metadata)?.unwrap_or_default();
        let internet = object.required("environment", |value| {
            let mut environment = value.object()?;
            let internet = environment.defaulted("internet", Value::strict_boolean)?;
            environment.close()?;
            Ok(internet.unwrap_or_default())
        })?;
        let resources =
            object.required("resources", |value| Resources::read(value, |value, range| value.strict_integer(range)))?;
        object.required("payment", |value| Payment::read(value, &[("credit", PaymentType::Credit)]))?;
        let requirements = object.optional("requirements", Requirements::read)?;
        if requirements.as_ref().is_some_and(|requirements| !requirements.gpus.is_empty()) {
            return Err(FormatError::new("requirements.gpu", "GPUs of a V-PROGRAM are named in `gpu`"));
        }
        let runtime = object.required("runtime", |value| {
            let mut runtime = value.object()?;
            let hash = runtime.required("ref", Value::item_hash)?;
            runtime.defaulted("comment", |value| value.string_up_to(MAX_COMMENT_CHARS))?;
            runtime.close()?;
            Ok(hash)
        })?;
        let workload = object.required("workload", |value| VerifiedVolume::read(value, false))?;
        let volumes = object
            .defaulted("volumes", |value| value.list_of(MAX_VOLUMES, |value| VerifiedVolume::read(value, true)))?
            .unwrap_or_default();
        let mode = object.required("verification", read_verification)?;
        if object.optional("gpu", trusted::read_gpu)?.is_some() && mode != Mode::SevSnp {
            return Err(FormatError::new("gpu", "belongs to the backend sev_snp"));
        }
        object.close()?;
        Ok(Self { header, tags, internet, resources, requirements, runtime, workload, volumes, mode })
    }

    /// The STORE messages that it is made of.
    #[must_use]
    pub fn references(&self) -> Vec<&ItemHash> {
        let mut references = vec![&self.runtime];
        for volume in std::iter::once(&self.workload).chain(&self.volumes) {
            references.extend([&volume.image, &volume.hash_tree]);
        }
        references
    }
}

impl VerifiedVolume {
    fn read(value: Value<'_>, has_comment: bool) -> Result<Self, FormatError> {
        let mut object = value.object()?;
        let image = object.required("ref", Value::item_hash)?;
        let hash_tree = object.required("hash_tree", Value::item_hash)?;
        let root_hash = object.required("roothash", |value| read_digits(value, ROOT_HASH_DIGITS))?;
        if has_comment {
            object.defaulted("comment", |value| value.string_up_to(MAX_COMMENT_CHARS))?;
        }
        object.close()?;
        Ok(Self { image, hash_tree, root_hash })
    }
}

fn read_verification(value: Value<'_>) -> Result<Mode, FormatError> {
    let mut object = value.object()?;
    let mode = object.required("backend", |value| value.one_of(&Mode::MEASURED))?;
    let policy = object.take_raw("policy");
    match (mode, policy) {
        (Mode::Tdx, Some(policy)) if !policy.is_null() => {
            return Err(FormatError::new("policy", "is not for the owner with the backend tdx"));
        }
        (Mode::Tdx, _) => {}
        (_, policy) => {
            let number = policy.map_or(Ok(DEFAULT_SNP_POLICY), |policy| policy.text().parse());
            let number = number.map_err(|_| FormatError::new("policy", "a whole number was expected"))?;
            trusted::check_snp_policy(number)?;
        }
    }
    let measurements = object.required("measurements", read_measurements)?;
    check_measurements(mode, &measurements)?;
    object.close()?;
    Ok(mode)
}

#[cfg(test)]
mod tests;
