//! Reading aggregates: `/api/v0/aggregates/{address}.json` and the listing `/api/v0/aggregates` (ccn spec 5.4).

use crate::state::{self, Order, Summary};
use plugin_sdk::{
    Request, Response, View,
    answer::{self, Footer, MAX_BODY_BYTES, Page},
    layout::{
        self,
        aggregate::{self, Current},
        bounded,
    },
    scan_all,
};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};
use std::{cmp::Ordering, collections::BTreeMap};

/// Most keys, and most addresses, that a request names.
const MAX_NAMES: usize = 100;
/// Most entries of a page of the listing.
const MAX_PAGE: u64 = 500;
/// Most aggregates passed over before a page: further in, the cursor goes.
const MAX_SKIPPED: u64 = 10_000;

pub(crate) fn answer(request: &Request, view: &dyn View) -> Response {
    let response = match request.route.as_str() {
        "/api/v0/aggregates/{address}.json" => of_owner(request, view),
        "/api/v0/aggregates" | "/api/v0/aggregates.json" => listing(request, view),
        _ => Err(answer::error(404, "no such route")),
    };
    response.unwrap_or_else(|refusal| refusal)
}

/// An aggregate's value: subkeys in the order of their names.
type Content = BTreeMap<String, Box<RawValue>>;

/// Reads a value; counts its bytes against those that an answer may have.
fn content(summary: &Summary, view: &dyn View, left: &mut usize) -> Result<Content, Response> {
    let mut content = Content::new();
    for (_, value) in scan_all(view, None, &aggregate::all_current(&summary.owner, &summary.key)) {
        let Some(current) = Current::read(&value) else { continue };
        let Some(json) = current.value(view) else { continue };
        let Some(rest) = left.checked_sub(current.subkey.len() + json.len()) else {
            let sentence = format!("the answer would exceed {MAX_BODY_BYTES} bytes: name fewer keys or a smaller page");
            return Err(answer::error(413, &sentence));
        };
        *left = rest;
        if let Ok(json) = RawValue::from_string(json) {
            content.insert(current.subkey.to_owned(), json);
        }
    }
    Ok(content)
}

fn names(request: &Request, parameters: &[&str]) -> Result<Vec<String>, Response> {
    let mut names = answer::list_within(request, parameters, MAX_NAMES)?;
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

#[derive(Serialize)]
struct Info {
    created: String,
    last_updated: String,
    original_item_hash: String,
    last_update_item_hash: String,
}

impl From<&Summary> for Info {
    fn from(summary: &Summary) -> Self {
        Self {
            created: answer::iso_time(summary.created.time),
            last_updated: answer::iso_time(summary.updated.time),
            original_item_hash: summary.created.item_hash.clone(),
            last_update_item_hash: summary.updated.item_hash.clone(),
        }
    }
}

#[derive(Serialize)]
struct OfOwner<'a> {
    address: &'a str,
    data: BTreeMap<String, Content>,
    info: BTreeMap<String, Info>,
}

fn of_owner(request: &Request, view: &dyn View) -> Result<Response, Response> {
    let address = answer::path(request, "address");
    let keys = names(request, &["keys"])?;
    let rows: Vec<Vec<u8>> = if keys.is_empty() {
        scan_all(view, None, &state::summaries_of(address)).into_iter().map(|(_, value)| value).collect()
    } else {
        keys.iter().filter_map(|key| view.get(&state::summary(address, key))).collect()
    };
    let with_info = answer::flag(request, &["with_info"]);
    let mut answer = OfOwner { address, data: BTreeMap::new(), info: BTreeMap::new() };
    let mut left = MAX_BODY_BYTES;
    for summary in rows.iter().filter_map(|row| Summary::read(row)) {
        answer.data.insert(summary.key.clone(), content(&summary, view, &mut left)?);
        if with_info {
            answer.info.insert(summary.key.clone(), Info::from(&summary));
        }
    }
    let Some(first) = answer.data.values().next() else {
        return Err(answer::error(404, "No aggregate found for this address"));
    };
    if answer::flag(request, &["value_only"]) && keys.len() == 1 {
        return Ok(answer::json_response(200, first));
    }
    Ok(answer::json_response(200, &answer))
}

#[derive(Serialize)]
struct Entry {
    address: String,
    key: String,
    content: Content,
    created: String,
    last_updated: String,
}

#[derive(Serialize)]
struct Listing {
    aggregates: Vec<Entry>,
    #[serde(flatten)]
    footer: Footer,
}

/// Where an aggregate stands in a listing. Names as they stand in keys, whose order the rows have.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    time: f64,
    owner: String,
    key: String,
}

impl Place {
    fn compare(&self, other: &Self) -> Ordering {
        let place = |place: &Self| (bounded(&place.owner).into_owned(), bounded(&place.key).into_owned());
        self.time.total_cmp(&other.time).then_with(|| place(self).cmp(&place(other)))
    }

    fn read(value: &Value) -> Option<Self> {
        let text = |name: &str| Some(value.get(name)?.as_str()?.to_owned());
        Some(Self { time: answer::read_exact_time(&text("t")?)?, owner: text("o")?, key: text("k")? })
    }

    fn cursor(&self) -> String {
        answer::write_cursor(&json!({"k": self.key, "o": self.owner, "t": answer::exact_time(self.time)}))
    }
}

