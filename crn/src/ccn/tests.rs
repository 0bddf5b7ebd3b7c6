//! Against a real HTTP server that tells the truth, lies, stumbles and refuses.

use super::*;
use axum::{Json, Router, extract::Path, http::HeaderMap, routing::get};
use serde_json::{Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

const OWNER: &str = "0x6AA8";

async fn serve(router: Router) -> Client {
    serve_for(router, Duration::from_secs(20)).await
}

async fn serve_for(router: Router, answer_within: Duration) -> Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}/", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(hyper_util::rt::TokioIo::new(stream), service),
            );
        }
    });
    Client::new(&base, answer_within).expect("a client")
}

fn hash(text: &str) -> ItemHash {
    ItemHash::sha256_of(text.as_bytes())
}

fn envelope(kind: &str, content: &Value) -> Value {
    let text = content.to_string();
    json!({
        "item_hash": hash(&text).to_string(), "type": kind, "item_type": "inline", "item_content": text,
        "sender": OWNER, "chain": "ETH", "time": 7.5, "signature": "0x00", "channel": null,
    })
}

fn always(status: StatusCode, body: Value) -> Router {
    Router::new().fallback(move || async move { (status, Json(body)) })
}

async fn message_error(status: StatusCode, body: Value) -> CcnError {
    serve_for(always(status, body), Duration::from_secs(1)).await.message(&hash("x")).await.expect_err("an error")
}

#[tokio::test]
async fn a_message_is_verified() {
    let content = json!({"address": OWNER, "time": 1.5});
    let sent = envelope("PROGRAM", &content);
    let item_hash = hash(&content.to_string());
    let client = serve(always(StatusCode::OK, json!({"status": "processed", "message": sent}))).await;
    let message = client.message(&item_hash).await.expect("a message");
    assert_eq!((message.kind.as_str(), message.content), ("PROGRAM", content.to_string()));

    let mut forged = sent.clone();
    forged["item_content"] = json!("{}");
    let client = serve(always(StatusCode::OK, json!({"status": "processed", "message": forged}))).await;
    assert!(matches!(client.message(&item_hash).await, Err(CcnError::Malformed { .. })));

    let client = serve(always(StatusCode::OK, json!({"status": "processed", "message": sent}))).await;
    assert!(matches!(client.message(&hash("another")).await, Err(CcnError::Malformed { .. })));
}

#[tokio::test]
async fn a_content_kept_apart_is_fetched() {
    // It may leave out what the envelope says.
    let content = json!({"a": 1}).to_string();
    let item_hash = hash(&content);
    let mut message = envelope("PROGRAM", &json!({"a": 1}));
    message["item_type"] = json!("storage");
    message["item_content"] = json!(null);
    let asked = |file: String| {
        let message = message.clone();
        let router = Router::new()
            .route(
                "/api/v0/messages/{hash}",
                get(move || async move { Json(json!({"status": "processed", "message": message})) }),
            )
            .route("/api/v0/storage/raw/{hash}", get(move || async move { file }));
        let item_hash = item_hash.clone();
        async move { serve(router).await.message(&item_hash).await }
    };
    let found = asked(content).await.expect("a message");
    let found: Value = serde_json::from_str(&found.content).expect("JSON");
    assert_eq!(found, json!({"a": 1, "address": OWNER, "time": 7.5}));
    assert!(matches!(asked("{}".to_owned()).await, Err(CcnError::Mismatch { .. })));
}

/// A lookup that nobody ends keeps every caller of its program waiting.
#[tokio::test]
async fn a_content_kept_apart_that_never_ends_is_given_up() {
    let item_hash = hash("{}");
    let mut message = envelope("PROGRAM", &json!({}));
    message["item_type"] = json!("storage");
    message["item_content"] = json!(null);
    let router = Router::new()
        .route(
            "/api/v0/messages/{hash}",
            get(move || async move { Json(json!({"status": "processed", "message": message})) }),
        )
        .route(
            "/api/v0/storage/raw/{hash}",
            get(|| async { axum::body::Body::from_stream(futures_util::stream::pending::<Result<&str, &str>>()) }),
        );
    let client = serve_for(router, Duration::from_secs(1)).await;
    let found = tokio::time::timeout(Duration::from_secs(20), client.message(&item_hash)).await.expect("in time");
    assert!(matches!(found, Err(CcnError::Unreachable { .. })), "{found:?}");
}

