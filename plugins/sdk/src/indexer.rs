//! Chain indexers: the trait, the macro that makes a plugin of it, events as the node packs them, and a view for tests.

use crate::{Page, Request, Response, Write, layout::END_OF_TEXT};
use std::{collections::BTreeMap, fmt::Write as _};

#[expect(missing_docs, reason = "generated from the contract")]
pub mod bindings {
    //! The world `chain-indexer` in Rust, generated from `plugins/wit/indexer.wit`, where every type and function is described.
    wit_bindgen::generate!({
        path: "../wit",
        world: "chain-indexer",
        pub_export_macro: true,
        default_bindings_module: "plugin_sdk::indexer::bindings",
        additional_derives: [PartialEq],
        with: {
            "aleph:plugin/types@0.2.0": crate::bindings::aleph::plugin::types,
            "aleph:plugin/crypto@0.2.0": crate::bindings::aleph::plugin::crypto,
            "aleph:plugin/log@0.2.0": crate::bindings::aleph::plugin::log,
        },
    });

    pub use exports::aleph::plugin::indexer::{Request as Asked, Response as Answered};
}

use bindings::aleph::plugin::chain_view as host;
pub use bindings::exports::aleph::plugin::indexer::{
    Batch, Block, ContractMessage, Filter, Finding, RecordOf, Subscription, TokenBalance,
};

/// What a chain indexer is. Every function is pure: nothing but its arguments counts.
pub trait Indexer {
    /// What to ask the chain for; `config` is the operator's, JSON text.
    ///
    /// # Errors
    /// The configuration is wrong: a sentence for the operator.
    fn subscribe(chain: &str, config: &str) -> Result<Subscription, String>;

    /// What a block's events mean, in the order of the chain.
    ///
    /// # Errors
    /// What cannot be: the indexer is stopped. What strangers wrote into an event is no error, it means nothing.
    fn decode(config: &str, block: &Block, events: &[Event<'_>], view: &dyn ChainView)
    -> Result<Vec<RecordOf>, String>;

    /// What a file holds that [`Indexer::decode`] named as an archive.
    ///
    /// # Errors
    /// The file is no archive.
    fn unpack(_config: &str, _block: &Block, _file: &[u8]) -> Result<Vec<Finding>, String> {
        Err("this indexer knows no archives".to_owned())
    }

    /// Answers a request to one of the manifest's routes.
    fn query(request: &Request, view: &dyn ChainView) -> Response;
}

/// An event as the contract that emitted it made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    /// Of its transaction.
    pub transaction: [u8; 32],
    /// Its place among the logs of its block.
    pub log_index: u32,
    /// Who emitted it.
    pub contract: [u8; 20],
    /// The first one says which event it is.
    pub topics: Vec<[u8; 32]>,
    /// The rest, ABI-encoded.
    pub data: &'a [u8],
}

/// Most topics of an event.
const MAX_TOPICS: usize = 4;

impl<'a> Event<'a> {
    /// Reads a block's events.
    ///
    /// # Errors
    /// The bytes are cut or overlap: the node did not pack them.
    pub fn unpack(mut packed: &'a [u8]) -> Result<Vec<Self>, String> {
        let mut events = Vec::new();
        while !packed.is_empty() {
            let event = take_u32(&mut packed).and_then(|length| packed.split_at_checked(length as usize)).and_then(
                |(event, rest)| {
                    packed = rest;
                    Self::read(event)
                },
            );
            events.push(event.ok_or_else(|| format!("event {} is cut", events.len()))?);
        }
        Ok(events)
    }

    fn read(mut bytes: &'a [u8]) -> Option<Self> {
        let transaction = take(&mut bytes)?;
        let log_index = take_u32(&mut bytes)?;
        let contract = take(&mut bytes)?;
        let [count] = take::<1>(&mut bytes)?;
        if usize::from(count) > MAX_TOPICS {
            return None;
        }
        let topics = (0..count).map(|_| take(&mut bytes)).collect::<Option<_>>()?;
        Some(Self { transaction, log_index, contract, topics, data: bytes })
    }

    /// Appends it as the node packs it. For tests: a node packs for itself.
    pub fn pack(&self, packed: &mut Vec<u8>) {
        let length = 32 + 4 + 20 + 1 + 32 * self.topics.len() + self.data.len();
        packed.extend((length as u32).to_be_bytes());
        packed.extend(self.transaction);
        packed.extend(self.log_index.to_be_bytes());
        packed.extend(self.contract);
        packed.push(self.topics.len() as u8);
        packed.extend(self.topics.iter().flatten());
        packed.extend(self.data);
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    take(bytes).map(u32::from_be_bytes)
}

/// Bytes as `0x` and lower-case hex: how addresses and hashes of transactions are written where case means nothing.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut text = "0x".to_owned();
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Reads `N` bytes from hex, with or without `0x`, of either case.
#[must_use]
pub fn bytes_of_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.strip_prefix("0x").unwrap_or(text).as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(bytes)
}

/// Writes a warning to the node's log. Outside a node, as in tests, it goes nowhere.
pub fn warn(text: &str) {
    if cfg!(target_family = "wasm") {
        crate::log(crate::Level::Warn, text);
    }
}

/// The beginning of every key of a chain: its name and a zero byte.
#[must_use]
pub fn chain_prefix(chain: &str) -> Vec<u8> {
    let mut prefix = chain.as_bytes().to_vec();
    prefix.push(END_OF_TEXT);
    prefix
}

/// What an indexer may look at: its own namespace.
pub trait ChainView {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Option<Vec<u8>>;
    /// Keys in `start <= key < end`.
    fn scan(&self, start: &[u8], end: &[u8], limit: u32, reverse: bool) -> Page;
}

/// The node's view, inside a plugin.
#[derive(Debug, Clone, Copy)]
pub struct HostChainView;

impl ChainView for HostChainView {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        host::get(key)
    }
    fn scan(&self, start: &[u8], end: &[u8], limit: u32, reverse: bool) -> Page {
        host::scan(start, end, limit, reverse)
    }
}

