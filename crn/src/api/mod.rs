//! The HTTP interface: calls of programs, and what the node says of itself.

mod about;
pub mod error;
pub mod invoke;

pub use error::ApiError;

use crate::{config::Config, executor::Executor, template::Templates};
use axum::{
    Router,
    body::Body,
    extract::State,
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderValue, Method, Request, header::SERVER};
use std::sync::Arc;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};

/// Paths that are the node's own whatever the host name; what is not there is 404.
const OWN_PATHS: [&str; 5] = ["/about", "/control", "/status", "/static", "/debug"];

/// What requests are answered with.
#[derive(Debug)]
pub struct Service {
    /// The settings.
    pub config: Config,
    /// Has the machines.
    pub executor: Executor,
    /// What they go on from.
    pub templates: Templates,
    /// Why there can be no machines, if so.
    pub machines: Result<(), String>,
}

/// All routes.
pub fn router(service: Arc<Service>) -> Router {
    let server = HeaderValue::try_from(format!("aleph-vm/{}", service.config.version))
        .expect("the version was checked with the configuration");
    let own = Router::new()
        .route("/about/usage/system", get(about::usage))
        .route("/about/login", get(about::login))
        .route("/about/executions/list", get(about::executions))
        .route("/v2/about/executions/list", get(about::executions_v2))
        .route("/status/config", get(about::config))
        .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed.into_response(true) })
        // Web pages of any origin may look. Programs decide for themselves.
        .layer(
            CorsLayer::new()
                .allow_origin(AllowOrigin::mirror_request())
                .allow_methods(AllowMethods::mirror_request())
                .allow_headers(AllowHeaders::mirror_request())
                .allow_credentials(true),
        );
    own.fallback(fallback).with_state(service).layer(middleware::map_response(move |mut response: Response| {
        // Scoring knows a node by it, on whatever it answers.
        response.headers_mut().insert(SERVER, server.clone());
        std::future::ready(response)
    }))
}

/// Everything that is no route: a program by path or by host name, the index, or nothing.
async fn fallback(State(service): State<Arc<Service>>, request: Request<Body>) -> Response {
    let show_tracebacks = service.config.programs.show_tracebacks;
    answer(&service, request).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "a request was not answered by a program");
        error.into_response(show_tracebacks)
    })
}

async fn answer(service: &Service, request: Request<Body>) -> Result<Response, ApiError> {
    let path = request.uri().path();
    let is_own =
        OWN_PATHS.iter().any(|own| path.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    if is_own {
        return Err(ApiError::NotFound);
    }
    if let Some(target) = invoke::target(request.uri(), invoke::host(&request)?)? {
        return invoke::call(service, target, request).await;
    }
    if path == "/" && matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(about::index(service).await.into_response());
    }
    Err(ApiError::NotFound)
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        Self::into_response(self, true)
    }
}
