//! The order of first confirmations, among few messages and among many.

use super::*;
use crate::store::{
    Changes, Store,
    confirmation::{self, ConfirmationRecord},
    record::Record as _,
    schema::{entry_prefix, hash_key, index_prefix},
};
use ccn_message::sign::{Account, Draft};

const SENDERS: [u8; 2] = [7, 8];

fn account(number: u8) -> Account {
    Account::ethereum([number; 32]).expect("a key")
}

/// Messages with these times, of two senders in turn, each first confirmed then; never: in no block.
fn stored(messages: &[(f64, Option<u64>)]) -> (Store, Vec<ItemHash>) {
    let store = Store::on(redb::backends::InMemoryBackend::new()).expect("a store");
    let (mut changes, mut hashes) = (Changes::new(), Vec::new());
    for (place, (time, first)) in messages.iter().enumerate() {
        let sequence = place as u64 + 1;
        let account = account(SENDERS[place % SENDERS.len()]);
        let envelope = Draft::new("POST", &format!(r#"{{"type":"x","content":{place}}}"#)).time(*time).sign(&account);
        let hash = envelope.item_hash.clone();
        let record = MessageRecord {
            envelope: (&envelope).into(),
            content: None,
            size: 1,
            owner: envelope.sender.clone(),
            content_time: *time,
            labels: Vec::new(),
            reception_time: 0,
        };
        let mut put = |table, key: Vec<u8>, value: Vec<u8>| changes.insert((table, key), Some(value));
        put(Table::Messages, sequence.to_be_bytes().to_vec(), record.to_bytes());
        put(Table::Sequence, hash_key(&hash), sequence.to_be_bytes().to_vec());
        for (id, text) in [(IndexId::All, ""), (IndexId::Sender, envelope.sender.as_str())] {
            let entry = entry_prefix(id, text, &envelope.kind);
            put(Table::Index, [entry.as_slice(), &index_suffix(*time, &hash, sequence)].concat(), Vec::new());
            put(Table::Counts, index_prefix(id, text), (messages.len() as u64).to_be_bytes().to_vec());
        }
        // The first in time is not the lowest of its chain: another chain counts its blocks otherwise.
        for (height, seconds) in first.iter().flat_map(|first| [(900, *first), (1, first + 50)]) {
            let key = confirmation::key(&hash, "ETH", "i", height, &[1; 32]);
            put(Table::Confirmations, key, ConfirmationRecord { time: seconds, publisher: "0xe".into() }.to_bytes());
        }
        hashes.push(hash);
    }
    store.commit(&changes).expect("a commit");
    (store, hashes)
}

fn places(
    store: &Store,
    hashes: &[ItemHash],
    filter: &Filter,
    descending: bool,
    (skip, limit): (u64, u64),
) -> Vec<usize> {
    let window = Window { order: Order::FirstConfirmed, descending, skip, limit, after: None };
    let found = list(&store.snapshot().expect("a snapshot"), filter, &window).expect("a list").messages;
    found.iter().filter_map(|(hash, _)| hashes.iter().position(|other| other == hash)).collect()
}

#[test]
fn what_is_in_no_block_comes_after_all() {
    let (store, hashes) = stored(&[(1.0, Some(40)), (2.0, None), (3.0, Some(20)), (4.0, None), (5.0, Some(40))]);
    let check = |filter: &Filter, expect: &[usize]| {
        let reversed: Vec<usize> = expect.iter().rev().copied().collect();
        assert_eq!(places(&store, &hashes, filter, false, (0, 9)), expect);
        assert_eq!(places(&store, &hashes, filter, true, (0, 9)), reversed);
        assert_eq!(
            places(&store, &hashes, filter, true, (1, 2)),
            reversed.iter().skip(1).take(2).copied().collect::<Vec<_>>()
        );
    };
    check(&Filter::default(), &[2, 0, 4, 1, 3]);
    check(&Filter { senders: vec![account(7).address().to_owned()], ..Filter::default() }, &[2, 0, 4]);
    check(&Filter { hashes: hashes[1..].to_vec(), ..Filter::default() }, &[2, 4, 1, 3]);
    check(&Filter { start: Some(2.0), end: Some(5.0), ..Filter::default() }, &[2, 1, 3]);
}

#[test]
fn of_one_moment_hashes_go_upwards_in_both_directions() {
    let messages: Vec<(f64, Option<u64>)> = (0..200).map(|place| (1.0, Some(place % 2))).collect();
    let (store, hashes) = stored(&messages);
    let mut expect: Vec<usize> = (0..200).collect();
    expect.sort_by_key(|place| (place % 2, hashes[*place].clone()));
    assert_eq!(places(&store, &hashes, &Filter::default(), false, (0, 500)), expect);
    expect.sort_by_key(|place| (1 - place % 2, hashes[*place].clone()));
    assert_eq!(places(&store, &hashes, &Filter::default(), true, (0, 500)), expect);
}
