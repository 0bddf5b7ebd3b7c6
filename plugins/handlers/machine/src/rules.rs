//! The rules of machines: what must be here, what may be replaced, what is large enough, how it must be paid.

use crate::{Files, Kind, Parts, cost, files::another_version};
use plugin_sdk::{
    Effects, Label, Message, Need, Payment, Plan, Refusal, Rejection, Subject, View, Workload, Write,
    layout::{Moment, delete, machine, put},
    message::{
        ErrorCode, ItemHash,
        content::{
            program::ProgramContent,
            volume::{FileReference, Volume, VolumeKind},
        },
    },
    price::{self, cutoff},
    rejected, text_of,
};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
/// The one type whose messages can be replaced.
const PROGRAM: &str = "PROGRAM";

/// What can be said of a machine from its own bytes.
#[must_use]
pub fn plan(payment: Payment, tags: &[String]) -> Plan {
    let payment = match payment {
        Payment::Hold => "hold",
        Payment::Superfluid => "superfluid",
        Payment::Credit => "credit",
    };
    let label = |name: &str, value: &str| Label { name: name.to_owned(), value: value.to_owned() };
    let mut labels = vec![label("payment-type", payment)];
    labels.extend(tags.iter().map(|tag| label("tag", tag)));
    Plan { subjects: vec![Subject::ThisMessage], labels }
}

/// Everything that accepting a machine changes.
///
/// # Errors
/// It is refused, or lacks something.
pub fn effects(message: &Message, parts: &Parts<'_>, view: &dyn View) -> Result<Effects, Refusal> {
    let files = Files::find(&parts.references(), message, view);
    check_files(parts, &files)?;
    let replaced = check_replaced(message, parts, view)?;
    check_sizes(parts, &files)?;
    check_calendar(message, parts)?;
    let payment = parts.payment();
    let free = matches!(parts.kind, Kind::OnDemand { .. }) && message.envelope_time < cutoff::FREE_UNTIL;
    // A stream is between the owner and the compute node; core nodes do not look at it.
    let enforced = !free && payment != Payment::Superfluid;
    // Sizes that a client expects are for estimates: what is published is charged for what is there.
    let lines = cost::lines(parts, &files, false, view);
    Ok(Effects {
        writes: replaced.map(|program| put(replacement(&program, message), Vec::new())).into_iter().collect(),
        costs: Some(price::costs(payment, lines, enforced)),
        workload: Some(workload(parts)),
        uses: files.uses(),
        watches: files.watches(),
        ..plugin_sdk::no_effects()
    })
}

/// Takes a machine out: what it replaces has a replacement less.
#[must_use]
pub fn withdraw(message: &Message, parts: &Parts<'_>) -> Vec<Write> {
    let replaced = parts.machine.replaces.as_ref();
    replaced.map(|program| delete(replacement(program, message))).into_iter().collect()
}

fn replacement(program: &str, message: &Message) -> Vec<u8> {
    machine::replacements(program).moment(&Moment::of(message))
}

