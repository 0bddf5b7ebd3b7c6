//! What nobody can pay for any more: announced, after some time removed, and taken back when the funds are there again meanwhile (ccn spec 6.5).
//!
//! Who is to go is worked out from a snapshot as of a moment, by anybody; the one who decides then does it for those of whom it is still true. It is this
//! node's own doing, because funds and confirmations are, and no other message's verdict follows from it: a removed message keeps its rows in `messages`,
//! `bases` and the state of its plugin, so that what refers to it is decided everywhere alike. What it loses is its place in lists and counts, its files,
//! its costs and what was run for it.

use super::{
    desk::Desk,
    funds::{Funds, needed},
    withdraw,
};
use crate::{
    ledger,
    store::{
        Reader, Snapshot, StoreError, Walk, confirmation,
        record::{BasisRecord, CostRecord, MessageRecord, PaymentRecord, Record as _, RemovedRecord, RemovingRecord},
        schema::{Key, Table, end_of, hash_key, split_hash},
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

/// What came of looking at some of those who pay.
#[derive(Debug)]
pub(super) struct Stretch {
    pub(super) removals: Vec<Removal>,
    /// Where to go on; none when that was all.
    pub(super) next: Option<Vec<u8>>,
}

/// Looks at those who pay in ways that can run out, from that place on, as of a moment, milliseconds since 1970: so many that others have their turn.
///
/// # Errors
/// The store fails.
pub(super) fn step(snapshot: &Snapshot, from: &[u8], from_height: u64, now_ms: u64) -> Result<Stretch, StoreError> {
    let rows = snapshot.range(Table::Totals, from, &end_of(&[]), PAGE, false)?;
    let mut removals = Vec::new();
    for (payment, address) in rows.iter().filter_map(|(key, _)| ledger::payer_of(key)) {
        if payment != PaymentRecord::Superfluid {
            removals.extend(review(snapshot, payment, address, from_height, now_ms)?);
        }
    }
    let last = rows.last().filter(|_| rows.len() == PAGE);
    Ok(Stretch { removals, next: last.map(|(key, _)| [key.as_slice(), &[0]].concat()) })
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
    let announced = Key::new().text(address).done();
    let is_announced = !snapshot.range(Table::Removing, &announced, &end_of(&announced), 1, false)?.is_empty();
    let funds = Funds::of(snapshot, address, payment, now_ms)?;
    if !is_announced && funds.lack(Amount::ZERO).is_none() {
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
        let removing = standing::removing(snapshot, &message.owner, &hash)?;
        let has_run = removing.as_ref().is_some_and(|record| record.workload.is_some());
        let runs = has_run || snapshot.get(Table::Workloads, &hash_key(&hash))?.is_some();
        let spared = is_early || !runs && is_small(snapshot, payment, &message)?;
        let announced = removing.map(|record| record.until_ms);
        dues.push((Position::of(&hash, &message), Due { hash, amount, spared, announced }));
    }
    dues.sort_by(|(one, _), (other, _)| one.cmp(other));
    let dues: Vec<Due> = dues.into_iter().map(|(_, due)| due).collect();
    Ok(plan(funds.available, &dues, now_ms))
}

/// True for what keeps little, as long as that is free.
fn is_small(reader: &dyn Reader, payment: PaymentRecord, message: &MessageRecord) -> Result<bool, StoreError> {
    let is_free = payment != PaymentRecord::Credit || message.content_time < SPARED_BY_CREDITS_UNTIL;
    Ok(is_free && kept_bytes(reader, &basis_of(reader, message)?)? <= SPARED_BYTES)
}

/// What a message rests on and did.
fn basis_of(reader: &dyn Reader, message: &MessageRecord) -> Result<BasisRecord, StoreError> {
    let row = reader.get(Table::Bases, &withdraw::key_of(message)?)?;
    Ok(row.map(|row| BasisRecord::read(&row)).transpose()?.unwrap_or_default())
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
    let removing = standing::removing(desk.read(), &message.owner, hash)?;
    let key = standing::removing_key(&message.owner, hash);
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
            if Funds::of(desk.read(), &cost.address, cost.payment, now_ms)?.lack(Amount::ZERO).is_none() {
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
    let basis = basis_of(desk.read(), message)?;
    let kept = kept_bytes(desk.read(), &basis)?;
    let size = if kept > 0 { kept } else { message.size };
    withdraw::release(desk, hash, &basis, now_ms)?;
    desk.unlist(hash, message)?;
    let mut skeleton = message.clone();
    skeleton.drop_content();
    let record = RemovedRecord { message: skeleton, payment: cost.payment, removed_at: now_ms, size };
    desk.edit().put(Table::Removed, hash_key(hash), record.to_bytes());
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
