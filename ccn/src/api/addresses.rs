//! What an address has: balance and files (ccn spec 5.6).

use super::{
    ApiError, ApiResult, State,
    download::kind_name,
    moment, now_ms,
    paging::{CURSOR, PAGE, SORT_ORDER},
    parameters::{Flag, Hash, Number, Parameter, Parameters, Text},
    reference::{Group, Operation, Shape},
    routes::Routes,
};
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
use std::cmp::Ordering;

/// Most entries of a page of files.
const MAX_FILES: u64 = 1000;
/// Most messages that keep a file and are looked at for those of an address.
const MAX_KEEPERS: usize = 100_000;
/// Rows that are read at a time.
const ROWS: usize = 256;
static PAGINATION: Parameter<Number> = Parameter::number(
    &["pagination"],
    "Entries of a page, no more than 1000; 0 for as many as there can be.",
    100,
    0..=u64::MAX,
);
static FILE: Parameter<Hash> = Parameter::hash(&["file_hash"], "The entries of this file alone.");
static CHAIN: Parameter<Text> = Parameter::text(&["chain"], "The tokens on this chain alone.");
static WITH_LOTS: Parameter<Flag> =
    Parameter::flag(&["include_credit_details"], "Whether to tell when which credits expire.");

pub(super) fn routes(routes: Routes) -> Routes {
    let lot = Shape::object([("expiration_date", Shape::moment().or_null()), ("amount", Shape::whole())]);
    let funds = Shape::object([
        ("address", Shape::text()),
        ("balance", Shape::number().about("Tokens.")),
        ("details", Shape::map(Shape::number()).about("Tokens by chain; nothing where one chain was asked for.")),
        ("locked_amount", Shape::number().about("Tokens that messages paid by holding ask for.")),
        ("credit_balance", Shape::whole()),
        ("credit_balance_details", Shape::list(lot).or_null()),
    ]);
    let created = Shape::any_of([Shape::moment(), Shape::number()]);
    let file = Shape::object([
        ("file_hash", Shape::hash()),
        ("size", Shape::whole().about("Bytes.")),
        ("type", Shape::words(&["file", "directory"])),
        ("created", created.about("A moment; seconds since 1970 on pages with a cursor.")),
        ("item_hash", Shape::hash().about("The message that keeps it.")),
    ]);
    let list = Shape::object([
        ("address", Shape::text()),
        ("total_size", Shape::whole().about("Bytes of all of them.")),
        ("files", Shape::list(file)),
        ("pagination_per_page", Shape::whole()),
        ("pagination_page", Shape::whole().optional()),
        ("pagination_total", Shape::whole().optional()),
        ("next_cursor", Shape::text().or_null().optional()),
    ]);
    let of_balance = Operation::new(Group::Accounts, "The tokens and credits of an address")
        .address()
        .query([&CHAIN, &WITH_LOTS])
        .answers("Its balance; nothing for an address that nobody knows.", &funds);
    let of_files = Operation::new(Group::Accounts, "The files that an address keeps")
        .address()
        .query([&FILE, &SORT_ORDER, &PAGINATION, &PAGE, &CURSOR])
        .answers("One entry for each message that keeps one.", &list)
        .refuses(404, "It keeps none.");
    routes.get("/api/v0/addresses/{address}/balance", balance, of_balance).get(
        "/api/v0/addresses/{address}/files",
        files,
        of_files,
    )
}

/// Numbers, never texts; nothing for an address that nobody knows.
async fn balance(state: State, Path(address): Path<String>, parameters: Parameters) -> ApiResult<Response> {
    let chain = CHAIN.read(&parameters)?.map(str::to_owned);
    let with_lots = WITH_LOTS.read(&parameters)?;
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
async fn files(state: State, Path(address): Path<String>, parameters: Parameters) -> ApiResult<Response> {
    let page = PAGE.read(&parameters)?;
    let length = match PAGINATION.read(&parameters)? {
        0 => MAX_FILES,
        length => length.min(MAX_FILES),
    };
    let descending = SORT_ORDER.read(&parameters)? == "-1";
    let only = FILE.read(&parameters)?;
    let after = CURSOR.read(&parameters)?.map(moment::read_cursor).transpose()?;
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
                let is_after = |owned: &OwnedFile| {
                    let place = after.as_ref().map(|(time, hash)| (*time, hash));
                    place.is_none_or(|place| order(place, (owned.created, &owned.item_hash), descending).is_lt())
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
    found.sort_by(|one, other| order((one.created, &one.item_hash), (other.created, &other.item_hash), descending));
    Ok(found)
}

/// The order of files: by when they were kept, then by the message that keeps them.
fn order(one: (f64, &ItemHash), other: (f64, &ItemHash), descending: bool) -> Ordering {
    let order = one.0.total_cmp(&other.0).then_with(|| one.1.cmp(other.1));
    if descending { order.reverse() } else { order }
}