/// Ten programs whose messages the node stumbles over held all places, and no other program started.
#[tokio::test]
async fn a_question_that_waits_for_its_next_attempt_holds_nobody_up() {
    let content = json!({"address": OWNER, "time": 1.5});
    let good = hash(&content.to_string());
    let message = envelope("PROGRAM", &content);
    let name = good.to_string();
    let router = Router::new().route(
        "/api/v0/messages/{hash}",
        get(move |Path(asked): Path<String>| async move {
            if asked == name {
                Ok(Json(json!({"status": "processed", "message": message})))
            } else {
                Err((StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "30")]))
            }
        }),
    );
    let client = Arc::new(serve_for(router, Duration::from_secs(20)).await);
    let stumbling: Vec<_> = (0..MAX_QUESTIONS)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { client.message(&hash(&number.to_string())).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let found = tokio::time::timeout(Duration::from_secs(10), client.message(&good)).await.expect("in time");
    found.expect("a message");
    stumbling.into_iter().for_each(|question| question.abort());
}

#[tokio::test]
async fn what_the_node_says_of_a_message_is_told_apart() {
    assert!(matches!(message_error(StatusCode::NOT_FOUND, json!({})).await, CcnError::Unknown(_)));
    assert!(matches!(message_error(StatusCode::GONE, json!({})).await, CcnError::Gone { .. }));
    assert!(matches!(
        message_error(StatusCode::OK, json!({"status": "pending", "messages": []})).await,
        CcnError::Pending(_)
    ));
    assert!(matches!(message_error(StatusCode::OK, json!({"status": "rejected"})).await, CcnError::Rejected(_)));
    assert!(matches!(message_error(StatusCode::OK, json!({"status": "forgotten"})).await, CcnError::Gone { .. }));
    assert!(matches!(message_error(StatusCode::OK, json!({"status": "new"})).await, CcnError::Malformed { .. }));
    assert!(matches!(message_error(StatusCode::OK, json!([1])).await, CcnError::Malformed { .. }));
    assert!(matches!(message_error(StatusCode::FORBIDDEN, json!({})).await, CcnError::Status { .. }));
    assert!(matches!(message_error(StatusCode::BAD_GATEWAY, json!({})).await, CcnError::Status { .. }));
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let long = "x".repeat(MAX_ANSWER_BYTES + 1);
    let client = serve(Router::new().fallback(move || async move { long })).await;
    assert!(matches!(client.message(&hash("x")).await, Err(CcnError::Malformed { .. })));
}

