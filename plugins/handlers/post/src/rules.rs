//! The rules of POST.
//!
//! An amend names the post that it changes, which must be here, be of the same owner and be no amend itself. The newest amend by (time, hash)
//! takes the place of the content, whatever comes first.

use crate::{
    ledger, measurements,
    state::{self, Record},
};
use plugin_sdk::{
    Effects, Fate, Label, LedgerEntry, Message, Need, Outcome, Plan, Refusal, Rejection, Subject, View, Write,
    layout::{Moment, bounded, delete},
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
    effects(message, view).into()
}

fn effects(message: &Message, view: &dyn View) -> Result<Effects, Refusal> {
    let content = PostContent::parse(text_of(message)?)?;
    if content.kind == AMEND {
        let original = amended(message, &content, view)?;
        let moment = Moment::of(message);
        let tags = state::bounded_tags(content.tags);
        let mut writes = vec![state::put_amend(&original, &moment, &tags)];
        // The original may be hidden by a message later than this one, which will hide this one too.
        if let Some(record) = Record::find(&original, view) {
            let after = record.clone().amended(&moment, tags);
            writes.extend(state::change(&original, Some(&record), Some(&after), view));
        }
        return Ok(Effects { writes, follows: Some(original), ..plugin_sdk::no_effects() });
    }
    let measured = measurements::put_all(message, &content, view);
    let ledger: Vec<LedgerEntry> = ledger::entry(message, &content, view)?.into_iter().collect();
    let text = |text: &String| bounded(text).into_owned();
    let mut record = Record::new(&message.address, &content.kind, content.tags, message.time);
    record.reference = content.reference.as_ref().map(text);
    record.channel = message.channel.as_ref().map(text);
    // Amends may be here already, if it stood before.
    let record = record.newest(&message.item_hash, None, view);
    let mut writes = state::change(&message.item_hash, None, Some(&record), view);
    writes.extend(measured);
    Ok(Effects { writes, ledger, ..plugin_sdk::no_effects() })
}

/// The post that an amend changes: one that is here, is no amend and is of the same owner.
fn amended(message: &Message, content: &PostContent<'_>, view: &dyn View) -> Result<String, Refusal> {
    let original = content.reference.clone().unwrap_or_default();
    let unknown = rejected(ErrorCode::PostAmendTargetNotFound, format!("there is no post {original} to amend"));
    if view.fate_of(&original) != Fate::Standing {
        // What is no hash names no post.
        return Err(match ItemHash::parse(&original) {
            Ok(_) => Refusal::waiting(vec![Need::Message(original)], unknown),
            Err(_) => unknown.into(),
        });
    }
    let check_owner = |owner: &str| match owner == bounded(&message.address) {
        true => Ok(()),
        false => Err(rejected(ErrorCode::PermissionDenied, format!("{original} belongs to {owner}"))),
    };
    // A post that stands now has a record, whose size does not depend on the post's.
    if let Some(record) = Record::find(&original, view) {
        check_owner(&record.owner)?;
        return Ok(original);
    }
    // One that is hidden by a message later than this one, an amend, or no post at all.
    let Some(found) = view.message(&original) else { return Err(unknown.into()) };
    if found.message.kind != message.kind {
        return Err(unknown.into());
    }
    if PostContent::parse(text_of(&found.message)?)?.kind == AMEND {
        let sentence = format!("{original} is an amend itself; name the post that it amends");
        return Err(rejected(ErrorCode::PostAmendAmend, sentence).into());
    }
    check_owner(&bounded(&found.message.address))?;
    Ok(original)
}

/// Takes a post or an amend out. Nothing is kept of what is forgotten: others name posts by their hash alone.
pub(crate) fn withdraw(message: &Message, view: &dyn View) -> Vec<Write> {
    let Ok(text) = text_of(message) else { return Vec::new() };
    let Ok(content) = PostContent::parse(text) else { return Vec::new() };
    if content.kind != AMEND {
        let record = Record::find(&message.item_hash, view);
        let mut writes = state::change(&message.item_hash, record.as_ref(), None, view);
        writes.extend(measurements::delete_all(message, &content, view));
        return writes;
    }
    let (original, moment) = (content.reference.unwrap_or_default(), Moment::of(message));
    let mut writes = vec![delete(state::amend(&original, &moment))];
    if let Some(record) = Record::find(&original, view)
        && record.amend() == Some(&message.item_hash)
    {
        let after = record.clone().newest(&original, Some(&moment), view);
        writes.extend(state::change(&original, Some(&record), Some(&after), view));
    }
    writes
}

#[cfg(test)]
mod tests;
