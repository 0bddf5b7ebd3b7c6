//! What is asked of a provider: blocks and events, in types.

use super::{
    check::{self, Event, Wanted},
    endpoint::{Endpoint, EndpointError},
};
use alloy_primitives::{Address, B256, Bytes, U64};
use serde::Deserialize;
use serde_json::{Value, json};

/// The block that most validators have agreed on and that is never taken back (EIP-1898's tag).
const FINALIZED: &str = "finalized";
/// Highest block, and latest time in seconds, that are believed: what lies beyond is reckoned with nowhere.
const MAX_HEIGHT: u64 = 1 << 48;
pub(super) const MAX_TIME: u64 = 1 << 33;
/// Most events of one answer; more are as good as a refusal to answer so much.
pub(super) const MAX_EVENTS: usize = 100_000;

/// A provider of one chain.
#[derive(Debug)]
pub(super) struct Provider {
    endpoint: Endpoint,
}

/// What is read of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) height: u64,
    pub(super) hash: B256,
    pub(super) parent: B256,
    /// Seconds since 1970.
    pub(super) time: u64,
}

/// A block as providers write it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HeaderForm {
    number: U64,
    hash: B256,
    parent_hash: B256,
    timestamp: U64,
}

/// An event as providers write it. Of blocks that are not made yet some fields are null.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LogForm {
    pub(super) address: Address,
    pub(super) topics: Vec<B256>,
    pub(super) data: Bytes,
    pub(super) block_number: Option<U64>,
    pub(super) block_hash: Option<B256>,
    pub(super) transaction_hash: Option<B256>,
    pub(super) log_index: Option<U64>,
    /// Newer providers say it, and save a question for the block.
    #[serde(default)]
    pub(super) block_timestamp: Option<U64>,
    #[serde(default)]
    pub(super) removed: bool,
}

impl Provider {
    pub(super) fn new(url: &str) -> Result<Self, EndpointError> {
        Ok(Self { endpoint: Endpoint::new(url)? })
    }

    /// The newest block.
    pub(super) async fn head(&self) -> Result<Header, EndpointError> {
        let head = self.block("latest".into()).await?;
        head.ok_or_else(|| EndpointError::Nonsense("there is no newest block".to_owned()))
    }

    /// The newest block that is final; none when the provider does not know such a thing.
    pub(super) async fn finalized(&self) -> Result<Option<Header>, EndpointError> {
        match self.block(FINALIZED.into()).await {
            Ok(header) => Ok(header),
            Err(EndpointError::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The block at a height of the chain as the provider sees it now; none when there is none yet.
    pub(super) async fn header(&self, height: u64) -> Result<Option<Header>, EndpointError> {
        let found = self.block(format!("0x{height:x}").into()).await?;
        match found {
            Some(header) if header.height != height => {
                Err(EndpointError::Nonsense(format!("asked for the block {height} it gives {}", header.height)))
            }
            found => Ok(found),
        }
    }

    async fn block(&self, which: Value) -> Result<Option<Header>, EndpointError> {
        let form: Option<HeaderForm> = self.endpoint.ask("eth_getBlockByNumber", json!([which, false])).await?;
        let Some(form) = form else { return Ok(None) };
        let header =
            Header { height: form.number.to(), hash: form.hash, parent: form.parent_hash, time: form.timestamp.to() };
        if header.height > MAX_HEIGHT || header.time > MAX_TIME {
            return Err(EndpointError::Nonsense(format!("a block {} of the time {}", header.height, header.time)));
        }
        Ok(Some(header))
    }

    /// The events of a range of blocks, both ends included, in the order of the chain.
    pub(super) async fn events(&self, wanted: &Wanted, from: u64, to: u64) -> Result<Vec<Event>, EndpointError> {
        let range = json!({"fromBlock": format!("0x{from:x}"), "toBlock": format!("0x{to:x}")});
        let logs = self.logs(wanted, range).await;
        // What takes too long takes less for fewer blocks.
        let logs = logs.map_err(|error| match error {
            EndpointError::Slow if from < to => EndpointError::TooMuch(EndpointError::Slow.to_string()),
            other => other,
        })?;
        check::events(logs, wanted, from..=to).map_err(EndpointError::Nonsense)
    }

    /// The events of one block, by its hash (EIP-234): of that block, or an error when the provider does not have it any more.
    pub(super) async fn events_of(&self, wanted: &Wanted, block: &Header) -> Result<Vec<Event>, EndpointError> {
        let logs = self.logs(wanted, json!({"blockHash": block.hash})).await?;
        let events = check::events(logs, wanted, block.height..=block.height).map_err(EndpointError::Nonsense)?;
        match events.iter().find(|event| event.block != block.hash) {
            Some(_) => Err(EndpointError::Nonsense(format!("asked for the block {} it gives another", block.hash))),
            None => Ok(events),
        }
    }

    async fn logs(&self, wanted: &Wanted, mut filter: Value) -> Result<Vec<LogForm>, EndpointError> {
        filter["address"] = json!(wanted.contracts());
        filter["topics"] = json!([wanted.topics()]);
        let logs: Option<Vec<LogForm>> = self.endpoint.ask("eth_getLogs", json!([filter])).await?;
        let logs = logs.ok_or_else(|| EndpointError::Nonsense("it answers no list of events".to_owned()))?;
        if logs.len() > MAX_EVENTS {
            return Err(EndpointError::TooMuch(format!("{} events, more than {MAX_EVENTS}", logs.len())));
        }
        Ok(logs)
    }
}
