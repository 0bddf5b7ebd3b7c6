//! Listing processed messages: by time, then by hash ascending in both directions (ccn spec 5.2).
//!
//! The most selective index that the filter allows drives the listing; what it does not decide is decided on the records. Several values of one
//! property are several streams, merged. In the order of first confirmations, few matches are put in order, and many are met on the way through
//! `chronicle`.

use super::{
    Reader, StoreError, confirmation,
    derived::FIRST_BYTES,
    record::MessageRecord,
    schema::{INDEX_HASH_CHARS, INDEX_SUFFIX_BYTES, IndexId, Table, end_of, index_suffix, time_key},
    standing,
};
use ccn_message::ItemHash;
use plan::Plan;
use std::collections::VecDeque;

mod plan;

/// Index rows read at a time.
const PAGE: usize = 64;
/// Most messages looked at to count matches that no counter counts; a larger total shows as this.
pub const MAX_COUNTED: u64 = 100_000;
/// Most messages looked at to fill a page; what lies beyond is reached through the cursor.
pub const MAX_EXAMINED: u64 = 1_000_000;
/// Most bytes of contents in a part of a list.
pub const MAX_CONTENT_BYTES: usize = 8 << 20;
/// Most messages that are put in the order of their first confirmations; where an index has more, all messages are walked in that order.
const MAX_SORTED: u64 = 10_000;

/// What messages to list. Empty lists do not restrict.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// These messages only.
    pub hashes: Vec<ItemHash>,
    /// Envelope's senders.
    pub senders: Vec<String>,
    /// Content's addresses.
    pub owners: Vec<String>,
    /// Message types.
    pub kinds: Vec<String>,
    /// Chains.
    pub chains: Vec<String>,
    /// Channels.
    pub channels: Vec<String>,
    /// Labels: a name and the values of which the message must have one.
    pub labels: Vec<(String, Vec<String>)>,
    /// Envelope's time, seconds, from this on.
    pub start: Option<f64>,
    /// Envelope's time, seconds, before this.
    pub end: Option<f64>,
    /// Heights of the first transaction that confirms it.
    pub blocks: Blocks,
    /// Only those that are to be removed, or only those that are not.
    pub removing: Option<bool>,
    /// Nothing matches.
    pub nothing: bool,
}

/// Heights of blocks, of whatever chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Blocks {
    /// From this one on. What is in no block comes after all.
    pub start: u64,
    /// Before this one.
    pub end: Option<u64>,
}

impl Blocks {
    /// True for a message that was first confirmed at this height, or never.
    #[must_use]
    pub fn admit(self, first: Option<u64>) -> bool {
        match first {
            Some(height) => height >= self.start && self.end.is_none_or(|end| height < end),
            None => self.end.is_none(),
        }
    }

    fn restrict(self) -> bool {
        self != Self::default()
    }
}

impl Filter {
    /// True for a message that is to be listed.
    #[must_use]
    pub fn matches(&self, hash: &ItemHash, record: &MessageRecord, chain: &str) -> bool {
        let one_of = |values: &[String], value: &str| values.is_empty() || values.iter().any(|each| each == value);
        let labelled = |(name, values): &(String, Vec<String>)| {
            values.is_empty() || record.labels.iter().any(|(label, value)| label == name && values.contains(value))
        };
        let envelope = &record.envelope;
        !self.nothing
            && (self.hashes.is_empty() || self.hashes.contains(hash))
            && one_of(&self.senders, &envelope.sender)
            && one_of(&self.owners, &record.owner)
            && one_of(&self.kinds, &envelope.kind)
            && one_of(&self.chains, chain)
            && (self.channels.is_empty()
                || envelope.channel.as_ref().is_some_and(|channel| self.channels.contains(channel)))
            && self.labels.iter().all(labelled)
            && self.start.is_none_or(|start| envelope.time >= start)
            && self.end.is_none_or(|end| envelope.time < end)
    }
}

/// What messages are ordered by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// The envelope's time.
    #[default]
    Time,
    /// The first transaction that confirms it, then the envelope's time. What is in no block comes after all.
    FirstConfirmed,
}

