//! Moments as the interface writes them, and cursors, which are moments with a hash (ccn spec 5.2).

use super::error::{ApiError, ApiResult};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ccn_message::ItemHash;
use jiff::{Timestamp, fmt::temporal::DateTimePrinter, tz::Offset};
use serde_json::{Value, json};

/// A moment as clients read it: RFC 3339 with microseconds and offset.
pub(super) fn iso(milliseconds: u64) -> String {
    let milliseconds = i64::try_from(milliseconds).unwrap_or(i64::MAX);
    text(Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::MAX), 6)
}

/// The same of seconds.
pub(super) fn iso_seconds(seconds: f64) -> String {
    // Rounded to microseconds, which an integer holds for every year that occurs.
    text(Timestamp::from_microsecond((seconds * 1e6).round() as i64).unwrap_or_default(), 6)
}

fn text(timestamp: Timestamp, digits: u8) -> String {
    let mut text = String::new();
    let printer = DateTimePrinter::new().precision(Some(digits));
    // Writing to a string does not fail.
    let _ = printer.print_timestamp_with_offset(&timestamp, Offset::UTC, &mut text);
    text
}

/// Reads a moment, seconds: exactly the number that [`write_cursor`] wrote.
pub(super) fn read_iso(text: &str) -> Option<f64> {
    let timestamp: Timestamp = text.parse().ok()?;
    let (seconds, nanoseconds) = (timestamp.as_second(), timestamp.subsec_nanosecond());
    if seconds < 0 || nanoseconds < 0 {
        return Some(seconds as f64 + f64::from(nanoseconds) / 1e9);
    }
    // Through text: the nearest number to the decimal, as the sender's own was.
    format!("{seconds}.{nanoseconds:09}").parse().ok()
}

/// A cursor after a message. To be treated as opaque; the network's nodes write the same.
pub(super) fn write_cursor(time: f64, hash: &ItemHash) -> String {
    let whole = time.floor();
    let nanoseconds = ((time - whole) * 1e9).round() as i32;
    let timestamp = Timestamp::new(whole as i64, nanoseconds.min(999_999_999)).unwrap_or_default();
    URL_SAFE_NO_PAD.encode(json!({"h": hash.to_string(), "t": text(timestamp, 9)}).to_string())
}

/// Reads a cursor; none when it is empty, which asks for the first page.
pub(super) fn read_cursor(cursor: &str) -> ApiResult<Option<(f64, ItemHash)>> {
    if cursor.is_empty() {
        return Ok(None);
    }
    let decoded = URL_SAFE_NO_PAD.decode(cursor.trim_end_matches('=')).ok();
    let value: Option<Value> = decoded.and_then(|json| serde_json::from_slice(&json).ok());
    let member = |name: &str| value.as_ref().and_then(|value| value.get(name)).and_then(Value::as_str);
    let time = member("t").and_then(read_iso);
    let hash = member("h").and_then(|hash| ItemHash::parse(hash).ok());
    let refuse = || ApiError::field("cursor", "take the one that the last page gave, or an empty one to begin");
    time.zip(hash).map(Some).ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        assert_eq!(iso(1_788_220_801_250), "2026-09-01T00:00:01.250000+00:00");
        assert_eq!(iso_seconds(951_827_696.5), "2000-02-29T12:34:56.500000+00:00");
        assert_eq!(iso(u64::MAX), "9999-12-30T22:00:00.999999+00:00");
    }

    #[test]
    fn cursors_of_other_nodes_are_read() {
        let hash = ItemHash::sha256_of(b"x");
        let json = format!(r#"{{"h":"{hash}","t":"2026-09-01T00:00:01.250000+00:00"}}"#);
        let cursor = base64::engine::general_purpose::URL_SAFE.encode(json);
        assert_eq!(read_cursor(&cursor).expect("a cursor"), Some((1_788_220_801.25, hash)));
        assert_eq!(read_cursor("").expect("the beginning"), None);
        for wrong in ["?", "e30", "bnVsbA", &URL_SAFE_NO_PAD.encode(r#"{"h":"x","t":"2026-09-01T00:00:01Z"}"#)] {
            assert_eq!(read_cursor(wrong).expect_err(wrong).status(), 422);
        }
    }

    proptest! {
        #[test]
        fn cursors_come_back(time in 0.0..4e9_f64) {
            let hash = ItemHash::sha256_of(b"x");
            let (read, _) = read_cursor(&write_cursor(time, &hash)).expect("a cursor").expect("not the first");
            // A double of this size has a step of 2^-22 at the most: nanoseconds tell neighbours apart.
            prop_assert!((read - time).abs() < 1e-9, "{read} {time}");
        }

        #[test]
        fn arbitrary_cursors_do_no_harm(text in ".{0,100}") {
            let _ = read_cursor(&text);
        }
    }
}
