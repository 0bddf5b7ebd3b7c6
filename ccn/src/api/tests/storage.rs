//! Files: uploads in every form, downloads in pieces.

use super::*;
use base64::Engine as _;
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

const EDGE: &str = "----edge-of-a-part";

/// A multipart body of parts: name, file name, content.
fn multipart(parts: &[(&str, Option<&str>, &[u8])]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for (name, file_name, content) in parts {
        let file_name = file_name.map(|name| format!("; filename=\"{name}\"")).unwrap_or_default();
        body.extend(format!("--{EDGE}\r\nContent-Disposition: form-data; name=\"{name}\"{file_name}\r\n\r\n").bytes());
        body.extend_from_slice(content);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{EDGE}--\r\n").bytes());
    (format!("multipart/form-data; boundary={EDGE}"), body)
}

async fn upload(path: &str, parts: &[(&str, Option<&str>, &[u8])]) -> Answer {
    let (content_type, body) = multipart(parts);
    post(path, &content_type, body).await
}

fn store_of(account: &Account, item_type: &str, hash: &str) -> Envelope {
    let content =
        json!({"item_type": item_type, "item_hash": hash, "payment": {"type": "credit"}, "mime_type": "text/plain"});
    draft("STORE", &content).sign(account)
}

fn metadata(envelope: &Envelope, sync: bool) -> Vec<u8> {
    let mut message: Value = serde_json::from_str(&to_json(envelope)).expect("JSON");
    // Clients dump everything that they know of the message.
    message["content"] = json!({"ignored": true});
    message["confirmed"] = json!(null);
    json!({"message": message, "sync": sync}).to_string().into_bytes()
}

#[tokio::test]
async fn an_unsigned_file_is_kept_for_a_day() {
    let bytes = b"some bytes that nobody signed for".repeat(100);
    let hash = ItemHash::sha256_of(&bytes).to_string();
    let answer = upload("/api/v0/storage/add_file", &[("file", Some("a.bin"), &bytes)]).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"status": "success", "hash": hash})));
    let raw = post("/api/v0/storage/add_file", "application/octet-stream", bytes.clone()).await;
    assert_eq!((raw.status, raw.json()["hash"].clone()), (200, json!(hash)));

    let found = get(&format!("/api/v0/storage/raw/{hash}")).await;
    assert_eq!((found.status, found.header("content-type")), (200, "application/octet-stream"));
    assert_eq!(found.header("content-length"), bytes.len().to_string());
    assert_eq!(found.header("etag"), format!("\"{hash}\""));
    assert_eq!(found.header("cache-control"), "public, max-age=31536000, immutable");
    assert!(found.body == bytes);

    let head = send(client().head(format!("{}/api/v0/storage/raw/{hash}", NODE.url))).await;
    assert_eq!(
        (head.status, head.header("content-length"), head.body.len()),
        (200, bytes.len().to_string().as_str(), 0)
    );

    let encoded = get_json(&format!("/api/v0/storage/{hash}")).await;
    assert_fields(&encoded, &["status", "hash", "engine", "content"]);
    assert_eq!((&encoded["status"], &encoded["engine"]), (&json!("success"), &json!("storage")));
    let text = encoded["content"].as_str().expect("text");
    assert!(text.lines().all(|line| line.len() <= 76) && text.ends_with('\n'));
    let decoded = base64::engine::general_purpose::STANDARD.decode(text.replace('\n', "")).expect("base64");
    assert!(decoded == bytes);

    let about = get_json(&format!("/api/v0/storage/metadata/{hash}")).await;
    let url = format!("/api/v0/storage/raw/{hash}");
    assert_eq!(about, json!({"file_hash": hash, "type": "file", "size": bytes.len(), "download_url": url}));
    assert_eq!(get_json(&format!("/api/v0/storage/count/{hash}")).await, json!(0));
}

