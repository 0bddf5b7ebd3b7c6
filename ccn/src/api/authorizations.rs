//! Who may act for whom: what an address has granted, and what it was granted (ccn spec 5.4).

use super::{
    ApiError, ApiResult, State,
    paging::{self, Paging},
    parameters::{List, Number, Parameter, Parameters, Text},
    reference::{Group, Operation, Shape},
    routes::Routes,
};
use crate::store::{Snapshot, StoreError, grantees, record::AuthorizationRecord};
use axum::{
    Json,
    extract::Path,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

/// Addresses of a page.
static PAGINATION: Parameter<Number> =
    Parameter::number(&["pagination"], "Addresses of a page, with a cursor no more than 200.", 20, 1..=500);
static CHANNELS: Parameter<List> = Parameter::list(&["channels"], "Grants for these channels, or for any.");
static TYPES: Parameter<List> = Parameter::list(&["types"], "Grants for these message types, or for any.");
static CHAINS: Parameter<List> = Parameter::list(&["chains"], "Grants for these chains, or for any.");
static POST_TYPES: Parameter<List> =
    Parameter::list(&["postTypes", "post_types"], "Grants for posts of these types, or for any.");
static AGGREGATE_KEYS: Parameter<List> =
    Parameter::list(&["aggregateKeys", "aggregate_keys"], "Grants for these keys of aggregates, or for any.");
static GRANTEE: Parameter<Text> = Parameter::text(&["grantee"], "What this address was granted.");
static GRANTER: Parameter<Text> = Parameter::text(&["granter"], "What this address has granted.");
/// Most owners that are looked at for one answer.
const MAX_GRANTERS: usize = 10_000;
/// The labels of messages that grants restrict, and what clients call that.
const RESTRICTED: [(&str, &str); 2] = [("content-type", "post_types"), ("content-key", "aggregate_keys")];

pub(super) fn routes(routes: Routes) -> Routes {
    let restriction = || Shape::list(Shape::text()).optional();
    let grant = Shape::object([
        ("chain", Shape::text().optional()),
        ("channels", restriction()),
        ("types", restriction()),
        ("post_types", restriction()),
        ("aggregate_keys", restriction()),
    ]);
    let page = paging::pages(Shape::object([
        ("authorizations", Shape::map(Shape::list(grant)).about("Grants by the other address.")),
        ("address", Shape::text()),
    ]));
    let operation = |summary, other: &'static Parameter<Text>| {
        let address = Shape::text().with("pattern", r"^[^/]+\.json$");
        Operation::new(Group::Accounts, summary)
            .path("address", "An address, spelled as in its messages, and `.json`.", &address)
            .query([
                other,
                &CHANNELS,
                &TYPES,
                &CHAINS,
                &POST_TYPES,
                &AGGREGATE_KEYS,
                &PAGINATION,
                &paging::PAGE,
                &paging::CURSOR,
            ])
            .answers("A page of grants.", &page)
            .refuses(404, "It does not end with `.json`.")
    };
    let granted = operation("Who may act for an address", &GRANTEE);
    let received = operation("For whom an address may act", &GRANTER);
    routes.get("/api/v0/authorizations/granted/{address}", of_granter, granted).get(
        "/api/v0/authorizations/received/{address}",
        of_grantee,
        received,
    )
}

/// What grants are asked for: each restriction lets those pass that do not restrict at all.
struct Wanted {
    channels: Vec<String>,
    kinds: Vec<String>,
    chains: Vec<String>,
    /// By the labels of [`RESTRICTED`].
    labels: [Vec<String>; 2],
    /// Of this address alone.
    other: Option<String>,
}

impl Wanted {
    fn read(given: &Parameters, other: &Parameter<Text>) -> ApiResult<Self> {
        Ok(Self {
            channels: CHANNELS.read(given)?,
            kinds: TYPES.read(given)?,
            chains: CHAINS.read(given)?,
            labels: [POST_TYPES.read(given)?, AGGREGATE_KEYS.read(given)?],
            other: other.read(given)?.map(str::to_owned),
        })
    }

    fn matches(&self, entry: &AuthorizationRecord) -> bool {
        let meet = |wanted: &[String], allowed: &[String]| {
            wanted.is_empty() || allowed.is_empty() || wanted.iter().any(|each| allowed.contains(each))
        };
        let labelled = RESTRICTED.iter().zip(&self.labels);
        meet(&self.channels, &entry.channels)
            && meet(&self.kinds, &entry.kinds)
            && meet(&self.chains, entry.chain.as_slice())
            && labelled.into_iter().all(|((label, _), wanted)| meet(wanted, restriction(entry, label)))
    }

