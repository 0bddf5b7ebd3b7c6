//! `ANY /vm/{hash}{suffix}`, and the same by host name: a call of a program (spec: crn, section 3).

use super::{ApiError, Service};
use crate::{
    exchange::{self, Activity, ExchangeError, Limits},
    executor::Lease,
    host_name,
};
use axum::body::Body;
use ccn_message::ItemHash;
use http::{
    HeaderName, HeaderValue, Request, Response, Uri,
    header::{CONTENT_LENGTH, HOST},
    uri::PathAndQuery,
};
use std::{sync::Arc, time::Instant};

/// Names the program that answered.
const ITEM_HASH: HeaderName = HeaderName::from_static("aleph-program-itemhash");
/// Names the STORE message that its code came from.
const CODE_REF: HeaderName = HeaderName::from_static("aleph-program-code-ref");

/// A call that is understood: which program, and the path and query that it shall see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The program.
    pub item_hash: ItemHash,
    /// As it was sent, percent-encoding untouched.
    pub path_and_query: PathAndQuery,
}

/// The program that a request is for, if it is for one.
///
/// # Errors
/// A path that should name a program and does not.
pub fn target(uri: &Uri, host: Option<&str>) -> Result<Option<Target>, ApiError> {
    let Some(called) = uri.path().strip_prefix("/vm/") else {
        let path_and_query = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        return Ok(host.and_then(host_name::program).map(|item_hash| Target { item_hash, path_and_query }));
    };
    let (hash, suffix) = match called.find('/') {
        Some(slash) => called.split_at(slash),
        None => (called, "/"),
    };
    let item_hash = hash.parse().map_err(|_| ApiError::InvalidReference(hash.to_owned()))?;
    let path_and_query = match uri.query() {
        Some(query) => format!("{suffix}?{query}").try_into(),
        None => suffix.try_into(),
    };
    // What was valid before its beginning was cut off at a slash is so after.
    let path_and_query = path_and_query.map_err(|_| ApiError::InvalidReference(called.to_owned()))?;
    Ok(Some(Target { item_hash, path_and_query }))
}

/// The host that a request names.
///
/// # Errors
/// It names more than one (RFC 9112, section 3.2).
pub(super) fn host(request: &Request<Body>) -> Result<Option<&str>, ApiError> {
    if request.headers().get_all(HOST).iter().nth(1).is_some() {
        return Err(ApiError::ManyHosts);
    }
    Ok(request.uri().host().or_else(|| request.headers().get(HOST)?.to_str().ok()))
}

/// One use of a machine, recorded when it is over.
struct Use {
    lease: Arc<Lease>,
    activity: Arc<Activity>,
    since: Instant,
}

impl Drop for Use {
    fn drop(&mut self) {
        let took = self.since.elapsed();
        self.lease.usage().add(self.activity.sent_bytes(), self.activity.received_bytes(), took);
    }
}

/// Carries a request to its program and the answer back.
pub(super) async fn call(
    service: &Service,
    target: Target,
    mut request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    if let Err(reason) = &service.machines {
        return Err(ApiError::NoMachines(reason.clone()));
    }
    let max_body_bytes = service.config.http.max_body_mib << 20;
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > max_body_bytes) {
        return Err(ApiError::BodyTooLong(max_body_bytes));
    }
    *request.uri_mut() = Uri::from(target.path_and_query);
    let (lease, stream) = connected(service, &target.item_hash).await?;
    let blueprint = lease.blueprint();
    let (item_hash, code_ref) = (blueprint.item_hash.to_string(), blueprint.code_ref.to_string());
    let limits = Limits {
        max_body_bytes,
        answer_within: blueprint.seconds,
        client_idle: crate::config::seconds(service.config.http.client_idle_seconds),
        stream_idle: crate::config::seconds(service.config.http.stream_idle_seconds),
    };
    let activity = Arc::new(Activity::default());
    let usage = Use { lease: lease.clone(), activity: activity.clone(), since: Instant::now() };
    let outcome = exchange::carry(stream, request, limits, activity, usage).await;
    if matches!(outcome, Err(ExchangeError::Closed)) {
        lease.crashed();
    }
    let mut response = outcome.map_err(ApiError::Exchange)?;
    let headers = response.headers_mut();
    for (name, value) in [(ITEM_HASH, item_hash), (CODE_REF, code_ref)] {
        headers.insert(name, HeaderValue::try_from(value).expect("hashes are letters and digits"));
    }
    Ok(response)
}

