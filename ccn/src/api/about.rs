//! What the node says of itself.

use super::{
    ApiResult, State,
    reference::{Group, Operation, Shape},
    routes::Routes,
};
use crate::store::{Reader as _, Snapshot, schema::Table};
use axum::{
    Json,
    response::{Html, IntoResponse, Response},
};
use serde_json::json;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Most waiting messages that are counted for the page.
const MAX_COUNTED: usize = 10_000;

pub(super) fn routes(routes: Routes) -> Routes {
    let node = |summary| Operation::new(Group::Node, summary);
    let version_of = || node("The node's version").answers("It.", &Shape::object([("version", Shape::text())]));
    let addresses = Shape::object([("node_multi_addresses", Shape::list(Shape::text()))]);
    routes
        .get(
            "/",
            page,
            node("The node for people").answers_with(200, "A page.", "text/html; charset=utf-8", &Shape::text()),
        )
        .get("/version", version, version_of())
        .get("/api/v0/version", version, version_of())
        .get(
            "/api/v0/info/public.json",
            public,
            node("Where other nodes reach this one").answers("Its addresses.", &addresses),
        )
}

async fn version() -> Response {
    Json(json!({"version": VERSION})).into_response()
}

/// Addresses under which other nodes reach this one; it does not gossip yet.
async fn public() -> Response {
    Json(json!({"node_multi_addresses": []})).into_response()
}

/// A page for people.
async fn page(state: State) -> ApiResult<Response> {
    let read = |snapshot: &Snapshot| {
        let processed = snapshot.message_count()?;
        let waiting = snapshot.range(Table::Pending, &[], &[u8::MAX; 8], MAX_COUNTED, false)?.len();
        Ok((processed, waiting))
    };
    let (processed, waiting) = state.read(read).await?;
    let service = &state.service;
    let waiting = if waiting < MAX_COUNTED { waiting.to_string() } else { format!("{MAX_COUNTED} and more") };
    let row = |name: &str, value: String| format!("<tr><th>{name}</th><td>{}</td></tr>\n", escaped(&value));
    let plugins = service.plugins.all();
    let types: Vec<String> = plugins.iter().flat_map(|plugin| plugin.manifest().types.clone()).collect();
    let crns: Vec<String> = service.config.crns.iter().map(|crn| format!("{} ({})", crn.name, crn.url)).collect();
    let rows = [
        row("version", VERSION.to_owned()),
        row("network", service.config.network.name.clone()),
        row("messages processed", processed.to_string()),
        row("messages waiting", waiting),
        row("message types", types.join(", ")),
        row("compute nodes", if crns.is_empty() { "none linked".to_owned() } else { crns.join(", ") }),
    ];
    let links = [
        ("/api/v0/messages.json", "the newest messages"),
        ("/api/v0/plugins", "plugins"),
        ("/api/v0/plan", "what runs where"),
        ("/docs", "the reference of this interface"),
    ];
    let links: String = links.iter().map(|(path, text)| format!("<li><a href=\"{path}\">{text}</a></li>\n")).collect();
    Ok(Html(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Core channel node</title>\n\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem}}\
         th{{text-align:left;padding-right:2rem;font-weight:500}}td{{overflow-wrap:anywhere}}</style></head>\n\
         <body><h1>Core channel node</h1>\n<table>\n{}</table>\n<ul>\n{links}</ul></body></html>\n",
        rows.concat()
    ))
    .into_response())
}

/// Text inside a page.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_markup() {
        assert_eq!(escaped("<b>\"&\"</b>"), "&lt;b&gt;&quot;&amp;&quot;&lt;/b&gt;");
    }
}
