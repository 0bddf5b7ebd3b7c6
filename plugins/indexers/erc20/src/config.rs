//! What the operator says: which tokens, and what they began with.

use alloy_primitives::U256;
use plugin_sdk::indexer::bytes_of_hex;
use serde::Deserialize;

/// Most tokens of a chain.
const MAX_TOKENS: usize = 100;
/// Most decimals that are shown.
const MAX_DECIMALS: u8 = 77;
/// Longest symbol, bytes.
const MAX_SYMBOL_BYTES: usize = 32;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigForm {
    #[serde(default)]
    start: u64,
    tokens: Vec<TokenForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenForm {
    contract: String,
    symbol: String,
    decimals: u8,
    /// Balances that no event tells of, smallest units as decimal text: some tokens give their whole supply at their creation without one.
    #[serde(default)]
    initial: Vec<(String, String)>,
    /// Whether balances count in the node's ledger.
    #[serde(default)]
    ledger: bool,
}

/// The configuration, checked.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) start: u64,
    pub(crate) tokens: Vec<Token>,
}

/// A token.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) contract: [u8; 20],
    pub(crate) symbol: String,
    pub(crate) decimals: u8,
    pub(crate) initial: Vec<([u8; 20], U256)>,
    pub(crate) ledger: bool,
}

impl Config {
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let form: ConfigForm = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if form.tokens.is_empty() || form.tokens.len() > MAX_TOKENS {
            return Err(format!("{} tokens; 1 to {MAX_TOKENS} are possible", form.tokens.len()));
        }
        let tokens: Vec<Token> = form.tokens.into_iter().map(Token::read).collect::<Result<_, _>>()?;
        let mut contracts: Vec<[u8; 20]> = tokens.iter().map(|token| token.contract).collect();
        contracts.sort_unstable();
        if contracts.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("a token is named twice".to_owned());
        }
        Ok(Self { start: form.start, tokens })
    }

    pub(crate) fn token(&self, contract: &[u8; 20]) -> Option<&Token> {
        self.tokens.iter().find(|token| token.contract == *contract)
    }
}

impl Token {
    fn read(form: TokenForm) -> Result<Self, String> {
        let address = |text: &str| bytes_of_hex(text).ok_or_else(|| format!("{text:?} is no address of 20 bytes"));
        let amount =
            |text: &str| U256::from_str_radix(text, 10).map_err(|_| format!("{text:?} is no whole number of 256 bits"));
        if form.decimals > MAX_DECIMALS {
            return Err(format!("{} decimals are more than {MAX_DECIMALS}", form.decimals));
        }
        if form.symbol.is_empty() || form.symbol.len() > MAX_SYMBOL_BYTES {
            return Err(format!("the symbol {:?} does not have 1 to {MAX_SYMBOL_BYTES} bytes", form.symbol));
        }
        let initial = form.initial.iter().map(|(holder, units)| Ok((address(holder)?, amount(units)?)));
        let initial: Vec<([u8; 20], U256)> = initial.collect::<Result<_, String>>()?;
        let sum = initial.iter().try_fold(U256::ZERO, |sum, (_, units)| sum.checked_add(*units));
        sum.ok_or("the initial balances do not fit into 256 bits")?;
        Ok(Self {
            contract: address(&form.contract)?,
            symbol: form.symbol,
            decimals: form.decimals,
            initial,
            ledger: form.ledger,
        })
    }
}
