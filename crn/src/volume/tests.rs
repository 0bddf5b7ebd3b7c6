use super::*;

const PROGRAM: &str = "0000000000000000000000000000000000000000000000000000000000000001";
const OTHER: &str = "0000000000000000000000000000000000000000000000000000000000000002";
const AT_ONCE: Duration = Duration::ZERO;

fn hash(text: &str) -> ItemHash {
    text.parse().expect("a hash")
}

fn open(folder: &Path, limit_mib: u64) -> Volumes {
    Volumes::open(folder, limit_mib << 20).expect("opened")
}

fn magic(volume: &Volume) -> [u8; 2] {
    let mut magic = [0; 2];
    volume.file.read_exact_at(&mut magic, 1080).expect("a read");
    magic
}

const EXT4: [u8; 2] = [0x53, 0xef];

#[tokio::test]
async fn a_persistent_volume_is_of_one_program_and_one_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let volumes = open(folder.path(), 100);
    let first = volumes.persistent(&hash(PROGRAM), "data", 5, AT_ONCE).await.expect("made");
    assert_eq!((magic(&first), first.length_bytes), (EXT4, 5 << 20));
    first.file.write_all_at(b"kept", 4 << 20).expect("a write");
    for (program, name) in [(PROGRAM, "data2"), (OTHER, "data"), (PROGRAM, "../../etc/passwd"), (PROGRAM, "")] {
        let other = volumes.persistent(&hash(program), name, 5, AT_ONCE).await.expect("made");
        let mut bytes = [1; 4];
        other.file.read_exact_at(&mut bytes, 4 << 20).expect("a read");
        assert_eq!(bytes, [0; 4], "{program} {name:?}");
    }
    let all = files(folder.path()).expect("a listing");
    assert_eq!(all.len(), 5, "{all:?}");
    drop((first, volumes));
    let volumes = open(folder.path(), 100);
    let again = volumes.persistent(&hash(PROGRAM), "data", 5, AT_ONCE).await.expect("there");
    let mut bytes = [0; 4];
    again.file.read_exact_at(&mut bytes, 4 << 20).expect("a read");
    assert_eq!(&bytes, b"kept");
}

#[tokio::test]
async fn one_machine_has_a_persistent_volume_at_a_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let volumes = open(folder.path(), 100);
    let first = volumes.persistent(&hash(PROGRAM), "data", 5, AT_ONCE).await.expect("made");
    // As a monitor has it, which may outlive whoever gave it.
    let descriptor = first.file.try_clone().expect("a descriptor");
    drop(first);
    let second = open(folder.path(), 100).persistent(&hash(PROGRAM), "data", 5, AT_ONCE).await;
    assert!(matches!(second, Err(VolumeError::InUse { .. })), "{second:?}");
    let waiting = tokio::spawn(async move {
        volumes.persistent(&hash(PROGRAM), "data", 5, Duration::from_secs(60)).await.map(|_| Instant::now())
    });
    sleep(3 * LOOK_EVERY).await;
    assert!(!waiting.is_finished());
    let ended = Instant::now();
    drop(descriptor);
    assert!(waiting.await.expect("no panic").expect("its turn") >= ended);
}

#[tokio::test]
async fn an_ephemeral_volume_is_fresh_and_gone_afterwards() {
    let folder = tempfile::tempdir().expect("a folder");
    let volumes = open(folder.path(), 10);
    let first = volumes.ephemeral(1, None).await.expect("made");
    assert_eq!((magic(&first), first.length_bytes), (EXT4, ext4::MIN_BYTES), "the least with a journal");
    assert!(fs::read_dir(folder.path()).expect("a listing").next().is_none(), "it has no name");
    first.file.write_all_at(b"mine", 1 << 20).expect("a write");
    let copy = volumes.ephemeral(1, Some(first.file.try_clone().expect("a descriptor"))).await.expect("a copy");
    let fresh = volumes.ephemeral(1, None).await.expect("made");
    let read = |volume: &Volume| {
        let mut bytes = [0; 4];
        volume.file.read_exact_at(&mut bytes, 1 << 20).expect("a read");
        bytes
    };
    assert_eq!((read(&copy), read(&fresh)), (*b"mine", [0; 4]));
    copy.file.write_all_at(b"your", 1 << 20).expect("a write");
    assert_eq!(read(&first), *b"mine");
}

#[tokio::test]
async fn volumes_have_a_limit_together() {
    let folder = tempfile::tempdir().expect("a folder");
    let volumes = open(folder.path(), 20);
    let kept = volumes.persistent(&hash(PROGRAM), "data", 8, AT_ONCE).await.expect("fits");
    let held = volumes.ephemeral(7, None).await.expect("fits");
    let full = volumes.persistent(&hash(PROGRAM), "more", 6, AT_ONCE).await.expect_err("too much");
    let sentence =
        "a volume of 6 MiB does not fit: 5 MiB of the 20 MiB for volumes on this node are left (volumes.limit_mib)";
    assert_eq!(full.to_string(), sentence);
    assert!(matches!(volumes.ephemeral(6, None).await, Err(VolumeError::Full { .. })));
    assert_eq!(files(folder.path()).expect("a listing").len(), 1, "what did not fit left nothing");
    drop(kept);
    volumes.persistent(&hash(PROGRAM), "data", 8, AT_ONCE).await.expect("what is there is not counted again");
    drop(held);
    volumes.persistent(&hash(PROGRAM), "more", 12, AT_ONCE).await.expect("an ephemeral one has gone");
    fs::remove_dir_all(folder.path().join(PROGRAM)).expect("the operator removes them");
    volumes.ephemeral(20, None).await.expect("there is room");
}

#[tokio::test]
async fn what_is_not_what_it_was_is_not_attached() {
    let folder = tempfile::tempdir().expect("a folder");
    let volumes = open(folder.path(), 100);
    drop(volumes.persistent(&hash(PROGRAM), "data", 5, AT_ONCE).await.expect("made"));
    let path = files(folder.path()).expect("a listing").remove(0);
    File::options().write(true).open(&path).and_then(|file| file.set_len(4 << 20)).expect("cut");
    let refused = volumes.persistent(&hash(PROGRAM), "data", 5, AT_ONCE).await;
    assert!(matches!(refused, Err(VolumeError::Length { found_bytes: 4_194_304, .. })), "{refused:?}");
    let draft = path.with_file_name(format!("other{DRAFT_SUFFIX}"));
    fs::write(&draft, "left by a node that was killed").expect("a write");
    drop(open(folder.path(), 100));
    assert!(!draft.exists() && path.exists());
}
