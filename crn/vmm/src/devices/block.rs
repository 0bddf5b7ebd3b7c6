//! Block devices: a file seen as sectors (virtio 1.2 section 5.2).

mod device;
mod request;

pub use device::{BLOCK_QUEUES, Block, READ_ONLY_SECTORS, Storage};
pub use request::{Request, RequestError, SECTOR_BYTES};
