//! What an address has: balance and files (ccn spec 5.6).

use super::{ApiError, ApiResult, State, download::kind_name, moment, now_ms, parameters::Parameters};
use crate::{
    ledger,
    store::{
        Reader as _, Snapshot, StoreError, Walk,
        owned::{self, OwnedFile},
        record::{PinRecord, Record as _},
        schema::{Table, end_of, hash_key, split_hash},
    },
};
use axum::http::StatusCode;
use axum::{
    Json,
    extract::Path,
    response::{IntoResponse, Response},
};
use ccn_message::ItemHash;
use serde_json::{Map, Value, json};

/// Entries of a page of files unless the client says otherwise, and the most.
const DEFAULT_FILES: u64 = 100;
const MAX_FILES: u64 = 1000;
/// Most messages that keep a file and are looked at for those of an address.
const MAX_KEEPERS: usize = 100_000;
/// Rows that are read at a time.
const ROWS: usize = 256;

/// Numbers, never texts; nothing for an address that nobody knows.
pub(super) async fn balance(state: State, Path(address): Path<String>, parameters: Parameters) -> ApiResult<Response> {
    let chain = parameters.get(&["chain"]).map(str::to_owned);
    let with_lots = parameters.flag(&["include_credit_details"]);
    let work = move |snapshot: &Snapshot| {
        let balance = ledger::balance(snapshot, &address, now_ms())?;
        let (total, details) = match &chain {
            None => {
                let details = balance.chains.iter().map(|(chain, amount)| (chain.clone(), json!(amount.to_f64())));
                (balance.total, details.collect::<Map<String, Value>>())
            }
            Some(chain) => {
                let of_chain = balance.chains.iter().filter(|(name, _)| name == chain);
                (of_chain.map(|(_, amount)| *amount).sum(), Map::new())
            }
        };
        let lot = |lot: &ledger::Lot| json!({"expiration_date": lot.expiration.map(moment::iso), "amount": lot.amount});
        let lots: Vec<Value> = balance.lots.iter().map(lot).collect();
        Ok(Json(json!({
            "address": address,
            "balance": total.to_f64(),
            "details": details,
            "locked_amount": balance.locked.to_f64(),
            "credit_balance": u64::try_from(balance.credits).unwrap_or(u64::MAX),
            "credit_balance_details": with_lots.then_some(lots),
        }))
        .into_response())
    };
    state.read(work).await
}

/// Files that an address keeps, one entry for each message that keeps one.
pub(super) async fn files(state: State, Path(address): Path<String>, parameters: Parameters) -> ApiResult<Response> {
    let page = parameters.number(&["page"], 1)?.max(1);
    let length = match parameters.number(&["pagination"], DEFAULT_FILES)? {
        0 => MAX_FILES,
        length => length.min(MAX_FILES),
    };
    let descending = parameters.word(&["sort_order"], &["-1", "1"])? == "-1";
    let only = parameters.get(&["file_hash"]).map(ItemHash::parse).transpose()?;
    let after = parameters.get(&["cursor"]).map(moment::read_cursor).transpose()?;
    let work = move |snapshot: &Snapshot| {
        let by_cursor = after.is_some();
        let after = after.flatten();
        let skip = if by_cursor { 0 } else { (page - 1).saturating_mul(length) };
        let (count, total_size, mut shown) = match &only {
            None => {
                let (count, bytes) = owned::totals(snapshot, &address)?;
                let files = owned::files(snapshot, &address, descending, after.as_ref());
                (count, bytes, window(files, skip, length)?)
            }
            Some(file) => {
                let all = keepers(snapshot, &address, file, descending)?;
                let (count, bytes) = (all.len() as u64, all.iter().map(|owned| owned.size).sum());
                let is_after = |owned: &OwnedFile| match &after {
                    Some((time, hash)) => {
                        let order = owned.created.total_cmp(time).then_with(|| owned.item_hash.cmp(hash));
                        if descending { order.is_lt() } else { order.is_gt() }
                    }
                    None => true,
                };
                (count, bytes, window(all.into_iter().filter(is_after).map(Ok), skip, length)?)
            }
        };
        if count == 0 {
            return Err(ApiError::new(StatusCode::NOT_FOUND, format!("no files of {address}")));
        }
        let more = shown.len() as u64 > length;
        shown.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        let mut answer = json!({"address": address, "total_size": total_size});
        let file = |entry: &OwnedFile| {
            // Clients of cursors want a number, those of pages a text with its fraction.
            let created = if by_cursor { json!(entry.created) } else { json!(moment::iso_seconds(entry.created)) };
            json!({
                "file_hash": entry.file.to_string(),
                "size": entry.size,
                "type": kind_name(entry.kind),
                "created": created,
                "item_hash": entry.item_hash.to_string(),
            })
        };
        answer["files"] = shown.iter().map(file).collect();
        if by_cursor {
            let last = shown.last().filter(|_| more);
            answer["pagination_per_page"] = length.into();
            answer["next_cursor"] = last.map(|entry| moment::write_cursor(entry.created, &entry.item_hash)).into();
        } else {
            answer["pagination_page"] = page.into();
            answer["pagination_total"] = count.into();
            answer["pagination_per_page"] = length.into();
        }
        Ok(Json(answer).into_response())
    };
    state.read(work).await
}

/// The entries of a page, and one more if there is one.
fn window(
    files: impl Iterator<Item = Result<OwnedFile, StoreError>>,
    skip: u64,
    length: u64,
) -> Result<Vec<OwnedFile>, StoreError> {
    let [skip, length] = [skip, length].map(|number| usize::try_from(number).unwrap_or(usize::MAX));
    files.skip(skip).take(length.saturating_add(1)).collect()
}

/// A file of an address, as often as there are messages that keep it, in order.
fn keepers(
    snapshot: &Snapshot,
    address: &str,
    file: &ItemHash,
    descending: bool,
) -> Result<Vec<OwnedFile>, StoreError> {
    let Some(record) = snapshot.file(file)? else { return Ok(Vec::new()) };
    let pins = hash_key(file);
    let mut found = Vec::new();
    for row in Walk::new(snapshot, Table::Pins, (pins.clone(), end_of(&pins)), false, ROWS).take(MAX_KEEPERS) {
        let (key, row) = row?;
        let pin = PinRecord::read(&row)?;
        let Some((item_hash, _)) = split_hash(&key[pins.len()..]).filter(|_| pin.owner == address) else { continue };
        found.push(OwnedFile {
            file: file.clone(),
            item_hash,
            created: pin.created,
            size: record.size,
            kind: record.kind,
        });
    }
    found.sort_by(|one, other| {
        let order = one.created.total_cmp(&other.created).then_with(|| one.item_hash.cmp(&other.item_hash));
        if descending { order.reverse() } else { order }
    });
    Ok(found)
}
