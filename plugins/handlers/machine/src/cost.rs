//! What a machine costs (ccn spec 6.3).

use crate::{Files, Kind, Parts};
use plugin_sdk::{
    CostLine, Payment, View,
    decimal::Decimal,
    message::content::{
        machine::Resources,
        volume::{FileReference, VolumeKind},
    },
    price::{self, Cost, Gpus, Prices, Product},
};

const EXECUTION: &str = "EXECUTION";
const DISCOUNT: &str = "EXECUTION_VOLUME_DISCOUNT";

/// The rows of a machine's price: its execution, its volumes, and the discount for the disk that comes with its compute units. Files whose size is
/// not known are not charged for; an `estimate` believes the sizes that a client expects.
#[must_use]
pub fn lines(parts: &Parts<'_>, files: &Files, estimate: bool, view: &dyn View) -> Vec<CostLine> {
    let (mut lines, units, prices) = execution(parts, view);
    let mut total = Cost::ZERO;
    for volume in volumes(parts, files, estimate) {
        let cost = Cost::of(prices.storage, volume.size_mib).at_least_minimum(parts.payment()).floor();
        total = total.plus(cost);
        lines.push(cost.line(volume.kind, &volume.name, Some(volume.size_mib)));
    }
    let included = Cost::of(prices.storage, Decimal::from_integer(units * prices.unit_disk_mib));
    lines.push(total.discount(included).line(DISCOUNT, DISCOUNT, None));
    lines
}

/// The one row of a machine without volumes that are charged for.
#[must_use]
pub fn execution_of(product: Product, resources: &Resources, payment: Payment, view: &dyn View) -> CostLine {
    let prices = price::current(view, product);
    charge(product, &prices, compute_units(resources, &prices), payment)
}

/// Rows of the execution, compute units, and the prices that its disk has.
fn execution(parts: &Parts<'_>, view: &dyn View) -> (Vec<CostLine>, u64, Prices) {
    let resources = &parts.machine.resources;
    let devices = parts.machine.requirements.as_ref().map(|requirements| requirements.gpus.as_slice());
    let (product, multiplier) = match parts.kind {
        // A function on demand that reaches the internet costs twice as much.
        Kind::OnDemand { internet } => (Product::Program, if internet { 2 } else { 1 }),
        Kind::Persistent => (Product::ProgramPersistent, 1),
        Kind::Instance { confidential: true } => (Product::InstanceConfidential, 1),
        Kind::Instance { confidential: false } => match devices {
            Some(devices @ [_, ..]) => {
                return with_gpus(price::gpus(devices, view, |p| compute_units(resources, p)), resources);
            }
            _ => (Product::Instance, 1),
        },
    };
    let prices = price::current(view, product);
    let units = compute_units(resources, &prices);
    (vec![charge(product, &prices, units * multiplier, parts.payment())], units, prices)
}

fn charge(product: Product, prices: &Prices, units: u64, payment: Payment) -> CostLine {
    let cost = Cost::of(prices.compute, Decimal::from_integer(units)).at_least_minimum(payment);
    cost.line(EXECUTION, product.name(), None)
}

fn with_gpus(gpus: Gpus, resources: &Resources) -> (Vec<CostLine>, u64, Prices) {
    let row = |(product, prices, units): &(Product, Prices, u64)| {
        Cost::of(prices.compute, Decimal::from_integer(*units)).line(EXECUTION, product.name(), None)
    };
    let lines = gpus.units.iter().map(row).collect();
    (lines, compute_units(resources, &gpus.dominant.1), gpus.storage)
}

/// As many as its processors, or as its memory needs.
fn compute_units(resources: &Resources, prices: &Prices) -> u64 {
    let by_memory = resources.memory_mib.div_ceil(prices.unit_memory_mib.max(1));
    by_memory.max(resources.vcpus.into())
}

/// A volume that is charged for.
struct Charged {
    kind: &'static str,
    name: String,
    size_mib: Decimal,
}

fn volumes(parts: &Parts<'_>, files: &Files, estimate: bool) -> Vec<Charged> {
    let size_of = |reference: &FileReference| match reference.estimated_size_mib.filter(|_| estimate) {
        Some(size_mib) => Some(Decimal::from_integer(size_mib.unsigned_abs())),
        None => files.get(reference).map(|resolved| price::mib(resolved.info.size)),
    };
    let rootfs = parts.rootfs.map(|rootfs| {
        let kind = "EXECUTION_INSTANCE_VOLUME_ROOTFS";
        Charged { kind, name: kind.to_owned(), size_mib: Decimal::from_integer(rootfs.size_mib) }
    });
    let own = parts.files.iter().filter_map(|(kind, reference)| {
        Some(Charged { kind, name: (*kind).to_owned(), size_mib: size_of(reference)? })
    });
    let further = parts.machine.volumes.iter().enumerate().filter_map(|(index, volume)| {
        let (kind, size_mib) = match &volume.kind {
            // The network's spelling.
            VolumeKind::Immutable(reference) => ("EXECUTION_VOLUME_INMUTABLE", size_of(reference)?),
            VolumeKind::Ephemeral { size_mib } | VolumeKind::Persistent { size_mib, .. } => {
                ("EXECUTION_VOLUME_PERSISTENT", Decimal::from_integer(*size_mib))
            }
        };
        let name = format!("#{index}:{}", volume.mount.as_deref().unwrap_or(kind));
        Some(Charged { kind, name, size_mib })
    });
    rootfs.into_iter().chain(own).chain(further).collect()
}

#[cfg(test)]
mod tests;
