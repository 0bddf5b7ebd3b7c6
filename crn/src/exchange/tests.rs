//! The proxy between a real client connection and a real server, with a socket pair in the machine's place.

use super::*;
use axum::{
    Router,
    extract::Request as ServerRequest,
    response::IntoResponse,
    routing::{any, get, post},
};
use http::HeaderMap;
use http_body_util::{BodyExt as _, StreamBody};
use hyper_util::service::TowerToHyperService;
use std::{net::SocketAddr, sync::atomic::AtomicUsize, sync::atomic::Ordering, time::Instant};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
    sync::mpsc,
};

const SECOND: Duration = Duration::from_secs(1);

/// Far beyond what anything here takes: reached only by what is broken.
const PATIENCE: Duration = Duration::from_secs(30);

fn generous() -> Limits {
    Limits { max_body_bytes: 64 << 20, answer_within: PATIENCE, client_idle: PATIENCE, stream_idle: PATIENCE }
}

/// A program, as the other end of its streams.
#[derive(Clone)]
enum Program {
    /// An HTTP server.
    Router(Router),
    /// Reads a request's head, writes these bytes and closes.
    Says(&'static [u8]),
    /// Closes at once.
    Dead,
    /// Reads nothing, says nothing, stays.
    Silent,
}

async fn serve(program: Program, stream: UnixStream) {
    match program {
        Program::Router(router) => {
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
                .with_upgrades()
                .await;
        }
        Program::Says(bytes) => {
            let mut stream = stream;
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.expect("a head"));
            }
            stream.write_all(bytes).await.expect("a write");
        }
        Program::Dead => {}
        Program::Silent => {
            let _held = stream;
            std::future::pending::<()>().await;
        }
    }
}

/// A node's front: a listening server that carries every request to the program.
struct Front {
    address: SocketAddr,
    /// Exchanges whose stream is open.
    held: Arc<AtomicUsize>,
    /// What [`carry`] failed with.
    failures: mpsc::UnboundedReceiver<ExchangeError>,
}

struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn front(program: Program, limits: Limits) -> Front {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let held = Arc::new(AtomicUsize::new(0));
    let (report, failures) = mpsc::unbounded_channel();
    let counter = held.clone();
    let app = Router::new().fallback(move |request: ServerRequest| {
        let (program, counter, report) = (program.clone(), counter.clone(), report.clone());
        async move {
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            tokio::spawn(serve(program, theirs));
            counter.fetch_add(1, Ordering::SeqCst);
            match carry(ours, request, limits, Arc::default(), Held(counter)).await {
                Ok(response) => response,
                Err(error) => {
                    let _ = report.send(error);
                    StatusCode::IM_A_TEAPOT.into_response()
                }
            }
        }
    });
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app.clone()))
                    .with_upgrades(),
            );
        }
    });
    Front { address, held, failures }
}

impl Front {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a connection")
    }

    /// Sends bytes as they are and returns the connection.
    async fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.expect("a write");
        stream
    }

    /// Sends a request that ends its connection, and returns all that came back.
    async fn ask(&self, request: &str) -> String {
        let mut stream = self.send(request.as_bytes()).await;
        let mut answer = Vec::new();
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("in time").expect("a read");
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn failure(&mut self) -> ExchangeError {
        tokio::time::timeout(PATIENCE, self.failures.recv()).await.expect("in time").expect("a failure")
    }

    /// Waits until no stream to the program is open.
    async fn all_closed(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.held.load(Ordering::SeqCst) > 0 {
            assert!(Instant::now() < deadline, "{} streams still open", self.held.load(Ordering::SeqCst));
            tokio::task::yield_now().await;
        }
    }
}

fn get_line(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
}

/// Answers with the request's own line and headers.
async fn mirror(request: ServerRequest) -> String {
    let mut text = format!("{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        text.push_str(&format!("{name}: {}\n", value.to_str().expect("ASCII")));
    }
    text
}

#[tokio::test]
async fn path_query_and_headers_arrive_as_sent() {
    let front = front(Program::Router(Router::new().fallback(mirror)), generous()).await;
    let answer = front
        .ask(
            "PATCH /a%2Fb/%C3%A9//c?x=%26&y=+&&z HTTP/1.1\r\nHost: some.host\r\nX-Twice: 1\r\nX-Twice: 2\r\n\
              Proxy-Connection: x\r\nX-Hop: gone\r\nConnection: close, x-hop\r\nCookie: a=b\r\n\r\n",
        )
        .await;
    assert!(answer.contains("PATCH /a%2Fb/%C3%A9//c?x=%26&y=+&&z\n"), "{answer}");
    for kept in ["host: some.host\n", "x-twice: 1\nx-twice: 2\n", "cookie: a=b\n"] {
        assert!(answer.contains(kept), "{kept} in {answer}");
    }
    assert!(!answer.contains("gone") && !answer.contains("proxy-connection"), "{answer}");
    front.all_closed().await;
}