/// Which part of the list.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// What comes first.
    pub order: Order,
    /// Newest first.
    pub descending: bool,
    /// Entries to pass over.
    pub skip: u64,
    /// Entries to return.
    pub limit: u64,
    /// Start after this message.
    pub after: Option<(f64, ItemHash)>,
}

/// A part of the list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Listing {
    /// Messages with their hashes.
    pub messages: Vec<(ItemHash, MessageRecord)>,
    /// True when more follow.
    pub more: bool,
    /// Bytes of their contents.
    pub content_bytes: usize,
    /// True when there are fewer than were asked for, because their contents are long.
    pub is_cut: bool,
    /// The message that was looked at last, where the search ended before the page was full.
    pub ended_at: Option<(f64, ItemHash)>,
}

/// Lists messages.
///
/// # Errors
/// The database fails.
pub fn list(reader: &dyn Reader, filter: &Filter, window: &Window) -> Result<Listing, StoreError> {
    if filter.nothing {
        return Ok(Listing::default());
    }
    if !filter.hashes.is_empty() {
        return list_named(reader, filter, window);
    }
    let plan = Plan::of(reader, filter)?;
    if window.order == Order::Time {
        let mut stream = plan.stream(reader, filter, window.descending, window.after.as_ref());
        return fill(reader, filter, window, plan.exact, || stream.next());
    }
    if plan.id != IndexId::All && plan.size <= MAX_SORTED {
        return list_sorted(reader, filter, window, &plan);
    }
    let mut stream = Stream::through_chronicle(reader, window.descending);
    let is_all = plan.exact && plan.id == IndexId::All && filter.start.is_none() && filter.end.is_none();
    fill(reader, filter, window, is_all, || Ok(stream.take()?.map(|key: Confirmed| sequence_of(&key[FIRST_BYTES..]))))
}

/// The hashes of the first messages in the order of their times, at most so many; their contents are not held.
///
/// # Errors
/// The database fails.
pub fn hashes(reader: &dyn Reader, filter: &Filter, descending: bool, limit: u64) -> Result<Vec<ItemHash>, StoreError> {
    let (mut hashes, mut after) = (Vec::new(), None);
    loop {
        let left = limit.saturating_sub(hashes.len() as u64).min(PAGE as u64);
        let window = Window { order: Order::Time, descending, skip: 0, limit: left, after };
        let page = list(reader, filter, &window)?;
        let Some((last, record)) = page.messages.last().filter(|_| left > 0) else { return Ok(hashes) };
        after = Some((record.envelope.time, last.clone()));
        hashes.extend(page.messages.into_iter().map(|(hash, _)| hash));
        if !page.more {
            return Ok(hashes);
        }
    }
}

/// Fills a page from messages in their order. `exact`: all of them match.
fn fill(
    reader: &dyn Reader,
    filter: &Filter,
    window: &Window,
    exact: bool,
    mut next: impl FnMut() -> Result<Option<u64>, StoreError>,
) -> Result<Listing, StoreError> {
    let mut listing = Listing::default();
    let (mut skip, mut examined) = (window.skip, 0_u64);
    while let Some(sequence) = next()? {
        examined += 1;
        if skip > 0 && exact && examined <= MAX_EXAMINED {
            skip -= 1;
            continue;
        }
        if exact && listing.messages.len() as u64 >= window.limit {
            listing.more = true;
            break;
        }
        let Some((hash, record)) = read(reader, sequence)? else { continue };
        if examined > MAX_EXAMINED {
            listing.more = true;
            listing.ended_at = Some((record.envelope.time, hash));
            break;
        }
        if !exact && !matches(reader, filter, &hash, &record)? {
            continue;
        }
        if skip > 0 {
            skip -= 1;
            continue;
        }
        if listing.messages.len() as u64 >= window.limit {
            listing.more = true;
            break;
        }
        let bytes = record.content().len();
        if listing.content_bytes + bytes > MAX_CONTENT_BYTES && !listing.messages.is_empty() {
            (listing.more, listing.is_cut) = (true, true);
            break;
        }
        listing.content_bytes += bytes;
        listing.messages.push((hash, record));
    }
    Ok(listing)
}

