//! Answers to queries: JSON bodies, parameters, pages, cursors, as the network's clients expect them (ccn spec 5).

use crate::{Request, Response};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{Timestamp, fmt::temporal::DateTimePrinter, tz::Offset};
use serde::Serialize;
use serde_json::{Value, json};

/// Entries of a page unless the client says otherwise.
const DEFAULT_PAGE_LENGTH: u64 = 20;
/// Most entries of a page with a cursor, and of a page when everything was asked for: a plugin answers within bounds.
pub const MAX_PAGE_LENGTH: u64 = 1000;

/// Most bytes of an answer: a page that would be larger is refused, or cut where a cursor can go on.
pub const MAX_BODY_BYTES: usize = 8 << 20;
const JSON: &str = "application/json";

/// A JSON answer.
#[must_use]
pub fn json_response(status: u16, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => Response { status, content_type: JSON.into(), body },
        // Only maps with keys that are no texts cannot be written, and answers have none.
        Err(error) => Response { status: 500, content_type: JSON.into(), body: error.to_string().into_bytes() },
    }
}

/// An error with a sentence.
#[must_use]
pub fn error(status: u16, sentence: &str) -> Response {
    json_response(status, &json!({"error": sentence}))
}

/// A parameter is wrong: which, and how.
#[must_use]
pub fn wrong(name: &str, problem: &str) -> Response {
    json_response(422, &json!({"error": format!("{name}: {problem}"), "field": name}))
}

/// A part of the path.
#[must_use]
pub fn path<'a>(request: &'a Request, name: &str) -> &'a str {
    request.path.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
}

/// A parameter by any of its names.
#[must_use]
pub fn parameter<'a>(request: &'a Request, names: &[&str]) -> Option<&'a str> {
    request.parameters.iter().find(|(key, _)| names.contains(&key.as_str())).map(|(_, value)| value.as_str())
}

/// A comma-separated list; empty when the parameter is absent.
#[must_use]
pub fn list(request: &Request, names: &[&str]) -> Vec<String> {
    let values = parameter(request, names).unwrap_or_default();
    values.split(',').map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned).collect()
}

/// A comma-separated list of no more than that many values. Empty ones count, and say nothing.
///
/// # Errors
/// There are more: an answer for the client.
pub fn list_within(request: &Request, names: &[&str], most: usize) -> Result<Vec<String>, Response> {
    let given = parameter(request, names).map_or(0, |text| text.split(',').count());
    if given > most {
        return Err(wrong(names[0], &format!("at most {most} are allowed")));
    }
    Ok(list(request, names))
}

/// True for `true`, `1`, `yes` and the like.
#[must_use]
pub fn flag(request: &Request, names: &[&str]) -> bool {
    parameter(request, names)
        .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "true" | "1" | "yes" | "on"))
}

/// Which part of a listing is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// From 1.
    pub number: u64,
    /// Entries; 0 for everything that [`MAX_PAGE_LENGTH`] lets through.
    pub length: u64,
    /// Newest first.
    pub descending: bool,
}

impl Page {
    /// Reads `page`, `pagination` and `sortOrder`.
    ///
    /// # Errors
    /// A number that is none: an answer for the client.
    pub fn read(request: &Request) -> Result<Self, Response> {
        let number = |name: &str, default: u64| match parameter(request, &[name]) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| wrong(name, "a whole number was expected")),
        };
        let descending = match parameter(request, &["sortOrder", "sort_order"]) {
            None | Some("-1") => true,
            Some("1") => false,
            Some(_) => return Err(wrong("sortOrder", "1 or -1 was expected")),
        };
        let in_path = path(request, "page").parse().ok();
        let page = Self {
            number: in_path.map_or_else(|| number("page", 1), Ok)?,
            length: number("pagination", DEFAULT_PAGE_LENGTH)?,
            descending,
        };
        if page.number == 0 {
            return Err(wrong("page", "pages are counted from 1"));
        }
        Ok(page)
    }

    /// Entries before the page, and on it.
    #[must_use]
    pub fn range(self) -> std::ops::Range<u64> {
        let length = if self.length == 0 { MAX_PAGE_LENGTH } else { self.length.min(MAX_PAGE_LENGTH) };
        let start = (self.number - 1).saturating_mul(length);
        start..start.saturating_add(length)
    }

    /// The fields that describe this page of `total` entries.
    #[must_use]
    pub fn footer(self, total: u64, item: &'static str) -> Footer {
        Footer::Page {
            pagination_page: self.number,
            pagination_total: total,
            pagination_per_page: self.length,
            pagination_item: item,
        }
    }
}

/// The fields of a page that follow its entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Footer {
    /// A page by number.
    Page {
        /// Its number, from 1.
        pagination_page: u64,
        /// Entries of all pages.
        pagination_total: u64,
        /// Entries of a page.
        pagination_per_page: u64,
        /// What an entry is.
        pagination_item: &'static str,
    },
    /// A page by cursor.
    Cursor {
        /// Entries of a page.
        pagination_per_page: u64,
        /// Where the next page begins; none after the last.
        next_cursor: Option<String>,
    },
}

