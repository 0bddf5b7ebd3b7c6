//! What blocks change, worked out on top of a snapshot: to be kept as a whole, together with the progress.

use super::{
    check::Event,
    provider::Header,
    record::{self, BeforeRecord, BlockRecord, Place, ProgressRecord, Task, WorkRecord},
};
use crate::{
    host::{Found, Indexer, IndexerError, Meaning, Vouched, indexing},
    store::{
        Batch, Changes, Reader as _, Snapshot, StoreError,
        confirmation::{self, ConfirmationRecord},
        record::{BalanceRecord, Record as _},
        schema::{Key, Table, end_of},
    },
};
use ccn_message::ItemHash;
use std::{collections::BTreeMap, sync::Arc};

/// Rows after which what was worked out is kept before more is: the one who keeps it is the one who decides on messages.
pub(super) const MAX_ROWS: usize = 5_000;
/// Blocks that are taken back in one commit.
pub(super) const MAX_TAKEN_BACK: usize = 64;

/// Whose rows are changed.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// The network's name of the chain.
    pub(super) chain: String,
    pub(super) indexer: Arc<Indexer>,
    /// The operator's settings for the indexer, JSON text.
    pub(super) config: String,
    /// The beginning of its keys in the tables of chains.
    pub(super) prefix: Vec<u8>,
}

/// A block with its events.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) header: Header,
    pub(super) events: Vec<Event>,
}

/// Rows as they were before a block; none where there was no such row.
type Before = BTreeMap<(Place, Vec<u8>), Option<Vec<u8>>>;

/// Changes that are being worked out.
pub(super) struct Draft<'a> {
    source: &'a Source,
    batch: Arc<Batch>,
    /// Rows as they were before the block at hand, when it may yet be taken back.
    before: Option<Before>,
}

/// The transaction that confirms something.
struct Told<'a> {
    height: u64,
    time: u64,
    transaction: [u8; 32],
    publisher: &'a str,
}

impl Source {
    pub(super) fn name(&self) -> &str {
        &self.indexer.manifest().name
    }

    /// The key of a block.
    pub(super) fn block_key(&self, height: u64) -> Vec<u8> {
        Key::new().bytes(&self.prefix).number(height).done()
    }

    /// The contract's words for a block.
    pub(super) fn block(&self, height: u64, hash: &[u8; 32], time: u64) -> indexing::Block {
        indexing::Block { chain: self.chain.clone(), height, hash: hash.to_vec(), time }
    }
}

impl<'a> Draft<'a> {
    pub(super) fn new(source: &'a Source, snapshot: Snapshot) -> Self {
        Self { source, batch: Arc::new(Batch::new(snapshot)), before: None }
    }

    fn batch(&mut self) -> &mut Batch {
        Arc::get_mut(&mut self.batch)
            .expect("an instance of an indexer does not outlive its call, nor does what it reads")
    }

    /// Sets or deletes a row; what it was before is remembered when that matters.
    fn set(&mut self, place: Place, key: Vec<u8>, value: Option<Vec<u8>>) -> Result<(), StoreError> {
        if let Some(before) = &mut self.before
            && !before.contains_key(&(place, key.clone()))
        {
            let was = self.batch.get(place.table(), &key)?;
            before.insert((place, key.clone()), was);
        }
        self.batch().set(place.table(), key, value);
        Ok(())
    }

    /// Adds what a block means. `is_final`: it can no longer be taken back.
    ///
    /// # Errors
    /// The indexer, or the store, fails: the draft is of no use any more.
    pub(super) fn add(&mut self, block: &Block, is_final: bool) -> Result<(), IndexerError> {
        let store = |error: StoreError| IndexerError::Host(error.into());
        self.before = (!is_final).then(Before::new);
        if !block.events.is_empty() {
            let mut packed = Vec::new();
            block.events.iter().for_each(|event| event.pack(&mut packed));
            let header = &block.header;
            let batch = indexing::Batch {
                block: self.source.block(header.height, &header.hash.0, header.time),
                events: packed,
            };
            let Source { indexer, config, .. } = self.source;
            let found = indexer.decode(config, &batch, block.events.len(), self.batch.clone())?;
            for (number, found) in found.into_iter().enumerate() {
                self.record(block, number, found).map_err(store)?;
            }
        }
        if let Some(before) = self.before.take() {
            let before = before.into_iter().map(|((place, key), value)| BeforeRecord { place, key, value });
            let record = BlockRecord { hash: block.header.hash.0, before: before.collect() };
            let key = self.source.block_key(block.header.height);
            self.batch().set(Table::ChainBlocks, key, Some(record.to_bytes()));
        }
        self.batch().keep();
        Ok(())
    }

