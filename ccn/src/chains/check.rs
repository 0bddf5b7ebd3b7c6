//! What a provider gives as events, held against what was asked: in order, each once, of the range, of one history. No I/O.

use super::provider::{LogForm, MAX_TIME};
use crate::host::IndexerSubscription;
use alloy_primitives::{Address, B256};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

/// Most topics of an event: what the machine of these chains has.
const MAX_TOPICS: usize = 4;

/// An event that a contract emitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) height: u64,
    pub(super) block: B256,
    /// Of its block, seconds since 1970; not every provider says it.
    pub(super) time: Option<u64>,
    pub(super) transaction: B256,
    /// Its place among all events of its block.
    pub(super) index: u32,
    pub(super) contract: Address,
    pub(super) topics: Vec<B256>,
    pub(super) data: Vec<u8>,
}

/// Which events are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted(BTreeMap<Address, BTreeSet<B256>>);

impl From<IndexerSubscription> for Wanted {
    fn from(subscription: IndexerSubscription) -> Self {
        let mut wanted: BTreeMap<Address, BTreeSet<B256>> = BTreeMap::new();
        for (contract, topics) in subscription.filters {
            wanted.entry(contract.into()).or_default().extend(topics.into_iter().map(B256::from));
        }
        Self(wanted)
    }
}

impl Wanted {
    /// All contracts.
    pub(super) fn contracts(&self) -> Vec<Address> {
        self.0.keys().copied().collect()
    }

    /// All first topics, whichever contract they are wanted of.
    pub(super) fn topics(&self) -> BTreeSet<B256> {
        self.0.values().flatten().copied().collect()
    }

    fn has(&self, contract: Address, topic: Option<&B256>) -> bool {
        topic.is_some_and(|topic| self.0.get(&contract).is_some_and(|topics| topics.contains(topic)))
    }
}

impl Event {
    fn read(form: LogForm) -> Result<Option<Self>, String> {
        // Of a block that is not made yet, or is no more.
        let (Some(height), Some(block), false) = (form.block_number, form.block_hash, form.removed) else {
            return Ok(None);
        };
        let (Some(transaction), Some(index)) = (form.transaction_hash, form.log_index) else {
            return Err("an event has no transaction".to_owned());
        };
        if form.topics.len() > MAX_TOPICS {
            return Err(format!("an event has {} topics", form.topics.len()));
        }
        let index = u32::try_from(index.to::<u64>()).map_err(|_| "an event's place is none".to_owned())?;
        Ok(Some(Self {
            height: height.to(),
            block,
            // A time that is none is asked for.
            time: form.block_timestamp.map(|time| time.to()).filter(|time| *time <= MAX_TIME),
            transaction,
            index,
            contract: form.address,
            topics: form.topics,
            data: form.data.into(),
        }))
    }

    /// Appends it as the contract of plugins says (`plugins/wit/indexer.wit`, `batch`).
    pub(super) fn pack(&self, packed: &mut Vec<u8>) {
        let length = 32 + 4 + 20 + 1 + 32 * self.topics.len() + self.data.len();
        // An answer is bounded, and so is every part of it.
        packed.extend((length as u32).to_be_bytes());
        packed.extend_from_slice(self.transaction.as_slice());
        packed.extend_from_slice(&self.index.to_be_bytes());
        packed.extend_from_slice(self.contract.as_slice());
        packed.push(self.topics.len() as u8);
        self.topics.iter().for_each(|topic| packed.extend_from_slice(topic.as_slice()));
        packed.extend_from_slice(&self.data);
    }
}

