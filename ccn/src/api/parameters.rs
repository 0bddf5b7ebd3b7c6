//! Query parameters, under both spellings that clients use. Each is declared once: by what it is read with, it is described (`reference`).

use super::{
    error::{ApiError, ApiResult},
    reference::Shape,
};
use axum::extract::{Extension, FromRequestParts, Query};
use axum::http::request::Parts;
use ccn_message::ItemHash;
use serde_json::{Value, json};
use std::{ops::RangeInclusive, sync::Arc};

/// Most values of one list.
const MAX_VALUES: usize = 1000;
/// What is read as true, and as false, in letters of either case.
const TRUE: [&str; 4] = ["true", "1", "yes", "on"];
const FALSE: [&str; 4] = ["false", "0", "no", "off"];

/// The names of the parameters that a route is described with.
#[derive(Debug, Clone)]
pub(super) struct Described(pub(super) Arc<[&'static str]>);

/// The parameters of a request in order, decoded.
#[derive(Debug, Clone, Default)]
pub(super) struct Parameters {
    pairs: Vec<(String, String)>,
    /// Those that the route is described with; none where nothing describes it.
    described: Option<Described>,
}

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(pairs) = Query::try_from_uri(&parts.uri)
            .map_err(|_| ApiError::field("query", "parameters are NAME=VALUE, joined by &, percent-encoded"))?;
        let described = Extension::<Described>::from_request_parts(parts, state).await.ok();
        Ok(Self { pairs, described: described.map(|Extension(described)| described) })
    }
}

impl Parameters {
    #[cfg(test)]
    pub(super) fn of(pairs: &[(&str, &str)]) -> Self {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self { pairs: pairs.collect(), described: None }
    }

    /// As they came.
    pub(super) fn into_pairs(self) -> Vec<(String, String)> {
        self.pairs
    }

    /// The values of a parameter under any of its names.
    fn values(&self, names: &'static [&'static str]) -> impl Iterator<Item = &str> {
        if let Some(Described(described)) = &self.described {
            // What clients are not told of, no handler reads.
            debug_assert!(described.contains(&names[0]), "`{}` is read here, and not described", names[0]);
        }
        self.pairs.iter().filter(|(name, _)| names.contains(&name.as_str())).map(|(_, value)| value.as_str())
    }
}

/// A query parameter: its names, of which documents use the first, what it is for, and what it can be.
#[derive(Debug)]
pub(super) struct Parameter<K> {
    names: &'static [&'static str],
    about: &'static str,
    kind: K,
}

/// Any text.
#[derive(Debug)]
pub(super) struct Text {
    /// Most characters; more are refused.
    most: Option<usize>,
}

/// A comma-separated list of texts. One that comes several times adds up.
#[derive(Debug)]
pub(super) struct List {
    /// What its values can be; none: any text.
    words: Option<&'static [&'static str]>,
}

/// A whole number within bounds.
#[derive(Debug)]
pub(super) struct Number {
    default: u64,
    bounds: RangeInclusive<u64>,
}

/// Seconds since 1970; 0 is the same as none.
#[derive(Debug)]
pub(super) struct Date;

/// True or false.
#[derive(Debug)]
pub(super) struct Flag;

/// One of some words; the first is the default.
#[derive(Debug)]
pub(super) struct Word(&'static [&'static str]);

/// The hash of a message or a file.
#[derive(Debug)]
pub(super) struct Hash;

impl<K> Parameter<K> {
    /// Its value as it came.
    fn raw<'a>(&self, given: &'a Parameters) -> Option<&'a str> {
        given.values(self.names).next()
    }

    fn refuse(&self, problem: impl AsRef<str>) -> ApiError {
        ApiError::field(self.names[0], problem)
    }
}

impl Parameter<Text> {
    pub(super) const fn text(names: &'static [&'static str], about: &'static str) -> Self {
        Self { names, about, kind: Text { most: None } }
    }

    /// With so many characters at most.
    pub(super) const fn within(self, most: usize) -> Self {
        Self { kind: Text { most: Some(most) }, ..self }
    }

    pub(super) fn read<'a>(&self, given: &'a Parameters) -> ApiResult<Option<&'a str>> {
        let text = self.raw(given);
        match (text, self.kind.most) {
            (Some(text), Some(most)) if text.chars().count() > most => {
                Err(self.refuse(format!("at most {most} characters are allowed")))
            }
            _ => Ok(text),
        }
    }
}

impl Parameter<List> {
    pub(super) const fn list(names: &'static [&'static str], about: &'static str) -> Self {
        Self { names, about, kind: List { words: None } }
    }

    /// Of these words alone.
    pub(super) const fn of(self, words: &'static [&'static str]) -> Self {
        Self { kind: List { words: Some(words) }, ..self }
    }

    /// Its values; none when it is absent.
    pub(super) fn read(&self, given: &Parameters) -> ApiResult<Vec<String>> {
        let values: Vec<&str> = given.values(self.names).flat_map(|value| value.split(',')).collect();
        // Empty ones count, and say nothing.
        if values.len() > MAX_VALUES {
            return Err(self.refuse(format!("at most {MAX_VALUES} values are allowed")));
        }
        let values = values.into_iter().map(str::trim).filter(|value| !value.is_empty());
        let values: Vec<String> = values.map(str::to_owned).collect();
        let words = self.kind.words.unwrap_or_default();
        let is_known = |value: &&String| words.is_empty() || words.contains(&value.as_str());
        if let Some(unknown) = values.iter().find(|value| !is_known(value)) {
            return Err(self.refuse(format!("`{unknown}` is none of: {}", words.join(", "))));
        }
        Ok(values)
    }
}

