//! The rules of AGGREGATE.
//!
//! The value of (owner, key) is the shallow merge of all its elements by (time, hash). It is kept by subkey, so that an element touches what it
//! names and nothing else, and what comes late finds its place.

use crate::{security, state};
use plugin_sdk::{
    Effects, Label, Message, Outcome, Plan, Rejection, Subject, View, Withdrawal, Write,
    layout::{Moment, aggregate},
    message::{ErrorCode, content::aggregate::AggregateContent},
    rejected, text_of,
};

/// An owner whose elements are kept as messages and never merged: nobody reads the result, which would be huge (ccn spec 2.2).
const NEVER_BUILT: &str = "0x51A58800b26AA1451aaA803d1746687cB88E0501";
/// Most subkeys of an element: taking it out again, whatever it covers, stays within what a message may write.
const MAX_SUBKEYS: usize = 25_000;

pub(crate) fn validate(message: &Message) -> Result<Plan, Rejection> {
    let content = AggregateContent::parse(text_of(message)?)?;
    if content.content.len() > MAX_SUBKEYS {
        let sentence = format!("content: at most {MAX_SUBKEYS} subkeys are allowed");
        return Err(rejected(ErrorCode::InvalidFormat, sentence));
    }
    let label = |name: &str, value: String| Label { name: name.to_owned(), value };
    let mut labels = vec![label("content-key", content.key)];
    labels.extend(content.tags.into_iter().map(|tag| label("tag", tag)));
    Ok(Plan { subjects: vec![Subject::ThisMessage], labels })
}

pub(crate) fn process(message: &Message, view: &dyn View) -> Outcome {
    effects(message, view).map_or_else(Outcome::Rejected, Outcome::Accepted)
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
    let moment = Moment::of(message);
    effects.writes = state::add_element(owner, key, &moment, view);
    for (subkey, value) in content.content.rest() {
        effects.writes.extend(state::add_version(owner, key, &moment, (subkey, value.text()), view));
        if *key == security::KEY && subkey == security::SUBKEY {
            // From its own moment on, whatever follows: the node puts delegations in order.
            effects.authorizations = Some(security::read(value));
        }
    }
    Ok(effects)
}

/// Takes an element out, or the trace that it left when it was forgotten.
pub(crate) fn withdraw(message: &Message, why: Withdrawal, view: &dyn View) -> Vec<Write> {
    let Ok(text) = text_of(message) else { return Vec::new() };
    let Ok(content) = AggregateContent::parse(text) else { return Vec::new() };
    let (owner, key, moment) = (&message.address, &content.key, Moment::of(message));
    if view.get(&aggregate::elements(owner, key).moment(&moment)).is_none() {
        return match why {
            Withdrawal::Void => state::remove_gone(owner, key, &moment, view),
            Withdrawal::Forgotten => Vec::new(),
        };
    }
    let mut writes = state::remove_element(owner, key, &moment, why == Withdrawal::Forgotten, view);
    for (subkey, _) in content.content.rest() {
        writes.extend(state::remove_version(owner, key, &moment, subkey, view));
    }
    writes
}

#[cfg(test)]
mod tests;
