//! The ledger: tokens, credits and what is spent of them. Functions of what the store holds.
//!
//! Credits are kept twice: every movement in the order in which it counts, (time, hash) of its message, and what is left of every grant, which
//! follows from the movements alone. Whatever the order in which messages arrive, the same movements leave the same lots.

mod balance;
mod credits;
mod history;
mod lots;
mod totals;

pub(crate) use balance::spending_key;
pub use balance::{Balance, Lot, balance, spending};
pub use credits::{NotCovered, Replayed};
pub(crate) use credits::{move_credits, take_back};
pub use history::{Details, Entry, entries, entries_of, summary};
pub use totals::{consumed, priced_prefix, totals};
pub(crate) use totals::{count_costs, payer_of};