/// Puts the few messages of an index in the order of their first confirmations.
fn list_sorted(reader: &dyn Reader, filter: &Filter, window: &Window, plan: &Plan) -> Result<Listing, StoreError> {
    let mut found = Vec::new();
    let mut stream = plan.stream(reader, filter, window.descending, None);
    while let Some(sequence) = stream.next()? {
        let Some((hash, record)) = read(reader, sequence)? else { continue };
        if plan.exact || matches(reader, filter, &hash, &record)? {
            found.push((first_confirmed(reader, &hash)?, record.envelope.time, hash, sequence));
        }
    }
    found.sort_by(|(one, earlier, a, _), (other, later, b, _)| {
        let ordering = one.cmp(other).then_with(|| earlier.total_cmp(later));
        let ordering = if window.descending { ordering.reverse() } else { ordering };
        ordering.then_with(|| a.cmp(b))
    });
    let mut found = found.into_iter().map(|(.., sequence)| sequence);
    fill(reader, filter, window, true, || Ok(found.next()))
}

/// When a message was first confirmed, seconds since 1970; the end of all time when it is in no block.
fn first_confirmed(reader: &dyn Reader, hash: &ItemHash) -> Result<u64, StoreError> {
    let confirmations = confirmation::of_message(reader, hash)?;
    Ok(confirmations.iter().map(|confirmation| confirmation.time).min().unwrap_or(u64::MAX))
}

/// How many messages match; at most [`MAX_COUNTED`] are looked at where no counter knows.
///
/// # Errors
/// The database fails.
pub fn count(reader: &dyn Reader, filter: &Filter) -> Result<u64, StoreError> {
    if filter.nothing {
        return Ok(0);
    }
    if !filter.hashes.is_empty() {
        return Ok(named(reader, filter)?.len() as u64);
    }
    let plan = Plan::of(reader, filter)?;
    let dated = filter.start.is_some() || filter.end.is_some();
    if plan.counted && !dated {
        return Ok(plan.size);
    }
    let mut stream = plan.stream(reader, filter, true, None);
    let (mut total, mut examined) = (0, 0);
    while let Some(sequence) = stream.next()? {
        examined += 1;
        if examined > MAX_COUNTED {
            break;
        }
        let counts = plan.exact
            || match read(reader, sequence)? {
                Some((hash, record)) => matches(reader, filter, &hash, &record)?,
                None => false,
            };
        total += u64::from(counts);
    }
    Ok(total)
}

/// The messages that a filter names by their hashes, each once.
fn named(reader: &dyn Reader, filter: &Filter) -> Result<Vec<(ItemHash, MessageRecord)>, StoreError> {
    let mut hashes = filter.hashes.clone();
    hashes.sort();
    hashes.dedup();
    let mut found = Vec::new();
    for hash in hashes {
        if let Some(record) = reader.message(&hash)?
            && standing::removed(reader, &hash)?.is_none()
            && matches(reader, filter, &hash, &record)?
        {
            found.push((hash, record));
        }
    }
    Ok(found)
}

fn list_named(reader: &dyn Reader, filter: &Filter, window: &Window) -> Result<Listing, StoreError> {
    let mut found = Vec::new();
    for (hash, record) in named(reader, filter)? {
        let first = if window.order == Order::Time { 0 } else { first_confirmed(reader, &hash)? };
        found.push((first, hash, record));
    }
    let compare = |a: (u64, f64, &ItemHash), b: (u64, f64, &ItemHash)| {
        let times = a.0.cmp(&b.0).then_with(|| a.1.total_cmp(&b.1));
        let times = if window.descending { times.reverse() } else { times };
        times.then_with(|| a.2.cmp(b.2))
    };
    if let Some((time, after)) = &window.after {
        found.retain(|(first, hash, record)| compare((*first, record.envelope.time, hash), (0, *time, after)).is_gt());
    }
    found.sort_by(|(one, a, x), (other, b, y)| compare((*one, x.envelope.time, a), (*other, y.envelope.time, b)));
    let mut found: Vec<(ItemHash, MessageRecord)> = found.into_iter().map(|(_, hash, record)| (hash, record)).collect();
    let skip = usize::try_from(window.skip).unwrap_or(usize::MAX).min(found.len());
    let mut messages = found.split_off(skip);
    let limit = usize::try_from(window.limit).unwrap_or(usize::MAX);
    let more = messages.len() > limit;
    messages.truncate(limit);
    let content_bytes = messages.iter().map(|(_, record)| record.content().len()).sum();
    Ok(Listing { messages, more, content_bytes, ..Listing::default() })
}

