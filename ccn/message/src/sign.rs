//! Wallets: keys that sign messages, for development nodes, tests and tools.

use crate::{
    Chain, Envelope, ItemHash, ItemType,
    signature::evm::{address_of, message_digest},
};
use ed25519_dalek::{Signer as _, SigningKey};
use secp256k1::{Message, SecretKey, ecdsa::RecoverableSignature};
use serde_json::{Map, Value, json};

/// Bytes of a private key, on both curves.
pub const KEY_BYTES: usize = 32;

/// A key with its address.
#[derive(Clone)]
pub struct Account {
    key: Key,
    address: String,
}

#[derive(Clone)]
enum Key {
    Ethereum(SecretKey),
    Solana(Box<SigningKey>),
}

impl std::fmt::Debug for Account {
    /// Its address: keys are not printed by accident.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Account({})", self.address)
    }
}

/// Bytes that are no private key: zero, or beyond the order of the curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are no private key")]
pub struct InvalidKey;

impl Account {
    /// An account on Ethereum (and every other EVM chain).
    ///
    /// # Errors
    /// The bytes are no key.
    pub fn ethereum(key: [u8; KEY_BYTES]) -> Result<Self, InvalidKey> {
        let key = SecretKey::from_secret_bytes(key).map_err(|_| InvalidKey)?;
        let address = address_of(&key.public_key()).to_checksum(None);
        Ok(Self { key: Key::Ethereum(key), address })
    }

    /// An account on Solana, from its seed.
    #[must_use]
    pub fn solana(seed: [u8; KEY_BYTES]) -> Self {
        let key = SigningKey::from_bytes(&seed);
        let address = bs58::encode(key.verifying_key().as_bytes()).into_string();
        Self { key: Key::Solana(Box::new(key)), address }
    }

    /// Its address, as the network spells it.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The chain it signs for.
    #[must_use]
    pub fn chain(&self) -> Chain {
        match self.key {
            Key::Ethereum(_) => Chain::ETH,
            Key::Solana(_) => Chain::SOL,
        }
    }

    /// The signature field for a text.
    #[must_use]
    pub fn sign(&self, buffer: &str) -> String {
        match &self.key {
            Key::Ethereum(key) => {
                let digest = Message::from_digest(message_digest(buffer.as_bytes()));
                let (recovery_id, compact) =
                    RecoverableSignature::sign_ecdsa_recoverable(digest, key).serialize_compact();
                format!("0x{}{:02x}", hex::encode(compact), u8::from(recovery_id) + 27)
            }
            Key::Solana(key) => {
                let signature = bs58::encode(key.sign(buffer.as_bytes()).to_bytes()).into_string();
                json!({"publicKey": self.address, "signature": signature}).to_string()
            }
        }
    }
}

/// A message before it is signed.
#[derive(Debug, Clone)]
pub struct Draft {
    kind: String,
    content: String,
    channel: Option<String>,
    time: f64,
    address: Option<String>,
}

impl Draft {
    /// A message of that type with a content object as JSON text; `address` and `time` are filled in when they are missing.
    #[must_use]
    pub fn new(kind: &str, content: &str) -> Self {
        Self { kind: kind.to_owned(), content: content.to_owned(), channel: None, time: 0.0, address: None }
    }

    /// In that channel.
    #[must_use]
    pub fn channel(mut self, channel: &str) -> Self {
        self.channel = Some(channel.to_owned());
        self
    }

    /// At that time, seconds since 1970.
    #[must_use]
    pub fn time(mut self, time: f64) -> Self {
        self.time = time;
        self
    }

    /// On behalf of another address.
    #[must_use]
    pub fn address(mut self, address: &str) -> Self {
        self.address = Some(address.to_owned());
        self
    }

    /// Signs it with its content inline.
    #[must_use]
    pub fn sign(self, account: &Account) -> Envelope {
        let mut content: Map<String, Value> = serde_json::from_str(&self.content).unwrap_or_default();
        let owner = self.address.as_deref().unwrap_or(account.address()).to_owned();
        content.entry("address").or_insert(Value::from(owner));
        content.entry("time").or_insert(Value::from(self.time));
        let text = Value::Object(content).to_string();
        let item_hash = ItemHash::sha256_of(text.as_bytes());
        self.sign_hash(account, item_hash, ItemType::Inline, Some(text))
    }

    /// Signs it with its content elsewhere, under that hash.
    #[must_use]
    pub fn sign_stored(self, account: &Account, item_hash: ItemHash, item_type: ItemType) -> Envelope {
        self.sign_hash(account, item_hash, item_type, None)
    }

    fn sign_hash(
        self,
        account: &Account,
        item_hash: ItemHash,
        item_type: ItemType,
        item_content: Option<String>,
    ) -> Envelope {
        let mut envelope = Envelope {
            sender: account.address().to_owned(),
            chain: account.chain(),
            kind: self.kind,
            channel: self.channel,
            time: self.time,
            item_type,
            item_content,
            item_hash,
            signature: None,
        };
        envelope.signature = Some(account.sign(&envelope.verification_buffer()));
        envelope
    }
}

/// An envelope as clients send it.
#[must_use]
pub fn to_json(envelope: &Envelope) -> String {
    let mut object = json!({
        "sender": envelope.sender,
        "chain": envelope.chain.name(),
        "type": envelope.kind,
        "channel": envelope.channel,
        "time": envelope.time,
        "item_type": envelope.item_type.name(),
        "item_hash": envelope.item_hash,
        "signature": envelope.signature,
    });
    if let (Some(content), Some(fields)) = (&envelope.item_content, object.as_object_mut()) {
        fields.insert("item_content".into(), Value::from(content.as_str()));
    }
    object.to_string()
}
