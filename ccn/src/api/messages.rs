//! Lists of messages: those that match, by pages or with a cursor (ccn spec 5.2).

use super::{
    Api, ApiError, ApiResult, State,
    element::{ContentFormat, Element},
    ended, moment,
    paging::{MAX_ENTRIES, entries_at_most},
    parameters::Parameters,
};
use crate::store::{
    Reader as _, Snapshot,
    listing::{self, Blocks, Filter, Listing, Order, Window},
    schema::Ending,
};
use axum::http::StatusCode;
use axum::{
    Json,
    extract::Path,
    response::{IntoResponse, Response},
};
use ccn_message::{ItemHash, MessageStatus};
use serde::Serialize;

/// Entries of a page unless the client says otherwise.
const DEFAULT_PAGE: u64 = 20;
/// Most entries of a page with a cursor.
const MAX_CURSOR_PAGE: u64 = 200;
/// Most bytes of content in an answer.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// What a listing or a websocket is restricted to.
///
/// Types of the operator's own plugins are shown to those who ask for them: a client that does not know a type fails on the whole page.
pub(super) fn filter(api: &Api, parameters: &Parameters) -> ApiResult<Filter> {
    let mut filter = read_filter(parameters)?;
    let plugins = api.service.plugins.all();
    if filter.kinds.is_empty() && filter.hashes.is_empty() && plugins.iter().any(|plugin| !plugin.is_bundled()) {
        let usual = plugins.iter().filter(|plugin| plugin.is_bundled());
        filter.kinds = usual.flat_map(|plugin| plugin.manifest().types.clone()).collect();
    }
    Ok(filter)
}

fn read_filter(parameters: &Parameters) -> ApiResult<Filter> {
    let list = |names: &[&str]| parameters.list(names);
    let mut kinds = list(&["msgTypes", "msg_types"])?;
    kinds.extend(list(&["msgType", "msg_type"])?);
    let hashes = list(&["hashes"])?.iter().map(|hash| ItemHash::parse(hash)).collect::<Result<Vec<ItemHash>, _>>();
    let labels = [
        ("content-ref", list(&["refs"])?),
        ("content-hash", list(&["contentHashes", "content_hashes"])?),
        ("content-key", list(&["contentKeys", "content_keys"])?),
        ("content-type", list(&["contentTypes", "content_types"])?),
        ("tag", list(&["tags"])?),
        (super::single::PAYMENT_LABEL, list(&["paymentTypes", "payment_types"])?),
    ];
    let labels = labels.into_iter().filter(|(_, values)| !values.is_empty());
    let (start, end) = (parameters.date(&["startDate", "start_date"])?, parameters.date(&["endDate", "end_date"])?);
    if let (Some(start), Some(end)) = (start, end)
        && end < start
    {
        return Err(ApiError::field("endDate", "must not be before startDate"));
    }
    let blocks = Blocks {
        start: parameters.number(&["startBlock", "start_block"], 0)?,
        end: Some(parameters.number(&["endBlock", "end_block"], 0)?).filter(|end| *end > 0),
    };
    Ok(Filter {
        hashes: hashes.map_err(|error| ApiError::field("hashes", error.to_string()))?,
        senders: list(&["addresses"])?,
        owners: list(&["owners"])?,
        kinds,
        chains: list(&["chains"])?,
        channels: list(&["channels"])?,
        labels: labels.map(|(name, values)| (name.to_owned(), values)).collect(),
        start,
        end,
        blocks,
        removing: None,
        nothing: false,
    })
}

/// The status of messages that are no more, when it is asked for.
fn ending(parameters: &Parameters) -> ApiResult<Option<Ending>> {
    let given = parameters.list(&["msgStatuses", "msg_statuses"])?;
    Ok(match given.iter().map(|word| word.parse()).collect::<Result<Vec<MessageStatus>, _>>().as_deref() {
        Ok([MessageStatus::Forgotten]) => Some(Ending::Forgotten),
        Ok([MessageStatus::Removed]) => Some(Ending::Removed),
        _ => None,
    })
}

/// Restricts by status: what is processed, or is being removed, is here.
fn restrict_to_statuses(filter: &mut Filter, parameters: &Parameters) -> ApiResult<()> {
    let given = parameters.list(&["msgStatuses", "msg_statuses"])?;
    let statuses = given.iter().map(|word| word.parse()).collect::<Result<Vec<MessageStatus>, _>>();
    let statuses = statuses.map_err(|error| ApiError::field("msgStatuses", error.to_string()))?;
    if statuses.is_empty() {
        return Ok(());
    }
    let ended = |status: &MessageStatus| matches!(status, MessageStatus::Forgotten | MessageStatus::Removed);
    if statuses.len() > 1 && statuses.iter().any(ended) {
        let sentence = "msgStatuses: `forgotten` and `removed` cannot be combined with other statuses";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, sentence));
    }
    let has = |status: MessageStatus| statuses.contains(&status);
    let (processed, removing) = (has(MessageStatus::Processed), has(MessageStatus::Removing));
    filter.nothing |= !processed && !removing && !statuses.iter().any(ended);
    filter.removing = (processed != removing).then_some(removing);
    Ok(())
}

#[derive(Serialize)]
struct Page {
    messages: Vec<Element>,
    pagination_per_page: u64,
    pagination_page: u64,
    pagination_total: u64,
    pagination_item: &'static str,
}

