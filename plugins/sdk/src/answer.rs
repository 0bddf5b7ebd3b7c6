//! Answers to queries: JSON bodies, parameters, pages, cursors, as the network's clients expect them (ccn spec 5).

use crate::{Request, Response};
use serde_json::{Value, json};

/// Entries of a page unless the client says otherwise.
const DEFAULT_PAGE_LENGTH: u64 = 20;
/// Most entries of a page with a cursor, and of a page when everything was asked for: a plugin answers within bounds.
pub const MAX_PAGE_LENGTH: u64 = 1000;

/// A JSON answer.
#[must_use]
pub fn json_response(status: u16, body: &Value) -> Response {
    Response {
        status,
        content_type: "application/json".into(),
        body: body.to_string().into_bytes(),
    }
}

/// An error with a sentence.
#[must_use]
pub fn error(status: u16, sentence: &str) -> Response {
    json_response(status, &json!({"error": sentence}))
}

/// A part of the path.
#[must_use]
pub fn path<'a>(request: &'a Request, name: &str) -> &'a str {
    request
        .path
        .iter()
        .find(|(key, _)| key == name)
        .map_or("", |(_, value)| value)
}

/// A parameter by any of its names.
#[must_use]
pub fn parameter<'a>(request: &'a Request, names: &[&str]) -> Option<&'a str> {
    request
        .parameters
        .iter()
        .find(|(key, _)| names.contains(&key.as_str()))
        .map(|(_, value)| value.as_str())
}

/// A comma-separated list; empty when the parameter is absent.
#[must_use]
pub fn list(request: &Request, names: &[&str]) -> Vec<String> {
    let values = parameter(request, names).unwrap_or_default();
    values
        .split(',')
        .map(str::trim)
        .filter(|value| !value.is_empty())
        .map(str::to_owned)
        .collect()
}

/// True for `true`, `1`, `yes` and the like.
#[must_use]
pub fn flag(request: &Request, names: &[&str]) -> bool {
    parameter(request, names).is_some_and(|value| {
        matches!(
            value.to_ascii_lowercase().as_str(),
            "true" | "1" | "yes" | "on"
        )
    })
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
            Some(text) => text
                .parse()
                .map_err(|_| error(422, &format!("{name}: a whole number was expected"))),
        };
        let descending = match parameter(request, &["sortOrder", "sort_order"]) {
            None | Some("-1") => true,
            Some("1") => false,
            Some(_) => return Err(error(422, "sortOrder: 1 or -1 was expected")),
        };
        let in_path = path(request, "page").parse().ok();
        let page = Self {
            number: in_path.map_or_else(|| number("page", 1), Ok)?,
            length: number("pagination", DEFAULT_PAGE_LENGTH)?,
            descending,
        };
        if page.number == 0 {
            return Err(error(422, "page: pages are counted from 1"));
        }
        Ok(page)
    }

    /// Entries before the page, and on it.
    #[must_use]
    pub fn range(self) -> std::ops::Range<u64> {
        let length = if self.length == 0 {
            MAX_PAGE_LENGTH
        } else {
            self.length.min(MAX_PAGE_LENGTH)
        };
        let start = (self.number - 1).saturating_mul(length);
        start..start.saturating_add(length)
    }

    /// The fields that describe a page of `total` entries called `item`.
    #[must_use]
    pub fn describe(self, body: Value, total: u64, item: &str) -> Value {
        let mut body = body;
        if let Some(fields) = body.as_object_mut() {
            fields.insert("pagination_page".into(), json!(self.number));
            fields.insert("pagination_total".into(), json!(total));
            fields.insert("pagination_per_page".into(), json!(self.length));
            fields.insert("pagination_item".into(), json!(item));
        }
        body
    }
}

/// A moment as clients read it: RFC 3339 with microseconds and offset.
#[must_use]
pub fn iso_time(seconds: f64) -> String {
    // Rounded to microseconds, which a double holds exactly for every year that occurs.
    let micros = (seconds * 1e6).round() as i128;
    let (whole, fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let (days, second) = (whole.div_euclid(86_400), whole.rem_euclid(86_400));
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}+00:00")
}

/// The Gregorian date of a day counted from 1970, by counting in eras of 400 years that start in March.
fn civil_from_days(days: i128) -> (i128, i128, i128) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i128::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(parameters: &[(&str, &str)]) -> Request {
        let parameters = parameters
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Request {
            route: String::new(),
            path: vec![],
            parameters,
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(iso_time(0.0), "1970-01-01T00:00:00.000000+00:00");
        assert_eq!(
            iso_time(1_788_220_801.25),
            "2026-09-01T00:00:01.250000+00:00"
        );
        assert_eq!(iso_time(951_827_696.5), "2000-02-29T12:34:56.500000+00:00");
        assert_eq!(
            iso_time(9_223_372_036.0),
            "2262-04-11T23:47:16.000000+00:00"
        );
    }

    #[test]
    fn pages_are_read_and_bounded() {
        let page = Page::read(&request(&[])).expect("a page");
        assert_eq!((page.range(), page.descending), (0..20, true));
        let page = Page::read(&request(&[
            ("page", "3"),
            ("pagination", "10"),
            ("sortOrder", "1"),
        ]))
        .expect("a page");
        assert_eq!((page.range(), page.descending), (20..30, false));
        assert_eq!(
            Page::read(&request(&[("pagination", "0")]))
                .expect("a page")
                .range(),
            0..MAX_PAGE_LENGTH
        );
        for wrong in [
            ("page", "0"),
            ("page", "x"),
            ("pagination", "-1"),
            ("sortOrder", "2"),
        ] {
            assert_eq!(
                Page::read(&request(&[wrong])).expect_err("refused").status,
                422
            );
        }
    }

    #[test]
    fn lists_are_split_at_commas() {
        assert_eq!(
            list(&request(&[("keys", "a, b,,c")]), &["keys"]),
            ["a", "b", "c"]
        );
        assert!(list(&request(&[]), &["keys"]).is_empty());
        assert!(flag(&request(&[("with_info", "True")]), &["with_info"]));
    }
}
