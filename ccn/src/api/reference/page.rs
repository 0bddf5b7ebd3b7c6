//! The page that shows the document to people: one file, which names nobody else's.

use axum::{
    http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};
use std::sync::LazyLock;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const FRAME: &str = include_str!("page.html");

/// The page, and what a browser lets it do: run this script and no other, and ask this node and nobody else.
static PAGE: LazyLock<(String, String)> = LazyLock::new(|| {
    let page = FRAME.replace("{style}", STYLE).replace("{script}", SCRIPT);
    let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
    let policy = format!(
        "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    (page, policy)
});

pub(super) async fn show() -> Response {
    let (page, policy) = &*PAGE;
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, policy.as_str()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, page.as_str()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_all_it_needs_and_nothing_of_others() {
        let (page, policy) = &*PAGE;
        assert!(page.contains(STYLE) && page.contains(SCRIPT) && policy.contains("script-src 'sha256-"));
        for foreign in ["http://", "https://", "src=", "@import", "innerHTML", "eval("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }
}
