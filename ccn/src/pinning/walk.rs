//! The walk through all files of IPFS and all pins, side by side, in the order of their keys: what it finds to be done is what was missed, or not
//! finished, however that came.

use super::{
    board::Rows,
    errand::{self, Trouble},
    plan,
    queue::Look,
    record::{IpfsPinRecord, PinState},
};
use crate::store::{
    Reader as _, Row, Snapshot, Store, StoreError, Walk as Rest,
    record::{FileRecord, Record as _},
    schema::{CID_MARKS, Table, split_hash},
};
use std::{collections::BTreeMap, io};

/// Rows of each table that are read in one go.
pub(super) const PAGE: usize = 500;

/// A walk that is on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Walk {
    /// Where it goes on.
    from: Vec<u8>,
    /// Whether what was done is looked at again.
    pub(super) checking: bool,
}

impl Walk {
    pub(super) fn new(checking: bool) -> Self {
        Self { from: vec![CID_MARKS[0]], checking }
    }

    /// What the next rows need; and how it goes on, if it does.
    pub(super) async fn step(self, store: Store) -> Result<(Vec<Look>, Option<Self>), Trouble> {
        let step = move || {
            let snapshot = store.snapshot()?;
            page(&snapshot, &self, PAGE)
        };
        Ok(tokio::task::spawn_blocking(step).await.map_err(io::Error::other)??)
    }
}

/// The end of the part of the keys that a key is in.
fn end(from: &[u8]) -> Vec<u8> {
    let [first, second] = CID_MARKS;
    vec![if from[0] == first { first + 1 } else { second + 1 }]
}

fn page(snapshot: &Snapshot, walk: &Walk, most: usize) -> Result<(Vec<Look>, Option<Walk>), StoreError> {
    let end = end(&walk.from);
    let read = |table| snapshot.range(table, &walk.from, &end, most, false);
    let (files, pins) = (read(Table::Files)?, read(Table::IpfsPins)?);
    // Where one table was cut off, the other may have rows that belong to what comes after.
    let cut = |rows: &[Row]| rows.last().filter(|_| rows.len() == most).map(|(key, _)| key.clone());
    let last = [cut(&files), cut(&pins)].into_iter().flatten().min();
    let is_in = |key: &[u8]| last.as_deref().is_none_or(|last| key <= last);
    let mut both: BTreeMap<Vec<u8>, (Option<FileRecord>, Option<PinState>)> = BTreeMap::new();
    for (key, row) in files.into_iter().filter(|(key, _)| is_in(key)) {
        both.entry(key).or_default().0 = Some(FileRecord::read(&row)?);
    }
    for (key, row) in pins.into_iter().filter(|(key, _)| is_in(key)) {
        both.entry(key).or_default().1 = Some(IpfsPinRecord::read(&row)?.state);
    }
    let look = |(key, (file, row)): (Vec<u8>, (Option<FileRecord>, _))| {
        let (hash, _) = split_hash(&key)?;
        let step = plan::step(errand::here(file.as_ref()), row, walk.checking);
        step.map(|_| Look { hash, checking: walk.checking })
    };
    let looks = both.into_iter().filter_map(look).collect();
    let from = match last {
        Some(last) => Some([last.as_slice(), &[0]].concat()),
        None => (walk.from[0] == CID_MARKS[0]).then(|| vec![CID_MARKS[1]]),
    };
    Ok((looks, from.map(|from| Walk { from, ..*walk })))
}

/// Where the rows of pins are.
pub(super) fn all() -> (Vec<u8>, Vec<u8>) {
    (vec![CID_MARKS[0]], vec![CID_MARKS[1] + 1])
}

/// Of the next pins from a key on, the keys of those that are older than a moment; and where it goes on, if it does.
pub(super) async fn older(
    store: Store,
    from: Vec<u8>,
    moment: u64,
) -> Result<(Vec<Vec<u8>>, Option<Vec<u8>>), Trouble> {
    let read = move || {
        let rows = store.snapshot()?.range(Table::IpfsPins, &from, &all().1, PAGE, false)?;
        let next = rows.last().filter(|_| rows.len() == PAGE).map(|(key, _)| [key.as_slice(), &[0]].concat());
        let mut older = Vec::new();
        for (key, row) in rows {
            if IpfsPinRecord::read(&row)?.since < moment {
                older.push(key);
            }
        }
        Ok::<_, StoreError>((older, next))
    };
    Ok(tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??)
}

