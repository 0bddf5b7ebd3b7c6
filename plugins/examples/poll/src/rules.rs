//! The rules of POLL.
//!
//! A verdict rests on the message and on the poll that it names, and the content of a poll never changes. Whether a poll is closed decides no
//! verdict: a close may still come from the past, and then what was accepted would have to be refused.

use crate::{
    content::Content,
    state::{self, Record},
};
use plugin_sdk::{
    Effects, Message, Need, Outcome, Plan, Rejection, Subject, View, Wait, Write, layout::Moment, message::ErrorCode,
    no_effects, rejected, text_of,
};

/// The poll is not here (yet).
pub(crate) const UNKNOWN_POLL: i32 = 600;
/// What is named is no poll.
pub(crate) const NO_POLL: i32 = 601;
/// The poll has no such option.
pub(crate) const NO_OPTION: i32 = 602;

pub(crate) fn validate(message: &Message) -> Result<Plan, Rejection> {
    Content::parse(text_of(message)?)?;
    Ok(Plan { subjects: vec![Subject::ThisMessage], labels: Vec::new() })
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
    let content = parse(message)?;
    let follows = match &content {
        Content::Create { .. } => None,
        Content::Vote { poll, option } => {
            let (_, options) = find(poll, message, view)?;
            if *option >= options {
                return Err(rejection(NO_OPTION, &format!("the poll {poll} has {options} options")).into());
            }
            // A vote is its voter's: it stays when the poll goes, and is not seen any more.
            None
        }
        Content::Close { poll } => {
            let (owner, _) = find(poll, message, view)?;
            if state::voter(&owner) != state::voter(&message.address) {
                return Err(
                    rejected(ErrorCode::PermissionDenied, format!("{owner} alone closes the poll {poll}")).into()
                );
            }
            Some(poll.clone())
        }
    };
    Ok(Effects { writes: writes(message, &content, true, view), follows, ..no_effects() })
}

/// Every message has rows of its own: they go with it.
pub(crate) fn withdraw(message: &Message, view: &dyn View) -> Vec<Write> {
    parse(message).map(|content| writes(message, &content, false, view)).unwrap_or_default()
}

/// The rows of a message, when it comes and when it goes.
fn writes(message: &Message, content: &Content, comes: bool, view: &dyn View) -> Vec<Write> {
    let moment = Moment { time: message.time, item_hash: message.item_hash.clone() };
    match content {
        Content::Create { question, options } => {
            let owner = message.address.clone();
            let record = Record { moment, owner, question: question.clone(), options: options.clone() };
            state::poll(&record, if comes { 1 } else { -1 }, view)
        }
        Content::Vote { poll, option } => vec![state::vote(poll, &message.address, &moment, comes.then_some(*option))],
        Content::Close { poll } => vec![state::close(poll, &moment, comes)],
    }
}

/// The owner of a poll, and how many options it has. Asked of the message itself, whose content is the same for ever, and not of the state.
fn find(poll: &str, message: &Message, view: &dyn View) -> Result<(String, usize), Refusal> {
    let Some(found) = view.message(poll) else {
        let otherwise = rejection(UNKNOWN_POLL, &format!("there is no poll {poll}"));
        return Err(Refusal::Waiting(Wait { missing: vec![Need::Message(poll.to_owned())], otherwise }));
    };
    match parse(&found.message) {
        Ok(Content::Create { options, .. }) if found.message.kind == message.kind => {
            Ok((found.message.address, options.len()))
        }
        _ => Err(rejection(NO_POLL, &format!("{poll} is no poll")).into()),
    }
}

fn parse(message: &Message) -> Result<Content, Rejection> {
    Ok(Content::parse(text_of(message)?)?)
}

/// A rejection with a code of this plugin's own. The node's are below 600.
fn rejection(code: i32, sentence: &str) -> Rejection {
    Rejection { code, errors: vec![serde_json::Value::from(sentence).to_string()] }
}

#[cfg(test)]
mod tests;
