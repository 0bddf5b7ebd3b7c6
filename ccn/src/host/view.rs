//! What a plugin sees: a reader, settings, a log; each read counted.

use super::{
    bindings::aleph::plugin::{log, types, view},
    contract,
    crypto::{ANSWERED_BYTE_FUEL, LINE_FUEL, MEMORY_BYTE_FUEL, QUESTION_FUEL, ROW_FUEL},
    profile,
};
use crate::store::{
    Reader, StoreError,
    record::{FileKind, MessageRecord},
    schema::{Key, Table},
    standing::Fate,
};
use ccn_message::ItemHash;
use std::{collections::BTreeMap, sync::Arc};
use wasmtime::{ResourceLimiter, Trap};

/// Longest key, bytes.
pub(super) const MAX_KEY_BYTES: usize = 512;
/// Longest value, bytes.
pub(super) const MAX_VALUE_BYTES: usize = 1 << 20;
/// Most rows of a scan.
pub(super) const MAX_SCAN_ROWS: usize = 1000;
/// Most questions that a call may ask.
pub(super) const MAX_READS: u64 = 100_000;
/// Most bytes that a call may be answered.
pub(super) const MAX_READ_BYTES: u64 = 256 << 20;
/// Longest text in the log, bytes; the rest is cut.
const MAX_LOG_BYTES: usize = 4 << 10;
/// Most text in the log of one call, bytes; the rest is dropped.
const MAX_LOGGED_BYTES: usize = 64 << 10;

/// Why a question of a plugin ends its call.
#[derive(Debug, thiserror::Error)]
pub(super) enum ViewFault {
    /// It went over a bound.
    #[error("{0}")]
    Overrun(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The machine has no room.
    #[error("{0}")]
    Machine(String),
}

fn overrun(reason: impl Into<String>) -> wasmtime::Error {
    ViewFault::Overrun(reason.into()).into()
}

/// What the instances of a plugin have in common.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) plugin: String,
    pub(super) namespace: String,
    /// Where its state is.
    pub(super) table: Table,
    /// Namespaces of others that it may read.
    pub(super) readable: Vec<String>,
    pub(super) settings: Arc<BTreeMap<String, String>>,
    pub(super) memory_bytes: usize,
}

/// The state of one instance, which is called for one message: each call has bounds of its own.
pub(super) struct Host {
    access: Arc<Access>,
    /// None while only the message may be looked at.
    reader: Option<Arc<dyn Reader + Send + Sync>>,
    reads: u64,
    read_bytes: u64,
    logged: usize,
    /// Fuel that the host's work may still take.
    fuel: u64,
    /// Fuel that it has taken.
    fuel_used: u64,
    /// The growth that was last asked for was permitted.
    may_grow: bool,
    /// Its memory is there: what it is created with belongs to the start.
    has_memory: bool,
    /// Most memory that it had, bytes.
    memory_peak: usize,
}

impl Host {
    pub(super) fn new(access: Arc<Access>, fuel: u64) -> Self {
        Self {
            access,
            reader: None,
            reads: 0,
            read_bytes: 0,
            logged: 0,
            fuel,
            fuel_used: 0,
            may_grow: false,
            has_memory: false,
            memory_peak: 0,
        }
    }

    /// A call begins, with bounds of its own.
    pub(super) fn begin(&mut self, reader: Option<Arc<dyn Reader + Send + Sync>>, fuel: u64) {
        let (has_memory, memory_peak) = (self.has_memory, self.memory_peak);
        *self = Self { reader, has_memory, memory_peak, ..Self::new(self.access.clone(), fuel) };
    }

    /// A call ends: nothing is read any more.
    pub(super) fn end(&mut self) {
        self.reader = None;
    }

    /// Most memory that the instance had, KiB.
    pub(super) fn memory_peak_kib(&self) -> u64 {
        (self.memory_peak >> 10) as u64
    }

    /// Takes fuel for what the host does.
    pub(super) fn charge(&mut self, fuel: u64) -> wasmtime::Result<()> {
        self.fuel_used = self.fuel_used.saturating_add(fuel);
        self.fuel = self.fuel.checked_sub(fuel).ok_or(Trap::OutOfFuel)?;
        Ok(())
    }

    /// The fuel that the host's work has taken.
    pub(super) fn fuel_used(&self) -> u64 {
        self.fuel_used
    }

    /// What is beyond the bounds of the type fails without having been asked for.
    fn growth_failed(&mut self, error: &wasmtime::Error) -> wasmtime::Result<()> {
        if std::mem::take(&mut self.may_grow) { Err(ViewFault::Machine(error.to_string()).into()) } else { Ok(()) }
    }

