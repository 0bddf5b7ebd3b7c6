//! The vsock device: streams between the guest's ports and sockets of the host (virtio 1.2 section 5.10).
//!
//! The host's side of every connection is a stream socket that somebody handed in; there are no paths,
//! no listening sockets and no kernel module. The muxer is plain state: packets and streams in, packets out.
//!
//! Flow control works on both sides. The guest may send as many bytes as fit [`connection::BUFFER_BYTES`] and were
//! not yet taken by the host's reader; the host sends as many as the guest has said it has room for. A reader that does
//! not read stops its own connection and nobody else's.

pub mod connection;
mod device;
pub mod muxer;
pub mod packet;

pub use device::{StreamRegistry, VSOCK_QUEUES, VsockDevice};
pub use muxer::{HostStream, Muxer};
