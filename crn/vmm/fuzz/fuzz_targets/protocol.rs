//! Frames between host and guest in both directions, and the record of a clone.
#![no_main]

use guest_protocol::{
    Command, Event, LogRecord,
    frame::{self, LENGTH_BYTES, MAX_FRAME_BYTES},
    record::{MAGIC, PAGE_BYTES, Record},
};
use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

/// What decodes comes back as it was.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(body: &[u8]) {
    if let Ok(message) = frame::decode::<T>(body) {
        let bytes = frame::encode(&message).expect("no longer than what was read");
        let (header, again) = bytes.split_first_chunk::<LENGTH_BYTES>().expect("a header");
        assert_eq!(frame::body_length(*header), Ok(again.len()));
        assert_eq!(frame::decode::<T>(again).as_ref(), Ok(&message));
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((header, body)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return;
    };
    if let Ok(length) = frame::body_length(*header) {
        assert!(length <= MAX_FRAME_BYTES);
    }
    check::<Command>(body);
    check::<Event>(body);
    check::<LogRecord>(body);
    for page in [bytes.to_vec(), [&MAGIC[..], bytes].concat()] {
        if let Ok(record) = Record::from_page(&page) {
            let mut again = record.to_page().expect("a record fits");
            again.resize(PAGE_BYTES, 0);
            assert_eq!(Record::from_page(&again), Ok(record));
        }
    }
});
