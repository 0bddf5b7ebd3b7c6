//! `/api/v0/syncs/{chain}`: the sync events that counted, newest first.

use plugin_sdk::{
    Request, Response,
    answer::{self, json_response, wrong},
    indexer::{ChainView, bytes_of_hex, chain_prefix, hex},
    layout::end_of,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Table of sync events: (height, log index) to [`Sync`].
const SYNCS: u8 = b's';
/// Entries of a page unless the client says otherwise, and the most.
const DEFAULT_PAGE: u32 = 20;
const MAX_PAGE: u32 = 200;
/// Bytes of a place: height and log index.
const PLACE_BYTES: usize = 12;

/// A sync event that counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sync {
    #[serde(rename = "hash")]
    pub(crate) transaction: String,
    pub(crate) height: u64,
    /// Seconds since 1970.
    pub(crate) time: u64,
    pub(crate) publisher: String,
    pub(crate) protocol: String,
    pub(crate) archive: Option<String>,
}

impl Sync {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

fn table(chain: &str) -> Vec<u8> {
    let mut key = chain_prefix(chain);
    key.push(SYNCS);
    key
}

pub(crate) fn key(chain: &str, height: u64, log_index: u32) -> Vec<u8> {
    let mut key = table(chain);
    key.extend(height.to_be_bytes());
    key.extend(log_index.to_be_bytes());
    key
}

pub(crate) fn answer(request: &Request, view: &dyn ChainView) -> Response {
    let chain = answer::path(request, "chain");
    let limit = match answer::parameter(request, &["pagination"]).map(str::parse) {
        None => DEFAULT_PAGE,
        Some(Ok(number @ 1..=MAX_PAGE)) => number,
        Some(_) => return wrong("pagination", &format!("a number from 1 to {MAX_PAGE} was expected")),
    };
    let start = table(chain);
    let end = match answer::parameter(request, &["cursor"]).filter(|cursor| !cursor.is_empty()) {
        None => end_of(&start),
        Some(cursor) => match bytes_of_hex::<PLACE_BYTES>(cursor) {
            Some(place) => [start.as_slice(), &place].concat(),
            None => return wrong("cursor", "take the one that the last page gave"),
        },
    };
    let page = view.scan(&start, &end, limit, true);
    let next = page.items.last().filter(|_| page.more).and_then(|(key, _)| key.get(start.len()..)).map(hex);
    let syncs: Vec<Sync> = page.items.iter().filter_map(|(_, value)| serde_json::from_slice(value).ok()).collect();
    json_response(200, &json!({"chain": chain, "syncs": syncs, "pagination_per_page": limit, "next_cursor": next}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_sdk::simulation::described;

    /// Clients read in the manifest what they can ask for: it must be what is kept.
    #[test]
    fn the_manifest_tells_the_bounds() {
        let pages = described(include_str!("../manifest.json"), "pagination");
        let [page] = pages.as_slice() else { panic!("{pages:?}") };
        let told = ["default", "maximum"].map(|word| page[word].as_u64());
        assert_eq!(told, [Some(DEFAULT_PAGE.into()), Some(MAX_PAGE.into())]);
    }
}
