//! Programs and instances: namespaces `program` and `instance`.

use super::Key;

/// The namespace of PROGRAM.
pub const PROGRAM: &str = "program";
/// The namespace of INSTANCE.
pub const INSTANCE: &str = "instance";
/// Table of replacements: (program that is replaced, time, hash) to nothing. The current version of a program is the last of them.
const REPLACEMENT: u8 = b'r';

/// Table of programs that want to be told of messages: (time, hash) to what they subscribe to, a JSON list.
const LISTENER: u8 = b'l';

/// Prefix of programs that want to be told of messages; moments follow.
#[must_use]
pub fn listeners() -> Key {
    Key::of(LISTENER)
}

/// Prefix of what replaces a program; moments follow.
#[must_use]
pub fn replacements(program: &str) -> Key {
    Key::of(REPLACEMENT).text(program)
}
