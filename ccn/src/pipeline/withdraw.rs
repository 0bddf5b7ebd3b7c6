//! Taking messages out again: hidden because somebody entitled to it wants that, or void because what they rested on has changed.
//!
//! A void message is put among those that wait, for its own turn: it is decided anew in a layer of its own, and ends up as it was when nothing that
//! matters has changed. Whoever depends on it looks again only then.

use super::{
    decide::{Rules, Undecided},
    desk::{Desk, pending_key},
    facts::Asking,
    rank::Rank,
    rebuild,
};
use crate::{
    host::{HostError, Outcome, Plugins, Withdrawal, contract_message},
    ledger,
    store::{
        Reader as _, StoreError,
        record::{
            BasisRecord, DelegationRecord, ForgottenRecord, MessageRecord, NeedRecord, PendingRecord, Record as _,
        },
        schema::{Key, Table, hash_key},
        standing::{self, Position},
    },
};
use ccn_message::{ItemHash, MessageStatus};
use std::sync::Arc;

/// A message names another one as one to hide.
pub(super) fn forget(
    desk: &mut Desk,
    plugins: &Plugins,
    rules: &Rules,
    target: &ItemHash,
    by: &Position,
) -> Result<(), Undecided> {
    desk.edit().put(Table::Forgets, by.key_under(target), Vec::new());
    if desk.read().message(target)?.is_some() {
        return hide(desk, plugins, rules, target, &[]);
    }
    if let Some(record) = standing::forgotten(desk.read(), target)? {
        rehide(desk, target, &record)?;
    }
    Ok(())
}

/// Hides a message that stands.
pub(super) fn hide(
    desk: &mut Desk,
    plugins: &Plugins,
    rules: &Rules,
    hash: &ItemHash,
    inherited: &[Position],
) -> Result<(), Undecided> {
    let Some(message) = desk.remove(hash)? else { return Ok(()) };
    let key = key_of(&message)?;
    let basis = desk.basis(&key)?.unwrap_or_default();
    take_out(desk, plugins, hash, &message, Withdrawal::Forgotten, false)?;
    let grace_until = rules.now.saturating_add(rules.grace);
    release(desk, hash, &basis, grace_until)?;
    let batch = desk.edit();
    batch.put(Table::Purge, Key::new().number(grace_until).hash(hash).done(), Vec::new());
    let inherited = inherited.iter().map(|position| position.bytes().to_vec()).collect();
    let reception_time = message.reception_time;
    let record = ForgottenRecord { message, inherited, purged: false, purge_at: grace_until };
    batch.put(Table::Forgotten, hash_key(hash), record.to_bytes());
    // It looks again when those that hide it change.
    let need = super::desk::need_key(&NeedRecord::Recheck(hash.to_string()));
    batch.put(Table::Needs, [need.as_slice(), &key].concat(), Vec::new());
    desk.set_status(hash, MessageStatus::Forgotten, reception_time, None)?;
    rehide(desk, hash, &record)
}

/// Brings what depends on a hidden message up to date with those that hide it.
fn rehide(desk: &mut Desk, hash: &ItemHash, record: &ForgottenRecord) -> Result<(), Undecided> {
    let first = standing::hidden_by(desk.read(), hash, record)?.into_iter().next();
    let until = first.map(|position| position.bytes().to_vec());
    let at = Position::of(hash, &record.message);
    let owner = &record.message.owner;
    let place = standing::delegation_key(owner, &at);
    if let Some(row) = desk.read().get(Table::Delegations, &place)? {
        let mut delegation = DelegationRecord::read(&row).map_err(StoreError::from)?;
        if delegation.until != until {
            delegation.until.clone_from(&until);
            desk.edit().put(Table::Delegations, place, delegation.to_bytes());
            desk.arrived(&NeedRecord::Delegation(owner.clone()))?;
        }
    }
    let basis = desk.basis(&key_of(&record.message)?)?.unwrap_or_default();
    for used in hashes(&basis.uses) {
        let value = until.clone().unwrap_or_default();
        desk.edit().put(Table::Uses, at.key_under(&used), value);
        desk.arrived(&NeedRecord::InUse(used.to_string()))?;
    }
    desk.arrived(&NeedRecord::Message(hash.to_string()))?;
    Ok(())
}

