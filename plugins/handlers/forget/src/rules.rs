//! The rules of FORGET.
//!
//! Everything is judged as of the time of the FORGET, of which it is the last: a target that an earlier one has taken away is passed over, and what a
//! later message uses is not in use. All targets go, or none.

use plugin_sdk::{
    Effects, Fate, Message, Need, Outcome, Plan, Refusal, Rejection, Subject, View,
    layout::{Key, Moment, aggregate, end_of},
    message::{ErrorCode, content::forget::ForgetContent},
    rejected, text_of,
};
use serde_json::json;

/// The type itself, which is not forgotten.
const FORGET: &str = "FORGET";
/// Most messages that one FORGET takes away; an owner with more elements under one key needs several.
const MAX_FORGETS: usize = 10_000;
/// Rows read at a time.
const PAGE: u32 = 1000;

pub(crate) fn validate(message: &Message) -> Result<Plan, Rejection> {
    let content = ForgetContent::parse(text_of(message)?)?;
    // Elements of aggregates are judged one by one when it is known which they are.
    Ok(Plan { subjects: targets(&content).into_iter().map(Subject::OtherMessage).collect(), labels: Vec::new() })
}

pub(crate) fn process(message: &Message, view: &dyn View) -> Outcome {
    effects(message, view).into()
}

/// The messages that are named, each once, in order.
fn targets(content: &ForgetContent) -> Vec<String> {
    let mut targets: Vec<String> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for hash in &content.hashes {
        if seen.insert(hash) {
            targets.push(hash.to_string());
        }
    }
    targets
}

fn effects(message: &Message, view: &dyn View) -> Result<Effects, Refusal> {
    let content = ForgetContent::parse(text_of(message)?)?;
    if content.hashes.is_empty() && content.aggregates.is_empty() {
        return Err(rejected(ErrorCode::ForgetNoTarget, "it names nothing to forget").into());
    }
    let mut found = Found::default();
    for target in targets(&content) {
        match view.fate_of(&target) {
            Fate::Standing => found.forgets.push(target),
            Fate::Forgotten => {}
            Fate::Unknown => {
                found.lack(Need::Message(target.clone()), &json!({"message": target}));
            }
        }
    }
    let mut watches = Vec::new();
    let mut keys: Vec<String> = content.aggregates.iter().map(ToString::to_string).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        let tally = (aggregate::NAMESPACE.to_owned(), aggregate::tally(&message.address, &key));
        let elements = elements_before(message, &key, view);
        if elements.is_empty() {
            found.lack(Need::State(tally.clone()), &json!({"aggregate": key}));
        }
        found.forgets.extend(elements.into_iter().filter(|hash| view.fate_of(hash) == Fate::Standing));
        if found.forgets.len() > MAX_FORGETS {
            let sentence = format!("one FORGET takes away {MAX_FORGETS} messages at most");
            return Err(Refusal::waiting(vec![Need::State(tally)], rejected(ErrorCode::ForgetNotAllowed, sentence)));
        }
        watches.push(tally);
    }
    if !found.missing.is_empty() {
        let otherwise = Rejection { code: ErrorCode::ForgetTargetNotFound.number(), errors: found.errors };
        return Err(Refusal::waiting(found.missing, otherwise));
    }
    // Only now: while something is missing, a verdict would depend on what of the rest came first.
    let is_forget = |hash: &&String| view.kind_of(hash).is_some_and(|kind| kind == FORGET);
    if let Some(target) = found.forgets.iter().find(is_forget) {
        return Err(refuse(ErrorCode::ForgetForget, &json!({"message": target})).into());
    }
    if let Some(target) = found.forgets.iter().find(|hash| view.in_use(hash)) {
        return Err(refuse(ErrorCode::ForgetNotAllowed, &json!({"message": target})).into());
    }
    Ok(Effects { forgets: found.forgets, watches, ..plugin_sdk::no_effects() })
}

/// What the targets come to.
#[derive(Default)]
struct Found {
    forgets: Vec<String>,
    missing: Vec<Need>,
    /// What is said of what is missing.
    errors: Vec<String>,
}

impl Found {
    fn lack(&mut self, need: Need, error: &serde_json::Value) {
        self.missing.push(need);
        self.errors.push(error.to_string());
    }
}

fn refuse(code: ErrorCode, error: &serde_json::Value) -> Rejection {
    Rejection { code: code.number(), errors: vec![error.to_string()] }
}

/// Elements of an aggregate of the owner before the FORGET: those that stand, and those that were forgotten already, be it by this very message.
fn elements_before(message: &Message, key: &str, view: &dyn View) -> Vec<String> {
    let mut elements = Vec::new();
    let mut collect = |table: Key| {
        let (prefix, end) = (table.clone().done(), end_of(&table.time(message.time).done()));
        let mut start = prefix.clone();
        // One more than may be forgotten is enough to know that there are too many.
        while elements.len() <= 2 * MAX_FORGETS {
            let page = view.scan_in(aggregate::NAMESPACE, &start, &end, PAGE, false);
            elements.extend(page.items.iter().filter_map(|(row, _)| Some(Moment::of_key(&prefix, row)?.item_hash)));
            let Some((last, _)) = page.items.last().filter(|_| page.more) else { break };
            start.clone_from(last);
            start.push(0);
        }
    };
    collect(aggregate::elements(&message.address, key));
    collect(aggregate::gone(&message.address, key));
    elements
}

#[cfg(test)]
mod tests;