#[tokio::test]
async fn statuses_and_headers_of_the_program_come_back_as_sent() {
    let says = b"HTTP/1.1 302 Moved\r\nLocation: /elsewhere\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Encoding: gzip\r\n\
                 Vary: Accept\r\nKeep-Alive: timeout=5\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x00";
    let answer = front(Program::Says(says), generous()).await.ask(&get_line("/")).await.to_lowercase();
    for kept in [
        "http/1.1 302",
        "location: /elsewhere",
        "set-cookie: a=1\r\nset-cookie: b=2",
        "content-encoding: gzip",
        "vary: accept",
    ] {
        assert!(answer.contains(kept), "{kept} in {answer}");
    }
    assert!(!answer.contains("keep-alive"), "{answer}");
}

/// RFC 9112, section 6.3: the encoding overrides the length, which must not go on. It did, and the body was cut to it.
#[tokio::test]
async fn a_length_beside_an_encoding_does_not_count() {
    let router = Router::new().fallback(|request: ServerRequest| async move {
        let length = request.headers().get("content-length").cloned();
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        format!("{length:?} {}", String::from_utf8_lossy(&body))
    });
    let answer = front(Program::Router(router), generous())
        .await
        .ask(
            "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
             a\r\n0123456789\r\n0\r\n\r\n",
        )
        .await;
    assert!(answer.contains("None 0123456789"), "{answer}");

    let says =
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n";
    let answer = front(Program::Says(says), generous()).await.ask(&get_line("/")).await.to_lowercase();
    assert!(answer.contains("0123456789") && !answer.contains("content-length"), "{answer}");
}

#[tokio::test]
async fn a_404_of_the_program_keeps_its_body() {
    let router = Router::new().fallback(|| async { (StatusCode::NOT_FOUND, "no such item") });
    let answer = front(Program::Router(router), generous()).await.ask(&get_line("/item")).await;
    assert!(answer.starts_with("HTTP/1.1 404") && answer.ends_with("no such item"), "{answer}");
}

#[tokio::test]
async fn a_server_with_bare_line_feeds_and_no_length_is_understood() {
    let says = b"HTTP/1.1 200 OK\nContent-Type: text/plain\n\nOKIDOK\n";
    let answer = front(Program::Says(says), generous()).await.ask(&get_line("/")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("OKIDOK\n"), "{answer}");
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let router = Router::new().route("/", get(|| async { "twelve bytes" }));
    let answer = front(Program::Router(router), generous())
        .await
        .ask("HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        .await;
    assert!(answer.to_lowercase().contains("content-length: 12\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_client_of_http_1_0_is_served() {
    let front = front(Program::Router(Router::new().fallback(mirror)), generous()).await;
    let answer = front.ask("GET /old HTTP/1.0\r\n\r\n").await;
    assert!(answer.contains("GET /old\n") && answer.contains("host: localhost\n"), "{answer}");
}

#[tokio::test]
async fn bodies_of_megabytes_stream_both_ways() {
    async fn echo(request: ServerRequest) -> Body {
        request.into_body()
    }
    let front = front(Program::Router(Router::new().route("/", post(echo))), generous()).await;
    let sent: Vec<u8> = (0..5_000_000_u32).map(|index| (index % 251) as u8).collect();
    let client = reqwest_client();
    let answer = client.post(format!("http://{}/", front.address)).body(sent.clone()).send().await.expect("an answer");
    assert_eq!(answer.bytes().await.expect("a body"), sent);
    front.all_closed().await;
}

fn reqwest_client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

#[tokio::test]
async fn a_body_without_length_is_bounded_too() {
    let limits = Limits { max_body_bytes: 10, ..generous() };
    let drain = |request: ServerRequest| async {
        request.into_body().collect().await.map_or(0, |body| body.to_bytes().len()).to_string()
    };
    let mut front = front(Program::Router(Router::new().fallback(drain)), limits).await;
    let head = "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let fits = front.ask(&format!("{head}a\r\n0123456789\r\n0\r\n\r\n")).await;
    assert!(fits.starts_with("HTTP/1.1 200") && fits.ends_with("10"), "{fits}");
    front.ask(&format!("{head}a\r\n0123456789\r\n1\r\n0\r\n0\r\n\r\n")).await;
    assert!(matches!(front.failure().await, ExchangeError::BodyTooLong { limit_bytes: 10 }));
    front.all_closed().await;
}

#[tokio::test]
async fn a_program_that_answers_before_it_read_the_body_is_heard() {
    let router = Router::new().fallback(|| async { (StatusCode::PAYLOAD_TOO_LARGE, "too much for me") });
    let front = front(Program::Router(router), generous()).await;
    let answer = reqwest_client()
        .post(format!("http://{}/", front.address))
        .body(vec![7; 8 << 20])
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 413);
    assert_eq!(answer.text().await.expect("a body"), "too much for me");
    front.all_closed().await;
}

#[tokio::test]
async fn a_client_that_waits_for_permission_gets_it() {
    let router = Router::new().fallback(|headers: HeaderMap, body: String| async move {
        format!("{body} {}", headers.contains_key("expect"))
    });
    let front = front(Program::Router(router), generous()).await;
    let mut stream = front
        .send(b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        .await;
    let mut permission = [0; 25];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut permission)).await.expect("in time").expect("a read");
    assert_eq!(&permission, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"body").await.expect("a write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("a read");
    assert!(answer.ends_with("body false"), "{answer}");
}

/// A server-sent stream whose events come from a channel.
fn events() -> (Router, mpsc::Sender<&'static str>) {
    let (sender, receiver) = mpsc::channel(4);
    let receiver = Arc::new(tokio::sync::Mutex::new(Some(receiver)));
    let router = Router::new().route(
        "/events",
        get(move || async move {
            let receiver = receiver.lock().await.take().expect("one client");
            let frames = futures_util::stream::unfold(receiver, |mut receiver: mpsc::Receiver<&'static str>| async {
                let event = receiver.recv().await?;
                Some((Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from_static(event.as_bytes()))), receiver))
            });
            ([("content-type", "text/event-stream")], Body::new(StreamBody::new(frames)))
        }),
    );
    (router, sender)
}