fn read(reader: &dyn Reader, sequence: u64) -> Result<Option<(ItemHash, MessageRecord)>, StoreError> {
    let Some(record) = reader.message_at(sequence)? else { return Ok(None) };
    let envelope = record.envelope.clone().envelope()?;
    Ok(Some((envelope.item_hash, record)))
}

fn matches(reader: &dyn Reader, filter: &Filter, hash: &ItemHash, record: &MessageRecord) -> Result<bool, StoreError> {
    if !filter.matches(hash, record, record.envelope.chain()) {
        return Ok(false);
    }
    if let Some(removing) = filter.removing
        && standing::removing(reader, &record.owner, hash)?.is_some() != removing
    {
        return Ok(false);
    }
    if !filter.blocks.restrict() {
        return Ok(true);
    }
    Ok(filter.blocks.admit(reader.confirmations(hash)?.first().map(|confirmation| confirmation.height)))
}

type Suffix = [u8; INDEX_SUFFIX_BYTES];
/// A key of `chronicle`.
type Confirmed = [u8; FIRST_BYTES + INDEX_SUFFIX_BYTES];

/// The sequence number at the end of an index key.
fn sequence_of(suffix: &[u8]) -> u64 {
    suffix.get(8 + INDEX_HASH_CHARS..).and_then(|number| number.try_into().ok()).map_or(0, u64::from_be_bytes)
}

/// One index entry after the other, of one property value: what follows the prefix, of `BYTES` bytes.
struct Stream<'a, const BYTES: usize> {
    reader: &'a dyn Reader,
    table: Table,
    prefix: Vec<u8>,
    /// Bytes of the moment, with which an entry begins.
    moment_bytes: usize,
    descending: bool,
    /// Entries with `start <= key < end` are still to be read.
    start: Vec<u8>,
    end: Vec<u8>,
    /// Within one moment, entries go upwards in both directions: what is left of the moment at hand.
    moment: Option<(Vec<u8>, Vec<u8>)>,
    buffer: VecDeque<[u8; BYTES]>,
}

impl<'a> Stream<'a, { FIRST_BYTES + INDEX_SUFFIX_BYTES }> {
    /// All messages in the order of their first confirmations.
    fn through_chronicle(reader: &'a dyn Reader, descending: bool) -> Self {
        Self {
            reader,
            table: Table::Chronicle,
            prefix: Vec::new(),
            moment_bytes: FIRST_BYTES + 8,
            descending,
            start: Vec::new(),
            end: end_of(&[]),
            moment: None,
            buffer: VecDeque::new(),
        }
    }
}

impl<'a> Stream<'a, INDEX_SUFFIX_BYTES> {
    fn new(
        reader: &'a dyn Reader,
        prefix: Vec<u8>,
        filter: &Filter,
        descending: bool,
        after: Option<&(f64, ItemHash)>,
    ) -> Self {
        let at = |time: f64| [prefix.as_slice(), &time_key(time)].concat();
        let mut start = filter.start.map_or_else(|| prefix.clone(), &at);
        let mut end = filter.end.map_or_else(|| end_of(&prefix), &at);
        let mut moment = None;
        if let Some((time, hash)) = after {
            let mut passed = at(*time);
            passed.extend_from_slice(&index_suffix(*time, hash, u64::MAX)[8..]);
            passed.push(0);
            if descending {
                end = end.min(at(*time));
                moment = Some((passed, end_of(&at(*time))));
            } else {
                start = start.max(passed);
            }
        }
        let (table, moment_bytes) = (Table::Index, 8);
        Self { reader, table, prefix, moment_bytes, descending, start, end, moment, buffer: VecDeque::new() }
    }
}

