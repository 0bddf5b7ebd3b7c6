//! Addresses of machines and the rules of the host's packet filter for them: what is decided, as plain data. Nothing here
//! touches an interface.

pub mod ipv4;
pub mod ipv6;
pub mod rules;
