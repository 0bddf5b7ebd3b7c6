//! What an address has: balance and files (ccn spec 5.6).

use super::{ApiError, ApiResult, State, download::kind_name, moment, now_ms, parameters::Parameters};
use crate::{
    ledger,
    store::{
        Reader as _, Snapshot,
        record::{PinRecord, Record as _},
        schema::{Key, Table, hash_key, split_hash},
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
/// Most files of an address that are put in order.
const MAX_OWNED: usize = 100_000;

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

/// A file of an address.
struct Owned {
    file: ItemHash,
    item_hash: ItemHash,
    created: f64,
    size: u64,
    kind: &'static str,
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
        let mut owned = owned(snapshot, &address)?;
        owned.retain(|entry| only.as_ref().is_none_or(|only| *only == entry.file));
        if owned.is_empty() {
            return Err(ApiError::new(StatusCode::NOT_FOUND, format!("no files of {address}")));
        }
        let compare = |a: &(f64, &ItemHash), b: &(f64, &ItemHash)| {
            let ordering = a.0.total_cmp(&b.0).then_with(|| a.1.cmp(b.1));
            if descending { ordering.reverse() } else { ordering }
        };
        owned.sort_by(|a, b| compare(&(a.created, &a.item_hash), &(b.created, &b.item_hash)));
        let (count, total_size) = (owned.len(), owned.iter().map(|entry| entry.size).sum::<u64>());
        let mut answer = json!({"address": address, "total_size": total_size});
        let skip = match &after {
            None => usize::try_from((page - 1).saturating_mul(length)).unwrap_or(usize::MAX),
            Some(None) => 0,
            Some(Some((time, hash))) => owned
                .iter()
                .take_while(|entry| compare(&(entry.created, &entry.item_hash), &(*time, hash)).is_le())
                .count(),
        };
        let by_cursor = after.is_some();
        let shown: Vec<&Owned> = owned.iter().skip(skip).take(length as usize).collect();
        let file = |entry: &&Owned| {
            // Clients of cursors want a number, those of pages a text with its fraction.
            let created = if by_cursor { json!(entry.created) } else { json!(moment::iso_seconds(entry.created)) };
            json!({
                "file_hash": entry.file.to_string(),
                "size": entry.size,
                "type": entry.kind,
                "created": created,
                "item_hash": entry.item_hash.to_string(),
            })
        };
        answer["files"] = shown.iter().map(file).collect();
        if by_cursor {
            let more = skip.saturating_add(shown.len()) < count;
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

fn owned(snapshot: &Snapshot, address: &str) -> ApiResult<Vec<Owned>> {
    let prefix = Key::new().text(address).done();
    let end = crate::store::schema::end_of(&prefix);
    let mut owned = Vec::new();
    for (key, _) in snapshot.range(Table::Owned, &prefix, &end, MAX_OWNED, false)? {
        let Some((file, _)) = split_hash(&key[prefix.len()..]) else { continue };
        let Some(record) = snapshot.file(&file)? else { continue };
        let pins = hash_key(&file);
        for (key, row) in snapshot.prefixed(Table::Pins, &pins)? {
            let pin = PinRecord::read(&row).map_err(crate::store::StoreError::from)?;
            let Some((item_hash, _)) = split_hash(&key[pins.len()..]).filter(|_| pin.owner == address) else {
                continue;
            };
            owned.push(Owned {
                file: file.clone(),
                item_hash,
                created: pin.created,
                size: record.size,
                kind: kind_name(record.kind),
            });
        }
    }
    Ok(owned)
}
