//! The rules of AGGREGATE.
//!
//! The value of (owner, key) is the shallow merge of all its elements by (time, hash). It is kept by subkey, so that an element touches what it
//! names and nothing else, and what comes late finds its place.

use crate::{security, state};
use plugin_sdk::{
    Effects, Label, Message, Outcome, Plan, Rejection, Subject, View,
    layout::{
        Moment,
        aggregate::{self, Current},
    },
    message::{ErrorCode, content::aggregate::AggregateContent},
    rejected, text_of,
};

/// An owner whose elements are kept as messages and never merged: nobody reads the result, which would be huge (ccn spec 2.2).
const NEVER_BUILT: &str = "0x51A58800b26AA1451aaA803d1746687cB88E0501";

pub(crate) fn validate(message: &Message) -> Result<Plan, Rejection> {
    let content = AggregateContent::parse(text_of(message)?)?;
    let label = |name: &str, value: String| Label { name: name.to_owned(), value };
    let mut labels = vec![label("content-key", content.key)];
    labels.extend(content.tags.into_iter().map(|tag| label("tag", tag)));
    Ok(Plan { subjects: vec![Subject::ThisMessage], labels })
}

pub(crate) fn process(message: &Message, view: &dyn View) -> Outcome {
    match effects(message, view) {
        Ok(effects) => Outcome::Accepted(effects),
        Err(rejection) => Outcome::Rejected(rejection),
    }
}

fn effects(message: &Message, view: &dyn View) -> Result<Effects, Rejection> {
    let content = AggregateContent::parse(text_of(message)?)?;
    let (owner, key) = (&message.address, &content.key);
    if *key == security::KEY && !message.sender.eq_ignore_ascii_case(owner) {
        let sentence = "who may act for an address is decided by that address alone";
        return Err(rejected(ErrorCode::PermissionDenied, sentence));
    }
    let mut effects = plugin_sdk::no_effects();
    if owner == NEVER_BUILT {
        return Ok(effects);
    }
    let moment = Moment { time: message.time, item_hash: message.item_hash.clone() };
    effects.writes = state::add_element(owner, key, &moment, view);
    for (subkey, value) in content.content.rest() {
        effects.writes.push(state::write(state::version(owner, key, subkey, &moment), Vec::new()));
        let place = aggregate::current(owner, key, subkey);
        let newest = view.get(&place).and_then(|value| Some(Current::read(&value)?.moment));
        if newest.is_some_and(|newest| newest > moment) {
            continue;
        }
        let current = Current { moment: moment.clone(), subkey, json: value.text() };
        effects.writes.push(state::write(place, current.to_bytes()));
        if *key == security::KEY && subkey == security::SUBKEY {
            effects.authorizations = Some(security::read(value));
        }
    }
    Ok(effects)
}

/// PLACEHOLDER until the handlers learn to forget.
pub(crate) fn withdraw(_message: &Message, _why: plugin_sdk::Withdrawal, _view: &dyn View) -> Vec<plugin_sdk::Write> {
    Vec::new()
}

#[cfg(test)]
mod tests;
