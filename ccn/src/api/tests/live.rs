//! The websocket: what was, then what happens.

use super::*;
use futures_util::{SinkExt as _, StreamExt as _};
use std::time::Duration;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message},
};

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

async fn connect(parameters: &str) -> Result<Socket, Error> {
    let url = format!("{}/api/ws0/messages?{parameters}", NODE.url.replace("http", "ws"));
    connect_async(url).await.map(|(socket, _)| socket)
}

async fn next(socket: &mut Socket) -> Value {
    loop {
        let frame = tokio::time::timeout(Duration::from_secs(20), socket.next()).await.expect("in time");
        match frame.expect("a frame").expect("no error") {
            Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn history_comes_first_then_what_happens() {
    let sender = account("history_comes_first");
    let old = [post_of(&sender, &json!({"n": 1})), post_of(&sender, &json!({"n": 2}))];
    for message in &old {
        processed(message).await;
    }
    let mut socket = connect(&format!("addresses={}&history=5", sender.address())).await.expect("a socket");
    let mut listed: Vec<&str> = MESSAGE.to_vec();
    listed.extend(["size", "confirmations"]);
    for message in &old {
        let found = next(&mut socket).await;
        assert_fields(&found, &listed);
        assert_eq!(found["item_hash"], message.item_hash.to_string(), "oldest first");
    }
    // Of others, and of another type: not for this listener.
    processed(&post_of(&account("history somebody else"), &json!({}))).await;
    let new = post_of(&sender, &json!({"n": 3}));
    processed(&new).await;
    let found = next(&mut socket).await;
    let mut single: Vec<&str> = MESSAGE.to_vec();
    single.push("confirmations");
    assert_fields(&found, &single);
    assert_eq!(found["item_hash"], new.item_hash.to_string());
    // What a client says has no meaning.
    socket.send(Message::Text("hello".into())).await.expect("sent");
    let last = post_of(&sender, &json!({"n": 4}));
    processed(&last).await;
    assert_eq!(next(&mut socket).await["item_hash"], last.item_hash.to_string());
    socket.close(None).await.expect("closed");
}

#[tokio::test]
async fn filters_hold_for_what_happens() {
    let sender = account("filters_hold");
    let parameters = format!("history=0&refs=thread&contentTypes=reply&addresses={}", sender.address());
    let mut socket = connect(&parameters).await.expect("a socket");
    let post = |kind: &str, reference: &str| {
        draft("POST", &json!({"type": kind, "ref": reference, "content": {"tags": ["t"]}})).sign(&sender)
    };
    for (kind, reference) in [("reply", "elsewhere"), ("other", "thread")] {
        processed(&post(kind, reference)).await;
    }
    let wanted = post("reply", "thread");
    processed(&wanted).await;
    assert_eq!(next(&mut socket).await["item_hash"], wanted.item_hash.to_string());
}

#[tokio::test]
async fn wrong_questions_are_refused_before_they_are_sockets() {
    for wrong in ["history=200", "history=x", "startDate=x", "hashes=x"] {
        match connect(wrong).await {
            Err(Error::Http(response)) => assert_eq!(response.status().as_u16(), 422, "{wrong}"),
            other => panic!("{wrong}: {other:?}"),
        }
    }
    let plain = get("/api/ws0/messages").await;
    plain.refused(400, "");
}

#[tokio::test]
async fn the_numbers_of_the_node_come_by_socket_too() {
    let url = format!("{}/api/ws0/status", NODE.url.replace("http", "ws"));
    let (mut socket, _) = connect_async(url).await.expect("a socket");
    let found = next(&mut socket).await;
    assert!(found["pyaleph_status_sync_messages_total"].is_u64(), "{found}");
    assert!(found["pyaleph_ws_status_active"].is_u64(), "{found}");
    socket.close(None).await.expect("closed");
    get("/api/ws0/status").await.refused(400, "");
}
