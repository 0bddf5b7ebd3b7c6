//! The reference against the node: what is served is described, what is described is served, and every answer that these tests see is one that it tells of.

use super::*;
use crate::{
    api::{bounded, reference::Shape, router, routes::Routes, uploads},
    host::Manifest,
};
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
    if let Err(problem) = conforms(&answer.json(), &described["schema"], &document["components"]["schemas"]) {
        panic!("{place} is not of the shape that is described: {problem}: {}", answer.text());
    }
}

/// Holds a value against a schema. It knows the words that [`crate::api::reference::Shape`] and the manifests write, and no others.
fn conforms(value: &Value, schema: &Value, named: &Value) -> Result<(), String> {
    let members = schema.as_object().ok_or("a schema is an object")?;
    let kinds = |of: &Value| of.as_array().cloned().unwrap_or_else(|| vec![of.clone()]);
    for (word, given) in members {
        let holds = match word.as_str() {
            "$ref" => {
                let name = given.as_str().and_then(|name| name.rsplit('/').next()).unwrap_or_default();
                conforms(value, &named[name], named).map(|()| true)?
            }
            "type" => kinds(given).iter().any(|kind| is_a(value, kind.as_str().unwrap_or_default())),
            "enum" => given.as_array().is_some_and(|words| words.contains(value)),
            "anyOf" => {
                let tried = given.as_array().ok_or("a list")?.iter().map(|one| conforms(value, one, named));
                let problems: Vec<String> = tried.filter_map(Result::err).collect();
                if problems.len() == given.as_array().map_or(0, Vec::len) {
                    return Err(problems.join(", and "));
                }
                true
            }
            "minimum" => value.as_f64().is_none_or(|number| number >= given.as_f64().unwrap_or_default()),
            "pattern" => value.as_str().is_none_or(|text| ItemHash::parse(text).is_ok()),
            "items" => {
                for (place, item) in value.as_array().into_iter().flatten().enumerate() {
                    conforms(item, given, named).map_err(|problem| format!("[{place}] {problem}"))?;
                }
                true
            }
            "required" => {
                let mut required = given.as_array().into_iter().flatten().filter_map(Value::as_str);
                let missing = required.find(|name| value.is_object() && value.get(name).is_none());
                missing.map_or(Ok(true), |name| Err(format!("lacks {name}")))?
            }
            "properties" | "additionalProperties" => true,
            "format" | "description" => true,
            other => return Err(format!("{other} is no word that is known here")),
        };
        if !holds {
            return Err(format!("{word} is {given}, and not {value}"));
        }
    }
    for (name, member) in value.as_object().into_iter().flatten() {
        let schema = members.get("properties").and_then(|properties| properties.get(name));
        match (schema, members.get("additionalProperties")) {
            (None, Some(Value::Bool(false))) => return Err(format!("has {name}")),
            (Some(schema), _) | (None, Some(schema @ Value::Object(_))) => {
                conforms(member, schema, named).map_err(|problem| format!("{name}: {problem}"))?;
            }
            (None, _) => {}
        }
    }
    Ok(())
}

fn is_a(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is no type"),
    }
}

#[test]
fn what_does_not_conform_is_found() {
    let shape = Shape::object([("a", Shape::list(Shape::whole())), ("b", Shape::text().or_null().optional())]);
    let check = |value: Value, problem: &str| {
        let found = conforms(&value, &shape.schema(), &json!({})).err().unwrap_or_default();
        assert!(found.contains(problem) && found.is_empty() == problem.is_empty(), "{value}: {found}");
    };
    check(json!({"a": [1], "b": null}), "");
    check(json!({"a": []}), "");
    check(json!({"b": "x"}), "lacks a");
    check(json!({"a": [], "c": 1}), "has c");
    check(json!({"a": [1, -1]}), "a: [1] minimum");
    check(json!({"a": [], "b": 1}), "b: type");
    check(json!([]), "type");
}

/// The patterns of the paths that a router serves.
fn served(router: &axum::Router) -> BTreeSet<String> {
    let shown = format!("{router:?}");
    let paths = shown.split("RouteId(").filter_map(|part| part.split_once("): \"")?.1.split_once('"'));
    // What nobody has is the fallback's.
    paths.map(|(path, _)| path.to_owned()).filter(|path| !path.starts_with("/{*")).collect()
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
        assert_eq!(other.status, 405, "{pattern}: {}", other.text());
        assert!(!other.header("allow").is_empty(), "{pattern}");
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
        // What is no websocket is refused for that then.
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
    let body = post_json("/api/v0/digest/verify", &json!({})).await.refused(401, "only the operator");
    assert_eq!(body["code"], "unauthorized");
    let wrong = client().post(format!("{}/api/v0/digest/verify", NODE.url)).bearer_auth("wrong");
    send(wrong).await.refused(403, "only the operator");
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