    /// The namespace that is its own.
    pub(super) fn namespace(&self) -> String {
        self.access.namespace.clone()
    }

    /// Counts a question; the reader to ask.
    fn ask(&mut self) -> wasmtime::Result<Arc<dyn Reader + Send + Sync>> {
        self.reads += 1;
        if self.reads > MAX_READS {
            return Err(overrun(format!("it asked more than {MAX_READS} questions")));
        }
        self.charge(QUESTION_FUEL)?;
        self.reader.clone().ok_or_else(|| overrun("it looked at more than the message in `validate`"))
    }

    fn count(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.read_bytes += bytes as u64;
        if self.read_bytes > MAX_READ_BYTES {
            return Err(overrun(format!("it read more than {MAX_READ_BYTES} bytes")));
        }
        self.charge(ANSWERED_BYTE_FUEL * bytes as u64)
    }

    fn may_read(&self, namespace: &str) -> wasmtime::Result<()> {
        let may = namespace == self.access.namespace || self.access.readable.iter().any(|each| each == namespace);
        if may { Ok(()) } else { Err(overrun(format!("it may not read the namespace `{namespace}`"))) }
    }

    pub(super) fn read(&mut self, namespace: &str, key: &[u8]) -> wasmtime::Result<Option<Vec<u8>>> {
        let reader = self.ask()?;
        check_key(key)?;
        let value = reader.get(self.access.table, &state_key(namespace, key)).map_err(ViewFault::Store)?;
        self.count(value.as_ref().map_or(0, Vec::len))?;
        Ok(value)
    }

    pub(super) fn page(
        &mut self,
        namespace: &str,
        range: (&[u8], &[u8]),
        limit: u32,
        reverse: bool,
    ) -> wasmtime::Result<types::Page> {
        let reader = self.ask()?;
        check_key(range.0)?;
        check_key(range.1)?;
        let limit = MAX_SCAN_ROWS.min(limit as usize);
        let prefix = state_key(namespace, &[]).len();
        let (start, end) = (state_key(namespace, range.0), state_key(namespace, range.1));
        let mut rows = reader.range(self.access.table, &start, &end, limit + 1, reverse).map_err(ViewFault::Store)?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        self.charge(ROW_FUEL * rows.len() as u64)?;
        self.count(rows.iter().map(|(key, value)| key.len() + value.len()).sum())?;
        let items = rows.into_iter().map(|(key, value)| (key[prefix..].to_vec(), value)).collect();
        Ok(types::Page { items, more })
    }
}

fn check_key(key: &[u8]) -> wasmtime::Result<()> {
    // The end of a range may be one byte longer than a key.
    if key.len() > MAX_KEY_BYTES + 1 {
        return Err(overrun(format!("a key has {} bytes, more than {MAX_KEY_BYTES}", key.len())));
    }
    Ok(())
}

/// A key of the table of states.
pub(crate) fn state_key(namespace: &str, key: &[u8]) -> Vec<u8> {
    Key::new().text(namespace).bytes(key).done()
}

/// A message as the contract has it.
pub(crate) fn contract_message(hash: &ItemHash, record: &MessageRecord) -> contract::Message {
    let envelope = &record.envelope;
    contract::Message {
        item_hash: hash.to_string(),
        kind: envelope.kind.clone(),
        sender: envelope.sender.clone(),
        chain: envelope.chain().to_owned(),
        channel: envelope.channel.clone(),
        address: record.owner.clone(),
        time: record.content_time,
        envelope_time: envelope.time,
        content: record.content().as_bytes().to_vec(),
    }
}

impl view::Host for Host {
    fn get(&mut self, key: Vec<u8>) -> wasmtime::Result<Option<Vec<u8>>> {
        let access = self.access.clone();
        self.read(&access.namespace, &key)
    }

    fn scan(&mut self, start: Vec<u8>, end: Vec<u8>, limit: u32, reverse: bool) -> wasmtime::Result<types::Page> {
        let access = self.access.clone();
        self.page(&access.namespace, (&start, &end), limit, reverse)
    }

    fn get_in(&mut self, namespace: String, key: Vec<u8>) -> wasmtime::Result<Option<Vec<u8>>> {
        self.may_read(&namespace)?;
        self.read(&namespace, &key)
    }

    fn scan_in(
        &mut self,
        namespace: String,
        start: Vec<u8>,
        end: Vec<u8>,
        limit: u32,
        reverse: bool,
    ) -> wasmtime::Result<types::Page> {
        self.may_read(&namespace)?;
        self.page(&namespace, (&start, &end), limit, reverse)
    }

