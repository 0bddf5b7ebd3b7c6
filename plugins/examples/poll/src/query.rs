//! What people ask: the polls, one with its results, somebody's vote.

use crate::state::{self, Record};
use plugin_sdk::{
    Request, Response, View,
    answer::{self, Footer, Page},
    layout::Moment,
};
use serde::Serialize;
use serde_json::{Value, json};

/// Votes that are counted for an answer. A type made for more would keep tallies, and change them when a close comes late.
const MAX_VOTES: usize = 50_000;
/// Polls passed over before a page.
const MAX_SKIPPED: u64 = 10_000;
/// Most polls of a page.
const MAX_PAGE: u64 = 200;

pub(crate) fn answer(request: &Request, view: &dyn View) -> Response {
    let response = match request.route.as_str() {
        "/api/v0/polls" => list(request, view),
        "/api/v0/polls/{poll}" => one(request, view),
        "/api/v0/polls/{poll}/votes/{address}" => vote(request, view),
        _ => Err(answer::error(404, "no such route")),
    };
    response.unwrap_or_else(|refusal| refusal)
}

#[derive(Serialize)]
struct Polls {
    polls: Vec<Value>,
    #[serde(flatten)]
    footer: Footer,
}

/// The polls without their results: those cost what their votes cost.
fn list(request: &Request, view: &dyn View) -> Result<Response, Response> {
    let mut page = Page::read(request)?;
    page.length = if page.length == 0 { MAX_PAGE } else { page.length.min(MAX_PAGE) };
    let range = page.range();
    if range.start > MAX_SKIPPED {
        return Err(answer::wrong("page", "too far in"));
    }
    let records = state::list(range, page.descending, view).into_iter().filter_map(|poll| Record::find(&poll, view));
    let polls = records.map(|record| head(&record, state::closed(&record.moment.item_hash, view).as_ref())).collect();
    Ok(answer::json_response(200, &Polls { polls, footer: page.footer(state::count(view), "polls") }))
}

fn one(request: &Request, view: &dyn View) -> Result<Response, Response> {
    let record = find(request, view)?;
    let closed = state::closed(&record.moment.item_hash, view);
    let Some(counts) = state::tally(&record, closed.as_ref(), MAX_VOTES, view) else {
        return Err(answer::error(422, "this poll has more votes than are counted for an answer"));
    };
    let mut body = head(&record, closed.as_ref());
    let results = record.options.iter().zip(&counts);
    body["results"] = results.map(|(option, votes)| json!({"option": option, "votes": votes})).collect();
    body["votes"] = counts.iter().sum::<u64>().into();
    Ok(answer::json_response(200, &body))
}

fn vote(request: &Request, view: &dyn View) -> Result<Response, Response> {
    let record = find(request, view)?;
    let (poll, address) = (&record.moment.item_hash, answer::path(request, "address"));
    let closed = state::closed(poll, view);
    let Some(vote) = state::vote_of(poll, address, closed.as_ref(), view) else {
        return Err(answer::error(404, "no vote of this address counts"));
    };
    let body = json!({"poll": poll, "address": address, "option": vote.option, "text": record.options.get(vote.option),
        "item_hash": vote.moment.item_hash, "time": vote.moment.time});
    Ok(answer::json_response(200, &body))
}

fn find(request: &Request, view: &dyn View) -> Result<Record, Response> {
    Record::find(answer::path(request, "poll"), view).ok_or_else(|| answer::error(404, "no such poll"))
}

/// What is said of a poll everywhere.
fn head(record: &Record, closed: Option<&Moment>) -> Value {
    json!({"item_hash": record.moment.item_hash, "address": record.owner, "time": record.moment.time,
        "question": record.question, "options": record.options, "closed": closed.map(|closed| closed.time)})
}
