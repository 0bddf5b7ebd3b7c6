//! The rules of PROGRAM.

use crate::{
    cost,
    volumes::{first_version, label, references, resolve},
};
use plugin_sdk::{
    Costs, Effects, Label, Message, Need, Outcome, Payment, Plan, Rejection, Subject, View, Wait, Workload,
    WorkloadKind, Write,
    layout::program::{self, Record},
    message::{
        ErrorCode, ItemHash,
        content::{
            program::ProgramContent,
            volume::{FileReference, VolumeKind},
        },
    },
    price::{self, cutoff},
    rejected, text_of,
};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

pub(crate) fn validate(message: &Message) -> Result<Plan, Rejection> {
    let content = ProgramContent::parse(text_of(message)?)?;
    let payment = match cost::payment(&content) {
        Payment::Hold => "hold",
        Payment::Superfluid => "superfluid",
        Payment::Credit => "credit",
    };
    let label = |name: &str, value: String| Label { name: name.to_owned(), value };
    let mut labels = vec![label("payment-type", payment.to_owned())];
    labels.extend(content.tags.into_iter().map(|tag| label("tag", tag)));
    Ok(Plan { subjects: vec![Subject::ThisMessage], labels })
}

pub(crate) fn process(message: &Message, view: &dyn View) -> Outcome {
    match effects(message, view) {
        Ok(effects) => Outcome::Accepted(effects),
        Err(Refusal::Rejected(rejection)) => Outcome::Rejected(rejection),
        Err(Refusal::Waiting(wait)) => Outcome::Waiting(wait),
    }
}

/// The price of a program, without regard to what is missing.
pub(crate) fn price(message: &Message, view: &dyn View) -> Result<Costs, Rejection> {
    let content = ProgramContent::parse(text_of(message)?)?;
    Ok(price::costs(cost::payment(&content), cost::lines(&content, view), true))
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
    let mut content = ProgramContent::parse(text_of(message)?).map_err(Rejection::from)?;
    forget_estimates(&mut content);
    check_files(&content, view)?;
    check_replaced(message, &content, view)?;
    check_sizes(&content, view)?;
    let payment = cost::payment(&content);
    check_calendar(message, &content, payment)?;

    let record =
        Record { allow_amend: content.allow_amend, owner: message.address.clone(), replaces: content.replaces.clone() };
    let mut writes = vec![Write { key: program::program(&message.item_hash), value: Some(record.to_bytes()) }];
    let mut used: Vec<String> = references(&content).iter().map(|file| file.item_hash.to_string()).collect();
    used.sort_unstable();
    used.dedup();
    writes.extend(
        used.iter()
            .map(|reference| Write { key: program::uses(reference, &message.item_hash), value: Some(Vec::new()) }),
    );
    let free = !content.triggers.persistent && message.envelope_time < cutoff::FREE_UNTIL;
    // A stream is between the owner and the compute node; core nodes do not look at it.
    let enforced = !free && payment != Payment::Superfluid;
    Ok(Effects {
        writes,
        costs: Some(price::costs(payment, cost::lines(&content, view), enforced)),
        workload: Some(workload(&content, payment)),
        ..plugin_sdk::no_effects()
    })
}

/// Sizes that a client expects are for estimates: a message that is published is charged for what is there.
fn forget_estimates(content: &mut ProgramContent) {
    content.code.file.estimated_size_mib = None;
    content.runtime.estimated_size_mib = None;
    if let Some(data) = &mut content.data {
        data.estimated_size_mib = None;
    }
    for volume in &mut content.volumes {
        if let VolumeKind::Immutable(reference) = &mut volume.kind {
            reference.estimated_size_mib = None;
        }
    }
}

