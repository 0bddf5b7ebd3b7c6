//! Wallets: keys that sign messages, for development nodes, tests and tools.

use crate::{
    Chain, Envelope, ItemHash, ItemType,
    chain::Family,
    signature::{
        avalanche, cosmos,
        evm::{address_of, message_digest},
        nuls, nuls2,
        secp::RECOVERABLE_BYTES,
        substrate,
        tezos::{self, Curve},
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signer as _, SigningKey};
use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use schnorrkel::{ExpansionMode, Keypair, MiniSecretKey};
use secp256k1::{Message, SecretKey, ecdsa::RecoverableSignature};
use serde_json::{Map, Value, json};

/// Bytes of a private key, on both curves.
pub const KEY_BYTES: usize = 32;

/// A key with its address.
#[derive(Clone)]
pub struct Account {
    key: Key,
    chain: Chain,
    address: String,
}

#[derive(Clone)]
enum Key {
    Evm(SecretKey),
    Ed25519(Box<SigningKey>),
    Avalanche(SecretKey),
    Cosmos(SecretKey),
    Substrate(Box<Keypair>),
    Tezos(TezosKey),
    Nuls(SecretKey),
    Nuls2(SecretKey),
}

/// A key on one of the curves of Tezos.
#[derive(Clone)]
enum TezosKey {
    Ed25519(Box<SigningKey>),
    Secp256k1(SecretKey),
    P256(Box<p256::ecdsa::SigningKey>),
}

/// The prefix of addresses of the Cosmos hub, the chain of Avalanche that wallets sign for, the first chain of NULS, and the number that
/// addresses have which are good on every chain of Substrate.
const COSMOS_PREFIX: &str = "cosmos";
const AVALANCHE_CHAIN: &str = "X";
const NULS_CHAIN: u16 = 8964;
const SUBSTRATE_NETWORK: u8 = 42;

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
        Self::on(Chain::ETH, key)
    }

    /// An account on Solana, from its seed.
    #[must_use]
    pub fn solana(seed: [u8; KEY_BYTES]) -> Self {
        let key = SigningKey::from_bytes(&seed);
        let address = bs58::encode(key.verifying_key().as_bytes()).into_string();
        Self { key: Key::Ed25519(Box::new(key)), chain: Chain::SOL, address }
    }

    /// An account on any chain whose signatures can be verified; on Tezos, on the first of its curves.
    ///
    /// # Errors
    /// The bytes are no key, or the chain has no signatures.
    pub fn on(chain: Chain, key: [u8; KEY_BYTES]) -> Result<Self, InvalidKey> {
        let secret = || SecretKey::from_secret_bytes(key).map_err(|_| InvalidKey);
        let (key, address) = match chain.family() {
            Family::Evm => {
                let key = secret()?;
                (Key::Evm(key), address_of(&key.public_key()).to_checksum(None))
            }
            Family::Ed25519 => return Ok(Self { chain, ..Self::solana(key) }),
            Family::Avalanche => {
                let key = secret()?;
                (Key::Avalanche(key), avalanche::address(AVALANCHE_CHAIN, &key.public_key()))
            }
            Family::Cosmos => {
                let key = secret()?;
                (Key::Cosmos(key), cosmos::address(COSMOS_PREFIX, &key.public_key()).ok_or(InvalidKey)?)
            }
            Family::Substrate => {
                let seed = MiniSecretKey::from_bytes(&key).map_err(|_| InvalidKey)?;
                let pair = seed.expand_to_keypair(ExpansionMode::Ed25519);
                let address = substrate::address(SUBSTRATE_NETWORK, &pair.public);
                (Key::Substrate(Box::new(pair)), address)
            }
            Family::Tezos => return Self::tezos(Curve::Ed25519, key),
            Family::Nuls => {
                let key = secret()?;
                let address = nuls::address(NULS_CHAIN.to_le_bytes(), &key.public_key().serialize());
                (Key::Nuls(key), bs58::encode(address).into_string())
            }
            Family::Nuls2 => {
                let key = secret()?;
                (Key::Nuls2(key), nuls2::main_address(&key.public_key()))
            }
            Family::Unverifiable => return Err(InvalidKey),
        };
        Ok(Self { key, chain, address })
    }

    /// An account on Tezos.
    ///
    /// # Errors
    /// The bytes are no key of the curve.
    pub fn tezos(curve: Curve, key: [u8; KEY_BYTES]) -> Result<Self, InvalidKey> {
        let key = match curve {
            Curve::Ed25519 => TezosKey::Ed25519(Box::new(SigningKey::from_bytes(&key))),
            Curve::Secp256k1 => TezosKey::Secp256k1(SecretKey::from_secret_bytes(key).map_err(|_| InvalidKey)?),
            Curve::P256 => TezosKey::P256(Box::new(p256::ecdsa::SigningKey::from_slice(&key).map_err(|_| InvalidKey)?)),
        };
        let address = key.curve().address(&key.public());
        Ok(Self { key: Key::Tezos(key), chain: Chain::TEZOS, address })
    }

    /// Its address, as the network spells it.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The chain it signs for.
    #[must_use]
    pub fn chain(&self) -> Chain {
        self.chain
    }

    /// The signature field for a text.
    #[must_use]
    pub fn sign(&self, buffer: &str) -> String {
        let text = buffer.as_bytes();
        match &self.key {
            Key::Evm(key) => {
                let [compact @ .., recovery_id] = recoverable(key, message_digest(text));
                format!("0x{}{:02x}", hex::encode(compact), recovery_id + 27)
            }
            Key::Ed25519(key) => {
                let signature = bs58::encode(key.sign(text).to_bytes()).into_string();
                json!({"publicKey": self.address, "signature": signature}).to_string()
            }
            Key::Avalanche(key) => avalanche::spell(&recoverable(key, avalanche::digest(text))),
            Key::Cosmos(key) => {
                let [compact @ .., _] = recoverable(key, cosmos::digest(&self.address, buffer));
                let value = STANDARD.encode(key.public_key().serialize());
                let public = json!({"type": cosmos::KEY_TYPE, "value": value});
                json!({"signature": STANDARD.encode(compact), "pub_key": public}).to_string()
            }
            Key::Substrate(pair) => {
                let signature = pair.sign_simple(substrate::CONTEXT, text).to_bytes();
                json!({"curve": substrate::CURVE, "data": format!("0x{}", hex::encode(signature))}).to_string()
            }
            Key::Tezos(key) => key.sign(text),
            Key::Nuls(key) => {
                let der = secp256k1::ecdsa::sign(Message::from_digest(nuls::digest(text)), key).serialize_der();
                nuls::spell(&key.public_key().serialize(), &der)
            }
            Key::Nuls2(key) => {
                let [compact @ .., recovery_id] = recoverable(key, nuls::digest(text));
                STANDARD.encode([&[nuls2::FIRST_HEADER + recovery_id], &compact[..]].concat())
            }
        }
    }

    /// The signature field for bytes that a Tezos wallet has made of a text.
    #[cfg(test)]
    pub(crate) fn sign_bytes(&self, bytes: &[u8]) -> String {
        let Key::Tezos(key) = &self.key else { unreachable!("only wallets of Tezos do that") };
        key.sign(bytes)
    }
}

