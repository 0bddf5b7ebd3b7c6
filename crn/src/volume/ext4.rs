//! An empty ext4 file system with a journal, written at its full size into a file that is all holes.
//!
//! The node formats volumes itself: it needs no program for that at run time, a guest none either, and a fresh file is known to be zero, so
//! that no table of inodes has to be written: a volume of 2 TB takes nine MiB until its guest writes, one of 5 MiB eight KiB. Layout and names are those of
//! `Documentation/filesystems/ext4` of Linux. Everything that is written here is in group 0, but for the copies of superblock and descriptors and
//! for the bitmap of the last group; the bitmaps of all others are marked as not initialized, as `mke2fs` does.
//!
//! Pure: a length goes in, a list of places and bytes comes out. Tests hold it against `e2fsck`.

use std::iter::successors;

/// Least length of a volume, bytes: a smaller one has no room for a journal.
pub const MIN_BYTES: u64 = 2 << 20;
/// Largest length, bytes: what 32-bit numbers of blocks of 4 KiB count to.
pub const MAX_BYTES: u64 = 1 << 43;
/// From this length on blocks have 4 KiB, below 1 KiB: the journal of the least 1,024 blocks takes the space of a small volume otherwise.
const LARGE_BYTES: u64 = 64 << 20;

const SUPERBLOCK_AT: u64 = 1024;
const SUPERBLOCK_BYTES: usize = 1024;
const INODE_BYTES: u32 = 256;
const DESCRIPTOR_BYTES: u32 = 32;
const ROOT_INODE: u32 = 2;
const JOURNAL_INODE: u32 = 8;
/// The first that is not reserved.
const LOST_AND_FOUND_INODE: u32 = 11;
/// Longest run of blocks of one extent.
const MAX_EXTENT_BLOCKS: u32 = 32768;
/// A last group with less room than its tables and this many blocks is left out.
const LEAST_GROUP_BLOCKS: u32 = 50;

mod feature {
    pub(super) const COMPATIBLE: u32 = HAS_JOURNAL | EXT_ATTR | DIR_INDEX;
    pub(super) const INCOMPATIBLE: u32 = FILETYPE | EXTENTS;
    pub(super) const READ_ONLY: u32 = SPARSE_SUPER | LARGE_FILE | HUGE_FILE | GDT_CSUM | DIR_NLINK | EXTRA_ISIZE;
    const HAS_JOURNAL: u32 = 0x4;
    const EXT_ATTR: u32 = 0x8;
    const DIR_INDEX: u32 = 0x20;
    const FILETYPE: u32 = 0x2;
    const EXTENTS: u32 = 0x40;
    const SPARSE_SUPER: u32 = 0x1;
    const LARGE_FILE: u32 = 0x2;
    const HUGE_FILE: u32 = 0x8;
    /// A checksum for each descriptor; what allows bitmaps and tables to be not initialized.
    const GDT_CSUM: u32 = 0x10;
    const DIR_NLINK: u32 = 0x20;
    const EXTRA_ISIZE: u32 = 0x40;
}

mod flag {
    pub(super) const INODES_UNINITIALIZED: u16 = 1;
    pub(super) const BLOCKS_UNINITIALIZED: u16 = 2;
    /// The table of inodes is zero on the disk: nobody has to make it so.
    pub(super) const INODES_ZEROED: u16 = 4;
    pub(super) const EXTENTS: u32 = 0x8_0000;
}

/// What makes one file system another than all others.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// Its UUID.
    pub uuid: [u8; 16],
    /// Seeds the hashes of its directories.
    pub hash_seed: [u8; 16],
    /// When it was made, seconds since 1970.
    pub made: u32,
}

/// Bytes and where they go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Offset in the file.
    pub at: u64,
    /// What is written there.
    pub bytes: Vec<u8>,
}

/// The length is none that a file system can have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a file system of {0} bytes is not between {MIN_BYTES} and {MAX_BYTES} bytes")]
pub struct LengthError(pub u64);

