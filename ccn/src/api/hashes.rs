//! Hashes of messages by when they came here, whatever became of them (ccn spec 5.2).

use super::{
    ApiError, ApiResult, State, moment,
    paging::{self, PAGE, Paging, SORT_ORDER},
    parameters::{Date, Flag, List, Number, Parameter, Parameters},
    reference::{Group, Operation, Shape},
    routes::Routes,
    single::status_shape,
};
use crate::store::{
    Snapshot,
    arrivals::{self, Arrival, Arrivals},
    listing::{MAX_COUNTED, MAX_EXAMINED},
};
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use ccn_message::MessageStatus;
use serde_json::{Value, json};

static PAGINATION: Parameter<Number> = paging::pagination(20);
static STATUS: Parameter<List> =
    Parameter::list(&["status"], "With one of these statuses; any when none is named.").of(&MessageStatus::NAMES);
static START: Parameter<Date> =
    Parameter::date(&["startDate", "start_date"], "That came then or later, seconds since 1970; 0 for any.");
static END: Parameter<Date> =
    Parameter::date(&["endDate", "end_date"], "That came before then, seconds since 1970; 0 for any.");
static HASH_ONLY: Parameter<Flag> =
    Parameter::flag(&["hash_only", "hashOnly"], "Whether entries are hashes; otherwise with status and time.");

pub(super) fn routes(routes: Routes) -> Routes {
    let entry = Shape::any_of([Shape::hash(), status_shape(&MessageStatus::NAMES)]);
    let hashes = Shape::object([("hashes", Shape::list(entry))]).and(paging::numbered());
    let operation = Operation::new(Group::Messages, "Hashes of messages, by when they came")
        .query([&STATUS, &START, &END])
        .query([&HASH_ONLY])
        .query([&SORT_ORDER])
        .query([&PAGINATION, &PAGE])
        .answers("A page of hashes.", &hashes);
    routes.get("/api/v0/messages/hashes", list, operation)
}

async fn list(state: State, parameters: Parameters) -> ApiResult<Response> {
    let names = STATUS.read(&parameters)?;
    let is_meant = |status: &MessageStatus| names.is_empty() || names.iter().any(|name| name == status.name());
    let statuses: Vec<MessageStatus> = MessageStatus::ALL.into_iter().filter(is_meant).collect();
    let (start, end) = (START.read(&parameters)?, END.read(&parameters)?);
    if let (Some(start), Some(end)) = (start, end)
        && end < start
    {
        return Err(ApiError::field("endDate", "must not be before startDate"));
    }
    let milliseconds = |seconds: f64| (seconds * 1e3).ceil() as u64;
    let bounds = (start.map(milliseconds), end.map(milliseconds));
    let paging = Paging::Number { page: PAGE.read(&parameters)?, entries: PAGINATION.read(&parameters)? };
    let descending = SORT_ORDER.read(&parameters)? == "-1";
    let hash_only = HASH_ONLY.read_if_given(&parameters)?.unwrap_or(true);
    let work = move |snapshot: &Snapshot| {
        let (mut hashes, mut passed) = (Vec::new(), 0_u64);
        let counted = match bounds {
            (None, None) => Some(total(snapshot, &statuses)?),
            _ => None,
        };
        for arrival in Arrivals::new(snapshot, &statuses, bounds, descending) {
            let is_full = hashes.len() as u64 >= paging.limit();
            if is_full && (counted.is_some() || passed >= MAX_COUNTED) || passed >= MAX_EXAMINED {
                break;
            }
            let arrival = arrival?;
            if passed >= paging.skip() && !is_full {
                hashes.push(shown(&arrival, hash_only));
            }
            passed += 1;
        }
        let answer = paging.answer(json!({ "hashes": hashes }), "hashes", counted.unwrap_or(passed), None)?;
        Ok(Json(answer).into_response())
    };
    state.read(work).await
}

fn total(snapshot: &Snapshot, statuses: &[MessageStatus]) -> ApiResult<u64> {
    statuses.iter().try_fold(0, |sum, status| Ok(sum + arrivals::total(snapshot, *status)?))
}

fn shown(arrival: &Arrival, hash_only: bool) -> Value {
    let hash = arrival.item_hash.to_string();
    if hash_only {
        return hash.into();
    }
    json!({
        "status": arrival.status.name(),
        "item_hash": hash,
        "reception_time": moment::iso(arrival.reception_time),
    })
}
