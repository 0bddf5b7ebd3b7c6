//! Credits: the history of an address, sums over it, who has any, and what was used up for a message (ccn spec 5.6).

use super::{
    ApiError, ApiResult, State,
    balances::least_balance,
    moment, now_ms,
    paging::{self, Paging, SORT_ORDER, wrong_cursor},
    parameters::{Date, Flag, List, Number, Parameter, Parameters, QueryParameter, Text, Word},
    reference::{Group, Operation, Shape},
    routes::Routes,
};
use crate::{
    ledger::{self, Entry},
    store::{
        Reader as _, Snapshot, StoreError, Walk,
        record::{CreditRecord, HistoryRecord, LotRecord, Record as _},
        schema::{Key, Table, Tally, end_of, split_text, tally_key},
        standing::{self, Position},
    },
};
use axum::{
    Json,
    extract::Path,
    response::{IntoResponse, Response},
};
use ccn_message::ItemHash;
use serde_json::{Value, json};

/// Messages that are read at a time.
const ROWS: usize = 64;
/// Most messages that are read for one answer.
const MAX_MESSAGES: usize = 100_000;
/// Most entries that are put in another order than that of time.
const MAX_SORTED: usize = 100_000;
/// Entries of a page of those who have credits, and of a history: everything.
static BALANCES: Parameter<Number> = paging::pagination(100);
static ENTRIES: Parameter<Number> = paging::pagination(0);
static LEAST: Parameter<Number> = least_balance();
/// What a history can be sorted by; the first is the default, and the order in which it is kept.
const SORTS: [&str; 7] =
    ["message_timestamp", "expiration_date", "payment_method", "amount", "origin", "tx_hash", "provider"];
static SORT_BY: Parameter<Word> =
    Parameter::word(&["sort_by", "sortBy"], "By what; with a cursor, by time alone.", &SORTS);
/// Fields whose value can be asked for.
static FIELDS: [Parameter<Text>; 7] = [
    Parameter::text(&["tx_hash", "txHash"], "Of this transaction."),
    Parameter::text(&["token"], "Paid with this token."),
    Parameter::text(&["chain"], "Paid on this chain."),
    Parameter::text(&["provider"], "By this provider."),
    Parameter::text(&["origin"], "For this."),
    Parameter::text(&["origin_ref", "originRef"], "For what refers to this."),
    Parameter::text(&["payment_method", "paymentMethod"], "Paid like that."),
];
static WITHOUT_METHODS: Parameter<List> =
    Parameter::list(&["exclude_payment_method", "excludePaymentMethod"], "Not paid like that.");
static HAS_EXPIRATION: Parameter<Flag> =
    Parameter::flag(&["has_expiration", "hasExpiration"], "Whether they expire; when nothing is said, both.");
static START: Parameter<Date> = Parameter::date(&["startDate", "start_date"], "From then on, seconds since 1970.");
static END: Parameter<Date> = Parameter::date(&["endDate", "end_date"], "Before then, seconds since 1970.");
static DIRECTION: Parameter<Word> = Parameter::word(
    &["direction"],
    "What came, or what went; both when nothing is said.",
    &["", "incoming", "outgoing"],
);
static RESOURCE: Parameter<Text> = Parameter::text(&["resource"], "For this resource.");
static RESOURCE_TYPES: Parameter<List> =
    Parameter::list(&["resourceTypes", "resource_types"], "For resources of these message types.");

/// Which entries are wanted. What is empty or none does not restrict.
#[derive(Debug, Clone, Default)]
struct Wanted {
    /// Fields by name, and the value that they must have.
    fields: Vec<(&'static str, String)>,
    without_methods: Vec<String>,
    has_expiration: Option<bool>,
    /// Seconds since 1970: from then on, and before then.
    start: Option<f64>,
    end: Option<f64>,
    /// True for what came, false for what went.
    incoming: Option<bool>,
    /// What it was for, and of which message type that is.
    resource: Option<String>,
    resource_kinds: Vec<String>,
}

/// The order of entries.
#[derive(Debug, Clone, Copy)]
struct Sorting {
    by: &'static str,
    descending: bool,
}

/// An entry of an address, with the position of its message.
struct Row<'a> {
    at: &'a Position,
    entry: &'a Entry<'a>,
}

/// The value that an entry is sorted by: what has none comes after all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum SortValue {
    Number(i128),
    Text(String),
    Missing,
}

/// The place of an entry in the order, and how it shows.
type Placed = ((SortValue, Vec<u8>, usize), Value);