    fn message(&mut self, hash: String) -> wasmtime::Result<Option<types::StoredMessage>> {
        let reader = self.ask()?;
        let Ok(hash) = ItemHash::parse(&hash) else { return Ok(None) };
        let (_, Some(record)) = reader.standing(&hash).map_err(ViewFault::Store)? else { return Ok(None) };
        self.count(record.content().len())?;
        let label = |(name, value): &(String, String)| types::Label { name: name.clone(), value: value.clone() };
        // None while a message is decided: what chains say is no part of the common state.
        let confirmations = serde_json::to_string(&reader.confirmations(&hash).map_err(ViewFault::Store)?);
        Ok(Some(types::StoredMessage {
            message: contract_message(&hash, &record),
            signature: record.envelope.signature.clone(),
            item_type: record.envelope.item_type().to_owned(),
            size: record.size,
            labels: record.labels.iter().map(label).collect(),
            confirmations: confirmations.unwrap_or_else(|_| "[]".to_owned()),
        }))
    }

    fn kind_of(&mut self, hash: String) -> wasmtime::Result<Option<String>> {
        let reader = self.ask()?;
        let Ok(hash) = ItemHash::parse(&hash) else { return Ok(None) };
        let (_, record) = reader.standing(&hash).map_err(ViewFault::Store)?;
        let kind = record.map(|record| record.envelope.kind);
        self.count(kind.as_ref().map_or(0, String::len))?;
        Ok(kind)
    }

    fn fate_of(&mut self, hash: String) -> wasmtime::Result<types::Fate> {
        let reader = self.ask()?;
        let Ok(hash) = ItemHash::parse(&hash) else { return Ok(types::Fate::Unknown) };
        let (fate, _) = reader.standing(&hash).map_err(ViewFault::Store)?;
        Ok(match fate {
            Fate::Unknown => types::Fate::Unknown,
            Fate::Standing => types::Fate::Standing,
            Fate::Forgotten => types::Fate::Forgotten,
        })
    }

    fn in_use(&mut self, hash: String) -> wasmtime::Result<bool> {
        let reader = self.ask()?;
        let Ok(hash) = ItemHash::parse(&hash) else { return Ok(false) };
        Ok(reader.in_use(&hash).map_err(ViewFault::Store)?)
    }

    fn file(&mut self, hash: String) -> wasmtime::Result<Option<types::FileInfo>> {
        let reader = self.ask()?;
        let Ok(hash) = ItemHash::parse(&hash) else { return Ok(None) };
        let file = reader.file(&hash).map_err(ViewFault::Store)?;
        let kind = |kind| match kind {
            FileKind::File => types::FileKind::File,
            FileKind::Directory => types::FileKind::Directory,
        };
        Ok(file.map(|file| types::FileInfo { size: file.size, kind: kind(file.kind) }))
    }

    fn setting(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        self.ask()?;
        Ok(self.access.settings.get(&name).cloned())
    }
}

impl log::Host for Host {
    fn write(&mut self, level: log::Level, mut text: String) -> wasmtime::Result<()> {
        self.charge(LINE_FUEL)?;
        if text.len() > MAX_LOG_BYTES {
            text.truncate(text.floor_char_boundary(MAX_LOG_BYTES));
        }
        self.logged += text.len();
        if self.logged > MAX_LOGGED_BYTES {
            return Ok(());
        }
        let plugin = self.access.plugin.as_str();
        match level {
            log::Level::Debug => tracing::debug!(plugin, "{text:?}"),
            log::Level::Info => tracing::info!(plugin, "{text:?}"),
            log::Level::Warn => tracing::warn!(plugin, "{text:?}"),
            log::Level::Error => tracing::error!(plugin, "{text:?}"),
        }
        Ok(())
    }
}

impl types::Host for Host {}

impl ResourceLimiter for Host {
    fn memory_growing(&mut self, current: usize, desired: usize, most: Option<usize>) -> wasmtime::Result<bool> {
        self.may_grow = desired <= self.access.memory_bytes && most.is_none_or(|most| desired <= most);
        if self.may_grow {
            if std::mem::replace(&mut self.has_memory, true) {
                self.charge(MEMORY_BYTE_FUEL * desired.saturating_sub(current) as u64)?;
            }
            self.memory_peak = self.memory_peak.max(desired);
        }
        Ok(self.may_grow)
    }

    /// What the bounds allow and the machine does not have: a plugin that saw it could decide by it, and differently on another machine.
    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.growth_failed(&error)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, most: Option<usize>) -> wasmtime::Result<bool> {
        self.may_grow = desired <= profile::MAX_TABLE_ELEMENTS && most.is_none_or(|most| desired <= most);
        Ok(self.may_grow)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.growth_failed(&error)
    }
}