/// Where everything is, in blocks.
#[derive(Debug, Clone, Copy)]
struct Layout {
    block_bytes: u32,
    /// All blocks that belong to a group; what a file has beyond is not used.
    blocks: u32,
    /// 1 where the block of the superblock is not the first.
    first: u32,
    blocks_per_group: u32,
    inodes_per_group: u32,
    groups: u32,
    descriptor_blocks: u32,
    table_blocks: u32,
    journal_blocks: u32,
}

impl Layout {
    fn of(length_bytes: u64) -> Result<Self, LengthError> {
        if !(MIN_BYTES..=MAX_BYTES).contains(&length_bytes) {
            return Err(LengthError(length_bytes));
        }
        let large = length_bytes >= LARGE_BYTES;
        let block_bytes: u32 = if large { 4096 } else { 1024 };
        // As `mke2fs` does: the journal grows with the volume.
        let journal_blocks = match length_bytes >> 20 {
            0..512 => 1024,
            512..4096 => 4096,
            _ => 16384,
        };
        let blocks_per_group = 8 * block_bytes;
        // One for each 16 KiB of a large volume and each 8 KiB of a small one.
        let inodes_per_group = if large { 8192 } else { 1024 };
        let mut layout = Self {
            block_bytes,
            blocks: u32::try_from(length_bytes / u64::from(block_bytes)).unwrap_or(u32::MAX),
            first: u32::from(!large),
            blocks_per_group,
            inodes_per_group,
            groups: 0,
            descriptor_blocks: 0,
            table_blocks: inodes_per_group * INODE_BYTES / block_bytes,
            journal_blocks,
        };
        layout.count_groups();
        let tail = (layout.blocks - layout.first) % blocks_per_group;
        let last = layout.groups - 1;
        if last > 0 && tail > 0 && tail < layout.own_blocks(last) + LEAST_GROUP_BLOCKS {
            layout.blocks -= tail;
            layout.count_groups();
        }
        Ok(layout)
    }

    fn count_groups(&mut self) {
        self.groups = (self.blocks - self.first).div_ceil(self.blocks_per_group);
        self.descriptor_blocks = (self.groups * DESCRIPTOR_BYTES).div_ceil(self.block_bytes);
    }

    fn start_of(&self, group: u32) -> u32 {
        self.first + group * self.blocks_per_group
    }

    fn blocks_of(&self, group: u32) -> u32 {
        (self.blocks - self.start_of(group)).min(self.blocks_per_group)
    }

    /// Blocks of superblock and descriptors at the start of a group.
    fn copy_blocks(&self, group: u32) -> u32 {
        if has_copy(group) { 1 + self.descriptor_blocks } else { 0 }
    }

    /// Blocks that a group takes for itself: copies, two bitmaps, its table.
    fn own_blocks(&self, group: u32) -> u32 {
        self.copy_blocks(group) + 2 + self.table_blocks
    }

    fn block_bitmap(&self, group: u32) -> u32 {
        self.start_of(group) + self.copy_blocks(group)
    }

    fn inode_table(&self, group: u32) -> u32 {
        self.block_bitmap(group) + 2
    }

    /// Behind group 0's own: the root, `lost+found`, the journal.
    fn root(&self) -> u32 {
        self.start_of(0) + self.own_blocks(0)
    }

    fn used_blocks(&self, group: u32) -> u32 {
        self.own_blocks(group) + if group == 0 { 2 + self.journal_blocks } else { 0 }
    }

    fn free_blocks(&self) -> u32 {
        (0..self.groups).map(|group| self.blocks_of(group) - self.used_blocks(group)).sum()
    }

    fn at(&self, block: u32) -> u64 {
        u64::from(block) * u64::from(self.block_bytes)
    }

    fn block(&self) -> Vec<u8> {
        vec![0; self.block_bytes as usize]
    }
}

/// Whether a group starts with copies of superblock and descriptors: 0, 1 and the powers of 3, 5 and 7.
fn has_copy(group: u32) -> bool {
    let power = |base: u32| successors(Some(base), move |power| power.checked_mul(base)).any(|power| power == group);
    group <= 1 || power(3) || power(5) || power(7)
}

