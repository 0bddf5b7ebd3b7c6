//! Which index drives a listing.

use super::{Filter, Merged, Stream};
use crate::store::{
    Reader, StoreError,
    schema::{IndexId, Table, count_key, end_of, entry_prefix, index_prefix, split_text},
};
use ccn_message::ItemHash;

/// Which entries of the index to go through.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) id: IndexId,
    /// What the entries begin with: several streams, to be merged.
    prefixes: Vec<Vec<u8>>,
    /// Entries.
    pub(super) size: u64,
    /// True when the entries decide everything but the dates.
    pub(super) exact: bool,
    /// True when `size` is the number of messages that match, dates aside.
    pub(super) counted: bool,
}

/// Restrictions by one property.
type Restriction = (IndexId, Vec<String>);

/// What an index decides, each value once.
fn restrictions(filter: &Filter) -> Vec<Restriction> {
    let labels = filter
        .labels
        .iter()
        .map(|(name, values)| (IndexId::Label, values.iter().map(|value| format!("{name}={value}")).collect()));
    let given = [
        (IndexId::Chain, &filter.chains),
        (IndexId::Kind, &filter.kinds),
        (IndexId::Sender, &filter.senders),
        (IndexId::Owner, &filter.owners),
        (IndexId::Channel, &filter.channels),
    ];
    let given = given.into_iter().map(|(id, values)| (id, values.clone()));
    let once = |(id, mut values): Restriction| {
        values.sort();
        values.dedup();
        (id, values)
    };
    labels.chain(given).filter(|(_, values)| !values.is_empty()).map(once).collect()
}

impl Plan {
    /// The plan with the fewest entries.
    pub(super) fn of(reader: &dyn Reader, filter: &Filter) -> Result<Self, StoreError> {
        let restrictions = restrictions(filter);
        let is_simple = filter.hashes.is_empty() && filter.removing.is_none() && !filter.blocks.restrict();
        let kinds = restrictions.iter().find(|(id, _)| *id == IndexId::Kind).map(|(_, kinds)| kinds.as_slice());
        let mut best: Option<(&Restriction, u64)> = None;
        for restriction in &restrictions {
            let size = size(reader, restriction, kinds)?;
            // Of equals the last: entries that are kept by message type decide two properties at once, and those of the type alone come before them.
            if best.is_none_or(|(_, least)| size <= least) {
                best = Some((restriction, size));
            }
        }
        let Some(((id, values), size)) = best else {
            let prefix = index_prefix(IndexId::All, "");
            let size = reader.number(Table::Counts, &prefix)?;
            return Ok(Self { id: IndexId::All, prefixes: vec![prefix], size, exact: is_simple, counted: is_simple });
        };
        let by_kind = id.is_by_kind().then_some(kinds).flatten();
        let exact = is_simple && restrictions.len() == 1 + usize::from(by_kind.is_some());
        // A message may have several labels of one name.
        let counted = exact && (*id != IndexId::Label || values.len() == 1);
        Ok(Self { id: *id, prefixes: prefixes(reader, *id, values, by_kind)?, size, exact, counted })
    }

    pub(super) fn stream<'a>(
        &self,
        reader: &'a dyn Reader,
        filter: &Filter,
        descending: bool,
        after: Option<&(f64, ItemHash)>,
    ) -> Merged<'a> {
        let streams = self.prefixes.iter().map(|prefix| Stream::new(reader, prefix.clone(), filter, descending, after));
        Merged { streams: streams.collect(), descending, last: None }
    }
}

/// How many entries a restriction leaves, together with one to message types where those entries are kept by type.
fn size(reader: &dyn Reader, (id, values): &Restriction, kinds: Option<&[String]>) -> Result<u64, StoreError> {
    let both = match id {
        IndexId::Sender => Some(IndexId::SenderKind),
        IndexId::Owner => Some(IndexId::OwnerKind),
        IndexId::Channel => Some(IndexId::ChannelKind),
        _ => None,
    };
    let keys: Vec<Vec<u8>> = match both.zip(kinds) {
        Some((both, kinds)) => {
            let pairs = values.iter().flat_map(|value| kinds.iter().map(move |kind| [value.as_str(), kind]));
            pairs.map(|pair| count_key(both, &pair)).collect()
        }
        None => values.iter().map(|value| index_prefix(*id, value)).collect(),
    };
    keys.iter().try_fold(0_u64, |sum, key| Ok(sum.saturating_add(reader.number(Table::Counts, key)?)))
}

/// What the entries of these values begin with.
fn prefixes(
    reader: &dyn Reader,
    id: IndexId,
    values: &[String],
    kinds: Option<&[String]>,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut prefixes = Vec::new();
    for value in values {
        match kinds {
            Some(kinds) => prefixes.extend(kinds.iter().map(|kind| entry_prefix(id, value, kind))),
            None if id.is_by_kind() => types(reader, &index_prefix(id, value), &mut prefixes)?,
            None => prefixes.push(index_prefix(id, value)),
        }
    }
    Ok(prefixes)
}

/// The beginnings of the entries of one value, one for each message type that there is among them.
fn types(reader: &dyn Reader, value: &[u8], prefixes: &mut Vec<Vec<u8>>) -> Result<(), StoreError> {
    let (mut start, end) = (value.to_vec(), end_of(value));
    while let Some((key, _)) = reader.range(Table::Index, &start, &end, 1, false)?.pop() {
        // A type has at most as many bytes as a text in an index, so it stands there whole.
        let Some((kind, _)) = split_text(&key[value.len()..]) else { return Ok(()) };
        let prefix = key[..value.len() + kind.len() + 1].to_vec();
        start = end_of(&prefix);
        prefixes.push(prefix);
    }
    Ok(())
}
