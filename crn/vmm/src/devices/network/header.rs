//! The header before each frame: work that one side leaves to the other (virtio 1.2 section 5.1.6).
//!
//! Two kinds of work are taken: a TCP or UDP checksum, and cutting a large TCP packet into segments. The host's kernel does it
//! after the frame was looked at, by offsets that the guest wrote; so these must be the ones of the frame's own TCP or UDP
//! header. A checksum of another place could be put over the sender's address.

use super::frame::{Refusal, Transport};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_HDR_F_DATA_VALID,
    VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6,
};

/// Bytes of the header, which the tap is told to use too.
pub const HEADER_BYTES: usize = 12;

/// Offsets of the checksum in a TCP and in a UDP header.
const TCP_CHECKSUM: u16 = 16;
const UDP_CHECKSUM: u16 = 6;
const CHECKSUM_BYTES: usize = 2;

/// Flags and kinds as the header's bytes hold them.
const NEEDS_CHECKSUM: u8 = byte(VIRTIO_NET_HDR_F_NEEDS_CSUM);
const DATA_VALID: u8 = byte(VIRTIO_NET_HDR_F_DATA_VALID);
const WHOLE: u8 = byte(VIRTIO_NET_HDR_GSO_NONE);
const TCP4_SEGMENTS: u8 = byte(VIRTIO_NET_HDR_GSO_TCPV4);
const TCP6_SEGMENTS: u8 = byte(VIRTIO_NET_HDR_GSO_TCPV6);

const fn byte(constant: u32) -> u8 {
    constant.to_le_bytes()[0]
}

/// What device and driver have agreed upon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offloads {
    /// The guest may leave checksums to the host.
    pub checksum: bool,
    /// And segments of TCP over IPv4.
    pub tcp4: bool,
    /// And over IPv6.
    pub tcp6: bool,
    /// The guest takes frames without a checksum.
    pub guest_checksum: bool,
    /// And several segments of TCP over IPv4 as one.
    pub guest_tcp4: bool,
    /// And over IPv6.
    pub guest_tcp6: bool,
    /// The guest takes a frame in several buffers.
    pub mergeable: bool,
}

impl Offloads {
    /// The feature bits of everything.
    pub const FEATURES: u64 = 1 << VIRTIO_NET_F_CSUM
        | 1 << VIRTIO_NET_F_HOST_TSO4
        | 1 << VIRTIO_NET_F_HOST_TSO6
        | 1 << VIRTIO_NET_F_GUEST_CSUM
        | 1 << VIRTIO_NET_F_GUEST_TSO4
        | 1 << VIRTIO_NET_F_GUEST_TSO6
        | 1 << VIRTIO_NET_F_MRG_RXBUF;

    /// What a driver has chosen. Segments are nothing without checksums (section 5.1.3.1).
    #[must_use]
    pub fn chosen(features: u64) -> Self {
        let has = |bit: u32| features >> bit & 1 == 1;
        let (checksum, guest_checksum) = (has(VIRTIO_NET_F_CSUM), has(VIRTIO_NET_F_GUEST_CSUM));
        Self {
            checksum,
            tcp4: checksum && has(VIRTIO_NET_F_HOST_TSO4),
            tcp6: checksum && has(VIRTIO_NET_F_HOST_TSO6),
            guest_checksum,
            guest_tcp4: guest_checksum && has(VIRTIO_NET_F_GUEST_TSO4),
            guest_tcp6: guest_checksum && has(VIRTIO_NET_F_GUEST_TSO6),
            mergeable: has(VIRTIO_NET_F_MRG_RXBUF),
        }
    }
}

/// The header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    /// Bits of what is to be done, or was.
    pub flags: u8,
    /// Kind of segments.
    pub segments: u8,
    /// Bytes of all headers of the frame, as a hint.
    pub header_bytes: u16,
    /// Bytes of data per segment.
    pub segment_bytes: u16,
    /// From where to the end of the frame the checksum goes.
    pub checksum_start: u16,
    /// Where it is put, from there.
    pub checksum_offset: u16,
    /// Buffers that the frame fills, towards the guest.
    pub buffers: u16,
}