pub(super) fn routes(routes: Routes) -> Routes {
    let text = || Shape::text().or_null();
    let entry = Shape::object([
        ("amount", Shape::integer().about("Credits; negative for what went.")),
        ("price", Shape::anything()),
        ("bonus_amount", Shape::anything()),
        ("tx_hash", text()),
        ("token", text()),
        ("chain", text()),
        ("provider", text()),
        ("origin", text()),
        ("origin_ref", text()),
        ("payment_method", text()),
        ("credit_ref", Shape::hash().or_null().about("The message that says so.")),
        ("credit_index", Shape::whole().about("Its place there.")),
        ("expiration_date", Shape::moment().or_null()),
        ("message_timestamp", Shape::moment()),
        ("expense_count", Shape::anything()),
        ("expense_size_mib", Shape::number().or_null()),
    ]);
    let history_page = Shape::object([("address", Shape::text()), ("credit_history", Shape::list(entry))]);
    let sums = Shape::object([
        ("address", Shape::text()),
        ("entry_count", Shape::whole()),
        ("total_amount", Shape::integer()),
        ("total_incoming", Shape::whole()),
        ("total_outgoing", Shape::whole()),
    ]);
    let balance = Shape::object([("address", Shape::text()), ("credits", Shape::whole())]);
    let balances_page = Shape::object([("credit_balances", Shape::list(balance))]);
    let used = Shape::object([("item_hash", Shape::hash()), ("consumed_credits", Shape::whole())]);
    let of_entries = |summary| {
        let operation = Operation::new(Group::Accounts, summary).address();
        operation.query(FIELDS.each_ref().map(|field| field as &dyn QueryParameter)).query([
            &WITHOUT_METHODS,
            &HAS_EXPIRATION,
            &START,
            &END,
            &DIRECTION,
            &RESOURCE,
            &RESOURCE_TYPES,
        ])
    };
    let of_history = of_entries("How the credits of an address moved")
        .query([&SORT_BY, &SORT_ORDER, &ENTRIES, &paging::PAGE, &paging::CURSOR])
        .answers("A page of what came and went.", &paging::pages(history_page))
        .refuses(404, "None have moved.");
    let of_summary = of_entries("Sums over how the credits of an address moved").answers("Sums.", &sums);
    let of_balances = Operation::new(Group::Accounts, "Who has credits, by address")
        .query([&LEAST, &BALANCES, &paging::PAGE, &paging::CURSOR])
        .answers("A page of balances.", &paging::pages(balances_page));
    let of_message = Operation::new(Group::Messages, "Credits that were used up for a message")
        .hash("The message.")
        .answers("Their number; 0 for one that is not known.", &used);
    routes
        .get("/api/v0/addresses/{address}/credit_history", history, of_history)
        .get("/api/v0/addresses/{address}/credit_history/summary", summary, of_summary)
        .get("/api/v0/credit_balances", balances, of_balances)
        .get("/api/v0/messages/{hash}/consumed_credits", consumed, of_message)
}

impl Wanted {
    fn read(parameters: &Parameters) -> ApiResult<Self> {
        let mut fields = Vec::new();
        for field in &FIELDS {
            fields.extend(field.read(parameters)?.map(|value| (field.name(), value.to_owned())));
        }
        let (start, end) = (START.read(parameters)?, END.read(parameters)?);
        if let (Some(start), Some(end)) = (start, end)
            && end < start
        {
            return Err(ApiError::field("endDate", "must not be before startDate"));
        }
        let incoming = match DIRECTION.read(parameters)? {
            "" => None,
            word => Some(word == "incoming"),
        };
        let kinds = RESOURCE_TYPES.read(parameters)?;
        Ok(Self {
            fields,
            without_methods: WITHOUT_METHODS.read(parameters)?,
            has_expiration: HAS_EXPIRATION.read_if_given(parameters)?,
            start,
            end,
            incoming,
            resource: RESOURCE.read(parameters)?.map(str::to_owned),
            resource_kinds: kinds.iter().map(|kind| kind.to_ascii_uppercase()).collect(),
        })
    }

    fn is_everything(&self) -> bool {
        self.fields.is_empty()
            && self.without_methods.is_empty()
            && self.has_expiration.is_none()
            && self.start.is_none()
            && self.end.is_none()
            && self.incoming.is_none()
            && self.resource.is_none()
            && self.resource_kinds.is_empty()
    }

