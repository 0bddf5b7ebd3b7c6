//! Reading posts: `/api/v0/posts.json` and `/api/v1/posts.json`, and their pages (ccn spec 5.4).

use crate::{
    element::Post,
    listing::{Filter, Place, Plan, of_hashes},
    state::{Property, Record},
};
use plugin_sdk::{
    Request, Response, View,
    answer::{self, Footer, MAX_BODY_BYTES, Page},
};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

/// Most values of one filter.
const MAX_VALUES: usize = 200;
/// Most posts of a page with a cursor.
const MAX_CURSOR_PAGE: u64 = 200;
/// Most posts looked at for one answer; what lies beyond is reached with a cursor.
const MAX_EXAMINED: u64 = 20_000;

pub(crate) fn answer(request: &Request, view: &dyn View) -> Response {
    let first = request.route.starts_with("/api/v0/");
    let element = move |post: &Post| {
        if first { post.to_v0().and_then(|post| raw(&post)) } else { post.to_v1().and_then(|post| raw(&post)) }
    };
    list(request, view, &element).unwrap_or_else(|refusal| refusal)
}

fn raw(element: &impl Serialize) -> Option<Box<RawValue>> {
    serde_json::value::to_raw_value(element).ok()
}

#[derive(Serialize)]
struct Listing {
    posts: Vec<Box<RawValue>>,
    #[serde(flatten)]
    footer: Footer,
}

fn values(request: &Request, names: &[&str]) -> Result<Vec<String>, Response> {
    answer::list_within(request, names, MAX_VALUES)
}

fn filter(request: &Request) -> Result<Filter, Response> {
    let date = |names: &[&str]| match answer::parameter(request, names) {
        None => Ok(None),
        Some(text) => match text.parse::<f64>() {
            Ok(seconds) if seconds >= 0.0 => Ok(Some(seconds).filter(|seconds| *seconds > 0.0)),
            _ => Err(answer::wrong(names[0], "seconds since 1970 were expected")),
        },
    };
    let mut filter = Filter::default();
    filter.hashes = values(request, &["hashes"])?;
    filter.start = date(&["startDate", "start_date"])?;
    filter.end = date(&["endDate", "end_date"])?;
    if let (Some(start), Some(end)) = (filter.start, filter.end)
        && end < start
    {
        return Err(answer::wrong("endDate", "must not be before startDate"));
    }
    filter.restrict(Property::Owner, &values(request, &["addresses"])?);
    filter.restrict(Property::Kind, &values(request, &["types"])?);
    filter.restrict(Property::Reference, &values(request, &["refs"])?);
    filter.restrict(Property::Channel, &values(request, &["channels"])?);
    filter.restrict(Property::Tag, &values(request, &["tags"])?);
    Ok(filter)
}

fn read_cursor(text: &str) -> Result<Option<Place>, Response> {
    let Some(cursor) = answer::read_cursor(text)? else { return Ok(None) };
    let text = |name: &str| cursor.get(name).and_then(Value::as_str);
    let place = text("t").and_then(answer::read_exact_time).zip(text("h"));
    let place = place.map(|(updated, hash)| Place { updated, hash: hash.to_owned() });
    place.map(Some).ok_or_else(|| answer::wrong("cursor", "take the one that the last page gave"))
}

/// A part of the posts that match.
struct Found {
    places: Vec<Place>,
    total: u64,
    /// Where the next page begins.
    next: Option<Place>,
}

