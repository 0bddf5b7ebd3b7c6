//! Against a real HTTP server that cuts connections, stalls, lies and does not resume.

use super::*;
use axum::{Router, body::Body, extract::Path as UrlPath, http::HeaderMap, response::Response};
use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use sha2::{Digest as _, Sha256};
use std::collections::VecDeque;
use std::io::Write as _;

/// What the server does with one request.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// Sends what was asked for, ranges included.
    Serve,
    /// Sends the whole file whatever was asked for.
    ServeWhole,
    /// Sends that many bytes of what was asked for, then breaks the connection.
    Cut(usize),
    /// Sends that many bytes, then nothing more.
    Stall(usize),
    /// Sends other bytes of the same length.
    Lie,
    /// Says that it resumes, at another byte than the one asked for.
    ResumeElsewhere,
    /// Does not announce the length.
    Unannounced,
    /// Answers so.
    Refuse(StatusCode),
}

#[derive(Clone)]
struct Server {
    files: Arc<HashMap<String, Bytes>>,
    acts: Arc<Mutex<VecDeque<Act>>>,
    /// The ranges asked for.
    asked: Arc<Mutex<Vec<Option<String>>>>,
}

impl Server {
    fn answer(&self, name: &str, headers: &HeaderMap) -> Response {
        let range = headers.get("range").map(|range| range.to_str().expect("text").to_owned());
        self.asked.lock().expect("not poisoned").push(range.clone());
        let act = self.acts.lock().expect("not poisoned").pop_front().unwrap_or(Act::Serve);
        let Some(whole) = self.files.get(name).cloned() else {
            return Response::builder().status(404).body(Body::empty()).expect("a response");
        };
        let from: usize = range
            .as_deref()
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
            .unwrap_or(0);
        if let Act::Refuse(status) = act {
            return Response::builder().status(status).body(Body::empty()).expect("a response");
        }
        if matches!(act, Act::ServeWhole) {
            return Response::new(Body::from(whole));
        }
        if from >= whole.len() && from > 0 {
            return Response::builder().status(416).body(Body::empty()).expect("a response");
        }
        let bytes = whole.slice(from..);
        let mut response = Response::builder();
        if range.is_some() {
            let first = if matches!(act, Act::ResumeElsewhere) { from + 1 } else { from };
            response = response
                .status(206)
                .header("content-range", format!("bytes {first}-{}/{}", whole.len() - 1, whole.len()));
        }
        if !matches!(act, Act::Unannounced) {
            response = response.header("content-length", bytes.len());
        }
        let body = match act {
            Act::Cut(length) => {
                let first = stream::iter([Ok(bytes.slice(..length))]);
                // The server sends what it has before it waits for more.
                let cut = stream::once(async {
                    tokio::task::yield_now().await;
                    Err("cut")
                });
                Body::from_stream(futures_util::StreamExt::chain(first, cut))
            }
            Act::Stall(length) => {
                let first = stream::iter([Ok::<_, &str>(bytes.slice(..length))]);
                Body::from_stream(futures_util::StreamExt::chain(first, stream::pending()))
            }
            Act::Lie => Body::from(vec![b'!'; bytes.len()]),
            Act::Unannounced => Body::from_stream(stream::iter([Ok::<_, &str>(bytes)])),
            _ => Body::from(bytes),
        };
        response.body(body).expect("a response")
    }
}

struct Fixture {
    cache: Cache,
    folder: tempfile::TempDir,
    server: Server,
    client: Arc<Client>,
}

fn content(seed: u8) -> Bytes {
    (0..200_000_u32).map(|index| (index % 253) as u8 ^ seed).collect::<Vec<_>>().into()
}

fn hash_of(bytes: &[u8]) -> ItemHash {
    hex::encode(Sha256::digest(bytes)).parse().expect("an item hash")
}

async fn fixture(acts: &[Act]) -> Fixture {
    fixture_of(acts, &[content(0)], 1 << 30).await
}

