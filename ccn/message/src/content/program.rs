//! PROGRAM (messages spec section 6): closed at the top, mostly open inside.

use super::{
    machine::{Environment, Machine},
    volume::{FileReference, read_file},
};
use crate::json::{FormatError, Object, Value};

/// Most subscriptions to messages, most keys of one, most arguments.
const MAX_SUBSCRIPTIONS: usize = 1024;
const MAX_SUBSCRIPTION_KEYS: usize = 32;
const MAX_ARGUMENTS: usize = 1024;

/// What a PROGRAM says.
#[derive(Debug, Clone)]
pub struct ProgramContent {
    /// What every machine says.
    pub machine: Machine,
    /// What it may use.
    pub environment: Environment,
    /// Its code.
    pub code: Code,
    /// Its root file system.
    pub runtime: FileReference,
    /// A zip of data.
    pub data: Option<FileReference>,
    /// When it runs.
    pub triggers: Triggers,
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
        let machine = Machine::read(&mut object)?;
        object.required("type", |value| value.one_of(&[("vm-function", ())]))?;
        // The environment of a function is open: what only instances have is not looked at.
        let environment = object.required("environment", |value| Environment::read(&mut value.object()?))?;
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
        Ok(Self { machine, environment, code, runtime, data, triggers })
    }
}

fn read_code(value: Value<'_>) -> Result<Code, FormatError> {
    let mut object = value.object()?;
    let encoding = object.required("encoding", |value| value.one_of(&Encoding::WORDS))?;
    let entrypoint = object.required("entrypoint", Value::string)?;
    let interface = object
        .optional("interface", |value| value.one_of(&[("asgi", Interface::Asgi), ("binary", Interface::Binary)]))?
        .unwrap_or(if entrypoint.contains(':') { Interface::Asgi } else { Interface::Binary });
    let arguments = object.optional("args", |value| value.list_of(MAX_ARGUMENTS, Value::string))?.unwrap_or_default();
    let file = read_file(&mut object, false)?;
    Ok(Code { file, encoding, entrypoint, interface, arguments })
}

fn read_triggers(value: Value<'_>) -> Result<Triggers, FormatError> {
    let mut object = value.object()?;
    let http = object.required("http", Value::boolean)?;
    let persistent = object.optional("persistent", Value::boolean)?.unwrap_or_default();
    let message = object
        .optional("message", |value| {
            value.list_of(MAX_SUBSCRIPTIONS, |subscription| {
                if subscription.object()?.len() > MAX_SUBSCRIPTION_KEYS {
                    let problem = format!("at most {} keys are allowed", MAX_SUBSCRIPTION_KEYS);
                    return Err(FormatError::new("", problem));
                }
                Ok(subscription.text().to_owned())
            })
        })?
        .unwrap_or_default();
    object.close()?;
    Ok(Triggers { http, persistent, message })
}