fn list(
    request: &Request,
    view: &dyn View,
    element: &dyn Fn(&Post) -> Option<Box<RawValue>>,
) -> Result<Response, Response> {
    let filter = filter(request)?;
    let page = Page::read(request)?;
    match answer::parameter(request, &["sortBy", "sort_by"]) {
        None | Some("time" | "tx-time") => {}
        Some(_) => return Err(answer::wrong("sortBy", "time or tx-time was expected")),
    }
    let cursor = answer::parameter(request, &["cursor"]);
    if cursor.is_some() && page.length == 0 {
        return Err(answer::wrong("pagination", "pages with a cursor have at least one entry"));
    }
    let found = match cursor {
        None => by_number(&filter, page, view)?,
        Some(cursor) => {
            let after = read_cursor(cursor)?;
            by_cursor(&filter, page.length.min(MAX_CURSOR_PAGE), page.descending, after.as_ref(), view)
        }
    };
    let (mut posts, mut left, mut next) = (Vec::new(), MAX_BODY_BYTES, found.next);
    let mut last: Option<&Place> = None;
    for place in &found.places {
        let Some(json) = Post::find(&place.hash, view).as_ref().and_then(element) else { continue };
        match left.checked_sub(json.get().len()) {
            Some(rest) => left = rest,
            None if cursor.is_some() && last.is_some() => {
                next = last.cloned();
                break;
            }
            None => {
                let sentence = format!("the answer would exceed {MAX_BODY_BYTES} bytes: ask for a smaller page");
                return Err(answer::error(413, &sentence));
            }
        }
        posts.push(json);
        last = Some(place);
    }
    let footer = match cursor {
        None => page.footer(found.total, "posts"),
        Some(_) => Footer::Cursor {
            pagination_per_page: page.length.min(MAX_CURSOR_PAGE),
            next_cursor: next
                .map(|place| answer::write_cursor(&json!({"h": place.hash, "t": answer::exact_time(place.updated)}))),
        },
    };
    Ok(answer::json_response(200, &Listing { posts, footer }))
}

/// A page by number: what comes before it is walked over, within bounds.
fn by_number(filter: &Filter, page: Page, view: &dyn View) -> Result<Found, Response> {
    let range = page.range();
    let in_range = |index: u64| range.contains(&index);
    if !filter.hashes.is_empty() {
        let places = of_hashes(filter, page.descending, None, view);
        let total = places.len() as u64;
        let places = places.into_iter().skip(range.start as usize).take((range.end - range.start) as usize).collect();
        return Ok(Found { places, total, next: None });
    }
    let plan = Plan::of(filter, view);
    let known = plan.known_total(filter);
    let (mut places, mut matching, mut examined) = (Vec::new(), 0, 0);
    for place in plan.walk(filter, page.descending, None, view) {
        examined += 1;
        if examined > MAX_EXAMINED {
            if matching < range.end {
                let problem = "too far in; narrow the filters, or ask with an empty cursor and follow next_cursor";
                return Err(answer::wrong("page", problem));
            }
            break;
        }
        if plan.exact || Record::find(&place.hash, view).is_some_and(|record| filter.matches(&record)) {
            if in_range(matching) {
                places.push(place);
            }
            matching += 1;
        }
        if known.is_some() && matching >= range.end {
            break;
        }
    }
    Ok(Found { places, total: known.unwrap_or(matching), next: None })
}

fn by_cursor(filter: &Filter, length: u64, descending: bool, after: Option<&Place>, view: &dyn View) -> Found {
    let mut found = Found { places: Vec::new(), total: 0, next: None };
    if !filter.hashes.is_empty() {
        let mut places = of_hashes(filter, descending, after, view);
        let more = places.len() as u64 > length;
        places.truncate(length as usize);
        found.next = places.last().filter(|_| more).cloned();
        found.places = places;
        return found;
    }
    let plan = Plan::of(filter, view);
    for (examined, place) in (0..).zip(plan.walk(filter, descending, after, view)) {
        let matches = plan.exact || Record::find(&place.hash, view).is_some_and(|record| filter.matches(&record));
        if matches && found.places.len() as u64 == length {
            found.next = found.places.last().cloned();
            break;
        }
        if matches {
            found.places.push(place.clone());
        }
        if examined >= MAX_EXAMINED {
            // The page is not full, and goes on from where the walk stopped.
            found.next = Some(place);
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests;
