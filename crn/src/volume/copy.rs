//! Copies of sparse files: shared by the file system where it can (reflinks), else copied where there is data.

use rustix::{
    fs::{SeekFrom, copy_file_range, ioctl_ficlone, seek},
    io::Errno,
};
use std::{fs::File, io, os::unix::fs::MetadataExt as _};

/// Bytes of one block of `st_blocks`, whatever the file system.
const STAT_BLOCK_BYTES: u64 = 512;

/// Makes an empty file the same as another. Holes stay holes. Returns the bytes that the copy takes on its disk, roughly.
///
/// # Errors
/// The disk fails or is full; the copy is of no use then.
pub fn contents(from: &File, to: &File) -> io::Result<u64> {
    if ioctl_ficlone(to, from).is_ok() {
        return Ok(0);
    }
    by_pieces(from, to)?;
    Ok(to.metadata()?.blocks() * STAT_BLOCK_BYTES)
}

fn by_pieces(from: &File, to: &File) -> io::Result<()> {
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let mut at = 0;
    while at < length {
        let start = match seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            // There is none up to the end.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = seek(from, SeekFrom::Hole(start))?;
        let (mut source, mut target) = (start, start);
        while source < end {
            let left = usize::try_from(end - source).unwrap_or(usize::MAX);
            match copy_file_range(from, Some(&mut source), to, Some(&mut target), left) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        at = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    #[test]
    fn a_copy_has_the_same_bytes_and_the_same_holes() {
        let (from, to) = (tempfile::tempfile().expect("a file"), tempfile::tempfile().expect("a file"));
        from.set_len(64 << 20).expect("a length");
        from.write_all_at(b"first", 0).expect("a write");
        from.write_all_at(&[3; 70_000], 10 << 20).expect("a write");
        from.write_all_at(b"last", (64 << 20) - 4).expect("a write");
        by_pieces(&from, &to).expect("a copy");
        assert_eq!(to.metadata().expect("metadata").len(), 64 << 20);
        let blocks = |file: &File| file.metadata().expect("metadata").blocks();
        assert!(blocks(&to) <= blocks(&from) + 64, "{} blocks of {}", blocks(&to), blocks(&from));
        let digest = |file: &File| crate::template::seal::digest(file).expect("a digest");
        assert_eq!(digest(&to), digest(&from));
        to.write_all_at(b"other", 0).expect("a write");
        assert_ne!(digest(&to), digest(&from), "they are two files");
    }
}
