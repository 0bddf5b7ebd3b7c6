//! Posts by which accounts of the network move credits and balances (ccn spec 2.7). From anybody else, a post of the same type is a post.

use plugin_sdk::{
    CreditExpense, CreditGrant, CreditTransfer, LedgerEntry, Message, Rejection, TokenBalance, View,
    decimal::Decimal,
    message::{
        content::post::PostContent,
        json::{FormatError, Object, Value},
    },
};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};

/// Setting: who publishes token balances, a comma-separated list.
const PUBLISHERS: &str = "balances.publishers";
/// Setting: who grants credits and uses them up, a comma-separated list.
const TREASURY: &str = "credits.treasury";
/// Setting: the channel in which credits move.
const CHANNEL: &str = "credits.channel";
/// Setting: who transfers credits without having them, a comma-separated list.
const WHITELIST: &str = "credits.whitelist";

const BALANCES: &str = "balances-update";
const DISTRIBUTION: &str = "aleph_credit_distribution";
const EXPENSE: &str = "aleph_credit_expense";
const TRANSFER: &str = "aleph_credit_transfer";

/// Most movements of one message.
const MAX_ENTRIES: usize = 100_000;
/// Before it (2026-02-02), amounts are in a unit of this many credits.
const NEW_UNIT_SINCE: f64 = 1_769_990_400.0;
const OLD_UNIT: u64 = 10_000;

/// What a post moves; none when it is an ordinary one.
///
/// # Errors
/// It is meant to move something and does not say what in the right form: code 0.
pub(crate) fn entry(
    message: &Message,
    content: &PostContent<'_>,
    view: &dyn View,
) -> Result<Option<LedgerEntry>, Rejection> {
    let is_one_of = |setting: &str| is_of(setting, message, view);
    let channel = || is_in_channel(CHANNEL, message, view);
    let read: fn(&Message, Object<'_>) -> Result<LedgerEntry, FormatError> = match content.kind.as_str() {
        BALANCES if is_one_of(PUBLISHERS) => read_balances,
        DISTRIBUTION if channel() && is_one_of(TREASURY) => read_distribution,
        EXPENSE if channel() && is_one_of(TREASURY) => read_expense,
        TRANSFER if channel() && is_one_of(WHITELIST) => read_minted_transfer,
        TRANSFER if channel() => read_transfer,
        _ => return Ok(None),
    };
    let payload = content.content.ok_or_else(|| FormatError::new("content", "is required"));
    let entry = payload.and_then(|payload| {
        payload.object().and_then(|payload| read(message, payload)).map_err(|error| error.within("content"))
    });
    Ok(Some(entry?))
}

/// True for a message of an address in that setting, a comma-separated list.
pub(crate) fn is_of(setting: &str, message: &Message, view: &dyn View) -> bool {
    view.setting(setting).unwrap_or_default().split(',').any(|address| address.trim() == message.address)
}

/// True for a message in the channel that a setting names.
pub(crate) fn is_in_channel(setting: &str, message: &Message, view: &dyn View) -> bool {
    message.channel.is_some() && message.channel == view.setting(setting)
}

fn read_balances(_message: &Message, mut payload: Object<'_>) -> Result<LedgerEntry, FormatError> {
    let chain = payload.required("chain", Value::string)?;
    let height = payload.required("main_height", |value| value.integer(0..=i64::MAX))?.unsigned_abs();
    let dapp = payload.optional("dapp", Value::string)?;
    let balances = payload.required("balances", |value| {
        let object = value.object()?;
        let balance = |(address, value): (&str, Value<'_>)| {
            let balance = read_decimal(value).map_err(|error| error.within(address))?;
            Ok(TokenBalance { address: address.to_owned(), balance })
        };
        object.rest().map(balance).collect::<Result<Vec<TokenBalance>, FormatError>>()
    })?;
    Ok(LedgerEntry::Balances((chain, dapp, height, balances)))
}

/// A number as decimal text with at most 18 fractional digits.
fn read_decimal(value: Value<'_>) -> Result<String, FormatError> {
    let refuse = || FormatError::new("", "a number of tokens was expected");
    let text = if value.is_string() { value.string()? } else { value.text().to_owned() };
    let number: Decimal = text.trim().parse().map_err(|_| refuse())?;
    let amount = number.floor();
    if amount < plugin_sdk::message::Amount::ZERO { Err(refuse()) } else { Ok(amount.to_string()) }
}

