//! Golden frames: the bytes of version 3, which live on inside snapshots.

use super::{
    doorbell,
    frame::*,
    record::{self, Record, RecordError},
    *,
};
use alloc::{format, string::String, vec, vec::Vec};
use core::net::IpAddr;
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};

/// Lines of `name hex`. A change of these bytes is a new [`VERSION`], with a file of its own.
const GOLDEN: &str = include_str!("../../../tests/goldens/guest-protocol-3.txt");

fn golden(name: &str) -> Vec<u8> {
    let line = GOLDEN.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let hex = line.unwrap_or_else(|| panic!("no golden frame named {name}"));
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

fn check<T: Serialize + DeserializeOwned + PartialEq + core::fmt::Debug>(name: &str, message: &T) {
    let bytes = encode(message).expect("it is short");
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(bytes, golden(name), "{name} is now {hex}");
    let header = bytes[..LENGTH_BYTES].try_into().expect("four bytes");
    assert_eq!(body_length(header), Ok(bytes.len() - LENGTH_BYTES));
    assert_eq!(decode::<T>(&bytes[LENGTH_BYTES..]).as_ref(), Ok(message));
}

fn configuration() -> Configuration {
    Configuration {
        hostname: "label".into(),
        wall_time_us: 1_795_557_233_460_210,
        seed: [7; 32],
        code: Code {
            device: Device { index: 1, length_bytes: 1968 },
            encoding: Encoding::Zip,
            entrypoint: "main:app".into(),
        },
        program: Program::Asgi,
        arguments: vec!["--flag".into()],
        variables: vec![("NAME".into(), "value".into())],
        data: Some(Device { index: 2, length_bytes: 10 }),
        volumes: vec![Volume {
            device: Device { index: 3, length_bytes: 4096 },
            mount: "/opt/packages".into(),
            read_only: true,
        }],
        authorized_keys: vec!["ssh-ed25519 AAAA".into()],
        name_servers: vec![IpAddr::from([192, 0, 2, 53])],
        network: Some(network()),
    }
}

fn network() -> Network {
    let link = |address: &str, prefix_bits, gateway: &str| Link {
        address: address.parse().expect("an address"),
        prefix_bits,
        gateway: gateway.parse().expect("an address"),
    };
    Network { ipv4: link("172.16.0.2", 30, "172.16.0.1"), ipv6: Some(link("2001:db8::1", 124, "2001:db8::")) }
}

/// A program with as many variables and keys as the network allows did not start: its configuration was no frame.
#[test]
fn the_largest_configuration_is_a_frame() {
    let largest = Configuration {
        variables: (0..256).map(|number| (format!("{number:0>128}"), "v".repeat(4096))).collect(),
        authorized_keys: (0..256).map(|_| "k".repeat(8192)).collect(),
        arguments: vec!["a".repeat(1 << 20)],
        ..configuration()
    };
    let bytes = encode(&Command::Configure(largest.clone())).expect("a frame");
    assert_eq!(decode::<Command>(&bytes[LENGTH_BYTES..]), Ok(Command::Configure(largest)));
}

#[test]
fn commands_are_what_they_were() {
    check("configure", &Command::Configure(configuration()));
    let binary = Configuration {
        program: Program::Binary,
        data: None,
        code: Code { encoding: Encoding::Squashfs, ..configuration().code },
        ..configuration()
    };
    check("configure-binary", &Command::Configure(binary));
    check("prepare", &Command::Prepare(Preparation { root: Device { index: 0, length_bytes: 89_919_488 } }));
    check("freeze", &Command::Freeze);
    check("shutdown", &Command::Shutdown { grace_ms: 10_000 });
}

#[test]
fn events_are_what_they_were() {
    check("hello", &Event::Hello { version: VERSION });
    check("prepared", &Event::Prepared);
    check("started", &Event::Started);
    check("ready", &Event::Ready);
    check("exited", &Event::Exited { status: 143 });
    for (name, stage) in [
        ("failed-mount", Stage::Mount),
        ("failed-unpack", Stage::Unpack),
        ("failed-network", Stage::Network),
        ("failed-start", Stage::Start),
    ] {
        check(name, &Event::Failed(Failure { stage, error: "why".into(), traceback: "Traceback".into() }));
    }
}

#[test]
fn log_records_are_what_they_were() {
    for (name, source) in
        [("log-stdout", LogSource::Stdout), ("log-stderr", LogSource::Stderr), ("log-init", LogSource::Init)]
    {
        check(name, &LogRecord { source, wall_time_us: 1, bytes: b"text\n".to_vec(), dropped_bytes: 300 });
    }
}

#[test]
fn doorbells_are_what_they_were() {
    assert_eq!((doorbell::PROGRESS_PORT, doorbell::DOORBELL_PORT), (0xe9, 0x0be0));
    assert_eq!(doorbell::ring(doorbell::EXIT, 143), 0x0300_008f);
    assert_eq!(doorbell::heard(0x0300_008f), (doorbell::EXIT, 143));
    assert_eq!([doorbell::FREEZE, doorbell::THAWED], [4, 5]);
    assert_eq!([GUEST_CID, CONTROL_PORT.into(), LOG_PORT.into(), HTTP_PORT.into()], [3, 1024, 1025, 80]);
}

#[test]
fn a_record_is_what_it_was() {
    let record =
        Record { generation: 300, wall_time_us: 1_795_557_233_460_210, seed: [7; 32], network: Some(network()) };
    let page = record.to_page().expect("it is short");
    assert_eq!(page, golden("record"), "{}", page.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let mut whole = page.clone();
    whole.resize(record::PAGE_BYTES, 0);
    assert_eq!(Record::from_page(&whole), Ok(record));
    assert_eq!(Record::from_page(&[0; record::PAGE_BYTES]), Err(RecordError::Missing));
    assert_eq!(Record::from_page(&page[..page.len() - 1]), Err(RecordError::Malformed));
}

#[test]
fn limits_hold_before_anything_is_allocated() {
    assert_eq!(body_length(u32::MAX.to_le_bytes()), Err(FrameError::TooLong { announced: u32::MAX as usize }));
    let long = "x".repeat(MAX_FRAME_BYTES + 1);
    assert!(matches!(encode(&long), Err(FrameError::TooLong { .. })));
    let ready = encode(&Event::Ready).expect("short");
    let mut more = ready[LENGTH_BYTES..].to_vec();
    more.push(0);
    assert_eq!(decode::<Event>(&more), Err(FrameError::Trailing(1)));
}

proptest! {
    #[test]
    fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode::<Command>(&bytes);
        let _ = decode::<Event>(&bytes);
        let _ = decode::<LogRecord>(&bytes);
        let mut page = record::MAGIC.to_vec();
        page.extend(bytes);
        let _ = Record::from_page(&page);
    }

    #[test]
    fn doorbells_come_back(kind: u8, value: u32) {
        prop_assert_eq!(doorbell::heard(doorbell::ring(kind, value)), (kind, value & 0x00ff_ffff));
    }

    /// Frames whose bytes were changed on the way decode to something else or not at all.
    #[test]
    fn a_changed_frame_is_no_panic(at in 0..200_usize, with: u8) {
        let mut bytes = encode(&Command::Configure(configuration())).expect("short");
        let at = LENGTH_BYTES + at % (bytes.len() - LENGTH_BYTES);
        bytes[at] = with;
        let _ = decode::<Command>(&bytes[LENGTH_BYTES..]);
    }
}
