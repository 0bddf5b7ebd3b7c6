//! Where a snapshot's memory file has nothing: memory of the guest that was zero.
//!
//! A clone that writes to a hole of the file would have the host first make a page of the file, for all clones, and then its own copy of it.
//! Where files are in memory (tmpfs) both stay, and both are counted as that clone's: one that fills its memory was killed at half of it. So
//! the largest holes are memory that belongs to no file, of which the first write makes one page.

use crate::kernel::PAGE_BYTES;
use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use std::{fs::File, io, ops::Range};

/// Most holes that are told of: each is a system call between a call and its program. What is free in a guest that has just come up lies together.
pub const MAX_HOLES: usize = 4;
/// A smaller one is not worth its call, bytes.
const MIN_BYTES: u64 = 1 << 20;
/// Most parts of a file that are looked at; what comes after them counts as full.
const MAX_PARTS: usize = 100_000;

/// Pages of a memory file that are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// The first, in pages from the file's beginning.
    pub first: u32,
    /// How many.
    pub pages: u32,
}

impl Hole {
    /// Its bytes in the file.
    #[must_use]
    pub fn bytes(self) -> Range<u64> {
        let first = u64::from(self.first) * PAGE_BYTES;
        first..first + u64::from(self.pages) * PAGE_BYTES
    }

    /// Those that are whole pages of a range of bytes.
    fn of(range: &Range<u64>) -> Option<Self> {
        let (first, end) = (range.start.div_ceil(PAGE_BYTES), range.end / PAGE_BYTES);
        Some(Self { first: first.try_into().ok()?, pages: end.checked_sub(first)?.try_into().ok()? })
    }
}

/// The largest holes of a file, at most [`MAX_HOLES`], in no order.
///
/// # Errors
/// The file cannot be looked at.
pub fn largest(file: &File) -> io::Result<Vec<Hole>> {
    let length = file.metadata()?.len();
    let mut holes: Vec<Range<u64>> = Vec::new();
    let mut at = 0;
    for _ in 0..MAX_PARTS {
        if at >= length {
            break;
        }
        let start = seek(file, SeekFrom::Hole(at)).map(|start| start.min(length))?;
        let end = match seek(file, SeekFrom::Data(start)) {
            Ok(end) => end,
            // Nothing comes up to the end.
            Err(Errno::NXIO) => length,
            Err(error) => return Err(error.into()),
        };
        if end - start >= MIN_BYTES {
            holes.push(start..end);
        }
        at = end;
    }
    holes.sort_by_key(|hole| std::cmp::Reverse(hole.end - hole.start));
    Ok(holes.iter().take(MAX_HOLES).filter_map(Hole::of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::FileExt as _;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_largest_are_found() {
        let file = tempfile::tempfile().expect("a file");
        assert_eq!(largest(&file).expect("looked at"), [], "an empty file");
        file.set_len(64 * MIB).expect("a length");
        let pages = |bytes: u64| u32::try_from(bytes / PAGE_BYTES).expect("few");
        let hole = |from: u64, to: u64| Hole { first: pages(from), pages: pages(to - from) };
        assert_eq!(largest(&file).expect("looked at"), [hole(0, 64 * MIB)]);
        // Data in one page at 0, 10, 11, 11.5, 20, 24, 29 MiB.
        for half in [0, 20, 22, 23, 40, 48, 58] {
            file.write_all_at(b"data", half * MIB / 2).expect("a write");
        }
        let after = |from: u64, to: u64| hole(from * MIB + PAGE_BYTES, to * MIB);
        let expected = [after(29, 64), after(0, 10), hole(23 * MIB / 2 + PAGE_BYTES, 20 * MIB), after(24, 29)];
        assert_eq!(largest(&file).expect("looked at"), expected);
    }

    proptest! {
        #[test]
        fn a_hole_has_no_data(places in proptest::collection::vec(0..1_000_u64, 0..40)) {
            let file = tempfile::tempfile().expect("a file");
            file.set_len(1_000 * PAGE_BYTES * 4).expect("a length");
            for place in &places {
                file.write_all_at(&[7], place * PAGE_BYTES * 4 + 100).expect("a write");
            }
            let holes = largest(&file).expect("looked at");
            prop_assert!(holes.len() <= MAX_HOLES);
            for hole in holes {
                let bytes = hole.bytes();
                prop_assert!(bytes.end <= 4_000 * PAGE_BYTES && bytes.end - bytes.start >= MIN_BYTES - 2 * PAGE_BYTES);
                prop_assert!(places.iter().all(|place| !bytes.contains(&(place * PAGE_BYTES * 4 + 100))));
            }
        }
    }
}
