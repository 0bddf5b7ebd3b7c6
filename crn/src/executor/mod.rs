//! Starts machines for calls.

pub mod admit;
pub mod state;
