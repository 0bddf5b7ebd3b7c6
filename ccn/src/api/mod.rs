//! The HTTP interface.

use crate::node::Service;
use std::sync::Arc;

/// All routes.
pub fn router(service: Arc<Service>) -> axum::Router {
    axum::Router::new().with_state(service)
}
