use super::*;
use proptest::prelude::*;
use std::io::{Seek as _, Write};

/// An archive from (path, unix mode, content); stored or deflated.
fn archive(entries: &[(&str, u32, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = rawzip::ZipArchiveWriter::new(&mut bytes);
    for (path, mode, content) in entries {
        let path = rawzip::path::EntryPath::verbatim(path.as_bytes().to_vec());
        let (mut entry, config) =
            writer.new_file(path).compression_method(method).unix_permissions(*mode).start().expect("an entry");
        let descriptor = if method == CompressionMethod::DEFLATE {
            let encoder = flate2::write::DeflateEncoder::new(&mut entry, flate2::Compression::default());
            let mut data = config.wrap(encoder);
            data.write_all(content).expect("a write");
            let (encoder, descriptor) = data.finish().expect("an end");
            encoder.finish().expect("an end");
            descriptor
        } else {
            let mut data = config.wrap(&mut entry);
            data.write_all(content).expect("a write");
            data.finish().expect("an end").1
        };
        entry.finish(descriptor).expect("an entry");
    }
    writer.finish().expect("an archive");
    bytes
}

/// Unpacks bytes that stand at the start of a padded device, as they do in a guest.
fn unpack_bytes(bytes: &[u8], limit: u64) -> (tempfile::TempDir, Result<(), UnpackError>) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut device = tempfile::tempfile().expect("a file");
    device.write_all(bytes).expect("a write");
    device.write_all(&vec![0; bytes.len().next_multiple_of(512) - bytes.len()]).expect("a write");
    device.rewind().expect("a seek");
    let result = unpack(&device, bytes.len() as u64, &folder.path().join("code"), limit);
    (folder, result)
}

fn check(entries: &[(&str, u32, &[u8])], expect: &str) {
    for method in [CompressionMethod::STORE, CompressionMethod::DEFLATE] {
        let (_folder, result) = unpack_bytes(&archive(entries, method), 1 << 20);
        let text = result.expect_err("refused").to_string();
        assert!(text.contains(expect), "{text}");
    }
}

#[test]
fn files_folders_and_links_come_out() {
    let entries: &[(&str, u32, &[u8])] = &[
        ("package/__init__.py", 0o100_644, b""),
        ("package/main.py", 0o100_644, b"print('hello')\n"),
        ("run.sh", 0o100_755, b"#!/bin/sh\n"),
        ("link", 0o120_777, b"package/main.py"),
        ("package/up", 0o120_777, b"../run.sh"),
    ];
    for method in [CompressionMethod::STORE, CompressionMethod::DEFLATE] {
        let (folder, result) = unpack_bytes(&archive(entries, method), 1 << 20);
        result.expect("unpacked");
        let code = folder.path().join("code");
        assert_eq!(fs::read(code.join("link")).expect("a file"), b"print('hello')\n");
        assert_eq!(fs::read(code.join("package/up")).expect("a file"), b"#!/bin/sh\n");
        let mode = fs::metadata(code.join("run.sh")).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
    }
}

#[test]
fn no_path_leads_out() {
    check(&[("../evil.py", 0o100_644, b"x")], "`../evil.py`, which leads out");
    check(&[("a/../../evil.py", 0o100_644, b"x")], "leads out");
    check(&[("/etc/passwd", 0o100_644, b"x")], "leads out");
    check(&[("..\\evil.py", 0o100_644, b"x")], "leads out");
    check(&[("link", 0o120_777, b"../../etc/passwd")], "leads out");
    check(&[("link", 0o120_777, b"/etc/passwd")], "leads out");
    check(&[("a/link", 0o120_777, b"x/../../../y")], "leads out");
    // A link that stays inside as text and leads out on the disk, and one made through it.
    check(
        &[("a/b/c/up", 0o120_777, b"../../.."), ("out", 0o120_777, b"a/b/c/up/.."), ("out/link", 0o120_777, b"x")],
        "`out/link`, which leads out",
    );
    check(&[("pipe", 0o010_644, b"")], "neither a file");
    check(&[("twice", 0o100_644, b"1"), ("./twice", 0o100_644, b"2")], "twice");
}

/// A link first, then a file whose path goes through it: the file is written before the link exists.
#[test]
fn nothing_is_written_through_a_link() {
    let entries: &[(&str, u32, &[u8])] = &[("way", 0o120_777, b"elsewhere"), ("way/file", 0o100_644, b"x")];
    let (folder, result) = unpack_bytes(&archive(entries, CompressionMethod::STORE), 1 << 20);
    assert!(result.is_err(), "the link finds a folder in its place");
    assert!(!folder.path().join("code/elsewhere").exists());
}

#[test]
fn a_bomb_is_stopped_by_what_it_unfolds_to() {
    let zeros = vec![0; 4 << 20];
    let bytes = archive(&[("zeros", 0o100_644, &zeros)], CompressionMethod::DEFLATE);
    assert!(bytes.len() < 10_000);
    let (folder, result) = unpack_bytes(&bytes, 1 << 20);
    assert!(matches!(result, Err(UnpackError::TooLarge { limit: 1_048_576 })));
    let written = fs::metadata(folder.path().join("code/zeros")).map_or(0, |metadata| metadata.len());
    assert!(written <= 1 << 20);
    // Many that fit alone and not together.
    let part = vec![0; 400 << 10];
    let entries: Vec<(String, u32, &[u8])> =
        (0..4).map(|index| (format!("part{index}"), 0o100_644, &part[..])).collect();
    let entries: Vec<(&str, u32, &[u8])> =
        entries.iter().map(|(path, mode, data)| (path.as_str(), *mode, *data)).collect();
    let (_folder, result) = unpack_bytes(&archive(&entries, CompressionMethod::DEFLATE), 1 << 20);
    assert!(matches!(result, Err(UnpackError::TooLarge { .. })));
}

/// The size that an archive announces is not believed: this one says 10 bytes and holds 2 MiB.
#[test]
fn a_bomb_that_lies_about_its_size_is_stopped() {
    let zeros = vec![0; 2 << 20];
    let mut bytes = archive(&[("zeros", 0o100_644, &zeros)], CompressionMethod::DEFLATE);
    let size = (2_u32 << 20).to_le_bytes();
    for start in 0..bytes.len() - 4 {
        if bytes[start..start + 4] == size {
            bytes[start..start + 4].copy_from_slice(&10_u32.to_le_bytes());
        }
    }
    let (folder, result) = unpack_bytes(&bytes, 1 << 20);
    assert!(result.is_err());
    let written = fs::metadata(folder.path().join("code/zeros")).map_or(0, |metadata| metadata.len());
    assert!(written <= 1 << 20);
}

#[test]
fn what_is_no_archive_is_said_to_be_damaged() {
    for bytes in [&b""[..], b"not a zip archive at all", &[0; 4096]] {
        let (_folder, result) = unpack_bytes(bytes, 1 << 20);
        assert!(matches!(result, Err(UnpackError::Damaged(_))));
    }
    let mut bytes = archive(&[("file", 0o100_644, b"some content that has a checksum")], CompressionMethod::STORE);
    let place = bytes.windows(4).position(|window| window == b"some").expect("the content");
    bytes[place] ^= 1;
    let (_folder, result) = unpack_bytes(&bytes, 1 << 20);
    assert!(matches!(result, Err(UnpackError::Damaged(_))));
}

#[test]
fn links_stay_inside() {
    let inside = |parent: &str, target: &str| stays_inside(Path::new(parent), target);
    assert!(inside("", "a/b"));
    assert!(inside("a/b", "../../c"));
    assert!(!inside("a/b", "../../../c"));
    assert!(!inside("", ".."));
    assert!(!inside("", "a/../../b/c"));
    assert!(!inside("", "/a"));
    assert!(!inside("", ""));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the bytes, nothing is made outside the folder and nothing panics.
    #[test]
    fn damaged_archives_stay_inside(flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20)) {
        let mut bytes = archive(
            &[("a/b.py", 0o100_644, b"content content content"), ("l", 0o120_777, b"a/b.py"), ("d/", 0o040_755, b"")],
            CompressionMethod::DEFLATE,
        );
        for (index, byte) in flips {
            let place = index.index(bytes.len());
            bytes[place] = byte;
        }
        let (folder, _result) = unpack_bytes(&bytes, 1 << 16);
        let names: Vec<_> = fs::read_dir(folder.path()).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
        prop_assert!(names.iter().all(|name| name == "code"));
    }

    #[test]
    fn accepted_paths_never_climb(text in "[a./\\\\]{0,20}") {
        if let Ok(path) = check_path(&text) {
            prop_assert!(path.components().all(|component| matches!(component, Component::Normal(_))));
        }
    }
}