    fn admits(&self, snapshot: &Snapshot, row: &Row<'_>) -> ApiResult<bool> {
        let details = &row.entry.details;
        let has = |(name, value): &(&str, String)| text_of(row, name).as_ref() == Some(value);
        let is_for =
            |resource: &String| [&details.origin, &details.origin_ref].iter().any(|it| it.as_ref() == Some(resource));
        let plain = self.fields.iter().all(has)
            && details.payment_method.as_ref().is_none_or(|method| !self.without_methods.contains(method))
            && self.has_expiration.is_none_or(|has| has == row.entry.expiration.is_some())
            && self.incoming.is_none_or(|incoming| if incoming { row.entry.amount > 0 } else { row.entry.amount < 0 })
            && self.resource.as_ref().is_none_or(is_for);
        if !plain || self.resource_kinds.is_empty() {
            return Ok(plain);
        }
        let Some(origin) = details.origin.as_deref().and_then(|text| ItemHash::parse(text).ok()) else {
            return Ok(false);
        };
        let record = match snapshot.message(&origin)? {
            Some(record) => Some(record),
            None => standing::forgotten(snapshot, &origin)?.map(|record| record.message),
        };
        Ok(record.is_some_and(|record| self.resource_kinds.contains(&record.envelope.kind)))
    }
}

/// A field of an entry that can be filtered and sorted by.
fn text_of(row: &Row<'_>, field: &str) -> Option<String> {
    let details = &row.entry.details;
    match field {
        "tx_hash" => details.tx_hash.clone(),
        "token" => details.token.clone(),
        "chain" => details.chain.clone(),
        "provider" => details.provider.clone(),
        "origin" => details.origin.clone(),
        "origin_ref" => details.origin_ref.clone(),
        "payment_method" => details.payment_method.clone(),
        _ => None,
    }
}

impl Sorting {
    fn read(parameters: &Parameters) -> ApiResult<Self> {
        let by = SORT_BY.read(parameters)?;
        let descending = SORT_ORDER.read(parameters)? == "-1";
        Ok(Self { by, descending })
    }

    fn is_by_time(self) -> bool {
        self.by == SORTS[0]
    }

    fn value(self, row: &Row<'_>) -> SortValue {
        match self.by {
            "message_timestamp" => SortValue::Text(String::new()),
            "amount" => SortValue::Number(row.entry.amount),
            "expiration_date" => row.entry.expiration.map_or(SortValue::Missing, |at| SortValue::Number(at.into())),
            field => text_of(row, field).map_or(SortValue::Missing, SortValue::Text),
        }
    }
}

fn shown(row: &Row<'_>) -> Value {
    let Entry { index, amount, expiration, details, .. } = row.entry;
    let number = |text: &str| text.parse::<f64>().ok();
    json!({
        "amount": i64::try_from(*amount).unwrap_or(if *amount < 0 { i64::MIN } else { i64::MAX }),
        "price": details.price.as_ref().map(|price| &price.0),
        "bonus_amount": details.bonus_amount,
        "tx_hash": details.tx_hash,
        "token": details.token,
        "chain": details.chain,
        "provider": details.provider,
        "origin": details.origin,
        "origin_ref": details.origin_ref,
        "payment_method": details.payment_method,
        "credit_ref": row.at.hash().map(|hash| hash.to_string()),
        "credit_index": index,
        "expiration_date": expiration.map(moment::iso),
        "message_timestamp": moment::iso_seconds(row.at.time()),
        "expense_count": details.expense_count,
        "expense_size_mib": details.expense_size_mib.as_ref().and_then(|size| number(&size.0)),
    })
}

