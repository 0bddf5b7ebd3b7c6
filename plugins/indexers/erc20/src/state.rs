//! What is kept of a token, and how a block's transfers change it.
//!
//! After the chain's name and a zero byte:
//!
//! | table | key | value |
//! |---|---|---|
//! | `t` tokens | contract | [`Summary`], JSON |
//! | `b` balances | contract, address | 32 bytes, big-endian; never zero |
//! | `h` holders, most tokens first | contract, complement of the balance, address | nothing |

use crate::{
    config::{Config, Token},
    transfers::{NOBODY, Transfer},
};
use alloy_primitives::{Address, U256};
use plugin_sdk::{
    Write,
    indexer::{Block, ChainView, Finding, RecordOf, TokenBalance, chain_prefix, warn},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const TOKENS: u8 = b't';
const BALANCES: u8 = b'b';
const HOLDERS: u8 = b'h';
/// Fractional digits of the ledger.
const LEDGER_DIGITS: u8 = 18;

/// A token as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) symbol: String,
    pub(crate) decimals: u8,
    /// Smallest units.
    pub(crate) supply: U256,
    /// Addresses with a balance.
    pub(crate) holders: u64,
    pub(crate) transfers: u64,
    /// Block of the last transfer.
    pub(crate) height: u64,
    /// When that was, seconds since 1970.
    pub(crate) time: u64,
    /// False once somebody gave away more than was seen to come: the token does not tell everything by its events, or was followed too late.
    pub(crate) exact: bool,
}

fn key(chain: &str, table: u8, contract: &[u8; 20]) -> Vec<u8> {
    let mut key = chain_prefix(chain);
    key.push(table);
    key.extend(contract);
    key
}

/// The beginning of all keys of tokens.
pub(crate) fn tokens(chain: &str) -> Vec<u8> {
    let mut key = chain_prefix(chain);
    key.push(TOKENS);
    key
}

/// A token; none without a transfer.
pub(crate) fn summary(view: &dyn ChainView, chain: &str, contract: &[u8; 20]) -> Option<Summary> {
    serde_json::from_slice(&view.get(&key(chain, TOKENS, contract))?).ok()
}

fn balance_key(chain: &str, contract: &[u8; 20], address: &[u8; 20]) -> Vec<u8> {
    let mut key = key(chain, BALANCES, contract);
    key.extend(address);
    key
}

/// What an address holds, smallest units.
pub(crate) fn balance(view: &dyn ChainView, chain: &str, contract: &[u8; 20], address: &[u8; 20]) -> U256 {
    let bytes = view.get(&balance_key(chain, contract, address)).and_then(|value| value.try_into().ok());
    bytes.map_or(U256::ZERO, U256::from_be_bytes::<32>)
}

/// The beginning of the keys of a token's holders.
pub(crate) fn holders(chain: &str, contract: &[u8; 20]) -> Vec<u8> {
    key(chain, HOLDERS, contract)
}

/// The place of a holder after the beginning.
fn place(address: &[u8; 20], balance: U256) -> [u8; 52] {
    let mut place = [0; 52];
    place[..32].copy_from_slice(&(!balance).to_be_bytes::<32>());
    place[32..].copy_from_slice(address);
    place
}

/// The holder of a place.
pub(crate) fn read_place(place: &[u8]) -> Option<([u8; 20], U256)> {
    let (balance, address) = place.split_first_chunk::<32>()?;
    Some((address.try_into().ok()?, !U256::from_be_bytes(*balance)))
}

/// A block's changes.
pub(crate) struct Sheet<'a> {
    config: &'a Config,
    block: &'a Block,
    view: &'a dyn ChainView,
    tokens: BTreeMap<[u8; 20], Changed>,
}

/// A token that changes.
struct Changed {
    summary: Summary,
    /// Before and after, and the event of the last change.
    balances: BTreeMap<[u8; 20], (U256, U256, u32)>,
}

impl<'a> Sheet<'a> {
    pub(crate) fn new(config: &'a Config, block: &'a Block, view: &'a dyn ChainView) -> Self {
        Self { config, block, view, tokens: BTreeMap::new() }
    }

