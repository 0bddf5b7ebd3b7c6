//! Who may act for whom (messages spec 9).

use crate::{
    host::contract,
    store::{
        Reader, StoreError,
        record::{AuthorizationRecord, MessageRecord, Record as _},
        schema::{Key, Table},
    },
};

/// An act that needs permission: creating a message.
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

/// The key of an owner's delegations.
pub(super) fn delegations_key(owner: &str) -> Vec<u8> {
    Key::new().text(owner).done()
}

/// True when the owner acts, or somebody whom the owner allows to.
///
/// # Errors
/// The store fails.
pub(super) fn may(reader: &dyn Reader, sender: &str, act: &Act<'_>) -> Result<bool, StoreError> {
    if sender.eq_ignore_ascii_case(act.owner) {
        return Ok(true);
    }
    let Some(row) = reader.get(Table::Authorizations, &delegations_key(act.owner))? else { return Ok(false) };
    let entries = Vec::<AuthorizationRecord>::read(&row)?;
    Ok(entries.iter().any(|entry| allows(entry, sender, act)))
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
