//! `/api/v0/tokens/{chain}`, `…/{contract}`, `…/{contract}/holders`, `…/{contract}/balances/{address}`.
//!
//! Amounts come twice: `balance` in tokens, a decimal text, and `units` in the smallest ones, exact and whole.

use crate::state::{self, Summary, decimal, spelled};
use alloy_primitives::U256;
use plugin_sdk::{
    Request, Response,
    answer::{self, error, json_response, wrong},
    indexer::{ChainView, bytes_of_hex, hex},
    layout::end_of,
};
use serde_json::{Value, json};

/// Entries of a page unless the client says otherwise, and the most.
const DEFAULT_PAGE: u32 = 20;
const MAX_PAGE: u32 = 500;
/// Most tokens that are listed.
const MAX_TOKENS: u32 = 1000;
/// Bytes of a holder's place.
const PLACE_BYTES: usize = 52;

pub(crate) fn answer(request: &Request, view: &dyn ChainView) -> Response {
    let chain = answer::path(request, "chain");
    let answered = match request.route.as_str() {
        "/api/v0/tokens/{chain}" => Ok(list(chain, view)),
        "/api/v0/tokens/{chain}/{contract}" => token(request, view).map(|token| token.json()),
        "/api/v0/tokens/{chain}/{contract}/holders" => holders(request, view),
        "/api/v0/tokens/{chain}/{contract}/balances/{address}" => balance(request, view),
        _ => Err(error(404, "no such route")),
    };
    answered.map_or_else(|refusal| refusal, |body| json_response(200, &body))
}

/// The token that a request is about.
struct Asked<'a> {
    chain: &'a str,
    contract: [u8; 20],
    summary: Summary,
}

impl Asked<'_> {
    fn json(&self) -> Value {
        let Summary { symbol, decimals, supply, holders, transfers, height, time, exact } = &self.summary;
        json!({
            "chain": self.chain,
            "contract": spelled(&self.contract),
            "symbol": symbol,
            "decimals": decimals,
            "supply": decimal(*supply, *decimals, u8::MAX),
            "supply_units": supply.to_string(),
            "holders": holders,
            "transfers": transfers,
            "height": height,
            "time": time,
            "exact": exact,
        })
    }

    fn holding(&self, address: &[u8; 20], units: U256) -> Value {
        json!({
            "address": spelled(address),
            "balance": decimal(units, self.summary.decimals, u8::MAX),
            "units": units.to_string(),
        })
    }
}

fn list(chain: &str, view: &dyn ChainView) -> Value {
    let start = state::tokens(chain);
    let page = view.scan(&start, &end_of(&start), MAX_TOKENS, false);
    let tokens = page.items.iter().filter_map(|(key, value)| {
        let contract = key.get(start.len()..)?.try_into().ok()?;
        Some(Asked { chain, contract, summary: serde_json::from_slice(value).ok()? }.json())
    });
    json!({"chain": chain, "tokens": tokens.collect::<Vec<Value>>()})
}

fn token<'a>(request: &'a Request, view: &dyn ChainView) -> Result<Asked<'a>, Response> {
    let chain = answer::path(request, "chain");
    let contract = address(answer::path(request, "contract"))?;
    match state::summary(view, chain, &contract) {
        Some(summary) => Ok(Asked { chain, contract, summary }),
        None => Err(error(404, "no transfer of this token on this chain is known")),
    }
}

fn address(text: &str) -> Result<[u8; 20], Response> {
    bytes_of_hex(text).ok_or_else(|| error(422, &format!("{text:?} is no address of 20 bytes in hex")))
}

fn balance(request: &Request, view: &dyn ChainView) -> Result<Value, Response> {
    let token = token(request, view)?;
    let address = address(answer::path(request, "address"))?;
    let units = state::balance(view, token.chain, &token.contract, &address);
    let mut body = token.holding(&address, units);
    body["chain"] = token.chain.into();
    body["contract"] = spelled(&token.contract).into();
    body["symbol"] = token.summary.symbol.into();
    body["exact"] = token.summary.exact.into();
    Ok(body)
}

/// Most tokens first; then by address.
fn holders(request: &Request, view: &dyn ChainView) -> Result<Value, Response> {
    let token = token(request, view)?;
    let limit = match answer::parameter(request, &["pagination"]).map(str::parse) {
        None => DEFAULT_PAGE,
        Some(Ok(number @ 1..=MAX_PAGE)) => number,
        Some(_) => return Err(wrong("pagination", &format!("a number from 1 to {MAX_PAGE} was expected"))),
    };
    let prefix = state::holders(token.chain, &token.contract);
    let start = match answer::parameter(request, &["cursor"]).filter(|cursor| !cursor.is_empty()) {
        None => prefix.clone(),
        Some(cursor) => {
            let after = bytes_of_hex::<PLACE_BYTES>(cursor);
            let after = after.ok_or_else(|| wrong("cursor", "take the one that the last page gave"))?;
            [prefix.as_slice(), &after, &[0]].concat()
        }
    };
    let page = view.scan(&start, &end_of(&prefix), limit, false);
    let places: Vec<&[u8]> = page.items.iter().filter_map(|(key, _)| key.get(prefix.len()..)).collect();
    let held = places.iter().filter_map(|place| state::read_place(place));
    let held: Vec<Value> = held.map(|(address, units)| token.holding(&address, units)).collect();
    let next = places.last().filter(|_| page.more).map(|place| hex(place));
    let mut body = token.json();
    body["total"] = token.summary.holders.into();
    body["holders"] = held.into();
    body["pagination_per_page"] = limit.into();
    body["next_cursor"] = next.into();
    Ok(body)
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
