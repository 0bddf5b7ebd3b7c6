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

/// Why an address cannot take a further cost; none when it can.
///
/// # Errors
/// The store fails.
pub(super) fn shortage(reader: &dyn Reader, cost: &CostRecord, now_ms: u64) -> Result<Option<Rejection>, StoreError> {
    let balance = ledger::balance(reader, &cost.address, now_ms)?;
    let spent = ledger::spending(reader, &cost.address, cost.payment)? + cost.total();
    match cost.payment {
        PaymentRecord::Hold if balance.total < spent => {
            let details = serde_json::json!({
                "required_balance": spent.to_string(),
                "account_balance": balance.total.to_string(),
            });
            Ok(Some(refuse(ErrorCode::BalanceInsufficient, &details)))
        }
        PaymentRecord::Credit => {
            let required = spent.times(MIN_RUNTIME_SECONDS);
            let available = Amount::from_integer(i128::try_from(balance.credits).unwrap_or(i128::MAX));
            let details = serde_json::json!({
                "required_credits": required.to_string(),
                "account_credits": balance.credits.to_string(),
                "min_runtime_days": MIN_RUNTIME_DAYS,
            });
            Ok((available < required).then(|| refuse(ErrorCode::CreditInsufficient, &details)))
        }
        // Streams of tokens are checked where the workload runs.
        PaymentRecord::Hold | PaymentRecord::Superfluid => Ok(None),
    }
}

fn refuse(code: ErrorCode, details: &serde_json::Value) -> Rejection {
    Rejection { code: code.number(), errors: vec![details.to_string()] }
}
