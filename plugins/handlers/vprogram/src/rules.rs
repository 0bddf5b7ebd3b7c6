//! The rules of V-PROGRAM. The files that it names are in use, and need not be here: nobody starts it without them.

use handler_machine::{cost, rules};
use plugin_sdk::{
    CostLine, Costs, Effects, Message, Outcome, Payment, Plan, Rejection, View, Workload, WorkloadKind,
    message::content::vprogram::VProgramContent,
    price::{self, Product},
    text_of,
};

pub(crate) fn validate(message: &Message) -> Result<Plan, Rejection> {
    let content = VProgramContent::parse(text_of(message)?)?;
    Ok(rules::plan(Payment::Credit, &content.tags))
}

pub(crate) fn process(message: &Message, view: &dyn View) -> Outcome {
    effects(message, view).map_or_else(Outcome::Rejected, Outcome::Accepted)
}

fn effects(message: &Message, view: &dyn View) -> Result<Effects, Rejection> {
    let content = VProgramContent::parse(text_of(message)?)?;
    let mut uses: Vec<String> = content.references().iter().map(ToString::to_string).collect();
    uses.sort_unstable();
    uses.dedup();
    let node = content.requirements.as_ref().and_then(|requirements| requirements.node_hash.as_ref());
    let workload = Workload {
        kind: WorkloadKind::Instance,
        vcpus: content.resources.vcpus,
        memory_mib: content.resources.memory_mib,
        disk_mib: 0,
        payment: Payment::Credit,
        node: node.map(ToString::to_string),
    };
    let costs = price::costs(Payment::Credit, vec![line(&content, view)], true);
    Ok(Effects { costs: Some(costs), workload: Some(workload), uses, ..plugin_sdk::no_effects() })
}

/// As a confidential instance; what it reads costs nothing.
fn line(content: &VProgramContent, view: &dyn View) -> CostLine {
    cost::execution_of(Product::InstanceConfidential, &content.resources, Payment::Credit, view)
}

pub(crate) fn price(message: &Message, view: &dyn View) -> Result<Costs, Rejection> {
    let content = VProgramContent::parse(text_of(message)?)?;
    Ok(price::costs(Payment::Credit, vec![line(&content, view)], true))
}

#[cfg(test)]
mod tests;