/// Every file must be here; the error lists those that are not.
fn check_files(parts: &Parts<'_>, files: &Files) -> Result<(), Refusal> {
    let mut errors = Vec::new();
    for reference in parts.references() {
        let error = Value::from(reference.item_hash.to_string()).to_string();
        if files.get(reference).is_none() && !errors.contains(&error) {
            errors.push(error);
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    let otherwise = Rejection { code: ErrorCode::VmVolumeNotFound.number(), errors };
    Err(match files.missing() {
        Some(missing) => Refusal::waiting(missing, otherwise),
        None => otherwise.into(),
    })
}

/// A replaced program must be here, be of the same owner, allow it, and be no replacement itself.
fn check_replaced(message: &Message, parts: &Parts<'_>, view: &dyn View) -> Result<Option<String>, Refusal> {
    let Some(replaces) = &parts.machine.replaces else { return Ok(None) };
    let unknown = rejected(ErrorCode::VmRefNotFound, format!("there is no program {replaces} to replace"));
    let Some(found) = view.message(replaces) else {
        // What is no hash names no program.
        return Err(match ItemHash::parse(replaces) {
            Ok(_) => Refusal::waiting(vec![Need::Message(replaces.clone())], unknown),
            Err(_) => unknown.into(),
        });
    };
    if found.message.kind != PROGRAM {
        return Err(unknown.into());
    }
    let replaced = ProgramContent::parse(text_of(&found.message)?)?.machine;
    let refusal = if replaced.replaces.is_some() {
        let sentence = format!("{replaces} is a replacement itself; name the first program");
        rejected(ErrorCode::VmUpdateUpdate, sentence)
    } else if !replaced.allow_amend {
        rejected(ErrorCode::VmAmendNotAllowed, format!("{replaces} does not allow to be replaced"))
    } else if found.message.address != message.address {
        rejected(ErrorCode::PermissionDenied, format!("{replaces} belongs to {}", found.message.address))
    } else {
        return Ok(Some(replaces.clone()));
    };
    Err(refusal.into())
}

/// A disk that starts as an image must hold it.
fn check_sizes(parts: &Parts<'_>, files: &Files) -> Result<(), Refusal> {
    if let Some(rootfs) = parts.rootfs {
        check_size("rootfs", &rootfs.parent, rootfs.size_mib, files)?;
    }
    for (index, volume) in parts.machine.volumes.iter().enumerate() {
        if let VolumeKind::Persistent { size_mib, parent: Some(parent), .. } = &volume.kind {
            check_size(&label(index, volume), parent, *size_mib, files)?;
        }
    }
    Ok(())
}

fn check_size(name: &str, parent: &FileReference, size_mib: u64, files: &Files) -> Result<(), Refusal> {
    let volume_size = size_mib * MIB;
    let Some(image) = files.get(parent).filter(|image| image.info.size > volume_size) else { return Ok(()) };
    let details = json!({
        "volume_name": name,
        "parent_ref": parent.item_hash.to_string(),
        "parent_file": image.file,
        "parent_size": image.info.size,
        "volume_size": volume_size,
    });
    let otherwise = Rejection { code: ErrorCode::VmVolumeTooSmall.number(), errors: vec![details.to_string()] };
    // Another version may still come that is older than the machine and newer than this one.
    Err(match parent.use_latest {
        true => Refusal::waiting(vec![another_version(parent)], otherwise),
        false => otherwise.into(),
    })
}

/// What a volume is called in errors: its name, its mount point, or its place in the list.
fn label(index: usize, volume: &Volume) -> String {
    let name = match &volume.kind {
        VolumeKind::Persistent { name, .. } => name.as_ref(),
        VolumeKind::Immutable(_) | VolumeKind::Ephemeral { .. } => None,
    };
    name.or(volume.mount.as_ref()).cloned().unwrap_or_else(|| format!("#{index}"))
}

fn check_calendar(message: &Message, parts: &Parts<'_>) -> Result<(), Rejection> {
    let (since, what) = match parts.kind {
        Kind::OnDemand { .. } => (cutoff::ALL_BY_CREDIT, "programs"),
        Kind::Persistent => (cutoff::PERSISTENT_BY_CREDIT, "persistent programs"),
        Kind::Instance { .. } => (cutoff::PERSISTENT_BY_CREDIT, "instances"),
    };
    if parts.payment() != Payment::Credit && message.envelope_time >= since {
        return Err(rejected(ErrorCode::InvalidPaymentMethod, format!("{what} of that date are paid by credits")));
    }
    Ok(())
}

fn workload(parts: &Parts<'_>) -> Workload {
    Workload {
        kind: parts.kind.workload(),
        vcpus: parts.machine.resources.vcpus,
        memory_mib: parts.machine.resources.memory_mib,
        disk_mib: parts.disk_mib(),
        payment: parts.payment(),
        node: parts.machine.node_hash().map(ToString::to_string),
    }
}
