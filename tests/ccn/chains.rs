//! A real chain, followed by a real node: Foundry's development node mines, reorganises, and is far ahead when the node comes back.

use super::letter::{account, hash_of, post, publish, upload};
use crate::{
    answer::expect_json,
    stage::{self, VERDICT_WITHIN, wait_until},
};
use anyhow::{Context as _, Result, ensure};
use harness::{
    anvil::{self, Anvil, Called},
    devnet::CoreNode,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeMap, fs, path::Path};

const TOKEN: &str = "0x7070707070707070707070707070707070707070";
const SYNC: &str = "0x5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c";
const EMITTER: &str = "0xe1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1";
/// First topics (chains spec 3).
const TRANSFER: &str = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";
const SYNC_EVENT: &str = "0x2cc768a3de0c950ea2a38e55a9b143cc6fd5a8eec27e36993b542fb16ab591e1";
const MESSAGE_EVENT: &str = "0x548eda6c65f4bd05085e450712b22cfb19c58816b453f69294a94e78db9ab32b";
/// Blocks after which one is final here: a reorganisation takes fewer.
const FINALITY: u64 = 12;

/// A chain and a node that follows it.
struct Site {
    folder: tempfile::TempDir,
    chain: Anvil,
}

impl Site {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let chain = Anvil::start(&stage::anvil()?, &folder.path().join("anvil.log"))?;
        chain.put_code(TOKEN, anvil::EMITS_THREE_TOPICS)?;
        chain.put_code(SYNC, anvil::EMITS_ONE_TOPIC)?;
        Ok(Self { folder, chain })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn node(&self, indexer: &str) -> Result<CoreNode> {
        let settings = format!(
            "[[chains]]\nname = 'ETH'\nrpc = '{}'\nfinality = {FINALITY}\nbatch = 25\npoll_seconds = 0.1\n\n\
             [[chains.indexers]]\n{indexer}\n",
            self.chain.url()
        );
        let file = self.path().join("ccn.toml");
        fs::write(&file, settings)?;
        let arguments = ["--dev".to_owned(), "--config".to_owned(), file.display().to_string()];
        CoreNode::start(stage::installation(), self.path(), &arguments)
    }

    /// Waits until the node has all blocks.
    fn followed_by(&self, node: &CoreNode) -> Result<()> {
        let height = self.chain.height()?;
        let mut last = Value::Null;
        wait_until(VERDICT_WITHIN, "the newest block", || {
            let status = expect_json(200, node.client().get("/api/v0/chains")?)?;
            last = status["chains"][0]["indexers"][0].clone();
            Ok(last["height"] == height && last["state"] == "current" && last["last_error"].is_null())
        })
        .with_context(|| format!("{height}: {last}"))
    }
}

fn word(number: u64) -> String {
    format!("{number:064x}")
}

/// An address of the tests: a byte, repeated. Nobody is zero.
fn address(account: u8) -> String {
    format!("0x{}", hex::encode([account; 20]))
}

fn topic(address: &str) -> String {
    format!("{:0>64}", &address[2..])
}

/// What the chain has to come to.
#[derive(Default)]
struct Model {
    /// Height, from, to, amount.
    transfers: Vec<(u64, u8, u8, u64)>,
}

impl Model {
    fn transfer(&mut self, chain: &Anvil, from: u8, to: u8, amount: u64) -> Result<()> {
        let data = [TRANSFER, &topic(&address(from)), &topic(&address(to)), &word(amount)].concat();
        let height = chain.call(TOKEN, &data)?.height;
        self.transfers.push((height, from, to, amount));
        Ok(())
    }

    fn reorganise(&mut self, chain: &Anvil, blocks: u64) -> Result<()> {
        let stays = chain.height()? - blocks;
        chain.reorganise(blocks)?;
        self.transfers.retain(|(height, ..)| *height <= stays);
        Ok(())
    }

