//! A provider: JSON-RPC over HTTP on a chain that tests make up.

use crate::{
    chains::{FollowerState, FollowerStatus},
    config::{Chain, ChainIndexer},
    testing::TestNode,
};
use alloy_primitives::{B256, U256, keccak256};
use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::post};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How long a follower may take to come where a test wants it.
const WITHIN: Duration = Duration::from_secs(60);
/// The contracts of the tests.
pub(super) const TOKEN: [u8; 20] = [0x70; 20];
pub(super) const SYNC: [u8; 20] = [0x5c; 20];
/// Whose sync events count.
pub(super) const EMITTER: [u8; 20] = [0xe1; 20];

/// An event that is still without a block.
#[derive(Debug, Clone)]
pub(super) struct Log {
    pub(super) contract: [u8; 20],
    pub(super) topics: Vec<B256>,
    pub(super) data: Vec<u8>,
}

#[derive(Debug, Clone)]
struct Block {
    hash: B256,
    parent: B256,
    logs: Vec<Log>,
}

/// How the provider behaves.
#[derive(Debug, Clone, Default)]
pub(super) struct Manners {
    /// Most blocks that it answers for at once.
    pub(super) limit: Option<u64>,
    /// It knows what is final: so many blocks under the newest.
    pub(super) finalized: Option<u64>,
    /// It gives events in the wrong order, and twice.
    pub(super) muddled: bool,
    /// It says when an event's block was made.
    pub(super) timely: bool,
    /// So many of the newest blocks it does not have yet, as one of several behind one name.
    pub(super) behind: usize,
    /// So many of the newest blocks it tells of, and lacks when it is asked for them by height: another machine answers that.
    pub(super) lacks: usize,
    /// What it answers next instead of an answer.
    pub(super) faults: VecDeque<(StatusCode, String)>,
}

#[derive(Debug)]
struct World {
    blocks: Vec<Block>,
    forks: u64,
    manners: Manners,
    questions: Vec<String>,
}

/// The provider, and the hand of the test on its chain.
#[derive(Debug, Clone)]
pub(super) struct FakeProvider {
    world: Arc<Mutex<World>>,
    address: SocketAddr,
}