/// An empty file system of that length, as what must be written into a file of that length which is zero everywhere.
///
/// # Errors
/// No file system can be that long.
pub fn format(length_bytes: u64, identity: &Identity) -> Result<Vec<Piece>, LengthError> {
    let layout = Layout::of(length_bytes)?;
    let descriptors = descriptors(&layout, identity);
    let mut pieces = Vec::new();
    let mut put = |at, bytes| pieces.push(Piece { at, bytes });
    for group in (0..layout.groups).filter(|group| has_copy(*group)) {
        let start = layout.start_of(group);
        let within = if group == 0 { SUPERBLOCK_AT } else { layout.at(start) };
        put(within, superblock(&layout, identity, group));
        put(layout.at(start + 1), descriptors.clone());
    }
    let last = layout.groups - 1;
    put(layout.at(layout.block_bitmap(0)), block_bitmap(&layout, 0));
    if last > 0 {
        put(layout.at(layout.block_bitmap(last)), block_bitmap(&layout, last));
    }
    put(layout.at(layout.block_bitmap(0) + 1), bitmap(&layout, LOST_AND_FOUND_INODE, layout.inodes_per_group));

    let (root, journal) = (layout.root(), layout.root() + 2);
    let block_bytes = u64::from(layout.block_bytes);
    let journal_bytes = block_bytes * u64::from(layout.journal_blocks);
    let inode_at = |number: u32| layout.at(layout.inode_table(0)) + u64::from((number - 1) * INODE_BYTES);
    let inode = |mode, links, first, blocks| inode(&layout, identity, mode, links, first, blocks);
    put(inode_at(ROOT_INODE), inode(0o040_755, 3, root, 1));
    put(inode_at(JOURNAL_INODE), inode(0o100_600, 1, journal, layout.journal_blocks));
    put(inode_at(LOST_AND_FOUND_INODE), inode(0o040_700, 2, root + 1, 1));
    debug_assert!(layout.journal_blocks <= MAX_EXTENT_BLOCKS && u32::try_from(journal_bytes).is_ok());

    let own = [(ROOT_INODE, "."), (ROOT_INODE, ".."), (LOST_AND_FOUND_INODE, "lost+found")];
    put(layout.at(root), directory(&layout, &own));
    put(layout.at(root + 1), directory(&layout, &[(LOST_AND_FOUND_INODE, "."), (ROOT_INODE, "..")]));
    put(layout.at(journal), journal_superblock(&layout));
    Ok(pieces)
}

fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn superblock(layout: &Layout, identity: &Identity, group: u32) -> Vec<u8> {
    let mut bytes = vec![0; SUPERBLOCK_BYTES];
    let log_block = layout.block_bytes.trailing_zeros() - 10;
    for (at, value) in [
        (0, layout.groups * layout.inodes_per_group),
        (4, layout.blocks),
        (12, layout.free_blocks()),
        (16, layout.groups * layout.inodes_per_group - LOST_AND_FOUND_INODE),
        (20, layout.first),
        (24, log_block),
        // The size of a cluster is that of a block.
        (28, log_block),
        (32, layout.blocks_per_group),
        (36, layout.blocks_per_group),
        (40, layout.inodes_per_group),
        (48, identity.made),
        (64, identity.made),
        // The format that has what follows.
        (76, 1),
        (84, LOST_AND_FOUND_INODE),
        (92, feature::COMPATIBLE),
        (96, feature::INCOMPATIBLE),
        (100, feature::READ_ONLY),
        (224, JOURNAL_INODE),
        // Mounted with user's attributes.
        (256, 0x4),
        (264, identity.made),
        // Hashes of signed characters, as on x86.
        (352, 1),
    ] {
        put32(&mut bytes, at, value);
    }
    // Never checked by the number of its mounts.
    put16(&mut bytes, 54, u16::MAX);
    put16(&mut bytes, 56, 0xef53);
    // Clean; an error makes it read-only instead of worse.
    put16(&mut bytes, 58, 1);
    put16(&mut bytes, 60, 2);
    put16(&mut bytes, 88, 256);
    put16(&mut bytes, 90, u16::try_from(group).unwrap_or(u16::MAX));
    bytes[104..120].copy_from_slice(&identity.uuid);
    bytes[236..252].copy_from_slice(&identity.hash_seed);
    // Half of MD4; and that a copy of the journal's inode follows below.
    (bytes[252], bytes[253]) = (1, 1);
    let journal = extents(layout.root() + 2, layout.journal_blocks);
    bytes[268..268 + journal.len()].copy_from_slice(&journal);
    put32(&mut bytes, 332, layout.journal_blocks * layout.block_bytes);
    // What inodes have beyond the first 128 bytes.
    put16(&mut bytes, 348, 32);
    put16(&mut bytes, 350, 32);
    bytes
}

