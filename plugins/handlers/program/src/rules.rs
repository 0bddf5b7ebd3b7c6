//! The rules of PROGRAM, most of which it shares with other machines.

use handler_machine::{Files, Parts, cost, rules};
use plugin_sdk::{
    Costs, Effects, Message, Outcome, Plan, Refusal, Rejection, View, Write,
    layout::{Moment, delete, machine, put},
    message::content::program::ProgramContent,
    price, text_of,
};

pub(crate) fn validate(message: &Message) -> Result<Plan, Rejection> {
    let content = ProgramContent::parse(text_of(message)?)?;
    Ok(rules::plan(Parts::of_program(&content).payment(), &content.machine.tags))
}

pub(crate) fn process(message: &Message, view: &dyn View) -> Outcome {
    let effects = || -> Result<Effects, Refusal> {
        let content = ProgramContent::parse(text_of(message)?)?;
        let mut effects = rules::effects(message, &Parts::of_program(&content), view)?;
        if let Some(subscriptions) = subscriptions(&content) {
            effects.writes.push(put(listener(message), subscriptions.into_bytes()));
        }
        Ok(effects)
    };
    effects().into()
}

pub(crate) fn withdraw(message: &Message) -> Vec<Write> {
    let content = text_of(message).ok().and_then(|text| ProgramContent::parse(text).ok());
    let Some(content) = content else { return Vec::new() };
    let mut writes = rules::withdraw(message, &Parts::of_program(&content));
    if subscriptions(&content).is_some() {
        writes.push(delete(listener(message)));
    }
    writes
}

/// Longest list of subscriptions that a program is found by, bytes.
const MAX_SUBSCRIPTION_BYTES: usize = 16 << 10;

/// Of what messages a program wants to be told, as a JSON list; none where it does not, or asks for too much.
fn subscriptions(content: &ProgramContent) -> Option<String> {
    let list = format!("[{}]", content.triggers.message.join(","));
    (!content.triggers.message.is_empty() && list.len() <= MAX_SUBSCRIPTION_BYTES).then_some(list)
}

fn listener(message: &Message) -> Vec<u8> {
    machine::listeners().moment(&Moment::of(message))
}

/// The price of a program, without regard to what is missing.
pub(crate) fn price(message: &Message, view: &dyn View) -> Result<Costs, Rejection> {
    let content = ProgramContent::parse(text_of(message)?)?;
    let parts = Parts::of_program(&content);
    let files = Files::find(&parts.references(), message, view);
    Ok(price::costs(parts.payment(), cost::lines(&parts, &files, true, view), true))
}

#[cfg(test)]
mod tests;
