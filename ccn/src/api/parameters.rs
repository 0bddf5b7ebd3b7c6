//! Query parameters, under both spellings that clients use.

use super::error::{ApiError, ApiResult};
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;

/// Most values of one list.
const MAX_VALUES: usize = 1000;

/// The parameters of a request in order, decoded.
#[derive(Debug, Clone, Default)]
pub(super) struct Parameters(pub(super) Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Parameters {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let Query(pairs) = Query::try_from_uri(&parts.uri)
            .map_err(|_| ApiError::field("query", "parameters are NAME=VALUE, joined by &, percent-encoded"))?;
        Ok(Self(pairs))
    }
}

impl Parameters {
    /// A parameter by any of its names.
    pub(super) fn get(&self, names: &[&str]) -> Option<&str> {
        self.0.iter().find(|(name, _)| names.contains(&name.as_str())).map(|(_, value)| value.as_str())
    }

    /// A comma-separated list; empty when it is absent. A parameter that comes several times adds up.
    pub(super) fn list(&self, names: &[&str]) -> ApiResult<Vec<String>> {
        let given = self.0.iter().filter(|(name, _)| names.contains(&name.as_str()));
        let values = given.flat_map(|(_, value)| value.split(','));
        let values: Vec<String> = values.map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned).collect();
        if values.len() > MAX_VALUES {
            return Err(ApiError::field(names[0], format!("at most {MAX_VALUES} values are allowed")));
        }
        Ok(values)
    }

    /// A whole number from 0 on.
    pub(super) fn number(&self, names: &[&str], default: u64) -> ApiResult<u64> {
        match self.get(names) {
            None => Ok(default),
            Some(text) => text
                .trim()
                .parse()
                .map_err(|_| ApiError::field(names[0], format!("a whole number from 0 on was expected, not `{text}`"))),
        }
    }

    /// Seconds since 1970; 0 is the same as none.
    pub(super) fn date(&self, names: &[&str]) -> ApiResult<Option<f64>> {
        match self.get(names) {
            None => Ok(None),
            Some(text) => match text.trim().parse::<f64>() {
                Ok(seconds) if seconds.is_finite() => Ok(Some(seconds).filter(|seconds| *seconds != 0.0)),
                _ => Err(ApiError::field(names[0], format!("seconds since 1970 were expected, not `{text}`"))),
            },
        }
    }

    /// True for `true`, `1`, `yes` and the like.
    pub(super) fn flag(&self, names: &[&str]) -> bool {
        self.get(names).is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "true" | "1" | "yes" | "on"))
    }

    /// One of some words; the first is the default.
    pub(super) fn word<'a>(&self, names: &[&str], words: &[&'a str]) -> ApiResult<&'a str> {
        let Some(given) = self.get(names) else { return Ok(words[0]) };
        words
            .iter()
            .find(|word| **word == given)
            .copied()
            .ok_or_else(|| ApiError::field(names[0], format!("`{given}` is none of: {}", words.join(", "))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(pairs: &[(&str, &str)]) -> Parameters {
        Parameters(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn both_spellings_are_read() {
        let given = parameters(&[("start_date", "5"), ("msgTypes", "POST, STORE,"), ("msgTypes", "FORGET")]);
        assert_eq!(given.date(&["startDate", "start_date"]).expect("a date"), Some(5.0));
        assert_eq!(given.list(&["msgTypes"]).expect("a list"), ["POST", "STORE", "FORGET"]);
        assert_eq!(given.number(&["page"], 1).expect("a number"), 1);
        assert_eq!(given.word(&["sortBy"], &["time", "tx-time"]).expect("a word"), "time");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = parameters(&[("page", "-1"), ("startDate", "NaN"), ("sortOrder", "2")]);
        for error in [
            wrong.number(&["page"], 1).expect_err("refused"),
            wrong.date(&["startDate"]).expect_err("refused"),
            wrong.word(&["sortOrder"], &["-1", "1"]).expect_err("refused"),
        ] {
            assert_eq!(error.status(), 422);
        }
        let many = parameters(&[("hashes", &"a,".repeat(MAX_VALUES + 1))]);
        assert_eq!(many.list(&["hashes"]).expect_err("refused").status(), 422);
    }
}
