//! What nobody can pay for any more: announced, after some time removed, and taken back when the funds are there again meanwhile (ccn spec 6.5).
//!
//! Who is to go is worked out from a snapshot as of a moment, by anybody; the one who decides then does it for those of whom it is still true. It is this
//! node's own doing, because funds and confirmations are, and no other message's verdict follows from it: a removed message keeps its rows in `messages`,
//! `bases` and the state of its plugin, so that what refers to it is decided everywhere alike. What it loses is its place in lists and counts, its files,
//! its costs and what was run for it.

use super::{
    desk::{Desk, pending_key},
    funds::{MIN_RUNTIME_SECONDS, holds},
    withdraw,
};
use crate::{
    ledger,
    store::{
        Reader, Snapshot, StoreError, Walk, confirmation,
        record::{BasisRecord, CostRecord, MessageRecord, PaymentRecord, Record as _, RemovedRecord, RemovingRecord},
        schema::{Table, end_of, hash_key, split_hash, split_text},
        standing::{self, Position},
    },
};
use ccn_message::{Amount, ItemHash, MessageStatus};

/// How long a message is announced before it is removed, milliseconds.
const NOTICE_MS: u64 = 25 * 3_600_000;
/// What keeps files of so many bytes in all and runs nothing is spared.
const SPARED_BYTES: u64 = 25 << 20;
/// Content times from which it has to be paid with credits like all else, seconds since 1970 (ccn spec 6.6: 2027-01-01).
const SPARED_BY_CREDITS_UNTIL: f64 = 1_798_761_600.0;
/// Most messages of one address of which it is worked out who goes; one with more is left as it is.
const MAX_DUES: usize = 1 << 20;
/// Rows that are read at a time; so many who pay are looked at before others have their turn.
const PAGE: usize = 256;
/// Most messages with which something is done at once.
pub(super) const MAX_STEP: usize = 200;

/// What is to be done with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It is said that it will be removed.
    Announce,
    /// It can be paid again.
    Recover,
    /// Its time is over.
    Remove,
}

/// A message and what is to be done with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Removal {
    pub(super) hash: ItemHash,
    pub(super) change: Change,
}

/// What a message has its owner hold or spend, and where it stands.
#[derive(Debug, Clone, PartialEq)]
struct Due {
    hash: ItemHash,
    /// Tokens to hold, or credits for a day.
    amount: Amount,
    /// True when the network's rules let it stay whatever its owner has.
    spared: bool,
    /// When it is to be removed, milliseconds since 1970; none when nobody said so.
    announced: Option<u64>,
}

/// What is to be done with the messages of an address that are paid in one way, in their order: the funds go to the first ones.
fn plan(funds: Amount, dues: &[Due], now_ms: u64) -> Vec<Removal> {
    let mut left = funds;
    let mut removals = Vec::new();
    for due in dues {
        let is_short = left < due.amount && !due.spared;
        left = (left - due.amount).max(Amount::ZERO);
        let change = match due.announced {
            None if is_short => Change::Announce,
            Some(until) if is_short && until <= now_ms => Change::Remove,
            Some(_) if !is_short => Change::Recover,
            None | Some(_) => continue,
        };
        removals.push(Removal { hash: due.hash.clone(), change });
    }
    removals
}

/// How far a look at all who pay has come: the address, and what it pays with. Those after it are next.
pub(super) type Payer = (PaymentRecord, String);

/// What came of looking at some of those who pay.
#[derive(Debug)]
pub(super) struct Stretch {
    pub(super) removals: Vec<Removal>,
    /// Where to go on; none when that was all.
    pub(super) next: Option<Payer>,
}

