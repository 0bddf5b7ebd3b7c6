//! PROGRAM (messages spec section 6): closed at the top, mostly open inside.

use super::{
    payment::{Payment, PaymentType},
    read_tags,
    volume::{FileReference, MAX_VOLUMES, Volume, read_file},
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
    pub(super) const ADDRESS_REGEX_CHARS: usize = 256;
    pub(super) const SUBSCRIPTIONS: usize = 1024;
    pub(super) const SUBSCRIPTION_KEYS: usize = 32;
    pub(super) const ARGUMENTS: usize = 1024;
    pub(super) const GPUS: usize = 64;
}

/// What a PROGRAM says.
#[derive(Debug, Clone)]
pub struct ProgramContent {
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
    /// What it may use.
    pub environment: Environment,
    /// How large it is.
    pub resources: Resources,
    /// How it is paid; none is by holding.
    pub payment: Option<Payment>,
    /// The compute node that it is pinned to.
    pub node_hash: Option<ItemHash>,
    /// Further volumes, in order.
    pub volumes: Vec<Volume>,
    /// The program that it replaces, as it came.
    pub replaces: Option<String>,
    /// Its code.
    pub code: Code,
    /// Its root file system.
    pub runtime: FileReference,
    /// A zip of data.
    pub data: Option<FileReference>,
    /// When it runs.
    pub triggers: Triggers,
}

/// What a program may use.
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

/// How large a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Most time of a request, seconds.
    pub seconds: u64,
}

/// A program's code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    /// The file that holds it.
    pub file: FileReference,
    /// How it is packed.
    pub encoding: Encoding,
    /// What is run.
    pub entrypoint: String,
    /// How it is run.
    pub interface: Interface,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// How code is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// One file.
    Plain,
    /// A zip archive.
    Zip,
    /// A file system image.
    Squashfs,
}

impl Encoding {
    const WORDS: [(&'static str, Self); 3] = [("plain", Self::Plain), ("zip", Self::Zip), ("squashfs", Self::Squashfs)];
}

/// How code is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    /// A Python ASGI application.
    Asgi,
    /// An executable that serves HTTP.
    Binary,
}

/// When a program runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Triggers {
    /// On requests. Not enforced by the network: every program answers.
    pub http: bool,
    /// Always.
    pub persistent: bool,
    /// On messages that match one of these objects, as raw JSON.
    pub message: Vec<String>,
}

impl ProgramContent {
    /// Reads a content object.
    ///
    /// # Errors
    /// It is not that of a PROGRAM.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let mut object = Object::parse(text)?;
        let header = ContentHeader::read(&mut object)?;
        object.required("type", |value| value.one_of(&[("vm-function", ())]))?;
        let allow_amend = object.required("allow_amend", Value::boolean)?;
        let tags = object.optional("metadata", read_metadata)?.unwrap_or_default();
        let authorized_keys = object
            .optional("authorized_keys", |value| value.list_of(limit::KEYS, |key| key.string_up_to(limit::KEY_CHARS)))?
            .unwrap_or_default();
        let variables = object.optional("variables", read_variables)?.unwrap_or_default();
        let environment = object.required("environment", read_environment)?;
        let resources = object.required("resources", read_resources)?;
        let payment = object.optional("payment", |value| Payment::read(value, &PaymentType::WORDS))?;
        let requirements = object.optional("requirements", read_requirements)?;
        let volumes = match object.take_raw("volumes") {
            Some(value) => value.list_of(MAX_VOLUMES, Volume::read).map_err(|error| error.within("volumes"))?,
            None => Vec::new(),
        };
        let replaces = object.optional("replaces", |value| value.string_up_to(limit::REPLACES_CHARS))?;
        let code = object.required("code", read_code)?;
        let runtime = object.required("runtime", |value| {
            let mut object = value.object()?;
            object.required("comment", Value::string)?;
            read_file(&mut object, true)
        })?;
        let data = object.optional("data", |value| {
            let mut object = value.object()?;
            object.required("encoding", |value| value.one_of(&Encoding::WORDS))?;
            object.required("mount", Value::string)?;
            read_file(&mut object, false)
        })?;
        object.optional("export", |value| {
            let mut object = value.object()?;
            object.required("encoding", |value| value.one_of(&Encoding::WORDS))?;
            object.required("mount", Value::string)
        })?;
        let triggers = object.required("on", read_triggers)?;
        object.close()?;
        let streamed = payment.as_ref().is_some_and(|payment| payment.kind == PaymentType::Superfluid);
        if streamed && requirements == Some(None) {
            return Err(FormatError::new("requirements.node.node_hash", "is required when payment is streamed"));
        }
        Ok(Self {
            header,
            allow_amend,
            tags,
            authorized_keys,
            variables,
            environment,
            resources,
            payment,
            node_hash: requirements.flatten(),
            volumes,
            replaces,
            code,
            runtime,
            data,
            triggers,
        })
    }
}

