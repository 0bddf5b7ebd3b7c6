//! Who may act for whom, the other way round: owners by those whom they allow to act now.

use super::{
    Reader, StoreError, Walk,
    derived::{open, value},
    record::{DelegationRecord, Record as _},
    schema::{Key, Table, end_of, split_text},
    standing::{self, Position},
};
use redb::{ReadableTable as _, WriteTransaction};
use std::collections::BTreeSet;

/// The beginnings of keys: owners by grantee, and what of an owner is there.
const BY_GRANTEE_MARK: u8 = 1;
const OF_OWNER_MARK: u8 = 0;
/// Rows that are read at a time.
const PAGE: usize = 256;
/// Behind the positions of all messages.
const LAST: [u8; 64] = [u8::MAX; 64];

fn by_grantee(grantee: &str) -> Key {
    Key::new().bytes(&[BY_GRANTEE_MARK]).text(grantee)
}

/// Brings the rows up to date with the delegations of these owners.
pub(super) fn follow(write: &WriteTransaction, owners: BTreeSet<String>) -> Result<(), StoreError> {
    let delegations = open(write, Table::Delegations)?;
    let mut grantees = open(write, Table::Grantees)?;
    for owner in owners {
        let place = Key::new().bytes(&[OF_OWNER_MARK]).text(&owner).done();
        let before = value(&grantees, &place)?.and_then(|row| postcard::from_bytes::<BTreeSet<String>>(&row).ok());
        let before = before.unwrap_or_default();
        let prefix = Key::new().text(&owner).done();
        let mut now = BTreeSet::new();
        for row in delegations.range(prefix.as_slice()..end_of(&prefix).as_slice())?.rev() {
            let (_, row) = row?;
            let Ok(record) = DelegationRecord::read(row.value()) else { continue };
            if record.until.is_none() {
                now.extend(record.entries.into_iter().map(|entry| entry.address));
                break;
            }
        }
        for gone in before.difference(&now) {
            grantees.remove(by_grantee(gone).text(&owner).done().as_slice())?;
        }
        for new in now.difference(&before) {
            grantees.insert(by_grantee(new).text(&owner).done().as_slice(), [].as_slice())?;
        }
        match postcard::to_stdvec(&now) {
            Ok(row) if !now.is_empty() => grantees.insert(place.as_slice(), row.as_slice())?,
            _ => grantees.remove(place.as_slice())?,
        };
    }
    Ok(())
}

/// The owner in a key of `delegations`.
pub(super) fn owner_of(key: &[u8]) -> Option<String> {
    Some(split_text(key)?.0.to_owned())
}

/// Whom an address allows to act now, and to do what.
///
/// # Errors
/// The store fails.
pub fn granted(reader: &dyn Reader, owner: &str) -> Result<Option<DelegationRecord>, StoreError> {
    standing::delegations(reader, owner, &Position::from_bytes(&LAST))
}

/// The owners that allow an address to act now, in their order.
pub fn granters<'a>(reader: &'a dyn Reader, grantee: &str) -> impl Iterator<Item = Result<String, StoreError>> + 'a {
    let prefix = by_grantee(grantee).done();
    Walk::new(reader, Table::Grantees, (prefix.clone(), end_of(&prefix)), false, PAGE).filter_map(
        move |row| match row {
            Ok((key, _)) => Some(Ok(split_text(key.get(prefix.len()..)?)?.0.to_owned())),
            Err(error) => Some(Err(error)),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Changes, Store, record::AuthorizationRecord};
    use ccn_message::ItemHash;

    #[test]
    fn those_who_may_act_are_found_by_name() {
        let store = Store::on(redb::backends::InMemoryBackend::new()).expect("a store");
        let entry = |address: &&str| AuthorizationRecord {
            address: (*address).to_owned(),
            chain: None,
            channels: Vec::new(),
            kinds: Vec::new(),
            labels: Vec::new(),
        };
        let said = |owner: &str, time: f64, to: &[&str], until: Option<f64>| {
            let hash = ItemHash::sha256_of(b"m");
            let until = until.map(|time| Position::new(time, &hash).bytes().to_vec());
            let record = DelegationRecord { entries: to.iter().map(entry).collect(), until };
            let key = standing::delegation_key(owner, &Position::new(time, &hash));
            let changes = Changes::from([((Table::Delegations, key), Some(record.to_bytes()))]);
            store.commit(&changes).expect("a commit");
        };
        let check = |grantee: &str, expect: &[&str]| {
            let snapshot = store.snapshot().expect("a snapshot");
            let found: Vec<String> = granters(&snapshot, grantee).collect::<Result<_, _>>().expect("owners");
            assert_eq!(found, expect, "{grantee}");
            for owner in found {
                let granted = granted(&snapshot, &owner).expect("no error").expect("delegations");
                assert!(granted.entries.iter().any(|entry| entry.address == grantee));
            }
        };
        said("0xA", 1.0, &["0xX", "0xY"], None);
        said("0xB", 1.0, &["0xX"], None);
        check("0xX", &["0xA", "0xB"]);
        check("0xY", &["0xA"]);
        said("0xA", 2.0, &["0xZ"], None);
        check("0xX", &["0xB"]);
        check("0xZ", &["0xA"]);
        // What is forgotten no longer counts: what was said before does again.
        said("0xA", 2.0, &["0xZ"], Some(3.0));
        check("0xX", &["0xA", "0xB"]);
        check("0xZ", &[]);
        said("0xA", 4.0, &[], None);
        check("0xX", &["0xB"]);
        check("0xY", &[]);
    }
}
