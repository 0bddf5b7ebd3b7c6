//! The devices. Models are plain state and guest memory: no KVM, no threads; files and sockets are
//! behind the traits that tests replace.

pub mod balloon;
pub mod block;
pub mod console;
pub mod doorbell;
pub mod entropy;
pub mod network;
pub mod timer;
pub mod token_bucket;
pub mod vsock;
