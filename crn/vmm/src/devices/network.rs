//! The network card: Ethernet frames between the guest and a tap of the host (virtio 1.2 section 5.1).
//!
//! The tap is handed in, made and addressed by whoever made it; here is no path, no name and no privilege. Frames are copied
//! once through a buffer of the device's own: what was looked at is what is sent, whatever a guest writes meanwhile.
//!
//! A guest sends under its own name or not at all. Its frames carry the card's Ethernet address and one of the addresses that
//! the machine was given ([`frame`]), and they ask the host for no work that would change them afterwards ([`header`]). The
//! host's packet filter says the same; either is enough.
//!
//! The guest's buffers are mergeable: a packet that was put together by the host (up to 64 KiB) fills as many as it needs.
//! The alternative is that each of 256 buffers is 64 KiB, which is a tenth of a small guest's memory.
//!
//! Both directions have a bound on bytes and packets per second; what is over it waits in the guest's queue or in the tap's,
//! which drops when it is full, as every wire does.

mod device;
pub mod frame;
pub mod header;
mod tap;

pub use device::{DEFAULT_RATES, NETWORK_QUEUES, Network, Rates, Wire};
pub use frame::Identity;
pub use tap::Tap;
