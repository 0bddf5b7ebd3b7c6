//! A private network for development: a treasury, accounts with made-up credits and tokens, and the aggregates that clients read at fixed addresses.
//!
//! The keys follow from a seed in the data folder and are printed at every start. The treasury funds the accounts with the very messages that the
//! network's own treasury sends; there is no other way in. Nobody here has the keys of the addresses at which clients look for prices, settings and
//! nodes: what is said there ([`seeds`]) comes by the door for messages that somebody vouches for, and this program is that somebody.

mod seeds;

use crate::{
    config::Development,
    ledger,
    network::Network,
    node::Service,
    pipeline::{EngineError, Pipeline, Receipt, SubmitError},
    store::StoreError,
};
use ccn_message::{
    ItemHash, MessageStatus,
    sign::{Account, Draft, KEY_BYTES, to_json},
};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Name of such a network.
pub const NETWORK: &str = "dev";
/// Accounts with keys that are funded.
const ACCOUNTS: usize = 10;
const SEED_FILE: &str = "dev-seed";

/// The keys of a development network.
#[derive(Debug)]
pub struct Keys {
    treasury: Key,
    accounts: Vec<Key>,
    /// When the seed was made, seconds since 1970: since when the network and its nodes are there.
    since: u64,
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
    /// A message that funds the accounts, or says what things cost, was refused.
    #[error("the development network is not set up: {what}: {reason}")]
    Refused {
        /// What it was for.
        what: String,
        /// Why.
        reason: String,
    },
    /// A file that the settings name cannot be used, or what was noted in the data folder cannot be read or written. The operator's to mend.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl Keys {
    /// The keys of a data folder; made at the first start.
    ///
    /// # Errors
    /// See [`DevError`].
    pub fn open(data: &Path) -> Result<Self, DevError> {
        let path = data.join(SEED_FILE);
        let made = seed(&path).and_then(|seed| Ok((seed, fs::metadata(&path)?.modified()?)));
        let (seed, moment) = made.map_err(|reason| DevError::Seed { path, reason })?;
        let names = (1..=ACCOUNTS).map(|number| format!("account {number}"));
        let since = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(Self {
            treasury: Key::of(&seed, "treasury"),
            accounts: names.map(|name| Key::of(&seed, &name)).collect(),
            since,
        })
    }

    /// The network of the settings, with the treasury in place of everybody who makes money or measures nodes.
    #[must_use]
    pub fn network(&self, settings: &Network) -> Network {
        let treasury = vec![self.treasury.account.address().to_owned()];
        Network {
            name: NETWORK.into(),
            credit_treasury: treasury.clone(),
            credit_minters: treasury.clone(),
            balance_publishers: treasury.clone(),
            metrics_publishers: treasury,
            ..settings.clone()
        }
    }

    /// A line per key, after one that says what they are.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let line =
            |role: &str, key: &Key| format!("{role} {} key 0x{}", key.account.address(), hex::encode(key.secret));
        let warning =
            "development network: its money is made up, these keys are printed for everybody, never use them elsewhere";
        let accounts = self.accounts.iter().map(|key| line("account", key));
        [warning.to_owned(), line("treasury", &self.treasury)].into_iter().chain(accounts).collect()
    }

    /// Funds the accounts and says what clients look for, as far as that is not done already.
    ///
    /// # Errors
    /// See [`DevError`].
    pub async fn set_up(&self, service: &Service) -> Result<(), DevError> {
        self.fund(service).await?;
        seeds::sow(self, service).await
    }

    /// Gives credits and tokens to whoever has none.
    async fn fund(&self, service: &Service) -> Result<(), DevError> {
        let Development { credits, tokens, funded, .. } = &service.config.development;
        let keys = std::iter::once(&self.treasury).chain(&self.accounts);
        let addresses = keys.map(|key| key.account.address()).chain(funded.iter().map(String::as_str));
        let now_ms = crate::clock::now_ms();
        let snapshot = service.store.snapshot()?;
        let (mut without_credits, mut without_tokens) = (Vec::new(), Vec::new());
        for address in addresses {
            let balance = ledger::balance(&snapshot, address, now_ms)?;
            if balance.lots.is_empty() && *credits > 0 {
                without_credits.push(address);
            }
            if balance.chains.is_empty() && *tokens > 0 {
                without_tokens.push(address);
            }
        }
        drop(snapshot);
        if !without_credits.is_empty() {
            let credit = |address: &&str| json!({"address": address, "amount": credits, "price": "1", "tx_hash": "dev", "provider": "dev"});
            let credits: Vec<Value> = without_credits.iter().map(credit).collect();
            let content = json!({"distribution": {"token": "dev", "chain": "ETH", "credits": credits}});
            let channel = &service.config.network.credit_channel;
            self.post(&service.pipeline, "aleph_credit_distribution", channel, &content, now_ms).await?;
        }
        if !without_tokens.is_empty() {
            let balances: Map<String, Value> =
                without_tokens.iter().map(|address| ((*address).to_owned(), (*tokens).into())).collect();
            let content = json!({"chain": "ETH", "main_height": 1, "balances": balances});
            self.post(&service.pipeline, "balances-update", "balances", &content, now_ms).await?;
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
        let receipt = pipeline.submit(to_json(&draft.sign(&self.treasury.account))).await;
        processed(kind, receipt).map(drop)
    }
}

/// The hash under which the node of a development network is in its own registry.
pub(crate) fn node_hash(network: &Network) -> String {
    ItemHash::sha256_of(format!("development node of {}", network.credit_treasury.join(",")).as_bytes()).to_string()
}

/// The hash of a message that stands.
fn processed(what: &str, receipt: Result<Receipt, SubmitError>) -> Result<String, DevError> {
    let refused = |reason: String| DevError::Refused { what: what.to_owned(), reason };
    match receipt {
        Ok(receipt) if receipt.status == MessageStatus::Processed => Ok(receipt.item_hash.to_string()),
        Ok(receipt) => match receipt.rejection {
            Some(rejection) => Err(refused(format!("code {}: {}", rejection.code, rejection.errors.join(", ")))),
            None => Err(refused(format!("it is {}", receipt.status.name()))),
        },
        Err(SubmitError::Engine(error)) => Err(error.into()),
        Err(error) => Err(refused(error.to_string())),
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
