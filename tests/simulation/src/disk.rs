//! The disk of a node in memory: two files that can lose power, and what was not synced is gone then. It can also fail, at the operation that it is
//! told.

use redb::StorageBackend;
use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Bytes of the journal: so few that the database is brought to the disk now and then in a short play, too.
const JOURNAL_BYTES: usize = 256 << 10;

/// A disk with the two files of a store.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) database: DiskFile,
    pub(crate) journal: DiskFile,
}

/// A file on the disk. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub(crate) struct DiskFile {
    image: Arc<Mutex<Image>>,
    health: Arc<Mutex<Health>>,
}

/// What has been asked of a disk.
#[derive(Debug, Default)]
struct Health {
    /// Writes, syncs and changes of length.
    operations: u64,
    /// From that operation on, none succeeds.
    fails_at: Option<u64>,
}

#[derive(Debug, Default)]
struct Image {
    bytes: Vec<u8>,
    /// What the last writes and changes of length replaced, since the last sync.
    undo: Vec<Undo>,
}

#[derive(Debug)]
enum Undo {
    /// The bytes that were at that place.
    Write(usize, Vec<u8>),
    /// The length, and what was cut off.
    Length(usize, Vec<u8>),
}

impl Default for Disk {
    fn default() -> Self {
        Self::with(Vec::new(), vec![0; JOURNAL_BYTES])
    }
}

impl Disk {
    fn with(database: Vec<u8>, journal: Vec<u8>) -> Self {
        let health = Arc::<Mutex<Health>>::default();
        let file =
            |bytes| DiskFile { image: Arc::new(Mutex::new(Image { bytes, undo: Vec::new() })), health: health.clone() };
        Self { database: file(database), journal: file(journal) }
    }

    /// The disk as it is found after a power cut now. Whoever goes on writing to the old one writes into nothing.
    pub(crate) fn after_power_cut(&self) -> Self {
        // Both at one moment: nobody commits in between.
        let (database, journal) = (self.database.image(), self.journal.image());
        Self::with(database.after_power_cut(), journal.after_power_cut())
    }

    /// Changes that were asked of it.
    pub(crate) fn operations(&self) -> u64 {
        self.database.health().operations
    }

    /// True when it failed.
    pub(crate) fn has_failed(&self) -> bool {
        let health = self.database.health();
        health.fails_at.is_some_and(|at| health.operations >= at)
    }

    /// From that change on, counted from its making, none succeeds.
    pub(crate) fn fail_at(&self, operation: u64) {
        self.database.health().fails_at = Some(operation);
    }
}

impl Image {
    fn after_power_cut(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for undo in self.undo.iter().rev() {
            match undo {
                Undo::Write(place, old) => bytes[*place..*place + old.len()].copy_from_slice(old),
                Undo::Length(length, cut) => {
                    bytes.truncate(*length - cut.len());
                    bytes.extend_from_slice(cut);
                }
            }
        }
        bytes
    }
}

impl DiskFile {
    fn image(&self) -> MutexGuard<'_, Image> {
        self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> io::Result<()> {
        let mut health = self.health();
        health.operations += 1;
        if health.fails_at.is_some_and(|at| health.operations >= at) {
            return Err(io::Error::other("the disk fails, as it was told"));
        }
        Ok(())
    }
}

fn place(offset: u64, length: usize, image: &Image) -> io::Result<std::ops::Range<usize>> {
    let start = usize::try_from(offset).map_err(io::Error::other)?;
    let end = start.checked_add(length).filter(|end| *end <= image.bytes.len());
    end.map(|end| start..end).ok_or_else(|| io::Error::other("beyond the end of the disk"))
}

impl StorageBackend for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.image().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let image = self.image();
        let place = place(offset, out.len(), &image)?;
        out.copy_from_slice(&image.bytes[place]);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change()?;
        let mut image = self.image();
        let (old, new) = (image.bytes.len(), usize::try_from(length).map_err(io::Error::other)?);
        let kept = old.min(new);
        let cut = image.bytes[kept..].to_vec();
        image.undo.push(Undo::Length(old, cut));
        image.bytes.resize(new, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change()?;
        let mut image = self.image();
        image.undo.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change()?;
        let mut image = self.image();
        let place = place(offset, data.len(), &image)?;
        let old = image.bytes[place.clone()].to_vec();
        image.undo.push(Undo::Write(place.start, old));
        image.bytes[place].copy_from_slice(data);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_cut_leaves_what_was_synced() {
        let whole = Disk::default();
        let disk = whole.database.clone();
        disk.set_len(4).expect("room");
        disk.write(0, b"abcd").expect("a write");
        disk.sync_data().expect("a sync");
        disk.write(1, b"XX").expect("a write");
        disk.set_len(2).expect("less room");
        disk.set_len(6).expect("more room");
        disk.write(4, b"YY").expect("a write");
        let found = whole.after_power_cut();
        assert_eq!(found.database.image().bytes, b"abcd");
        assert_eq!(disk.image().bytes, b"aX\0\0YY");
        assert!(disk.write(5, b"ZZ").is_err());
    }

    #[test]
    fn it_fails_when_it_is_told() {
        let disk = Disk::default();
        disk.database.set_len(4).expect("room");
        disk.fail_at(3);
        disk.journal.write(0, b"a").expect("the second change");
        assert!(disk.database.write(1, b"b").is_err() && disk.journal.sync_data().is_err());
        assert_eq!((disk.operations(), disk.after_power_cut().operations()), (4, 0));
    }
}
