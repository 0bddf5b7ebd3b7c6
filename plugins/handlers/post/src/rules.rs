//! The rules of POST.
//!
//! An amend names the post that it changes, which must be here, be of the same owner and be no amend itself. The newest amend by (time, hash)
//! takes the place of the content, whatever comes first.

use crate::{
    ledger,
    state::{self, Record},
};
use plugin_sdk::{
    Effects, Label, LedgerEntry, Message, Need, Outcome, Plan, Rejection, Subject, View, Wait, Write,
    layout::{Moment, bounded},
    message::{
        ErrorCode, ItemHash,
        content::post::{AMEND, PostContent},
    },
    rejected, text_of,
};

pub(crate) fn validate(message: &Message) -> Result<Plan, Rejection> {
    let content = PostContent::parse(text_of(message)?)?;
    let amended = content.reference.as_ref().filter(|_| content.kind == AMEND);
    let subject = match amended {
        Some(original) if ItemHash::parse(original).is_ok() => Subject::OtherMessage(original.clone()),
        _ => Subject::ThisMessage,
    };
    let label = |name: &str, value: String| Label { name: name.to_owned(), value };
    let mut labels = vec![label("content-type", content.kind)];
    labels.extend(content.reference.map(|reference| label("content-ref", reference)));
    labels.extend(content.tags.into_iter().map(|tag| label("tag", tag)));
    Ok(Plan { subjects: vec![subject], labels })
}

pub(crate) fn process(message: &Message, view: &dyn View) -> Outcome {
    match effects(message, view) {
        Ok(effects) => Outcome::Accepted(effects),
        Err(Refusal::Rejected(rejection)) => Outcome::Rejected(rejection),
        Err(Refusal::Waiting(wait)) => Outcome::Waiting(wait),
    }
}

/// Why a message is not accepted now.
enum Refusal {
    Rejected(Rejection),
    Waiting(Wait),
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

fn effects(message: &Message, view: &dyn View) -> Result<Effects, Refusal> {
    let content = PostContent::parse(text_of(message)?).map_err(Rejection::from)?;
    let (writes, entries) = if content.kind == AMEND {
        (amend(message, content, view)?, Vec::new())
    } else {
        let entries: Vec<LedgerEntry> = ledger::entry(message, &content, view)?.into_iter().collect();
        (post(message, content, view), entries)
    };
    Ok(Effects { writes, ledger: entries, ..plugin_sdk::no_effects() })
}

fn post(message: &Message, content: PostContent<'_>, view: &dyn View) -> Vec<Write> {
    let text = |text: &String| bounded(text).into_owned();
    let mut record = Record::new(&message.address, &content.kind, message.time);
    record.reference = content.reference.as_ref().map(text);
    record.channel = message.channel.as_ref().map(text);
    record.tags = state::bounded_tags(content.tags);
    state::change(&message.item_hash, None, &record, view)
}

fn amend(message: &Message, content: PostContent<'_>, view: &dyn View) -> Result<Vec<Write>, Refusal> {
    let original = content.reference.unwrap_or_default();
    let Some(record) = Record::find(&original, view) else {
        let unknown = rejected(ErrorCode::PostAmendTargetNotFound, format!("there is no post {original} to amend"));
        return Err(match view.message(&original) {
            Some(found) if found.message.kind == message.kind => {
                let sentence = format!("{original} is an amend itself; name the post that it amends");
                rejected(ErrorCode::PostAmendAmend, sentence).into()
            }
            // What is no hash names no post, and a message that is here and of another type never becomes one.
            None if ItemHash::parse(&original).is_ok() => {
                Refusal::Waiting(Wait { missing: vec![Need::Message(original)], otherwise: unknown })
            }
            _ => unknown.into(),
        });
    };
    if record.owner != bounded(&message.address) {
        let sentence = format!("{original} belongs to {}", record.owner);
        return Err(rejected(ErrorCode::PermissionDenied, sentence).into());
    }
    let moment = Moment { time: message.time, item_hash: message.item_hash.clone() };
    let mut writes = vec![state::amend(&original, &moment)];
    if record.is_older_than(&moment) {
        let amended = record.amended(&moment, content.tags);
        writes.extend(state::change(&original, Some(&record), &amended, view));
    }
    Ok(writes)
}

/// PLACEHOLDER until the handlers learn to forget.
pub(crate) fn withdraw(_message: &Message, _why: plugin_sdk::Withdrawal, _view: &dyn View) -> Vec<plugin_sdk::Write> {
    Vec::new()
}

#[cfg(test)]
mod tests;
