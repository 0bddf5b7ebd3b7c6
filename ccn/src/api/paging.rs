//! Pages of lists: their parameters and the fields that clients find beside the entries (ccn spec 5.2).

use super::{
    error::{ApiError, ApiResult},
    parameters::{Number, Parameter, Parameters, QueryParameter, Text, Word},
    reference::Shape,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

/// Most entries of a page, and of everything (`pagination=0`).
pub(super) const MAX_ENTRIES: u64 = 10_000;
/// Most entries of a page with a cursor.
const MAX_CURSOR_ENTRIES: u64 = 200;

/// Which page.
pub(super) static PAGE: Parameter<Number> = Parameter::number(&["page"], "Which page.", 1, 1..=u64::MAX);
/// Where a page begins.
pub(super) static CURSOR: Parameter<Text> = Parameter::text(
    &["cursor"],
    "Instead of a page's number: the `next_cursor` of the last answer, or nothing to begin. Nothing is counted then.",
);
/// In which direction.
pub(super) static SORT_ORDER: Parameter<Word> =
    Parameter::word(&["sortOrder", "sort_order"], "-1 for the newest or largest first, 1 for the last.", &["-1", "1"]);

/// How many entries a page has, where 0 asks for everything.
pub(super) const fn pagination(default: u64) -> Parameter<Number> {
    Parameter::number(
        &["pagination"],
        "Entries of a page, no more than 10000 and with a cursor 200; 0 for everything, if that is not more.",
        default,
        0..=u64::MAX,
    )
}

/// Which page is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Paging {
    /// The page of this number, from 1 on, of that many entries; all of them when that is 0.
    Number { page: u64, entries: u64 },
    /// What comes after the entry that the cursor names; none: from the beginning.
    After { cursor: Option<Map<String, Value>>, entries: u64 },
}

impl Paging {
    /// Reads `page`, `cursor` and how many entries a page has.
    pub(super) fn read(given: &Parameters, pagination: &Parameter<Number>) -> ApiResult<Self> {
        let entries = pagination.read(given)?;
        let page = PAGE.read(given)?;
        let Some(cursor) = CURSOR.read(given)? else { return Ok(Self::Number { page, entries }) };
        // Where everything is the default, a cursor asks for the usual page.
        let entries = match entries {
            0 if !pagination.is_given(given) => MAX_CURSOR_ENTRIES,
            0 => return Err(ApiError::field("pagination", "a page with a cursor has at least one entry")),
            entries => entries.min(MAX_CURSOR_ENTRIES),
        };
        let cursor = if cursor.is_empty() { None } else { Some(read_cursor(cursor)?) };
        Ok(Self::After { cursor, entries })
    }

    /// Entries to pass over.
    pub(super) fn skip(&self) -> u64 {
        match self {
            Self::Number { page, entries } => (page - 1).saturating_mul(entries_at_most(*entries)),
            Self::After { .. } => 0,
        }
    }

    /// Entries of the page at most.
    pub(super) fn limit(&self) -> u64 {
        match self {
            Self::Number { entries, .. } | Self::After { entries, .. } => entries_at_most(*entries),
        }
    }

    /// A member of the cursor, if there is one and it has it as a text.
    pub(super) fn after(&self, member: &str) -> ApiResult<Option<&str>> {
        match self {
            Self::After { cursor: Some(cursor), .. } => {
                cursor.get(member).and_then(Value::as_str).map(Some).ok_or_else(wrong_cursor)
            }
            Self::After { cursor: None, .. } | Self::Number { .. } => Ok(None),
        }
    }

