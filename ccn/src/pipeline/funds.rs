//! Whether an address can pay (ccn spec 6.4).

use crate::{
    host::Rejection,
    ledger,
    store::{
        Reader, StoreError,
        record::{CostRecord, PaymentRecord},
    },
};
use ccn_message::{Amount, ErrorCode};

/// How long credits must last for everything that an address has, seconds.
const MIN_RUNTIME_SECONDS: i128 = 86_400;
/// The same, days.
const MIN_RUNTIME_DAYS: i128 = MIN_RUNTIME_SECONDS / 86_400;

/// What an address has of what it pays with in one way, as of a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Funds {
    payment: PaymentRecord,
    /// Tokens, or credits.
    pub(crate) available: Amount,
    /// What it holds, or spends a second.
    spent: Amount,
}

impl Funds {
    /// At that moment, milliseconds since 1970.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) fn of(
        reader: &dyn Reader,
        address: &str,
        payment: PaymentRecord,
        now_ms: u64,
    ) -> Result<Self, StoreError> {
        let balance = ledger::balance(reader, address, now_ms)?;
        let available = match payment {
            PaymentRecord::Hold | PaymentRecord::Superfluid => balance.total,
            PaymentRecord::Credit => Amount::from_integer(i128::try_from(balance.credits).unwrap_or(i128::MAX)),
        };
        Ok(Self { payment, available, spent: ledger::spending(reader, address, payment)? })
    }

    /// What must be there to take a further cost, when that is more than there is. Streams of tokens are checked where the workload runs.
    pub(crate) fn lack(&self, cost: Amount) -> Option<Amount> {
        let required = needed(self.payment, self.spent + cost);
        (self.payment != PaymentRecord::Superfluid && self.available < required).then_some(required)
    }
}

/// What must be there for a cost: tokens, or credits for a day.
pub(super) fn needed(payment: PaymentRecord, cost: Amount) -> Amount {
    match payment {
        PaymentRecord::Hold | PaymentRecord::Superfluid => cost,
        PaymentRecord::Credit => cost.times(MIN_RUNTIME_SECONDS),
    }
}

/// Why an address cannot take a further cost; none when it can.
///
/// # Errors
/// The store fails.
pub(super) fn shortage(reader: &dyn Reader, cost: &CostRecord, now_ms: u64) -> Result<Option<Rejection>, StoreError> {
    let funds = Funds::of(reader, &cost.address, cost.payment, now_ms)?;
    let Some(required) = funds.lack(cost.total()) else { return Ok(None) };
    let (required, available) = (required.to_string(), funds.available.to_string());
    let (code, details) = match cost.payment {
        PaymentRecord::Hold | PaymentRecord::Superfluid => {
            let details = serde_json::json!({"required_balance": required, "account_balance": available});
            (ErrorCode::BalanceInsufficient, details)
        }
        PaymentRecord::Credit => {
            let details = serde_json::json!({
                "required_credits": required,
                "account_credits": available,
                "min_runtime_days": MIN_RUNTIME_DAYS,
            });
            (ErrorCode::CreditInsufficient, details)
        }
    };
    Ok(Some(Rejection { code: code.number(), errors: vec![details.to_string()] }))
}
