//! Chains: whose signature scheme a message was signed with (messages spec section 4).

use std::{fmt, str::FromStr};

/// A chain that the network knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Chain(&'static str, Family);

/// Chains that sign alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// EIP-191 over secp256k1.
    Evm,
    /// Ed25519 over the text itself.
    Ed25519,
    /// Avalanche's own recoverable signatures.
    Avalanche,
    /// Cosmos' amino text messages.
    Cosmos,
    /// Sr25519.
    Substrate,
    /// Tezos: three curves.
    Tezos,
    /// NULS, first version.
    Nuls,
    /// NULS, second version.
    Nuls2,
    /// A name without a verifier: its messages are of invalid format (code 0).
    Unverifiable,
}

/// Every chain, by its exact name.
const CHAINS: &[Chain] = &[
    Chain("ARB", Family::Evm),
    Chain("AURORA", Family::Unverifiable),
    Chain("AVAX", Family::Avalanche),
    Chain("BASE", Family::Evm),
    Chain("BLAST", Family::Evm),
    Chain("BOB", Family::Evm),
    Chain("BSC", Family::Evm),
    Chain("CSDK", Family::Cosmos),
    Chain("CYBER", Family::Evm),
    Chain("DOT", Family::Substrate),
    Chain("ES", Family::Ed25519),
    Chain("ETH", Family::Evm),
    Chain("ETHERLINK", Family::Evm),
    Chain("FRAX", Family::Evm),
    Chain("HYPE", Family::Evm),
    Chain("INK", Family::Evm),
    Chain("LENS", Family::Evm),
    Chain("LINEA", Family::Evm),
    Chain("LISK", Family::Evm),
    Chain("METIS", Family::Evm),
    Chain("MODE", Family::Evm),
    Chain("NEO", Family::Evm),
    Chain("NULS", Family::Nuls),
    Chain("NULS2", Family::Nuls2),
    Chain("OP", Family::Evm),
    Chain("POL", Family::Evm),
    Chain("SOL", Family::Ed25519),
    Chain("SONIC", Family::Evm),
    Chain("STT", Family::Unverifiable),
    Chain("TEZOS", Family::Tezos),
    Chain("UNICHAIN", Family::Evm),
    Chain("WLD", Family::Evm),
    Chain("ZORA", Family::Evm),
];

/// A name that no chain has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a chain of this network")]
pub struct UnknownChain(String);

impl Chain {
    /// Ethereum, where most wallets are.
    pub const ETH: Self = Self("ETH", Family::Evm);
    /// Solana.
    pub const SOL: Self = Self("SOL", Family::Ed25519);
    /// Tezos.
    pub const TEZOS: Self = Self("TEZOS", Family::Tezos);

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0
    }

    /// How it signs.
    #[must_use]
    pub fn family(self) -> Family {
        self.1
    }
}

impl FromStr for Chain {
    type Err = UnknownChain;
    fn from_str(text: &str) -> Result<Self, UnknownChain> {
        CHAINS
            .iter()
            .find(|chain| chain.0 == text)
            .copied()
            .ok_or_else(|| UnknownChain(text.chars().take(32).collect()))
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact() {
        assert_eq!("ETH".parse(), Ok(Chain::ETH));
        assert_eq!("SOL".parse(), Ok(Chain::SOL));
        assert!("eth".parse::<Chain>().is_err());
        assert!("".parse::<Chain>().is_err());
        assert_eq!("AURORA".parse::<Chain>().map(Chain::family), Ok(Family::Unverifiable));
        assert!(CHAINS.is_sorted_by_key(|chain| chain.0));
        assert_eq!(CHAINS.len(), 33);
    }
}
