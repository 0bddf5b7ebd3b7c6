//! The stages of a message. Each check takes one stage and gives the next, so that nothing is checked twice or left out.
//!
//! ```text
//! text ─ parse ─> Envelope ─ verify ─> SignedMessage ─ fetch ─> FetchedMessage ─ validate ─> ValidMessage ─ decide ─> committed
//! ```

use crate::{
    files::{Files, is_away},
    host::{HostError, Plan, Plugin, Plugins, Rejection, Session, contract},
};
use ccn_message::{Envelope, ErrorCode, FormatError, ItemHash, ItemType, envelope::ContentHeader, json, signature};
use std::{io, sync::Arc};

/// Largest content that is not inline, bytes.
pub const MAX_CONTENT_BYTES: u64 = 16 << 20;

/// A message whose signature stands, or for whose sender a chain vouches.
#[derive(Debug, Clone)]
pub(super) struct SignedMessage {
    envelope: Envelope,
}

/// A signed message with its content.
#[derive(Debug)]
pub(super) struct FetchedMessage {
    envelope: Envelope,
    content: String,
    /// Length as received: characters when inline, bytes otherwise.
    size: u64,
    header: ContentHeader,
}

/// A message whose content is of its type's form.
#[derive(Debug)]
pub(super) struct ValidMessage {
    pub(super) envelope: Envelope,
    /// The content when it is not inline.
    pub(super) fetched_content: Option<String>,
    pub(super) size: u64,
    pub(super) plugin: Arc<Plugin>,
    pub(super) plan: Plan,
    /// The instance that found it valid, where there was room to keep it.
    pub(super) session: Option<Session>,
    /// What the plugin is shown.
    pub(super) shown: contract::Message,
}

/// How far a message came before its turn.
#[derive(Debug)]
pub(super) enum Prepared {
    /// All the way.
    Valid(Box<ValidMessage>),
    /// Its content is not here.
    Lacking(SignedMessage),
    /// It is refused, whatever else is known.
    Refused { envelope: Box<Envelope>, rejection: Rejection },
    /// No plugin handles its type, or the one that does is suspended.
    Unhandled { signed: SignedMessage, sentence: String },
    /// Its plugin has used up its time.
    Deferred { signed: SignedMessage, plugin: String },
    /// Its plugin failed on it.
    Failed { signed: SignedMessage, plugin: String, error: HostError },
}

impl Prepared {
    pub(super) fn envelope(&self) -> &Envelope {
        match self {
            Self::Valid(message) => &message.envelope,
            Self::Lacking(signed)
            | Self::Unhandled { signed, .. }
            | Self::Deferred { signed, .. }
            | Self::Failed { signed, .. } => signed.envelope(),
            Self::Refused { envelope, .. } => envelope,
        }
    }
}

/// Why a text is no message of this node.
pub(super) struct NotAMessage {
    pub(super) item_hash: Option<ItemHash>,
    pub(super) error: FormatError,
}

impl SignedMessage {
    /// A message that waited: its signature was checked when it came.
    pub(super) fn known(envelope: Envelope) -> Self {
        Self { envelope }
    }

    pub(super) fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// Adds the content.
    fn fetch(self, files: Option<&Files>) -> Result<Fetch, io::Error> {
        let envelope = self.envelope;
        if let Some(content) = envelope.item_content.clone() {
            let size = content.chars().count() as u64;
            return Ok(Self::read(envelope, content, size));
        }
        let read = files.map_or(Ok(None), |files| files.read(&envelope.item_hash, MAX_CONTENT_BYTES));
        let bytes = match read {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(Fetch::Lacking(Self { envelope })),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                let error = FormatError::new("content", format!("has more than {MAX_CONTENT_BYTES} bytes"));
                return Ok(Fetch::Malformed(envelope, error));
            }
            // It is looked for until the object store of the files is back, and then the message has its turn.
            Err(error) if is_away(&error) => return Ok(Fetch::Lacking(Self { envelope })),
            Err(error) => return Err(error),
        };
        let size = bytes.len() as u64;
        let completed = String::from_utf8(bytes)
            .map_err(|_| FormatError::new("content", "is not UTF-8"))
            .and_then(|content| ContentHeader::complete(&content, &envelope));
        Ok(match completed {
            Ok(content) => Self::read(envelope, content, size),
            Err(error) => Fetch::Malformed(envelope, error),
        })
    }

    fn read(envelope: Envelope, content: String, size: u64) -> Fetch {
        match json::check(&content).and_then(|()| ContentHeader::parse(&content)) {
            Ok(header) => Fetch::Fetched(Box::new(FetchedMessage { envelope, content, size, header })),
            Err(error) => Fetch::Malformed(envelope, error),
        }
    }
}

/// What came of looking for content.
enum Fetch {
    Fetched(Box<FetchedMessage>),
    Lacking(SignedMessage),
    Malformed(Envelope, FormatError),
}

impl FetchedMessage {
    fn validate(self, plugins: &Plugins) -> Prepared {
        let Self { envelope, content, size, header } = self;
        let Some(plugin) = plugins.for_kind(&envelope.kind) else {
            let sentence = unhandled(&envelope.kind, plugins);
            return Prepared::Unhandled { signed: SignedMessage { envelope }, sentence };
        };
        if !plugin.may_run() {
            let plugin = plugin.manifest().name.clone();
            return Prepared::Deferred { signed: SignedMessage { envelope }, plugin };
        }
        let shown = shown(&envelope, &content, &header);
        match plugin.examine(&shown) {
            Ok(Ok((plan, session))) => Prepared::Valid(Box::new(ValidMessage {
                fetched_content: envelope.item_content.is_none().then_some(content),
                envelope,
                size,
                plugin,
                plan,
                session,
                shown,
            })),
            Ok(Err(rejection)) => refused(envelope, rejection),
            Err(error @ HostError::Suspended { .. }) => {
                Prepared::Unhandled { signed: SignedMessage { envelope }, sentence: error.to_string() }
            }
            Err(error) => {
                let plugin = plugin.manifest().name.clone();
                Prepared::Failed { signed: SignedMessage { envelope }, plugin, error }
            }
        }
    }
}

