//! The history of an address's credits: entries as clients read them, and sums over them, kept with every change of a movement.

use super::totals::consume;
use crate::store::{
    Batch, Reader, StoreError,
    record::{CreditRecord, HistoryRecord, Movement, Record as _},
    schema::{Key, Table},
};
use ccn_message::ItemHash;
use serde::Deserialize;
use std::collections::BTreeMap;

/// What a transfer says of itself, as the history of the network has it.
const TRANSFER: &str = "credit_transfer";

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Whose it is.
    pub address: &'a str,
    /// Its place in the message.
    pub index: usize,
    /// Credits that came, or, below zero, went.
    pub amount: i128,
    /// Milliseconds since 1970.
    pub expiration: Option<u64>,
    /// The rest.
    pub details: Details,
}

/// What an entry shows beside the amount.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Details {
    /// Price of a credit, decimal text or number.
    pub price: Option<Plain>,
    /// Credits on top.
    pub bonus_amount: Option<u64>,
    /// Transaction; of an expense, the node.
    pub tx_hash: Option<String>,
    /// Token that was paid.
    pub token: Option<String>,
    /// Chain on which it was paid.
    pub chain: Option<String>,
    /// Who took the payment.
    pub provider: Option<String>,
    /// What it was for.
    pub origin: Option<String>,
    /// The same, more precisely.
    pub origin_ref: Option<String>,
    /// How it was paid.
    pub payment_method: Option<String>,
    /// Expenses that are one.
    pub expense_count: Option<u64>,
    /// MiB, decimal text or number.
    pub expense_size_mib: Option<Plain>,
}

/// A number, or the text of one, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plain(pub String);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Ok(Self(value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
    }
}

/// All entries of a message; none while its transfers are not covered.
pub fn entries(record: &CreditRecord) -> impl Iterator<Item = Entry<'_>> {
    let movements = record.movements.iter().enumerate().filter(|_| record.covered);
    movements.flat_map(|(index, movement)| of_movement(index, movement))
}

/// The entries of one address.
pub fn entries_of<'a>(record: &'a CreditRecord, address: &str) -> Vec<Entry<'a>> {
    let is_concerned = |movement: &Movement| match movement {
        Movement::Grant { address: other, details, .. } => other == address || details.contains(TRANSFER),
        Movement::Expense { address: other, .. } => other == address,
        Movement::Transfer { sender, recipient, .. } => sender == address || recipient == address,
    };
    let movements =
        record.movements.iter().enumerate().filter(|(_, movement)| record.covered && is_concerned(movement));
    movements
        .flat_map(|(index, movement)| of_movement(index, movement))
        .filter(|entry| entry.address == address)
        .collect()
}

fn of_movement(index: usize, movement: &Movement) -> Vec<Entry<'_>> {
    let read = |details: &str| serde_json::from_str::<Details>(details).unwrap_or_default();
    match movement {
        Movement::Grant { address, amount, expiration, details } => {
            let (amount, expiration) = (i128::from(*amount), *expiration);
            let minter = minter(movement);
            let details = read(details);
            let mut entries = vec![Entry { address, index, amount, expiration, details: details.clone() }];
            // Who hands on what they need not have: it shows with them, too.
            if let Some(minter) = minter {
                let details = Details { origin: Some(address.clone()), ..details };
                entries.push(Entry { address: minter, index, amount: -amount, expiration, details });
            }
            entries
        }
        Movement::Expense { address, amount, details } => {
            vec![Entry { address, index, amount: -i128::from(*amount), expiration: None, details: read(details) }]
        }
        Movement::Transfer { sender, recipient, amount, expiration } => {
            let side = |address, other: &str, amount| {
                let method = Some(TRANSFER.to_owned());
                let details = Details { payment_method: method, origin: Some(other.to_owned()), ..Details::default() };
                Entry { address, index, amount, expiration: *expiration, details }
            };
            let amount = i128::from(*amount);
            vec![side(recipient, sender, amount), side(sender, recipient, -amount)]
        }
    }
}

/// Who handed on what is a grant to the ledger, because they need not have it.
pub(super) fn minter(movement: &Movement) -> Option<&str> {
    #[derive(Deserialize)]
    struct Minted<'a> {
        payment_method: &'a str,
        #[serde(borrow)]
        origin: &'a str,
    }
    let Movement::Grant { address, details, .. } = movement else { return None };
    let minted: Minted<'_> = details.contains(TRANSFER).then(|| serde_json::from_str(details).ok()).flatten()?;
    (minted.payment_method == TRANSFER && minted.origin != address).then_some(minted.origin)
}

/// Sums over the entries of an address.
///
/// # Errors
/// The store fails.
pub fn summary(reader: &dyn Reader, address: &str) -> Result<HistoryRecord, StoreError> {
    let row = reader.get(Table::History, &Key::new().text(address).done())?;
    Ok(row.map(|row| HistoryRecord::read(&row)).transpose()?.unwrap_or_default())
}

/// Sets what a message moves, or that it moves nothing, into the current layer of the batch.
pub(super) fn put(batch: &mut Batch, place: &[u8], new: Option<&CreditRecord>) -> Result<(), StoreError> {
    let old = batch.get(Table::Credits, place)?.map(|row| CreditRecord::read(&row)).transpose()?;
    if old.as_ref() == new {
        return Ok(());
    }
    for (record, is_back) in [(old.as_ref(), true), (new, false)] {
        if let Some(record) = record {
            count(batch, record, is_back)?;
        }
    }
    batch.set(Table::Credits, place.to_vec(), new.map(CreditRecord::to_bytes));
    Ok(())
}

/// Counts the entries of a message, or no longer.
fn count(batch: &mut Batch, record: &CreditRecord, is_back: bool) -> Result<(), StoreError> {
    let mut sums: BTreeMap<&str, HistoryRecord> = BTreeMap::new();
    for entry in entries(record) {
        let sum = sums.entry(entry.address).or_default();
        sum.entries += 1;
        let side = if entry.amount < 0 { &mut sum.outgoing } else { &mut sum.incoming };
        *side += entry.amount.unsigned_abs();
        let is_expense = matches!(record.movements.get(entry.index), Some(Movement::Expense { .. }));
        let origin = entry.details.origin.as_deref().filter(|_| is_expense).and_then(|text| ItemHash::parse(text).ok());
        if let Some(hash) = origin {
            let amount = u64::try_from(entry.amount.unsigned_abs()).unwrap_or(u64::MAX);
            consume(batch, &hash, amount, is_back)?;
        }
    }
    for (address, sum) in sums {
        let before = summary(batch, address)?;
        let after = if is_back {
            HistoryRecord {
                entries: before.entries.saturating_sub(sum.entries),
                incoming: before.incoming.saturating_sub(sum.incoming),
                outgoing: before.outgoing.saturating_sub(sum.outgoing),
            }
        } else {
            HistoryRecord {
                entries: before.entries + sum.entries,
                incoming: before.incoming + sum.incoming,
                outgoing: before.outgoing + sum.outgoing,
            }
        };
        let row = (after != HistoryRecord::default()).then(|| after.to_bytes());
        batch.set(Table::History, Key::new().text(address).done(), row);
    }
    Ok(())
}
