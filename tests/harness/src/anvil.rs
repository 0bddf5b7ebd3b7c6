//! Anvil, Foundry's development node: a real machine of Ethereum that mines, forgets and reorganises when it is told to.

use crate::{http::Client, npm::Packages, process::Process};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// How long it may take to listen.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long it may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// How long a transaction may wait for its block.
const MINED_WITHIN: Duration = Duration::from_secs(60);
/// The first of the accounts for which it signs.
const ACCOUNT: &str = "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266";

/// A contract that emits whatever it is told: its calldata is one topic and the data of an event.
///
/// `PUSH1 32, CALLDATASIZE, SUB, DUP1, PUSH1 32, PUSH0, CALLDATACOPY, PUSH0, CALLDATALOAD, SWAP1, PUSH0, LOG1, STOP`
pub const EMITS_ONE_TOPIC: &str = "0x602036038060205f375f35905fa100";
/// The same with three topics.
///
/// `PUSH1 96, CALLDATASIZE, SUB, DUP1, PUSH1 96, PUSH0, CALLDATACOPY, PUSH1 64, CALLDATALOAD, PUSH1 32, CALLDATALOAD, PUSH0, CALLDATALOAD, DUP4,
/// PUSH0, LOG3, STOP`
pub const EMITS_THREE_TOPICS: &str = "0x606036038060605f376040356020355f35835fa300";

/// A call that is in a block.
#[derive(Debug, Clone)]
pub struct Called {
    /// Of the transaction, hex.
    pub hash: String,
    /// Of the block.
    pub height: u64,
}

/// A chain on this machine.
#[derive(Debug)]
pub struct Anvil {
    _process: Process,
    client: Client,
}

impl Anvil {
    /// Installs the program of `folder/package-lock.json` in `cache`, or takes the one installed before from the same file.
    ///
    /// # Errors
    /// See [`Packages::install`].
    pub fn install(cache: &Path, folder: &Path) -> Result<PathBuf> {
        let packages = Packages::install(cache, "evm", folder)?;
        Ok(packages.modules().join("@foundry-rs/anvil-linux-amd64/bin/anvil"))
    }

    /// Starts a chain: a block for each transaction, and otherwise those that are asked for.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(program: &Path, log: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["--host", "127.0.0.1", "--port", "0"]);
        let mut process = Process::start(&mut command, log)?;
        let said = process.wait_for_line(READY_WITHIN, |line| line.starts_with("Listening on "))?;
        let address = said.last().and_then(|line| line.split_whitespace().next_back()).context("a line of words")?;
        Ok(Self { _process: process, client: Client::new(format!("http://{address}"), ANSWER_WITHIN) })
    }

    /// Where it answers.
    #[must_use]
    pub fn url(&self) -> &str {
        self.client.base()
    }

    /// Asks.
    ///
    /// # Errors
    /// It does not answer, or refuses.
    pub fn ask(&self, method: &str, parameters: &Value) -> Result<Value> {
        let question = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters});
        let mut answer = self.client.post_json("/", &question)?.json()?;
        match &answer["error"] {
            Value::Null => Ok(answer["result"].take()),
            error => bail!("{method} {parameters}: {error}"),
        }
    }

    /// Puts a contract at an address.
    ///
    /// # Errors
    /// See [`Self::ask`].
    pub fn put_code(&self, address: &str, code: &str) -> Result<()> {
        self.ask("anvil_setCode", &json!([address, code])).map(|_| ())
    }

    /// Calls a contract in a block of its own.
    ///
    /// # Errors
    /// See [`Self::ask`]; or the call fails, or is in no block in time.
    pub fn call(&self, contract: &str, data: &str) -> Result<Called> {
        // Long texts cost more than is guessed.
        let transaction = json!({"from": ACCOUNT, "to": contract, "data": data, "gas": "0x1000000"});
        let hash = self.ask("eth_sendTransaction", &json!([transaction]))?;
        // It is answered before it is mined.
        let deadline = Instant::now() + MINED_WITHIN;
        loop {
            let receipt = self.ask("eth_getTransactionReceipt", &json!([hash]))?;
            if !receipt.is_null() {
                ensure!(receipt["status"] == "0x1", "the call failed: {receipt}");
                let hash = hash.as_str().context("a transaction has a hash")?.to_owned();
                return Ok(Called { hash, height: number(&receipt["blockNumber"])? });
            }
            ensure!(Instant::now() < deadline, "{hash} is in no block after {MINED_WITHIN:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Makes empty blocks.
    ///
    /// # Errors
    /// See [`Self::ask`].
    pub fn mine(&self, blocks: u64) -> Result<()> {
        self.ask("anvil_mine", &json!([format!("0x{blocks:x}")])).map(|_| ())
    }

    /// Replaces so many of the newest blocks by empty ones.
    ///
    /// # Errors
    /// See [`Self::ask`].
    pub fn reorganise(&self, blocks: u64) -> Result<()> {
        self.ask("anvil_reorg", &json!([blocks, []])).map(|_| ())
    }

    /// The height of the newest block.
    ///
    /// # Errors
    /// See [`Self::ask`].
    pub fn height(&self) -> Result<u64> {
        number(&self.ask("eth_blockNumber", &json!([]))?)
    }
}

fn number(value: &Value) -> Result<u64> {
    let digits = value.as_str().and_then(|text| text.strip_prefix("0x")).context("a number in hex")?;
    Ok(u64::from_str_radix(digits, 16)?)
}