impl FakeProvider {
    /// Begins with one empty block.
    pub(super) async fn start(manners: Manners) -> Self {
        let genesis = Block { hash: keccak256("genesis"), parent: B256::ZERO, logs: Vec::new() };
        let world = World { blocks: vec![genesis], forks: 0, manners, questions: Vec::new() };
        let world = Arc::new(Mutex::new(world));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().route("/", post(answer)).with_state(world.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { world, address }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Settings of a chain that is followed through it.
    pub(super) fn chain(&self, finality: Option<u64>, indexers: &[(&str, Value)]) -> Chain {
        let indexer = |(plugin, config): &(&str, Value)| ChainIndexer {
            plugin: (*plugin).to_owned(),
            config: config.as_object().expect("an object").clone(),
        };
        Chain {
            name: "ETH".into(),
            rpc: format!("http://{}/", self.address),
            start: 0,
            finality,
            batch: 50,
            poll_seconds: 0.05,
            indexers: indexers.iter().map(indexer).collect(),
        }
    }

    /// Makes a block.
    pub(super) fn mine(&self, logs: Vec<Log>) {
        self.world().mine(logs);
    }

    /// Makes many empty blocks.
    pub(super) fn mine_empty(&self, count: usize) {
        let mut world = self.world();
        (0..count).for_each(|_| world.mine(Vec::new()));
    }

    /// Takes back so many blocks. What is mined after that has other hashes.
    pub(super) fn take_back(&self, count: usize) {
        let mut world = self.world();
        let left = world.blocks.len() - count;
        world.blocks.truncate(left);
        world.forks += 1;
    }

    pub(super) fn height(&self) -> u64 {
        self.world().blocks.len() as u64 - 1
    }

    pub(super) fn behave(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.world().manners);
    }

    /// What it was asked for events since this was last called.
    pub(super) fn questions(&self) -> Vec<String> {
        std::mem::take(&mut self.world().questions)
    }

    /// Waits until a node has followed everything.
    pub(super) async fn followed_by(&self, node: &TestNode) {
        let (height, deadline) = (self.height(), Instant::now() + WITHIN);
        loop {
            let chains = node.service.chains.status();
            let all: Vec<&FollowerStatus> = chains.iter().flat_map(|chain| &chain.indexers).collect();
            let is_there = |it: &&FollowerStatus| {
                it.state == FollowerState::Current && it.height == Some(height) && it.last_error.is_none()
            };
            if all.iter().all(is_there) {
                return;
            }
            assert!(Instant::now() < deadline, "not followed to {height}: {all:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the first indexer's status is as a test wants it.
    pub(super) async fn status_of(&self, node: &TestNode, is_it: impl Fn(&FollowerStatus) -> bool) -> FollowerStatus {
        let deadline = Instant::now() + WITHIN;
        loop {
            let status = node.service.chains.status()[0].indexers[0].clone();
            if is_it(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{status:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl World {
    fn mine(&mut self, logs: Vec<Log>) {
        let parent = self.blocks.last().expect("a block").hash;
        let name = format!("{parent} {} {}", self.blocks.len(), self.forks);
        self.blocks.push(Block { hash: keccak256(name), parent, logs });
    }

    fn shown(&self) -> &[Block] {
        &self.blocks[..self.blocks.len().saturating_sub(self.manners.behind).max(1)]
    }

    fn header(&self, height: usize) -> Value {
        let Some(block) = self.shown().get(height) else { return Value::Null };
        json!({
            "number": format!("0x{height:x}"), "hash": block.hash, "parentHash": block.parent,
            "timestamp": format!("0x{:x}", time_of(height)), "miner": null, "transactions": [],
        })
    }

    fn logs(&self, height: usize, block: &Block, wanted: &Value) -> Vec<Value> {
        let addresses = wanted["address"].as_array().expect("addresses");
        let topics = wanted["topics"][0].as_array().expect("topics");
        let all = block.logs.iter().enumerate();
        let found = all.filter(|(_, log)| {
            addresses.contains(&json!(format!("0x{}", hex::encode(log.contract))))
                && topics.contains(&json!(log.topics[0]))
        });
        found
            .map(|(index, log)| {
                let mut shown = json!({
                    "address": format!("0x{}", hex::encode(log.contract)), "topics": log.topics,
                    "data": format!("0x{}", hex::encode(&log.data)), "blockNumber": format!("0x{height:x}"),
                    "blockHash": block.hash, "transactionHash": keccak256(format!("{} {index}", block.hash)),
                    "transactionIndex": "0x0", "logIndex": format!("0x{index:x}"), "removed": false,
                });
                if self.manners.timely {
                    shown["blockTimestamp"] = json!(format!("0x{:x}", time_of(height)));
                }
                shown
            })
            .collect()
    }

    fn events(&mut self, filter: &Value) -> Result<Value, Value> {
        self.questions.push(filter.to_string());
        let blocks = self.shown();
        let number = |name: &str| {
            let text = filter[name].as_str().expect("a number");
            usize::from_str_radix(text.trim_start_matches("0x"), 16).expect("hex")
        };
        let mut found = Vec::new();
        if filter["blockHash"].is_string() {
            let place = blocks.iter().position(|block| json!(block.hash) == filter["blockHash"]);
            let place = place.ok_or_else(|| json!({"code": -32000, "message": "unknown block"}))?;
            found.extend(self.logs(place, &blocks[place], filter));
        } else {
            let (from, to) = (number("fromBlock"), number("toBlock"));
            if self.manners.limit.is_some_and(|limit| (to - from + 1) as u64 > limit) {
                return Err(json!({"code": -32005, "message": "query returned more than 10000 results"}));
            }
            let range = blocks.iter().enumerate().skip(from).take(to - from + 1);
            range.for_each(|(height, block)| found.extend(self.logs(height, block, filter)));
        }
        if self.manners.muddled {
            let twice = found.clone();
            found.reverse();
            found.extend(twice);
        }
        Ok(found.into())
    }

    fn ask(&mut self, method: &str, parameters: &Value) -> Result<Value, Value> {
        match method {
            "eth_getBlockByNumber" => {
                let newest = self.shown().len() - 1;
                Ok(match parameters[0].as_str().expect("a block") {
                    "latest" => self.header(newest),
                    "finalized" => match self.manners.finalized {
                        Some(depth) => self.header(newest.saturating_sub(depth as usize)),
                        None => return Err(json!({"code": -32602, "message": "unknown block tag"})),
                    },
                    number => {
                        let height = usize::from_str_radix(&number[2..], 16).expect("hex");
                        if height + self.manners.lacks > newest { Value::Null } else { self.header(height) }
                    }
                })
            }
            "eth_getLogs" => self.events(&parameters[0]),
            other => Err(json!({"code": -32601, "message": format!("no such method: {other}")})),
        }
    }
}

/// Seconds since 1970.
pub(super) fn time_of(height: usize) -> u64 {
    1_700_000_000 + 12 * height as u64
}

async fn answer(State(world): State<Arc<Mutex<World>>>, Json(question): Json<Value>) -> axum::response::Response {
    let mut world = world.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((status, text)) = world.manners.faults.pop_front() {
        return (status, text).into_response();
    }
    let method = question["method"].as_str().expect("a method");
    let answer = match world.ask(method, &question["params"]) {
        Ok(result) => json!({"jsonrpc": "2.0", "id": question["id"], "result": result}),
        Err(error) => json!({"jsonrpc": "2.0", "id": question["id"], "error": error}),
    };
    Json(answer).into_response()
}

fn word(address: [u8; 20]) -> B256 {
    B256::left_padding_from(&address)
}

/// Tokens that change hands.
pub(super) fn transfer(from: u8, to: u8, amount: u64) -> Log {
    // Account 0 is nobody: tokens come from there.
    let topics = vec![keccak256("Transfer(address,address,uint256)"), word([from; 20]), word([to; 20])];
    Log { contract: TOKEN, topics, data: U256::from(amount).to_be_bytes::<32>().to_vec() }
}

/// A text as a contract encodes it: its length and itself, padded.
fn text(text: &str) -> Vec<u8> {
    let mut encoded = U256::from(text.len()).to_be_bytes::<32>().to_vec();
    encoded.extend(text.as_bytes());
    encoded.resize(32 + text.len().next_multiple_of(32), 0);
    encoded
}

/// A sync event.
pub(super) fn sync_event(publisher: [u8; 20], message: &Value) -> Log {
    let head = [U256::from(1).to_be_bytes::<32>(), word(publisher).0, U256::from(96).to_be_bytes::<32>()].concat();
    let topics = vec![keccak256("SyncEvent(uint256,address,string)")];
    Log { contract: SYNC, topics, data: [head, text(&message.to_string())].concat() }
}

/// A message event.
pub(super) fn message_event(publisher: [u8; 20], kind: &str, content: &str) -> Log {
    let (kind, content) = (text(kind), text(content));
    let places = [U256::from(1).to_be_bytes::<32>(), word(publisher).0];
    let places = [places[0], places[1], U256::from(128).to_be_bytes(), U256::from(128 + kind.len()).to_be_bytes()];
    let topics = vec![keccak256("MessageEvent(uint256,address,string,string)")];
    Log { contract: SYNC, topics, data: [places.concat(), kind, content].concat() }
}

/// Settings of the indexer of tokens.
pub(super) fn tokens() -> (&'static str, Value) {
    let token = json!({"contract": format!("0x{}", hex::encode(TOKEN)), "symbol": "T", "decimals": 0, "ledger": true});
    ("erc20", json!({"tokens": [token]}))
}

/// Settings of the indexer of sync and message events.
pub(super) fn syncs() -> (&'static str, Value) {
    let address = |bytes: [u8; 20]| format!("0x{}", hex::encode(bytes));
    ("ethereum", json!({"contract": address(SYNC), "emitters": [address(EMITTER)]}))
}

/// Every row of the tables that chains write, but how far they are.
pub(super) fn rows(node: &TestNode) -> Vec<(crate::store::schema::Table, crate::store::Row)> {
    use crate::store::{Reader as _, schema::Table};
    let snapshot = node.service.store.snapshot().expect("a snapshot");
    let tables = [Table::ChainState, Table::ChainBalances, Table::Confirmations, Table::ChainWork];
    let all = tables.into_iter().flat_map(|table| {
        let rows = snapshot.prefixed(table, &[]).expect("rows");
        rows.into_iter().map(move |row| (table, row))
    });
    all.collect()
}

/// What a node answers on an indexer's route.
pub(super) async fn asked(node: &TestNode, path: &str) -> Value {
    let answer = node.service.chains.query(&node.service.store, path, Vec::new()).await;
    let answer = answer.expect("a route").expect("an answer");
    serde_json::from_slice(&answer.body).expect("JSON")
}
