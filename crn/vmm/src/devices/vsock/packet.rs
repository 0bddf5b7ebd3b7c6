//! The header of a vsock packet, as bytes.

/// Length of a header, bytes.
pub const HEADER_BYTES: usize = 44;
/// Most data in one packet, bytes: Linux sends no more (`VIRTIO_VSOCK_MAX_PKT_BUF_SIZE`).
pub const MAX_DATA_BYTES: u32 = 64 * 1024;
/// The host's address.
pub const HOST_CID: u64 = 2;
/// Connection type: a stream.
pub const TYPE_STREAM: u16 = 1;

/// What a packet does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Asks for a connection.
    Request,
    /// Grants it.
    Response,
    /// Refuses it, or ends it at once.
    Reset,
    /// Ends one or both directions; see [`SHUTDOWN_RECEIVE`] and [`SHUTDOWN_SEND`].
    Shutdown,
    /// Data.
    Data,
    /// Tells how much room there is.
    CreditUpdate,
    /// Asks for that.
    CreditRequest,
}

/// Flag of a shutdown: the sender will receive no more.
pub const SHUTDOWN_RECEIVE: u32 = 1;
/// Flag of a shutdown: the sender will send no more.
pub const SHUTDOWN_SEND: u32 = 2;

impl Operation {
    fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::Data,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        })
    }

    fn number(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Reset => 3,
            Self::Shutdown => 4,
            Self::Data => 5,
            Self::CreditUpdate => 6,
            Self::CreditRequest => 7,
        }
    }
}

/// The fields of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Sender's address.
    pub source_cid: u64,
    /// Receiver's address.
    pub destination_cid: u64,
    /// Sender's port.
    pub source_port: u32,
    /// Receiver's port.
    pub destination_port: u32,
    /// Bytes of data that follow.
    pub length: u32,
    /// Connection type.
    pub kind: u16,
    /// What the packet does; none for a number that means nothing.
    pub operation: Option<Operation>,
    /// Flags of the operation.
    pub flags: u32,
    /// Size of the sender's receive buffer, bytes.
    pub buffer_bytes: u32,
    /// Bytes that the sender has taken out of that buffer since the start, modulo 2^32.
    pub forwarded: u32,
}

impl Header {
    /// Reads a header.
    #[must_use]
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let u16_at = |offset: usize| u16::from_le_bytes([bytes[offset], bytes[offset + 1]]);
        let u32_at = |offset: usize| u32::from(u16_at(offset)) | u32::from(u16_at(offset + 2)) << 16;
        let u64_at = |offset: usize| u64::from(u32_at(offset)) | u64::from(u32_at(offset + 4)) << 32;
        Self {
            source_cid: u64_at(0),
            destination_cid: u64_at(8),
            source_port: u32_at(16),
            destination_port: u32_at(20),
            length: u32_at(24),
            kind: u16_at(28),
            operation: Operation::from_number(u16_at(30)),
            flags: u32_at(32),
            buffer_bytes: u32_at(36),
            forwarded: u32_at(40),
        }
    }

    /// Writes a header.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&self.source_cid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.destination_cid.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.source_port.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.destination_port.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.length.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.kind.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.operation.map_or(0, Operation::number).to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buffer_bytes.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.forwarded.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A request from port 1024 of guest 3 to port 80 of the host, as the kernel sends it.
    #[test]
    fn golden_header() {
        let header = Header {
            source_cid: 3,
            destination_cid: HOST_CID,
            source_port: 1024,
            destination_port: 80,
            length: 0,
            kind: TYPE_STREAM,
            operation: Some(Operation::Request),
            flags: 0,
            buffer_bytes: 0x4_0000,
            forwarded: 7,
        };
        let golden = concat!(
            "0300000000000000",
            "0200000000000000",
            "00040000",
            "50000000",
            "00000000",
            "0100",
            "0100",
            "00000000",
            "00000400",
            "07000000",
        );
        let hex: String = header.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden);
        assert_eq!(Header::parse(&header.to_bytes()), header);
    }

    proptest! {
        #[test]
        fn any_bytes_are_some_header(bytes in proptest::array::uniform32(any::<u8>()), rest in proptest::array::uniform12(any::<u8>())) {
            let mut all = [0; HEADER_BYTES];
            all[..32].copy_from_slice(&bytes);
            all[32..].copy_from_slice(&rest);
            let header = Header::parse(&all);
            let again = Header::parse(&header.to_bytes());
            prop_assert_eq!(header, again);
        }
    }
}