fn refused(envelope: Envelope, rejection: Rejection) -> Prepared {
    Prepared::Refused { envelope: Box::new(envelope), rejection }
}

/// Why a message of this type is not handled.
pub(super) fn unhandled(kind: &str, plugins: &Plugins) -> String {
    let shown: String = kind.chars().take(64).collect();
    match plugins.suspended_for(kind) {
        Some(plugin) => format!("the plugin {plugin} of the message type `{shown}` is suspended on this node"),
        None => format!("no plugin of this node knows the message type `{shown}`"),
    }
}

/// The rejection for a content that is none.
fn malformed(error: &FormatError) -> Rejection {
    Rejection::sentence(ErrorCode::InvalidFormat.number(), &error.to_string())
}

/// What a plugin is shown of a message.
pub(super) fn shown(envelope: &Envelope, content: &str, header: &ContentHeader) -> contract::Message {
    contract::Message {
        item_hash: envelope.item_hash.to_string(),
        kind: envelope.kind.clone(),
        sender: envelope.sender.clone(),
        chain: envelope.chain.name().to_owned(),
        channel: envelope.channel.clone(),
        address: header.address.clone(),
        time: header.time,
        envelope_time: envelope.time,
        content: content.as_bytes().to_vec(),
    }
}

/// Takes a signed message as far as it comes without knowing other messages. Without files its content is not looked for, unless it is inline.
pub(super) fn prepare(signed: SignedMessage, files: Option<&Files>, plugins: &Plugins) -> io::Result<Prepared> {
    Ok(match signed.fetch(files)? {
        Fetch::Fetched(fetched) => fetched.validate(plugins),
        Fetch::Lacking(signed) => Prepared::Lacking(signed),
        Fetch::Malformed(envelope, error) => refused(envelope, malformed(&error)),
    })
}

/// Reads an envelope and everything about it that needs no signature.
pub(super) fn parse(text: &str) -> Result<Envelope, NotAMessage> {
    Envelope::parse(text).map_err(|error| NotAMessage { item_hash: claimed_hash(text), error })
}

/// The hash that a text claims to have, though it is no message.
fn claimed_hash(text: &str) -> Option<ItemHash> {
    let mut object = json::Object::parse(text).ok()?;
    object.take("item_hash")?.item_hash().ok()
}

/// Takes a message from outside as far as it comes. Form goes before signature: what is no message leaves nothing behind, whoever signed it.
pub(super) fn receive(
    envelope: Envelope,
    files: Option<&Files>,
    plugins: &Plugins,
) -> io::Result<Result<Prepared, NotAMessage>> {
    let item_hash = envelope.item_hash.clone();
    let not_a_message = |error| Ok(Err(NotAMessage { item_hash: Some(item_hash.clone()), error }));
    if plugins.for_kind(&envelope.kind).is_none() {
        // What nobody has signed is not kept for a plugin that may never come.
        let sentence = unhandled(&envelope.kind, plugins);
        return match signature::verify(&envelope) {
            Ok(()) => Ok(Ok(Prepared::Unhandled { signed: SignedMessage { envelope }, sentence })),
            Err(_) => not_a_message(FormatError::new("type", sentence)),
        };
    }
    let is_inline = envelope.item_type == ItemType::Inline;
    let signature = signature::verify(&envelope);
    if let Err(error @ signature::SignatureError::Unverifiable(_)) = &signature {
        return not_a_message(FormatError::new("chain", error.to_string()));
    }
    let bad_signature = signature.err().map(|error| {
        let rejection = Rejection::sentence(error.code().number(), &error.to_string());
        refused(envelope.clone(), rejection)
    });
    if let Some(refused) = bad_signature {
        // Its form goes first, as far as it can be seen; nothing else is done with it.
        let form = if is_inline { form_error(&prepare(SignedMessage { envelope }, files, plugins)?) } else { None };
        return form.map_or(Ok(Ok(refused)), not_a_message);
    }
    let prepared = prepare(SignedMessage { envelope }, files, plugins)?;
    match form_error(&prepared).filter(|_| is_inline) {
        Some(error) => not_a_message(error),
        None => Ok(Ok(prepared)),
    }
}

/// Takes a message as far as it comes for whose sender a chain vouches: there is no signature to verify.
pub(super) fn vouched(
    envelope: Envelope,
    files: Option<&Files>,
    plugins: &Plugins,
) -> io::Result<Result<Prepared, NotAMessage>> {
    let item_hash = envelope.item_hash.clone();
    let prepared = prepare(SignedMessage { envelope }, files, plugins)?;
    Ok(match form_error(&prepared) {
        Some(error) => Err(NotAMessage { item_hash: Some(item_hash), error }),
        None => Ok(prepared),
    })
}

/// What is wrong with the form of a content.
fn form_error(prepared: &Prepared) -> Option<FormatError> {
    match prepared {
        Prepared::Refused { rejection, .. } if rejection.code == ErrorCode::InvalidFormat.number() => {
            let sentences: Vec<String> = rejection.errors.iter().map(|error| sentence(error)).collect();
            Some(FormatError::new("item_content", sentences.join("; ")))
        }
        _ => None,
    }
}

/// A JSON value as a sentence: strings without their quotes.
fn sentence(error: &str) -> String {
    serde_json::from_str(error).unwrap_or_else(|_| error.to_owned())
}
