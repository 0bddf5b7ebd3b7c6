mod faulty;

use self::faulty::Faulty;
use super::*;
use bucket::PART_BYTES;
use std::{
    io::{Read as _, Seek as _},
    time::{Duration, Instant},
};
use tokio::io::AsyncReadExt as _;

/// How long a bucket may take to be heard of again.
const BACK_WITHIN: Duration = Duration::from_secs(15);

fn settings() -> S3 {
    S3 {
        bucket: "bucket".to_owned(),
        endpoint: None,
        region: "us-east-1".to_owned(),
        prefix: "some/prefix".to_owned(),
        access_key_id: "key".to_owned(),
        secret_access_key: serde_json::from_str("\"secret\"").expect("a word"),
        allow_http: false,
    }
}

/// A node's folder, and a bucket that fails when it is told to.
struct Scene {
    folder: tempfile::TempDir,
    store: Arc<Faulty>,
    files: Files,
}

impl Scene {
    async fn new() -> Self {
        let (folder, store) = (tempfile::tempdir().expect("a folder"), Arc::new(Faulty::default()));
        let files = Files::on(store.clone(), folder.path(), &settings()).await.expect("a bucket");
        Self { folder, store, files }
    }

    /// The node anew: nothing is in its memory.
    async fn restart(&mut self) {
        self.files = Files::on(self.store.clone(), self.folder.path(), &settings()).await.expect("a bucket");
    }

    fn is_left_aside(&self) -> bool {
        fs::read_dir(self.folder.path().join(PARTIAL)).expect("the folder").next().is_some()
    }
}

async fn write(files: &Files, bytes: &[u8]) -> NewFile {
    let mut writer = files.writer().await.expect("a file");
    for chunk in bytes.chunks(64 << 10) {
        writer.write(chunk).await.expect("a write");
    }
    writer.finish().await.expect("a file")
}

async fn publish(files: &Files, bytes: &[u8]) -> io::Result<ItemHash> {
    let file = write(files, bytes).await;
    let hash = file.sha256.clone();
    files.publish(file, &hash).await.map(|()| hash)
}

/// What there is to read of an open file.
async fn bytes_of(file: OpenFile, first: u64, length: u64) -> Vec<u8> {
    let mut read = Vec::new();
    file.read(first, length).await.expect("a file").read_to_end(&mut read).await.expect("bytes");
    read
}

/// On a thread that may wait.
async fn on_thread<T: Send + 'static>(files: &Files, work: impl FnOnce(&Files) -> T + Send + 'static) -> T {
    let files = files.clone();
    tokio::task::spawn_blocking(move || work(&files)).await.expect("no panic")
}

async fn size(files: &Files, hash: &ItemHash) -> io::Result<Option<u64>> {
    let hash = hash.clone();
    on_thread(files, move |files| files.size(&hash)).await
}

async fn content(files: &Files, hash: &ItemHash, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let hash = hash.clone();
    on_thread(files, move |files| files.read(&hash, max_bytes)).await
}

