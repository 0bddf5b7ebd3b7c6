//! Programs and instances: namespaces `program` and `instance`.

use super::Key;

/// The namespace of PROGRAM.
pub const PROGRAM: &str = "program";
/// The namespace of INSTANCE.
pub const INSTANCE: &str = "instance";
/// Table of replacements: (program that is replaced, time, hash) to nothing. The current version of a program is the last of them.
const REPLACEMENT: u8 = b'r';

/// Prefix of what replaces a program; moments follow.
#[must_use]
pub fn replacements(program: &str) -> Key {
    Key::of(REPLACEMENT).text(program)
}