/// The events that were asked for, in the order of the chain. What comes twice counts once; what nobody asked for is left out.
///
/// # Errors
/// The answer contradicts itself or the question: a sentence.
pub(super) fn events(logs: Vec<LogForm>, wanted: &Wanted, range: RangeInclusive<u64>) -> Result<Vec<Event>, String> {
    let mut events: BTreeMap<(u64, u32), Event> = BTreeMap::new();
    let mut blocks: BTreeMap<u64, B256> = BTreeMap::new();
    for form in logs {
        let Some(event) = Event::read(form)? else { continue };
        if !range.contains(&event.height) {
            return Err(format!("an event of the block {}, which was not asked for", event.height));
        }
        if *blocks.entry(event.height).or_insert(event.block) != event.block {
            return Err(format!("events of two blocks at the height {}", event.height));
        }
        if !wanted.has(event.contract, event.topics.first()) {
            continue;
        }
        let place = (event.height, event.index);
        if let Some(other) = events.get(&place)
            && *other != event
        {
            return Err(format!("two events at the place {} of the block {}", event.index, event.height));
        }
        events.insert(place, event);
    }
    Ok(events.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::U64;
    use proptest::prelude::*;

    fn wanted() -> Wanted {
        Wanted::from(IndexerSubscription {
            filters: vec![([1; 20], vec![[1; 32]]), ([2; 20], vec![[2; 32]])],
            start: 0,
        })
    }

    fn log(height: u64, index: u64, contract: u8) -> LogForm {
        LogForm {
            address: [contract; 20].into(),
            topics: vec![B256::repeat_byte(contract)],
            data: vec![0xd].into(),
            block_number: Some(U64::from(height)),
            block_hash: Some(B256::with_last_byte(height as u8)),
            transaction_hash: Some(B256::ZERO),
            log_index: Some(U64::from(index)),
            block_timestamp: None,
            removed: false,
        }
    }

    fn check(logs: Vec<LogForm>, expect: Result<&[(u64, u32)], &str>) {
        let found = events(logs, &wanted(), 5..=9);
        match (found, expect) {
            (Ok(found), Ok(expect)) => {
                let places: Vec<(u64, u32)> = found.iter().map(|event| (event.height, event.index)).collect();
                assert_eq!(places, expect);
            }
            (Err(error), Err(words)) => assert!(error.contains(words), "{error}"),
            (found, expect) => panic!("{found:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn events_are_held_against_the_question() {
        // Out of order, one twice, one of another contract, one of another event of a contract that is wanted.
        let mut crossed = log(6, 3, 1);
        crossed.topics = vec![B256::repeat_byte(2)];
        let all = vec![log(7, 0, 2), log(5, 9, 1), log(7, 0, 2), log(6, 1, 9), crossed, log(5, 2, 1)];
        check(all, Ok(&[(5, 2), (5, 9), (7, 0)]));
        let pending = LogForm { block_number: None, block_hash: None, ..log(5, 0, 1) };
        let removed = LogForm { removed: true, ..log(5, 0, 1) };
        let bare = LogForm { topics: Vec::new(), ..log(5, 0, 1) };
        check(vec![pending, removed, bare], Ok(&[]));
        check(vec![log(4, 0, 1)], Err("was not asked for"));
        check(vec![log(10, 0, 1)], Err("was not asked for"));
        let elsewhere = LogForm { block_hash: Some(B256::ZERO), ..log(5, 1, 1) };
        check(vec![log(5, 0, 1), elsewhere], Err("two blocks"));
        let other = LogForm { data: vec![0xe].into(), ..log(5, 0, 1) };
        check(vec![log(5, 0, 1), other], Err("two events"));
        check(vec![LogForm { transaction_hash: None, ..log(5, 0, 1) }], Err("no transaction"));
        check(vec![LogForm { topics: vec![B256::repeat_byte(1); 5], ..log(5, 0, 1) }], Err("5 topics"));
        check(vec![log(5, u64::MAX, 1)], Err("place is none"));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_in_order_once_and_asked_for(
            places in proptest::collection::vec((5..10_u64, 0..4_u64, 0..4_u8), 0..30)
        ) {
            let logs = places.iter().map(|(height, index, contract)| log(*height, *index, *contract)).collect();
            if let Ok(found) = events(logs, &wanted(), 5..=9) {
                prop_assert!(found.windows(2).all(|pair| (pair[0].height, pair[0].index) < (pair[1].height, pair[1].index)));
                prop_assert!(found.iter().all(|event| wanted().has(event.contract, event.topics.first())));
            }
        }
    }
}
