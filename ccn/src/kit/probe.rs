//! One message at a time, straight at the plugin: what a call takes, whether it answers twice the same, and whether what it takes out of the state comes
//! back as it was.

use super::{fixture::Fixture, scene::Scene};
use crate::{
    host::{Outcome, Plugin, Write, contract, state_key},
    store::{
        Batch, Reader, Row,
        schema::{Table, hash_key},
    },
};
use anyhow::{Context as _, Result};
use ccn_message::{Envelope, envelope::ContentHeader};
use std::sync::Arc;

/// What a message took.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Cost {
    /// Of `validate` and `process` together.
    pub(super) fuel: u64,
    /// Keys written.
    pub(super) writes: usize,
    /// Keys and values written.
    pub(super) bytes: usize,
}

/// A message as the plugin sees it; none when it is not of that plugin, or not inline.
pub(super) fn shown(fixture: &Fixture, plugin: &Plugin) -> Result<Option<contract::Message>> {
    let envelope = Envelope::parse(&fixture.envelope)?;
    let (Some(content), true) = (&envelope.item_content, plugin.manifest().types.contains(&envelope.kind)) else {
        return Ok(None);
    };
    let Ok(header) = ContentHeader::parse(content) else { return Ok(None) };
    Ok(Some(contract::Message {
        item_hash: envelope.item_hash.to_string(),
        kind: envelope.kind.clone(),
        sender: envelope.sender.clone(),
        chain: envelope.chain.name().to_owned(),
        channel: envelope.channel.clone(),
        address: header.address,
        time: header.time,
        envelope_time: envelope.time,
        content: content.as_bytes().to_vec(),
    }))
}

/// Has a message decided twice as of what a node holds; returns what that took, and complains when the two differ.
pub(super) fn twice(scene: &Scene, plugin: &Plugin, message: &contract::Message) -> Result<(Cost, Option<String>)> {
    let ask = || -> Result<_> {
        let reader = Arc::new(scene.service.store.snapshot()?);
        let before = plugin.statistics().fuel;
        let plan = plugin.validate(message)?;
        let outcome = match &plan {
            Ok(_) => Some(plugin.process(message, reader)?),
            Err(_) => None,
        };
        Ok((plan, outcome, plugin.statistics().fuel - before))
    };
    let (first, second) = (ask()?, ask()?);
    let mut cost = Cost { fuel: first.2.max(second.2), ..Cost::default() };
    if let Some(Outcome::Accepted(effects)) = &first.1 {
        cost.writes = effects.writes.len();
        cost.bytes = effects.writes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum();
    }
    let differs = (first.0 != second.0 || first.1 != second.1)
        .then(|| format!("decided twice, it differs: {:?} and {:?}", first.1, second.1));
    Ok((cost, differs))
}

/// Takes a message that stands out of the state and puts it in again; complains when that is not the state it was.
pub(super) fn there_and_back(
    scene: &Scene,
    plugin: &Plugin,
    message: &contract::Message,
    fixture: &Fixture,
) -> Result<Option<String>> {
    let namespace = plugin.manifest().namespace();
    let prefix = state_key(namespace, &[]);
    let snapshot = || scene.service.store.snapshot();
    let before = snapshot()?.prefixed(Table::State, &prefix)?;
    let sequence = snapshot()?.get(Table::Sequence, &hash_key(&fixture.hash))?.context("it stands")?;
    let desk = |writes: &[&Vec<Write>]| -> Result<Batch> {
        let mut batch = Batch::new(snapshot()?);
        batch.delete(Table::Sequence, hash_key(&fixture.hash));
        batch.delete(Table::Messages, sequence.clone());
        for (key, value) in writes.iter().flat_map(|writes| writes.iter()) {
            let key = state_key(namespace, key);
            match value {
                Some(value) => batch.put(Table::State, key, value.clone()),
                None => batch.delete(Table::State, key),
            }
        }
        batch.keep();
        Ok(batch)
    };
    let out = plugin.withdraw(message, contract::Withdrawal::Void, Arc::new(desk(&[])?))?;
    let back = match plugin.process(message, Arc::new(desk(&[&out])?))? {
        Outcome::Accepted(effects) => effects.writes,
        other => return Ok(Some(format!("taken out by `withdraw`, it is not accepted again: {other:?}"))),
    };
    let after = desk(&[&out, &back])?.prefixed(Table::State, &prefix)?;
    Ok(difference(&before, &after).map(|what| format!("`process` after `withdraw` does not restore the state: {what}")))
}

/// The first row in which two states differ.
pub(super) fn difference(one: &[Row], other: &[Row]) -> Option<String> {
    let only = |some: &[Row], others: &[Row]| some.iter().find(|row| !others.contains(row)).cloned();
    let show = |bytes: &[u8]| bytes.escape_ascii().to_string().chars().take(200).collect::<String>();
    let (ours, theirs) = (only(one, other), only(other, one));
    match (ours, theirs) {
        (None, None) => None,
        (Some((key, value)), None) => Some(format!("key {} = {} is in one only", show(&key), show(&value))),
        (None, Some((key, value))) => Some(format!("key {} = {} is in the other only", show(&key), show(&value))),
        (Some((key, value)), Some((other_key, other_value))) => Some(format!(
            "key {} = {} against key {} = {}",
            show(&key),
            show(&value),
            show(&other_key),
            show(&other_value)
        )),
    }
}