/// Looks again at a hidden message: still hidden, or to be decided anew.
pub(super) fn recheck(desk: &mut Desk, plugins: &Plugins, rules: &Rules, hash: &ItemHash) -> Result<(), Undecided> {
    let Some(record) = standing::forgotten(desk.read(), hash)? else { return Ok(()) };
    if standing::hidden_by(desk.read(), hash, &record)?.is_empty() {
        return void(desk, plugins, rules, hash);
    }
    rehide(desk, hash, &record)
}

/// Takes everything back that a message did, and has it decided anew.
pub(super) fn void(desk: &mut Desk, plugins: &Plugins, rules: &Rules, hash: &ItemHash) -> Result<(), Undecided> {
    let (message, was_hidden) = match desk.remove(hash)? {
        Some(message) => (message, false),
        None => {
            // What is deleted cannot come back: forgetting is final then.
            let Some(record) = standing::forgotten(desk.read(), hash)?.filter(|record| !record.purged) else {
                return Ok(());
            };
            let batch = desk.edit();
            batch.delete(Table::Forgotten, hash_key(hash));
            batch.delete(Table::Purge, Key::new().number(record.purge_at).hash(hash).done());
            (record.message, true)
        }
    };
    let key = key_of(&message)?;
    let at = Position::of(hash, &message);
    let recheck = super::desk::need_key(&NeedRecord::Recheck(hash.to_string()));
    desk.edit().delete(Table::Needs, [recheck.as_slice(), &key].concat());
    let basis = desk.take_basis(&key, hash)?;
    release(desk, hash, &basis, rules.now.saturating_add(rules.grace))?;
    let envelope = message.envelope.clone().envelope().map_err(StoreError::from)?;
    let pending = PendingRecord {
        envelope: message.envelope.clone(),
        rank: Rank::of(&envelope, &message.owner).to_record(),
        reception_time: message.reception_time,
        needs: vec![NeedRecord::Again(hash.to_string())],
        facts: Vec::new(),
        settled: true,
        otherwise: (ccn_message::ErrorCode::Internal.number(), Vec::new()),
        horizon: Some(rules.now.saturating_add(rules.horizon)),
    };
    desk.put_pending(&key, &pending)?;
    desk.set_status(hash, MessageStatus::Pending, message.reception_time, None)?;
    // First its own turn, then those of other copies, then those who depend on it.
    desk.arrived(&NeedRecord::Again(hash.to_string()))?;
    desk.arrived(&NeedRecord::Outranked(hash.to_string()))?;
    take_out(desk, plugins, hash, &message, Withdrawal::Void, was_hidden)?;
    let place = standing::delegation_key(&message.owner, &at);
    if desk.read().get(Table::Delegations, &place)?.is_some() {
        desk.edit().delete(Table::Delegations, place);
        desk.arrived(&NeedRecord::Delegation(message.owner.clone()))?;
    }
    for used in hashes(&basis.uses) {
        desk.edit().delete(Table::Uses, at.key_under(&used));
        desk.arrived(&NeedRecord::InUse(used.to_string()))?;
    }
    take_back(desk, &at)?;
    for target in hashes(&basis.forgets) {
        desk.edit().delete(Table::Forgets, at.key_under(&target));
        desk.arrived(&NeedRecord::Recheck(target.to_string()))?;
    }
    if !basis.balances.is_empty() {
        republish(desk, plugins, &basis)?;
    }
    desk.arrived(&NeedRecord::Message(hash.to_string()))?;
    Ok(())
}

/// Lets go of what a message keeps and costs.
pub(super) fn release(
    desk: &mut Desk,
    hash: &ItemHash,
    basis: &BasisRecord,
    grace_until: u64,
) -> Result<(), StoreError> {
    for file in hashes(&basis.pins) {
        desk.unpin(&file, hash, grace_until)?;
    }
    desk.refund(hash)?;
    desk.edit().delete(Table::Workloads, hash_key(hash));
    Ok(())
}