fn listing(request: &Request, view: &dyn View) -> Result<Response, Response> {
    let (keys, addresses) = (names(request, &["keys"])?, names(request, &["addresses"])?);
    let order = match answer::parameter(request, &["sortBy", "sort_by"]) {
        None | Some("last_modified") => Order::LastModified,
        Some("creation_time") => Order::Created,
        Some(_) => return Err(answer::wrong("sortBy", "last_modified or creation_time was expected")),
    };
    let page = Page::read(request)?;
    if !(1..=MAX_PAGE).contains(&page.length) {
        return Err(answer::wrong("pagination", &format!("1 to {MAX_PAGE} was expected")));
    }
    let by_cursor = answer::parameter(request, &["cursor"]);
    let wrong_cursor = || answer::wrong("cursor", "take the one that the last page gave");
    let after = match by_cursor.map(answer::read_cursor).transpose()?.flatten() {
        Some(cursor) => Some(Place::read(&cursor).ok_or_else(wrong_cursor)?),
        None => None,
    };
    let range = if by_cursor.is_some() { 0..page.length } else { page.range() };
    if range.start > MAX_SKIPPED {
        return Err(answer::wrong("page", &format!("beyond {MAX_SKIPPED} entries, go on with a cursor")));
    }
    let (places, total) = if addresses.is_empty() {
        let mut prefixes: Vec<Option<&str>> = keys.iter().map(|key| Some(key.as_str())).collect();
        if prefixes.is_empty() {
            prefixes.push(None);
        }
        let total = prefixes.iter().map(|key| state::read_count(view, &state::count(*key))).sum();
        // One more than the page shows whether another follows.
        let needed = range.end + 1;
        let streams = prefixes.into_iter().map(|key| stream(order, key, page.descending, after.as_ref(), needed, view));
        (streams.flatten().collect(), total)
    } else {
        let of_addresses = of_addresses(&addresses, &keys, order, view);
        let total = of_addresses.len() as u64;
        (of_addresses, total)
    };
    let places = sorted(places, page.descending, after.as_ref());
    let more = places.len() as u64 > range.end;
    let mut left = MAX_BODY_BYTES;
    let mut aggregates = Vec::new();
    let mut last = None;
    for place in places.into_iter().skip(range.start as usize).take(page.length as usize) {
        let row = view.get(&state::summary(&place.owner, &place.key));
        let Some(summary) = row.and_then(|row| Summary::read(&row)) else { continue };
        let content = content(&summary, view, &mut left)?;
        let Info { created, last_updated, .. } = Info::from(&summary);
        aggregates.push(Entry { address: summary.owner, key: summary.key, content, created, last_updated });
        last = Some(place);
    }
    let footer = match by_cursor {
        None => page.footer(total, "aggregates"),
        Some(_) => Footer::Cursor {
            pagination_per_page: page.length,
            next_cursor: last.filter(|_| more).map(|place| place.cursor()),
        },
    };
    Ok(answer::json_response(200, &Listing { aggregates, footer }))
}

fn sorted(mut places: Vec<Place>, descending: bool, after: Option<&Place>) -> Vec<Place> {
    let compare = |a: &Place, b: &Place| if descending { b.compare(a) } else { a.compare(b) };
    places.retain(|place| after.is_none_or(|after| compare(after, place) == Ordering::Less));
    places.sort_by(compare);
    places
}

fn of_addresses(addresses: &[String], keys: &[String], order: Order, view: &dyn View) -> Vec<Place> {
    let rows = addresses.iter().flat_map(|address| scan_all(view, None, &state::summaries_of(address)));
    let summaries = rows.filter_map(|(_, row)| Summary::read(&row));
    summaries
        .filter(|summary| keys.is_empty() || keys.contains(&summary.key))
        .map(|summary| Place { time: order.time(&summary), owner: summary.owner, key: summary.key })
        .collect()
}

/// The first rows of a listing, from the moment of a cursor on.
fn stream(
    order: Order,
    key: Option<&str>,
    descending: bool,
    after: Option<&Place>,
    needed: u64,
    view: &dyn View,
) -> Vec<Place> {
    let prefix = order.prefix(key);
    let (mut start, mut end) = (prefix.clone(), layout::end_of(&prefix));
    if let Some(after) = after {
        let moment = [prefix.as_slice(), &layout::time_bytes(after.time)].concat();
        if descending {
            end = layout::end_of(&moment);
        } else {
            start = moment;
        }
    }
    let mut places = Vec::new();
    let passed = |place: &Place| {
        after.is_some_and(|after| {
            let ordering = if descending { place.compare(after) } else { after.compare(place) };
            ordering != Ordering::Less
        })
    };
    while (places.len() as u64) < needed {
        let page = view.scan(&start, &end, 1000, descending);
        for (row, value) in &page.items {
            let time = row.get(prefix.len()..prefix.len() + 8).and_then(|time| time.try_into().ok());
            let (Some(time), Some((owner, key))) = (time, state::read_name(value)) else { continue };
            let time = f64::from_bits(u64::from_be_bytes(time));
            let place = Place { time, owner: owner.to_owned(), key: key.to_owned() };
            if !passed(&place) {
                places.push(place);
            }
        }
        let Some((last, _)) = page.items.last().filter(|_| page.more) else { break };
        if descending {
            end.clone_from(last);
        } else {
            start.clone_from(last);
            start.push(0);
        }
    }
    places
}

#[cfg(test)]
mod tests;