#[tokio::test]
async fn nobody_there_is_said_with_the_cause() {
    let client = Client::new("http://127.0.0.1:1", Duration::from_secs(1)).expect("a client");
    let error = client.message(&hash("x")).await.expect_err("an error");
    assert!(error.is_transient() && error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_node_that_stumbles_is_asked_again_and_one_that_asks_for_time_gets_it() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let sent = envelope("PROGRAM", &json!({"address": OWNER, "time": 1}));
    let router = Router::new().fallback(move || {
        let attempt = counter.fetch_add(1, Ordering::SeqCst);
        let sent = sent.clone();
        async move {
            let mut headers = HeaderMap::new();
            match attempt {
                0 => (StatusCode::INTERNAL_SERVER_ERROR, headers, Json(json!({}))),
                1 => {
                    headers.insert("retry-after", "1".parse().expect("a value"));
                    (StatusCode::TOO_MANY_REQUESTS, headers, Json(json!({})))
                }
                _ => (StatusCode::OK, headers, Json(json!({"status": "processed", "message": sent}))),
            }
        }
    });
    let client = serve(router).await;
    let start = std::time::Instant::now();
    client.message(&hash(&json!({"address": OWNER, "time": 1}).to_string())).await.expect("a message");
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    assert!(start.elapsed() >= Duration::from_secs(1), "the second pause is as long as asked for");
}

#[test]
fn a_wait_is_a_number_or_a_date_and_has_an_end() {
    let now = httpdate::parse_http_date("Tue, 01 Sep 2026 00:00:00 GMT").expect("a date");
    assert_eq!(retry_after("7", now), Some(Duration::from_secs(7)));
    assert_eq!(retry_after("Tue, 01 Sep 2026 00:00:09 GMT", now), Some(Duration::from_secs(9)));
    assert_eq!(retry_after("Mon, 31 Aug 2026 00:00:00 GMT", now), Some(Duration::ZERO));
    assert_eq!(retry_after("999999999", now), Some(MAX_RETRY_AFTER));
    assert_eq!(retry_after("soon", now), None);
}

#[tokio::test]
async fn the_newest_amend_is_the_last_by_time_and_hash_of_the_same_owner() {
    let original = hash("original");
    let amend = |owner: &str, updates: &ItemHash, time: f64, file: &str| {
        envelope(
            "STORE",
            &json!({"address": owner, "time": time, "item_type": "storage", "item_hash": hash(file).to_string(), "ref": updates.to_string()}),
        )
    };
    let same_time = [amend(OWNER, &original, 5.0, "same a"), amend(OWNER, &original, 5.0, "same b")];
    let last =
        same_time.iter().max_by_key(|envelope| envelope["item_hash"].as_str().map(str::to_owned)).expect("two").clone();
    let expected: Value = serde_json::from_str(last["item_content"].as_str().expect("text")).expect("JSON");
    let messages = [
        same_time[0].clone(),
        amend(OWNER, &original, 4.0, "older"),
        amend("0xother", &original, 9.0, "not theirs"),
        amend(OWNER, &hash("else"), 9.0, "of something else"),
        envelope("POST", &json!({"address": OWNER, "time": 10.0})),
        envelope("STORE", &json!({"address": OWNER, "time": 11.0})),
        same_time[1].clone(),
    ];
    let asked = Arc::new(Mutex::new(String::new()));
    let heard = asked.clone();
    let router = Router::new().route(
        "/api/v0/messages.json",
        get(move |uri: http::Uri| async move {
            *heard.lock().expect("not poisoned") = uri.query().unwrap_or_default().to_owned();
            Json(json!({"messages": messages}))
        }),
    );
    let client = serve(router).await;
    let (item_hash, newest) = client.newest_amend(&original, OWNER).await.expect("an answer").expect("an amend");
    assert_eq!(item_hash.to_string(), last["item_hash"].as_str().expect("text"));
    assert_eq!(newest.item_hash.to_string(), expected["item_hash"].as_str().expect("text"));
    let query = asked.lock().expect("not poisoned").clone();
    for part in
        [format!("refs={original}"), format!("owners={OWNER}"), "msgType=STORE".to_owned(), "sortOrder=-1".to_owned()]
    {
        assert!(query.contains(&part), "{part} in {query}");
    }
}

#[tokio::test]
async fn a_file_that_was_never_amended_has_no_newest() {
    let client = serve(always(StatusCode::OK, json!({"messages": []}))).await;
    assert!(client.newest_amend(&hash("x"), OWNER).await.expect("an answer").is_none());
}

#[tokio::test]
async fn only_a_store_message_is_a_file() {
    let content = json!({"address": OWNER, "time": 1.0, "item_hash": hash("file").to_string(), "item_type": "storage"});
    for (kind, found) in [("STORE", true), ("POST", false)] {
        let client =
            serve(always(StatusCode::OK, json!({"status": "processed", "message": envelope(kind, &content)}))).await;
        let store = client.store(&hash(&content.to_string())).await;
        assert_eq!(store.is_ok(), found, "{store:?}");
    }
}

#[tokio::test]
async fn a_file_opens_from_a_byte_on() {
    let router = Router::new().route(
        "/api/v0/storage/raw/{hash}",
        get(|Path(_): Path<String>, headers: HeaderMap| async move {
            match headers.get("range") {
                Some(range) => (StatusCode::PARTIAL_CONTENT, range.to_str().expect("text").to_owned()),
                None => (StatusCode::OK, "whole".to_owned()),
            }
        }),
    );
    let client = serve(router).await;
    for (from, status, text) in [(0, 200, "whole"), (7, 206, "bytes=7-")] {
        let answer = client.open_file(&hash("x"), from).await.expect("an answer");
        assert_eq!((answer.status().as_u16(), answer.text().await.expect("text").as_str()), (status, text));
    }
}