/// Looks at those who pay in ways that can run out, after that one, as of a moment, milliseconds since 1970: so many that others have their turn.
///
/// # Errors
/// The store fails.
pub(super) fn step(
    snapshot: &Snapshot,
    after: Option<Payer>,
    from_height: u64,
    now_ms: u64,
) -> Result<Stretch, StoreError> {
    let ways = [PaymentRecord::Hold, PaymentRecord::Credit];
    let (mut way, mut start) = match after {
        Some((payment, address)) => {
            let last = ledger::priced_prefix(payment, Some(&address));
            (usize::from(payment == ways[1]), Some([last.as_slice(), &[0]].concat()))
        }
        None => (0, None),
    };
    let mut removals = Vec::new();
    while let Some(payment) = ways.get(way).copied() {
        let all = ledger::priced_prefix(payment, None);
        let start = start.take().unwrap_or_else(|| all.clone());
        let rows = snapshot.range(Table::Totals, &start, &end_of(&all), PAGE, false)?;
        let mut last = None;
        for (key, _) in &rows {
            // The row without an address is the sum over all.
            let Some((address, _)) = key.get(all.len()..).and_then(split_text) else { continue };
            removals.extend(review(snapshot, payment, address, from_height, now_ms)?);
            last = Some((payment, address.to_owned()));
        }
        if rows.len() == PAGE {
            return Ok(Stretch { removals, next: last });
        }
        way += 1;
    }
    Ok(Stretch { removals, next: None })
}

/// What is to be done with the messages of an address that it pays in one way, as of a moment, milliseconds since 1970. Holdings are asked of what was
/// first confirmed at that height or later.
///
/// # Errors
/// The store fails.
fn review(
    snapshot: &Snapshot,
    payment: PaymentRecord,
    address: &str,
    from_height: u64,
    now_ms: u64,
) -> Result<Vec<Removal>, StoreError> {
    let announced = RemovingRecord::prefix(address);
    let is_announced = !snapshot.range(Table::Removing, &announced, &end_of(&announced), 1, false)?.is_empty();
    if !is_announced && can_pay(snapshot, payment, address, now_ms)? {
        return Ok(Vec::new());
    }
    let prefix = ledger::priced_prefix(payment, Some(address));
    let mut dues: Vec<(Position, Due)> = Vec::new();
    for row in Walk::new(snapshot, Table::Priced, (prefix.clone(), end_of(&prefix)), false, PAGE) {
        let (key, _) = row?;
        if dues.len() == MAX_DUES {
            tracing::warn!("{address} has more than {MAX_DUES} messages to pay: who can pay for them is not looked at");
            return Ok(Vec::new());
        }
        let Some((hash, _)) = key.get(prefix.len()..).and_then(split_hash) else { continue };
        let (Some(message), Some(cost)) = (snapshot.message(&hash)?, snapshot.costs(&hash)?) else { continue };
        let confirmations = confirmation::of_message(snapshot, &hash)?;
        let height = confirmations.first().map(|confirmation| confirmation.height);
        // What no chain vouches for is not removed; nor does it take anything from others.
        let amount = if height.is_some() { needed(payment, cost.total()) } else { Amount::ZERO };
        let is_early = payment == PaymentRecord::Hold && height.is_none_or(|height| height < from_height);
        let spared = is_early || is_small(snapshot, payment, &hash, &message)?;
        let announced = standing::removing(snapshot, &message)?.map(|record| record.until_ms);
        dues.push((Position::of(&hash, &message), Due { hash, amount, spared, announced }));
    }
    dues.sort_by(|(one, _), (other, _)| one.cmp(other));
    let dues: Vec<Due> = dues.into_iter().map(|(_, due)| due).collect();
    let (funds, _) = holds(snapshot, payment, address, now_ms)?;
    Ok(plan(funds, &dues, now_ms))
}

/// True when an address has what all its messages need that are paid in that way.
fn can_pay(reader: &dyn Reader, payment: PaymentRecord, address: &str, now_ms: u64) -> Result<bool, StoreError> {
    let (funds, spent) = holds(reader, payment, address, now_ms)?;
    Ok(needed(payment, spent) <= funds)
}