/// Every file must be here; the error lists those that are not.
fn check_files(content: &ProgramContent, view: &dyn View) -> Result<(), Refusal> {
    let (mut missing, mut errors) = (Vec::new(), Vec::new());
    for reference in references(content) {
        if let Err(need) = resolve(reference, view) {
            let error = Value::from(reference.item_hash.to_string()).to_string();
            if !errors.contains(&error) {
                errors.push(error);
            }
            if !missing.contains(&need) {
                missing.push(need);
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let otherwise = Rejection { code: ErrorCode::VmVolumeNotFound.number(), errors };
    Err(Refusal::Waiting(Wait { missing, otherwise }))
}

/// A replaced program must be here, be of the same owner, allow it, and be no replacement itself.
fn check_replaced(message: &Message, content: &ProgramContent, view: &dyn View) -> Result<(), Refusal> {
    let Some(replaces) = &content.replaces else {
        return Ok(());
    };
    let Some(replaced) = view.get(&program::program(replaces)).and_then(|value| Record::read(&value)) else {
        let otherwise = rejected(ErrorCode::VmRefNotFound, format!("there is no program {replaces} to replace"));
        // What is no hash names no program, and a message that is here and of another type never becomes one.
        let hopeless = ItemHash::parse(replaces).is_err() || view.message(replaces).is_some();
        return Err(if hopeless {
            Refusal::Rejected(otherwise)
        } else {
            Refusal::Waiting(Wait { missing: vec![Need::Message(replaces.clone())], otherwise })
        });
    };
    let refusal = if replaced.replaces.is_some() {
        let sentence = format!("{replaces} is a replacement itself; name the first program");
        rejected(ErrorCode::VmUpdateUpdate, sentence)
    } else if !replaced.allow_amend {
        rejected(ErrorCode::VmAmendNotAllowed, format!("{replaces} does not allow to be replaced"))
    } else if replaced.owner != message.address {
        rejected(ErrorCode::PermissionDenied, format!("{replaces} belongs to {}", replaced.owner))
    } else {
        return Ok(());
    };
    Err(refusal.into())
}

/// A volume that starts as an image must hold it.
fn check_sizes(content: &ProgramContent, view: &dyn View) -> Result<(), Refusal> {
    for (index, volume) in content.volumes.iter().enumerate() {
        let VolumeKind::Persistent { size_mib, parent: Some(parent), .. } = &volume.kind else {
            continue;
        };
        let volume_size = size_mib * MIB;
        let too_small = |parent: &FileReference| match resolve(parent, view) {
            Ok(image) if image.info.size > volume_size => Some(image),
            Ok(_) | Err(_) => None,
        };
        let Some(image) = too_small(parent) else {
            continue;
        };
        let details = json!({
            "volume_name": label(index, volume),
            "parent_ref": parent.item_hash.to_string(),
            "parent_file": image.file,
            "parent_size": image.info.size,
            "volume_size": volume_size,
        });
        let otherwise = Rejection { code: ErrorCode::VmVolumeTooSmall.number(), errors: vec![details.to_string()] };
        // Which version is the newest may change, and nodes would disagree; that the first one is too large never does.
        if too_small(&first_version(parent)).is_some() {
            return Err(otherwise.into());
        }
        let key = plugin_sdk::layout::store::latest(&parent.item_hash.to_string());
        let newest = Need::State((plugin_sdk::layout::store::NAMESPACE.to_owned(), key));
        return Err(Refusal::Waiting(Wait { missing: vec![newest], otherwise }));
    }
    Ok(())
}

fn check_calendar(message: &Message, content: &ProgramContent, payment: Payment) -> Result<(), Rejection> {
    let since = if content.triggers.persistent { cutoff::PERSISTENT_BY_CREDIT } else { cutoff::ALL_BY_CREDIT };
    if payment != Payment::Credit && message.envelope_time >= since {
        let what = if content.triggers.persistent { "persistent programs" } else { "programs" };
        return Err(rejected(ErrorCode::InvalidPaymentMethod, format!("{what} of that date are paid by credits")));
    }
    Ok(())
}

fn workload(content: &ProgramContent, payment: Payment) -> Workload {
    let disk = content.volumes.iter().map(|volume| match &volume.kind {
        VolumeKind::Ephemeral { size_mib } | VolumeKind::Persistent { size_mib, .. } => *size_mib,
        VolumeKind::Immutable(_) => 0,
    });
    Workload {
        kind: if content.triggers.persistent { WorkloadKind::PersistentProgram } else { WorkloadKind::MicroVm },
        vcpus: content.resources.vcpus,
        memory_mib: content.resources.memory_mib,
        disk_mib: disk.sum(),
        payment,
        node: content.node_hash.as_ref().map(ToString::to_string),
    }
}

/// PLACEHOLDER until the handlers learn to forget.
pub(crate) fn withdraw(_message: &Message, _why: plugin_sdk::Withdrawal, _view: &dyn View) -> Vec<plugin_sdk::Write> {
    Vec::new()
}

#[cfg(test)]
mod tests;