#[derive(Serialize)]
struct CursorPage {
    messages: Vec<Element>,
    pagination_per_page: u64,
    next_cursor: Option<String>,
}

pub(super) async fn list(state: State, parameters: Parameters) -> ApiResult<Response> {
    let number = parameters.number(&["page"], 1)?;
    listing_page(state, parameters, number).await
}

pub(super) async fn page(state: State, Path(page): Path<String>, parameters: Parameters) -> ApiResult<Response> {
    let number = page.strip_suffix(".json").and_then(|number| number.parse().ok());
    let wrong = || ApiError::not_found("pages are at /api/v0/messages/page/NUMBER.json");
    listing_page(state, parameters, number.ok_or_else(wrong)?).await
}

async fn listing_page(state: State, parameters: Parameters, number: u64) -> ApiResult<Response> {
    let mut filter = filter(&state, &parameters)?;
    restrict_to_statuses(&mut filter, &parameters)?;
    let sort_by = parameters.word(&["sortBy", "sort_by"], &["time", "tx-time"])?;
    let descending = parameters.word(&["sortOrder", "sort_order"], &["-1", "1"])? == "-1";
    let length = parameters.number(&["pagination"], DEFAULT_PAGE)?;
    let format = match parameters.word(&["contentFormat", "content_format"], &["full", "headers", "none"])? {
        "headers" => ContentFormat::Headers,
        "none" => ContentFormat::None,
        _ if parameters.flag(&["excludeContent", "exclude_content"]) => ContentFormat::None,
        _ => ContentFormat::Full,
    };
    if number == 0 {
        return Err(ApiError::field("page", "pages are counted from 1"));
    }
    if let Some(ending) = ending(&parameters)? {
        return ended::page(state, &parameters, filter, ending, (number, length, descending)).await;
    }
    let Some(cursor) = parameters.get(&["cursor"]) else {
        let order = if sort_by == "time" { Order::Time } else { Order::FirstConfirmed };
        let skip = (number - 1).saturating_mul(entries_at_most(length));
        let window = Window { order, descending, skip, limit: length, after: None };
        return state.read(move |snapshot| by_number(snapshot, &filter, number, window, format)).await;
    };
    if sort_by != "time" {
        return Err(ApiError::field("sortBy", "with a cursor, only `time` is possible"));
    }
    if length == 0 {
        return Err(ApiError::field("pagination", "a page with a cursor has at least one entry"));
    }
    let (limit, after) = (length.min(MAX_CURSOR_PAGE), moment::read_cursor(cursor)?);
    let window = Window { order: Order::Time, descending, skip: 0, limit, after };
    state.read(move |snapshot| by_cursor(snapshot, &filter, &window, format)).await
}

fn by_number(
    snapshot: &Snapshot,
    filter: &Filter,
    number: u64,
    window: Window,
    format: ContentFormat,
) -> ApiResult<Response> {
    let (total, length) = (listing::count(snapshot, filter)?, window.limit);
    if length == 0 && total > MAX_ENTRIES {
        let sentence = format!(
            "{total} messages match, more than {MAX_ENTRIES}: ask for pages, or with `cursor=` and follow next_cursor"
        );
        return Err(ApiError::field("pagination", sentence));
    }
    let window = Window { limit: entries_at_most(length), ..window };
    let listing = listing::list(snapshot, filter, &window)?;
    let (messages, cut) = elements(snapshot, &listing, format)?;
    if cut {
        let sentence = format!(
            "this page has more than {MAX_ANSWER_BYTES} bytes: ask for a smaller one, or with `contentFormat=headers`"
        );
        return Err(ApiError::too_large(sentence));
    }
    Ok(Json(Page {
        messages,
        pagination_per_page: length,
        pagination_page: number,
        pagination_total: total,
        pagination_item: "messages",
    })
    .into_response())
}

fn by_cursor(snapshot: &Snapshot, filter: &Filter, window: &Window, format: ContentFormat) -> ApiResult<Response> {
    let listing = listing::list(snapshot, filter, window)?;
    let (messages, cut) = elements(snapshot, &listing, format)?;
    // A page that would be too large ends early; the next one goes on there.
    let last = listing.messages.get(messages.len().saturating_sub(1)).filter(|_| cut || listing.more);
    let last = last.map(|(hash, record)| (record.envelope.time, hash));
    // Where the search ended before the page was full, the next one goes on behind what was looked at.
    let ended_at = listing.ended_at.as_ref().filter(|_| !cut).map(|(time, hash)| (*time, hash));
    let next_cursor = ended_at.or(last).map(|(time, hash)| moment::write_cursor(time, hash));
    Ok(Json(CursorPage { messages, pagination_per_page: window.limit, next_cursor }).into_response())
}

/// Messages as clients read them, as many as fit into an answer; true when there were more.
fn elements(snapshot: &Snapshot, listing: &Listing, format: ContentFormat) -> ApiResult<(Vec<Element>, bool)> {
    let (mut elements, mut bytes) = (Vec::new(), 0);
    for (hash, record) in &listing.messages {
        // Inline content is shown twice: as text, and as what it means.
        bytes += 2 * record.content().len();
        if bytes > MAX_ANSWER_BYTES && !elements.is_empty() {
            return Ok((elements, true));
        }
        let confirmations = snapshot.confirmations(hash)?;
        elements.extend(Element::listed(record, format).map(|element| element.confirmed_by(confirmations)));
    }
    Ok((elements, false))
}
