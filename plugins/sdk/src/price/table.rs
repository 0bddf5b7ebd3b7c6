//! The table of prices: published, or built in.

use super::OWNER_SETTING;
use crate::{View, decimal::Decimal, layout::aggregate};
use ccn_message::json::{FormatError, Object, Value};

/// Key of the aggregate.
const KEY: &str = "pricing";
/// Most tiers of a product, and most compute units of one.
const MAX_TIERS: usize = 1024;
const MAX_UNITS: i64 = 1 << 20;

/// What is charged for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// A stored file.
    Storage,
    /// A program on demand.
    Program,
    /// A program that always runs.
    ProgramPersistent,
    /// An instance.
    Instance,
    /// An instance, or a verifiable program, that keeps its host out.
    InstanceConfidential,
    /// An instance with GPUs of the dearer models.
    GpuPremium,
    /// An instance with GPUs of the other models.
    GpuStandard,
}

impl Product {
    /// Its name in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Storage => "storage",
            Self::Program => "program",
            Self::ProgramPersistent => "program_persistent",
            Self::Instance => "instance",
            Self::InstanceConfidential => "instance_confidential",
            Self::GpuPremium => "instance_gpu_premium",
            Self::GpuStandard => "instance_gpu_standard",
        }
    }
}

/// Three prices of the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Tokens to hold.
    pub holding: Decimal,
    /// Tokens an hour.
    pub payg: Decimal,
    /// Credits an hour.
    pub credit: Decimal,
}

/// The prices of a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prices {
    /// A MiB of storage.
    pub storage: Rates,
    /// A compute unit.
    pub compute: Rates,
    /// Disk that comes with a compute unit, MiB.
    pub unit_disk_mib: u64,
    /// Memory of a compute unit, MiB.
    pub unit_memory_mib: u64,
    /// Models of GPUs, and the compute units that one is charged as.
    pub models: Vec<(String, u64)>,
}

/// The built-in table (ccn spec 6.2).
fn builtin(product: Product) -> Prices {
    let prices = |compute, unit_mib: (u64, u64), storage, models: &[(&str, u64)]| Prices {
        storage,
        compute,
        unit_disk_mib: unit_mib.0,
        unit_memory_mib: unit_mib.1,
        models: models.iter().map(|(model, units)| ((*model).to_owned(), *units)).collect(),
    };
    let program = || rates("0.05", "0.000000977", "0.977");
    let instance = || rates("0.05", "0.000000977", "0.17967489030626108");
    let gpu = || rates("0", "0.000000977", "0.17967489030626108");
    match product {
        Product::Storage => {
            prices(rates("0", "0", "0"), (0, 2048), rates("0.333333333", "0", "0.17967489030626108"), &[])
        }
        Product::Program => prices(rates("200", "0.011", "11000"), (2048, 2048), program(), &[]),
        Product::ProgramPersistent => prices(rates("1000", "0.055", "55000"), (20480, 2048), program(), &[]),
        Product::Instance => prices(rates("1000", "0.055", "14250"), (20480, 2048), instance(), &[]),
        Product::InstanceConfidential => prices(rates("2000", "0.11", "28500"), (20480, 2048), instance(), &[]),
        Product::GpuPremium => {
            prices(rates("560", "0.56", "86250"), (61440, 6144), gpu(), &[("A100", 16), ("H100", 24)])
        }
        Product::GpuStandard => {
            let models = [("RTX 4000 ADA", 3), ("RTX 3090", 4), ("RTX 4090", 6), ("L40S", 12)];
            prices(rates("280", "0.28", "43125"), (61440, 6144), gpu(), &models)
        }
    }
}

fn rates(holding: &str, payg: &str, credit: &str) -> Rates {
    let number = |text: &str| text.parse().unwrap_or(Decimal::ZERO);
    Rates { holding: number(holding), payg: number(payg), credit: number(credit) }
}

/// The prices that hold now.
#[must_use]
pub fn current(view: &dyn View, product: Product) -> Prices {
    let published =
        view.setting(OWNER_SETTING).and_then(|owner| aggregate::value_in(view, &owner, KEY, product.name()));
    published
        // A table that cannot be read prices nothing: the built-in one holds on.
        .and_then(|json| read_prices(&json).ok())
        .unwrap_or_else(|| builtin(product))
}