impl TezosKey {
    fn curve(&self) -> Curve {
        match self {
            Self::Ed25519(_) => Curve::Ed25519,
            Self::Secp256k1(_) => Curve::Secp256k1,
            Self::P256(_) => Curve::P256,
        }
    }

    /// Its public key, as the curve writes it.
    fn public(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => key.verifying_key().as_bytes().to_vec(),
            Self::Secp256k1(key) => key.public_key().serialize().to_vec(),
            Self::P256(key) => key.verifying_key().to_sec1_point(true).as_bytes().to_vec(),
        }
    }

    /// The signature field for some bytes.
    fn sign(&self, bytes: &[u8]) -> String {
        let curve = self.curve();
        let signature = curve.spell_signature(&self.sign_digest(tezos::digest(bytes)));
        json!({"publicKey": curve.spell_key(&self.public()), "signature": signature}).to_string()
    }

    fn sign_digest(&self, digest: [u8; 32]) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => key.sign(&digest).to_bytes().to_vec(),
            Self::Secp256k1(key) => {
                secp256k1::ecdsa::sign(Message::from_digest(digest), key).serialize_compact().to_vec()
            }
            Self::P256(key) => {
                // A digest is as long as the curve wants it.
                let signature: p256::ecdsa::Signature = key.sign_prehash(&digest).expect("32 bytes");
                signature.to_bytes().to_vec()
            }
        }
    }
}

/// r, s, and which of the keys that fit.
fn recoverable(key: &SecretKey, digest: [u8; 32]) -> [u8; RECOVERABLE_BYTES] {
    let signature = RecoverableSignature::sign_ecdsa_recoverable(Message::from_digest(digest), key);
    let (recovery_id, compact) = signature.serialize_compact();
    let mut bytes = [u8::from(recovery_id); RECOVERABLE_BYTES];
    bytes[..compact.len()].copy_from_slice(&compact);
    bytes
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
