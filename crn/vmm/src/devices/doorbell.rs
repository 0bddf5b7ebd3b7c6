//! The doorbell: a 32-bit port write that says where the guest is (see [`guest_protocol::doorbell`]).

/// The doorbell port.
#[derive(Debug)]
pub struct Doorbell;

impl Doorbell {
    /// The word that was written, if it was a whole one: shorter writes are not doorbells.
    #[must_use]
    pub fn word(data: &[u8]) -> Option<u32> {
        Some(u32::from_le_bytes(data.try_into().ok()?))
    }
}
