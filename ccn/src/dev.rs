//! A private network for development: a treasury and accounts with made-up credits and tokens.
//!
//! Their keys follow from a seed in the data folder and are printed at every start. The treasury funds the accounts with the very messages that the
//! network's own treasury sends; there is no other way in.

use crate::{
    ledger,
    network::Network,
    pipeline::{EngineError, Pipeline, SubmitError},
    store::{Store, StoreError},
};
use ccn_message::{
    MessageStatus,
    sign::{Account, Draft, KEY_BYTES, to_json},
};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Name of such a network.
pub const NETWORK: &str = "dev";
/// Accounts that are funded.
const ACCOUNTS: usize = 3;
/// Credits of each account: a million dollars' worth.
const CREDITS: u64 = 1_000_000_000_000;
/// Tokens of each account.
const TOKENS: u64 = 1_000_000;
const SEED_FILE: &str = "dev-seed";

/// The keys of a development network.
#[derive(Debug)]
pub struct Keys {
    treasury: Key,
    accounts: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    secret: [u8; KEY_BYTES],
    account: Account,
}

/// Why there is no development network.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// The seed cannot be read or made.
    #[error("{path}: {reason}")]
    Seed {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node fails.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A message that funds the accounts was refused.
    #[error("the accounts are not funded: {0}")]
    Refused(String),
}

impl Keys {
    /// The keys of a data folder; made at the first start.
    ///
    /// # Errors
    /// See [`DevError`].
    pub fn open(data: &Path) -> Result<Self, DevError> {
        let path = data.join(SEED_FILE);
        let seed = seed(&path).map_err(|reason| DevError::Seed { path, reason })?;
        let names = (1..=ACCOUNTS).map(|number| format!("account {number}"));
        Ok(Self { treasury: Key::of(&seed, "treasury"), accounts: names.map(|name| Key::of(&seed, &name)).collect() })
    }

    /// The network of which the treasury is everything that the network's own accounts are elsewhere.
    #[must_use]
    pub fn network(&self) -> Network {
        let treasury = self.treasury.account.address().to_owned();
        Network {
            name: NETWORK.into(),
            credit_treasury: vec![treasury.clone()],
            credit_minters: vec![treasury.clone()],
            balance_publishers: vec![treasury.clone()],
            pricing_owner: treasury.clone(),
            corechannel_owner: treasury,
            ..Network::default()
        }
    }

    /// A line per key.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let line =
            |role: &str, key: &Key| format!("{role} {} key 0x{}", key.account.address(), hex::encode(key.secret));
        let accounts = self.accounts.iter().map(|key| line("account", key));
        std::iter::once(line("treasury", &self.treasury)).chain(accounts).collect()
    }

    /// Gives the accounts credits and tokens, once.
    ///
    /// # Errors
    /// See [`DevError`].
    pub async fn fund(&self, store: &Store, pipeline: &Pipeline, network: &Network) -> Result<(), DevError> {
        let addresses: Vec<&str> = self.accounts.iter().map(|key| key.account.address()).collect();
        let now_ms = crate::clock::now_ms();
        let first = ledger::balance(&store.snapshot()?, addresses[0], now_ms)?;
        if first.lots.is_empty() {
            let credit = |address: &&str| json!({"address": address, "amount": CREDITS, "price": "1", "tx_hash": "dev", "provider": "dev"});
            let credits: Vec<Value> = addresses.iter().map(credit).collect();
            let content = json!({"distribution": {"token": "dev", "chain": "ETH", "credits": credits}});
            self.post(pipeline, "aleph_credit_distribution", &network.credit_channel, &content, now_ms).await?;
        }
        if first.chains.is_empty() {
            let balances: Map<String, Value> =
                addresses.iter().map(|address| ((*address).to_owned(), TOKENS.into())).collect();
            let content = json!({"chain": "ETH", "main_height": 1, "balances": balances});
            self.post(pipeline, "balances-update", "balances", &content, now_ms).await?;
        }
        Ok(())
    }

    async fn post(
        &self,
        pipeline: &Pipeline,
        kind: &str,
        channel: &str,
        content: &Value,
        now_ms: u64,
    ) -> Result<(), DevError> {
        let content = json!({"type": kind, "content": content}).to_string();
        let draft = Draft::new("POST", &content).channel(channel).time(now_ms as f64 / 1000.0);
        match pipeline.submit(to_json(&draft.sign(&self.treasury.account))).await {
            Ok(receipt) if receipt.status == MessageStatus::Processed => Ok(()),
            Ok(receipt) => Err(DevError::Refused(format!("{:?}", receipt.rejection))),
            Err(SubmitError::Engine(error)) => Err(error.into()),
            Err(error) => Err(DevError::Refused(error.to_string())),
        }
    }
}

impl Key {
    fn of(seed: &[u8; KEY_BYTES], name: &str) -> Self {
        // About one digest in 2^128 is no key.
        let mut secret: [u8; KEY_BYTES] = Sha256::new().chain_update(seed).chain_update(name).finalize().into();
        loop {
            match Account::ethereum(secret) {
                Ok(account) => return Self { secret, account },
                Err(_) => secret = Sha256::digest(secret).into(),
            }
        }
    }
}

fn seed(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    match fs::read(path) {
        // What a power cut leaves of one that was being written.
        Ok(bytes) if bytes.is_empty() => {
            fs::remove_file(path)?;
            seed(path)
        }
        Ok(bytes) => bytes.try_into().map_err(|_| io::Error::other(format!("a seed has {KEY_BYTES} bytes"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut seed = [0; KEY_BYTES];
            getrandom::fill(&mut seed).map_err(io::Error::other)?;
            let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
            file.write_all(&seed)?;
            file.sync_all()?;
            Ok(seed)
        }
        Err(error) => Err(error),
    }
}
