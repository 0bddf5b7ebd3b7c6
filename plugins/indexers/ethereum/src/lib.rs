//! The network's contract on an EVM chain (chains spec 3, ccn spec 4): who is authorised confirms messages, alone or by the archive, and contracts
//! that cannot sign write messages.

mod events;
mod payload;
mod query;

use plugin_sdk::{
    Request, Response, Write,
    indexer::{Block, ChainView, Event, Filter, Finding, Indexer, RecordOf, Subscription, bytes_of_hex, hex, warn},
};
use serde::Deserialize;

/// The indexer.
#[derive(Debug)]
pub struct Ethereum;

/// What the operator says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The contract's address.
    contract: String,
    /// Whose sync events count: anybody may emit one.
    #[serde(default)]
    emitters: Vec<String>,
    /// First block.
    #[serde(default)]
    start: u64,
    /// Whether message events are taken as messages.
    #[serde(default = "yes")]
    messages: bool,
}

fn yes() -> bool {
    true
}

/// The configuration, checked.
struct Settings {
    contract: [u8; 20],
    emitters: Vec<[u8; 20]>,
    start: u64,
    messages: bool,
}

impl Settings {
    fn read(config: &str) -> Result<Self, String> {
        let config: Config = serde_json::from_str(config).map_err(|error| error.to_string())?;
        let address = |text: &String| bytes_of_hex(text).ok_or_else(|| format!("{text:?} is no address of 20 bytes"));
        Ok(Self {
            contract: address(&config.contract)?,
            emitters: config.emitters.iter().map(address).collect::<Result<_, _>>()?,
            start: config.start,
            messages: config.messages,
        })
    }
}

impl Indexer for Ethereum {
    fn subscribe(_chain: &str, config: &str) -> Result<Subscription, String> {
        let settings = Settings::read(config)?;
        let mut topics = vec![events::SYNC_EVENT.to_vec()];
        if settings.messages {
            topics.push(events::MESSAGE_EVENT.to_vec());
        }
        let filter = Filter { contract: settings.contract.to_vec(), topics };
        Ok(Subscription { filters: vec![filter], start: settings.start })
    }

    fn decode(
        config: &str,
        block: &Block,
        events: &[Event<'_>],
        _view: &dyn ChainView,
    ) -> Result<Vec<RecordOf>, String> {
        let settings = Settings::read(config)?;
        let mut records = Vec::new();
        for (place, event) in events.iter().enumerate() {
            let place = u32::try_from(place).map_err(|error| error.to_string())?;
            let Some(read) = events::read(event) else {
                warn(&format!("an event of {} is not of its form", hex(&event.transaction)));
                continue;
            };
            match read {
                events::Read::Sync { publisher, message } if settings.emitters.contains(&publisher) => {
                    records.extend(sync(block, place, event, &publisher, &message));
                }
                events::Read::Message { publisher, timestamp, kind, content } if settings.messages => {
                    if let Some(message) = payload::contract_message(&hex(&publisher), timestamp, kind, content) {
                        let what = Finding::ContractMessage(message);
                        records.push(RecordOf { event: place, publisher: hex(&publisher), what });
                    }
                }
                events::Read::Sync { .. } | events::Read::Message { .. } => {}
            }
        }
        Ok(records)
    }

    fn unpack(_config: &str, _block: &Block, file: &[u8]) -> Result<Vec<Finding>, String> {
        Ok(payload::archive(file)?.into_iter().map(Finding::Message).collect())
    }

    fn query(request: &Request, view: &dyn ChainView) -> Response {
        query::answer(request, view)
    }
}

/// What an authorised sync event means.
fn sync(block: &Block, place: u32, event: &Event<'_>, publisher: &[u8; 20], message: &str) -> Vec<RecordOf> {
    let (protocol, findings) = match payload::sync(message) {
        Ok(payload::Sync::Inline(messages)) => ("aleph", messages.into_iter().map(Finding::Message).collect()),
        Ok(payload::Sync::OffChain(archive)) => ("aleph-offchain", vec![Finding::Archive(archive)]),
        Err(reason) => {
            warn(&format!("the sync event of {} means nothing: {reason}", hex(&event.transaction)));
            return Vec::new();
        }
    };
    let reference = match findings.first() {
        Some(Finding::Archive(archive)) => Some(archive.as_str()),
        _ => None,
    };
    let publisher = hex(publisher);
    let row = query::Sync {
        transaction: hex(&event.transaction),
        height: block.height,
        time: block.time,
        publisher: publisher.clone(),
        protocol: protocol.to_owned(),
        archive: reference.map(str::to_owned),
    };
    let write = Write { key: query::key(&block.chain, block.height, event.log_index), value: Some(row.to_bytes()) };
    let findings = std::iter::once(Finding::Write(write)).chain(findings);
    findings.map(|what| RecordOf { event: place, publisher: publisher.clone(), what }).collect()
}

plugin_sdk::indexer!(Ethereum, "../manifest.json");

#[cfg(test)]
mod tests;