fn read_prices(json: &str) -> Result<Prices, FormatError> {
    let mut object = Object::parse(json)?;
    let mut price = object.required("price", Value::object)?;
    let none = Rates { holding: Decimal::ZERO, payg: Decimal::ZERO, credit: Decimal::ZERO };
    let storage = price.optional("storage", read_rates)?.unwrap_or(none);
    let compute = price.optional("compute_unit", read_rates)?.unwrap_or(none);
    let tiers = object.optional("tiers", |value| value.list_of(MAX_TIERS, read_tier))?.unwrap_or_default();
    let unit = object.optional("compute_unit", |value| {
        let mut unit = value.object()?;
        let mut size = |name| unit.required(name, |value| value.integer(0..=i64::MAX));
        Ok((size("disk_mib")?.unsigned_abs(), size("memory_mib")?.unsigned_abs().max(1)))
    })?;
    // The unit counts only beside tiers (ccn spec 6.2).
    let (unit_disk_mib, unit_memory_mib) = unit.filter(|_| !tiers.is_empty()).unwrap_or((0, 2048));
    let models = tiers.into_iter().filter_map(|(model, units)| Some((model?, units))).collect();
    Ok(Prices { storage, compute, unit_disk_mib, unit_memory_mib, models })
}

/// The model of GPU that a tier is for, if it is for one, and its compute units.
fn read_tier(value: Value<'_>) -> Result<(Option<String>, u64), FormatError> {
    let mut tier = value.object()?;
    let units = tier.optional("compute_units", |value| value.integer(0..=MAX_UNITS))?.unwrap_or_default();
    Ok((tier.optional("model", Value::string)?, units.unsigned_abs()))
}

fn read_rates(value: Value<'_>) -> Result<Rates, FormatError> {
    let mut object = value.object()?;
    let mut rate = |name: &str| {
        let rate = object.optional(name, |value| {
            let text = if value.is_string() { value.string()? } else { value.text().to_owned() };
            text.parse().map_err(|_| FormatError::new("", "a decimal was expected"))
        })?;
        Ok(rate.unwrap_or(Decimal::ZERO))
    };
    Ok(Rates { holding: rate("holding")?, payg: rate("payg")?, credit: rate("credit")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryView, layout::Moment};

    #[test]
    fn the_published_table_wins_where_it_can_be_read() {
        let mut view = MemoryView::new("program");
        assert_eq!(current(&view, Product::Program), builtin(Product::Program));
        view.settings.insert(OWNER_SETTING.into(), "0xF".into());
        let mut publish = |json: &str| {
            let moment = Moment { time: 1.0, item_hash: "h".into() };
            let value = aggregate::Current { moment, subkey: "program", json }.to_bytes();
            view.state.insert((aggregate::NAMESPACE.into(), aggregate::current("0xF", "pricing", "program")), value);
            current(&view, Product::Program)
        };
        let prices = publish(
            r#"{"price":{"storage":{"holding":"1","credit":0.18},"compute_unit":{"payg":"0.011","holding":"7"}},
                "tiers":[{"id":"tier-1","compute_units":1}],"compute_unit":{"vcpus":1,"memory_mib":1024,"disk_mib":10}}"#,
        );
        assert_eq!(prices.compute.holding, Decimal::from_integer(7));
        assert_eq!(prices.storage.credit, "0.18".parse().expect("a decimal"));
        assert_eq!((prices.unit_disk_mib, prices.unit_memory_mib), (10, 1024));
        let without_tiers = publish(r#"{"price":{},"compute_unit":{"vcpus":1,"memory_mib":1024,"disk_mib":10}}"#);
        assert_eq!((without_tiers.unit_disk_mib, without_tiers.unit_memory_mib), (0, 2048));
        assert_eq!(publish("[]"), builtin(Product::Program));
        let long = format!(r#"{{"price":{{"compute_unit":{{"holding":"9"}}}},"note":"{}"}}"#, "x".repeat(2000));
        assert_eq!(publish(&long), builtin(Product::Program), "its message is not here");
    }
}