#[tokio::test]
async fn downloads_can_be_resumed() {
    let bytes: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
    let hash = ItemHash::sha256_of(&bytes).to_string();
    upload("/api/v0/storage/add_file", &[("file", Some("a"), &bytes)]).await;
    let url = format!("{}/api/v0/storage/raw/{hash}", NODE.url);
    let ask = async |range: &str| send(client().get(&url).header("range", range)).await;
    let check = async |range: &str, first: usize, last: usize| {
        let answer = ask(range).await;
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(answer.header("content-range"), format!("bytes {first}-{last}/300000"));
        assert_eq!(answer.header("content-length"), (last - first + 1).to_string());
        assert!(answer.body == bytes[first..=last], "{range}");
    };
    check("bytes=0-0", 0, 0).await;
    check("bytes=150000-", 150_000, 299_999).await;
    check("bytes=100-199", 100, 199).await;
    check("bytes=-5", 299_995, 299_999).await;
    check("bytes=299999-900000", 299_999, 299_999).await;
    for ignored in ["bytes=5-4", "bytes=0-1,3-4", "nonsense", "bytes=x-"] {
        assert_eq!(ask(ignored).await.status, 200, "{ignored}");
    }
    for beyond in ["bytes=300000-", "bytes=-0", "bytes=999999999999-"] {
        let answer = ask(beyond).await;
        answer.refused(416, "300000 bytes");
        assert_eq!(answer.header("content-range"), "bytes */300000");
    }
    let tag = format!("\"{hash}\"");
    let same = send(client().get(&url).header("range", "bytes=5-").header("if-range", &tag)).await;
    assert_eq!(same.status, 206);
    let other = send(client().get(&url).header("range", "bytes=5-").header("if-range", "\"other\"")).await;
    assert_eq!((other.status, other.body.len()), (200, 300_000));
    let known = send(client().get(&url).header("if-none-match", &tag)).await;
    assert_eq!((known.status, known.body.len()), (304, 0));
}

#[tokio::test]
async fn unknown_files_are_not_found() {
    let hash = ItemHash::sha256_of(b"never uploaded");
    for path in ["raw/", "metadata/", "count/", ""] {
        get(&format!("/api/v0/storage/{path}{hash}")).await.refused(404, "File not found");
        get(&format!("/api/v0/storage/{path}nonsense")).await.refused(400, "is not an item hash");
    }
    let limits = get_json("/api/v0/storage/limits.json").await;
    assert_eq!(limits["storage"]["max_unauthenticated_upload_file_size"], 1 << 20);
}

/// Python sends the message first, Rust the file; both may send the message again.
#[tokio::test]
async fn a_signed_upload_publishes_its_message() {
    let owner = account("a_signed_upload");
    fund(&owner, 1_000_000).await;
    for (place, name) in ["first", "second"].into_iter().enumerate() {
        let bytes = format!("the {name} file of this test").into_bytes();
        let hash = ItemHash::sha256_of(&bytes).to_string();
        let message = store_of(&owner, "storage", &hash);
        let metadata = metadata(&message, true);
        let mut parts = [("metadata", None, metadata.as_slice()), ("file", Some("f"), bytes.as_slice())];
        if place == 1 {
            parts.reverse();
        }
        let answer = upload("/api/v0/storage/add_file", &parts).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!((&answer.json()["status"], &answer.json()["hash"]), (&json!("success"), &json!(hash)));
        assert_eq!(get_json(&format!("/api/v0/messages/{}/status", message.item_hash)).await["status"], "processed");
        assert_eq!(get_json(&format!("/api/v0/storage/count/{hash}")).await, json!(1));
        processed(&message).await;
        assert_eq!(upload("/api/v0/storage/add_file", &parts).await.status, 200, "the same once more");
        let described = get_json(&format!("/api/v0/storage/by-message-hash/{}", message.item_hash)).await;
        assert_eq!((&described["file_hash"], &described["owner"]), (&json!(hash), &json!(owner.address())));
    }
    let files = get_json(&format!("/api/v0/addresses/{}/files", owner.address())).await;
    assert_eq!(files["pagination_total"], 2);
    assert_fields(&files["files"][0], &["file_hash", "size", "type", "created", "item_hash"]);
    let created = files["files"][0]["created"].as_str().expect("text");
    assert!(created.contains('.') && created.ends_with("+00:00"), "{created}");
    let cursor = get_json(&format!("/api/v0/addresses/{}/files?cursor=&pagination=1", owner.address())).await;
    assert!(cursor["files"][0]["created"].is_number() && cursor["next_cursor"].is_string(), "{cursor}");
    get("/api/v0/addresses/0xNobody/files").await.refused(404, "no files");
}