/// How many pins there are of each state.
pub(super) async fn count(store: Store) -> Result<Rows, Trouble> {
    let count = move || {
        let (snapshot, mut rows) = (store.snapshot()?, Rows::default());
        for row in Rest::new(&snapshot, Table::IpfsPins, all(), false, PAGE) {
            rows.moved(None, Some(IpfsPinRecord::read(&row?.1)?.state));
        }
        Ok::<_, StoreError>(rows)
    };
    Ok(tokio::task::spawn_blocking(count).await.map_err(io::Error::other)??)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        pinning::record::NODE_KEY,
        store::{Changes, record::FileKind, schema::hash_key},
    };
    use ccn_message::ItemHash;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Files of both versions of CIDs.
    fn cid(number: u8) -> ItemHash {
        let digest = [&[0x12, 0x20][..], &[number.wrapping_mul(37); 32]].concat();
        let v1 = || format!("b{}", data_encoding::BASE32_NOPAD.encode(&[&[1, 0x70][..], &digest].concat()));
        let text =
            if number.is_multiple_of(2) { bs58::encode(&digest).into_string() } else { v1().to_ascii_lowercase() };
        ItemHash::parse(&text).expect("a CID")
    }

    fn state(number: u8) -> PinState {
        [PinState::Begun, PinState::Found, PinState::Pinned { named: true }, PinState::Pinned { named: false }]
            [usize::from(number) % 4]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// However long the pages are, the walk finds what there is to do, each once.
        #[test]
        fn everything_is_found_once(
            files in proptest::collection::btree_map(0_u8..60, 0_u64..3, 0..40),
            pins in proptest::collection::btree_map(0_u8..60, any::<u8>(), 0..40),
            most in 1_usize..12,
            checking: bool,
        ) {
            let store = Store::on(redb::backends::InMemoryBackend::new()).expect("a store");
            let mut changes = Changes::new();
            for byte in [0, 0x99, 0xbb, 0xff] {
                let record = FileRecord { size: 1, kind: FileKind::File, grace: None, pins: 1 };
                changes.insert((Table::Files, hash_key(&ItemHash::from_sha256([byte; 32]))), Some(record.to_bytes()));
            }
            changes.insert((Table::IpfsPins, NODE_KEY.to_vec()), Some(b"node".to_vec()));
            let mut rows = Rows::default();
            for (number, pins) in &files {
                let record = FileRecord { size: 1, kind: FileKind::File, grace: None, pins: *pins };
                changes.insert((Table::Files, hash_key(&cid(*number))), Some(record.to_bytes()));
            }
            for (number, pin) in &pins {
                let record = IpfsPinRecord { state: state(*pin), since: 0 };
                rows.moved(None, Some(record.state));
                changes.insert((Table::IpfsPins, hash_key(&cid(*number))), Some(record.to_bytes()));
            }
            store.commit(&changes).expect("a commit");
            let expect: BTreeSet<ItemHash> = (0..60).filter(|number| {
                let here = match files.get(number) {
                    None => plan::Here::Gone,
                    Some(0) => plan::Here::Lingering,
                    Some(_) => plan::Here::Kept,
                };
                plan::step(here, pins.get(number).map(|pin| state(*pin)), checking).is_some()
            }).map(cid).collect();
            let (snapshot, mut found) = (store.snapshot().expect("a snapshot"), Vec::new());
            let mut walk = Some(Walk::new(checking));
            while let Some(now) = walk {
                let (looks, next) = page(&snapshot, &now, most).expect("rows");
                prop_assert!(looks.iter().all(|look| look.checking == checking));
                found.extend(looks.into_iter().map(|look| look.hash));
                walk = next;
            }
            prop_assert_eq!(found.len(), expect.len());
            prop_assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expect);
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            prop_assert_eq!(runtime.block_on(count(store)).expect("rows"), rows);
        }
    }
}
