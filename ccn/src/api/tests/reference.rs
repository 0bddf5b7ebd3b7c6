//! The reference against the node: what is served is described, what is described is served, and every answer that these tests see is one that it tells of.

use super::*;
use crate::{
    api::{bounded, router, routes::Routes, uploads},
    host::Manifest,
};
use jsonschema::Draft;
use tokio::sync::OnceCell;

/// The document, as a client gets it.
async fn document() -> &'static Value {
    static DOCUMENT: OnceCell<Value> = OnceCell::const_new();
    let load = || async {
        let url = format!("{}/api/v0/openapi.json", NODE.url);
        let answer = client().get(url).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 200);
        serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON")
    };
    DOCUMENT.get_or_init(load).await
}

/// True when a path is one of a pattern's.
fn fits(pattern: &str, path: &str) -> bool {
    let (patterns, parts): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), path.split('/').collect());
    let part_fits = |(pattern, part): (&&str, &&str)| match pattern.split_once('{') {
        None => pattern == part,
        Some((before, rest)) => {
            let after = rest.split_once('}').map_or("", |(_, after)| after);
            part.len() > before.len() + after.len() && part.starts_with(before) && part.ends_with(after)
        }
    };
    patterns.len() == parts.len() && patterns.iter().zip(&parts).all(part_fits)
}

/// What the document says of a path: of several patterns, the one with the longest text of its own.
fn operation<'a>(document: &'a Value, method: &str, path: &str) -> Option<&'a Value> {
    let paths = document["paths"].as_object().expect("paths").iter();
    let matching = paths.filter(|(pattern, _)| fits(pattern, path));
    let own = |pattern: &str| pattern.split(['{', '}']).step_by(2).map(str::len).sum::<usize>();
    let (_, methods) = matching.max_by_key(|(pattern, _)| own(pattern))?;
    methods.get(if method == "head" { "get" } else { method })
}

/// Refuses an answer that the document does not tell of: its status, its form, its shape.
pub(super) async fn check(method: &str, path: &str, answer: &Answer) {
    let document = document().await;
    let Some(operation) = operation(document, method, path) else {
        let usual = method == "options" || [404, 405].contains(&answer.status);
        assert!(usual, "{method} {path} is answered {}, and not described", answer.status);
        return;
    };
    let place = format!("{method} {path}, {}", answer.status);
    let class = format!("{}XX", answer.status / 100);
    let responses = &operation["responses"];
    let response = responses.get(answer.status.to_string()).or_else(|| responses.get(&class));
    let response = response.unwrap_or_else(|| panic!("{place} is not described: {}", answer.text()));
    let Some(forms) = response.get("content").and_then(Value::as_object).filter(|_| method != "head") else { return };
    let form = answer.header("content-type");
    let described = forms.get(form).unwrap_or_else(|| panic!("{place}: {form:?} is not described"));
    if form != "application/json" {
        return;
    }
    let mut schema = described["schema"].clone();
    schema["components"] = document["components"].clone();
    let validator = jsonschema::options().with_draft(Draft::Draft202012).build(&schema).expect("a schema");
    let body = answer.json();
    let errors: Vec<String> =
        validator.iter_errors(&body).map(|error| format!("{} at {}", error, error.instance_path())).collect();
    assert!(errors.is_empty(), "{place} is not of the shape that is described: {errors:#?}\n{body}");
}

/// The patterns of the paths that a router serves.
fn served(router: &axum::Router) -> BTreeSet<String> {
    let shown = format!("{router:?}");
    let paths = shown.split("RouteId(").filter_map(|part| part.split_once("): \"")?.1.split_once('"'));
    paths.map(|(path, _)| path.to_owned()).collect()
}

#[tokio::test]
async fn what_is_served_is_described() {
    let service = NODE._node.service().clone();
    let found = served(&router(service.clone()));
    assert!(
        found.contains("/api/v0/messages/{hash}/content") && found.contains("/api/v0/storage/add_file"),
        "{found:?}"
    );
    let plugins = service.plugins.all();
    let manifests: Vec<&Manifest> = plugins.iter().map(|plugin| plugin.manifest()).collect();
    let of_plugins = manifests.iter().flat_map(|manifest| manifest.routes.iter().cloned());
    let all: BTreeSet<String> = found.iter().cloned().chain(of_plugins).collect();
    let described = document().await["paths"].as_object().expect("paths").keys().cloned().collect();
    assert_eq!(all, described);
    // The table is the only way into the router.
    let (_, entries) = bounded().split();
    let (_, of_uploads) = Routes::default().with(uploads::routes).split();
    let table: BTreeSet<String> = entries.iter().chain(&of_uploads).map(|entry| entry.path.to_owned()).collect();
    assert_eq!(found, table);
}