async fn eventually(what: &str, mut is_it: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_it().await {
        assert!(begun.elapsed() < BACK_WITHIN, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Bytes no two of whose pieces are alike.
fn some_bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(length as u64).fill(&mut bytes);
    bytes
}

/// What kubo itself says of one block and of several. (The CID among the vectors of `shared/fixtures/messages` is of other bytes than it says.)
#[tokio::test]
async fn a_file_has_the_names_that_the_network_gives_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = Files::open_folder(folder.path()).expect("a folder");
    let file = write(&files, b"hello world\n").await;
    assert_eq!(file.sha256.to_string(), "a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447");
    assert_eq!(file.cid_v0.to_string(), "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o");
    let [cid_v1] = file.cid_v1.as_slice() else { panic!("{:?}", file.cid_v1) };
    assert_eq!(cid_v1.to_string(), "bafybeicg2rebjoofv4kbyovkw7af3rpiitvnl6i7ckcywaq6xjcxnc2mby");
    assert_eq!(file.size, 12);

    let message = crate::testing::fixture_json("signed/store-ipfs-v0.json");
    let file = write(&files, &crate::testing::fixture("signed/files/blob-600k.bin")).await;
    assert_eq!(message["content"]["item_hash"], file.cid_v0.to_string());
}

/// What holds wherever files lie. `anew` forgets what is in memory.
async fn check(root: &Path, mut files: Files, mut anew: impl AsyncFnMut() -> Files) {
    let left_aside = || fs::read_dir(root.join(PARTIAL)).expect("the folder").count();
    let lengths = [0, 1, 300_000, PART_BYTES as usize, PART_BYTES as usize + 1, 20 << 20];
    let mut hashes = Vec::new();
    for length in lengths {
        let bytes = some_bytes(length);
        let file = write(&files, &bytes).await;
        let hash = file.sha256.clone();
        assert!(files.open(&hash).await.expect("no error").is_none(), "it has no name yet");
        assert_eq!(size(&files, &hash).await.expect("no error"), None);
        assert_eq!(content(&files, &hash, u64::MAX).await.expect("no error"), None);
        files.publish(file, &hash).await.expect("a name");
        hashes.push(hash);
    }
    for again in [false, true] {
        if again {
            files = anew().await;
        }
        for (length, hash) in lengths.into_iter().zip(&hashes) {
            let (bytes, all) = (some_bytes(length), length as u64);
            assert_eq!(size(&files, hash).await.expect("no error"), Some(all));
            let parts = [(0, all), (0, all / 3), (all / 3, all / 3), (all / 2, all - all / 2), (all, 0)];
            for (first, many) in parts {
                let file = files.open(hash).await.expect("no error").expect("the file");
                assert_eq!(file.size(), all);
                let expected = &bytes[first as usize..(first + many) as usize];
                assert!(bytes_of(file, first, many).await == expected, "{many} of {all} from {first}");
            }
            assert!(content(&files, hash, all).await.expect("no error") == Some(bytes));
            if all > 0 {
                let refusal = content(&files, hash, all - 1).await.expect_err("too long");
                assert_eq!(refusal.kind(), io::ErrorKind::FileTooLarge);
            }
        }
    }

    let file = write(&files, b"some").await;
    assert!(files.publish(file, &ItemHash::sha256_of(b"other")).await.is_err());
    drop(write(&files, b"some").await);
    assert_eq!(left_aside(), 0, "what is not published is removed");

    // An archive has a name of its own beside a file's.
    let cid = write(&files, b"a folder").await.cid_v0;
    let mut aside = files.aside().await.expect("a file");
    aside.write(b"an ").await.expect("a write");
    assert_eq!(aside.read(0, 2).await.expect("bytes"), b"an");
    aside.write(b"archive").await.expect("a write");
    files.publish_followed(aside, &cid, FileKind::Directory).await.expect("a name");
    let has_archive = async |files: &Files| {
        let cid = cid.clone();
        on_thread(files, move |files| files.has_archive(&cid)).await.expect("no error")
    };
    assert!(has_archive(&files).await);
    assert!(files.open(&cid).await.expect("no error").is_none());
    let archive = files.open_archive(&cid).await.expect("no error").expect("the archive");
    let size_of_archive = archive.size();
    assert_eq!(bytes_of(archive, 0, size_of_archive).await, b"an archive");
    let (mut on_disk, length) =
        files.open_on_disk(&cid, FileKind::Directory).await.expect("no error").expect("the archive");
    let mut read = String::new();
    on_disk.read_to_string(&mut read).expect("text");
    assert_eq!((read.as_str(), on_disk.stream_position().expect("a place"), length), ("an archive", 10, 10));
    assert!(files.open_on_disk(&hashes[0], FileKind::Directory).await.expect("no error").is_none());
    assert_eq!(left_aside(), 0, "a copy has no name");

    // Gone at once, also for who asks anew; and it can come back at once.
    files.remove(&cid).expect("no error");
    assert!(!has_archive(&files).await);
    for hash in &hashes {
        files.remove(hash).expect("no error");
        assert!(files.open(hash).await.expect("no error").is_none());
        assert_eq!(size(&files, hash).await.expect("no error"), None);
        assert_eq!(content(&files, hash, u64::MAX).await.expect("no error"), None);
        files.remove(hash).expect("that it is gone is no error");
    }
    let back = publish(&files, &some_bytes(300_000)).await.expect("a name");
    assert_eq!(size(&files, &back).await.expect("no error"), Some(300_000));
    files = anew().await;
    assert_eq!(content(&files, &back, u64::MAX).await.expect("no error"), Some(some_bytes(300_000)));
    assert!(files.open(&hashes[5]).await.expect("no error").is_none());
    assert_eq!(left_aside(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_keeps_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = || Files::open_folder(folder.path()).expect("a folder");
    check(folder.path(), open(), async || open()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_keeps_files_and_nothing_else() {
    let (folder, store) = (tempfile::tempdir().expect("a folder"), Arc::new(Faulty::default()));
    let open = async || Files::on(store.clone(), folder.path(), &settings()).await.expect("a bucket");
    check(folder.path(), open().await, open).await;
    // Under its prefix it has the names of a folder.
    let back = ItemHash::sha256_of(&some_bytes(300_000));
    let expected = [format!("some/prefix/{}", name(&back, FileKind::File)), "some/prefix/node".to_owned()];
    eventually("what was removed is deleted", async || {
        let mut there = store.names().await;
        there.sort_by_key(|name| name.ends_with("/node"));
        there == expected
    })
    .await;
}

/// Whichever request fails, a file is there or not, nothing is left of it, and it can be sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_could_not_be_sent_is_not_there() {
    for length in [100, 20 << 20] {
        let bytes = some_bytes(length);
        let mut fails = 0;
        loop {
            let scene = Scene::new().await;
            let file = write(&scene.files, &bytes).await;
            let hash = file.sha256.clone();
            scene.store.fail_after(fails);
            let sent = scene.files.publish(file, &hash).await;
            scene.store.work();
            assert!(!scene.is_left_aside());
            assert_eq!(scene.store.unfinished(), 0, "parts are given up");
            if sent.is_ok() {
                break;
            }
            assert!(is_away(&sent.expect_err("a failure")));
            assert!(!scene.store.names().await.iter().any(|name| name.contains(&hash.to_string())));
            eventually("it is back", async || scene.files.writer().await.is_ok()).await;
            publish(&scene.files, &bytes).await.expect("a name");
            assert_eq!(size(&scene.files, &hash).await.expect("no error"), Some(length as u64));
            fails += 1;
        }
        let requests = if length == 100 { 1 } else { 5 };
        assert_eq!(fails, requests, "one for each request");
    }
}

/// A bucket that is away is not one that has nothing; and nobody waits for it twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_away_is_no_empty_one() {
    let mut scene = Scene::new().await;
    let (small, large) = (some_bytes(100), some_bytes(3 << 20));
    let kept = publish(&scene.files, &small).await.expect("a name");
    let hash = publish(&scene.files, &large).await.expect("a name");
    let other = ItemHash::sha256_of(b"other");
    let open = scene.files.open(&hash).await.expect("no error").expect("the file");
    scene.store.break_down();
    assert!(is_away(&open.read_all().await.err().expect("a failure")));
    assert!(is_away(&scene.files.open(&other).await.expect_err("a failure")));
    assert!(is_away(&size(&scene.files, &other).await.expect_err("a failure")));
    assert!(is_away(&content(&scene.files, &hash, u64::MAX).await.expect_err("a failure")));
    assert!(is_away(&scene.files.bring_near(&hash).await.expect_err("a failure")));
    assert!(is_away(&scene.files.writer().await.expect_err("a failure")), "known before anything is sent");
    let asked = scene.store.requests();
    for _ in 0..100 {
        assert!(scene.files.open(&other).await.is_err());
    }
    assert!(scene.store.requests() <= asked + 1, "nobody asks but the one who looks for it");
    // What was small and new is still in memory: contents of messages are.
    assert_eq!(content(&scene.files, &kept, u64::MAX).await.expect("no error"), Some(small));
    assert_eq!(size(&scene.files, &hash).await.expect("no error"), Some(large.len() as u64));
    scene.store.work();
    eventually("it is back", async || content(&scene.files, &hash, u64::MAX).await.is_ok()).await;
    assert!(scene.files.open(&other).await.expect("no error").is_none());
    // What is brought near is read without asking.
    scene.files.bring_near(&hash).await.expect("no error");
    let asked = scene.store.requests();
    assert!(content(&scene.files, &hash, u64::MAX).await.expect("no error").is_some());
    assert_eq!(scene.store.requests(), asked);
    scene.restart().await;
    assert!(content(&scene.files, &hash, u64::MAX).await.expect("no error") == Some(large));
}

/// What is removed while a bucket is away is gone for all who ask, and deleted when it is back, or at the next start.
#[tokio::test(flavor = "multi_thread")]
async fn a_removal_outlives_an_outage_and_a_restart() {
    let mut scene = Scene::new().await;
    let [first, second] = [100, 200].map(some_bytes);
    let (first, kept) =
        (publish(&scene.files, &first).await.expect("a name"), publish(&scene.files, &second).await.expect("a name"));
    scene.store.break_down();
    assert!(scene.files.open(&ItemHash::sha256_of(b"other")).await.is_err());
    scene.files.remove(&first).expect("no error");
    assert!(scene.files.open(&first).await.expect("no error").is_none());
    let is_there = async |scene: &Scene| {
        let name = name(&first, FileKind::File);
        scene.store.names().await.iter().any(|there| there.ends_with(&name))
    };
    assert!(is_there(&scene).await, "it could not be deleted");
    scene.store.work();
    eventually("it is deleted", async || !is_there(&scene).await).await;
    eventually("it is back", async || scene.files.writer().await.is_ok()).await;
    assert_eq!(size(&scene.files, &kept).await.expect("no error"), Some(200));

    let first = publish(&scene.files, &some_bytes(100)).await.expect("a name");
    scene.store.refuse_deletions(true);
    let asked = scene.store.requests();
    scene.files.remove(&first).expect("no error");
    eventually("it was tried", async || scene.store.requests() > asked).await;
    assert!(is_there(&scene).await);
    scene.store.refuse_deletions(false);
    scene.restart().await;
    eventually("it is deleted", async || !is_there(&scene).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_one_nodes() {
    let scene = Scene::new().await;
    let other = tempfile::tempdir().expect("a folder");
    let refusal = async |root: &Path, settings: &S3| {
        Files::on(scene.store.clone(), root, settings).await.expect_err("a refusal").to_string()
    };
    let sentence = refusal(other.path(), &settings()).await;
    assert!(sentence.contains("bucket/some/prefix holds the files of another node"), "{sentence}");
    assert!(sentence.contains("delete the object s3://bucket/some/prefix/node"), "{sentence}");
    let apart = S3 { prefix: "another".to_owned(), ..settings() };
    Files::on(scene.store.clone(), other.path(), &apart).await.expect("a prefix of its own");
    Files::on(scene.store.clone(), scene.folder.path(), &settings()).await.expect("its own");

    // Files that were not moved, there or back.
    let local = tempfile::tempdir().expect("a folder");
    let hash = publish(&Files::open_folder(local.path()).expect("a folder"), b"some").await.expect("a name");
    let apart = S3 { prefix: "third".to_owned(), ..settings() };
    let sentence = refusal(local.path(), &apart).await;
    assert!(sentence.contains(&format!("aws s3 sync {} s3://bucket/third", local.path().display())), "{sentence}");
    fs::remove_dir_all(local.path().join(&hash.to_string()[62..])).expect("a folder");
    Files::on(scene.store.clone(), local.path(), &apart).await.expect("they are moved");
    let sentence = Files::set_up(local.path(), None).await.expect_err("a refusal").to_string();
    assert!(sentence.contains("name it under files.s3 again"), "{sentence}");
    fs::remove_file(local.path().join("bucket")).expect("a file");
    Files::set_up(local.path(), None).await.expect("they are back");
}

/// What does not work is said before anything rests on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_of_no_use_is_refused() {
    let refusal = async |store: Faulty| {
        let folder = tempfile::tempdir().expect("a folder");
        Files::on(Arc::new(store), folder.path(), &settings()).await.expect_err("a refusal").to_string()
    };
    // Each request of the trial: put, get, delete, and ask for what is not there.
    for (fails, doing) in
        ["put objects into", "get objects from", "delete objects from", "learn what is not in"].into_iter().enumerate()
    {
        let store = Faulty::default();
        store.deny_after(fails as u64);
        let sentence = refusal(store).await;
        assert!(sentence.contains(&format!("the key key may not {doing} bucket")), "{sentence}");
        assert!(!sentence.contains("secret"), "{sentence}");
    }
    let store = Faulty::default();
    store.break_down();
    let sentence = refusal(store).await;
    assert!(sentence.contains("files.s3.endpoint: the S3 of the region us-east-1 is not reached"), "{sentence}");
    let store = Faulty::default();
    store.forget_deletions();
    assert!(refusal(store).await.contains("object locks"));
}