impl Header {
    /// Reads it.
    #[must_use]
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            segments: bytes[1],
            header_bytes: word(2),
            segment_bytes: word(4),
            checksum_start: word(6),
            checksum_offset: word(8),
            buffers: word(10),
        }
    }

    /// Writes it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = self.flags;
        bytes[1] = self.segments;
        let words = [self.header_bytes, self.segment_bytes, self.checksum_start, self.checksum_offset, self.buffers];
        for (place, word) in bytes[2..].chunks_exact_mut(2).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// What the tap is told of a guest's frame of that length, whose transport header is there: only what was agreed upon and
    /// fits the frame.
    ///
    /// # Errors
    /// [`Refusal::Offload`].
    pub fn towards_host(
        self,
        frame_bytes: usize,
        transport: Option<Transport>,
        offloads: Offloads,
    ) -> Result<Self, Refusal> {
        let mut clean = Self::default();
        if self.flags & NEEDS_CHECKSUM == 0 {
            return if self.segments == WHOLE { Ok(clean) } else { Err(Refusal::Offload) };
        }
        let transport = transport.filter(|_| offloads.checksum).ok_or(Refusal::Offload)?;
        clean.flags = NEEDS_CHECKSUM;
        clean.checksum_start = self.checksum_start;
        clean.checksum_offset = if transport.is_tcp { TCP_CHECKSUM } else { UDP_CHECKSUM };
        let end = transport.offset + usize::from(clean.checksum_offset) + CHECKSUM_BYTES;
        let fits = usize::from(self.checksum_start) == transport.offset
            && self.checksum_offset == clean.checksum_offset
            && end <= frame_bytes;
        let agreed = match self.segments {
            WHOLE => return if fits { Ok(clean) } else { Err(Refusal::Offload) },
            TCP4_SEGMENTS => offloads.tcp4 && !transport.is_ipv6,
            TCP6_SEGMENTS => offloads.tcp6 && transport.is_ipv6,
            _ => false,
        };
        let cut = transport.is_tcp && self.segment_bytes > 0 && usize::from(self.header_bytes) <= frame_bytes;
        clean.segments = self.segments;
        clean.segment_bytes = self.segment_bytes;
        clean.header_bytes = self.header_bytes;
        if fits && agreed && cut { Ok(clean) } else { Err(Refusal::Offload) }
    }

    /// What the guest is told of a frame that the host's kernel described so.
    #[must_use]
    pub fn towards_guest(self, offloads: Offloads) -> Self {
        let flags = if offloads.guest_checksum { self.flags & (NEEDS_CHECKSUM | DATA_VALID) } else { 0 };
        Self { flags, ..self }
    }

    /// As how many packets a frame of that length counts.
    #[must_use]
    pub fn packets(self, frame_bytes: usize) -> u64 {
        match (self.segments, self.segment_bytes) {
            (WHOLE, _) | (_, 0) => 1,
            (_, bytes) => frame_bytes.div_ceil(usize::from(bytes)).max(1) as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: u64 = Offloads::FEATURES;
    const TCP4: Transport = Transport { is_ipv6: false, is_tcp: true, offset: 34 };
    const TCP6: Transport = Transport { is_ipv6: true, is_tcp: true, offset: 54 };
    const UDP4: Transport = Transport { is_ipv6: false, is_tcp: false, offset: 34 };

    fn checksum(start: u16, offset: u16) -> Header {
        Header { flags: NEEDS_CHECKSUM, checksum_start: start, checksum_offset: offset, ..Header::default() }
    }

    fn segments(kind: u8, start: u16) -> Header {
        Header { segments: kind, segment_bytes: 1448, header_bytes: start + 20, ..checksum(start, TCP_CHECKSUM) }
    }

    #[test]
    fn work_that_was_agreed_upon_and_fits_is_passed_on() {
        let all = Offloads::chosen(ALL);
        for (header, transport) in [
            (Header::default(), None),
            (Header::default(), Some(TCP4)),
            (checksum(34, 16), Some(TCP4)),
            (checksum(34, 6), Some(UDP4)),
            (segments(TCP4_SEGMENTS, 34), Some(TCP4)),
            (segments(TCP6_SEGMENTS, 54), Some(TCP6)),
        ] {
            assert_eq!(header.towards_host(3000, transport, all), Ok(header));
            let none = header.towards_host(3000, transport, Offloads::default());
            assert_eq!(none.is_ok(), header == Header::default(), "{header:?} was not agreed upon");
        }
        // What is the device's to say is not the driver's.
        let said = Header { flags: DATA_VALID, buffers: 7, ..Header::default() };
        assert_eq!(said.towards_host(3000, None, all), Ok(Header::default()));
    }

    /// A checksum that goes to another place changes what was looked at: here the sender's address, at byte 26.
    #[test]
    fn work_that_does_not_fit_is_refused() {
        let all = Offloads::chosen(ALL);
        for (header, bytes, transport) in [
            (checksum(10, 16), 3000, Some(TCP4)),
            (checksum(14, 12), 3000, Some(TCP4)),
            (checksum(34, 6), 3000, Some(TCP4)),
            (checksum(34, 16), 3000, Some(UDP4)),
            (checksum(34, u16::MAX - 7), 3000, Some(TCP4)),
            (checksum(34, 16), 51, Some(TCP4)),
            (checksum(34, 16), 3000, None),
            (segments(TCP6_SEGMENTS, 34), 3000, Some(TCP4)),
            (segments(TCP4_SEGMENTS, 54), 3000, Some(TCP6)),
            (segments(TCP4_SEGMENTS, 34), 3000, Some(UDP4)),
            (segments(TCP4_SEGMENTS | 0x80, 34), 3000, Some(TCP4)),
            (segments(3, 34), 3000, Some(TCP4)),
            (Header { segment_bytes: 0, ..segments(TCP4_SEGMENTS, 34) }, 3000, Some(TCP4)),
            (Header { header_bytes: 3001, ..segments(TCP4_SEGMENTS, 34) }, 3000, Some(TCP4)),
            (Header { flags: 0, ..segments(TCP4_SEGMENTS, 34) }, 3000, Some(TCP4)),
        ] {
            assert_eq!(header.towards_host(bytes, transport, all), Err(Refusal::Offload), "{header:?}");
        }
    }

    #[test]
    fn segments_are_agreed_upon_with_checksums_only() {
        let without = Offloads::chosen(ALL & !(1 << VIRTIO_NET_F_CSUM | 1 << VIRTIO_NET_F_GUEST_CSUM));
        assert_eq!(without, Offloads { mergeable: true, ..Offloads::default() });
    }

    #[test]
    fn a_guest_that_takes_no_checksums_hears_of_none() {
        let header = Header { flags: NEEDS_CHECKSUM | DATA_VALID | 0x40, ..Header::default() };
        assert_eq!(header.towards_guest(Offloads::default()).flags, 0);
        assert_eq!(header.towards_guest(Offloads::chosen(ALL)).flags, NEEDS_CHECKSUM | DATA_VALID);
    }

    #[test]
    fn segments_are_packets() {
        assert_eq!(Header::default().packets(64_000), 1);
        assert_eq!(segments(TCP4_SEGMENTS, 34).packets(14_481), 11);
        assert_eq!(Header { segment_bytes: 0, ..segments(TCP4_SEGMENTS, 34) }.packets(100), 1);
    }

    proptest! {
        /// Any header: what reaches the host works inside the frame, from its transport header on.
        #[test]
        fn no_header_reaches_beyond_its_frame(
            bytes: [u8; HEADER_BYTES],
            frame_bytes in 54..70_000_usize,
            is_ipv6: bool,
            is_tcp: bool,
            fitting: bool,
        ) {
            let transport = Transport { is_ipv6, is_tcp, offset: 34 };
            let mut header = Header::parse(&bytes);
            prop_assert_eq!(header.to_bytes(), bytes);
            if fitting {
                (header.checksum_start, header.checksum_offset) = (34, if is_tcp { 16 } else { 6 });
                header.segments &= 7;
            }
            if let Ok(clean) = header.towards_host(frame_bytes, Some(transport), Offloads::chosen(ALL)) {
                prop_assert_eq!(clean.flags & !NEEDS_CHECKSUM, 0);
                if clean.flags != 0 {
                    prop_assert_eq!(usize::from(clean.checksum_start), transport.offset);
                    prop_assert!(usize::from(clean.checksum_start + clean.checksum_offset) + 2 <= frame_bytes);
                }
                prop_assert!(clean.segments == WHOLE || is_tcp);
            }
            prop_assert!(header.packets(frame_bytes) >= 1);
        }
    }
}
