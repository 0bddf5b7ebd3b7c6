//! How far chains are followed.

use super::State;
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde_json::json;

pub(super) async fn list(state: State) -> Response {
    Json(json!({"chains": state.service.chains.status()})).into_response()
}
