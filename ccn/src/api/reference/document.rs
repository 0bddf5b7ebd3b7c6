//! The OpenAPI document.

use super::{
    Shape,
    operation::{ERROR, Group, OPERATOR, TOO_LONG, error, id},
};
use crate::{
    api::{element, error::CODES, routes::Entry},
    host::{Manifest, QueryParameter},
};
use serde_json::{Map, Value, json};

/// What is said of the whole interface.
const ABOUT: &str = "The HTTP interface of a core channel node of the Aleph Cloud network: messages, files, accounts, prices, and what runs where. \
    Browsers may call it from anywhere. Errors are JSON with a code, a sentence, and the field that is wrong where there is one.";

/// What can be said of the interface at all times.
#[derive(Debug)]
pub(in crate::api) struct Reference {
    paths: Map<String, Value>,
}

impl Reference {
    pub(in crate::api) fn of(entries: &[Entry]) -> Self {
        let mut paths = Map::new();
        for Entry { method, path, operation } in entries {
            let methods = paths.entry((*path).to_owned()).or_insert_with(|| json!({}));
            methods[*method] = operation.described(method, path);
        }
        Self { paths }
    }

    /// The document, with the routes of these plugins.
    pub(in crate::api) fn document<'a>(&self, plugins: impl Iterator<Item = &'a Manifest>) -> Value {
        let mut paths = self.paths.clone();
        let mut groups: Vec<Value> =
            Group::ALL.iter().map(|group| json!({"name": group.name(), "description": group.about()})).collect();
        for manifest in plugins.filter(|manifest| !manifest.routes.is_empty()) {
            groups.push(json!({
                "name": group_of(manifest),
                "description": format!("Answered by the plugin {} {}.", manifest.name, manifest.version),
            }));
            for route in &manifest.routes {
                // A route of the node's own comes first.
                paths.entry(route.clone()).or_insert_with(|| json!({"get": of_plugin(manifest, route)}));
            }
        }
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Core channel node",
                "description": ABOUT,
                "version": env!("CARGO_PKG_VERSION"),
                "license": {"name": "MIT", "identifier": "MIT"},
            },
            "servers": [{"url": "/"}],
            "tags": groups,
            "paths": paths,
            "components": {
                "schemas": {
                    ERROR: error_shape().schema(),
                    element::NAME: element::shape().schema(),
                    element::CONFIRMATION: element::confirmation().schema(),
                },
                "securitySchemes": {
                    OPERATOR: {
                        "type": "http",
                        "scheme": "bearer",
                        "description": "The word in the node's data folder, which its command line reads.",
                    },
                },
            },
        })
    }
}

/// The heading of a plugin's routes.
fn group_of(manifest: &Manifest) -> String {
    format!("plugin: {}", manifest.name)
}

/// Errors, all of which have this form.
fn error_shape() -> Shape {
    Shape::open_object([
        ("error", Shape::text().about("A sentence that says what is wrong, and what to do.")),
        ("code", Shape::words(&CODES.map(|(_, word)| word)).about("What kind of error it is, for programs.")),
        ("field", Shape::text().about("Where in the request the error is; members of members after a dot.").optional()),
        ("error_code", Shape::integer().about("The network's number for why a message is refused.").optional()),
        ("details", Shape::anything().about("What the message type says of it.").optional()),
    ])
}

/// What is known of a plugin's route: what it says of it, or else the parts of its path.
fn of_plugin(manifest: &Manifest, route: &str) -> Value {
    let said = manifest.operations.iter().find(|operation| operation.routes.iter().any(|each| each == route));
    let parameter = |name: &str| {
        let schema = Shape::text().with("minLength", 1).schema();
        json!({"name": name, "in": "path", "required": true, "schema": schema})
    };
    let names = route.split('{').skip(1).filter_map(|part| part.split_once('}')).map(|(name, _)| name);
    let mut parameters: Vec<Value> = names.map(parameter).collect();
    for asked in said.into_iter().flat_map(|operation| &operation.query) {
        let QueryParameter { name, description, schema } = asked;
        let is_list = schema["type"] == "array";
        let parameter = json!({"name": name, "in": "query", "description": description, "schema": schema});
        parameters.push(if is_list { with(parameter, "explode", false) } else { parameter });
    }
    let answer = said.and_then(|operation| operation.answer.clone()).unwrap_or_else(|| Shape::anything().schema());
    let described = json!({
        "operationId": id("get", route),
        "tags": [group_of(manifest)],
        "summary": said.map_or_else(|| format!("Answered by the plugin {}", manifest.name), |said| said.summary.clone()),
        "parameters": parameters,
        "responses": {
            "200": {
                "description": "What the plugin answers.",
                "content": {"application/json": {"schema": answer}},
            },
            "4XX": error("What the plugin says is wrong."),
            "414": {"description": TOO_LONG},
            "5XX": error("The plugin or the node cannot answer."),
        },
    });
    match said.and_then(|said| said.description.as_deref()) {
        Some(about) => with(described, "description", about),
        None => described,
    }
}

/// An object with one more member.
fn with(mut object: Value, name: &str, value: impl Into<Value>) -> Value {
    object[name] = value.into();
    object
}