/// True when a message would be accepted with the same consequences for others as it was.
///
/// # Errors
/// The store fails.
pub(super) fn has_same_outcome(
    desk: &Desk,
    plugins: &Plugins,
    hash: &ItemHash,
    message: &MessageRecord,
    basis: &BasisRecord,
) -> Result<bool, Undecided> {
    let Some(plugin) = plugins.for_kind(&message.envelope.kind) else { return Ok(false) };
    let asking = Arc::new(Asking::new(desk.reader(), Position::of(hash, message)));
    let Ok(Outcome::Accepted(effects)) = plugin.process(&contract_message(hash, message), asking) else {
        return Ok(false);
    };
    let same_costs = match (&effects.costs, desk.read().costs(hash)?) {
        // Of a hidden message nothing is charged.
        (Some(price), Some(costs)) => price.payment == costs.payment && price.lines == costs.lines,
        _ => true,
    };
    let texts = |hashes: &[ItemHash]| hashes.iter().map(ToString::to_string).collect::<Vec<_>>();
    Ok(same_costs
        && texts(&effects.uses) == basis.uses
        && texts(&effects.forgets) == basis.forgets
        && effects.follows.as_ref().map(ToString::to_string) == basis.follows)
}

/// Takes back what the message of that position moved in the ledger.
pub(super) fn take_back(desk: &mut Desk, place: &Position) -> Result<(), StoreError> {
    for flipped in ledger::take_back(desk.edit(), place)? {
        desk.arrived(&NeedRecord::Covered(flipped.to_string()))?;
    }
    Ok(())
}

/// Balances that a message published no longer count: the others' do.
fn republish(desk: &mut Desk, plugins: &Plugins, gone: &BasisRecord) -> Result<(), Undecided> {
    for (chain, dapp, addresses) in &gone.balances {
        for address in addresses {
            desk.edit().delete(Table::Balances, Key::new().text(address).text(chain).text(dapp).done());
        }
    }
    for (key, row) in desk.read().prefixed(Table::Bases, b"")? {
        let basis = BasisRecord::read(&row).map_err(StoreError::from)?;
        let concerns = |(chain, dapp, _): &(String, String, _)| {
            gone.balances.iter().any(|(other, other_dapp, _)| other == chain && other_dapp == dapp)
        };
        let Some(hash) = super::desk::hash_of_pending(&key).filter(|_| basis.balances.iter().any(concerns)) else {
            continue;
        };
        let message = match desk.read().message(&hash)? {
            Some(message) => Some(message),
            None => standing::forgotten(desk.read(), &hash)?.map(|record| record.message),
        };
        let Some(message) = message else { continue };
        let Some(plugin) = plugins.for_kind(&message.envelope.kind) else { continue };
        let outcome = plugin.process(&contract_message(&hash, &message), desk.reader());
        if let Ok(Outcome::Accepted(effects)) = outcome {
            for published in &effects.balances {
                desk.publish(published)?;
            }
        }
    }
    Ok(())
}

/// Takes a message out of its plugin's state.
fn take_out(
    desk: &mut Desk,
    plugins: &Plugins,
    hash: &ItemHash,
    message: &MessageRecord,
    why: Withdrawal,
    was_hidden: bool,
) -> Result<(), StoreError> {
    let kind = &message.envelope.kind;
    let rebuilding = plugins.rebuilding_for(kind);
    if let Some(plugin) = &rebuilding {
        rebuild::withdrawn(desk, plugin, hash, message, why, was_hidden)?;
    }
    let Some(plugin) = plugins.for_kind(kind) else {
        tracing::warn!("{hash} is taken out, and no plugin takes it out of the state of its type");
        return if rebuilding.is_some() { Ok(()) } else { rebuild::want_for(desk, kind) };
    };
    let namespace = plugin.manifest().namespace();
    // Rows of a state that is made anew tell nothing of the one that serves.
    if rebuild::progress(desk.read(), namespace)?.is_none() && rebuild::take_odd(desk, namespace, message)? {
        return Ok(());
    }
    match plugin.withdraw(&contract_message(hash, message), why, desk.reader()) {
        Ok(writes) => desk.write_state(namespace, writes),
        Err(HostError::Store(error)) => Err(error),
        Err(error) => {
            tracing::error!("{hash} is taken out, and stays in the state of its type: {error}");
            if rebuilding.is_some() { Ok(()) } else { rebuild::want(desk, namespace) }
        }
    }
}

pub(super) fn key_of(message: &MessageRecord) -> Result<Vec<u8>, StoreError> {
    Ok(pending_key(&message.envelope.clone().envelope()?))
}

fn hashes(texts: &[String]) -> Vec<ItemHash> {
    texts.iter().filter_map(|text| ItemHash::parse(text).ok()).collect()
}