/// Reads until the text was seen.
async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 1024];
    while !String::from_utf8_lossy(&seen).contains(text) {
        let length = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.expect("in time").expect("a read");
        assert_ne!(length, 0, "the end before {text:?}: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

#[tokio::test]
async fn each_event_is_passed_on_at_once_and_a_client_that_leaves_ends_the_stream() {
    let (router, sender) = events();
    let front = front(Program::Router(router), generous()).await;
    let mut stream = front.send(b"GET /events HTTP/1.1\r\nHost: h\r\n\r\n").await;
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        sender.send(event).await.expect("a listener");
        read_until(&mut stream, event).await;
    }
    drop(stream);
    tokio::time::timeout(PATIENCE, sender.closed()).await.expect("the program sees the end");
    front.all_closed().await;
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_ends_the_exchange() {
    let front = front(Program::Silent, generous()).await;
    let stream = front.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    while front.held.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    drop(stream);
    front.all_closed().await;
}

#[tokio::test]
async fn a_stream_outlives_the_time_to_answer_but_not_silence() {
    let (router, sender) = events();
    let limits = Limits { answer_within: SECOND / 5, stream_idle: SECOND, ..generous() };
    let front = front(Program::Router(router), limits).await;
    let mut stream = front.send(b"GET /events HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let start = Instant::now();
    while start.elapsed() < 2 * SECOND {
        sender.send("data: x\n\n").await.expect("a listener");
        read_until(&mut stream, "data: x\n\n").await;
        tokio::time::sleep(SECOND / 10).await;
    }
    // Now it is silent: the stream is cut in the middle, which a client can tell from its end.
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("in time").expect("a read");
    assert!(!rest.ends_with(b"0\r\n\r\n"), "{rest:?}");
    front.all_closed().await;
}

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways() {
    let router = Router::new().route(
        "/socket",
        any(|mut request: ServerRequest| async move {
            assert_eq!(request.headers()["sec-websocket-key"], "key");
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut stream = TokioIo::new(upgrade.await.expect("an upgrade"));
                let mut word = [0; 5];
                while stream.read_exact(&mut word).await.is_ok() {
                    word.reverse();
                    stream.write_all(&word).await.expect("a write");
                }
            });
            let headers = [("connection", "upgrade"), ("upgrade", "echo"), ("sec-websocket-accept", "yes")];
            (StatusCode::SWITCHING_PROTOCOLS, headers)
        }),
    );
    let front = front(Program::Router(router), Limits { answer_within: SECOND, ..generous() }).await;
    let mut stream = front
        .send(b"GET /socket HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\nSec-WebSocket-Key: key\r\n\r\n")
        .await;
    let head = read_until(&mut stream, "\r\n\r\n").await.to_lowercase();
    assert!(
        head.starts_with("http/1.1 101")
            && head.contains("upgrade: echo")
            && head.contains("sec-websocket-accept: yes"),
        "{head}"
    );
    for _ in 0..3 {
        stream.write_all(b"hello").await.expect("a write");
        let mut word = [0; 5];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut word)).await.expect("in time").expect("a read");
        assert_eq!(&word, b"olleh");
    }
    assert_eq!(front.held.load(Ordering::SeqCst), 1, "the machine is in use as long as the connection is up");
    drop(stream);
    front.all_closed().await;
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_answer() {
    let router = Router::new().fallback(|| async { (StatusCode::FORBIDDEN, "no sockets") });
    let front = front(Program::Router(router), generous()).await;
    let mut stream =
        front.send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    assert!(read_until(&mut stream, "no sockets").await.starts_with("HTTP/1.1 403"));
}