/// Visits the entries of an address in the order of time, until told to stop.
fn visit(
    snapshot: &Snapshot,
    address: &str,
    wanted: &Wanted,
    descending: bool,
    from: Option<&Position>,
    mut each: impl FnMut(&Row<'_>) -> bool,
) -> ApiResult<()> {
    let prefix = Key::new().text(address).done();
    let at = |seconds: f64| Key::new().text(address).time(seconds).done();
    let mut start = wanted.start.map_or_else(|| prefix.clone(), at);
    let mut end = wanted.end.map_or_else(|| end_of(&prefix), at);
    if let Some(from) = from {
        // The message of the last entry may have more of them.
        let place = [prefix.as_slice(), from.bytes()].concat();
        if descending {
            end = end.min([place.as_slice(), &[0]].concat());
        } else {
            start = start.max(place);
        }
    }
    for (read, row) in Walk::new(snapshot, Table::Movers, (start, end), descending, ROWS).enumerate() {
        let (key, _) = row?;
        if read >= MAX_MESSAGES {
            let sentence = "this takes more than one answer may: narrow the dates, or ask with `cursor=`";
            return Err(ApiError::field("startDate", sentence));
        }
        let place = &key[prefix.len()..];
        let Some(row) = snapshot.get(Table::Credits, place)? else { continue };
        let record = CreditRecord::read(&row).map_err(StoreError::from)?;
        let at = Position::from_bytes(place);
        let mut entries = ledger::entries_of(&record, address);
        if descending {
            entries.reverse();
        }
        for entry in &entries {
            let row = Row { at: &at, entry };
            if wanted.admits(snapshot, &row)? && !each(&row) {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn sums(snapshot: &Snapshot, address: &str, wanted: &Wanted) -> ApiResult<HistoryRecord> {
    if wanted.is_everything() {
        return Ok(ledger::summary(snapshot, address)?);
    }
    let mut sums = HistoryRecord::default();
    visit(snapshot, address, wanted, true, None, |row| {
        sums.entries += 1;
        let side = if row.entry.amount < 0 { &mut sums.outgoing } else { &mut sums.incoming };
        *side += row.entry.amount.unsigned_abs();
        true
    })?;
    Ok(sums)
}

/// The entry after which a page begins: the place of its message, and its number there.
fn entry_after(paging: &Paging, sorting: Sorting) -> ApiResult<Option<(Position, usize)>> {
    let Some(reference) = paging.after("r")? else { return Ok(None) };
    let (order, by) = (paging.after("o")?, paging.after("s")?);
    if order != Some(if sorting.descending { "-1" } else { "1" }) || by != Some(sorting.by) {
        return Err(ApiError::field("cursor", "it belongs to another order: keep sort_by and sort_order as they were"));
    }
    let number = paging.after("i")?.and_then(|text| text.parse().ok()).ok_or_else(wrong_cursor)?;
    let time = paging.after("v")?.and_then(|text| text.parse::<f64>().ok().or_else(|| moment::read_iso(text)));
    let hash = ItemHash::parse(reference).map_err(|_| wrong_cursor())?;
    Ok(Some((Position::new(time.ok_or_else(wrong_cursor)?, &hash), number)))
}

async fn history(state: State, Path(address): Path<String>, parameters: Parameters) -> ApiResult<Response> {
    let (wanted, sorting) = (Wanted::read(&parameters)?, Sorting::read(&parameters)?);
    let paging = Paging::read(&parameters, &ENTRIES)?;
    let after = entry_after(&paging, sorting)?;
    if matches!(paging, Paging::After { .. }) && !sorting.is_by_time() {
        return Err(ApiError::field("sort_by", format!("with a cursor, only `{}` is possible", SORTS[0])));
    }
    let work = move |snapshot: &Snapshot| {
        let by_cursor = matches!(paging, Paging::After { .. });
        let total = if by_cursor { 0 } else { sums(snapshot, &address, &wanted)?.entries };
        if if by_cursor { ledger::summary(snapshot, &address)?.entries == 0 } else { total == 0 } {
            return Err(ApiError::not_found(format!("no credits of {address} have moved")));
        }
        let (rows, more) = page(snapshot, &address, &wanted, sorting, &paging, after.as_ref())?;
        let last = rows.last().filter(|_| more).map(|((_, place, index), _)| {
            let at = Position::from_bytes(place);
            json!({
                "i": index.to_string(),
                "o": if sorting.descending { "-1" } else { "1" },
                "r": at.hash().map(|hash| hash.to_string()),
                "s": sorting.by,
                // Exactly the number, so that the next page begins where this one ends.
                "v": format!("{:?}", at.time()),
            })
        });
        let entries: Vec<Value> = rows.into_iter().map(|(_, entry)| entry).collect();
        let answer = json!({"address": address, "credit_history": entries});
        Ok(Json(paging.answer(answer, "credit_history", total, last)?).into_response())
    };
    state.read(work).await
}

/// The entries of a page, and whether more follow.
fn page(
    snapshot: &Snapshot,
    address: &str,
    wanted: &Wanted,
    sorting: Sorting,
    paging: &Paging,
    after: Option<&(Position, usize)>,
) -> ApiResult<(Vec<Placed>, bool)> {
    let (mut skip, limit) = (paging.skip(), usize::try_from(paging.limit()).unwrap_or(usize::MAX));
    let (mut rows, mut more): (Vec<Placed>, bool) = (Vec::new(), false);
    let placed = |row: &Row<'_>| ((sorting.value(row), row.at.bytes().to_vec(), row.entry.index), shown(row));
    if !sorting.is_by_time() {
        visit(snapshot, address, wanted, sorting.descending, None, |row| {
            more = rows.len() >= MAX_SORTED;
            if !more {
                rows.push(placed(row));
            }
            !more
        })?;
        if more {
            let sentence = format!("more than {MAX_SORTED} entries are not put in this order: narrow the dates");
            return Err(ApiError::field("sort_by", sentence));
        }
        rows.sort_by(|(one, _), (other, _)| if sorting.descending { other.cmp(one) } else { one.cmp(other) });
        let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(rows.len());
        let mut rows = rows.split_off(skip);
        more = rows.len() > limit;
        rows.truncate(limit);
        return Ok((rows, more));
    }
    let is_passed = |row: &Row<'_>| {
        after.is_some_and(|(at, index)| {
            row.at == at && if sorting.descending { row.entry.index >= *index } else { row.entry.index <= *index }
        })
    };
    visit(snapshot, address, wanted, sorting.descending, after.map(|(at, _)| at), |row| {
        if is_passed(row) {
            return true;
        }
        if skip > 0 {
            skip -= 1;
            return true;
        }
        more = rows.len() >= limit;
        if !more {
            rows.push(placed(row));
        }
        !more
    })?;
    Ok((rows, more))
}

async fn summary(state: State, Path(address): Path<String>, parameters: Parameters) -> ApiResult<Response> {
    let wanted = Wanted::read(&parameters)?;
    let work = move |snapshot: &Snapshot| {
        let HistoryRecord { entries, incoming, outgoing } = sums(snapshot, &address, &wanted)?;
        let number = |credits: u128| i64::try_from(credits).unwrap_or(i64::MAX);
        Ok(Json(json!({
            "address": address,
            "entry_count": entries,
            "total_amount": number(incoming).saturating_sub(number(outgoing)),
            "total_incoming": number(incoming),
            "total_outgoing": number(outgoing),
        }))
        .into_response())
    };
    state.read(work).await
}

async fn consumed(state: State, Path(hash): Path<String>) -> ApiResult<Response> {
    let hash = ItemHash::parse(&hash)?;
    let work = move |snapshot: &Snapshot| {
        let credits = u64::try_from(ledger::consumed(snapshot, &hash)?).unwrap_or(u64::MAX);
        Ok(Json(json!({"item_hash": hash.to_string(), "consumed_credits": credits})).into_response())
    };
    state.read(work).await
}

/// Who has credits, by address.
async fn balances(state: State, parameters: Parameters) -> ApiResult<Response> {
    let paging = Paging::read(&parameters, &BALANCES)?;
    let least = LEAST.read(&parameters)?;
    let work = move |snapshot: &Snapshot| {
        let (now, limit) = (now_ms(), usize::try_from(paging.limit()).unwrap_or(usize::MAX));
        let (mut skip, mut total, mut found) = (paging.skip(), 0_u64, Vec::new());
        let counted = (least == 0).then(|| snapshot.number(Table::Tallies, &tally_key(Tally::Credited, "")));
        let counted = counted.transpose()?;
        let by_cursor = matches!(paging, Paging::After { .. });
        let mut start = paging.after("a")?.map_or_else(Vec::new, |address| end_of(&Key::new().text(address).done()));
        let mut more = false;
        for _ in 0..MAX_MESSAGES {
            let first = snapshot.range(Table::Lots, &start, &end_of(&[]), 1, false)?;
            let Some(address) = first.first().and_then(|(key, _)| Some(split_text(key)?.0.to_owned())) else { break };
            let prefix = Key::new().text(&address).done();
            start = end_of(&prefix);
            if skip > 0 && counted.is_some() {
                skip -= 1;
                continue;
            }
            if found.len() >= limit && (by_cursor || counted.is_some()) {
                more = true;
                break;
            }
            let credits = credits_of(snapshot, &prefix, now)?;
            if credits < least {
                continue;
            }
            total += 1;
            if skip > 0 {
                skip -= 1;
            } else if found.len() < limit {
                found.push((address, credits));
            }
        }
        let next = found.last().filter(|_| more).map(|(address, _)| json!({"a": address}));
        let entry = |(address, credits): &(String, u64)| json!({"address": address, "credits": credits});
        let answer = json!({"credit_balances": found.iter().map(entry).collect::<Vec<_>>()});
        Ok(Json(paging.answer(answer, "credit_balances", counted.unwrap_or(total), next)?).into_response())
    };
    state.read(work).await
}

/// Credits of an address that have not expired.
fn credits_of(snapshot: &Snapshot, prefix: &[u8], now: u64) -> ApiResult<u64> {
    let mut credits = 0_u64;
    for (_, row) in snapshot.prefixed(Table::Lots, prefix)? {
        let lot = LotRecord::read(&row).map_err(StoreError::from)?;
        if lot.expiration.is_none_or(|expiration| expiration > now) {
            credits = credits.saturating_add(lot.remaining);
        }
    }
    Ok(credits)
}
