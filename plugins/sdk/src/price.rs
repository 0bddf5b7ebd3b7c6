//! Prices: what the network charges for, and how it rounds (ccn spec 6).
//!
//! The table is the `pricing` aggregate of the address that the setting `pricing.owner` names; what it does not say has a built-in default.

use crate::{CostLine, Costs, Payment, View, decimal::Decimal, layout::aggregate};
use ccn_message::json::{FormatError, Object, Value};

/// Setting: the owner of the `pricing` aggregate.
pub const OWNER_SETTING: &str = "pricing.owner";
/// Key of the aggregate.
const KEY: &str = "pricing";
/// Seconds of the hour that payg and credit prices are for.
const HOUR: u64 = 3600;
const MIB: u64 = 1 << 20;

/// What is charged for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// A stored file.
    Storage,
    /// A program on demand.
    Program,
    /// A program that always runs.
    ProgramPersistent,
}

impl Product {
    /// Its name in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Storage => "storage",
            Self::Program => "program",
            Self::ProgramPersistent => "program_persistent",
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prices {
    /// A MiB of storage.
    pub storage: Rates,
    /// A compute unit.
    pub compute: Rates,
    /// Disk that comes with a compute unit, MiB.
    pub unit_disk_mib: u64,
    /// Memory of a compute unit, MiB.
    pub unit_memory_mib: u64,
}

/// The built-in table: (product, compute unit, disk and memory of a unit, storage).
fn builtin(product: Product) -> Prices {
    let rates = |holding: &str, payg: &str, credit: &str| {
        let number = |text: &str| text.parse().unwrap_or(Decimal::ZERO);
        Rates { holding: number(holding), payg: number(payg), credit: number(credit) }
    };
    match product {
        Product::Storage => Prices {
            storage: rates("0.333333333", "0", "0.17967489030626108"),
            compute: rates("0", "0", "0"),
            unit_disk_mib: 0,
            unit_memory_mib: 2048,
        },
        Product::Program => Prices {
            storage: rates("0.05", "0.000000977", "0.977"),
            compute: rates("200", "0.011", "11000"),
            unit_disk_mib: 2048,
            unit_memory_mib: 2048,
        },
        Product::ProgramPersistent => Prices {
            storage: rates("0.05", "0.000000977", "0.977"),
            compute: rates("1000", "0.055", "55000"),
            unit_disk_mib: 20480,
            unit_memory_mib: 2048,
        },
    }
}

/// The prices that hold now.
#[must_use]
pub fn current(view: &dyn View, product: Product) -> Prices {
    let published = view.setting(OWNER_SETTING).and_then(|owner| {
        aggregate::value_in(view, &owner, KEY, product.name())
    });
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
    let tiers = object.optional("tiers", |value| value.list(1024))?.unwrap_or_default();
    let unit = object.optional("compute_unit", |value| {
        let mut unit = value.object()?;
        let mut size = |name| unit.required(name, |value| value.integer(0..=i64::MAX));
        Ok((size("disk_mib")?.unsigned_abs(), size("memory_mib")?.unsigned_abs().max(1)))
    })?;
    // The unit counts only beside tiers (ccn spec 6.2).
    let (unit_disk_mib, unit_memory_mib) = unit.filter(|_| !tiers.is_empty()).unwrap_or((0, 2048));
    Ok(Prices { storage, compute, unit_disk_mib, unit_memory_mib })
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

/// An amount of three currencies: tokens to hold, tokens a second, credits a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    hold: Decimal,
    stream: Decimal,
    credit: Decimal,
}

impl Cost {
    /// Nothing.
    pub const ZERO: Self = Self { hold: Decimal::ZERO, stream: Decimal::ZERO, credit: Decimal::ZERO };

    /// That many of something with these rates: the hour's price becomes a second's first, then it is multiplied.
    #[must_use]
    pub fn of(rates: Rates, quantity: Decimal) -> Self {
        let hour = Decimal::from_integer(HOUR);
        Self {
            hold: rates.holding.times(quantity),
            stream: rates.payg.over(hour).times(quantity),
            credit: rates.credit.over(hour).times(quantity),
        }
    }

    /// At least the smallest credit charge, one credit an hour, when it is paid by credits.
    #[must_use]
    pub fn at_least_minimum(self, payment: Payment) -> Self {
        if payment != Payment::Credit {
            return self;
        }
        let minimum = Decimal::from_integer(1).over(Decimal::from_integer(HOUR));
        Self { credit: self.credit.max(minimum), ..self }
    }

    /// Each currency rounded down to 18 digits, as rows are before they are added up.
    #[must_use]
    pub fn floor(self) -> Self {
        Self { hold: self.hold.floor().into(), stream: self.stream.floor().into(), credit: self.credit.floor().into() }
    }

    /// The sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            hold: self.hold.plus(other.hold),
            stream: self.stream.plus(other.stream),
            credit: self.credit.plus(other.credit),
        }
    }

    /// The smaller of two, currency by currency, as a deduction.
    #[must_use]
    pub fn discount(self, most: Self) -> Self {
        Self {
            hold: self.hold.min(most.hold).negated(),
            stream: self.stream.min(most.stream).negated(),
            credit: self.credit.min(most.credit).negated(),
        }
    }

    /// A row of a price, each currency rounded down to 18 digits.
    #[must_use]
    pub fn line(self, kind: &str, name: &str, size_mib: Option<Decimal>) -> CostLine {
        CostLine {
            kind: kind.to_owned(),
            name: name.to_owned(),
            hold: self.hold.floor().to_string(),
            stream: self.stream.floor().to_string(),
            credit: self.credit.floor().to_string(),
            size_mib: size_mib.map(|size| size.floor().to_string()),
        }
    }
}

/// Bytes in MiB, exact to 28 digits.
#[must_use]
pub fn mib(bytes: u64) -> Decimal {
    Decimal::from_integer(bytes).over(Decimal::from_integer(MIB))
}

/// Costs of some rows.
#[must_use]
pub fn costs(payment: Payment, lines: Vec<CostLine>, enforced: bool) -> Costs {
    Costs { payment, lines, enforced }
}

/// Dates from which rules hold, seconds since 1970, judged on the envelope's time (messages spec section 8).
pub mod cutoff {
    /// Before it, STORE and programs on demand are free.
    pub const FREE_UNTIL: f64 = 1_743_775_079.0;
    /// From it, instances and persistent programs are paid by credits.
    pub const PERSISTENT_BY_CREDIT: f64 = 1_773_187_200.0;
    /// From it, everything is paid by credits.
    pub const ALL_BY_CREDIT: f64 = 1_798_761_600.0;
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
    }
}
