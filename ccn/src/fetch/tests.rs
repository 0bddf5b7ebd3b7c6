//! Real sources over HTTP on this machine, honest ones and others.

use super::*;
use crate::dag::building::{self, Blocks as Built};
use axum::{
    Router,
    body::Body,
    extract::{Path, Query, Request, State},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use bytes::Bytes;
use futures_util::stream;
use std::{collections::HashMap, convert::Infallible, sync::atomic::AtomicUsize, sync::atomic::Ordering};

const MAX_BYTES: u64 = 4 << 20;

/// A source that runs until the test ends, with the paths that it was asked for.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(router: Router) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let note = |State(asked): State<Arc<Mutex<Vec<String>>>>, request: Request, next: axum::middleware::Next| async move {
            asked.lock().expect("no panic").push(format!("{} {}", request.method(), request.uri()));
            next.run(request).await
        };
        let router = router.layer(axum::middleware::from_fn_with_state(asked.clone(), note));
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", socket.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(socket, router).await });
        Self { url, asked }
    }

    /// A peer that answers everything in the same way.
    async fn peer<F: Future<Output = Response> + Send + 'static>(
        answer: impl Fn() -> F + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::start(Router::new().route("/api/v0/storage/raw/{hash}", get(move |_: Path<String>| answer()))).await
    }

    async fn honest(bytes: &'static [u8]) -> Self {
        Self::peer(move || async move { bytes.into_response() }).await
    }

    /// A gateway that answers with that archive, and with those blocks when it is asked for one.
    async fn gateway(archive: Option<Vec<u8>>, blocks: Built) -> Self {
        let answer = move |Path(cid): Path<String>, Query(query): Query<HashMap<String, String>>| {
            let block = blocks.find(&cid).map(<[u8]>::to_vec);
            let found = if query["format"] == "car" { archive.clone() } else { block };
            async move { found.map_or_else(|| StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response) }
        };
        Self::start(Router::new().route("/ipfs/{cid}", get(answer))).await
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }

    fn times(&self) -> usize {
        self.asked().len()
    }
}

/// A folder of files and who fills it.
struct Scene {
    fetcher: Fetcher,
    files: Files,
    folder: tempfile::TempDir,
}

impl Scene {
    fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let files = Files::open_folder(folder.path()).expect("a folder");
        // A second one is only asked beside another where the test is about that.
        let patience = Patience { second: Duration::from_secs(600), ..Patience::default() };
        let mut settings = Settings { max_bytes: MAX_BYTES, downloads: 4, patience, ..Settings::default() };
        change(&mut settings);
        Self { fetcher: Fetcher::new(files.clone(), settings).expect("a client"), files, folder }
    }

    fn of_peers(peers: &[&Server]) -> Self {
        Self::new(|settings| settings.peers = peers.iter().map(|peer| peer.url.clone()).collect())
    }

    fn of_gateways(gateways: &[&Server]) -> Self {
        Self::new(|settings| settings.ipfs.gateways = gateways.iter().map(|gateway| gateway.url.clone()).collect())
    }

    async fn fetch(&self, hash: &ItemHash) -> Result<Found, Lacking> {
        self.fetcher.fetch(hash).await
    }

    /// Nothing is left of what was not taken.
    fn assert_tidy(&self) {
        assert_eq!(std::fs::read_dir(self.folder.path().join("partial")).expect("a folder").count(), 0);
    }
}

const GOOD: &[u8] = b"what was asked for";

fn good() -> ItemHash {
    ItemHash::sha256_of(GOOD)
}

fn found(size: u64) -> Result<Found, Lacking> {
    Ok(Found { kind: FileKind::File, size })
}

/// Peers in an order in which the bad one is asked first.
fn first_then<'server>(first: &'server Server, then: &'server Server) -> [&'server Server; 2] {
    let hash = good().to_string();
    let even = hash.bytes().last().is_some_and(|byte| byte % 2 == 0);
    if even { [first, then] } else { [then, first] }
}

