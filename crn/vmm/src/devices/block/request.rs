//! From descriptors to a request: pure, before anything is done.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};

/// The unit of addresses, bytes, whatever the block size of the file system above.
pub const SECTOR_BYTES: u64 = 512;
/// Length of the header that starts every request.
pub(super) const HEADER_BYTES: usize = 16;
/// Most data in one request, bytes. Linux asks for 1.25 MiB at most; what is more is refused, so that one
/// request cannot keep the device's thread for long.
pub(super) const MAX_DATA_BYTES: u64 = 16 << 20;
/// Most that one request may discard, bytes: freeing many pieces of a file takes the host its time.
pub(super) const MAX_DISCARD_BYTES: u64 = 64 << 20;
/// Length of what a discard says: one range.
pub(super) const DISCARD_BYTES: usize = 16;
/// Length of a device's name.
pub(super) const ID_BYTES: usize = 20;

/// What the driver wants, held against the device's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Read into the writable buffers.
    Read {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// Write from the readable buffers.
    Write {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// Make what was written durable.
    Flush,
    /// Forget a range, which the readable buffers name: [`discarded`].
    Discard,
    /// The device's name into the writable buffers.
    Identify,
}

/// Why a request is not carried out. The driver's fault; it gets a status byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A request type that the device does not have: status `UNSUPP`.
    #[error("request type {0} is not supported")]
    Unsupported(u32),
    /// Not whole sectors, or beyond the end, or too much at once: status `IOERR`.
    #[error("{length} bytes at sector {sector} are not a valid range")]
    Range {
        /// First sector.
        sector: u64,
        /// Bytes.
        length: u64,
    },
    /// A write to a read-only device: status `IOERR`.
    #[error("the device is read-only")]
    ReadOnly,
}

impl Request {
    /// Understands a header, given how much data the buffers hold: `readable` bytes after the header,
    /// `writable` bytes before the status byte.
    ///
    /// # Errors
    /// The status to answer.
    pub fn parse(
        header: [u8; HEADER_BYTES],
        readable: u64,
        writable: u64,
        capacity_sectors: u64,
        read_only: bool,
    ) -> Result<Self, RequestError> {
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
        let kind = u32::from_le_bytes([t0, t1, t2, t3]);
        let sector = u64::from_le_bytes(sector);
        let range = |length: u64| {
            let refused = RequestError::Range { sector, length };
            let end = sector.checked_add(length / SECTOR_BYTES).ok_or(refused)?;
            if !length.is_multiple_of(SECTOR_BYTES) || length > MAX_DATA_BYTES || end > capacity_sectors {
                return Err(refused);
            }
            // Below the capacity in bytes, which is a u64 by construction.
            Ok((sector * SECTOR_BYTES, length))
        };
        match kind {
            VIRTIO_BLK_T_IN => range(writable).map(|(offset, length)| Self::Read { offset, length }),
            VIRTIO_BLK_T_OUT if read_only => Err(RequestError::ReadOnly),
            VIRTIO_BLK_T_OUT => range(readable).map(|(offset, length)| Self::Write { offset, length }),
            VIRTIO_BLK_T_DISCARD if read_only => Err(RequestError::ReadOnly),
            // One range: the device says that it takes no more.
            VIRTIO_BLK_T_DISCARD if readable == DISCARD_BYTES as u64 => Ok(Self::Discard),
            VIRTIO_BLK_T_DISCARD => Err(RequestError::Range { sector, length: readable }),
            VIRTIO_BLK_T_FLUSH => Ok(Self::Flush),
            VIRTIO_BLK_T_GET_ID => Ok(Self::Identify),
            other => Err(RequestError::Unsupported(other)),
        }
    }
}