    fn holders(&self) -> BTreeMap<String, i128> {
        let mut holders: BTreeMap<u8, i128> = BTreeMap::new();
        for (_, from, to, amount) in &self.transfers {
            *holders.entry(*from).or_default() -= i128::from(*amount);
            *holders.entry(*to).or_default() += i128::from(*amount);
        }
        let held = holders.into_iter().filter(|(account, held)| *account != 0 && *held != 0);
        held.map(|(account, held)| (address(account), held)).collect()
    }

    fn check(&self, node: &CoreNode) -> Result<()> {
        let path = format!("/api/v0/tokens/ETH/{TOKEN}/holders?pagination=500");
        let answer = expect_json(200, node.client().get(&path)?)?;
        let rows = answer["holders"].as_array().context("a list")?;
        let read = |row: &Value| {
            let units = row["units"].as_str().unwrap_or_default().parse()?;
            Ok((row["address"].as_str().unwrap_or_default().to_lowercase(), units))
        };
        let found = rows.iter().map(read).collect::<Result<BTreeMap<String, i128>>>()?;
        ensure!(found == self.holders(), "{found:?}, expected {:?}", self.holders());
        ensure!(answer["exact"] == true && answer["transfers"] == self.transfers.len(), "{answer}");
        let sorted = rows.windows(2).all(|pair| {
            let units = |row: &Value| row["units"].as_str().and_then(|text| text.parse::<u128>().ok());
            units(&pair[0]) >= units(&pair[1])
        });
        ensure!(sorted, "those who hold most come first: {answer}");
        Ok(())
    }
}

pub(crate) fn tokens() -> Result<()> {
    let site = Site::new()?;
    let chain = &site.chain;
    let mut model = Model::default();
    model.transfer(chain, 0, 1, 1_000_000)?;
    chain.mine(150)?;
    let indexer =
        format!("plugin = 'erc20'\nconfig = {{ tokens = [{{ contract = '{TOKEN}', symbol = 'T', decimals = 6 }}] }}");
    let mut node = site.node(&indexer)?;
    site.followed_by(&node)?;
    model.check(&node)?;
    for round in 0..6_u8 {
        for number in 0..8_u8 {
            model.transfer(chain, 1, 2 + (round * 3 + number) % 7, u64::from(round) * 100 + u64::from(number) + 1)?;
        }
        match round % 3 {
            // Killed while it follows: what it had not kept it asks for again.
            0 => {
                chain.mine(40)?;
                node.kill_and_restart()?;
            }
            // Taken back what it has seen, and what it has not seen because it was not there.
            1 => {
                site.followed_by(&node)?;
                model.reorganise(chain, 5)?;
                model.transfer(chain, 1, 9, 7)?;
            }
            _ => {
                site.followed_by(&node)?;
                node.stop()?;
                model.reorganise(chain, 6)?;
                chain.mine(300)?;
                model.transfer(chain, 1, 9, 11)?;
                node.kill_and_restart()?;
            }
        }
        site.followed_by(&node)?;
        model.check(&node).with_context(|| format!("round {round}"))?;
    }
    let status = expect_json(200, node.client().get("/api/v0/chains")?)?;
    let status = &status["chains"][0]["indexers"][0];
    ensure!(status["lag"] == 0 && status["indexer"] == "erc20" && status["final_height"].is_u64(), "{status}");
    let listed = expect_json(200, node.client().get("/api/v0/plugins")?)?;
    let names = listed["plugins"].as_array().context("a list")?.iter().map(|plugin| &plugin["name"]);
    ensure!(names.into_iter().any(|name| name == "erc20"), "{listed}");
    ensure!(!status.to_string().contains(chain.url()), "where it asks may be a secret: {status}");
    Ok(())
}

/// A text as a contract encodes it.
fn text(text: &str) -> String {
    let padded = text.len().next_multiple_of(32) * 2;
    format!("{}{:0<padded$}", word(text.len() as u64), hex::encode(text))
}

fn sync(chain: &Anvil, document: &Value) -> Result<Called> {
    let data = [SYNC_EVENT, &word(1), &topic(EMITTER), &word(96), &text(&document.to_string())].concat();
    chain.call(SYNC, &data)
}