/// Both peers were asked, and the file is here.
async fn check_second(scene: Scene, first: &Server, then: &Server) {
    assert_eq!(scene.fetch(&good()).await, found(GOOD.len() as u64));
    assert_eq!((first.times(), then.times()), (1, 1));
    assert_eq!(scene.files.read(&good(), 100).expect("no error").as_deref(), Some(GOOD));
    scene.assert_tidy();
}

#[tokio::test]
async fn who_lies_or_refuses_is_left_for_the_next() {
    let liar = Server::honest(b"something else").await;
    let refuser = Server::peer(|| async { StatusCode::INTERNAL_SERVER_ERROR.into_response() }).await;
    for bad in [liar, refuser] {
        let then = Server::honest(GOOD).await;
        check_second(Scene::of_peers(&first_then(&bad, &then)), &bad, &then).await;
    }
}

#[tokio::test]
async fn who_hangs_is_left_for_the_next() {
    let silent = Server::peer(std::future::pending).await;
    let stops = Server::peer(|| async {
        let begin = stream::once(async { Ok::<_, Infallible>(Bytes::from_static(b"what")) });
        Body::from_stream(begin.chain(stream::pending())).into_response()
    })
    .await;
    let drips = Server::peer(|| async {
        let drops = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Some((Ok::<_, Infallible>(Bytes::from_static(b"w")), ()))
        });
        Body::from_stream(drops).into_response()
    })
    .await;
    let check = async |bad: Server| {
        let then = Server::honest(GOOD).await;
        let scene = Scene::new(|settings| {
            settings.peers = first_then(&bad, &then).map(|peer| peer.url.clone()).to_vec();
            // An honest one answers within that, however busy the machine is.
            let short = Duration::from_secs(3);
            let patience = settings.patience;
            settings.patience =
                Patience { answer: short, stall: short, at_once: short, least_rate: 1 << 20, ..patience };
        });
        check_second(scene, &bad, &then).await;
    };
    tokio::join!(check(silent), check(stops), check(drips));
}

#[tokio::test]
async fn while_one_has_not_begun_another_is_asked_beside_it() {
    let silent = Server::peer(std::future::pending).await;
    let then = Server::honest(GOOD).await;
    let scene = Scene::new(|settings| {
        settings.peers = first_then(&silent, &then).map(|peer| peer.url.clone()).to_vec();
        // The first one is given up long after this test: what is found comes from one that was asked beside it.
        settings.patience.answer = Duration::from_secs(3600);
        settings.patience.second = Duration::from_millis(20);
    });
    check_second(scene, &silent, &then).await;
}

#[tokio::test]
async fn who_sends_without_end_is_left_for_the_next() {
    let endless = Server::peer(|| async {
        Body::from_stream(stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[7; 64 << 10]))))
            .into_response()
    })
    .await;
    let claims = Server::peer(|| async {
        let nothing = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        ([("content-length", "1000000000000")], nothing).into_response()
    })
    .await;
    for bad in [endless, claims] {
        let then = Server::honest(GOOD).await;
        check_second(Scene::of_peers(&first_then(&bad, &then)), &bad, &then).await;
    }
    // The same in blocks: one valid block again and again.
    let mut blocks = Built::default();
    let leaf = blocks.raw(&[7; 60 << 10]);
    let root = blocks.node(building::file(&[(leaf.clone(), 60 << 10)]));
    let head = Bytes::from(dag::car::header(&root));
    let frame = [dag::car::block_head(&leaf, blocks.get(&leaf)), blocks.get(&leaf).to_vec()].concat();
    let frame = Bytes::from(frame);
    let answer = move |_: Path<String>| {
        let (head, frame) = (head.clone(), frame.clone());
        async move {
            let frames = stream::repeat_with(move || Ok::<_, Infallible>(frame.clone()));
            Body::from_stream(stream::once(async move { Ok(head) }).chain(frames)).into_response()
        }
    };
    let endless = Server::start(Router::new().route("/ipfs/{cid}", get(answer))).await;
    let scene = Scene::of_gateways(&[&endless]);
    assert_eq!(scene.fetch(&hash_of(&root)).await, Err(Lacking::Nobody));
    scene.assert_tidy();
}

