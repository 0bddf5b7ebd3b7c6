//! Capabilities: those that a new user namespace comes with (capabilities(7), user_namespaces(7)).

use rustix::{
    io::Errno,
    thread::{
        CapabilitiesSecureBits as SecureBits, CapabilitySet, CapabilitySets, clear_ambient_capability_set,
        remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits,
    },
};
use std::io;

/// No id and no program gives capabilities, and none are kept, for good.
const LOCKED: SecureBits = SecureBits::NO_ROOT
    .union(SecureBits::NO_ROOT_LOCKED)
    .union(SecureBits::NO_SETUID_FIXUP)
    .union(SecureBits::NO_SETUID_FIXUP_LOCKED)
    .union(SecureBits::KEEP_CAPS_LOCKED)
    .union(SecureBits::NO_CAP_AMBIENT_RAISE)
    .union(SecureBits::NO_CAP_AMBIENT_RAISE_LOCKED);

/// Empties every set of the calling thread, and takes away all that could fill one again.
pub(super) fn drop_all() -> io::Result<()> {
    for bit in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            // This kernel knows no more.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    set_capabilities_secure_bits(LOCKED)?;
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}