    /// Adds what clients find beside the entries. `next` is the cursor behind the last entry, if more follow; `total` is asked for pages by number only.
    ///
    /// # Errors
    /// Everything is asked for, and that is too much.
    pub(super) fn answer(&self, mut answer: Value, item: &str, total: u64, next: Option<Value>) -> ApiResult<Value> {
        match self {
            Self::Number { entries: 0, .. } if total > MAX_ENTRIES => {
                let sentence = format!(
                    "{total} entries match, more than {MAX_ENTRIES}: ask for pages, or with `cursor=` and follow next_cursor"
                );
                return Err(ApiError::field("pagination", sentence));
            }
            Self::Number { page, entries } => {
                answer["pagination_page"] = (*page).into();
                answer["pagination_total"] = total.into();
                answer["pagination_per_page"] = (*entries).into();
                answer["pagination_item"] = item.into();
            }
            Self::After { entries, .. } => {
                answer["pagination_per_page"] = (*entries).into();
                answer["next_cursor"] = next.map(|next| URL_SAFE_NO_PAD.encode(next.to_string())).into();
            }
        }
        Ok(answer)
    }
}

/// The shape of pages: by number, and with a cursor.
pub(super) fn pages(members: Shape) -> Shape {
    let by_number = members.clone().and(numbered());
    let by_cursor = members.and([("pagination_per_page", Shape::whole()), ("next_cursor", Shape::text().or_null())]);
    Shape::any_of([by_number, by_cursor])
}

/// What pages by number have beside their entries.
pub(super) fn numbered() -> [(&'static str, Shape); 4] {
    [
        ("pagination_page", Shape::whole()),
        ("pagination_total", Shape::whole()),
        ("pagination_per_page", Shape::whole()),
        ("pagination_item", Shape::text()),
    ]
}

/// Entries of a page, or of everything.
pub(super) fn entries_at_most(entries: u64) -> u64 {
    if entries == 0 { MAX_ENTRIES } else { entries.min(MAX_ENTRIES) }
}

pub(super) fn wrong_cursor() -> ApiError {
    ApiError::field("cursor", "take the one that the last page gave, or an empty one to begin")
}

fn read_cursor(cursor: &str) -> ApiResult<Map<String, Value>> {
    let decoded = URL_SAFE_NO_PAD.decode(cursor.trim_end_matches('=')).ok();
    decoded.and_then(|json| serde_json::from_slice(&json).ok()).ok_or_else(wrong_cursor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    static PAGINATION: Parameter<Number> = pagination(20);

    fn paging(pairs: &[(&str, &str)]) -> ApiResult<Paging> {
        Paging::read(&Parameters::of(pairs), &PAGINATION)
    }

    #[test]
    fn pages_are_counted_and_cursors_come_back() {
        let second = paging(&[("page", "2"), ("pagination", "5")]).expect("a page");
        assert_eq!((second.skip(), second.limit()), (5, 5));
        let answer = second.answer(json!({}), "things", 7, None).expect("an answer");
        assert_eq!(answer["pagination_total"], 7);
        let first = paging(&[("cursor", ""), ("pagination", "1000")]).expect("a page");
        assert_eq!((first.limit(), first.after("a").expect("none")), (200, None));
        let answer = first.answer(json!({}), "things", 0, Some(json!({"a": "0xA"}))).expect("an answer");
        let next = answer["next_cursor"].as_str().expect("a cursor").to_owned();
        let next = paging(&[("cursor", &next)]).expect("a page");
        assert_eq!(next.after("a").expect("a member"), Some("0xA"));
        assert_eq!(next.after("b").expect_err("no such member").status(), 422);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for wrong in [[("page", "0")].as_slice(), &[("cursor", "?")], &[("cursor", ""), ("pagination", "0")]] {
            assert_eq!(paging(wrong).expect_err("refused").status(), 422);
        }
        let all = paging(&[("pagination", "0")]).expect("a page");
        assert_eq!(all.limit(), MAX_ENTRIES);
        assert_eq!(all.answer(json!({}), "x", MAX_ENTRIES + 1, None).expect_err("too much").status(), 422);
    }

    proptest! {
        #[test]
        fn arbitrary_cursors_do_no_harm(text in ".{0,100}") {
            let _ = paging(&[("cursor", &text)]);
        }
    }
}
