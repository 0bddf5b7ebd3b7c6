//! The network of machines. What is decided is plain data ([`ipv4`], [`ipv6`], [`rules`], [`name_servers`]); what is done is thin
//! ([`links`], [`netfilter`], [`sysctl`]); [`host`] puts both together, and a machine has a [`card`].
//!
//! A machine has a wire of its own to its host: a tap with a /30 of IPv4 and, where the operator has a public network, the /124 of
//! its message. Nothing else is on it, so there is nobody to listen to and nobody to speak as. What a guest sends under another's
//! address is dropped by its card (`vmm`, `devices::network`), and by the host.
//!
//! Clones of one template do not share an address either. It would have been simpler to give every guest the same one and to have
//! the host tell them apart, but the host's kernel does that by a namespace per machine, which costs more than a machine does. So a
//! clone is told its addresses with what else makes it itself, and its init takes them before anything of the user runs.

pub mod card;
pub mod host;
pub mod ipv4;
pub mod ipv6;
pub mod links;
pub mod name_servers;
pub mod netfilter;
pub mod rules;
pub mod sysctl;