fn descriptors(layout: &Layout, identity: &Identity) -> Vec<u8> {
    let mut all = vec![0; (layout.descriptor_blocks * layout.block_bytes) as usize];
    let last = layout.groups - 1;
    for (group, bytes) in (0..layout.groups).zip(all.chunks_exact_mut(DESCRIPTOR_BYTES as usize)) {
        let free_blocks = layout.blocks_of(group) - layout.used_blocks(group);
        let used_inodes = if group == 0 { LOST_AND_FOUND_INODE } else { 0 };
        let narrow = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
        put32(bytes, 0, layout.block_bitmap(group));
        put32(bytes, 4, layout.block_bitmap(group) + 1);
        put32(bytes, 8, layout.inode_table(group));
        put16(bytes, 12, narrow(free_blocks));
        put16(bytes, 14, narrow(layout.inodes_per_group - used_inodes));
        put16(bytes, 16, if group == 0 { 2 } else { 0 });
        let inodes = if group == 0 { flag::INODES_ZEROED } else { flag::INODES_ZEROED | flag::INODES_UNINITIALIZED };
        let blocks = if group == 0 || group == last { 0 } else { flag::BLOCKS_UNINITIALIZED };
        put16(bytes, 18, inodes | blocks);
        put16(bytes, 28, narrow(layout.inodes_per_group - used_inodes));
        let mut sum = crc16(u16::MAX, &identity.uuid);
        sum = crc16(sum, &group.to_le_bytes());
        put16(bytes, 30, crc16(sum, &bytes[..30]));
    }
    all
}

/// CRC-16 with the polynomial 0x8005, reflected: of descriptors.
fn crc16(start: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(start, |sum, byte| {
        (0..8).fold(sum ^ u16::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xa001 } else { sum >> 1 })
    })
}

/// A block of bits: the first ones are set, and those from `end` on, which stand for nothing.
fn bitmap(layout: &Layout, set: u32, end: u32) -> Vec<u8> {
    let mut bytes = layout.block();
    for bit in (0..set).chain(end..8 * layout.block_bytes) {
        bytes[(bit / 8) as usize] |= 1 << (bit % 8);
    }
    bytes
}

fn block_bitmap(layout: &Layout, group: u32) -> Vec<u8> {
    bitmap(layout, layout.used_blocks(group), layout.blocks_of(group))
}

/// The root of a tree of one extent, as inodes hold it.
fn extents(first: u32, blocks: u32) -> [u8; 60] {
    let mut bytes = [0; 60];
    put16(&mut bytes, 0, 0xf30a);
    // One of at most four, at depth 0.
    put16(&mut bytes, 2, 1);
    put16(&mut bytes, 4, 4);
    put16(&mut bytes, 16, u16::try_from(blocks).unwrap_or(u16::MAX));
    put32(&mut bytes, 20, first);
    bytes
}