    /// Adds a transfer.
    ///
    /// # Errors
    /// The node gave an event that was not asked for.
    pub(crate) fn apply(&mut self, event: u32, contract: &[u8; 20], transfer: &Transfer) -> Result<(), String> {
        let token = self.config.token(contract).ok_or("an event of a contract that was not asked for")?;
        let (chain, view) = (self.block.chain.as_str(), self.view);
        let changed = self.tokens.entry(*contract).or_insert_with(|| Changed::begin(token, chain, view));
        let summary = &mut changed.summary;
        summary.transfers += 1;
        (summary.height, summary.time) = (self.block.height, self.block.time);
        let Transfer { from, to, value } = transfer;
        let mut change = |address: &[u8; 20], change: &dyn Fn(U256) -> Option<U256>, otherwise: U256| {
            let entry = changed.balances.entry(*address);
            let (_, now, last) = entry.or_insert_with(|| {
                let before = balance(view, chain, contract, address);
                (before, before, event)
            });
            let exact = change(*now);
            (*now, *last) = (exact.unwrap_or(otherwise), event);
            exact.is_some()
        };
        let given = *from == NOBODY || change(from, &|now| now.checked_sub(*value), U256::ZERO);
        let taken = *to == NOBODY || change(to, &|now| now.checked_add(*value), U256::MAX);
        let mut exact = given && taken;
        if *from == NOBODY {
            let supply = summary.supply.checked_add(*value);
            exact &= supply.is_some();
            summary.supply = supply.unwrap_or(U256::MAX);
        }
        if *to == NOBODY {
            let supply = summary.supply.checked_sub(*value);
            exact &= supply.is_some();
            summary.supply = supply.unwrap_or(U256::ZERO);
        }
        if !exact && summary.exact {
            warn(&format!(
                "{} of {contract:?}: more was given than had come; its balances are not exact",
                token.symbol
            ));
            summary.exact = false;
        }
        Ok(())
    }

    /// What the block changes.
    pub(crate) fn records(self) -> Vec<RecordOf> {
        let chain = &self.block.chain;
        let mut records = Vec::new();
        for (contract, mut changed) in self.tokens {
            let token = self.config.token(&contract);
            let mut put = |event, key, value| {
                let what = Finding::Write(Write { key, value });
                records.push(RecordOf { event, publisher: String::new(), what });
            };
            let mut told = Vec::new();
            let mut last = 0;
            for (address, (before, after, event)) in changed.balances {
                last = last.max(event);
                if before == after {
                    continue;
                }
                let holder = |balance| [holders(chain, &contract).as_slice(), &place(&address, balance)].concat();
                if before.is_zero() {
                    changed.summary.holders += 1;
                } else {
                    put(event, holder(before), None);
                }
                if after.is_zero() {
                    changed.summary.holders -= 1;
                    put(event, balance_key(chain, &contract, &address), None);
                } else {
                    put(event, holder(after), Some(Vec::new()));
                    put(event, balance_key(chain, &contract, &address), Some(after.to_be_bytes::<32>().to_vec()));
                }
                told.push((event, address, after));
            }
            let value = serde_json::to_vec(&changed.summary).unwrap_or_default();
            put(last, key(chain, TOKENS, &contract), Some(value));
            if token.is_some_and(|token| token.ledger) {
                let decimals = changed.summary.decimals;
                let told = told.into_iter().map(|(event, address, units)| {
                    let balance = decimal(units, decimals, LEDGER_DIGITS);
                    let what = Finding::Balance(TokenBalance { address: spelled(&address), balance });
                    RecordOf { event, publisher: String::new(), what }
                });
                records.extend(told);
            }
        }
        records
    }
}

impl Changed {
    fn begin(token: &Token, chain: &str, view: &dyn ChainView) -> Self {
        if let Some(summary) = summary(view, chain, &token.contract) {
            return Self { summary, balances: BTreeMap::new() };
        }
        let mut balances: BTreeMap<[u8; 20], (U256, U256, u32)> = BTreeMap::new();
        let mut supply = U256::ZERO;
        for (address, units) in &token.initial {
            // The sum was checked when the configuration was read.
            supply = supply.saturating_add(*units);
            let (_, now, _) = balances.entry(*address).or_insert((U256::ZERO, U256::ZERO, 0));
            *now = now.saturating_add(*units);
        }
        let summary = Summary {
            symbol: token.symbol.clone(),
            decimals: token.decimals,
            supply,
            holders: 0,
            transfers: 0,
            height: 0,
            time: 0,
            exact: true,
        };
        Self { summary, balances }
    }
}

/// An address as the Ethereum world spells it (EIP-55).
pub(crate) fn spelled(address: &[u8; 20]) -> String {
    Address::from(address).to_checksum(None)
}

/// Smallest units as a decimal number, cut after `most` fractional digits, without zeros at the end.
pub(crate) fn decimal(units: U256, decimals: u8, most: u8) -> String {
    let decimals = usize::from(decimals);
    let digits = format!("{units:0>width$}", width = decimals + 1);
    let (whole, fraction) = digits.split_at(digits.len() - decimals);
    let fraction = fraction.get(..usize::from(most)).unwrap_or(fraction).trim_end_matches('0');
    if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
}