/// A cursor as text: unpadded base64url of compact JSON (ccn spec 5.2). Write its keys in order.
#[must_use]
pub fn write_cursor(cursor: &Value) -> String {
    URL_SAFE_NO_PAD.encode(cursor.to_string())
}

/// Reads a cursor, of this node or another; none when it is empty, which asks for the first page.
///
/// # Errors
/// An answer for the client.
pub fn read_cursor(text: &str) -> Result<Option<Value>, Response> {
    if text.is_empty() {
        return Ok(None);
    }
    let json = URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
    let value = json.ok().and_then(|json| serde_json::from_slice(&json).ok());
    value.map(Some).ok_or_else(|| wrong("cursor", "take the one that the last page gave"))
}

/// A moment as clients read it: RFC 3339 with microseconds and offset.
#[must_use]
pub fn iso_time(seconds: f64) -> String {
    // Rounded to microseconds, which an integer holds for every year that occurs.
    let micros = (seconds * 1e6).round() as i64;
    timestamp_text(Timestamp::from_microsecond(micros).unwrap_or_default(), 6)
}

/// A moment in a cursor: with nanoseconds, from which [`read_exact_time`] finds the very same number.
#[must_use]
pub fn exact_time(seconds: f64) -> String {
    let whole = seconds.floor();
    let nanos = ((seconds - whole) * 1e9).round() as i32;
    timestamp_text(Timestamp::new(whole as i64, nanos.min(999_999_999)).unwrap_or_default(), 9)
}

/// Reads a moment of a cursor, seconds.
#[must_use]
pub fn read_exact_time(text: &str) -> Option<f64> {
    let timestamp: Timestamp = text.parse().ok()?;
    // Through text: the nearest number to the decimal, as the sender's own was.
    format!("{}.{:09}", timestamp.as_second(), timestamp.subsec_nanosecond()).parse().ok()
}

fn timestamp_text(timestamp: Timestamp, digits: u8) -> String {
    let mut text = String::new();
    let printer = DateTimePrinter::new().precision(Some(digits));
    // Writing to a string does not fail.
    let _ = printer.print_timestamp_with_offset(&timestamp, Offset::UTC, &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(parameters: &[(&str, &str)]) -> Request {
        let parameters = parameters.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Request { route: String::new(), path: vec![], parameters }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(iso_time(0.0), "1970-01-01T00:00:00.000000+00:00");
        assert_eq!(iso_time(1_788_220_801.25), "2026-09-01T00:00:01.250000+00:00");
        assert_eq!(iso_time(951_827_696.5), "2000-02-29T12:34:56.500000+00:00");
        assert_eq!(iso_time(9_223_372_036.0), "2262-04-11T23:47:16.000000+00:00");
    }

    #[test]
    fn pages_are_read_and_bounded() {
        let page = Page::read(&request(&[])).expect("a page");
        assert_eq!((page.range(), page.descending), (0..20, true));
        let page = Page::read(&request(&[("page", "3"), ("pagination", "10"), ("sortOrder", "1")])).expect("a page");
        assert_eq!((page.range(), page.descending), (20..30, false));
        assert_eq!(Page::read(&request(&[("pagination", "0")])).expect("a page").range(), 0..MAX_PAGE_LENGTH);
        for wrong in [("page", "0"), ("page", "x"), ("pagination", "-1"), ("sortOrder", "2")] {
            assert_eq!(Page::read(&request(&[wrong])).expect_err("refused").status, 422);
        }
    }

    #[test]
    fn cursors_come_back() {
        let cursor = json!({"h": "ab", "t": exact_time(1.5)});
        let text = write_cursor(&cursor);
        assert_eq!(read_cursor(&text).expect("a cursor"), Some(cursor));
        assert_eq!(read_cursor("").expect("the first page"), None);
        for wrong in ["?", "AAAA", "e30x"] {
            assert_eq!(read_cursor(wrong).expect_err("refused").status, 422);
        }
    }

    #[test]
    fn times_of_cursors_are_exact() {
        for seconds in [0.0, 1.5, 1_788_220_801.0, 1_790_000_680.250_000_2, 1_788_220_801.999_999_8, 9_223_372_036.0] {
            assert_eq!(read_exact_time(&exact_time(seconds)), Some(seconds), "{}", exact_time(seconds));
        }
        assert_eq!(read_exact_time("2026-09-01T00:00:01.250000+00:00"), Some(1_788_220_801.25));
        assert_eq!(read_exact_time("yesterday"), None);
    }

    #[test]
    fn lists_are_split_at_commas() {
        assert_eq!(list(&request(&[("keys", "a, b,,c")]), &["keys"]), ["a", "b", "c"]);
        assert!(list(&request(&[]), &["keys"]).is_empty());
        assert_eq!(list_within(&request(&[("keys", "a,,b")]), &["keys"], 3).expect("a list"), ["a", "b"]);
        assert_eq!(list_within(&request(&[("keys", "a,,b")]), &["keys"], 2).expect_err("refused").status, 422);
        assert!(flag(&request(&[("with_info", "True")]), &["with_info"]));
    }
}
