//! Whether a message that was accepted by one version of its plugin has the same effects by another.

use super::super::desk::{Desk, pending_key};
use crate::{
    host::Effects,
    store::{
        Reader as _, StoreError,
        record::{BasisRecord, CreditRecord, DelegationRecord, FactRecord, MessageRecord, Question, Record as _},
        schema::Table,
        standing::{self, Position},
    },
};
use ccn_message::{ItemHash, ItemType};
use std::collections::BTreeSet;

/// True when a message that stands has, beyond the state of its type, just these effects. Balances and what is to be run are not compared: they are
/// as the message was accepted.
pub(super) fn are_the_same(
    desk: &Desk,
    hash: &ItemHash,
    message: &MessageRecord,
    effects: &Effects,
) -> Result<bool, StoreError> {
    let envelope = message.envelope.clone().envelope()?;
    let basis = desk.basis(&pending_key(&envelope))?.unwrap_or_default();
    let at = Position::of(hash, message);
    let texts = |hashes: &[ItemHash]| hashes.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut pins: BTreeSet<String> = effects.pins.iter().map(|(file, _)| file.to_string()).collect();
    if envelope.item_type != ItemType::Inline {
        pins.insert(hash.to_string());
    }
    let forgets = texts(&effects.forgets);
    let same_basis = texts(&effects.uses) == basis.uses
        // What was gone already is not among those that it hides.
        && basis.forgets.iter().all(|target| forgets.contains(target))
        && effects.follows.as_ref().map(ToString::to_string) == basis.follows
        && basis.pins.iter().cloned().collect::<BTreeSet<_>>() == pins
        && watched(&basis) == effects.watches.iter().map(|(namespace, key)| (namespace.as_str(), key.as_slice())).collect();
    if !same_basis {
        return Ok(false);
    }
    let same_costs = match (&effects.costs, &desk.read().costs(hash)?) {
        (Some(price), Some(costs)) => price.payment == costs.payment && price.lines == costs.lines,
        (None, None) => true,
        _ => false,
    };
    let moved = desk.read().get(Table::Credits, at.bytes())?.map(|row| CreditRecord::read(&row)).transpose()?;
    let place = standing::delegation_key(&message.owner, &at);
    let given = desk.read().get(Table::Delegations, &place)?.map(|row| DelegationRecord::read(&row)).transpose()?;
    Ok(same_costs
        && moved.map_or_else(Vec::new, |record| record.movements) == effects.movements
        && given.map(|record| record.entries) == effects.authorizations)
}

/// Keys of state that a message watches.
fn watched<'a>(basis: &'a BasisRecord) -> BTreeSet<(&'a str, &'a [u8])> {
    let key = |fact: &'a FactRecord| match &fact.question {
        Question::State(namespace, key) => Some((namespace.as_str(), key.as_slice())),
        _ => None,
    };
    basis.facts.iter().filter_map(key).collect()
}