pub(crate) fn confirmations() -> Result<()> {
    let site = Site::new()?;
    let chain = &site.chain;
    let indexer = format!("plugin = 'ethereum'\nconfig = {{ contract = '{SYNC}', emitters = ['{EMITTER}'] }}");
    let mut node = site.node(&indexer)?;
    let ccn = node.client();
    let user = account("chains")?;
    let (known, new) = (post(&user, "sent before")?, post(&user, "by the archive alone")?);
    expect_json(200, publish(&ccn, &known, true)?)?;
    let archive = json!({"protocol": "aleph", "version": 1, "content": {"messages": [known.clone(), new.clone()]}});
    let archive = archive.to_string();
    let file = hex::encode(Sha256::digest(archive.as_bytes()));
    let reference = json!({"protocol": "aleph-offchain", "version": 1, "content": file});
    let first = sync(chain, &reference)?;
    site.followed_by(&node)?;
    // Its content comes later than the event, and the node is killed in between.
    node.kill_and_restart()?;
    expect_json(200, upload(&ccn, "/api/v0/storage/add_file", archive.as_bytes(), None)?)?;
    let message =
        |hash: &str| Ok::<_, anyhow::Error>(ccn.get(&format!("/api/v0/messages/{hash}"))?.json()?["message"].take());
    let is_confirmed = |letter: &Value, expect: bool| {
        wait_until(VERDICT_WITHIN, "the confirmation", || Ok(message(hash_of(letter))?["confirmed"] == expect))
    };
    is_confirmed(&known, true)?;
    is_confirmed(&new, true)?;
    let shown = message(hash_of(&known))?;
    ensure!(shown["confirmations"][0]["chain"] == "ETH", "{shown}");
    ensure!(
        shown["confirmations"][0]["publisher"] == EMITTER && shown["confirmations"][0]["height"] == first.height,
        "{shown}"
    );

    // The transaction is taken back, and comes again in a later block.
    chain.mine(2)?;
    site.followed_by(&node)?;
    chain.reorganise(3)?;
    is_confirmed(&known, false)?;
    is_confirmed(&new, false)?;
    let again = sync(chain, &reference)?;
    is_confirmed(&known, true)?;
    let listed = expect_json(200, ccn.get(&format!("/api/v0/messages.json?hashes={}", hash_of(&known)))?)?;
    let confirmations = &listed["messages"][0]["confirmations"];
    ensure!(confirmations.as_array().map(Vec::len) == Some(1), "{listed}");
    ensure!(confirmations[0]["hash"] == again.hash, "{listed}, expected {}", again.hash);
    let syncs = expect_json(200, ccn.get("/api/v0/syncs/ETH")?)?;
    ensure!(syncs["syncs"].as_array().map(Vec::len) == Some(1), "{syncs}");

    // A contract's message stands once its block is final.
    let sender = address(0xab);
    let content = json!({"address": sender, "time": 5.0, "type": "t", "content": {"from": "a contract"}}).to_string();
    let hash = hex::encode(Sha256::digest(content.as_bytes()));
    let (kind, content) = (text("POST"), text(&content));
    let places = [word(128), word(128 + kind.len() as u64 / 2)].concat();
    chain.call(SYNC, &[MESSAGE_EVENT, &word(5), &topic(&sender), &places, &kind, &content].concat())?;
    site.followed_by(&node)?;
    ensure!(ccn.get(&format!("/api/v0/messages/{hash}"))?.status == 404, "it stands too early");
    chain.mine(FINALITY)?;
    wait_until(VERDICT_WITHIN, "the contract's message", || {
        Ok(ccn.get(&format!("/api/v0/messages/{hash}"))?.status == 200 && message(&hash)?["confirmed"] == true)
    })?;
    let shown = message(&hash)?;
    ensure!(shown["sender"] == sender && shown["signature"].is_null(), "{shown}");
    Ok(())
}
