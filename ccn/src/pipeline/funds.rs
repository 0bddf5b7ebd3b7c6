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
pub(super) const MIN_RUNTIME_SECONDS: i128 = 86_400;
/// The same, days.
const MIN_RUNTIME_DAYS: i128 = MIN_RUNTIME_SECONDS / 86_400;

/// What an address has, at a moment, of what it pays with in that way, and what it holds or spends a second: tokens or credits.
///
/// # Errors
/// The store fails.
pub(super) fn holds(
    reader: &dyn Reader,
    payment: PaymentRecord,
    address: &str,
    now_ms: u64,
) -> Result<(Amount, Amount), StoreError> {
    let balance = ledger::balance(reader, address, now_ms)?;
    let funds = match payment {
        PaymentRecord::Hold | PaymentRecord::Superfluid => balance.total,
        PaymentRecord::Credit => Amount::from_integer(i128::try_from(balance.credits).unwrap_or(i128::MAX)),
    };
    Ok((funds, ledger::spending(reader, address, payment)?))
}

/// Why an address cannot take a further cost; none when it can.
///
/// # Errors
/// The store fails.
pub(super) fn shortage(reader: &dyn Reader, cost: &CostRecord, now_ms: u64) -> Result<Option<Rejection>, StoreError> {
    let (funds, spent) = holds(reader, cost.payment, &cost.address, now_ms)?;
    let spent = spent + cost.total();
    match cost.payment {
        PaymentRecord::Hold if funds < spent => {
            let details = serde_json::json!({
                "required_balance": spent.to_string(),
                "account_balance": funds.to_string(),
            });
            Ok(Some(refuse(ErrorCode::BalanceInsufficient, &details)))
        }
        PaymentRecord::Credit => {
            let required = spent.times(MIN_RUNTIME_SECONDS);
            let details = serde_json::json!({
                "required_credits": required.to_string(),
                "account_credits": funds.to_string(),
                "min_runtime_days": MIN_RUNTIME_DAYS,
            });
            Ok((funds < required).then(|| refuse(ErrorCode::CreditInsufficient, &details)))
        }
        // Streams of tokens are checked where the workload runs.
        PaymentRecord::Hold | PaymentRecord::Superfluid => Ok(None),
    }
}

fn refuse(code: ErrorCode, details: &serde_json::Value) -> Rejection {
    Rejection { code: code.number(), errors: vec![details.to_string()] }
}
