//! Sums over costs, and what was used up for each message: kept with every change, so that nobody has to add up.

use crate::store::{
    Batch, Reader, StoreError,
    record::{CostRecord, PaymentRecord, Record as _, TotalsRecord},
    schema::{Key, Table, hash_key, split_text},
};
use ccn_message::ItemHash;

/// The beginning of the keys of `priced` of one way to pay, and of one address if there is one; also the key of their sums.
#[must_use]
pub fn priced_prefix(payment: PaymentRecord, address: Option<&str>) -> Vec<u8> {
    let key = Key::new().text(payment.name());
    address.map_or(key.clone(), |address| key.text(address)).done()
}

/// Who pays, and how, by a key of the sums of one address; none for those of all.
#[must_use]
pub(crate) fn payer_of(key: &[u8]) -> Option<(PaymentRecord, &str)> {
    let (word, rest) = split_text(key)?;
    let ways = [PaymentRecord::Hold, PaymentRecord::Superfluid, PaymentRecord::Credit];
    let payment = ways.into_iter().find(|payment| payment.name() == word)?;
    Some((payment, split_text(rest)?.0))
}

/// Sums over what is paid in one way, by one address or by all.
///
/// # Errors
/// The store fails.
pub fn totals(reader: &dyn Reader, payment: PaymentRecord, address: Option<&str>) -> Result<TotalsRecord, StoreError> {
    let row = reader.get(Table::Totals, &priced_prefix(payment, address))?;
    Ok(row.map(|row| TotalsRecord::read(&row)).transpose()?.unwrap_or_default())
}

/// Credits that were used up for a message.
///
/// # Errors
/// The store fails.
pub fn consumed(reader: &dyn Reader, hash: &ItemHash) -> Result<u128, StoreError> {
    let row = reader.get(Table::Consumed, &hash_key(hash))?;
    Ok(row.and_then(|row| row.try_into().ok()).map_or(0, u128::from_be_bytes))
}

/// Counts what a message costs (`sign` 1), or no longer (-1), into the current layer of the batch.
///
/// # Errors
/// The store fails.
pub(crate) fn count_costs(batch: &mut Batch, hash: &ItemHash, cost: &CostRecord, sign: i8) -> Result<(), StoreError> {
    let used = consumed(batch, hash)?;
    let place = [priced_prefix(cost.payment, Some(&cost.address)).as_slice(), &hash_key(hash)].concat();
    batch.set(Table::Priced, place, (sign > 0).then(Vec::new));
    change(batch, cost, |totals| totals.with(cost, used, sign))
}

/// Counts credits that were used up for a message, or no longer, into the current layer of the batch.
pub(super) fn consume(batch: &mut Batch, hash: &ItemHash, amount: u64, is_back: bool) -> Result<(), StoreError> {
    let sum = |before: u128| match is_back {
        true => before.saturating_sub(u128::from(amount)),
        false => before.saturating_add(u128::from(amount)),
    };
    let used = sum(consumed(batch, hash)?);
    batch.set(Table::Consumed, hash_key(hash), (used > 0).then(|| used.to_be_bytes().to_vec()));
    if let Some(cost) = batch.costs(hash)? {
        change(batch, &cost, |mut totals| {
            totals.consumed = sum(totals.consumed);
            totals
        })?;
    }
    Ok(())
}

fn change(
    batch: &mut Batch,
    cost: &CostRecord,
    change: impl Fn(TotalsRecord) -> TotalsRecord,
) -> Result<(), StoreError> {
    for address in [Some(cost.address.as_str()), None] {
        let after = change(totals(batch, cost.payment, address)?);
        let row = (after != TotalsRecord::default()).then(|| after.to_bytes());
        batch.set(Table::Totals, priced_prefix(cost.payment, address), row);
    }
    Ok(())
}