/// The range that a discard names, held against the device's size: first byte and length, bytes.
///
/// # Errors
/// The status to answer.
pub(super) fn discarded(range: [u8; DISCARD_BYTES], capacity_sectors: u64) -> Result<(u64, u64), RequestError> {
    let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = range;
    let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    let length = u64::from(u32::from_le_bytes([n0, n1, n2, n3])) * SECTOR_BYTES;
    // There is one flag, and it is for zeroing.
    if u32::from_le_bytes(flags) != 0 {
        return Err(RequestError::Unsupported(VIRTIO_BLK_T_DISCARD));
    }
    let refused = RequestError::Range { sector, length };
    let end = sector.checked_add(length / SECTOR_BYTES).ok_or(refused)?;
    if end > capacity_sectors || length > MAX_DISCARD_BYTES {
        return Err(refused);
    }
    Ok((sector * SECTOR_BYTES, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(kind: u32, sector: u64) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[8..].copy_from_slice(&sector.to_le_bytes());
        bytes
    }

    fn check(kind: u32, sector: u64, readable: u64, writable: u64, expect: Result<Request, RequestError>) {
        assert_eq!(Request::parse(header(kind, sector), readable, writable, 100, false), expect);
    }

    #[test]
    fn requests_are_held_against_the_device() {
        let range = |sector, length| Err(RequestError::Range { sector, length });
        check(VIRTIO_BLK_T_IN, 99, 0, 512, Ok(Request::Read { offset: 99 * 512, length: 512 }));
        check(VIRTIO_BLK_T_IN, 99, 0, 1024, range(99, 1024));
        check(VIRTIO_BLK_T_IN, 0, 0, 511, range(0, 511));
        check(VIRTIO_BLK_T_IN, u64::MAX, 0, 512, range(u64::MAX, 512));
        check(VIRTIO_BLK_T_OUT, 4, 1024, 0, Ok(Request::Write { offset: 2048, length: 1024 }));
        check(VIRTIO_BLK_T_FLUSH, 7, 3, 3, Ok(Request::Flush));
        check(VIRTIO_BLK_T_GET_ID, 0, 0, 20, Ok(Request::Identify));
        check(VIRTIO_BLK_T_DISCARD, 0, 16, 0, Ok(Request::Discard));
        check(VIRTIO_BLK_T_DISCARD, 0, 32, 0, range(0, 32));
        check(13, 0, 0, 0, Err(RequestError::Unsupported(13)));
        let refused = Request::parse(header(VIRTIO_BLK_T_OUT, 0), 512, 0, 100, true);
        assert_eq!(refused, Err(RequestError::ReadOnly));
    }

    fn range(sector: u64, sectors: u32, flags: u32) -> [u8; DISCARD_BYTES] {
        let mut bytes = [0; DISCARD_BYTES];
        bytes[..8].copy_from_slice(&sector.to_le_bytes());
        bytes[8..12].copy_from_slice(&sectors.to_le_bytes());
        bytes[12..].copy_from_slice(&flags.to_le_bytes());
        bytes
    }

    #[test]
    fn what_is_discarded_lies_inside_too() {
        let refused = |sector, length| Err(RequestError::Range { sector, length });
        assert_eq!(discarded(range(96, 4, 0), 100), Ok((96 * 512, 4 * 512)));
        assert_eq!(discarded(range(97, 4, 0), 100), refused(97, 2048));
        assert_eq!(discarded(range(u64::MAX, 1, 0), 100), refused(u64::MAX, 512));
        assert_eq!(discarded(range(0, 131_073, 0), u64::MAX), refused(0, 131_073 * 512));
        assert_eq!(discarded(range(0, 4, 1), 100), Err(RequestError::Unsupported(VIRTIO_BLK_T_DISCARD)));
    }

    proptest! {
        #[test]
        fn a_discard_that_is_accepted_lies_inside(bytes in any::<[u8; DISCARD_BYTES]>(), sector in 0..4_u64, sectors in 0..9_u32, capacity in 0..1_u64 << 50) {
            for bytes in [bytes, range(sector, sectors, 0)] {
                if let Ok((offset, length)) = discarded(bytes, capacity) {
                    prop_assert!(offset.checked_add(length).is_some_and(|end| end <= capacity * SECTOR_BYTES));
                    prop_assert!(length <= MAX_DISCARD_BYTES);
                }
            }
        }

        #[test]
        fn what_is_accepted_lies_inside(bytes in any::<[u8; HEADER_BYTES]>(), readable: u64, writable: u64, capacity in 0..1_u64 << 50) {
            for bytes in [bytes, header(u32::from(bytes[0]) % 5, u64::from(bytes[8]))] {
                match Request::parse(bytes, readable, writable, capacity, false) {
                    Ok(Request::Read { offset, length } | Request::Write { offset, length }) => {
                        prop_assert!(offset.checked_add(length).is_some_and(|end| end <= capacity * SECTOR_BYTES));
                        prop_assert!(length <= MAX_DATA_BYTES);
                    }
                    Ok(Request::Flush | Request::Discard | Request::Identify) | Err(_) => {}
                }
            }
        }
    }
}
