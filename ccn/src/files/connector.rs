//! The way to an object store: through the HTTP client that the rest of the node asks with, so that there is one way to set up TLS, and one protocol.

use async_trait::async_trait;
use http_body_util::BodyExt as _;
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
    },
};
use std::{error::Error as StdError, io, time::Duration};

/// How long a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// How long nothing may come: a part has to be sent in that time, which is 140 KiB a second, and a reader's connection may stand still.
const SILENT_FOR: Duration = Duration::from_secs(60);

/// The client.
#[derive(Debug, Clone)]
pub(super) struct Connector(reqwest::Client);

impl Connector {
    /// # Errors
    /// TLS cannot be set up.
    pub(super) fn new(is_plain: bool) -> Result<Self, reqwest::Error> {
        // Another part of the process may have chosen one; then that is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A redirected request would be signed for another host.
        let redirect = reqwest::redirect::Policy::none;
        let builder =
            || reqwest::Client::builder().connect_timeout(CONNECT_WITHIN).read_timeout(SILENT_FOR).redirect(redirect());
        match builder().build() {
            // A host without certificates can do without where the object store is reached by plain HTTP.
            Err(_) if is_plain => builder().tls_certs_only([]).build().map(Self),
            built => built.map(Self),
        }
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let url = head.uri.to_string().parse::<reqwest::Url>();
        let url = url.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        let mut request = reqwest::Request::new(head.method, url);
        *request.headers_mut() = head.headers;
        *request.body_mut() = Some(match body.as_bytes() {
            Some(bytes) => bytes.clone().into(),
            None => reqwest::Body::wrap(body),
        });
        let answer = self.0.execute(request).await.map_err(failure)?;
        let answer: hyper::Response<reqwest::Body> = answer.into();
        Ok(answer.map(|body| HttpResponseBody::new(body.map_err(failure))))
    }
}

/// What is tried again depends on what failed.
fn failure(error: reqwest::Error) -> HttpError {
    let kind = if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_connect() {
        HttpErrorKind::Connect
    } else {
        broken(&error)
    };
    HttpError::new(kind, error.without_url())
}

/// What broke a connection that was there.
fn broken(error: &reqwest::Error) -> HttpErrorKind {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<hyper::Error>()
            && (error.is_closed() || error.is_incomplete_message() || error.is_body_write_aborted())
        {
            return HttpErrorKind::Request;
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return match error.kind() {
                io::ErrorKind::TimedOut => HttpErrorKind::Timeout,
                io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof => HttpErrorKind::Interrupted,
                _ => HttpErrorKind::Unknown,
            };
        }
        cause = error.source();
    }
    HttpErrorKind::Unknown
}
