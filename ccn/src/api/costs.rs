//! `GET /api/v0/costs`: what resources cost, and what was used up for them (ccn spec 5.7).

use super::{
    ApiError, ApiResult, State,
    paging::{PAGE, numbered},
    parameters::{Flag, Hash, Number, Parameter, Parameters, Text, Word},
    price,
    reference::{Group, Operation, Shape},
    routes::Routes,
};
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

static PAGINATION: Parameter<Number> = Parameter::number(&["pagination"], "Resources of a page.", 100, 10..=1000);
static ADDRESS: Parameter<Text> = Parameter::text(&["address"], "What this address pays for.");
static HASH: Parameter<Hash> = Parameter::hash(&["item_hash", "itemHash"], "This resource alone.");
static PAYMENT: Parameter<Word> =
    Parameter::word(&["payment_type", "paymentType"], "What is paid like that.", &["credit", "hold", "superfluid"]);
static DETAILS: Parameter<Number> = Parameter::number(
    &["include_details", "includeDetails"],
    "0 for sums alone, 1 with the resources, 2 with the rows of each, which needs `address` or `item_hash`.",
    0,
    0..=2,
);
static WITH_SIZES: Parameter<Flag> = Parameter::flag(&["include_size", "includeSize"], "Whether rows have a size.");
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
        let hash = HASH.read(parameters)?;
        let address = ADDRESS.read(parameters)?.map(str::to_owned);
        let payment = match PAYMENT.read(parameters)? {
            "hold" => PaymentRecord::Hold,
            "superfluid" => PaymentRecord::Superfluid,
            _ => PaymentRecord::Credit,
        };
        let details = DETAILS.read(parameters)?;
        if details == 2 && address.is_none() && hash.is_none() {
            let sentence = "include_details=2 needs an address or an item_hash";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, sentence).with("field", "include_details"));
        }
        let entries = PAGINATION.read(parameters)?;
        let page = PAGE.read(parameters)?;
        if (page - 1).saturating_mul(entries) > MAX_SKIPPED {
            return Err(ApiError::field("page", format!("pages end after {MAX_SKIPPED} resources: ask by address")));
        }
        let with_sizes = WITH_SIZES.read(parameters)?;
        Ok(Self { address, hash, payment, details, with_sizes, entries, page })
    }
}

pub(super) fn routes(routes: Routes) -> Routes {
    let amount = Shape::text;
    let summary = Shape::object([
        ("total_consumed_credits", Shape::whole()),
        ("total_cost_hold", amount()),
        ("total_cost_stream", amount()),
        ("total_cost_credit", amount()),
        ("resource_count", Shape::whole()),
    ]);
    let filters = Shape::object([
        ("address", Shape::text().or_null()),
        ("item_hash", Shape::hash().or_null()),
        ("payment_type", Shape::text()),
    ]);
    let resource = Shape::object([
        ("item_hash", Shape::hash()),
        ("owner", Shape::text()),
        ("payment_type", Shape::text()),
        ("consumed_credits", Shape::whole()),
        ("cost_hold", amount()),
        ("cost_stream", amount()),
        ("cost_credit", amount()),
        ("detail", Shape::list(price::row_shape()).optional()),
    ]);
    let sums = Shape::object([("summary", summary), ("filters", filters)]);
    let listed = sums.clone().and([("resources", Shape::list(resource))]).and(numbered());
    let operation = Operation::new(Group::Prices, "What resources cost, and what was used up for them")
        .query([&ADDRESS, &HASH, &PAYMENT, &DETAILS, &WITH_SIZES, &PAGINATION, &PAGE])
        .answers("Sums, and the resources when they are asked for.", &Shape::any_of([sums, listed]))
        .refuses(400, "All rows of all resources are too much.");
    routes.get("/api/v0/costs", list, operation)
}

async fn list(state: State, parameters: Parameters) -> ApiResult<Response> {
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
