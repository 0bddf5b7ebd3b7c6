//! What the targets share: a guest that does what bytes say, and a host around its devices without a clock or a wire.

pub mod guest;
pub mod host;
