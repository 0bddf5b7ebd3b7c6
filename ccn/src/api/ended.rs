//! Lists of messages that are no more: hidden, or removed for want of funds. Envelopes without contents, by when they ended (ccn spec 5.2).

use super::{
    ApiError, ApiResult, State,
    messages::{CONTENT_HASHES, CONTENT_KEYS, CONTENT_TYPES, END_BLOCK, REFS, START_BLOCK, TAGS},
    paging::{CURSOR, MAX_ENTRIES, entries_at_most},
    parameters::{Parameters, QueryParameter},
    single::{forgotten_by, forgotten_skeleton, removal_word, removed_skeleton},
};
use crate::store::{
    Reader as _, Snapshot, Walk,
    derived::ended_prefix,
    listing::{Filter, MAX_COUNTED, MAX_EXAMINED},
    record::{MessageRecord, RemovedRecord},
    schema::{Ending, IndexId, Table, end_of, split_hash, time_key},
    standing,
};
use axum::http::StatusCode;
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use ccn_message::ItemHash;
use serde_json::{Value, json};

/// Rows that are read at a time.
const ROWS: usize = 256;
/// Bytes of the time in a key.
const TIME_BYTES: usize = 8;
/// Parameters that ask about what is no longer known.
static CONTENT: [&dyn QueryParameter; 7] =
    [&REFS, &CONTENT_HASHES, &CONTENT_KEYS, &CONTENT_TYPES, &TAGS, &START_BLOCK, &END_BLOCK];

pub(super) async fn page(
    state: State,
    parameters: &Parameters,
    filter: Filter,
    ending: Ending,
    (number, length, descending): (u64, u64, bool),
) -> ApiResult<Response> {
    let refuse = |name: &str| {
        let sentence = format!("{name}: messages that are no more cannot be asked for by this");
        Err(ApiError::new(StatusCode::BAD_REQUEST, sentence).with("field", name))
    };
    if let Some(parameter) = CONTENT.iter().find(|parameter| parameter.is_given(parameters)) {
        return refuse(parameter.name());
    }
    if CURSOR.read(parameters)?.is_some() {
        return refuse(CURSOR.name());
    }
    let work = move |snapshot: &Snapshot| {
        let limit = entries_at_most(length);
        let skip = (number - 1).saturating_mul(limit);
        let (messages, total) = walk(snapshot, &filter, ending, descending, skip, limit)?;
        if length == 0 && total > MAX_ENTRIES {
            let sentence = format!("{total} messages match, more than {MAX_ENTRIES}: ask for pages");
            return Err(ApiError::field("pagination", sentence));
        }
        Ok(Json(json!({
            "messages": messages,
            "pagination_per_page": length,
            "pagination_page": number,
            "pagination_total": total,
            "pagination_item": "messages",
        }))
        .into_response())
    };
    state.read(work).await
}

/// The rows of one property, of one value of it.
fn walk(
    snapshot: &Snapshot,
    filter: &Filter,
    ending: Ending,
    descending: bool,
    skip: u64,
    limit: u64,
) -> ApiResult<(Vec<Value>, u64)> {
    let one = |values: &[String]| (values.len() == 1).then(|| values[0].clone());
    let (id, text) =
        [(IndexId::Owner, &filter.owners), (IndexId::Sender, &filter.senders), (IndexId::Kind, &filter.kinds)]
            .into_iter()
            .find_map(|(id, values)| Some((id, one(values)?)))
            .unwrap_or((IndexId::All, String::new()));
    let prefix = ended_prefix(ending, id, &text);
    let at = |time: f64| [prefix.as_slice(), &time_key(time)].concat();
    let start = filter.start.map_or_else(|| prefix.clone(), at);
    let end = filter.end.map_or_else(|| end_of(&prefix), at);
    let restricts = [&filter.owners, &filter.senders, &filter.kinds, &filter.chains, &filter.channels];
    let restricted = restricts.iter().filter(|values| !values.is_empty()).count();
    let is_plain = restricted == usize::from(id != IndexId::All)
        && filter.hashes.is_empty()
        && filter.labels.is_empty()
        && filter.start.is_none()
        && filter.end.is_none();
    // The dates are those of the end, and decided by the keys.
    let filter = Filter { start: None, end: None, ..filter.clone() };
    let counted = is_plain.then(|| snapshot.number(Table::OwnCounts, &prefix)).transpose()?;
    let (mut shown, mut total, mut examined) = (Vec::new(), 0, 0);
    for row in Walk::new(snapshot, Table::Ended, (start, end), descending, ROWS) {
        let (key, _) = row?;
        examined += 1;
        let is_wanted = total >= skip && (shown.len() as u64) < limit;
        let done = !is_wanted && total >= skip && (counted.is_some() || examined > MAX_COUNTED);
        if done || examined > MAX_EXAMINED {
            break;
        }
        if !is_wanted && is_plain {
            total += 1;
            continue;
        }
        let Some((hash, _)) = key.get(prefix.len() + TIME_BYTES..).and_then(split_hash) else { continue };
        let Some((record, element)) = described(snapshot, ending, &hash)? else { continue };
        if filter.matches(&hash, &record, record.envelope.chain()) {
            if is_wanted {
                shown.push(element);
            }
            total += 1;
        }
    }
    Ok((shown, counted.unwrap_or(total)))
}

/// A message that is no more, as lists show it.
fn described(snapshot: &Snapshot, ending: Ending, hash: &ItemHash) -> ApiResult<Option<(MessageRecord, Value)>> {
    match ending {
        Ending::Forgotten => {
            let Some(record) = standing::forgotten(snapshot, hash)? else { return Ok(None) };
            let by = standing::hidden_by(snapshot, hash, &record)?;
            let mut element = forgotten_skeleton(hash, &record.message, &by);
            element["status"] = "forgotten".into();
            element["forgotten_by"] = forgotten_by(&by).into();
            Ok(Some((record.message, element)))
        }
        Ending::Removed => {
            let record = standing::removed(snapshot, hash)?;
            Ok(record.map(|record| (record.message.clone(), removed(hash, &record))))
        }
    }
}

/// The envelope of a message that was removed, and why it was.
fn removed(hash: &ItemHash, record: &RemovedRecord) -> Value {
    let mut element = removed_skeleton(hash, record);
    element["status"] = "removed".into();
    element["reason"] = removal_word(Some(record.payment)).into();
    element["removed_at"] = (record.removed_at as f64 / 1e3).into();
    element
}