fn read_metadata(value: Value<'_>) -> Result<Vec<String>, FormatError> {
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

fn read_variables(value: Value<'_>) -> Result<Vec<(String, String)>, FormatError> {
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

fn read_environment(value: Value<'_>) -> Result<Environment, FormatError> {
    let mut object = value.object()?;
    let mut flag = |name: &str| object.optional(name, Value::boolean).map(Option::unwrap_or_default);
    let environment = Environment {
        reproducible: flag("reproducible")?,
        internet: flag("internet")?,
        aleph_api: flag("aleph_api")?,
        shared_cache: flag("shared_cache")?,
    };
    // The network checks programs against the union of both environments.
    let hypervisor = object.optional("hypervisor", |value| value.one_of(&[("qemu", true), ("firecracker", false)]))?;
    let trusted = object.optional("trusted_execution", Value::object)?;
    if trusted.is_some() && hypervisor != Some(true) {
        return Err(FormatError::new("trusted_execution", "needs the hypervisor qemu"));
    }
    Ok(environment)
}

fn read_resources(value: Value<'_>) -> Result<Resources, FormatError> {
    let mut object = value.object()?;
    let mut number = |name: &str, max: i64, default: i64| -> Result<u64, FormatError> {
        let value = object.optional(name, |value| value.integer(1..=max))?;
        Ok(value.unwrap_or(default).unsigned_abs())
    };
    let vcpus = number("vcpus", limit::VCPUS, 1)?;
    let memory_mib = number("memory", limit::MEMORY_MIB, 128)?;
    let seconds = number("seconds", limit::SECONDS, 1)?;
    object.optional("published_ports", |value| {
        value.list_of(limit::PORTS, |port| {
            let mut port = port.object()?;
            port.optional("protocol", |value| value.one_of(&[("tcp", ()), ("udp", ())]))?;
            port.required("port", |value| value.integer(1..=65_535))
        })
    })?;
    Ok(Resources { vcpus: u32::try_from(vcpus).unwrap_or(u32::MAX), memory_mib, seconds })
}

/// The node that is asked for, if one is.
fn read_requirements(value: Value<'_>) -> Result<Option<ItemHash>, FormatError> {
    let mut object = value.object()?;
    object.optional("cpu", |value| {
        let mut cpu = value.object()?;
        cpu.optional("architecture", |value| value.one_of(&[("x86_64", ()), ("arm64", ())]))?;
        cpu.optional("vendor", Value::string)?;
        cpu.optional("features", |value| value.list_of(limit::KEYS, Value::string))?;
        cpu.close()
    })?;
    let node_hash = object.optional("node", |value| {
        let mut node = value.object()?;
        node.optional("owner", Value::string)?;
        node.optional("address_regex", |value| value.string_up_to(limit::ADDRESS_REGEX_CHARS))?;
        let node_hash = node.optional("node_hash", Value::item_hash)?;
        node.optional("terms_and_conditions", Value::item_hash)?;
        node.close()?;
        Ok(node_hash)
    })?;
    object.optional("gpu", |value| {
        value.list_of(limit::GPUS, |gpu| {
            let mut gpu = gpu.object()?;
            for field in ["vendor", "device_name", "device_id"] {
                gpu.required(field, Value::string)?;
            }
            gpu.required("device_class", |value| value.one_of(&[("0300", ()), ("0302", ())]))?;
            gpu.close()
        })
    })?;
    object.close()?;
    Ok(node_hash.flatten())
}

fn read_code(value: Value<'_>) -> Result<Code, FormatError> {
    let mut object = value.object()?;
    let encoding = object.required("encoding", |value| value.one_of(&Encoding::WORDS))?;
    let entrypoint = object.required("entrypoint", Value::string)?;
    let interface = object
        .optional("interface", |value| value.one_of(&[("asgi", Interface::Asgi), ("binary", Interface::Binary)]))?
        .unwrap_or(if entrypoint.contains(':') { Interface::Asgi } else { Interface::Binary });
    let arguments =
        object.optional("args", |value| value.list_of(limit::ARGUMENTS, Value::string))?.unwrap_or_default();
    let file = read_file(&mut object, false)?;
    Ok(Code { file, encoding, entrypoint, interface, arguments })
}

fn read_triggers(value: Value<'_>) -> Result<Triggers, FormatError> {
    let mut object = value.object()?;
    let http = object.required("http", Value::boolean)?;
    let persistent = object.optional("persistent", Value::boolean)?.unwrap_or_default();
    let message = object
        .optional("message", |value| {
            value.list_of(limit::SUBSCRIPTIONS, |subscription| {
                if subscription.object()?.len() > limit::SUBSCRIPTION_KEYS {
                    let problem = format!("at most {} keys are allowed", limit::SUBSCRIPTION_KEYS);
                    return Err(FormatError::new("", problem));
                }
                Ok(subscription.text().to_owned())
            })
        })?
        .unwrap_or_default();
    object.close()?;
    Ok(Triggers { http, persistent, message })
}
