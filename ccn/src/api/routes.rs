//! The table of routes: each is added with what it does, so that none is served that the reference does not describe.

use super::{Api, parameters::Described, reference::Operation};
use axum::{
    Extension, Router,
    handler::Handler,
    routing::{MethodRouter, get, post},
};
use std::sync::Arc;

/// A route as the reference describes it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// In small letters.
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) operation: Operation,
}

/// Routes that are served, and what they do.
#[derive(Default)]
pub(super) struct Routes {
    router: Router<Arc<Api>>,
    entries: Vec<Entry>,
}

impl Routes {
    /// Serves a path for those who read.
    pub(super) fn get<H, T>(self, path: &'static str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, Arc<Api>>,
        T: 'static,
    {
        self.add("get", path, get(handler), operation)
    }

    /// Serves a path for those who send something.
    pub(super) fn post<H, T>(self, path: &'static str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, Arc<Api>>,
        T: 'static,
    {
        self.add("post", path, post(handler), operation)
    }

    fn add(
        mut self,
        method: &'static str,
        path: &'static str,
        handler: MethodRouter<Arc<Api>>,
        operation: Operation,
    ) -> Self {
        let described = Described(operation.query_names().into());
        self.router = self.router.route(path, handler.layer(Extension(described)));
        self.entries.push(Entry { method, path, operation });
        self
    }

    /// With those of a part of the interface.
    pub(super) fn with(self, part: fn(Self) -> Self) -> Self {
        part(self)
    }

    /// The routes themselves, and what they do.
    pub(super) fn split(self) -> (Router<Arc<Api>>, Vec<Entry>) {
        (self.router, self.entries)
    }
}
