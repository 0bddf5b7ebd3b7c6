//! What PROGRAM and INSTANCE share (messages spec section 6): closed at the top, mostly open inside. V-PROGRAM takes some of it.

use super::{
    pattern,
    payment::{Payment, PaymentType},
    read_tags,
    volume::{MAX_VOLUMES, Volume},
};
use crate::{
    ItemHash,
    envelope::ContentHeader,
    json::{FormatError, Object, Value},
};

/// Limits of messages spec section 11.
mod limit {
    pub(super) const KEYS: usize = 256;
    pub(super) const KEY_CHARS: usize = 8192;
    pub(super) const VARIABLES: usize = 256;
    pub(super) const VARIABLE_NAME_CHARS: usize = 128;
    pub(super) const VARIABLE_CHARS: usize = 4096;
    pub(super) const METADATA: usize = 256;
    pub(super) const METADATA_KEY_CHARS: usize = 64;
    pub(super) const METADATA_CHARS: usize = 512;
    pub(super) const REPLACES_CHARS: usize = 128;
    pub(super) const VCPUS: i64 = 256;
    pub(super) const MEMORY_MIB: i64 = 1_048_576;
    pub(super) const SECONDS: i64 = 315_360_000;
    pub(super) const PORTS: usize = 65_536;
    pub(super) const GPUS: usize = 64;
}

/// What every machine says of itself.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Owner and time.
    pub header: ContentHeader,
    /// Whether it may be replaced.
    pub allow_amend: bool,
    /// Tags of its metadata.
    pub tags: Vec<String>,
    /// Keys that may log in.
    pub authorized_keys: Vec<String>,
    /// Variables of its environment, in name order.
    pub variables: Vec<(String, String)>,
    /// How large it is.
    pub resources: Resources,
    /// How it is paid; none is by holding.
    pub payment: Option<Payment>,
    /// Where it is to run, if that was said.
    pub requirements: Option<Requirements>,
    /// Further volumes, in order.
    pub volumes: Vec<Volume>,
    /// The program that it replaces, as it came.
    pub replaces: Option<String>,
}

/// What a machine may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Environment {
    /// Runs the same every time.
    pub reproducible: bool,
    /// Reaches the internet.
    pub internet: bool,
    /// Reaches the network's API.
    pub aleph_api: bool,
    /// Shares a cache with itself.
    pub shared_cache: bool,
}

/// How large a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Most time of a request, seconds.
    pub seconds: u64,
}

/// Where a machine is to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requirements {
    /// The compute node that it is pinned to.
    pub node_hash: Option<ItemHash>,
    /// The terms of that node that its owner agrees to.
    pub terms_and_conditions: Option<ItemHash>,
    /// The devices that it needs, as vendor and device: `10de:27b0`.
    pub gpus: Vec<String>,
}

impl Machine {
    /// Takes the shared members out of a content object.
    ///
    /// # Errors
    /// One of them is missing or wrong.
    pub fn read(object: &mut Object<'_>) -> Result<Self, FormatError> {
        Ok(Self {
            header: ContentHeader::read(object)?,
            allow_amend: object.required("allow_amend", Value::boolean)?,
            tags: object.optional("metadata", read_metadata)?.unwrap_or_default(),
            authorized_keys: object.optional("authorized_keys", read_keys)?.unwrap_or_default(),
            variables: object.optional("variables", read_variables)?.unwrap_or_default(),
            resources: object
                .required("resources", |value| Resources::read(value, |value, range| value.integer(range)))?,
            payment: object.optional("payment", |value| Payment::read(value, &PaymentType::WORDS))?,
            requirements: object.optional("requirements", Requirements::read)?,
            volumes: object.defaulted("volumes", |value| value.list_of(MAX_VOLUMES, Volume::read))?.unwrap_or_default(),
            replaces: object.optional("replaces", |value| value.string_up_to(limit::REPLACES_CHARS))?,
        })
    }

    /// The compute node that it is pinned to.
    #[must_use]
    pub fn node_hash(&self) -> Option<&ItemHash> {
        self.requirements.as_ref()?.node_hash.as_ref()
    }

    /// How it is paid.
    #[must_use]
    pub fn payment_type(&self) -> PaymentType {
        self.payment.as_ref().map_or(PaymentType::Hold, |payment| payment.kind)
    }
}

pub(super) fn read_keys(value: Value<'_>) -> Result<Vec<String>, FormatError> {
    value.list_of(limit::KEYS, |key| key.string_up_to(limit::KEY_CHARS))
}

pub(super) fn read_metadata(value: Value<'_>) -> Result<Vec<String>, FormatError> {
    let mut object = value.object()?;
    let tags = object.optional("tags", read_tags)?.unwrap_or_default();
    if object.len() > limit::METADATA {
        return Err(FormatError::new("", format!("at most {} entries are allowed", limit::METADATA)));
    }
    for (key, value) in object.rest() {
        let about = |error: FormatError| error.within(key);
        if key.chars().count() > limit::METADATA_KEY_CHARS {
            let problem = format!("keys have at most {} characters", limit::METADATA_KEY_CHARS);
            return Err(FormatError::new("", problem));
        }
        match value.text().as_bytes().first() {
            Some(b'"') => {
                value.string_up_to(limit::METADATA_CHARS).map_err(about)?;
            }
            Some(b'{' | b'[') => {
                return Err(about(FormatError::new("", "only texts, numbers, true, false and null are allowed")));
            }
            _ => {}
        }
    }
    Ok(tags)
}

