//! Prices: what the network charges for, and how it rounds (ccn spec 6).
//!
//! The table is the `pricing` aggregate of the address that the setting `pricing.owner` names; what it does not say has a built-in default. It is
//! the current one when a message is decided: what a message costs is no part of the state on which nodes agree.

mod gpu;
mod table;

use crate::{CostLine, Costs, Payment, decimal::Decimal};
use ccn_message::content::payment::PaymentType;

pub use gpu::{Gpus, gpus};
pub use table::{Prices, Product, Rates, current};

/// Setting: the owner of the `pricing` aggregate.
pub const OWNER_SETTING: &str = "pricing.owner";
/// Seconds of the hour that payg and credit prices are for.
const HOUR: u64 = 3600;
const MIB: u64 = 1 << 20;

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

/// A way of paying, in the words of the contract.
#[must_use]
pub fn payment(kind: PaymentType) -> Payment {
    match kind {
        PaymentType::Hold => Payment::Hold,
        PaymentType::Superfluid => Payment::Superfluid,
        PaymentType::Credit => Payment::Credit,
    }
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