    fn record(&mut self, block: &Block, number: usize, found: Found) -> Result<(), StoreError> {
        let Found { event, publisher, meaning } = found;
        let header = &block.header;
        let transaction = block.events.get(event as usize).map_or([0; 32], |event| event.transaction.0);
        let task = match meaning {
            Meaning::Write((key, value)) => {
                let key = self.source.indexer.state_key(&key);
                return self.set(Place::State, key, value);
            }
            Meaning::Balance(address, amount) => {
                let key = Key::new().text(&address).text(&self.source.chain).done();
                let record = BalanceRecord::new(amount, header.height);
                return self.set(Place::Balances, key, Some(record.to_bytes()));
            }
            Meaning::Confirmation(message) => {
                let told = Told { height: header.height, time: header.time, transaction, publisher: &publisher };
                return self.confirm(&message, &told);
            }
            Meaning::Message(text) => Task::Message(text),
            Meaning::Vouched(Vouched { sender, kind, content }) => Task::Vouched { sender, kind, content },
            Meaning::Archive(file) => Task::Archive(file.to_string()),
        };
        let record = WorkRecord { block: header.hash.0, time: header.time, transaction, publisher, task };
        let key = Key::new().bytes(&self.source.block_key(header.height)).number(number as u64).done();
        self.set(Place::Work, key, Some(record.to_bytes()))
    }

    fn confirm(&mut self, message: &ItemHash, told: &Told<'_>) -> Result<(), StoreError> {
        let Source { chain, .. } = self.source;
        let key = confirmation::key(message, chain, self.source.name(), told.height, &told.transaction);
        let record = ConfirmationRecord { time: told.time, publisher: told.publisher.to_owned() };
        self.set(Place::Confirmations, key, Some(record.to_bytes()))
    }

    /// Work is done: its row goes, and what it confirmed is confirmed. Should its block be taken back, so is that.
    ///
    /// # Errors
    /// The store fails.
    pub(super) fn finish(&mut self, key: Vec<u8>, work: &WorkRecord, confirmed: &[ItemHash]) -> Result<(), StoreError> {
        let height = record::height_of(&self.source.prefix, &key).unwrap_or(0);
        let block_key = self.source.block_key(height);
        let block = self.batch.get(Table::ChainBlocks, &block_key)?;
        let block = block.map(|row| BlockRecord::read(&row)).transpose()?;
        self.before = block.is_some().then(Before::new);
        let WorkRecord { time, transaction, publisher, .. } = work;
        let told = Told { height, time: *time, transaction: *transaction, publisher };
        for message in confirmed {
            self.confirm(message, &told)?;
        }
        if let (Some(mut block), Some(before)) = (block, self.before.take()) {
            let known = |place: Place, key: &[u8]| block.before.iter().any(|row| row.place == place && row.key == key);
            let new: Vec<BeforeRecord> = before
                .into_iter()
                .filter(|((place, key), _)| !known(*place, key))
                .map(|((place, key), value)| BeforeRecord { place, key, value })
                .collect();
            block.before.extend(new);
            self.batch().set(Table::ChainBlocks, block_key, Some(block.to_bytes()));
        }
        self.batch().set(Table::ChainWork, key, None);
        self.batch().keep();
        Ok(())
    }

    /// Takes blocks back from the newest on down to `from`, at most [`MAX_TAKEN_BACK`]; returns the lowest that was taken back, none when there is none.
    ///
    /// # Errors
    /// The store fails, or a record is damaged.
    pub(super) fn take_back(&mut self, from: u64) -> Result<Option<u64>, StoreError> {
        let (start, end) = (self.source.block_key(from), end_of(&self.source.prefix));
        let rows = self.batch.range(Table::ChainBlocks, &start, &end, MAX_TAKEN_BACK, true)?;
        let mut lowest = None;
        for (key, row) in rows {
            for BeforeRecord { place, key, value } in BlockRecord::read(&row)?.before {
                self.batch().set(place.table(), key, value);
            }
            lowest = record::height_of(&self.source.prefix, &key);
            self.batch().set(Table::ChainBlocks, key, None);
        }
        self.batch().keep();
        Ok(lowest)
    }

    /// Blocks below this height are final: what would take them back goes. Returns the last of them with its hash.
    ///
    /// # Errors
    /// The store fails, or a record is damaged.
    pub(super) fn settle(&mut self, settled: u64) -> Result<Option<(u64, [u8; 32])>, StoreError> {
        let (start, end) = (self.source.block_key(0), self.source.block_key(settled));
        let rows = self.batch.range(Table::ChainBlocks, &start, &end, usize::MAX, false)?;
        let last = rows.last().and_then(|(key, row)| Some((record::height_of(&self.source.prefix, key)?, row)));
        let last = last.map(|(height, row)| Ok::<_, StoreError>((height, BlockRecord::read(row)?.hash))).transpose()?;
        for (key, _) in rows {
            self.batch().set(Table::ChainBlocks, key, None);
        }
        self.batch().keep();
        Ok(last)
    }

    /// Rows that are changed.
    pub(super) fn rows(&self) -> usize {
        self.batch.changes().len()
    }

    /// Everything, with the progress that it makes.
    pub(super) fn with(mut self, progress: &ProgressRecord) -> Changes {
        let key = self.source.prefix.clone();
        self.batch().set(Table::ChainProgress, key, Some(progress.to_bytes()));
        self.done()
    }

    /// Everything, where there is no progress.
    pub(super) fn done(mut self) -> Changes {
        self.batch().keep();
        self.batch.changes().clone()
    }
}