impl Parameter<Number> {
    pub(super) const fn number(
        names: &'static [&'static str],
        about: &'static str,
        default: u64,
        bounds: RangeInclusive<u64>,
    ) -> Self {
        Self { names, about, kind: Number { default, bounds } }
    }

    pub(super) fn read(&self, given: &Parameters) -> ApiResult<u64> {
        let Number { default, bounds } = &self.kind;
        let Some(text) = self.raw(given) else { return Ok(*default) };
        let number = text.trim().parse();
        let number = number.map_err(|_| {
            self.refuse(format!("a whole number from {} on was expected, not `{text}`", bounds.start()))
        })?;
        if bounds.contains(&number) {
            return Ok(number);
        }
        // What has no end is counted: pages.
        Err(self.refuse(match *bounds.end() {
            u64::MAX => format!("{}s are counted from {}", self.names[0], bounds.start()),
            end => format!("{} to {end} was expected", bounds.start()),
        }))
    }
}

impl Parameter<Date> {
    pub(super) const fn date(names: &'static [&'static str], about: &'static str) -> Self {
        Self { names, about, kind: Date }
    }

    pub(super) fn read(&self, given: &Parameters) -> ApiResult<Option<f64>> {
        let Some(text) = self.raw(given) else { return Ok(None) };
        match text.trim().parse::<f64>() {
            Ok(seconds) if seconds.is_finite() => Ok(Some(seconds).filter(|seconds| *seconds != 0.0)),
            _ => Err(self.refuse(format!("seconds since 1970 were expected, not `{text}`"))),
        }
    }
}

impl Parameter<Flag> {
    pub(super) const fn flag(names: &'static [&'static str], about: &'static str) -> Self {
        Self { names, about, kind: Flag }
    }

    /// True when it is said to be.
    pub(super) fn read(&self, given: &Parameters) -> ApiResult<bool> {
        Ok(self.read_if_given(given)?.unwrap_or(false))
    }

    /// None when nothing is said.
    pub(super) fn read_if_given(&self, given: &Parameters) -> ApiResult<Option<bool>> {
        let Some(text) = self.raw(given) else { return Ok(None) };
        let word = text.to_ascii_lowercase();
        match (TRUE.contains(&word.as_str()), FALSE.contains(&word.as_str())) {
            (false, false) => Err(self.refuse(format!("true or false was expected, not `{text}`"))),
            (is_true, _) => Ok(Some(is_true)),
        }
    }
}

impl Parameter<Word> {
    pub(super) const fn word(
        names: &'static [&'static str],
        about: &'static str,
        words: &'static [&'static str],
    ) -> Self {
        Self { names, about, kind: Word(words) }
    }

    pub(super) fn read(&self, given: &Parameters) -> ApiResult<&'static str> {
        let Word(words) = self.kind;
        let Some(text) = self.raw(given) else { return Ok(words[0]) };
        let found = words.iter().find(|word| **word == text).copied();
        found.ok_or_else(|| self.refuse(format!("`{text}` is none of: {}", words.join(", "))))
    }
}

impl Parameter<Hash> {
    pub(super) const fn hash(names: &'static [&'static str], about: &'static str) -> Self {
        Self { names, about, kind: Hash }
    }

    pub(super) fn read(&self, given: &Parameters) -> ApiResult<Option<ItemHash>> {
        let hash = self.raw(given).map(ItemHash::parse).transpose();
        hash.map_err(|error| self.refuse(error.to_string()))
    }
}

/// What a parameter can be.
pub(super) trait Kind: Send + Sync {
    /// The shape of its values.
    fn shape(&self) -> Shape;
    /// What it is when nothing is said.
    fn default(&self) -> Option<Value> {
        None
    }
}

impl Kind for Text {
    fn shape(&self) -> Shape {
        self.most.map_or_else(Shape::text, |most| Shape::text().with("maxLength", most))
    }
}

impl Kind for List {
    fn shape(&self) -> Shape {
        Shape::list(self.words.map_or_else(Shape::text, Shape::words)).with("maxItems", MAX_VALUES)
    }
}

impl Kind for Number {
    fn shape(&self) -> Shape {
        Shape::integer().with("minimum", *self.bounds.start()).with("maximum", *self.bounds.end())
    }

    fn default(&self) -> Option<Value> {
        Some(self.default.into())
    }
}

impl Kind for Date {
    fn shape(&self) -> Shape {
        Shape::number()
    }
}

impl Kind for Flag {
    fn shape(&self) -> Shape {
        Shape::flag()
    }
}

impl Kind for Word {
    fn shape(&self) -> Shape {
        Shape::words(self.0)
    }