async fn fixture_of(acts: &[Act], files: &[Bytes], limit_bytes: u64) -> Fixture {
    let server = Server {
        files: Arc::new(files.iter().map(|file| (hash_of(file).to_string(), file.clone())).collect()),
        acts: Arc::new(Mutex::new(acts.iter().copied().collect())),
        asked: Arc::default(),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let answering = server.clone();
    let router = Router::new().route(
        "/api/v0/storage/raw/{hash}",
        axum::routing::get(move |UrlPath(name): UrlPath<String>, headers: HeaderMap| async move {
            answering.answer(&name, &headers)
        }),
    );
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
    let client = Arc::new(Client::new(&base, Duration::from_secs(10)).expect("a client"));
    let folder = tempfile::tempdir().expect("a folder");
    let cache = Cache::open(folder.path(), client.clone(), limit_bytes, Duration::from_millis(300)).expect("a cache");
    Fixture { cache, folder, server, client }
}

impl Fixture {
    /// The same folder, as the next process finds it.
    fn reopened(&self, limit_bytes: u64) -> Cache {
        Cache::open(self.folder.path(), self.client.clone(), limit_bytes, Duration::from_millis(300)).expect("a cache")
    }

    fn asked(&self) -> Vec<Option<String>> {
        self.server.asked.lock().expect("not poisoned").clone()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.folder.path())
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

fn bytes_of(file: &CachedFile) -> Vec<u8> {
    use std::os::unix::fs::FileExt as _;
    let mut bytes = vec![0; usize::try_from(file.length_bytes).expect("a small file")];
    file.file.read_exact_at(&mut bytes, 0).expect("a read");
    bytes
}

/// Downloads one file from a server that acts so; returns the ranges that were asked for.
async fn check(acts: &[Act]) -> Vec<Option<String>> {
    let fixture = fixture(acts).await;
    let hash = hash_of(&content(0));
    let file = fixture.cache.get(&hash).await.expect("a file");
    assert_eq!(bytes_of(&file), content(0));
    assert_eq!(fixture.names(), [hash.to_string()], "nothing else is left");
    fixture.asked()
}

fn range(from: u64) -> Option<String> {
    Some(format!("bytes={from}-"))
}

#[tokio::test]
async fn a_download_goes_on_where_it_was_cut() {
    assert_eq!(check(&[Act::Serve]).await, [None]);
    assert_eq!(check(&[Act::Unannounced]).await, [None]);
    assert_eq!(check(&[Act::Cut(70_000), Act::Cut(50_000)]).await, [None, range(70_000), range(120_000)]);
    assert_eq!(check(&[Act::Stall(70_000)]).await, [None, range(70_000)]);
    assert_eq!(
        check(&[Act::Refuse(StatusCode::BAD_GATEWAY), Act::Refuse(StatusCode::TOO_MANY_REQUESTS)]).await,
        [None, None, None]
    );
}

#[tokio::test]
async fn a_server_that_does_not_resume_is_heard_from_the_start() {
    assert_eq!(check(&[Act::Cut(70_000), Act::ServeWhole]).await, [None, range(70_000)]);
    assert_eq!(check(&[Act::Cut(70_000), Act::ResumeElsewhere]).await, [None, range(70_000), None]);
}

#[tokio::test]
async fn progress_is_what_keeps_a_download_going() {
    let acts: Vec<_> = (0..8).map(|_| Act::Cut(10_000)).collect();
    assert_eq!(check(&acts).await.len(), 9);
    let fixture = fixture(&[Act::Refuse(StatusCode::BAD_GATEWAY); 5]).await;
    let error = fixture.cache.get(&hash_of(&content(0))).await.expect_err("an error");
    assert!(matches!(error, CacheError::Interrupted { at_bytes: 0, .. }), "{error}");
}

#[tokio::test]
async fn other_bytes_are_refused_and_not_kept() {
    let fixture = fixture(&[Act::Lie]).await;
    let error = fixture.cache.get(&hash_of(&content(0))).await.expect_err("an error");
    assert!(matches!(error, CacheError::Ccn(CcnError::Mismatch { .. })), "{error}");
    assert_eq!(fixture.names(), [""; 0]);
}

#[tokio::test]
async fn what_the_node_does_not_have_is_said_at_once() {
    let fixture = fixture(&[]).await;
    let error = fixture.cache.get(&hash_of(b"nothing")).await.expect_err("an error");
    assert!(matches!(error, CacheError::Ccn(CcnError::Unknown(_))), "{error}");
    assert_eq!(fixture.asked().len(), 1);
}

#[tokio::test]
async fn a_beginning_of_an_earlier_process_is_used_when_it_is_good_and_dropped_when_not() {
    let whole = content(0);
    for (beginning, ranges) in [
        (whole[..90_000].to_vec(), vec![range(90_000)]),
        (whole.to_vec(), vec![range(200_000)]),
        (vec![1; 90_000], vec![range(90_000), None]),
        (vec![1; 300_000], vec![range(300_000), None]),
    ] {
        let fixture = fixture(&[]).await;
        let hash = hash_of(&whole);
        fs::write(fixture.folder.path().join(format!("{hash}.part")), beginning).expect("a write");
        let file = fixture.reopened(1 << 30).get(&hash).await.expect("a file");
        assert_eq!(bytes_of(&file), whole);
        assert_eq!(fixture.asked(), ranges);
    }
}

#[tokio::test]
async fn however_many_ask_there_is_one_download() {
    let fixture = fixture(&[]).await;
    let hash = hash_of(&content(0));
    let all = (0..100).map(|_| fixture.cache.get(&hash));
    for file in futures_util::future::join_all(all).await {
        assert_eq!(file.expect("a file").length_bytes, 200_000);
    }
    assert_eq!(fixture.asked().len(), 1);
}

#[tokio::test]
async fn the_search_goes_on_when_who_asked_has_left() {
    let fixture = fixture(&[]).await;
    let hash = hash_of(&content(0));
    assert!(fixture.cache.get(&hash).now_or_never().is_none());
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while fixture.names() != [hash.to_string()] {
        assert!(std::time::Instant::now() < deadline, "{:?}", fixture.names());
        tokio::task::yield_now().await;
    }
}

/// Writes to a file in place, as a failing disk would: same name, same inode, same length.
fn damage(path: &Path) {
    let mut file = fs::OpenOptions::new().write(true).open(path).expect("a file");
    file.write_all(b"damage").expect("a write");
}

#[tokio::test]
async fn a_damaged_file_is_fetched_anew() {
    let fixture = fixture(&[]).await;
    let hash = hash_of(&content(0));
    drop(fixture.cache.get(&hash).await.expect("a file"));
    assert_eq!(fixture.asked().len(), 1);
    // Untouched: trusted in this process, verified by the next.
    drop(fixture.cache.get(&hash).await.expect("a file"));
    drop(fixture.reopened(1 << 30).get(&hash).await.expect("a file"));
    assert_eq!(fixture.asked().len(), 1);
    // Changed under this process, and while there was none.
    for (damaged, cache) in [(2, fixture.cache.clone()), (3, fixture.reopened(1 << 30))] {
        damage(&fixture.folder.path().join(hash.to_string()));
        assert_eq!(bytes_of(&cache.get(&hash).await.expect("a file")), content(0));
        assert_eq!(fixture.asked().len(), damaged);
    }
}

/// A disk that loses bits changes no time stamp; the guest that reads them fails, and asks for this.
#[tokio::test]
async fn a_recheck_reads_what_was_trusted() {
    let fixture = fixture(&[]).await;
    let hash = hash_of(&content(0));
    drop(fixture.cache.get(&hash).await.expect("a file"));
    assert_eq!(fixture.cache.recheck(std::slice::from_ref(&hash)).await.expect("a count"), 0);
    damage(&fixture.folder.path().join(hash.to_string()));
    // As if the time stamps had not changed.
    let identity =
        Identity::of(&File::open(fixture.folder.path().join(hash.to_string())).expect("a file")).expect("an identity");
    fixture.cache.shared.state().files.get_mut(&hash).expect("an entry").trusted = Some(identity);
    assert_ne!(bytes_of(&fixture.cache.get(&hash).await.expect("a file")), content(0));
    assert_eq!(fixture.cache.recheck(std::slice::from_ref(&hash)).await.expect("a count"), 1);
    assert_eq!(bytes_of(&fixture.cache.get(&hash).await.expect("a file")), content(0));
}

#[tokio::test]
async fn the_least_recently_used_file_makes_room_and_one_in_use_stays() {
    let files = [content(0), content(1), content(2)];
    let [first, second, third] = files.each_ref().map(|file| hash_of(file));
    let fixture = fixture_of(&[], &files, 450_000).await;
    let held = fixture.cache.get(&first).await.expect("a file");
    drop(fixture.cache.get(&second).await.expect("a file"));
    drop(fixture.cache.get(&third).await.expect("a file"));
    let mut left = [first.to_string(), third.to_string()];
    left.sort();
    assert_eq!(fixture.names(), left);
    assert_eq!(fixture.cache.used_bytes(), 400_000);

    let tight = fixture.reopened(150_000);
    drop(held);
    let error = tight.get(&second).await.expect_err("no room");
    assert!(matches!(error, CacheError::Full(_)), "{error}");
}

/// The beginning of a file that is about to go on was made room of: the download ended without a place.
#[tokio::test]
async fn a_beginning_that_somebody_waits_for_stays() {
    let fixture = fixture_of(&[], &[content(0), content(1)], 300_000).await;
    let [first, second] = [content(0), content(1)].map(|file| hash_of(&file));
    let folder = &fixture.cache.shared;
    let part = folder.part(&first);
    fs::write(&part, &content(0)[..150_000]).expect("a write");
    folder.state().parts.insert(first.clone(), 150_000);
    folder.state().flights.insert(first.clone(), futures_util::future::pending().boxed().shared());
    let refused = folder.reserve(&second, 200_000).expect_err("no room");
    assert!(matches!(refused, CacheError::Full(_)) && part.exists(), "{refused}");
    // Nobody waits any more.
    folder.state().flights.clear();
    folder.reserve(&second, 200_000).expect("room");
    assert!(!part.exists());
}

/// Operators delete files by hand, as they had to with other nodes.
#[tokio::test]
async fn a_file_that_is_gone_already_makes_room_too() {
    let fixture = fixture_of(&[], &[content(0), content(1)], 300_000).await;
    let [first, second] = [content(0), content(1)].map(|file| hash_of(&file));
    drop(fixture.cache.get(&first).await.expect("a file"));
    fs::remove_file(fixture.folder.path().join(first.to_string())).expect("removed");
    fixture.cache.get(&second).await.expect("a file");
}

#[tokio::test]
async fn left_overs_are_swept_and_strangers_too() {
    let fixture = fixture(&[]).await;
    let old = fixture.folder.path().join(format!("{}.part", hash_of(b"old")));
    let file = File::create(&old).expect("a file");
    file.set_modified(SystemTime::now() - 2 * PART_KEPT_FOR).expect("a time");
    fs::write(fixture.folder.path().join("stranger"), b"").expect("a write");
    let young = format!("{}.part", hash_of(b"young"));
    fs::write(fixture.folder.path().join(&young), b"x").expect("a write");
    fixture.reopened(1 << 30);
    assert_eq!(fixture.names(), [young]);
}
