//! What the network's prober measures of nodes: posts of one type by its accounts become series by node (ccn spec 2.7 and 5.8). From anybody else,
//! a post of the same type is a post.

use crate::{
    ledger::{is_in_channel, is_of},
    state::MEASUREMENT,
};
use plugin_sdk::{
    Message, Request, Response, View, Write,
    answer::{self, parameter, wrong},
    layout::{Key, Moment, delete, end_of, put},
    message::content::post::PostContent,
};
use serde::Deserialize;
use serde_json::{Map, Number, Value, json};

/// Setting: who measures nodes, a comma-separated list.
const PROBERS: &str = "metrics.publishers";
/// Setting: the channel in which measurements are published.
const CHANNEL: &str = "metrics.channel";
const KIND: &str = "aleph-network-metrics";

/// Most nodes of a kind that one message measures.
const MAX_NODES: usize = 1500;
/// Most measurements of an answer.
const MAX_ROWS: usize = 10_000;
/// Rows that are read at a time.
const PAGE: u32 = 500;
/// What is shown without dates: so many seconds up to the last measurement.
const USUAL_SPAN: f64 = 14.0 * 86_400.0;

/// A kind of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Core,
    Compute,
}

impl Role {
    fn letter(self) -> &'static str {
        match self {
            Self::Core => "c",
            Self::Compute => "r",
        }
    }

    /// What is measured, in the order of the answer.
    fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Core => &[
                "base_latency",
                "base_latency_ipv4",
                "metrics_latency",
                "aggregate_latency",
                "file_download_latency",
                "pending_messages",
                "eth_height_remaining",
            ],
            Self::Compute => &["base_latency", "base_latency_ipv4", "full_check_latency", "diagnostic_vm_latency"],
        }
    }

    /// The beginning of the keys of a node.
    fn prefix(self, node: &str) -> Vec<u8> {
        Key::of(MEASUREMENT).text(self.letter()).text(node).done()
    }
}

#[derive(Deserialize)]
struct Payload {
    metrics: Metrics,
}

#[derive(Deserialize, Default)]
struct Metrics {
    #[serde(default)]
    ccn: Vec<Value>,
    #[serde(default)]
    crn: Vec<Value>,
}

/// What is kept of a measurement: a number for each column, or null.
type Figures = Vec<Option<Number>>;

/// A measurement of a node.
struct Measurement {
    key: Vec<u8>,
    figures: Figures,
}

/// The measurements of a post; none of one that is no prober's. An entry that is none is passed over: the post is what it is without it.
fn measurements(message: &Message, content: &PostContent<'_>, view: &dyn View) -> Vec<Measurement> {
    if content.kind != KIND || !is_of(PROBERS, message, view) || !is_in_channel(CHANNEL, message, view) {
        return Vec::new();
    }
    let payload = content.content.as_ref().and_then(|payload| serde_json::from_str::<Payload>(payload.text()).ok());
    let Some(Payload { metrics }) = payload else { return Vec::new() };
    let of = |role: Role, nodes: Vec<Value>| {
        nodes.into_iter().take(MAX_NODES).filter_map(move |node| measurement(message, role, &node))
    };
    of(Role::Core, metrics.ccn).chain(of(Role::Compute, metrics.crn)).collect()
}

fn measurement(message: &Message, role: Role, node: &Value) -> Option<Measurement> {
    let name = node.get("node_id")?.as_str()?;
    let at = node.get("measured_at")?.as_f64().filter(|at| at.is_finite() && *at >= 0.0)?;
    let mut key = role.prefix(name);
    let moment = Moment { time: at, item_hash: message.item_hash.clone() };
    key.extend(Key::of(0).moment(&moment).split_off(1));
    let figures = role.columns().iter().map(|column| match node.get(*column) {
        Some(Value::Number(number)) => Some(number.clone()),
        _ => None,
    });
    Some(Measurement { key, figures: figures.collect() })
}

/// What a post adds.
pub(crate) fn put_all(message: &Message, content: &PostContent<'_>, view: &dyn View) -> Vec<Write> {
    let row = |found: Measurement| put(found.key, serde_json::to_vec(&found.figures).unwrap_or_default());
    measurements(message, content, view).into_iter().map(row).collect()
}