/// A view for tests: applying records to it makes it a node of one indexer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryChainView {
    /// The namespace.
    pub state: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl MemoryChainView {
    /// Applies what a block writes.
    pub fn apply(&mut self, records: &[RecordOf]) {
        for record in records {
            if let Finding::Write(Write { key, value }) = &record.what {
                match value {
                    Some(value) => self.state.insert(key.clone(), value.clone()),
                    None => self.state.remove(key),
                };
            }
        }
    }
}

impl ChainView for MemoryChainView {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.state.get(key).cloned()
    }
    fn scan(&self, start: &[u8], end: &[u8], limit: u32, reverse: bool) -> Page {
        let limit = limit.min(1000) as usize;
        if start >= end {
            return Page { items: Vec::new(), more: false };
        }
        let range = self.state.range(start.to_vec()..end.to_vec());
        let row = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
        let mut items: Vec<_> = if reverse {
            range.rev().take(limit + 1).map(row).collect()
        } else {
            range.take(limit + 1).map(row).collect()
        };
        let more = items.len() > limit;
        items.truncate(limit);
        Page { items, more }
    }
}

/// Makes a plugin of a type that implements [`Indexer`]: exports the contract's functions and embeds the manifest.
///
/// ```ignore
/// plugin_sdk::indexer!(Tokens, "../manifest.json");
/// ```
#[macro_export]
macro_rules! indexer {
    ($indexer:ty, $manifest:literal) => {
        struct Component;

        impl $crate::indexer::bindings::exports::aleph::plugin::indexer::Guest for Component {
            fn subscribe(chain: String, config: String) -> Result<$crate::indexer::Subscription, String> {
                <$indexer as $crate::indexer::Indexer>::subscribe(&chain, &config)
            }
            fn decode(
                config: String,
                batch: $crate::indexer::Batch,
            ) -> Result<Vec<$crate::indexer::RecordOf>, String> {
                let events = $crate::indexer::Event::unpack(&batch.events)?;
                let view = $crate::indexer::HostChainView;
                <$indexer as $crate::indexer::Indexer>::decode(&config, &batch.block, &events, &view)
            }
            fn unpack(
                config: String,
                block: $crate::indexer::Block,
                file: Vec<u8>,
            ) -> Result<Vec<$crate::indexer::Finding>, String> {
                <$indexer as $crate::indexer::Indexer>::unpack(&config, &block, &file)
            }
            fn query(request: $crate::indexer::bindings::Asked) -> $crate::indexer::bindings::Answered {
                let request =
                    $crate::Request { route: request.route, path: request.path, parameters: request.parameters };
                let answer = <$indexer as $crate::indexer::Indexer>::query(&request, &$crate::indexer::HostChainView);
                $crate::indexer::bindings::Answered {
                    status: answer.status,
                    content_type: answer.content_type,
                    body: answer.body,
                }
            }
        }

        #[cfg(target_family = "wasm")]
        #[expect(unsafe_code, reason = "the exports of the contract, generated")]
        mod exported {
            use super::Component;
            $crate::indexer::bindings::export!(Component with_types_in $crate::indexer::bindings);

            #[used]
            #[unsafe(link_section = "aleph:manifest")]
            static MANIFEST: [u8; include_bytes!($manifest).len()] = *include_bytes!($manifest);
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn events_survive(
            topics in proptest::collection::vec(any::<[u8; 32]>(), 0..=MAX_TOPICS),
            data in proptest::collection::vec(any::<u8>(), 0..100),
            transaction: [u8; 32],
            contract: [u8; 20],
            log_index: u32,
        ) {
            let event = Event { transaction, log_index, contract, topics, data: &data };
            let mut packed = Vec::new();
            event.pack(&mut packed);
            event.pack(&mut packed);
            prop_assert_eq!(Event::unpack(&packed), Ok(vec![event.clone(), event]));
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Event::unpack(&bytes);
            // With a length that fits.
            let mut packed = (bytes.len() as u32).to_be_bytes().to_vec();
            packed.extend(bytes);
            let _ = Event::unpack(&packed);
        }
    }

    #[test]
    fn hex_comes_back() {
        assert_eq!(hex(&[0, 0xab]), "0x00ab");
        assert_eq!(bytes_of_hex::<2>("0x00AB"), Some([0, 0xab]));
        assert_eq!(bytes_of_hex::<2>("00ab"), Some([0, 0xab]));
        for wrong in ["", "0x00a", "0x00abcd", "0x00gg", "0xé0b"] {
            assert_eq!(bytes_of_hex::<2>(wrong), None, "{wrong}");
        }
    }
}