/// The list of credits under a member of the payload.
fn credits<T>(
    payload: &mut Object<'_>,
    member: &str,
    read: impl Fn(Object<'_>) -> Result<T, FormatError>,
) -> Result<Vec<T>, FormatError> {
    let read = |value: Value<'_>| value.object().and_then(&read);
    payload.required("credits", |value| value.list_of(MAX_ENTRIES, read)).map_err(|error| error.within(member))
}

/// Credits in today's unit.
fn amount(message: &Message, entry: &mut Object<'_>, least: i64) -> Result<u64, FormatError> {
    let amount = entry.required("amount", |value| value.integer(least..=i64::MAX))?.unsigned_abs();
    let unit = if message.time < NEW_UNIT_SINCE { OLD_UNIT } else { 1 };
    amount.checked_mul(unit).ok_or_else(|| FormatError::new("amount", "is too large"))
}

fn expiration(entry: &mut Object<'_>) -> Result<Option<u64>, FormatError> {
    Ok(entry.optional("expiration", |value| value.integer(0..=i64::MAX))?.map(i64::unsigned_abs))
}

/// What a history row shows beside the amount, as JSON in the order of the names.
#[derive(Default)]
struct Details(BTreeMap<&'static str, Json>);

impl Details {
    fn with(mut self, name: &'static str, value: Option<impl Into<Json>>) -> Self {
        if let Some(value) = value {
            self.0.insert(name, value.into());
        }
        self
    }

    fn text(self) -> String {
        json!(self.0).to_string()
    }
}

fn read_distribution(message: &Message, mut payload: Object<'_>) -> Result<LedgerEntry, FormatError> {
    let mut distribution = payload.required("distribution", Value::object)?;
    let within = |error: FormatError| error.within("distribution");
    let token = distribution.required("token", Value::string).map_err(within)?;
    let chain = distribution.required("chain", Value::string).map_err(within)?;
    let grants = credits(&mut distribution, "distribution", |mut entry| {
        let details = Details::default()
            .with("token", Some(token.as_str()))
            .with("chain", Some(chain.as_str()))
            .with("price", Some(entry.required("price", read_decimal)?))
            .with("tx_hash", Some(entry.required("tx_hash", Value::string)?))
            .with("provider", Some(entry.required("provider", Value::string)?))
            .with("origin", entry.optional("origin", Value::string)?)
            .with("origin_ref", entry.optional("ref", Value::string)?)
            .with("payment_method", entry.optional("payment_method", Value::string)?)
            .with("bonus_amount", entry.optional("bonus_amount", |value| value.integer(0..=i64::MAX))?);
        Ok(CreditGrant {
            address: entry.required("address", Value::string)?,
            amount: amount(message, &mut entry, 1)?,
            expiration: expiration(&mut entry)?,
            details: details.text(),
        })
    })?;
    if grants.is_empty() {
        return Err(FormatError::new("distribution.credits", "at least one entry was expected"));
    }
    Ok(LedgerEntry::Grants(grants))
}

fn read_expense(message: &Message, mut payload: Object<'_>) -> Result<LedgerEntry, FormatError> {
    let mut expense = payload.required("expense", Value::object)?;
    let expenses = credits(&mut expense, "expense", |mut entry| {
        let count = |value: Value<'_>| value.integer(0..=i64::MAX);
        let details = Details::default()
            .with("payment_method", Some("credit_expense"))
            .with("provider", Some("ALEPH"))
            .with("origin", entry.optional("execution_id", Value::string)?)
            .with("origin_ref", entry.optional("ref", Value::string)?)
            .with("tx_hash", entry.optional("node_id", Value::string)?)
            .with("price", entry.optional("price", read_decimal)?)
            .with("expense_count", entry.optional("count", count)?)
            .with("expense_size_mib", entry.optional("size", read_decimal)?);
        Ok(CreditExpense {
            address: entry.required("address", Value::string)?,
            amount: amount(message, &mut entry, 0)?,
            details: details.text(),
        })
    })?;
    Ok(LedgerEntry::Expenses(expenses))
}

fn transfers(message: &Message, mut payload: Object<'_>) -> Result<Vec<CreditTransfer>, FormatError> {
    let mut transfer = payload.required("transfer", Value::object)?;
    let transfers = credits(&mut transfer, "transfer", |mut entry| {
        Ok(CreditTransfer {
            recipient: entry.required("address", Value::string)?,
            amount: amount(message, &mut entry, 1)?,
            expiration: expiration(&mut entry)?,
        })
    })?;
    let mut recipients = BTreeSet::new();
    for (index, transfer) in transfers.iter().enumerate() {
        let refuse = |problem: &str| Err(FormatError::new(format!("transfer.credits[{index}].address"), problem));
        if transfer.recipient == message.address {
            return refuse("nobody transfers to themselves");
        }
        if !recipients.insert(transfer.recipient.as_str()) {
            return refuse("each recipient may be named once");
        }
    }
    Ok(transfers)
}

fn read_transfer(message: &Message, payload: Object<'_>) -> Result<LedgerEntry, FormatError> {
    Ok(LedgerEntry::Transfers(transfers(message, payload)?))
}

/// A sender who need not have what they transfer: their recipients are granted it.
fn read_minted_transfer(message: &Message, payload: Object<'_>) -> Result<LedgerEntry, FormatError> {
    let details = Details::default()
        .with("payment_method", Some("credit_transfer"))
        .with("origin", Some(message.address.as_str()))
        .text();
    let grant = |transfer: CreditTransfer| CreditGrant {
        address: transfer.recipient,
        amount: transfer.amount,
        expiration: transfer.expiration,
        details: details.clone(),
    };
    Ok(LedgerEntry::Grants(transfers(message, payload)?.into_iter().map(grant).collect()))
}

#[cfg(test)]
mod tests;