/// What goes with a post.
pub(crate) fn delete_all(message: &Message, content: &PostContent<'_>, view: &dyn View) -> Vec<Write> {
    measurements(message, content, view).into_iter().map(|found| delete(found.key)).collect()
}

/// Answers with the measurements of a node, each column as a list.
pub(crate) fn answer(request: &Request, view: &dyn View) -> Response {
    series(request, view).unwrap_or_else(|refusal| refusal)
}

/// True for a path of measurements.
pub(crate) fn is_asked(request: &Request) -> bool {
    request.route.ends_with("/metrics")
}

fn date(request: &Request, names: &[&str]) -> Result<Option<f64>, Response> {
    let Some(text) = parameter(request, names) else { return Ok(None) };
    let seconds = text.parse().ok().filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0);
    seconds.map(Some).ok_or_else(|| wrong(names[0], "seconds since 1970 were expected"))
}

fn series(request: &Request, view: &dyn View) -> Result<Response, Response> {
    let role = if request.route.starts_with("/api/v0/core/") { Role::Core } else { Role::Compute };
    let prefix = role.prefix(answer::path(request, "node_id"));
    let descending = match parameter(request, &["sort"]).map(str::to_ascii_lowercase).as_deref() {
        None | Some("asc" | "1") => false,
        Some("desc" | "-1") => true,
        Some(_) => return Err(wrong("sort", "ASC or DESC was expected")),
    };
    let (start, end) = (date(request, &["start_date", "startDate"])?, date(request, &["end_date", "endDate"])?);
    if let (Some(start), Some(end)) = (start, end)
        && end < start
    {
        return Err(wrong("end_date", "must not be before start_date"));
    }
    let time_of = |key: &[u8]| Moment::of_key(&prefix, key);
    let at = |seconds: f64| [&prefix[..], &Key::of(0).time(seconds).done()[1..]].concat();
    let last = end.map_or_else(|| end_of(&prefix), at);
    let start = match start {
        Some(start) => start,
        None => {
            let newest = view.scan(&prefix, &last, 1, true).items;
            let newest = newest.first().and_then(|(key, _)| time_of(key)).map_or(0.0, |moment| moment.time);
            (newest - USUAL_SPAN).max(0.0)
        }
    };
    let rows = rows(at(start), last, descending, view)?;
    if rows.is_empty() {
        return Err(answer::error(404, "nothing is known of such a node at that time"));
    }
    let names = ["item_hash", "measured_at"].iter().chain(role.columns());
    let mut columns: Vec<Vec<Value>> = names.clone().map(|_| Vec::with_capacity(rows.len())).collect();
    for (key, value) in &rows {
        let Some(moment) = time_of(key) else { continue };
        let figures: Figures = serde_json::from_slice(value).unwrap_or_default();
        let figures = figures.into_iter().map(|figure| figure.map_or(Value::Null, Value::Number));
        let values = [json!(moment.item_hash), json!(moment.time)].into_iter().chain(figures);
        for (column, value) in columns.iter_mut().zip(values) {
            column.push(value);
        }
    }
    let metrics: Map<String, Value> =
        names.map(|name| (*name).to_owned()).zip(columns.into_iter().map(Value::Array)).collect();
    Ok(answer::json_response(200, &json!({ "metrics": metrics })))
}

/// A key and its value.
type Row = (Vec<u8>, Vec<u8>);

/// All rows between two keys, as many as an answer has.
fn rows(mut start: Vec<u8>, mut end: Vec<u8>, descending: bool, view: &dyn View) -> Result<Vec<Row>, Response> {
    let mut rows = Vec::new();
    loop {
        let page = view.scan(&start, &end, PAGE, descending);
        let Some((key, _)) = page.items.last() else { return Ok(rows) };
        if descending {
            end.clone_from(key);
        } else {
            start.clone_from(key);
            start.push(0);
        }
        rows.extend(page.items);
        if rows.len() > MAX_ROWS {
            let sentence = format!("more than {MAX_ROWS} measurements are in this time: ask for a shorter one");
            return Err(answer::error(413, &sentence));
        }
        if !page.more {
            return Ok(rows);
        }
    }
}

#[cfg(test)]
mod tests;
