//! How a message is paid.

use crate::json::{FormatError, Value};

/// The three ways of paying.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PaymentType {
    /// By holding tokens.
    Hold,
    /// By a stream of tokens.
    Superfluid,
    /// By credits.
    Credit,
}

impl PaymentType {
    /// Every way with its word.
    pub const WORDS: [(&'static str, Self); 3] =
        [("hold", Self::Hold), ("superfluid", Self::Superfluid), ("credit", Self::Credit)];

    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Superfluid => "superfluid",
            Self::Credit => "credit",
        }
    }
}

/// A payment object: open, so that what nodes do not read may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// How.
    pub kind: PaymentType,
    /// On which chain, if it was said.
    pub chain: Option<String>,
    /// To whom, for streams.
    pub receiver: Option<String>,
}

impl Payment {
    /// Reads a payment of one of the allowed ways.
    ///
    /// # Errors
    /// Another value.
    pub fn read(value: Value<'_>, allowed: &[(&str, PaymentType)]) -> Result<Self, FormatError> {
        let mut object = value.object()?;
        let kind = object.required("type", |value| value.one_of(allowed))?;
        let chain = object.optional("chain", |value| {
            let name = value.string()?;
            let chain: Result<crate::Chain, _> = name.parse();
            chain.map(|chain| chain.name().to_owned()).map_err(|error| FormatError::new("", error.to_string()))
        })?;
        let receiver = object.optional("receiver", Value::string)?;
        Ok(Self { kind, chain, receiver })
    }
}
