//! The order of first confirmations, among few messages and among many.

use super::*;
use crate::store::{
    Changes, Store,
    confirmation::{self, ConfirmationRecord},
    record::Record as _,
    schema::{count_key, entry_prefix, hash_key, index_prefix},
};
use ccn_message::sign::{Account, Draft};

const SENDERS: [u8; 2] = [7, 8];

fn account(number: u8) -> Account {
    Account::ethereum([number; 32]).expect("a key")
}

/// Messages with these times, of two senders in turn, each first confirmed then; never: in no block.
fn stored(messages: &[(f64, Option<u64>)]) -> (Store, Vec<ItemHash>) {
    stored_with(messages, "")
}

/// The same with a text in their contents.
fn stored_with(messages: &[(f64, Option<u64>)], text: &str) -> (Store, Vec<ItemHash>) {
    let store = Store::on(redb::backends::InMemoryBackend::new()).expect("a store");
    let (mut changes, mut hashes) = (Changes::new(), Vec::new());
    for (place, (time, first)) in messages.iter().enumerate() {
        let sequence = place as u64 + 1;
        let account = account(SENDERS[place % SENDERS.len()]);
        let content = format!(r#"{{"type":"x","content":{place},"text":"{text}"}}"#);
        let envelope = Draft::new("POST", &content).time(*time).sign(&account);
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

/// Whatever index drives it, a list has the messages that match, in order, and the count is their number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_and_counts_are_those_of_a_walk_over_all() {
    let node = crate::testing::TestNode::new().await;
    let people = [account(7), account(8)];
    let mut sent = Vec::new();
    for place in 0..48_usize {
        let channel = ["X", "Y", "Z"][place % 3];
        let draft = match place % 4 {
            0 => Draft::new("AGGREGATE", &format!(r#"{{"key":"k{}","content":{{"n":{place}}}}}"#, place % 2)),
            1 => Draft::new("FORGET", &format!(r#"{{"hashes":["{}"]}}"#, sent[place - 1])),
            _ => Draft::new("POST", &format!(r#"{{"type":"t{}","content":{place}}}"#, place % 5)),
        };
        let draft = draft.channel(channel).time(1000.0 + (place / 3) as f64);
        sent.push(node.send(&people[place / 4 % 2], draft).await.item_hash);
    }
    let snapshot = node.service.store.snapshot().expect("a snapshot");
    let every = Window { order: Order::Time, descending: false, skip: 0, limit: 1000, after: None };
    let all = list(&snapshot, &Filter::default(), &every).expect("a list").messages;
    assert_eq!(all.len(), 36, "a quarter is forgotten");
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let addresses = [vec![], texts(&[people[0].address()]), texts(&[people[0].address(), people[1].address()])];
    let (kinds, channels) =
        ([vec![], texts(&["POST"]), texts(&["POST", "FORGET"])], [vec![], texts(&["X"]), texts(&["X", "Y"])]);
    let labels = [vec![], vec![("content-type".to_owned(), texts(&["t2", "t3"]))]];
    let mut combinations = 0;
    for (senders, owners) in addresses.iter().flat_map(|one| addresses.iter().map(move |other| (one, other))) {
        for (kinds, channels) in kinds.iter().flat_map(|one| channels.iter().map(move |other| (one, other))) {
            for labels in &labels {
                let [senders, owners, kinds, channels] = [senders, owners, kinds, channels].map(Clone::clone);
                let filter = Filter { senders, owners, kinds, channels, labels: labels.clone(), ..Filter::default() };
                let matching: Vec<&ItemHash> = all
                    .iter()
                    .filter(|(hash, record)| filter.matches(hash, record, record.envelope.chain()))
                    .map(|(hash, _)| hash)
                    .collect();
                assert_eq!(count(&snapshot, &filter).expect("a count"), matching.len() as u64, "{filter:?}");
                let found = list(&snapshot, &filter, &every).expect("a list").messages;
                assert_eq!(found.iter().map(|(hash, _)| hash).collect::<Vec<_>>(), matching, "{filter:?}");
                let page = Window { skip: 2, limit: 3, ..every.clone() };
                let found = list(&snapshot, &filter, &page).expect("a list").messages;
                let expected: Vec<&ItemHash> = matching.iter().skip(2).take(3).copied().collect();
                assert_eq!(found.iter().map(|(hash, _)| hash).collect::<Vec<_>>(), expected, "{filter:?}");
                combinations += 1;
            }
        }
    }
    assert_eq!(combinations, 162);
    drop(snapshot);
    node.service.pipeline.stop().await;
}

#[test]
fn a_page_of_long_contents_ends_early_and_the_next_one_goes_on() {
    let text = "x".repeat(MAX_CONTENT_BYTES / 5);
    let (store, hashes) = stored_with(&[(1.0, None), (2.0, None), (3.0, None), (4.0, None), (5.0, None)], &text);
    let snapshot = store.snapshot().expect("a snapshot");
    let page = |after: Option<(f64, ItemHash)>| {
        let window = Window { order: Order::Time, descending: false, skip: 0, limit: 10, after };
        list(&snapshot, &Filter::default(), &window).expect("a list")
    };
    let first = page(None);
    assert!(first.is_cut && first.more && first.messages.len() == 4);
    let (last, record) = first.messages.last().expect("a message");
    let rest = page(Some((record.envelope.time, last.clone())));
    assert!(!rest.is_cut && !rest.more);
    let found: Vec<&ItemHash> = first.messages.iter().chain(&rest.messages).map(|(hash, _)| hash).collect();
    assert_eq!(found, hashes.iter().collect::<Vec<_>>());
    let all = |limit| super::hashes(&snapshot, &Filter::default(), false, limit).expect("hashes");
    assert_eq!(all(100), hashes);
    assert_eq!((all(5), all(3), all(0)), (hashes.clone(), hashes[..3].to_vec(), vec![]));
}

/// All messages of a type are often all of a channel, too: neither is looked through then.
#[test]
fn what_decides_two_properties_at_once_comes_before_what_decides_one_as_well() {
    let store = Store::on(redb::backends::InMemoryBackend::new()).expect("a store");
    let count = |key: Vec<u8>| ((Table::Counts, key), Some(30_000_u64.to_be_bytes().to_vec()));
    let changes = [
        count(index_prefix(IndexId::Kind, "FORGET")),
        count(index_prefix(IndexId::Chain, "ETH")),
        count(index_prefix(IndexId::Label, "tag=x")),
        count(count_key(IndexId::ChannelKind, &["BENCH", "FORGET"])),
        count(count_key(IndexId::SenderKind, &["0xA", "FORGET"])),
    ];
    store.commit(&changes.into_iter().collect::<Changes>()).expect("a commit");
    let snapshot = store.snapshot().expect("a snapshot");
    let text = |text: &str| vec![text.to_owned()];
    let of_channel = Filter { channels: text("BENCH"), kinds: text("FORGET"), ..Filter::default() };
    let of_sender = Filter { senders: text("0xA"), kinds: text("FORGET"), ..Filter::default() };
    for filter in [of_channel, of_sender] {
        let plan = Plan::of(&snapshot, &filter).expect("a plan");
        assert!(plan.exact && plan.counted && plan.size == 30_000, "{plan:?}");
    }
    let more = Filter { chains: text("ETH"), labels: vec![("tag".to_owned(), text("x"))], ..Filter::default() };
    let plan = Plan::of(&snapshot, &more).expect("a plan");
    assert!(!plan.exact, "{plan:?}");
}
