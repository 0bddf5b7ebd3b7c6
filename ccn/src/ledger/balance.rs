//! What an address has.

use crate::store::{
    Reader, StoreError,
    record::{BalanceRecord, LotRecord, PaymentRecord, Record as _},
    schema::{Key, Table, split_text},
};
use ccn_message::Amount;

/// What an address has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Balance {
    /// Tokens by chain.
    pub chains: Vec<(String, Amount)>,
    /// Tokens of all chains.
    pub total: Amount,
    /// Tokens that must be held for what the address runs and stores.
    pub locked: Amount,
    /// Credits that have not expired.
    pub credits: u128,
    /// The same by the grant that they are left of, in the order in which they are used up.
    pub lots: Vec<Lot>,
}

/// Credits that are left of one grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lot {
    /// Credits.
    pub amount: u64,
    /// Milliseconds since 1970.
    pub expiration: Option<u64>,
}

/// What an address has at a moment, milliseconds since 1970.
///
/// # Errors
/// The store fails.
pub fn balance(reader: &dyn Reader, address: &str, now_ms: u64) -> Result<Balance, StoreError> {
    let mut balance = Balance::default();
    let prefix = Key::new().text(address).done();
    for (key, value) in reader.prefixed(Table::Balances, &prefix)? {
        let Some((chain, rest)) = split_text(&key[prefix.len()..]) else { continue };
        // Tokens that are locked in an application elsewhere do not count.
        if !matches!(split_text(rest), Some(("", _))) {
            continue;
        }
        let amount = BalanceRecord::read(&value)?.amount();
        balance.chains.push((chain.to_owned(), amount));
    }
    // What this node reads from a chain itself goes over what is said about it.
    for (key, value) in reader.prefixed(Table::ChainBalances, &prefix)? {
        let Some((chain, _)) = split_text(&key[prefix.len()..]) else { continue };
        let amount = BalanceRecord::read(&value)?.amount();
        match balance.chains.iter_mut().find(|(known, _)| known == chain) {
            Some((_, published)) => *published = amount,
            None => balance.chains.push((chain.to_owned(), amount)),
        }
    }
    balance.total = balance.chains.iter().map(|(_, amount)| *amount).sum();
    balance.locked = spending(reader, address, PaymentRecord::Hold)?;
    for (_, value) in reader.prefixed(Table::Lots, &prefix)? {
        let lot = LotRecord::read(&value)?;
        if lot.remaining > 0 && lot.expiration.is_none_or(|expiration| expiration > now_ms) {
            balance.credits += u128::from(lot.remaining);
            balance.lots.push(Lot { amount: lot.remaining, expiration: lot.expiration });
        }
    }
    Ok(balance)
}

/// The key of a sum of costs.
pub(crate) fn spending_key(address: &str, payment: PaymentRecord) -> Vec<u8> {
    Key::new().text(address).text(payment.name()).done()
}

/// What an address spends: tokens held, or tokens or credits a second.
///
/// # Errors
/// The store fails.
pub fn spending(reader: &dyn Reader, address: &str, payment: PaymentRecord) -> Result<Amount, StoreError> {
    let row = reader.get(Table::Spending, &spending_key(address, payment))?;
    Ok(row
        .and_then(|row| row.try_into().ok())
        .map_or(Amount::ZERO, |units| Amount::from_units(i128::from_be_bytes(units))))
}
