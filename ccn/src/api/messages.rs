//! Lists of messages: those that match, by pages or with a cursor (ccn spec 5.2).

use super::{
    Api, ApiError, ApiResult, State, answers,
    element::{ContentFormat, Element},
    ended, moment,
    paging::{self, CURSOR, MAX_ENTRIES, PAGE, SORT_ORDER, entries_at_most},
    parameters::{Date, Flag, List, Number, Parameter, Parameters, QueryParameter, Word},
    reference::{Group, Operation, Shape},
    routes::Routes,
    single::skeleton_shape,
};
use crate::store::{
    Reader as _, Snapshot,
    listing::{self, Blocks, Filter, Listing, MAX_CONTENT_BYTES, Order, Window},
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
use tokio::{runtime::Handle, sync::SemaphorePermit};

/// Entries of a page.
static PAGINATION: Parameter<Number> = paging::pagination(20);
static TYPES: Parameter<List> = Parameter::list(&["msgTypes", "msg_types"], "Of these message types.");
static TYPE: Parameter<List> = Parameter::list(&["msgType", "msg_type"], "The same as `msgTypes`.");
static STATUSES: Parameter<List> = Parameter::list(
    &["msgStatuses", "msg_statuses"],
    "With these statuses: those of messages that are here, or one of `forgotten` and `removed`, which have no content.",
)
.of(&["pending", "processed", "rejected", "forgotten", "removing", "removed"]);
static SENDERS: Parameter<List> = Parameter::list(&["addresses"], "Signed by these.");
static OWNERS: Parameter<List> = Parameter::list(&["owners"], "Of these owners: the `address` in the content.");
static HASHES: Parameter<List> = Parameter::list(&["hashes"], "These messages.");
pub(super) static REFS: Parameter<List> = Parameter::list(&["refs"], "With one of these as `ref` in the content.");
pub(super) static CONTENT_HASHES: Parameter<List> =
    Parameter::list(&["contentHashes", "content_hashes"], "Of these files: the `item_hash` in the content.");
pub(super) static CONTENT_KEYS: Parameter<List> =
    Parameter::list(&["contentKeys", "content_keys"], "With one of these as `key` in the content.");
pub(super) static CONTENT_TYPES: Parameter<List> =
    Parameter::list(&["contentTypes", "content_types"], "With one of these as `type` in the content.");
pub(super) static TAGS: Parameter<List> = Parameter::list(&["tags"], "With any of these tags.");
static CHAINS: Parameter<List> = Parameter::list(&["chains"], "Signed as on these chains.");
static CHANNELS: Parameter<List> = Parameter::list(&["channels"], "In these channels.");
static PAYMENT_TYPES: Parameter<List> = Parameter::list(&["paymentTypes", "payment_types"], "Paid like that.");
static START: Parameter<Date> =
    Parameter::date(&["startDate", "start_date"], "From then on, seconds since 1970; 0 is the same as none.");
static END: Parameter<Date> =
    Parameter::date(&["endDate", "end_date"], "Before then, seconds since 1970; 0 is the same as none.");
pub(super) static START_BLOCK: Parameter<Number> = Parameter::number(
    &["startBlock", "start_block"],
    "First confirmed in a block of that height or higher, or not yet.",
    0,
    0..=u64::MAX,
);
pub(super) static END_BLOCK: Parameter<Number> =
    Parameter::number(&["endBlock", "end_block"], "First confirmed in a block below that height.", 0, 0..=u64::MAX);
static SORT_BY: Parameter<Word> =
    Parameter::word(&["sortBy", "sort_by"], "By time, or by when they were first confirmed.", &["time", "tx-time"]);
static CONTENT_FORMAT: Parameter<Word> = Parameter::word(
    &["contentFormat", "content_format"],
    "All of the content, what listings are about, or nothing of it.",
    &["full", "headers", "none"],
);
static WITHOUT_CONTENT: Parameter<Flag> =
    Parameter::flag(&["excludeContent", "exclude_content"], "The same as `contentFormat=none`.");

/// What listings and websockets can be restricted by.
pub(super) static FILTERS: [&dyn QueryParameter; 17] = [
    &TYPES,
    &TYPE,
    &SENDERS,
    &OWNERS,
    &HASHES,
    &REFS,
    &CONTENT_HASHES,
    &CONTENT_KEYS,
    &CONTENT_TYPES,
    &TAGS,
    &CHAINS,
    &CHANNELS,
    &PAYMENT_TYPES,
    &START,
    &END,
    &START_BLOCK,
    &END_BLOCK,
];

/// Contents that are shown without waiting for a turn, bytes.
const SHORT_CONTENT_BYTES: usize = 256 << 10;
/// Most entries of a page with a cursor.
const MAX_CURSOR_PAGE: u64 = 200;

pub(super) fn routes(routes: Routes) -> Routes {
    let element = || Shape::named(super::element::NAME);
    let messages = |of| Shape::object([("messages", Shape::list(of))]);
    let ended = messages(skeleton_shape()).and(paging::numbered());
    let shape = Shape::any_of([paging::pages(messages(element())), ended]);
    let operation = |summary| {
        Operation::new(Group::Messages, summary)
            .query(FILTERS)
            .query([&STATUSES, &SORT_BY, &SORT_ORDER, &CONTENT_FORMAT, &WITHOUT_CONTENT, &PAGINATION, &CURSOR])
            .answers("Messages; of those that are no more, what is still said.", &shape)
            .refuses(400, "These filters do not go together.")
            .refuses(413, "The page would be too long.")
    };
    let page_part = Shape::text().with("pattern", "^[1-9][0-9]{0,17}\\.json$");
    let by_path = operation("Messages, by pages")
        .path("page", "The number of the page and `.json`.", &page_part)
        .refuses(400, "These filters do not go together, or the path is wrong.")
        .refuses(404, "This is no number of a page.");
    routes.get("/api/v0/messages.json", list, operation("Messages").query([&PAGE])).get(
        "/api/v0/messages/page/{page}",
        page,
        by_path,
    )
}

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
    let mut kinds = TYPES.read(parameters)?;
    kinds.extend(TYPE.read(parameters)?);
    let hashes = HASHES.read(parameters)?;
    let hashes = hashes.iter().map(|hash| ItemHash::parse(hash)).collect::<Result<Vec<ItemHash>, _>>();
    let labels = [
        ("content-ref", REFS.read(parameters)?),
        ("content-hash", CONTENT_HASHES.read(parameters)?),
        ("content-key", CONTENT_KEYS.read(parameters)?),
        ("content-type", CONTENT_TYPES.read(parameters)?),
        ("tag", TAGS.read(parameters)?),
        (super::single::PAYMENT_LABEL, PAYMENT_TYPES.read(parameters)?),
    ];
    let labels = labels.into_iter().filter(|(_, values)| !values.is_empty());
    let (start, end) = (START.read(parameters)?, END.read(parameters)?);
    if let (Some(start), Some(end)) = (start, end)
        && end < start
    {
        return Err(ApiError::field("endDate", "must not be before startDate"));
    }
    let blocks =
        Blocks { start: START_BLOCK.read(parameters)?, end: Some(END_BLOCK.read(parameters)?).filter(|end| *end > 0) };
    Ok(Filter {
        hashes: hashes.map_err(|error| ApiError::field("hashes", error.to_string()))?,
        senders: SENDERS.read(parameters)?,
        owners: OWNERS.read(parameters)?,
        kinds,
        chains: CHAINS.read(parameters)?,
        channels: CHANNELS.read(parameters)?,
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
    let given = STATUSES.read(parameters)?;
    Ok(match given.iter().map(|word| word.parse()).collect::<Result<Vec<MessageStatus>, _>>().as_deref() {
        Ok([MessageStatus::Forgotten]) => Some(Ending::Forgotten),
        Ok([MessageStatus::Removed]) => Some(Ending::Removed),
        _ => None,
    })
}

/// Restricts by status: what is processed, or is being removed, is here.
fn restrict_to_statuses(filter: &mut Filter, parameters: &Parameters) -> ApiResult<()> {
    let given = STATUSES.read(parameters)?;
    let statuses = given.iter().map(|word| word.parse()).collect::<Result<Vec<MessageStatus>, _>>();
    let statuses = statuses.map_err(|error| ApiError::field(STATUSES.name(), error.to_string()))?;
    if statuses.is_empty() {
        return Ok(());
    }
    let ended = |status: &MessageStatus| matches!(status, MessageStatus::Forgotten | MessageStatus::Removed);
    if statuses.len() > 1 && statuses.iter().any(ended) {
        let sentence = "msgStatuses: `forgotten` and `removed` cannot be combined with other statuses";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, sentence).with("field", STATUSES.name()));
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

async fn list(state: State, parameters: Parameters) -> ApiResult<Response> {
    let number = PAGE.read(&parameters)?;
    listing_page(state, parameters, number).await
}

async fn page(state: State, Path(page): Path<String>, parameters: Parameters) -> ApiResult<Response> {
    let number = page.strip_suffix(".json").and_then(|number| number.parse().ok());
    let wrong = || ApiError::not_found("pages are at /api/v0/messages/page/NUMBER.json");
    listing_page(state, parameters, number.ok_or_else(wrong)?).await
}

async fn listing_page(state: State, parameters: Parameters, number: u64) -> ApiResult<Response> {
    let mut filter = filter(&state, &parameters)?;
    restrict_to_statuses(&mut filter, &parameters)?;
    let sort_by = SORT_BY.read(&parameters)?;
    let descending = SORT_ORDER.read(&parameters)? == "-1";
    let length = PAGINATION.read(&parameters)?;
    let without_content = WITHOUT_CONTENT.read(&parameters)?;
    let format = match CONTENT_FORMAT.read(&parameters)? {
        "headers" => ContentFormat::Headers,
        "none" => ContentFormat::None,
        _ if without_content => ContentFormat::None,
        _ => ContentFormat::Full,
    };
    if number == 0 {
        return Err(ApiError::field("page", "pages are counted from 1"));
    }
    if let Some(ending) = ending(&parameters)? {
        return ended::page(state, &parameters, filter, ending, (number, length, descending)).await;
    }
    let Some(cursor) = CURSOR.read(&parameters)? else {
        let order = if sort_by == "time" { Order::Time } else { Order::FirstConfirmed };
        let skip = (number - 1).saturating_mul(entries_at_most(length));
        let window = Window { order, descending, skip, limit: length, after: None };
        let api = state.0.clone();
        return state.read(move |snapshot| by_number(snapshot, &filter, number, window, format, &api)).await;
    };
    if sort_by != "time" {
        return Err(ApiError::field("sortBy", "with a cursor, only `time` is possible"));
    }
    if length == 0 {
        return Err(ApiError::field("pagination", "a page with a cursor has at least one entry"));
    }
    let (limit, after) = (length.min(MAX_CURSOR_PAGE), moment::read_cursor(cursor)?);
    let window = Window { order: Order::Time, descending, skip: 0, limit, after };
    let api = state.0.clone();
    state.read(move |snapshot| by_cursor(snapshot, &filter, &window, format, &api)).await
}

fn by_number(
    snapshot: &Snapshot,
    filter: &Filter,
    number: u64,
    window: Window,
    format: ContentFormat,
    api: &Api,
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
    if listing.is_cut {
        let sentence = format!(
            "the contents of this page have more than {MAX_CONTENT_BYTES} bytes: ask for a smaller one, or with a cursor"
        );
        return Err(ApiError::too_large(sentence));
    }
    let _turn = turn(&listing, api)?;
    Ok(Json(Page {
        messages: elements(snapshot, &listing, format)?,
        pagination_per_page: length,
        pagination_page: number,
        pagination_total: total,
        pagination_item: "messages",
    })
    .into_response())
}

fn by_cursor(
    snapshot: &Snapshot,
    filter: &Filter,
    window: &Window,
    format: ContentFormat,
    api: &Api,
) -> ApiResult<Response> {
    let listing = listing::list(snapshot, filter, window)?;
    // A page that would be too long ends early; the next one goes on there.
    let last = listing.messages.last().filter(|_| listing.more);
    let last = last.map(|(hash, record)| (record.envelope.time, hash));
    // Where the search ended before the page was full, the next one goes on behind what was looked at.
    let ended_at = listing.ended_at.as_ref().map(|(time, hash)| (*time, hash));
    let next_cursor = ended_at.or(last).map(|(time, hash)| moment::write_cursor(time, hash));
    let _turn = turn(&listing, api)?;
    let messages = elements(snapshot, &listing, format)?;
    Ok(Json(CursorPage { messages, pagination_per_page: window.limit, next_cursor }).into_response())
}

/// A turn to make an answer of long contents, on a thread that may wait, if it would find room. Short ones need none.
fn turn<'a>(listing: &Listing, api: &'a Api) -> ApiResult<Option<SemaphorePermit<'a>>> {
    if listing.content_bytes <= SHORT_CONTENT_BYTES {
        return Ok(None);
    }
    let turn = Handle::current().block_on(api.long_texts.acquire()).map_err(ApiError::internal)?;
    // Inline content is shown twice: as text, and as what it means.
    if !api.answers.have_room(2 * listing.content_bytes) {
        return Err(answers::no_room());
    }
    Ok(Some(turn))
}

/// Messages as clients read them.
fn elements(snapshot: &Snapshot, listing: &Listing, format: ContentFormat) -> ApiResult<Vec<Element>> {
    let mut elements = Vec::new();
    for (hash, record) in &listing.messages {
        let confirmations = snapshot.confirmations(hash)?;
        elements.extend(Element::listed(record, format).map(|element| element.confirmed_by(confirmations)));
    }
    Ok(elements)
}