/// A machine of the program and a stream into it. A machine that is gone before anything was sent to it
/// costs the call nothing: the next one takes it.
async fn connected(service: &Service, item_hash: &ItemHash) -> Result<(Arc<Lease>, tokio::net::UnixStream), ApiError> {
    for _ in 0..2 {
        let lease = service.executor.call(item_hash).await.map_err(ApiError::Call)?;
        match lease.connect().await {
            Ok(stream) => return Ok((Arc::new(lease), stream)),
            Err(error) => {
                tracing::info!(%item_hash, %error, "a machine was gone when a call came to it");
                lease.crashed();
            }
        }
    }
    Err(ApiError::MachineLost)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "d2b74aa29898457bde0560e47f7cdd4e77287e9f1f7a1456161d2fd7d5c855d7";
    const NAME: &str = "2k3uviuytbcxxxqfmdsh67g5jz3sq7u7d55bivqwdux5pvoikxlq.node.example";

    fn check(path: &str, host: &str, expected: Option<&str>) {
        let found = target(&path.parse().expect("a URI"), Some(host)).expect("no error");
        let found = found.map(|target| {
            assert_eq!(target.item_hash.to_string(), HASH);
            target.path_and_query.to_string()
        });
        assert_eq!(found.as_deref(), expected, "{path} at {host}");
    }

    #[test]
    fn what_follows_the_hash_is_the_programs_path() {
        for (suffix, expected) in [
            ("", "/"),
            ("/", "/"),
            ("?a=1", "/?a=1"),
            ("/?", "/?"),
            ("/a/b?c=d%26e&f=+", "/a/b?c=d%26e&f=+"),
            ("//a%2Fb/../%C3%A9", "//a%2Fb/../%C3%A9"),
            ("/about/x", "/about/x"),
        ] {
            check(&format!("/vm/{HASH}{suffix}"), "node.example", Some(expected));
        }
    }

    #[test]
    fn a_host_name_means_its_program_at_any_path() {
        check("/", NAME, Some("/"));
        check("/a%2Fb?c", NAME, Some("/a%2Fb?c"));
        check("/a", "node.example", None);
        check(&format!("/vm/{HASH}/x"), NAME, Some("/x"));
    }

    /// Which of them means the program is a matter of taste, and a front of this node may have another.
    #[test]
    fn a_request_names_one_host_at_most() {
        let named = |hosts: &[&str]| {
            let mut request = Request::builder().uri("/");
            for name in hosts {
                request = request.header(HOST, *name);
            }
            host(&request.body(Body::empty()).expect("a request")).map(|host| host.map(str::to_owned)).ok()
        };
        assert_eq!(named(&[]), Some(None));
        assert_eq!(named(&["a"]), Some(Some("a".to_owned())));
        assert_eq!(named(&["a", "b"]), None);
        assert_eq!(named(&["a", "a"]), None);
    }

    #[test]
    fn a_malformed_hash_is_named() {
        for path in ["/vm/", "/vm/x", "/vm/x/y", &format!("/vm/{}", HASH.to_uppercase()), &format!("/vm/{HASH}0/")] {
            let error = target(&path.parse().expect("a URI"), None).expect_err(path);
            assert!(matches!(error, ApiError::InvalidReference(_)), "{error}");
        }
    }
}