/// What must be there: tokens, or credits for a day.
fn needed(payment: PaymentRecord, cost: Amount) -> Amount {
    match payment {
        PaymentRecord::Hold | PaymentRecord::Superfluid => cost,
        PaymentRecord::Credit => cost.times(MIN_RUNTIME_SECONDS),
    }
}

/// True for what keeps little and runs nothing, as long as that is free.
fn is_small(
    reader: &dyn Reader,
    payment: PaymentRecord,
    hash: &ItemHash,
    message: &MessageRecord,
) -> Result<bool, StoreError> {
    let is_free = payment != PaymentRecord::Credit || message.content_time < SPARED_BY_CREDITS_UNTIL;
    let runs = reader.get(Table::Workloads, &hash_key(hash))?.is_some()
        || standing::removing(reader, message)?.is_some_and(|record| record.workload.is_some());
    if !is_free || runs {
        return Ok(false);
    }
    let basis = reader.get(Table::Bases, &pending_key(&message.envelope.clone().envelope()?))?;
    let basis = basis.map(|row| BasisRecord::read(&row)).transpose()?.unwrap_or_default();
    Ok(kept_bytes(reader, &basis)? <= SPARED_BYTES)
}

/// Bytes of the files that a message keeps.
fn kept_bytes(reader: &dyn Reader, basis: &BasisRecord) -> Result<u64, StoreError> {
    let mut bytes = 0_u64;
    for file in basis.pins.iter().filter_map(|file| ItemHash::parse(file).ok()) {
        bytes = bytes.saturating_add(reader.file(&file)?.map_or(0, |file| file.size));
    }
    Ok(bytes)
}

/// Does what is to be done with a message, if that is still so. False where it is not.
///
/// # Errors
/// The store fails.
pub(super) fn apply(desk: &mut Desk, removal: &Removal, now_ms: u64) -> Result<bool, StoreError> {
    let Removal { hash, change } = removal;
    let Some(message) = desk.read().message(hash)? else { return Ok(false) };
    let Some(status) = desk.read().status(hash)? else { return Ok(false) };
    let removing = standing::removing(desk.read(), &message)?;
    let key = RemovingRecord::key(&message.owner, hash);
    match (change, status.status(), removing) {
        (Change::Announce, MessageStatus::Processed, None) => {
            let workload = desk.read().get(Table::Workloads, &hash_key(hash))?;
            desk.edit().delete(Table::Workloads, hash_key(hash));
            let record = RemovingRecord { until_ms: now_ms.saturating_add(NOTICE_MS), workload };
            desk.edit().put(Table::Removing, key, record.to_bytes());
            desk.set_status(hash, MessageStatus::Removing, status.reception_time, None)?;
        }
        (Change::Recover, MessageStatus::Removing, Some(record)) => {
            desk.edit().delete(Table::Removing, key);
            desk.edit().set(Table::Workloads, hash_key(hash), record.workload);
            desk.set_status(hash, MessageStatus::Processed, status.reception_time, None)?;
        }
        (Change::Remove, MessageStatus::Removing, Some(record)) if record.until_ms <= now_ms => {
            let Some(cost) = desk.read().costs(hash)? else { return Ok(false) };
            // Somebody may have paid in the last moment.
            if can_pay(desk.read(), cost.payment, &cost.address, now_ms)? {
                return Ok(false);
            }
            desk.edit().delete(Table::Removing, key);
            remove(desk, hash, &message, &cost, now_ms)?;
            desk.set_status(hash, MessageStatus::Removed, status.reception_time, None)?;
        }
        _ => return Ok(false),
    }
    tracing::debug!("{hash} of {}: {change:?}", message.owner);
    Ok(true)
}