#[tokio::test]
async fn a_signed_upload_is_held_against_its_message() {
    let owner = account("held_against");
    let bytes = b"what is really sent".as_slice();
    let hash = ItemHash::sha256_of(bytes).to_string();
    let send = async |metadata: &[u8]| {
        upload("/api/v0/storage/add_file", &[("metadata", None, metadata), ("file", Some("f"), bytes)]).await
    };
    let good = store_of(&owner, "storage", &hash);

    let mut forged = good.clone();
    forged.signature = Some(owner.sign("another text"));
    send(&metadata(&forged, false)).await.refused(403, "signature");
    let other = store_of(&owner, "storage", &ItemHash::sha256_of(b"something else").to_string());
    send(&metadata(&other, false)).await.refused(422, "File hash does not match");
    let post = post_of(&owner, &json!({}));
    send(&metadata(&post, false)).await.refused(422, "a file is kept by a STORE message");
    send(b"{").await.refused(422, "metadata: not JSON");
    send(b"{}").await.refused(422, "metadata.message: is required");
    send(br#"{"message":{}}"#).await.refused(422, "metadata.message.sender: is required");
    send(&[0xff]).await.refused(422, "is not UTF-8");
    send(&vec![b' '; 2 << 20]).await.refused(413, "metadata");

    // Who has no credits is told what they need.
    let unfunded = send(&metadata(&good, true)).await;
    let body = unfunded.refused(402, "");
    assert_eq!(body["error_code"], 6);
    assert_fields(&body["details"]["errors"][0], &["required_credits", "account_credits", "min_runtime_days"]);
    fund(&owner, 1_000_000).await;
    assert_eq!(send(&metadata(&good, true)).await.status, 200);
}

#[tokio::test]
async fn uploads_are_bounded_while_they_stream() {
    let large = vec![1; (1 << 20) + 1];
    upload("/api/v0/storage/add_file", &[("file", Some("f"), &large)]).await.refused(413, "1 MiB");
    post("/api/v0/storage/add_file", "application/octet-stream", large.clone()).await.refused(413, "1 MiB");
    let larger = vec![1; (2 << 20) + 1];
    upload("/api/v0/storage/add_file", &[("file", Some("f"), &larger)]).await.refused(413, "2 MiB");
    upload("/api/v0/ipfs/add_file", &[("file", Some("f"), &large)]).await.refused(413, "1 MiB");
    post("/api/v0/storage/add_json", "application/json", large.clone()).await.refused(413, "1 MiB");

    upload("/api/v0/storage/add_file", &[("other", None, b"x")]).await.refused(400, "no file");
    post("/api/v0/ipfs/add_file", "application/octet-stream", "x").await.refused(400, "multipart/form-data");
    post("/api/v0/storage/add_file", "multipart/form-data", "x").await.refused(400, "multipart body is broken");
    let (content_type, mut body) = multipart(&[("file", Some("f"), &[7; 1000])]);
    body.truncate(500);
    post("/api/v0/storage/add_file", &content_type, body).await.refused(400, "");
}

/// The archive of the folder among the fixtures, its root, and IPFS's `CumulativeSize` of it.
fn folder() -> (Vec<u8>, &'static str, u64) {
    let archive = crate::testing::fixture("signed/files/folder.car");
    (archive, "bafybeibodeb6v6r4un463kurp3fcuw2kau2nrhjlyowycs6ejiekh4b4li", 105 + 12 + 55)
}

#[tokio::test]
async fn a_folder_comes_and_goes_as_an_archive() {
    let (archive, cid, size) = folder();
    let owner = account("a_folder_comes");
    fund(&owner, 1_000_000).await;
    let metadata = metadata(&store_of(&owner, "ipfs", cid), true);
    let parts: [(&str, Option<&str>, &[u8]); 2] =
        [("file", Some("folder.car"), &archive), ("metadata", None, &metadata)];
    let answer = upload("/api/v0/ipfs/add_car", &parts).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let expect = json!({"status": "success", "hash": cid, "size": size, "message_status": "processed"});
    assert_eq!(answer.json(), expect);
    let described = get_json(&format!("/api/v0/storage/metadata/{cid}")).await;
    assert_eq!((described["type"].clone(), described["size"].clone()), (json!("directory"), json!(size)));
    get(&format!("/api/v0/storage/{cid}")).await.refused(404, "/api/v0/storage/raw/");
    let sent = get(&format!("/api/v0/storage/raw/{cid}")).await;
    assert_eq!((sent.status, sent.header("content-type")), (200, "application/x-tar"));
    let mut paths = Vec::new();
    for entry in tar::Archive::new(&sent.body[..]).entries().expect("an archive") {
        paths.push(entry.expect("an entry").path().expect("a path").display().to_string());
    }
    let expected = ["/", "/index.html", "/sub/", "/sub/a.txt"].map(|path| format!("{cid}{path}"));
    assert_eq!(paths, expected);
    let head = send(client().head(format!("{}/api/v0/storage/raw/{cid}", NODE.url))).await;
    assert_eq!((head.status, head.header("content-type"), head.body.len()), (200, "application/x-tar", 0));

    let found = get(&format!("/ipfs/{cid}?format=car")).await;
    assert_eq!(found.status, 200);
    assert!(found.header("content-type").starts_with("application/vnd.ipld.car"));
    // The same blocks in the order of a walk from the root, so it goes in again.
    assert_eq!(found.body.len(), archive.len());
    assert_eq!(found.body[..0x3b], archive[..0x3b]);
    let again = upload("/api/v0/ipfs/add_car", &[("metadata", None, &metadata), ("file", None, &found.body)]).await;
    assert_eq!(again.status, 200, "{}", again.text());

    get(&format!("/ipfs/{cid}")).await.refused(406, "?format=car");
    get(&format!("/ipfs/{cid}?format=raw")).await.refused(406, "?format=car");
    get(&format!("/ipfs/{}?format=car", "Qm".to_owned() + &"a".repeat(44))).await.refused(404, "File not found");
    get("/ipfs/nothing?format=car").await.refused(400, "not an item hash");
}

#[tokio::test]
async fn archives_that_are_wrong_say_why() {
    let (archive, cid, _) = folder();
    let owner = account("archives_that_are_wrong");
    fund(&owner, 1_000_000).await;
    let signed = metadata(&store_of(&owner, "ipfs", cid), true);
    let send = async |archive: &[u8], metadata: &[u8]| {
        upload("/api/v0/ipfs/add_car", &[("metadata", None, metadata), ("file", Some("f.car"), archive)]).await
    };
    post("/api/v0/ipfs/add_car", "application/vnd.ipld.car", archive.clone()).await.refused(400, "multipart/form-data");
    upload("/api/v0/ipfs/add_car", &[("metadata", None, &signed)]).await.refused(400, "no file");
    upload("/api/v0/ipfs/add_car", &[("file", None, &archive)]).await.refused(422, "with the message that keeps it");
    let other = metadata(&store_of(&owner, "ipfs", "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o"), true);
    let pair = format!("Root CID does not match ({cid} != QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o)");
    send(&archive, &other).await.refused(422, &pair);
    send(b"<html>", &signed).await.refused(422, "no archive of blocks");
    send(&archive[..archive.len() - 1], &signed).await.refused(422, "cut off");
    // Without its last block, which is the root; the frame of that has two bytes of length.
    send(&archive[..archive.len() - 143], &signed).await.refused(422, &format!("lacks the block {cid}"));
    let mut wrong = archive.clone();
    *wrong.last_mut().expect("a byte") ^= 1;
    send(&wrong, &signed).await.refused(422, "is another one");
    // The same blocks again and again, which would be kept once.
    let long = [&archive[..], &archive[0x3b..].repeat(10_000)].concat();
    send(&long, &signed).await.refused(413, "2 MiB");
    let poor = metadata(&store_of(&account("archives: poor"), "ipfs", cid), true);
    assert_eq!(send(&archive, &poor).await.status, 402);
}

#[tokio::test]
async fn json_is_stored_in_one_form() {
    let stored = post("/api/v0/storage/add_json", "application/json", r#" {"b": 2.50, "a": [ ]} "#).await.json();
    let hash = ItemHash::sha256_of(br#"{"a":[],"b":2.50}"#).to_string();
    assert_eq!(stored, json!({"status": "success", "hash": hash}));
    assert_eq!(get(&format!("/api/v0/storage/raw/{hash}")).await.text(), r#"{"a":[],"b":2.50}"#);
    post("/api/v0/storage/add_json", "application/json", "{").await.refused(422, "not JSON");
    post("/api/v0/storage/add_json", "application/json", r#"1},{"x":2"#).await.refused(422, "not JSON");
    let ipfs = post("/api/v0/ipfs/add_json", "application/json", "{}").await.json();
    assert_eq!(ipfs["hash"], "QmbJWAESqCsf4RFCqEY7jecCashj8usXiyDNfKtZCwwzGb");
}

#[tokio::test]
async fn ipfs_names_are_computed_here() {
    let answer = upload("/api/v0/ipfs/add_file", &[("file", Some("hello.txt"), b"hello world\n")]).await;
    let cid = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";
    assert_eq!(answer.json(), json!({"status": "success", "hash": cid, "name": "hello.txt", "size": 12}));
    let encoded = get_json(&format!("/api/v0/storage/{cid}")).await;
    assert_eq!(encoded["engine"], "ipfs");
    assert_eq!(get(&format!("/api/v0/storage/raw/{cid}")).await.text(), "hello world\n");

    let owner = account("ipfs_names");
    fund(&owner, 1_000_000).await;
    let message = store_of(&owner, "ipfs", cid);
    let metadata = metadata(&message, true);
    let send = async |bytes: &[u8]| {
        upload("/api/v0/ipfs/add_file", &[("metadata", None, &metadata), ("file", Some("h"), bytes)]).await
    };
    let good = send(b"hello world\n").await;
    assert_eq!(good.status, 200, "{}", good.text());
    send(b"other").await.refused(422, "File hash does not match");
}

/// The head of a part was held in memory however long it was, and clients that send no length were not bounded by anything.
#[tokio::test]
async fn the_head_of_a_part_is_not_read_without_end() {
    const WHOLE: usize = 64 << 20;
    let address = NODE.url.strip_prefix("http://").expect("a URL").to_owned();
    let work = move || {
        let mut socket = TcpStream::connect(address).expect("a connection");
        let head = format!(
            "POST /api/v0/storage/add_file HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Type: multipart/form-data; boundary={EDGE}\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).expect("the head");
        let begin = format!("--{EDGE}\r\nX-Long: ");
        socket.write_all(format!("{:x}\r\n{begin}\r\n", begin.len()).as_bytes()).expect("the first chunk");
        let chunk = [b"10000\r\n", &[b'a'; 0x10000][..], b"\r\n"].concat();
        let mut sent = 0;
        while sent < WHOLE && socket.write_all(&chunk).is_ok() {
            sent += chunk.len();
        }
        let mut answer = Vec::new();
        // What is left of the connection may be a reset.
        let _ = socket.take(10_000).read_to_end(&mut answer);
        (sent, String::from_utf8_lossy(&answer).into_owned())
    };
    let (sent, answer) = tokio::task::spawn_blocking(work).await.expect("an answer");
    assert!(sent < WHOLE / 2, "{sent} bytes were taken");
    assert!(answer.is_empty() || answer.contains("the head of a part has more than 65536 bytes"), "{answer}");
}