impl<const BYTES: usize> Stream<'_, BYTES> {
    fn take(&mut self) -> Result<Option<[u8; BYTES]>, StoreError> {
        self.peek()?;
        Ok(self.buffer.pop_front())
    }

    fn peek(&mut self) -> Result<Option<[u8; BYTES]>, StoreError> {
        while self.buffer.is_empty() {
            if !self.fill()? {
                return Ok(None);
            }
        }
        Ok(self.buffer.front().copied())
    }

    /// Reads on; false when there is nothing left.
    fn fill(&mut self) -> Result<bool, StoreError> {
        if let Some((start, end)) = self.moment.take() {
            let rows = self.rows(&start, &end, false)?;
            if let Some(last) = rows.last().filter(|_| rows.len() == PAGE) {
                let mut next = [self.prefix.as_slice(), last].concat();
                next.push(0);
                self.moment = Some((next, end));
            }
            self.buffer.extend(rows);
            return Ok(true);
        }
        let rows = self.rows(&self.start, &self.end, self.descending)?;
        let Some(last) = rows.last().copied() else { return Ok(false) };
        let full = rows.len() == PAGE;
        if !self.descending {
            self.start = [self.prefix.as_slice(), &last].concat();
            self.start.push(0);
            self.buffer.extend(rows);
            return Ok(true);
        }
        let bytes = self.moment_bytes;
        let moment_of = |suffix: &[u8; BYTES]| [self.prefix.as_slice(), &suffix[..bytes]].concat();
        let mut complete: &[[u8; BYTES]] = &rows;
        self.end = moment_of(&last);
        if full {
            // The last moment may go on beyond the page: it is read upwards from its start.
            let whole = rows.iter().position(|row| row[..bytes] == last[..bytes]).unwrap_or(0);
            complete = &rows[..whole];
            self.moment = Some((self.end.clone(), end_of(&self.end)));
        }
        for group in complete.chunk_by(|a, b| a[..bytes] == b[..bytes]) {
            self.buffer.extend(group.iter().rev());
        }
        Ok(true)
    }

    fn rows(&self, start: &[u8], end: &[u8], reverse: bool) -> Result<Vec<[u8; BYTES]>, StoreError> {
        let rows = self.reader.range(self.table, start, end, PAGE, reverse)?;
        Ok(rows.iter().filter_map(|(key, _)| key[self.prefix.len()..].try_into().ok()).collect())
    }
}

/// Several streams as one, each message once.
struct Merged<'a> {
    streams: Vec<Stream<'a, INDEX_SUFFIX_BYTES>>,
    descending: bool,
    last: Option<Suffix>,
}

impl Merged<'_> {
    fn next(&mut self) -> Result<Option<u64>, StoreError> {
        loop {
            let mut best: Option<(usize, Suffix)> = None;
            for place in 0..self.streams.len() {
                let Some(suffix) = self.streams[place].peek()? else { continue };
                if best.is_none_or(|(_, other)| comes_first(&suffix, &other, self.descending)) {
                    best = Some((place, suffix));
                }
            }
            let Some((place, suffix)) = best else { return Ok(None) };
            self.streams[place].buffer.pop_front();
            if self.last.replace(suffix) != Some(suffix) {
                return Ok(Some(sequence_of(&suffix)));
            }
        }
    }
}

fn comes_first(suffix: &Suffix, other: &Suffix, descending: bool) -> bool {
    let times = suffix[..8].cmp(&other[..8]);
    let times = if descending { times.reverse() } else { times };
    times.then_with(|| suffix[8..].cmp(&other[8..])).is_lt()
}

#[cfg(test)]
mod tests;