fn inode(layout: &Layout, identity: &Identity, mode: u16, links: u16, first: u32, blocks: u32) -> Vec<u8> {
    let mut bytes = vec![0; INODE_BYTES as usize];
    put16(&mut bytes, 0, mode);
    put32(&mut bytes, 4, blocks * layout.block_bytes);
    // Accessed, changed, modified, made.
    for at in [8, 12, 16, 144] {
        put32(&mut bytes, at, identity.made);
    }
    put16(&mut bytes, 26, links);
    put32(&mut bytes, 28, blocks * (layout.block_bytes / 512));
    put32(&mut bytes, 32, flag::EXTENTS);
    bytes[40..100].copy_from_slice(&extents(first, blocks));
    put16(&mut bytes, 128, 32);
    bytes
}

/// A block of a directory; the last entry reaches to its end.
fn directory(layout: &Layout, entries: &[(u32, &str)]) -> Vec<u8> {
    const FOLDER: u8 = 2;
    let mut bytes = layout.block();
    let mut at = 0;
    for (index, (inode, name)) in entries.iter().enumerate() {
        let length = if index + 1 == entries.len() { bytes.len() - at } else { (8 + name.len()).next_multiple_of(4) };
        put32(&mut bytes, at, *inode);
        put16(&mut bytes, at + 4, u16::try_from(length).unwrap_or(u16::MAX));
        bytes[at + 6] = u8::try_from(name.len()).unwrap_or(u8::MAX);
        bytes[at + 7] = FOLDER;
        bytes[at + 8..at + 8 + name.len()].copy_from_slice(name.as_bytes());
        at += length;
    }
    bytes
}

/// The first block of an empty journal, whose numbers are big-endian.
fn journal_superblock(layout: &Layout) -> Vec<u8> {
    let mut bytes = layout.block();
    // Magic, kind (a superblock of the second version), nothing; length of a block, number of them, the first of the log, its first
    // sequence; one user.
    for (at, value) in
        [(0, 0xc03b_3998_u32), (4, 4), (12, layout.block_bytes), (16, layout.journal_blocks), (20, 1), (24, 1), (64, 1)]
    {
        bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, os::unix::fs::FileExt as _, process::Command};

    const IDENTITY: Identity = Identity { uuid: [7; 16], hash_seed: [9; 16], made: 1_700_000_000 };

    #[test]
    fn lengths_have_limits() {
        assert_eq!(format(MIN_BYTES - 1, &IDENTITY), Err(LengthError(MIN_BYTES - 1)));
        assert_eq!(format(MAX_BYTES + 1, &IDENTITY), Err(LengthError(MAX_BYTES + 1)));
    }

    #[test]
    fn copies_are_in_groups_of_powers() {
        let groups: Vec<u32> = (0..=130).filter(|group| has_copy(*group)).collect();
        assert_eq!(groups, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }

    /// The judge is `e2fsck`, which every Debian has. All sizes that are special in some way: the least, ends of groups, groups too small to
    /// be, both sizes of blocks, each size of the journal, more descriptors than one block holds, the largest volume of the network.
    #[test]
    fn file_systems_are_clean() {
        let folder = tempfile::tempdir().expect("a folder");
        for mib in [2, 3, 5, 8, 9, 16, 17, 63, 64, 65, 127, 128, 129, 130, 131, 511, 512, 1000, 4096, 20_000, 1_953_125]
        {
            let path = folder.path().join(format!("{mib}"));
            let file = File::create(&path).expect("a file");
            file.set_len(mib << 20).expect("a length");
            let mut written = 0;
            for piece in format(mib << 20, &IDENTITY).expect("a length that can be") {
                file.write_all_at(&piece.bytes, piece.at).expect("a write");
                written += piece.bytes.len() as u64;
            }
            assert!(written < (64 << 10) + (mib << 20) / 100_000, "{mib} MiB: {written} bytes are written");
            let mut check = Command::new("/sbin/e2fsck");
            let output = check.arg("-fn").arg(&path).output().expect("e2fsck is installed (package e2fsprogs)");
            let text = String::from_utf8_lossy(&output.stdout);
            assert_eq!(output.status.code(), Some(0), "{mib} MiB: {text}");
        }
    }
}
