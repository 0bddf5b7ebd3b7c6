//! How many messages of each type addresses have sent (ccn spec 5.6).

use super::{
    ApiResult, State,
    paging::{self, Paging, SORT_ORDER, wrong_cursor},
    parameters::{List, Number, Parameter, Parameters, Text, Word},
    reference::{Group, Operation, Shape},
    routes::Routes,
};
use crate::store::{
    Reader as _, Snapshot, Walk,
    schema::{IndexId, Key, Table, Tally, count_key, end_of, index_prefix, split_text, tally_key},
};
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

/// Types with a field of their own, in the order of the fields.
const TYPES: [(&str, &str); 6] = [
    ("AGGREGATE", "aggregate"),
    ("FORGET", "forget"),
    ("INSTANCE", "instance"),
    ("POST", "post"),
    ("PROGRAM", "program"),
    ("STORE", "store"),
];
/// A younger type: clients of the time before it accept no such field, so it is left out where it is 0.
const YOUNGER: (&str, &str) = ("V-PROGRAM", "v_program");
/// Entries of a page.
static PAGINATION: Parameter<Number> = paging::pagination(20);
static ADDRESSES: Parameter<List> =
    Parameter::list(&["addresses", "addresses[]"], "Of these; of all when none is named.");
static SORT_BY: Parameter<Word> = Parameter::word(
    &["sortBy", "sort_by"],
    "By how many messages of all types, or of one.",
    &["total", "messages", "post", "aggregate", "store", "forget", "program", "instance", "v_program"],
);
static PART: Parameter<Text> =
    Parameter::text(&["addressContains", "address_contains"], "With this in their address.").within(MAX_PART_CHARS);
/// Longest part of an address that is looked for.
const MAX_PART_CHARS: usize = 66;
/// Rows that are read at a time.
const ROWS: usize = 256;
/// Most senders that are looked at for a part of their address.
const MAX_EXAMINED: u64 = 1_000_000;
/// Bytes of a number in a key.
const NUMBER_BYTES: usize = 8;

pub(super) fn routes(routes: Routes) -> Routes {
    let mut counts = Shape::object([("messages", Shape::whole())]);
    for (_, field) in TYPES {
        counts = counts.and([(field, Shape::whole())]);
    }
    let counts = counts.and([(YOUNGER.1, Shape::whole().optional())]);
    let data = Shape::object([("data", Shape::map(counts).about("By address."))]);
    let of_named = Operation::new(Group::Accounts, "How many messages of each type addresses have sent")
        .query([&ADDRESSES])
        .answers("Their numbers.", &data);
    let of_sorted = Operation::new(Group::Accounts, "Who has sent most messages")
        .query([&SORT_BY, &SORT_ORDER, &PART, &PAGINATION, &paging::PAGE, &paging::CURSOR])
        .answers("A page of senders, in that order.", &paging::pages(data));
    routes.get("/api/v0/addresses/stats.json", named, of_named).get("/api/v1/addresses/stats.json", sorted, of_sorted)
}

fn counts(snapshot: &Snapshot, sender: &str) -> ApiResult<Value> {
    let mut shown = Map::new();
    shown.insert("messages".to_owned(), snapshot.number(Table::Counts, &index_prefix(IndexId::Sender, sender))?.into());
    for (kind, field) in TYPES.into_iter().chain([YOUNGER]) {
        let number = snapshot.number(Table::Counts, &count_key(IndexId::SenderKind, &[sender, kind]))?;
        if number > 0 || field != YOUNGER.1 {
            shown.insert(field.to_owned(), number.into());
        }
    }
    Ok(Value::Object(shown))
}

/// Of the addresses that are named, or of all: those with most messages first.
async fn named(state: State, parameters: Parameters) -> ApiResult<Response> {
    let addresses = ADDRESSES.read(&parameters)?;
    let work = move |snapshot: &Snapshot| {
        let senders = if addresses.is_empty() {
            let paging = Paging::Number { page: 1, entries: 0 };
            let (senders, total, _) = ranked(snapshot, "", "", true, &paging)?;
            // Refuses what is too much for one answer.
            paging.answer(json!({}), "addresses", total, None)?;
            senders.into_iter().map(|(sender, _)| sender).collect()
        } else {
            addresses.clone()
        };
        let mut data = Map::new();
        for sender in senders {
            let shown = counts(snapshot, &sender)?;
            data.insert(sender, shown);
        }
        Ok(Json(json!({"data": data})).into_response())
    };
    state.read(work).await
}

/// By how many messages they have sent, of one type or of all.
async fn sorted(state: State, parameters: Parameters) -> ApiResult<Response> {
    let sort_by = SORT_BY.read(&parameters)?;
    let kind = TYPES.iter().chain([&YOUNGER]).find(|(_, field)| *field == sort_by).map_or("", |(kind, _)| kind);
    let descending = SORT_ORDER.read(&parameters)? == "-1";
    let part = PART.read(&parameters)?.unwrap_or_default().to_lowercase();
    let paging = Paging::read(&parameters, &PAGINATION)?;
    let work = move |snapshot: &Snapshot| {
        let (senders, total, more) = ranked(snapshot, kind, &part, descending, &paging)?;
        let last = senders.last().filter(|_| more);
        let next = last.map(|(sender, number)| json!({"a": sender, "v": number.to_string()}));
        let mut data = Map::new();
        for (sender, _) in senders {
            let shown = counts(snapshot, &sender)?;
            data.insert(sender, shown);
        }
        Ok(Json(paging.answer(json!({"data": data}), "addresses", total, next)?).into_response())
    };
    state.read(work).await
}

/// The senders of a page with their numbers, how many there are, and whether more follow.
type Ranked = (Vec<(String, u64)>, u64, bool);

/// Senders of messages of a type, or of any, in whose address there is a part.
fn ranked(snapshot: &Snapshot, kind: &str, part: &str, descending: bool, paging: &Paging) -> ApiResult<Ranked> {
    let prefix = Key::new().text(kind).done();
    let (mut start, mut end) = (prefix.clone(), end_of(&prefix));
    if let Some(sender) = paging.after("a")? {
        let number = paging.after("v")?.and_then(|text| text.parse().ok()).ok_or_else(wrong_cursor)?;
        let place = crate::store::schema::rank_key(kind, number, sender);
        if descending { end = place } else { start = [place.as_slice(), &[0]].concat() }
    }
    let by_cursor = matches!(paging, Paging::After { .. });
    let counted =
        if part.is_empty() { Some(snapshot.number(Table::Tallies, &tally_key(Tally::Senders, kind))?) } else { None };
    let limit = usize::try_from(paging.limit()).unwrap_or(usize::MAX);
    let (mut skip, mut total, mut examined) = (paging.skip(), 0, 0);
    let mut found = Vec::new();
    for row in Walk::new(snapshot, Table::Ranks, (start, end), descending, ROWS) {
        let (key, _) = row?;
        examined += 1;
        let Some((number, rest)) = key[prefix.len()..].split_first_chunk::<NUMBER_BYTES>() else { continue };
        let Some((sender, _)) = split_text(rest) else { continue };
        if !part.is_empty() && !sender.to_lowercase().contains(part) {
            continue;
        }
        total += 1;
        if skip > 0 {
            skip -= 1;
        } else if found.len() < limit {
            found.push((sender.to_owned(), u64::from_be_bytes(*number)));
        } else if by_cursor || counted.is_some() || examined > MAX_EXAMINED {
            return Ok((found, counted.unwrap_or(total), true));
        }
    }
    Ok((found, counted.unwrap_or(total), false))
}
