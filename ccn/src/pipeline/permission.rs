//! Who may act for whom (messages spec 9).

use crate::{
    host::contract,
    store::{
        Reader, StoreError,
        record::{AuthorizationRecord, DelegationRecord, MessageRecord},
        schema::Table,
        standing::{self, Position},
    },
};
use ccn_message::ItemHash;

/// An act that needs permission: creating a message.
#[derive(Debug)]
pub(super) struct Act<'a> {
    /// Whose message it is.
    pub(super) owner: &'a str,
    pub(super) chain: &'a str,
    pub(super) channel: Option<&'a str>,
    pub(super) kind: &'a str,
    pub(super) labels: &'a [(String, String)],
}

impl<'a> Act<'a> {
    /// Creating that message.
    pub(super) fn of(shown: &'a contract::Message, labels: &'a [(String, String)]) -> Self {
        Self {
            owner: &shown.address,
            chain: &shown.chain,
            channel: shown.channel.as_deref(),
            kind: &shown.kind,
            labels,
        }
    }

    /// Having created a message that is here.
    pub(super) fn of_record(record: &'a MessageRecord) -> Self {
        let envelope = &record.envelope;
        Self {
            owner: &record.owner,
            chain: envelope.chain(),
            channel: envelope.channel.as_deref(),
            kind: &envelope.kind,
            labels: &record.labels,
        }
    }
}

/// How much later than a message a delegation may be dated and still count for it, seconds: wallets' clocks differ.
const SKEW_SECONDS: f64 = 300.0;
/// Delegations of an owner within that time that are looked at; wallets make few.
const MAX_SKEWED: usize = 32;

/// True when the owner acts, or somebody whom the owner allows to at that position.
///
/// # Errors
/// The store fails.
pub(super) fn may(reader: &dyn Reader, sender: &str, act: &Act<'_>, at: &Position) -> Result<bool, StoreError> {
    if is_same(sender, act.owner) {
        return Ok(true);
    }
    let allowed = |record: &DelegationRecord| record.entries.iter().any(|entry| allows(entry, sender, act));
    if standing::delegations(reader, act.owner, at)?.as_ref().is_some_and(allowed) {
        return Ok(true);
    }
    // Whatever became of it afterwards: a sender may date a message into any moment at which it was in force. Were it asked for, a message could be
    // permitted by a delegation just because nothing takes that away, and be the ground of what takes it away.
    let until = at.later(SKEW_SECONDS);
    let soon = standing::delegations_between(reader, act.owner, at, &until, MAX_SKEWED)?;
    Ok(soon.iter().any(allowed))
}

/// True when the sender may undo a message: whoever may have created it, but for what says who may act, which is its owner's alone.
///
/// # Errors
/// The store fails.
pub(super) fn may_undo(
    reader: &dyn Reader,
    sender: &str,
    hash: &ItemHash,
    target: &MessageRecord,
    at: &Position,
) -> Result<bool, StoreError> {
    let key = standing::delegation_key(&target.owner, &Position::of(hash, target));
    if !is_same(sender, &target.owner) && reader.get(Table::Delegations, &key)?.is_some() {
        return Ok(false);
    }
    may(reader, sender, &Act::of_record(target), at)
}

/// True for one address in two spellings.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

fn allows(entry: &AuthorizationRecord, sender: &str, act: &Act<'_>) -> bool {
    let one_of = |list: &[String], value: Option<&str>| {
        list.is_empty() || value.is_some_and(|value| list.iter().any(|each| each == value))
    };
    // A message without such a label passes, and so does one of a type that has none.
    let labelled = |(name, values): &(String, Vec<String>)| {
        values.is_empty() || act.labels.iter().all(|(label, value)| label != name || values.contains(value))
    };
    entry.address.eq_ignore_ascii_case(sender)
        && entry.chain.as_deref().is_none_or(|chain| chain == act.chain)
        && one_of(&entry.channels, act.channel)
        && one_of(&entry.kinds, Some(act.kind))
        && entry.labels.iter().all(labelled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl Fn(&mut AuthorizationRecord), expect: bool) {
        let mut entry =
            AuthorizationRecord { address: "0xb".into(), chain: None, channels: vec![], kinds: vec![], labels: vec![] };
        change(&mut entry);
        let labels = [("word".to_owned(), "note".to_owned())];
        let act = Act { owner: "0xA", chain: "ETH", channel: Some("c"), kind: "T", labels: &labels };
        assert_eq!(allows(&entry, "0xB", &act), expect, "{entry:?}");
    }

    #[test]
    fn every_filter_of_an_entry_must_match() {
        check(|_| {}, true);
        check(|entry| entry.address = "0xC".into(), false);
        check(|entry| entry.chain = Some("ETH".into()), true);
        check(|entry| entry.chain = Some("SOL".into()), false);
        check(|entry| entry.channels = vec!["d".into(), "c".into()], true);
        check(|entry| entry.channels = vec!["d".into()], false);
        check(|entry| entry.kinds = vec!["U".into()], false);
        check(|entry| entry.labels = vec![("word".into(), vec!["note".into()])], true);
        check(|entry| entry.labels = vec![("word".into(), vec!["other".into()])], false);
        check(|entry| entry.labels = vec![("key".into(), vec!["other".into()])], true);
    }
}