    fn is_other(&self, address: &str) -> bool {
        self.other.as_ref().is_none_or(|other| other == address)
    }
}

fn restriction<'a>(entry: &'a AuthorizationRecord, label: &str) -> &'a [String] {
    entry.labels.iter().find(|(name, _)| name == label).map_or(&[], |(_, values)| values)
}

/// A grant without the address to which it was given.
fn shown(entry: &AuthorizationRecord) -> Value {
    let mut shown = Map::new();
    if let Some(chain) = &entry.chain {
        shown.insert("chain".into(), chain.as_str().into());
    }
    let mut list = |name: &str, values: &[String]| {
        if !values.is_empty() {
            shown.insert(name.into(), values.into());
        }
    };
    list("channels", &entry.channels);
    list("types", &entry.kinds);
    for (label, name) in RESTRICTED {
        list(name, restriction(entry, label));
    }
    shown.into()
}

/// By address, in their order.
type Grants = Vec<(String, Vec<Value>)>;

fn granted(snapshot: &Snapshot, address: &str, wanted: &Wanted) -> Result<Grants, StoreError> {
    let record = grantees::granted(snapshot, address)?;
    let mut grants = std::collections::BTreeMap::<String, Vec<Value>>::new();
    let entries = record.map(|record| record.entries).unwrap_or_default();
    for entry in entries.iter().filter(|entry| wanted.is_other(&entry.address) && wanted.matches(entry)) {
        grants.entry(entry.address.clone()).or_default().push(shown(entry));
    }
    Ok(grants.into_iter().collect())
}

fn received(snapshot: &Snapshot, address: &str, wanted: &Wanted) -> Result<Grants, StoreError> {
    let mut grants = Grants::new();
    for owner in grantees::granters(snapshot, address).take(MAX_GRANTERS) {
        let owner = owner?;
        if !wanted.is_other(&owner) {
            continue;
        }
        let Some(record) = grantees::granted(snapshot, &owner)? else { continue };
        let entries = record.entries.iter().filter(|entry| entry.address == address && wanted.matches(entry));
        let entries: Vec<Value> = entries.map(shown).collect();
        if !entries.is_empty() {
            grants.push((owner, entries));
        }
    }
    Ok(grants)
}

async fn answer(
    state: State,
    path: String,
    parameters: Parameters,
    other: &Parameter<Text>,
    find: fn(&Snapshot, &str, &Wanted) -> Result<Grants, StoreError>,
) -> ApiResult<Response> {
    let not_here = || ApiError::not_found("authorizations are at …/ADDRESS.json");
    let address = path.strip_suffix(".json").ok_or_else(not_here)?.to_owned();
    let wanted = Wanted::read(&parameters, other)?;
    let paging = Paging::read(&parameters, &PAGINATION)?;
    let work = move |snapshot: &Snapshot| {
        let grants = find(snapshot, &address, &wanted)?;
        let [skip, limit] = [paging.skip(), paging.limit()].map(|number| usize::try_from(number).unwrap_or(usize::MAX));
        let after = paging.after("a")?;
        let total = grants.len() as u64;
        let mut left =
            grants.into_iter().filter(|(other, _)| after.is_none_or(|after| other.as_str() > after)).skip(skip);
        let page: Vec<(String, Vec<Value>)> = left.by_ref().take(limit).collect();
        let next = page.last().filter(|_| left.next().is_some()).map(|(other, _)| json!({"a": other}));
        let page: Map<String, Value> = page.into_iter().map(|(other, entries)| (other, entries.into())).collect();
        let answer = json!({"authorizations": page, "address": address});
        Ok(Json(paging.answer(answer, "authorizations", total, next)?).into_response())
    };
    state.read(work).await
}

/// What an address allows others to do for it.
async fn of_granter(state: State, Path(path): Path<String>, parameters: Parameters) -> ApiResult<Response> {
    answer(state, path, parameters, &GRANTEE, granted).await
}

/// What others allow an address to do for them.
async fn of_grantee(state: State, Path(path): Path<String>, parameters: Parameters) -> ApiResult<Response> {
    answer(state, path, parameters, &GRANTER, received).await
}
