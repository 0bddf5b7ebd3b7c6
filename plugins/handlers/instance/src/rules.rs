//! The rules of INSTANCE, most of which it shares with other machines.

use handler_machine::{Files, Parts, cost, rules};
use plugin_sdk::{
    Costs, Effects, Message, Outcome, Plan, Refusal, Rejection, View, Write,
    message::content::instance::InstanceContent, price, text_of,
};

pub(crate) fn validate(message: &Message) -> Result<Plan, Rejection> {
    let content = InstanceContent::parse(text_of(message)?)?;
    Ok(rules::plan(Parts::of_instance(&content).payment(), &content.machine.tags))
}

pub(crate) fn process(message: &Message, view: &dyn View) -> Outcome {
    let effects = || -> Result<Effects, Refusal> {
        let content = InstanceContent::parse(text_of(message)?)?;
        rules::effects(message, &Parts::of_instance(&content), view)
    };
    effects().into()
}

pub(crate) fn withdraw(message: &Message) -> Vec<Write> {
    let content = text_of(message).ok().and_then(|text| InstanceContent::parse(text).ok());
    content.map(|content| rules::withdraw(message, &Parts::of_instance(&content))).unwrap_or_default()
}

/// The price of an instance, without regard to what is missing.
pub(crate) fn price(message: &Message, view: &dyn View) -> Result<Costs, Rejection> {
    let content = InstanceContent::parse(text_of(message)?)?;
    let parts = Parts::of_instance(&content);
    let files = Files::find(&parts.references(), message, view);
    Ok(price::costs(parts.payment(), cost::lines(&parts, &files, true, view), true))
}

#[cfg(test)]
mod tests;