async fn fails(program: Program, limits: Limits) -> ExchangeError {
    let mut front = front(program, limits).await;
    front.ask(&get_line("/")).await;
    let error = front.failure().await;
    front.all_closed().await;
    error
}

#[tokio::test]
async fn what_a_program_does_wrong_is_told_apart() {
    assert!(matches!(fails(Program::Dead, generous()).await, ExchangeError::Closed));
    assert!(matches!(fails(Program::Says(b""), generous()).await, ExchangeError::Closed));
    for garbage in [
        &b"hello\r\n\r\n"[..],
        b"HTTP/1.1 9999 x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"\x00\x01\x02\x03",
        b"HTTP/1.1 101 x\r\nUpgrade: y\r\n\r\n",
    ] {
        let error = fails(Program::Says(garbage), generous()).await;
        assert!(matches!(error, ExchangeError::Garbage(_)), "{error:?} for {:?}", String::from_utf8_lossy(garbage));
    }
    let hasty = Limits { answer_within: SECOND / 10, ..generous() };
    assert!(matches!(fails(Program::Silent, hasty).await, ExchangeError::TimedOut(_)));
}

#[tokio::test]
async fn a_head_without_end_is_cut() {
    let endless = "HTTP/1.1 200 OK\r\n".to_owned() + &"X-Padding: 0123456789\r\n".repeat(40_000);
    let endless: &'static [u8] = endless.leak().as_bytes();
    assert!(matches!(fails(Program::Says(endless), generous()).await, ExchangeError::Garbage(_)));
}

#[tokio::test]
async fn a_program_that_stops_in_the_middle_of_its_answer_does_not_look_complete() {
    let front = front(Program::Says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), generous()).await;
    let answer = front.ask(&get_line("/")).await;
    assert!(answer.to_lowercase().contains("content-length: 10") && !answer.ends_with("half!"), "{answer}");
    assert!(answer.split("\r\n\r\n").nth(1).is_none_or(|body| body.len() < 10), "{answer}");
    front.all_closed().await;
}

#[tokio::test]
async fn a_slow_client_is_not_the_programs_fault() {
    let limits = Limits { answer_within: SECOND / 2, client_idle: 2 * SECOND, ..generous() };
    let router = Router::new().fallback(|body: String| async { body });
    let mut front = front(Program::Router(router), limits).await;
    let head = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 2\r\n\r\n";
    // Slower than the program may be, yet within the client's own time.
    let mut slow = front.send(head).await;
    tokio::time::sleep(SECOND).await;
    slow.write_all(b"ok").await.expect("a write");
    assert!(read_until(&mut slow, "ok").await.starts_with("HTTP/1.1 200"));
    // Too slow altogether.
    let _stalled = front.send(head).await;
    assert!(matches!(front.failure().await, ExchangeError::ClientStalled(_)));
    front.all_closed().await;
}

/// A byte a moment was no pause: such a client kept a machine, and its place there, for ever.
#[tokio::test]
async fn a_client_that_trickles_is_given_up() {
    let router = Router::new().fallback(|request: ServerRequest| async move {
        request.into_body().collect().await.map(|_| "done").unwrap_or("cut")
    });
    let limits = Limits { client_idle: SECOND, ..generous() };
    let mut front = front(Program::Router(router), limits).await;
    let mut stream = front.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n").await;
    let trickle = tokio::spawn(async move {
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(SECOND / 5).await;
        }
    });
    assert!(matches!(front.failure().await, ExchangeError::ClientStalled(_)));
    front.all_closed().await;
    trickle.abort();
}

#[tokio::test]
async fn a_program_that_does_not_take_the_request_times_out() {
    let limits = Limits { answer_within: SECOND / 2, ..generous() };
    let mut front = front(Program::Silent, limits).await;
    let upload =
        tokio::spawn(reqwest_client().post(format!("http://{}/", front.address)).body(vec![7; 16 << 20]).send());
    assert!(matches!(front.failure().await, ExchangeError::TimedOut(_)));
    front.all_closed().await;
    upload.abort();
}
