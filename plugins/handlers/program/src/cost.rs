//! What a program costs (ccn spec 6.3).

use crate::volumes::size_mib;
use plugin_sdk::{
    CostLine, Payment, View,
    decimal::Decimal,
    message::content::{payment::PaymentType, program::ProgramContent, volume::VolumeKind},
    price::{self, Cost, Prices, Product},
};

/// The rows of a program's price: its execution, its volumes, and the discount for the disk that comes with its compute units.
pub(crate) fn lines(content: &ProgramContent, view: &dyn View) -> Vec<CostLine> {
    let product = product(content);
    let prices = price::current(view, product);
    let payment = payment(content);
    let units = compute_units(content, &prices);
    let charged = units * multiplier(content);
    let execution = Cost::of(prices.compute, Decimal::from_integer(charged)).at_least_minimum(payment);
    let mut lines = vec![execution.line("EXECUTION", product.name(), None)];
    let mut total = Cost::ZERO;
    for volume in volumes(content, view) {
        let cost = Cost::of(prices.storage, volume.size_mib).at_least_minimum(payment).floor();
        total = total.plus(cost);
        lines.push(cost.line(volume.kind, &volume.name, Some(volume.size_mib)));
    }
    let included = Cost::of(prices.storage, Decimal::from_integer(units * prices.unit_disk_mib));
    lines.push(total.discount(included).line("EXECUTION_VOLUME_DISCOUNT", "EXECUTION_VOLUME_DISCOUNT", None));
    lines
}

/// How a program is paid.
pub(crate) fn payment(content: &ProgramContent) -> Payment {
    match content.payment.as_ref().map_or(PaymentType::Hold, |payment| payment.kind) {
        PaymentType::Hold => Payment::Hold,
        PaymentType::Superfluid => Payment::Superfluid,
        PaymentType::Credit => Payment::Credit,
    }
}

fn product(content: &ProgramContent) -> Product {
    if content.triggers.persistent { Product::ProgramPersistent } else { Product::Program }
}

/// As many as its processors, or as its memory needs.
fn compute_units(content: &ProgramContent, prices: &Prices) -> u64 {
    let by_memory = content.resources.memory_mib.div_ceil(prices.unit_memory_mib.max(1));
    by_memory.max(content.resources.vcpus.into())
}

/// A function on demand that reaches the internet costs twice as much.
fn multiplier(content: &ProgramContent) -> u64 {
    if !content.triggers.persistent && content.environment.internet { 2 } else { 1 }
}

/// A volume that is charged for.
struct Charged {
    kind: &'static str,
    name: String,
    size_mib: Decimal,
}

/// Files whose size is not known are not charged for.
fn volumes(content: &ProgramContent, view: &dyn View) -> Vec<Charged> {
    let own = [
        ("EXECUTION_PROGRAM_VOLUME_CODE", Some(&content.code.file)),
        ("EXECUTION_PROGRAM_VOLUME_RUNTIME", Some(&content.runtime)),
        ("EXECUTION_PROGRAM_VOLUME_DATA", content.data.as_ref()),
    ];
    let own = own.into_iter().filter_map(|(kind, reference)| {
        Some(Charged { kind, name: kind.to_owned(), size_mib: size_mib(reference?, view)? })
    });
    let further = content.volumes.iter().enumerate().filter_map(|(index, volume)| {
        let (kind, size_mib) = match &volume.kind {
            // The network's spelling.
            VolumeKind::Immutable(reference) => ("EXECUTION_VOLUME_INMUTABLE", size_mib(reference, view)?),
            VolumeKind::Ephemeral { size_mib } | VolumeKind::Persistent { size_mib, .. } => {
                ("EXECUTION_VOLUME_PERSISTENT", Decimal::from_integer(*size_mib))
            }
        };
        let name = format!("#{index}:{}", volume.mount.as_deref().unwrap_or(kind));
        Some(Charged { kind, name, size_mib })
    });
    own.chain(further).collect()
}

#[cfg(test)]
mod tests;
