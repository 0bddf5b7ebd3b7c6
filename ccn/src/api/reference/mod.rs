//! The reference of the interface: an OpenAPI 3.1 document, made from the table of the routes that are served and from what plugins say of theirs, and
//! a page that shows it to people.
//!
//! | file | what it has |
//! |---|---|
//! | `operation` | what one route does |
//! | `shape` | shapes of JSON values |
//! | `document` | the document: routes, plugins, shapes that have names |
//! | `page` | the page, which is one file without anything of others |

mod document;
mod operation;
mod page;
mod shape;

pub(super) use document::Reference;
pub(super) use operation::{Group, Operation};
pub(super) use shape::Shape;

use super::{State, routes::Routes};
use axum::{
    Json,
    response::{IntoResponse, Response},
};

pub(super) fn routes(routes: Routes) -> Routes {
    let document = || {
        Operation::new(Group::Node, "This document")
            .about("OpenAPI 3.1, made from the routes that this node serves, with those of its plugins.")
            .answers("The document.", &Shape::any_object())
    };
    let page = || {
        Operation::new(Group::Node, "The reference for people")
            .about("A page that lists what is here, and sends requests to try.")
            .answers_with(200, "A page.", "text/html; charset=utf-8", &Shape::text())
    };
    routes
        .get("/api/v0/openapi.json", current, document())
        .get("/api/openapi.json", current, document())
        .get("/docs", page::show, page())
        .get("/api/docs", page::show, page())
}

async fn current(state: State) -> Response {
    let service = &state.service;
    let handlers = service.plugins.all();
    let manifests = handlers.iter().map(|plugin| plugin.manifest()).chain(service.chains.manifests());
    Json(state.reference.document(manifests)).into_response()
}
