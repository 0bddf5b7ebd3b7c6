//! What a real IPFS node cannot be made to do: it hangs, it lies, it breaks off, and it knows names as kubo does. The rest is tried with a real one
//! (`tests/ccn/ipfs.rs`).

use super::{record::IpfsPinRecord, record::PinState, *};
use crate::{
    store::{
        Reader as _,
        record::{FileKind, FileRecord, Record as _},
        schema::{Table, hash_key},
    },
    testing::TestNode,
};
use axum::{
    Router,
    body::Body,
    extract::{Path, Query, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use ccn_message::ItemHash;
use futures_util::stream;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

/// Long enough for a test machine, short enough for a test.
const WITHIN: Duration = Duration::from_secs(60);

/// How the fake treats a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Manner {
    #[default]
    Good,
    /// It never answers.
    Hangs,
    /// It begins to answer, and closes.
    BreaksOff,
    /// 500, in kubo's words.
    Refuses,
    /// 500, in the words of something else.
    Fails,
    /// 200, and no JSON.
    Babbles,
    /// 200, and no end.
    Endless,
    /// It says that it was done, and does nothing.
    Lies,
}

#[derive(Debug, Default)]
struct Fake {
    id: Mutex<String>,
    pins: Mutex<BTreeMap<String, String>>,
    /// Pins of a block by itself.
    direct: Mutex<BTreeSet<String>>,
    manners: Mutex<HashMap<String, Manner>>,
    asked: Mutex<Vec<String>>,
}

async fn answer(
    State(fake): State<Arc<Fake>>,
    Path(command): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    request: Request,
) -> Response {
    let cid = query.get("arg").cloned().unwrap_or_default();
    fake.asked.lock().expect("no panic").push(command.clone());
    let manner = fake.manners.lock().expect("no panic").get(&command).copied().unwrap_or_default();
    let refusal = |message: &str| {
        let body = json!({"Message": message, "Code": 0, "Type": "error"});
        (StatusCode::INTERNAL_SERVER_ERROR, body.to_string()).into_response()
    };
    match manner {
        Manner::Good | Manner::Lies => {}
        Manner::Hangs => std::future::pending().await,
        Manner::BreaksOff => {
            let piece = || stream::iter([Ok(b"{".to_vec()), Err(std::io::Error::other("the end"))]);
            return Body::from_stream(piece()).into_response();
        }
        Manner::Refuses => return refusal("no space left on device"),
        Manner::Fails => return (StatusCode::INTERNAL_SERVER_ERROR, "<html>").into_response(),
        Manner::Babbles => return "<html>".into_response(),
        Manner::Endless => {
            let piece = || async { Some((Ok::<_, std::convert::Infallible>(vec![b' '; 10_000]), ())) };
            return Body::from_stream(stream::unfold((), move |()| piece())).into_response();
        }
    }
    let is_done = manner == Manner::Good;
    let mut pins = fake.pins.lock().expect("no panic");
    let body = match command.as_str() {
        "id" => json!({"ID": *fake.id.lock().expect("no panic"), "AgentVersion": "fake/1"}),
        "dag/import" => {
            drop(pins);
            let taken = axum::body::to_bytes(request.into_body(), 4 << 20).await.map(|bytes| bytes.len());
            assert!(taken.is_ok_and(|bytes| bytes > 100), "an archive comes");
            json!({"Stats": {"BlockCount": 1}})
        }
        "pin/ls" if query["type"] == "direct" => {
            if !fake.direct.lock().expect("no panic").contains(&cid) {
                return refusal(&format!("path '{cid}' is not pinned"));
            }
            json!({"Keys": {cid: {"Type": "direct", "Name": ""}}})
        }
        "pin/ls" => match pins.get(&cid) {
            Some(name) => json!({"Keys": {cid: {"Type": "recursive", "Name": name}}}),
            None => return refusal(&format!("path '{cid}' is not pinned")),
        },
        "pin/add" => {
            if is_done {
                fake.direct.lock().expect("no panic").remove(&cid);
                pins.insert(cid.clone(), query.get("name").cloned().unwrap_or_default());
            }
            json!({"Pins": [cid]})
        }
        "pin/rm" => {
            if pins.remove(&cid).is_none() {
                return refusal("not pinned or pinned indirectly");
            }
            json!({"Pins": [cid]})
        }
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    body.to_string().into_response()
}

/// A node that pins at a fake.
struct Scene {
    node: TestNode,
    fake: Arc<Fake>,
    url: String,
    pinning: Option<Pinning>,
}

impl Scene {
    async fn new() -> Self {
        let fake = Arc::new(Fake::default());
        "the first".clone_into(&mut fake.id.lock().expect("no panic"));
        let router = Router::new().route("/api/v0/{*command}", post(answer)).with_state(fake.clone());
        let router = router.layer(axum::extract::DefaultBodyLimit::disable());
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", socket.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(socket, router).await });
        let mut scene = Self { node: TestNode::new().await, fake, url, pinning: None };
        scene.restart().await;
        scene
    }

    /// The one who pins ends and begins anew.
    async fn restart(&mut self) {
        if let Some(pinning) = self.pinning.take() {
            pinning.stop().await;
        }
        // Nothing that answers is late on a busy machine, and what fails stays so until the next start, however long it all takes.
        let (soon, again) = (Duration::from_secs(5), Duration::from_secs(3600));
        let patience = Patience { connect: soon, answer: soon, work: soon, least_rate: 1 << 20, again };
        let service = &self.node.service;
        let (store, files) = (service.store.clone(), service.files.clone());
        let pinning = Pinning::with(&self.url, store, files, service.pipeline.clone(), patience);
        self.pinning = Some(pinning.expect("a client"));
    }

    fn behave(&self, command: &str, manner: Manner) {
        self.fake.manners.lock().expect("no panic").insert(command.to_owned(), manner);
    }

    fn status(&self) -> PinningStatus {
        self.pinning.as_ref().expect("it works").status()
    }

    fn name(&self) -> String {
        self.status().name
    }

    /// A file that messages keep, or that is gone.
    async fn set(&self, hash: &ItemHash, is_kept: bool) {
        let record = FileRecord { size: 3, kind: FileKind::File, grace: None, pins: 1 };
        let row = is_kept.then(|| record.to_bytes());
        self.node.service.pipeline.note(Table::Files, hash_key(hash), row).await.expect("a row");
    }

    async fn keep(&self, bytes: &[u8]) -> ItemHash {
        let files = &self.node.service.files;
        let mut writer = files.writer().await.expect("a file");
        writer.write(bytes).await.expect("a write");
        let file = writer.finish().await.expect("a file");
        let hash = file.cid_v0.clone();
        files.publish(file, &hash).await.expect("a name");
        self.set(&hash, true).await;
        hash
    }

    fn row(&self, hash: &ItemHash) -> Option<PinState> {
        let snapshot = self.node.service.store.snapshot().expect("a snapshot");
        let row = snapshot.get(Table::IpfsPins, &hash_key(hash)).expect("no error")?;
        Some(IpfsPinRecord::read(&row).expect("a record").state)
    }

    fn pin(&self, hash: &ItemHash) -> Option<String> {
        self.fake.pins.lock().expect("no panic").get(&hash.to_string()).cloned()
    }

    fn set_pin(&self, hash: &ItemHash, name: Option<&str>) {
        let mut pins = self.fake.pins.lock().expect("no panic");
        match name {
            Some(name) => pins.insert(hash.to_string(), name.to_owned()),
            None => pins.remove(&hash.to_string()),
        };
    }

    async fn until(&self, what: &str, is_so: impl Fn(&PinningStatus) -> bool) {
        let waited = tokio::time::timeout(WITHIN, async {
            while !is_so(&self.status()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(waited.await.is_ok(), "{what}: {:?}", self.status());
    }

    async fn rests(&self) {
        self.until("it comes to rest", |status| status.state == PinningState::Current).await;
    }
}

const OURS: Option<PinState> = Some(PinState::Pinned { named: true });

#[tokio::test]
async fn pins_carry_the_nodes_name_and_go_with_the_file() {
    let scene = Scene::new().await;
    let hash = scene.keep(b"one").await;
    scene.until("it is pinned", |status| status.pinned == 1).await;
    assert_eq!((scene.pin(&hash), scene.row(&hash)), (Some(scene.name()), OURS));
    scene.set(&hash, false).await;
    scene.until("it is unpinned", |status| status.unpins_total == 1).await;
    assert_eq!((scene.pin(&hash), scene.row(&hash), scene.status().pinned), (None, None, 0));
}

/// Pins that somebody else has made, or made theirs by another name or none, stay.
#[tokio::test]
async fn what_is_anothers_stays() {
    let mut scene = Scene::new().await;
    let before = ItemHash::parse("QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o").expect("a CID");
    scene.set_pin(&before, Some(""));
    scene.set(&before, true).await;
    let direct = ItemHash::parse("bafybeicg2rebjoofv4kbyovkw7af3rpiitvnl6i7ckcywaq6xjcxnc2mby").expect("a CID");
    scene.fake.direct.lock().expect("no panic").insert(direct.to_string());
    scene.set(&direct, true).await;
    let (renamed, anew) = (scene.keep(b"two").await, scene.keep(b"three").await);
    scene.until("it has looked", |status| (status.pinned, status.found) == (2, 2)).await;
    scene.set_pin(&renamed, Some("mine"));
    scene.set_pin(&anew, Some(""));
    for hash in [&before, &direct, &renamed, &anew] {
        scene.set(hash, false).await;
    }
    scene.until("rows go", |status| (status.pinned, status.found) == (0, 0)).await;
    scene.rests().await;
    let names = [&before, &direct, &renamed, &anew].map(|hash| scene.pin(hash).expect("a pin that stays"));
    assert_eq!((names, scene.status().unpins_total), (["", "", "mine", ""].map(str::to_owned), 0));

    // What another took away is pinned by us once that is seen; what carries our name is ours, whatever was lost here.
    let (lost, adopted) = (scene.keep(b"four").await, scene.keep(b"five").await);
    scene.set_pin(&lost, Some(""));
    scene.until("they are there", |status| status.pinned + status.found == 2).await;
    scene.rests().await;
    scene.set_pin(&lost, None);
    scene.node.service.pipeline.note(Table::IpfsPins, hash_key(&adopted), None).await.expect("a row");
    scene.restart().await;
    scene.until("both are ours", |status| (status.pinned, status.found) == (2, 0)).await;
    assert_eq!([scene.pin(&lost), scene.pin(&adopted)], [Some(scene.name()), Some(scene.name())]);
}

#[tokio::test]
async fn another_node_at_the_same_address_gets_everything_anew() {
    let mut scene = Scene::new().await;
    let (ours, theirs) = (scene.keep(b"six").await, scene.keep(b"seven").await);
    scene.until("they are pinned", |status| status.pinned == 2).await;
    scene.pinning.take().expect("it works").stop().await;
    "the second".clone_into(&mut scene.fake.id.lock().expect("no panic"));
    scene.set_pin(&ours, None);
    // What is pinned there already was never ours, whatever we had where we were before.
    scene.set_pin(&theirs, Some(""));
    scene.restart().await;
    scene.until("all is there", |status| (status.pinned, status.found) == (1, 1)).await;
    assert_eq!((scene.row(&ours), scene.row(&theirs)), (OURS, Some(PinState::Found)));
    scene.set(&theirs, false).await;
    scene.until("it is let go", |status| status.found == 0).await;
    assert_eq!(scene.pin(&theirs), Some(String::new()));
}

/// One thing goes wrong with each of them; nothing is taken for done, and all is done once it goes well.
#[tokio::test]
async fn what_goes_wrong_is_said_and_tried_again() {
    let mut scene = Scene::new().await;
    // The first walk is over: what it found while a commit told of it would be looked at twice.
    scene.rests().await;
    let table = [
        ("dag/import", Manner::Hangs, "did not answer"),
        ("dag/import", Manner::BreaksOff, "its answer is none"),
        ("dag/import", Manner::Fails, "500"),
        ("pin/ls", Manner::Babbles, "its answer is none"),
        ("pin/ls", Manner::Endless, "more than 65536 bytes"),
        ("pin/add", Manner::Refuses, "no space left"),
        ("pin/add", Manner::Hangs, "did not answer"),
        ("pin/add", Manner::Lies, "does not list it"),
    ];
    let mut kept = Vec::new();
    for (number, (command, manner, words)) in table.into_iter().enumerate() {
        scene.behave(command, manner);
        let hash = scene.keep(format!("file {number}").as_bytes()).await;
        let text = hash.to_string();
        let says = |status: &PinningStatus| {
            let failure = status.failures.iter().find(|failure| failure.item_hash == text);
            failure.is_some_and(|failure| failure.reason.contains(words) && failure.attempts == 1)
        };
        scene.until(words, says).await;
        assert!(!matches!(scene.row(&hash), Some(PinState::Pinned { .. } | PinState::Found)), "{words}");
        scene.behave(command, Manner::Good);
        kept.push(hash);
    }
    let status = scene.status();
    assert_eq!((status.failing, status.failures_total, status.pinned), (8, 8, 0));
    assert!(status.failures.iter().all(|failure| failure.next > crate::clock::now_ms() as f64 / 1e3));
    scene.restart().await;
    scene.until("all are pinned", |status| status.pinned == 8).await;
    scene.rests().await;
    assert!(kept.iter().all(|hash| scene.pin(hash) == Some(scene.name()) && scene.row(hash) == OURS));
    assert_eq!((scene.status().failing, scene.status().begun), (0, 0));
}

#[tokio::test]
async fn one_that_does_not_say_who_it_is_is_asked_nothing_else() {
    let mut scene = Scene::new().await;
    scene.rests().await;
    for manner in [Manner::Hangs, Manner::Fails, Manner::Babbles, Manner::Refuses] {
        scene.pinning.take().expect("it works").stop().await;
        scene.behave("id", manner);
        scene.fake.asked.lock().expect("no panic").clear();
        scene.restart().await;
        let hash = scene.keep(format!("{manner:?}").as_bytes()).await;
        scene.until("it is away", |status| status.state == PinningState::Away).await;
        assert!(scene.fake.asked.lock().expect("no panic").iter().all(|command| command == "id"), "{manner:?}");
        assert!(scene.status().last_error.is_some() && scene.row(&hash).is_none());
        scene.behave("id", Manner::Good);
        scene.until("it is back", |status| status.state == PinningState::Current).await;
        assert_eq!((scene.row(&hash), scene.status().last_error), (OURS, None));
    }
}

#[test]
fn passwords_are_not_shown() {
    assert_eq!(shown("http://127.0.0.1:5001"), "http://127.0.0.1:5001");
    assert_eq!(shown("https://user:secret@ipfs.example/kubo"), "https://ipfs.example/kubo");
}