pub(super) fn read_variables(value: Value<'_>) -> Result<Vec<(String, String)>, FormatError> {
    let object = value.object()?;
    if object.len() > limit::VARIABLES {
        return Err(FormatError::new("", format!("at most {} variables are allowed", limit::VARIABLES)));
    }
    object
        .rest()
        .map(|(name, value)| {
            if name.chars().count() > limit::VARIABLE_NAME_CHARS {
                let problem = format!("names have at most {} characters", limit::VARIABLE_NAME_CHARS);
                return Err(FormatError::new("", problem));
            }
            let text = value.string_up_to(limit::VARIABLE_CHARS).map_err(|error| error.within(name))?;
            Ok((name.to_owned(), text))
        })
        .collect()
}

impl Environment {
    /// Takes the flags of an environment out of it.
    ///
    /// # Errors
    /// One of them is no boolean.
    pub fn read(object: &mut Object<'_>) -> Result<Self, FormatError> {
        let mut flag = |name: &str| object.defaulted(name, Value::boolean).map(Option::unwrap_or_default);
        Ok(Self {
            reproducible: flag("reproducible")?,
            internet: flag("internet")?,
            aleph_api: flag("aleph_api")?,
            shared_cache: flag("shared_cache")?,
        })
    }
}

/// How a whole number in a range is read: leniently, or as JSON writes one.
pub(super) type ReadInteger = for<'a> fn(Value<'a>, std::ops::RangeInclusive<i64>) -> Result<i64, FormatError>;

impl Resources {
    /// Reads resources: open.
    ///
    /// # Errors
    /// A number that is none, or out of range.
    pub(super) fn read(value: Value<'_>, integer: ReadInteger) -> Result<Self, FormatError> {
        let mut object = value.object()?;
        let mut number = |name: &str, max: i64, default: i64| -> Result<u64, FormatError> {
            let value = object.defaulted(name, |value| integer(value, 1..=max))?;
            Ok(value.unwrap_or(default).unsigned_abs())
        };
        let vcpus = number("vcpus", limit::VCPUS, 1)?;
        let memory_mib = number("memory", limit::MEMORY_MIB, 128)?;
        let seconds = number("seconds", limit::SECONDS, 1)?;
        object.optional("published_ports", |value| {
            value.list_of(limit::PORTS, |port| {
                let mut port = port.object()?;
                port.defaulted("protocol", |value| value.one_of(&[("tcp", ()), ("udp", ())]))?;
                port.required("port", |value| integer(value, 1..=65_535))
            })
        })?;
        Ok(Self { vcpus: u32::try_from(vcpus).unwrap_or(u32::MAX), memory_mib, seconds })
    }
}

impl Requirements {
    /// Reads requirements: closed.
    ///
    /// # Errors
    /// Another value.
    pub(super) fn read(value: Value<'_>) -> Result<Self, FormatError> {
        let mut object = value.object()?;
        object.optional("cpu", |value| {
            let mut cpu = value.object()?;
            cpu.optional("architecture", |value| value.one_of(&[("x86_64", ()), ("arm64", ())]))?;
            cpu.optional("vendor", Value::string)?;
            cpu.optional("features", |value| value.list_of(limit::KEYS, Value::string))?;
            cpu.close()
        })?;
        let node = object.optional("node", |value| {
            let mut node = value.object()?;
            node.optional("owner", Value::string)?;
            node.optional("address_regex", |value| {
                let text = value.string_up_to(pattern::MAX_CHARS)?;
                pattern::check(&text).map_err(|reason| FormatError::new("", format!("no regular expression: {reason}")))
            })?;
            let node_hash = node.optional("node_hash", Value::item_hash)?;
            let terms_and_conditions = node.optional("terms_and_conditions", Value::item_hash)?;
            node.close()?;
            Ok(Self { node_hash, terms_and_conditions, gpus: Vec::new() })
        })?;
        let gpus = object.optional("gpu", |value| value.list_of(limit::GPUS, read_gpu))?.unwrap_or_default();
        object.close()?;
        Ok(Self { gpus, ..node.unwrap_or_default() })
    }
}

fn read_gpu(value: Value<'_>) -> Result<String, FormatError> {
    let mut gpu = value.object()?;
    gpu.required("vendor", Value::string)?;
    gpu.required("device_name", Value::string)?;
    gpu.required("device_class", |value| value.one_of(&[("0300", ()), ("0302", ())]))?;
    let device_id = gpu.required("device_id", Value::string)?;
    gpu.close()?;
    Ok(device_id)
}