#[tokio::test]
async fn what_is_described_is_served() {
    let paths = document().await["paths"].as_object().expect("paths");
    assert!(paths.len() > 60, "{}", paths.len());
    for (pattern, methods) in paths {
        let parts: Vec<&str> = pattern.split(['{', '}']).collect();
        let filled: Vec<&str> =
            parts.iter().enumerate().map(|(place, part)| if place % 2 == 0 { part } else { "x" }).collect();
        for method in methods.as_object().expect("methods").keys() {
            let name = method.to_uppercase().parse().expect("a method");
            let request = client().request(name, format!("{}{}", NODE.url, filled.concat()));
            let answer = send(request).await;
            assert!(
                answer.status != 405 && !answer.text().contains("no such path"),
                "{method} {pattern}: {}",
                answer.text()
            );
        }
        let other = send(client().delete(format!("{}{}", NODE.url, filled.concat()))).await;
        assert!([404, 405].contains(&other.status), "{pattern}");
    }
}

#[tokio::test]
async fn the_document_is_one_of_openapi() {
    let document = document().await;
    assert_eq!(
        (&document["openapi"], &document["info"]["version"]),
        (&json!("3.1.0"), &json!(env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(get_json("/api/openapi.json").await["paths"], document["paths"]);
    let tags: BTreeSet<&str> =
        document["tags"].as_array().expect("a list").iter().filter_map(|tag| tag["name"].as_str()).collect();
    let mut ids = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for operation in methods.as_object().expect("methods").values() {
            assert!(ids.insert(operation["operationId"].as_str().expect("a name")), "{path}");
            assert!(tags.contains(operation["tags"][0].as_str().expect("a tag")), "{path}");
            assert!(!operation["summary"].as_str().expect("a summary").is_empty(), "{path}");
            let parameters = operation["parameters"].as_array().expect("a list");
            let places: BTreeSet<String> =
                parameters.iter().map(|one| format!("{} {}", one["in"], one["name"])).collect();
            assert_eq!(places.len(), parameters.len(), "{path}: a parameter is there twice");
            let parts = parameters.iter().filter(|one| one["in"] == "path");
            assert!(
                parts.clone().all(|part| path.contains(&format!("{{{}}}", part["name"].as_str().expect("a name"))))
            );
            assert_eq!(parts.count(), path.matches('{').count(), "{path}");
        }
    }
    // What a plugin says of its routes is there.
    let posts = &document["paths"]["/api/v0/posts.json"]["get"];
    assert_eq!(posts["tags"], json!(["plugin: post"]));
    assert!(posts["parameters"].as_array().expect("a list").iter().any(|one| one["name"] == "tags"), "{posts}");
}

#[tokio::test]
async fn bounds_are_those_that_are_kept() {
    let document = document().await;
    for (path, name) in
        [("/api/v1/vms", "page_size"), ("/api/v0/costs", "pagination"), ("/api/ws0/messages", "history")]
    {
        let parameters = document["paths"][path]["get"]["parameters"].as_array().expect("a list");
        let schema = &parameters.iter().find(|one| one["name"] == name).expect("it is there")["schema"];
        let most = schema["maximum"].as_u64().expect("a bound");
        get(&format!("{path}?{name}={}", most + 1)).await.refused(422, &format!("to {most} was expected"));
        // A websocket is refused for another reason then.
        assert_ne!(get(&format!("{path}?{name}={most}")).await.status, 422, "{path}");
    }
}

#[tokio::test]
async fn errors_have_a_code_a_sentence_and_a_field() {
    let body = get("/api/v0/messages.json?sortBy=size").await.refused(422, "sortBy: `size` is none of");
    assert_eq!((&body["code"], &body["field"]), (&json!("invalid"), &json!("sortBy")));
    let body = get("/api/v0/messages/nonsense").await.refused(400, "not an item hash");
    assert_eq!((&body["code"], &body["field"]), (&json!("bad_request"), &json!("hash")));
    let body = get("/api/v0/nothing").await.refused(404, "no such path");
    assert_eq!((&body["code"], body.get("field")), (&json!("not_found"), None));
    let body = post_json("/api/v0/messages", &json!({"message": {}})).await.refused(422, "is required");
    assert_eq!((&body["code"], &body["error_code"]), (&json!("invalid"), &json!(0)));
    assert!(body["field"].is_string(), "{body}");
    // Those of plugins, too.
    let body = get("/api/v0/aggregates?sortBy=x").await.refused(422, "sortBy: last_modified");
    assert_eq!((&body["code"], &body["field"]), (&json!("invalid"), &json!("sortBy")));
    let body = get("/api/v0/aggregates/0xNobody.json").await.refused(404, "No aggregate");
    assert_eq!(body["code"], "not_found");
}

#[tokio::test]
async fn the_page_is_served_with_its_policy() {
    for path in ["/docs", "/api/docs"] {
        let page = get(path).await;
        assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
        let policy = page.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'") && policy.contains("connect-src 'self'"), "{policy}");
        assert!(page.text().contains("<script>"));
    }
}
