//! The ledger: tokens, credits and what is spent of them. Functions of what the store holds.

mod balance;

pub use balance::{Balance, Lot, balance};
