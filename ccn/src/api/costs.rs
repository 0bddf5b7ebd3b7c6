//! `GET /api/v0/costs`: what resources cost, and what was used up for them (ccn spec 5.7).

use super::{ApiError, ApiResult, State, parameters::Parameters, price};
use crate::{
    ledger,
    store::{
        Reader as _, Snapshot,
        record::{CostLineRecord, PaymentRecord, TotalsRecord},
        schema::{Table, end_of, split_hash, split_text},
    },
};
use axum::http::StatusCode;
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use ccn_message::{Amount, ItemHash};
use serde_json::{Value, json};

/// Resources of a page: usually, and at least and at most.
const DEFAULT_ENTRIES: u64 = 100;
const ENTRIES: std::ops::RangeInclusive<u64> = 10..=1000;
/// Most resources that are passed over to come to a page.
const MAX_SKIPPED: u64 = 100_000;

/// What is asked for.
struct Question {
    address: Option<String>,
    hash: Option<ItemHash>,
    payment: PaymentRecord,
    /// Sums alone, with the resources, or with the rows of each.
    details: u64,
    with_sizes: bool,
    entries: u64,
    page: u64,
}

impl Question {
    fn read(parameters: &Parameters) -> ApiResult<Self> {
        let hash = parameters.get(&["item_hash", "itemHash"]).map(ItemHash::parse).transpose();
        let hash = hash.map_err(|error| ApiError::field("item_hash", error.to_string()))?;
        let address = parameters.get(&["address"]).map(str::to_owned);
        let payment = match parameters.word(&["payment_type", "paymentType"], &["credit", "hold", "superfluid"])? {
            "hold" => PaymentRecord::Hold,
            "superfluid" => PaymentRecord::Superfluid,
            _ => PaymentRecord::Credit,
        };
        let details = parameters.number(&["include_details", "includeDetails"], 0)?;
        if details > 2 {
            return Err(ApiError::field("include_details", "0, 1 or 2 was expected"));
        }
        if details == 2 && address.is_none() && hash.is_none() {
            let sentence = "include_details=2 needs an address or an item_hash";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, sentence).with("field", "include_details"));
        }
        let entries = parameters.number(&["pagination"], DEFAULT_ENTRIES)?;
        if !ENTRIES.contains(&entries) {
            let sentence = format!("{} to {} was expected", ENTRIES.start(), ENTRIES.end());
            return Err(ApiError::field("pagination", sentence));
        }
        let page = parameters.number(&["page"], 1)?;
        if page == 0 {
            return Err(ApiError::field("page", "pages are counted from 1"));
        }
        if (page - 1).saturating_mul(entries) > MAX_SKIPPED {
            return Err(ApiError::field("page", format!("pages end after {MAX_SKIPPED} resources: ask by address")));
        }
        let with_sizes = parameters.flag(&["include_size", "includeSize"]);
        Ok(Self { address, hash, payment, details, with_sizes, entries, page })
    }
}

pub(super) async fn list(state: State, parameters: Parameters) -> ApiResult<Response> {
    let question = Question::read(&parameters)?;
    state.read(move |snapshot| answer(snapshot, &question)).await
}

fn answer(snapshot: &Snapshot, question: &Question) -> ApiResult<Response> {
    let address = question.address.as_deref();
    let (totals, hashes) = match &question.hash {
        Some(hash) => of_one(snapshot, question, hash)?,
        None => (ledger::totals(snapshot, question.payment, address)?, of_many(snapshot, question)?),
    };
    let [hold, stream, credit] = totals.amounts();
    let mut answer = json!({
        "summary": {
            "total_consumed_credits": number(totals.consumed),
            "total_cost_hold": hold.to_fixed(),
            "total_cost_stream": stream.to_fixed(),
            "total_cost_credit": credit.to_fixed(),
            "resource_count": totals.messages,
        },
        "filters": {
            "address": question.address,
            "item_hash": question.hash.as_ref().map(ToString::to_string),
            "payment_type": question.payment.name(),
        },
    });
    if question.details > 0 {
        let resources = hashes.iter().map(|hash| resource(snapshot, question, hash));
        let resources = resources.filter_map(Result::transpose).collect::<ApiResult<Vec<Value>>>()?;
        answer["resources"] = resources.into();
        answer["pagination_page"] = question.page.into();
        answer["pagination_total"] = totals.messages.into();
        answer["pagination_per_page"] = question.entries.into();
        answer["pagination_item"] = "resources".into();
    }
    Ok(Json(answer).into_response())
}

/// One resource, if it is paid like that, and by whom it was asked for.
fn of_one(snapshot: &Snapshot, question: &Question, hash: &ItemHash) -> ApiResult<(TotalsRecord, Vec<ItemHash>)> {
    let costs = snapshot.costs(hash)?.filter(|costs| costs.payment == question.payment);
    let costs = costs.filter(|costs| question.address.as_ref().is_none_or(|address| *address == costs.address));
    Ok(match costs {
        Some(costs) => {
            let totals = TotalsRecord::default().with(&costs, ledger::consumed(snapshot, hash)?, 1);
            (totals, if question.page == 1 { vec![hash.clone()] } else { Vec::new() })
        }
        None => (TotalsRecord::default(), Vec::new()),
    })
}

/// The resources of a page.
fn of_many(snapshot: &Snapshot, question: &Question) -> ApiResult<Vec<ItemHash>> {
    if question.details == 0 {
        return Ok(Vec::new());
    }
    let address = question.address.as_deref();
    let prefix = ledger::priced_prefix(question.payment, address);
    let skip = (question.page - 1).saturating_mul(question.entries);
    // Both are bounded.
    let rows = usize::try_from(skip + question.entries).unwrap_or(usize::MAX);
    let rows = snapshot.range(Table::Priced, &prefix, &end_of(&prefix), rows, false)?;
    let hash = |(key, _): &(Vec<u8>, Vec<u8>)| {
        let rest = &key[prefix.len()..];
        let rest = if address.is_some() { rest } else { split_text(rest)?.1 };
        Some(split_hash(rest)?.0)
    };
    Ok(rows.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)).filter_map(hash).collect())
}

fn resource(snapshot: &Snapshot, question: &Question, hash: &ItemHash) -> ApiResult<Option<Value>> {
    let Some(costs) = snapshot.costs(hash)? else { return Ok(None) };
    let sum = |amount: fn(&CostLineRecord) -> Amount| costs.lines.iter().map(amount).sum::<Amount>().to_fixed();
    let mut shown = json!({
        "item_hash": hash.to_string(),
        "owner": costs.address,
        "payment_type": costs.payment.name(),
        "consumed_credits": number(ledger::consumed(snapshot, hash)?),
        "cost_hold": sum(CostLineRecord::hold),
        "cost_stream": sum(CostLineRecord::stream),
        "cost_credit": sum(CostLineRecord::credit),
    });
    if question.details == 2 {
        shown["detail"] = costs.lines.iter().map(|line| price::row(line, question.with_sizes)).collect();
    }
    Ok(Some(shown))
}

fn number(credits: u128) -> u64 {
    u64::try_from(credits).unwrap_or(u64::MAX)
}