    fn default(&self) -> Option<Value> {
        Some(self.0[0].into())
    }
}

impl Kind for Hash {
    fn shape(&self) -> Shape {
        Shape::hash()
    }
}

/// A parameter of any kind, as a route is described with it.
pub(super) trait QueryParameter: Send + Sync {
    /// The name that documents use.
    fn name(&self) -> &'static str;
    /// True when a request has it, with a value.
    fn is_given(&self, given: &Parameters) -> bool;
    /// As OpenAPI describes it.
    fn described(&self) -> Value;
}

impl<K: Kind> QueryParameter for Parameter<K> {
    fn name(&self) -> &'static str {
        self.names[0]
    }

    fn is_given(&self, given: &Parameters) -> bool {
        self.raw(given).is_some_and(|value| !value.is_empty())
    }

    fn described(&self) -> Value {
        let mut schema = self.kind.shape();
        if let Some(default) = self.kind.default() {
            schema = schema.with("default", default);
        }
        let about = match &self.names[1..] {
            [] => self.about.to_owned(),
            others => format!("{} Also spelled `{}`.", self.about, others.join("`, `")),
        };
        let mut described =
            json!({"name": self.names[0], "in": "query", "description": about, "schema": schema.schema()});
        if described["schema"]["type"] == "array" {
            described["explode"] = false.into();
        }
        described
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static DATE: Parameter<Date> = Parameter::date(&["startDate", "start_date"], "From then on.");
    static TYPES: Parameter<List> = Parameter::list(&["msgTypes"], "Of these types.");
    static PAGE: Parameter<Number> = Parameter::number(&["page"], "Which page.", 1, 1..=u64::MAX);
    static ROWS: Parameter<Number> = Parameter::number(&["rows"], "How many.", 5, 1..=9);
    static SORT: Parameter<Word> = Parameter::word(&["sortBy"], "By what.", &["time", "tx-time"]);
    static FLAG: Parameter<Flag> = Parameter::flag(&["all"], "All of them.");
    static PART: Parameter<Text> = Parameter::text(&["part"], "A part.").within(3);
    static HASH: Parameter<Hash> = Parameter::hash(&["hash"], "That one.");

    #[test]
    fn both_spellings_are_read() {
        let given = Parameters::of(&[("start_date", "5"), ("msgTypes", "POST, STORE,"), ("msgTypes", "FORGET")]);
        assert_eq!(DATE.read(&given).expect("a date"), Some(5.0));
        assert_eq!(TYPES.read(&given).expect("a list"), ["POST", "STORE", "FORGET"]);
        assert_eq!((PAGE.read(&given).expect("a number"), SORT.read(&given).expect("a word")), (1, "time"));
        assert_eq!((FLAG.read_if_given(&given).expect("none"), PART.read(&given).expect("none")), (None, None));
        for (text, expect) in [("True", true), ("1", true), ("off", false), ("FALSE", false)] {
            assert_eq!(FLAG.read(&Parameters::of(&[("all", text)])).expect(text), expect);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = Parameters::of(&[
            ("page", "-1"),
            ("rows", "10"),
            ("startDate", "NaN"),
            ("sortBy", "2"),
            ("all", "null"),
            ("part", "four"),
            ("hash", "x"),
        ]);
        for error in [
            PAGE.read(&wrong).expect_err("refused"),
            ROWS.read(&wrong).expect_err("refused"),
            DATE.read(&wrong).expect_err("refused"),
            SORT.read(&wrong).expect_err("refused"),
            FLAG.read(&wrong).expect_err("refused"),
            PART.read(&wrong).expect_err("refused"),
            HASH.read(&wrong).expect_err("refused"),
        ] {
            assert_eq!(error.status(), 422);
        }
        let many = "a,".repeat(MAX_VALUES + 1);
        assert_eq!(TYPES.read(&Parameters::of(&[("msgTypes", &many)])).expect_err("refused").status(), 422);
    }

    #[test]
    fn a_parameter_is_described_by_what_it_is_read_with() {
        let expect = json!({"name": "rows", "in": "query", "description": "How many.",
            "schema": {"type": "integer", "minimum": 1, "maximum": 9, "default": 5}});
        assert_eq!(ROWS.described(), expect);
        let date = DATE.described();
        assert_eq!((&date["name"], &date["schema"]["type"]), (&json!("startDate"), &json!("number")));
        assert_eq!(date["description"], "From then on. Also spelled `start_date`.");
        let list = TYPES.described();
        assert_eq!((&list["explode"], &list["schema"]["maxItems"]), (&json!(false), &json!(MAX_VALUES)));
        assert_eq!(SORT.described()["schema"]["enum"], json!(["time", "tx-time"]));
    }

    #[test]
    #[should_panic(expected = "`page` is read here, and not described")]
    fn no_handler_reads_what_is_not_described() {
        let described = Some(Described(["rows"].into()));
        let given = Parameters { described, ..Parameters::of(&[("page", "2"), ("rows", "3")]) };
        assert_eq!(ROWS.read(&given).expect("a number"), 3);
        let _ = PAGE.read(&given);
    }
}
