//! `GET /api/v0/balances`: tokens by address and chain (ccn spec 5.6).

use super::{
    ApiError, ApiResult, State,
    paging::{self, Paging},
    parameters::{List, Number, Parameter, Parameters},
    reference::{Group, Operation, Shape},
    routes::Routes,
};
use crate::store::{
    Reader as _, Snapshot, Walk,
    derived::holdings_count_key,
    schema::{Key, Table, end_of, split_text},
};
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use ccn_message::{Amount, Chain};
use serde_json::{Value, json};

/// Entries of a page.
static PAGINATION: Parameter<Number> = paging::pagination(100);
static CHAINS: Parameter<List> = Parameter::list(&["chains"], "On these chains.");
static LEAST: Parameter<Number> = least_balance();
/// Rows that are read at a time.
const ROWS: usize = 256;
/// Most rows that are looked at where a bound on the balance has them counted.
const MAX_EXAMINED: u64 = 1_000_000;

/// The smallest balance that is listed.
pub(super) const fn least_balance() -> Parameter<Number> {
    Parameter::number(&["min_balance", "minBalance"], "With as much at least.", 0, 0..=u64::MAX)
}

pub(super) fn routes(routes: Routes) -> Routes {
    let balance = Shape::object([("address", Shape::text()), ("balance", Shape::number()), ("chain", Shape::text())]);
    let operation = Operation::new(Group::Accounts, "Tokens by address and chain")
        .query([&CHAINS, &LEAST, &PAGINATION, &paging::PAGE, &paging::CURSOR])
        .answers("A page of balances.", &paging::pages(Shape::object([("balances", Shape::list(balance))])));
    routes.get("/api/v0/balances", list, operation)
}

async fn list(state: State, parameters: Parameters) -> ApiResult<Response> {
    let paging = Paging::read(&parameters, &PAGINATION)?;
    let chains = CHAINS.read(&parameters)?;
    if let Some(unknown) = chains.iter().find(|chain| chain.parse::<Chain>().is_err()) {
        return Err(ApiError::field("chains", format!("`{unknown}` is not a chain")));
    }
    let least = Amount::from_integer(LEAST.read(&parameters)?.into());
    state.read(move |snapshot| page(snapshot, &paging, &chains, least)).await
}

fn page(snapshot: &Snapshot, paging: &Paging, chains: &[String], least: Amount) -> ApiResult<Response> {
    let limit = usize::try_from(paging.limit()).unwrap_or(usize::MAX);
    let (mut skip, mut total, mut examined) = (paging.skip(), 0_u64, 0_u64);
    let mut found: Vec<(String, String, Amount)> = Vec::new();
    let by_cursor = matches!(paging, Paging::After { .. });
    let counted = if least == Amount::ZERO && !by_cursor { Some(count(snapshot, chains)?) } else { None };
    let start = match paging.after("a")? {
        // Other nodes name the address alone.
        Some(address) => match paging.after("c") {
            Ok(Some(chain)) => [Key::new().text(address).text(chain).done().as_slice(), &[0]].concat(),
            _ => end_of(&Key::new().text(address).done()),
        },
        None => Vec::new(),
    };
    let mut more = false;
    for row in Walk::new(snapshot, Table::Holdings, (start, end_of(&[])), false, ROWS) {
        let (key, value) = row?;
        examined += 1;
        let Some((address, rest)) = split_text(&key) else { continue };
        let Some((chain, _)) = split_text(rest) else { continue };
        let units = value.as_slice().try_into().map(i128::from_be_bytes).unwrap_or(0);
        let amount = Amount::from_units(units);
        let is_wanted = amount >= least && (chains.is_empty() || chains.iter().any(|each| each == chain));
        if !is_wanted {
            continue;
        }
        total += 1;
        if skip > 0 {
            skip -= 1;
        } else if found.len() < limit {
            found.push((address.to_owned(), chain.to_owned(), amount));
        } else {
            more = true;
            if by_cursor || counted.is_some() || examined > MAX_EXAMINED {
                break;
            }
        }
    }
    let next = found.last().filter(|_| more).map(|(address, chain, _)| json!({"a": address, "c": chain}));
    let entry = |(address, chain, amount): &(String, String, Amount)| json!({"address": address, "balance": amount.to_f64(), "chain": chain});
    let answer = json!({"balances": found.iter().map(entry).collect::<Vec<Value>>()});
    Ok(Json(paging.answer(answer, "balances", counted.unwrap_or(total), next)?).into_response())
}

/// Balances on these chains, or on all.
fn count(snapshot: &Snapshot, chains: &[String]) -> ApiResult<u64> {
    let number = |chain: &str| snapshot.number(Table::OwnCounts, &holdings_count_key(chain));
    if chains.is_empty() {
        return Ok(number("")?);
    }
    let mut chains = chains.to_vec();
    chains.sort();
    chains.dedup();
    chains.iter().try_fold(0, |sum, chain| Ok(sum + number(chain)?))
}
