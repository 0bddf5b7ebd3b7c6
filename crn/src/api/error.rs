//! Why a call gets no answer of its program, as HTTP (spec: crn, section 3.4, with the fixes of section 11).
//!
//! The node's own errors are JSON: `{"error": sentence}`, and where there is more to say `"detail"` and
//! `"traceback"`.

use crate::{
    cache::{
        CacheError,
        program::{LookupError, Role},
    },
    ccn::CcnError,
    exchange::ExchangeError,
    executor::{CallError, StartError, state::Refusal},
    machine::MachineError,
    volume::VolumeError,
};
use axum::{
    Json,
    response::{Html, IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header::RETRY_AFTER};
use serde::Serialize;

/// The page that a browser gets while a binary does not listen yet: it tries again by itself.
const LOADING_PAGE: &str = include_str!("loading.html");

/// Seconds after which a caller may try again.
mod wait {
    /// After the program had time to answer other calls.
    pub(super) const BUSY: u64 = 1;
    /// After the network had time to process a message.
    pub(super) const PENDING: u64 = 2;
    /// After the page's own time.
    pub(super) const LOADING: u64 = 5;
    /// After a core channel node had time to come back, or a machine to end.
    pub(super) const ELSEWHERE: u64 = 10;
}

/// An error of this node.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The path names no item hash. The caller's fault; 400.
    #[error("Invalid message reference: {0}")]
    InvalidReference(String),
    /// The request has more than one `Host`. The caller's fault; 400.
    #[error("The request names more than one host")]
    ManyHosts,
    /// There is nothing of that name here. 404.
    #[error("404: Not Found")]
    NotFound,
    /// Not for this method. 405.
    #[error("405: Method Not Allowed")]
    MethodNotAllowed,
    /// The body is longer than this node carries. 413.
    #[error("The request body is longer than {0} bytes")]
    BodyTooLong(u64),
    /// Machines do not run on this host; the operator's to mend. 503.
    #[error("This node cannot run programs: {0}")]
    NoMachines(String),
    /// The executor has no machine for the call; see [`CallError`].
    #[error("{}", call_sentence(.0))]
    Call(CallError),
    /// There was a machine, and no answer of it; see [`ExchangeError`].
    #[error("{}", exchange_sentence(.0))]
    Exchange(ExchangeError),
    /// Two machines in a row were gone before the call reached them. 502.
    #[error("VM did not respond and was shut down")]
    MachineLost,
    /// The kernel does not say how the host is. 500.
    #[error("500: {0}")]
    Host(#[from] procfs::ProcError),
}

/// A JSON error.
#[derive(Debug, Serialize)]
struct Body {
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceback: Option<String>,
}

/// What becomes of an error besides its sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Class {
    status: StatusCode,
    /// Seconds.
    retry_after: Option<u64>,
}

const fn class(status: StatusCode) -> Class {
    Class { status, retry_after: None }
}

const fn later(retry_after: u64) -> Class {
    Class { status: StatusCode::SERVICE_UNAVAILABLE, retry_after: Some(retry_after) }
}

