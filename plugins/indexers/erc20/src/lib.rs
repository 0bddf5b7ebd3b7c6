//! ERC-20 tokens: who holds how much, from their Transfer events (EIP-20), in exact integers of 256 bits.

mod config;
mod query;
mod state;
mod transfers;

use plugin_sdk::{
    Request, Response,
    indexer::{Block, ChainView, Event, Filter, Indexer, RecordOf, Subscription},
};

/// The indexer.
#[derive(Debug)]
pub struct Erc20;

impl Indexer for Erc20 {
    fn subscribe(_chain: &str, config: &str) -> Result<Subscription, String> {
        let config = config::Config::read(config)?;
        let topics = vec![transfers::TRANSFER.to_vec()];
        let filter = |token: &config::Token| Filter { contract: token.contract.to_vec(), topics: topics.clone() };
        Ok(Subscription { filters: config.tokens.iter().map(filter).collect(), start: config.start })
    }

    fn decode(
        config: &str,
        block: &Block,
        events: &[Event<'_>],
        view: &dyn ChainView,
    ) -> Result<Vec<RecordOf>, String> {
        let config = config::Config::read(config)?;
        let mut sheet = state::Sheet::new(&config, block, view);
        for (place, event) in events.iter().enumerate() {
            if let Some(transfer) = transfers::Transfer::read(event) {
                let place = u32::try_from(place).map_err(|error| error.to_string())?;
                sheet.apply(place, &event.contract, &transfer)?;
            }
        }
        Ok(sheet.records())
    }

    fn query(request: &Request, view: &dyn ChainView) -> Response {
        query::answer(request, view)
    }
}

plugin_sdk::indexer!(Erc20, "../manifest.json");

#[cfg(test)]
mod tests;