/// Takes from a message what it keeps, costs and is found by. What is left of the time for its files is over with that of the announcement.
fn remove(
    desk: &mut Desk,
    hash: &ItemHash,
    message: &MessageRecord,
    cost: &CostRecord,
    now_ms: u64,
) -> Result<(), StoreError> {
    let basis = desk.basis(&pending_key(&message.envelope.clone().envelope()?))?.unwrap_or_default();
    let kept = kept_bytes(desk.read(), &basis)?;
    let size = if kept > 0 { kept } else { message.size };
    withdraw::release(desk, hash, &basis, now_ms)?;
    desk.unlist(hash, message)?;
    let mut skeleton = message.clone();
    skeleton.content = None;
    skeleton.envelope.item_content = None;
    let record = RemovedRecord { message: skeleton, payment: cost.payment, removed_at: now_ms, size };
    desk.edit().put(Table::Removed, hash_key(hash), record.to_bytes());
    Ok(())
}

/// Makes a message one like any other before it is taken out: what it had lost in lists and counts it has again, and nobody means to remove it.
///
/// # Errors
/// The store fails.
pub(super) fn end(desk: &mut Desk, hash: &ItemHash) -> Result<(), StoreError> {
    let Some(message) = desk.read().message(hash)? else { return Ok(()) };
    if standing::removed(desk.read(), hash)?.is_some() {
        desk.edit().delete(Table::Removed, hash_key(hash));
        desk.list(hash, &message)?;
    }
    desk.edit().delete(Table::Removing, RemovingRecord::key(&message.owner, hash));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn due(number: u8, amount: i128, announced: Option<u64>) -> Due {
        let hash = ItemHash::sha256_of(&[number]);
        Due { hash, amount: Amount::from_integer(amount), spared: false, announced }
    }

    fn changes(funds: i128, dues: &[Due], now_ms: u64) -> Vec<Option<Change>> {
        let removals = plan(Amount::from_integer(funds), dues, now_ms);
        let of = |due: &Due| removals.iter().find(|removal| removal.hash == due.hash).map(|removal| removal.change);
        dues.iter().map(of).collect()
    }

    #[test]
    fn the_first_ones_stay_and_what_is_spared_stays_anyway() {
        use Change::{Announce, Recover, Remove};
        let mut dues = [due(0, 6, None), due(1, 5, None), due(2, 1, None)];
        assert_eq!(changes(12, &dues, 0), [None, None, None]);
        assert_eq!(changes(11, &dues, 0), [None, None, Some(Announce)]);
        // What the second one lacks is not left for the third.
        assert_eq!(changes(10, &dues, 0), [None, Some(Announce), Some(Announce)]);
        dues[1].spared = true;
        assert_eq!(changes(10, &dues, 0), [None, None, Some(Announce)]);
        dues[2].announced = Some(100);
        assert_eq!(changes(10, &dues, 99), [None, None, None]);
        assert_eq!(changes(10, &dues, 100), [None, None, Some(Remove)]);
        assert_eq!(changes(12, &dues, 100), [None, None, Some(Recover)]);
    }

    proptest! {
        /// Whoever has more loses nothing by it, and what is announced is removed or recovered, never both.
        #[test]
        fn more_funds_remove_no_more(
            amounts in proptest::collection::vec((0_i128..20, any::<bool>(), proptest::option::of(0_u64..10)), 0..12),
            funds in 0_i128..60,
            more in 0_i128..60,
            now_ms in 0_u64..10,
        ) {
            let dues: Vec<Due> = (0_u8..).zip(amounts).map(|(number, (amount, spared, announced))| {
                Due { spared, ..due(number, amount, announced) }
            }).collect();
            let is_short = |change: &Option<Change>, due: &Due| match change {
                Some(Change::Announce | Change::Remove) => true,
                Some(Change::Recover) => false,
                None => due.announced.is_some(),
            };
            let (poor, rich) = (changes(funds, &dues, now_ms), changes(funds + more, &dues, now_ms));
            for ((poor, rich), due) in poor.iter().zip(&rich).zip(&dues) {
                prop_assert!(is_short(poor, due) || !is_short(rich, due));
                prop_assert!(!(due.spared && is_short(poor, due)));
            }
        }
    }
}