impl ApiError {
    fn class(&self) -> Class {
        match self {
            Self::InvalidReference(_) | Self::ManyHosts => class(StatusCode::BAD_REQUEST),
            Self::NotFound => class(StatusCode::NOT_FOUND),
            Self::MethodNotAllowed => class(StatusCode::METHOD_NOT_ALLOWED),
            Self::BodyTooLong(_) => class(StatusCode::PAYLOAD_TOO_LARGE),
            Self::NoMachines(_) => class(StatusCode::SERVICE_UNAVAILABLE),
            Self::Call(refusal) => match refusal {
                Refusal::Start(error) => start_class(error),
                Refusal::Full => later(wait::ELSEWHERE),
                Refusal::TooLarge => class(StatusCode::SERVICE_UNAVAILABLE),
                Refusal::Busy => later(wait::BUSY),
                Refusal::Loading => later(wait::LOADING),
                Refusal::Draining => later(wait::ELSEWHERE),
            },
            Self::Exchange(error) => class(match error {
                ExchangeError::BodyTooLong { .. } => StatusCode::PAYLOAD_TOO_LARGE,
                ExchangeError::ClientStalled(_) => StatusCode::REQUEST_TIMEOUT,
                ExchangeError::ClientGone(_) => StatusCode::BAD_REQUEST,
                ExchangeError::Closed | ExchangeError::Garbage(_) => StatusCode::BAD_GATEWAY,
                ExchangeError::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
            }),
            Self::MachineLost => class(StatusCode::BAD_GATEWAY),
            Self::Host(_) => class(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    /// The response; `show_tracebacks` is the node's setting.
    #[must_use]
    pub fn into_response(self, show_tracebacks: bool) -> Response {
        let Class { status, retry_after } = self.class();
        let mut response = if matches!(self, Self::Call(Refusal::Loading)) {
            Html(LOADING_PAGE).into_response()
        } else {
            let (detail, traceback) = more(&self, show_tracebacks);
            Json(Body { error: self.to_string(), detail, traceback }).into_response()
        };
        *response.status_mut() = status;
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

fn start_class(error: &StartError) -> Class {
    match error {
        StartError::Lookup(error) => match error {
            LookupError::Message(error) => ccn_class(error, StatusCode::NOT_FOUND),
            LookupError::NotProgram { .. } | LookupError::Invalid { .. } => class(StatusCode::BAD_REQUEST),
            LookupError::File { role, error, .. } => match role {
                Role::Code | Role::Runtime | Role::Data => ccn_class(error, StatusCode::BAD_REQUEST),
                Role::Volume => ccn_class(error, StatusCode::INTERNAL_SERVER_ERROR),
            },
            LookupError::Unsupported(_) => class(StatusCode::NOT_IMPLEMENTED),
        },
        StartError::Files(error) => match error {
            CacheError::Ccn(error) => ccn_class(error, StatusCode::BAD_REQUEST),
            CacheError::Interrupted { .. } | CacheError::Full(_) => later(wait::ELSEWHERE),
            CacheError::Disk { .. } => class(StatusCode::INTERNAL_SERVER_ERROR),
            CacheError::Unsupported(_) => class(StatusCode::NOT_IMPLEMENTED),
        },
        StartError::Volume(error) => match error {
            VolumeError::Full { .. } | VolumeError::InUse { .. } => later(wait::ELSEWHERE),
            VolumeError::Length { .. } | VolumeError::Disk { .. } => class(StatusCode::INTERNAL_SERVER_ERROR),
        },
        StartError::Stopped | StartError::Network(_) => later(wait::ELSEWHERE),
        StartError::Machine(_)
        | StartError::Guest(_)
        | StartError::Ended(_)
        | StartError::BootTimedOut(_)
        | StartError::NotFrozen(_)
        | StartError::StartTimedOut(_)
        | StartError::Program(_)
        | StartError::Exited(_)
        | StartError::Defect => class(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// `absent` is the status for what the network does not have.
fn ccn_class(error: &CcnError, absent: StatusCode) -> Class {
    match error {
        CcnError::Unreachable { .. } => later(wait::ELSEWHERE),
        CcnError::Status { .. } if error.is_transient() => later(wait::ELSEWHERE),
        CcnError::Status { .. } | CcnError::Mismatch { .. } | CcnError::Malformed { .. } => {
            class(StatusCode::BAD_GATEWAY)
        }
        CcnError::Unknown(_) | CcnError::Rejected(_) => class(absent),
        CcnError::Gone { .. } if absent == StatusCode::NOT_FOUND => class(StatusCode::GONE),
        CcnError::Gone { .. } => class(absent),
        CcnError::Pending(_) => later(wait::PENDING),
        CcnError::Unsupported(_) => class(StatusCode::NOT_IMPLEMENTED),
    }
}

fn call_sentence(refusal: &CallError) -> String {
    match refusal {
        Refusal::Start(error) => start_sentence(error),
        Refusal::Full | Refusal::TooLarge => "This CRN cannot host the requested workload at this time.".to_owned(),
        Refusal::Busy => "Too many calls of this program at once".to_owned(),
        Refusal::Loading => "VM Loading".to_owned(),
        Refusal::Draining => "Server is draining, try another node".to_owned(),
    }
}

fn start_sentence(error: &StartError) -> String {
    match error {
        StartError::Lookup(LookupError::File { role: Role::Code | Role::Runtime | Role::Data, .. })
        | StartError::Files(CacheError::Ccn(_)) => "Code, runtime or data not available".to_owned(),
        StartError::Lookup(LookupError::File { role: Role::Volume, error, .. }) => error.to_string(),
        StartError::Lookup(error) => error.to_string(),
        StartError::Files(error) => error.to_string(),
        // What is wrong with a file of the host is its operator's: `detail` has it.
        StartError::Volume(VolumeError::Length { .. } | VolumeError::Disk { .. }) => "Volume not available".to_owned(),
        StartError::Volume(error) => error.to_string(),
        StartError::Machine(MachineError::Config(error)) => error.to_string(),
        StartError::Network(_)
        | StartError::Machine(_)
        | StartError::Guest(_)
        | StartError::Ended(_)
        | StartError::BootTimedOut(_)
        | StartError::NotFrozen(_) => "Error during runtime initialisation".to_owned(),
        StartError::Program(_) | StartError::Exited(_) | StartError::StartTimedOut(_) => {
            "Error during vm initialisation".to_owned()
        }
        StartError::Stopped => "Server is draining, try another node".to_owned(),
        StartError::Defect => "Unhandled error during initialisation".to_owned(),
    }
}

fn exchange_sentence(error: &ExchangeError) -> String {
    match error {
        ExchangeError::BodyTooLong { .. } | ExchangeError::ClientStalled(_) | ExchangeError::ClientGone(_) => {
            error.to_string()
        }
        ExchangeError::Closed => "VM did not respond and was shut down".to_owned(),
        ExchangeError::Garbage(_) => "Invalid response from VM".to_owned(),
        ExchangeError::TimedOut(_) => "Program did not respond within resource.seconds".to_owned(),
    }
}

/// Detail and traceback, for those errors whose sentence is fixed and does not tell all.
fn more(error: &ApiError, show_tracebacks: bool) -> (Option<String>, Option<String>) {
    match error {
        ApiError::Call(Refusal::Start(error)) => match &**error {
            StartError::Program(failure) if show_tracebacks => {
                let traceback = (!failure.traceback.is_empty()).then(|| failure.traceback.clone());
                (Some(failure.error.clone()), traceback)
            }
            StartError::Program(_) => (None, None),
            error => {
                let detail = error.to_string();
                ((detail != start_sentence(error)).then_some(detail), None)
            }
        },
        ApiError::Call(Refusal::TooLarge) => {
            (Some("The program asks for more memory or processors than this node has".to_owned()), None)
        }
        ApiError::Exchange(error @ ExchangeError::Garbage(_)) => (Some(error.to_string()), None),
        _ => (None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{digest::Unsupported, machine::Ended};
    use guest_protocol::{Failure, Stage};
    use http_body_util::BodyExt as _;
    use serde_json::{Value, json};
    use std::{sync::Arc, time::Duration};
    use vmm::{control::Cause, statistics::Statistics};

    fn hash() -> ccn_message::ItemHash {
        "ab".repeat(32).parse().expect("an item hash")
    }

    fn start(error: StartError) -> ApiError {
        ApiError::Call(Refusal::Start(Arc::new(error)))
    }

    fn message(error: CcnError) -> ApiError {
        start(StartError::Lookup(LookupError::Message(error)))
    }

    fn file(role: Role, error: CcnError) -> ApiError {
        start(StartError::Lookup(LookupError::File { role, reference: hash(), error }))
    }

    fn unreachable() -> CcnError {
        CcnError::Unreachable { base: "http://c".to_owned(), reason: "refused".to_owned() }
    }

    fn status(status: StatusCode) -> CcnError {
        CcnError::Status { base: "http://c".to_owned(), path: "/p".to_owned(), status, retry_after: None }
    }

    fn program_failure() -> StartError {
        StartError::Program(Failure {
            stage: Stage::Start,
            error: "No module named 'x'".to_owned(),
            traceback: "Traceback (most recent call last): …".to_owned(),
        })
    }

    #[test]
    fn every_row_of_the_table() {
        let cases = [
            (ApiError::InvalidReference("x".to_owned()), 400, None, "Invalid message reference: x"),
            (ApiError::ManyHosts, 400, None, "more than one host"),
            (ApiError::NotFound, 404, None, "404: Not Found"),
            (ApiError::BodyTooLong(7), 413, None, "The request body is longer than 7 bytes"),
            (ApiError::NoMachines("no /dev/kvm".to_owned()), 503, None, "This node cannot run programs: no /dev/kvm"),
            (message(CcnError::Unknown(hash())), 404, None, "not found"),
            (message(CcnError::Rejected(hash())), 404, None, "was rejected"),
            (message(CcnError::Gone { hash: hash(), status: "forgotten".to_owned() }), 410, None, "was forgotten"),
            (message(CcnError::Pending(hash())), 503, Some(2), "pending"),
            (message(unreachable()), 503, Some(10), "cannot be reached"),
            (message(status(StatusCode::BAD_GATEWAY)), 503, Some(10), "502"),
            (message(status(StatusCode::FORBIDDEN)), 502, None, "403"),
            (
                message(CcnError::Mismatch { base: "http://c".to_owned(), hash: hash() }),
                502,
                None,
                "do not have this hash",
            ),
            (message(CcnError::Unsupported(Unsupported("bafy".to_owned()))), 501, None, "cannot verify"),
            (
                start(StartError::Lookup(LookupError::NotProgram { item_hash: hash(), kind: "POST".to_owned() })),
                400,
                None,
                "not a program",
            ),
            (
                start(StartError::Lookup(LookupError::Unsupported("No such volume".to_owned()))),
                501,
                None,
                "No such volume",
            ),
            (file(Role::Code, CcnError::Unknown(hash())), 400, None, "Code, runtime or data not available"),
            (
                file(Role::Runtime, CcnError::Gone { hash: hash(), status: "removed".to_owned() }),
                400,
                None,
                "Code, runtime or data not available",
            ),
            (file(Role::Volume, CcnError::Unknown(hash())), 500, None, "Item hash abab"),
            (file(Role::Volume, unreachable()), 503, Some(10), "cannot be reached"),
            (
                start(StartError::Files(CacheError::Ccn(CcnError::Unknown(hash())))),
                400,
                None,
                "Code, runtime or data not available",
            ),
            (
                start(StartError::Files(CacheError::Interrupted {
                    hash: hash(),
                    at_bytes: 1,
                    reason: "cut".to_owned(),
                })),
                503,
                Some(10),
                "stopped at 1 bytes",
            ),
            (
                start(StartError::Volume(VolumeError::Full { wanted_mib: 9, left_mib: 5, limit_mib: 7 })),
                503,
                Some(10),
                "a volume of 9 MiB does not fit: 5 MiB of the 7 MiB",
            ),
            (
                start(StartError::Volume(VolumeError::InUse { name: "a".to_owned(), waited: Duration::from_secs(1) })),
                503,
                Some(10),
                "still in use",
            ),
            (
                start(StartError::Volume(VolumeError::Length {
                    path: "/volumes/a".into(),
                    found_bytes: 1,
                    wanted_bytes: 2,
                })),
                500,
                None,
                "Volume not available",
            ),
            (start(StartError::BootTimedOut(Duration::from_secs(1))), 500, None, "Error during runtime initialisation"),
            (
                start(StartError::Ended(Box::new(Ended { cause: Cause::Reset, statistics: Statistics::default() }))),
                500,
                None,
                "Error during runtime initialisation",
            ),
            (start(program_failure()), 500, None, "Error during vm initialisation"),
            (start(StartError::Exited(3)), 500, None, "Error during vm initialisation"),
            (start(StartError::Defect), 500, None, "Unhandled error during initialisation"),
            (ApiError::Call(Refusal::Full), 503, Some(10), "This CRN cannot host the requested workload at this time."),
            (ApiError::Call(Refusal::TooLarge), 503, None, "This CRN cannot host the requested workload at this time."),
            (ApiError::Call(Refusal::Busy), 503, Some(1), "Too many calls"),
            (ApiError::Call(Refusal::Draining), 503, Some(10), "Server is draining, try another node"),
            (ApiError::Exchange(ExchangeError::Closed), 502, None, "VM did not respond and was shut down"),
            (ApiError::MachineLost, 502, None, "VM did not respond and was shut down"),
            (ApiError::Exchange(ExchangeError::Garbage("x".to_owned())), 502, None, "Invalid response from VM"),
            (
                ApiError::Exchange(ExchangeError::TimedOut(Duration::from_secs(1))),
                504,
                None,
                "Program did not respond within resource.seconds",
            ),
            (ApiError::Exchange(ExchangeError::BodyTooLong { limit_bytes: 5 }), 413, None, "longer than 5 bytes"),
            (ApiError::Exchange(ExchangeError::ClientStalled(Duration::from_secs(1))), 408, None, "sent nothing"),
        ];
        for (error, status, retry_after, sentence) in cases {
            let class = error.class();
            assert_eq!((class.status.as_u16(), class.retry_after), (status, retry_after), "{error:?}");
            assert!(error.to_string().contains(sentence), "{error} has no {sentence:?}");
        }
    }

    async fn body(error: ApiError, show_tracebacks: bool) -> String {
        let body = error.into_response(show_tracebacks).into_body().collect().await.expect("a body").to_bytes();
        String::from_utf8(body.to_vec()).expect("text")
    }

    #[tokio::test]
    async fn a_traceback_is_shown_unless_the_operator_hides_it() {
        let parse = |text: String| serde_json::from_str::<Value>(&text).expect("JSON");
        assert_eq!(
            parse(body(start(program_failure()), true).await),
            json!({
                "error": "Error during vm initialisation",
                "detail": "No module named 'x'",
                "traceback": "Traceback (most recent call last): …",
            })
        );
        assert_eq!(
            parse(body(start(program_failure()), false).await),
            json!({"error": "Error during vm initialisation"})
        );
        let detail = parse(body(file(Role::Code, CcnError::Unknown(hash())), true).await)["detail"].clone();
        assert!(detail.as_str().is_some_and(|detail| detail.contains("not found")), "{detail}");
    }

    #[tokio::test]
    async fn a_binary_that_loads_is_a_page_that_reloads() {
        let page = body(ApiError::Call(Refusal::Loading), true).await;
        assert!(page.contains("VM Loading") && page.contains("refresh"), "{page}");
        let response = ApiError::Call(Refusal::Loading).into_response(true);
        assert_eq!(response.status(), 503);
        assert!(response.headers()["content-type"].to_str().expect("text").starts_with("text/html"));
    }
}