#[tokio::test]
async fn redirections_lead_to_the_same_site_only() {
    let inner = Server::honest(GOOD).await;
    let elsewhere = format!("{}/api/v0/storage/raw/x", inner.url);
    let outward = Server::peer(move || {
        let elsewhere = elsewhere.clone();
        async move { Redirect::temporary(&elsewhere).into_response() }
    })
    .await;
    let scene = Scene::of_peers(&[&outward]);
    assert_eq!(scene.fetch(&good()).await, Err(Lacking::Nobody));
    assert_eq!((outward.times(), inner.times()), (1, 0));

    let router = Router::new()
        .route("/api/v0/storage/raw/{hash}", get(|_: Path<String>| async { Redirect::permanent("/moved") }))
        .route("/moved", get(|| async { GOOD }));
    let inward = Server::start(router).await;
    let scene = Scene::of_peers(&[&inward]);
    assert_eq!(scene.fetch(&good()).await, found(GOOD.len() as u64));

    let circle = Router::new()
        .route("/api/v0/storage/raw/{hash}", get(|Path(hash): Path<String>| async move { Redirect::temporary(&hash) }));
    let circle = Server::start(circle).await;
    let scene = Scene::of_peers(&[&circle]);
    assert_eq!(scene.fetch(&good()).await, Err(Lacking::Nobody));
    assert_eq!(circle.times(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_who_ask_at_once_are_one_question() {
    // The answer comes once all hundred wait for it.
    let (waiting, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Notify::new()));
    let opened = gate.clone();
    let peer = Server::peer(move || {
        let opened = opened.clone();
        async move {
            opened.notified().await;
            GOOD.into_response()
        }
    })
    .await;
    let scene = Scene::of_peers(&[&peer]);
    let askers: Vec<_> = (0..100)
        .map(|_| {
            let (fetcher, waiting) = (scene.fetcher.clone(), waiting.clone());
            tokio::spawn(async move {
                waiting.fetch_add(1, Ordering::SeqCst);
                fetcher.fetch(&good()).await
            })
        })
        .collect();
    while waiting.load(Ordering::SeqCst) < 100 || peer.times() == 0 {
        tokio::task::yield_now().await;
    }
    gate.notify_one();
    for asker in askers {
        assert_eq!(asker.await.expect("no panic"), found(GOOD.len() as u64));
    }
    assert_eq!(peer.times(), 1);
}

#[tokio::test]
async fn what_nobody_has_is_not_asked_for_again_at_once() {
    let peer = Server::peer(|| async { StatusCode::NOT_FOUND.into_response() }).await;
    let scene = Scene::of_peers(&[&peer]);
    for _ in 0..5 {
        assert_eq!(scene.fetch(&good()).await, Err(Lacking::Nobody));
    }
    assert_eq!(peer.times(), 1);
    // The search's own pauses bound it: after one of them everybody is asked again.
    scene.fetcher.shared.lacking.invalidate(&good()).await;
    assert_eq!(scene.fetch(&good()).await, Err(Lacking::Nobody));
    assert_eq!(peer.times(), 2);
    let searched = |engine| {
        let searched = scene.fetcher.tally().searched(engine);
        (searched.total, searched.failed, searched.took > Duration::ZERO)
    };
    assert_eq!((searched(Engine::Storage), searched(Engine::Ipfs)), ((2, 2, true), (0, 0, false)));
}

fn hash_of(cid: &Cid) -> ItemHash {
    ItemHash::parse(&cid.to_string()).expect("a hash")
}

/// A file in pieces of a size that nobody uses, in three levels of nodes.
fn odd_file() -> (Vec<u8>, Built, Cid) {
    let bytes: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut blocks = Built::default();
    let root = blocks.layout(&bytes, 10_007, 3);
    (bytes, blocks, root)
}

#[tokio::test]
async fn a_file_of_any_layout_comes_as_an_archive() {
    let (bytes, blocks, root) = odd_file();
    let gateway = Server::gateway(Some(blocks.archive(&root)), Built::default()).await;
    let scene = Scene::of_gateways(&[&gateway]);
    assert_eq!(scene.fetch(&hash_of(&root)).await, found(bytes.len() as u64));
    assert!(scene.files.read(&hash_of(&root), MAX_BYTES).expect("no error") == Some(bytes));
    assert_eq!(gateway.asked(), [format!("GET /ipfs/{root}?format=car")]);
    scene.assert_tidy();
}

#[tokio::test]
async fn a_gateway_without_archives_is_asked_block_by_block() {
    let (bytes, blocks, root) = odd_file();
    let count = blocks.count();
    let gateway = Server::gateway(None, blocks).await;
    let scene = Scene::of_gateways(&[&gateway]);
    assert_eq!(scene.fetch(&hash_of(&root)).await, found(bytes.len() as u64));
    assert_eq!(gateway.times(), 1 + count);
    scene.assert_tidy();
}

#[tokio::test]
async fn a_wrong_block_ends_it_with_that_source() {
    let (bytes, blocks, root) = odd_file();
    let mut wrong = blocks.archive(&root);
    let place = wrong.len() / 2;
    wrong[place] ^= 1;
    // It has all blocks, too: who lied once is not asked for more.
    let liar = Server::gateway(Some(wrong), blocks.clone()).await;
    let honest = Server::gateway(Some(blocks.archive(&root)), Built::default()).await;
    for order in [[&liar, &honest], [&honest, &liar]] {
        let scene = Scene::of_gateways(&order);
        assert_eq!(scene.fetch(&hash_of(&root)).await, found(bytes.len() as u64));
        scene.assert_tidy();
    }
    assert_eq!((liar.times(), honest.times()), (1, 2));

    // One that is asked block by block and answers with another one.
    let answer = |_: Path<String>, Query(query): Query<HashMap<String, String>>| async move {
        if query["format"] == "car" { StatusCode::NOT_ACCEPTABLE.into_response() } else { "junk".into_response() }
    };
    let liar = Server::start(Router::new().route("/ipfs/{cid}", get(answer))).await;
    let scene = Scene::of_gateways(&[&liar]);
    assert_eq!(scene.fetch(&hash_of(&root)).await, Err(Lacking::Nobody));
    assert_eq!(liar.times(), 2);
}

#[tokio::test]
async fn a_missing_block_is_asked_for_or_ends_it() {
    let (bytes, blocks, root) = odd_file();
    let (without, missing) = blocks.without(7);
    let archive = without.archive(&root);
    let lacks = Server::gateway(Some(archive.clone()), without.clone()).await;
    let scene = Scene::of_gateways(&[&lacks]);
    assert_eq!(scene.fetch(&hash_of(&root)).await, Err(Lacking::Nobody));
    let expect = [format!("GET /ipfs/{root}?format=car"), format!("GET /ipfs/{missing}?format=raw")];
    assert_eq!(lacks.asked(), expect);
    scene.assert_tidy();

    let gives = Server::gateway(Some(archive), blocks.clone()).await;
    let scene = Scene::of_gateways(&[&gives]);
    assert_eq!(scene.fetch(&hash_of(&root)).await, found(bytes.len() as u64));
    assert_eq!(gives.asked(), expect);

    // An archive that breaks off: what came before is not asked for again.
    let mut cut = blocks.archive(&root);
    cut.truncate(cut.len() - 10);
    let breaks = Server::gateway(Some(cut), blocks).await;
    let scene = Scene::of_gateways(&[&breaks]);
    assert_eq!(scene.fetch(&hash_of(&root)).await, found(bytes.len() as u64));
    assert_eq!(breaks.asked(), [expect[0].clone(), format!("GET /ipfs/{root}?format=raw")]);
}

#[tokio::test]
async fn an_ipfs_node_exports_and_gives_blocks() {
    let (bytes, blocks, root) = odd_file();
    let (without, missing) = blocks.without(0);
    let archive = without.archive(&root);
    let block = blocks.get(&missing).to_vec();
    let router = Router::new()
        .route("/api/v0/dag/export", post(move || async move { archive }))
        .route("/api/v0/block/get", post(move || async move { block }));
    let node = Server::start(router).await;
    let scene = Scene::new(|settings| settings.ipfs.api = Some(node.url.clone()));
    assert_eq!(scene.fetch(&hash_of(&root)).await, found(bytes.len() as u64));
    let expect =
        [format!("POST /api/v0/dag/export?arg={root}&progress=false"), format!("POST /api/v0/block/get?arg={missing}")];
    assert_eq!(node.asked(), expect);
    assert_eq!(scene.fetch(&good()).await, Err(Lacking::Nobody), "a sha256 is no name in IPFS");
    assert_eq!(node.times(), 2);
}

#[tokio::test]
async fn what_is_taken_from_nobody_is_asked_for_once() {
    let mut blocks = Built::default();
    let symlink = blocks.node(vec![0x0a, 5, 8, 4, 0x12, 1, b'/']);
    let (one, two) = (
        Server::gateway(Some(blocks.archive(&symlink)), Built::default()).await,
        Server::gateway(Some(blocks.archive(&symlink)), Built::default()).await,
    );
    let scene = Scene::of_gateways(&[&one, &two]);
    assert_eq!(scene.fetch(&hash_of(&symlink)).await, Err(Lacking::Unfit));
    assert_eq!(one.times() + two.times(), 1);
    let mut blocks = Built::default();
    let large = blocks.layout(&vec![7; 5 << 20], 1 << 18, 174);
    let gateway = Server::gateway(Some(blocks.archive(&large)), Built::default()).await;
    let scene = Scene::of_gateways(&[&gateway]);
    assert_eq!(scene.fetch(&hash_of(&large)).await, Err(Lacking::Unfit));
    scene.assert_tidy();
}

#[tokio::test]
async fn a_folder_is_kept_as_its_archive_and_found_again() {
    let mut blocks = Built::default();
    let (a, b) = (blocks.raw(b"aaa"), blocks.raw(b"bb"));
    let sub = blocks.directory(&[("b", &b, 2)]);
    let of_sub = blocks.get(&sub).len() as u64 + 2;
    let root = blocks.directory(&[("a", &a, 3), ("sub", &sub, of_sub)]);
    let size = blocks.get(&root).len() as u64 + 3 + of_sub;
    let gateway = Server::gateway(Some(blocks.archive(&root)), Built::default()).await;
    let scene = Scene::of_gateways(&[&gateway]);
    let folder = Ok(Found { kind: FileKind::Directory, size });
    assert_eq!(scene.fetch(&hash_of(&root)).await, folder);
    assert!(scene.files.has_archive(&hash_of(&root)).expect("no error"));
    assert_eq!(scene.files.size(&hash_of(&root)).expect("no error"), None, "a folder is no file");
    // As after a crash that came before it was recorded: nobody is asked.
    assert_eq!(scene.fetch(&hash_of(&root)).await, folder);
    assert_eq!(gateway.times(), 1);
    scene.assert_tidy();
    scene.files.remove(&hash_of(&root)).expect("no error");
    assert!(!scene.files.has_archive(&hash_of(&root)).expect("no error"));
}
