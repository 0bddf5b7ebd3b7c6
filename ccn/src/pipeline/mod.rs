//! From bytes to a verdict.

use crate::{
    events::Events,
    store::{
        StoreError,
        record::{CostLineRecord, PaymentRecord, RejectionRecord},
    },
};
use ccn_message::{FormatError, ItemHash, MessageStatus};

pub use crate::store::record::FileKind;

/// The way in. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Pipeline {
    events: Events,
}

/// What became of a message, as of a moment that is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Its hash.
    pub item_hash: ItemHash,
    /// Its status. A refused copy of a message that stands is `Rejected` here, and the message keeps its own status.
    pub status: MessageStatus,
    /// Why it was refused.
    pub rejection: Option<RejectionRecord>,
}

/// Why a message was not taken in. It has left nothing behind.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// It is no message (code 0). The sender's fault.
    #[error("{error}")]
    Format {
        /// Its hash, as far as it could be read.
        item_hash: Option<ItemHash>,
        /// What is wrong.
        error: FormatError,
    },
    /// Too much is going on: try again later.
    #[error("too many messages are on their way to the store; send it again in a few seconds")]
    Overloaded,
    /// The node failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// What the node itself gets wrong.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store failed. The operator's to solve; nothing was changed.
    #[error("{0}")]
    Store(String),
    /// The file that was announced is not in the folder.
    #[error("file {0} is not in the folder of files")]
    NoSuchFile(ItemHash),
    /// The node stops.
    #[error("the node stops")]
    Stopped,
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

/// A message that is asked about and was never signed.
#[derive(Debug, Clone, PartialEq)]
pub struct PriceRequest {
    /// Message type.
    pub kind: String,
    /// Who would sign.
    pub sender: String,
    /// Chain.
    pub chain: String,
    /// Channel.
    pub channel: Option<String>,
    /// Envelope's time, seconds since 1970.
    pub time: f64,
    /// The content's JSON.
    pub content: String,
}

/// What a message would cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Costs {
    /// Who would pay.
    pub address: String,
    /// How.
    pub payment: PaymentRecord,
    /// Rows.
    pub lines: Vec<CostLineRecord>,
    /// False when the message would pass whatever its owner's funds.
    pub enforced: bool,
}

/// Why there is no price.
#[derive(Debug, thiserror::Error)]
pub enum PriceError {
    /// It is no message. The client's fault.
    #[error("{0}")]
    Format(FormatError),
    /// The rules refuse it.
    #[error("refused with code {code}: {}", errors.join(", "))]
    Rejected {
        /// The public code.
        code: i32,
        /// JSON values as text.
        errors: Vec<String>,
    },
    /// Too much is going on: try again later.
    #[error("too many questions at once; ask again in a few seconds")]
    Overloaded,
    /// The plugin failed.
    #[error("{0}")]
    Plugin(String),
    /// The node failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Pipeline {
    /// Takes a message in. Answers once the verdict, or the fact that it waits, is durable.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub async fn submit(&self, envelope_json: String) -> Result<Receipt, SubmitError> {
        let _ = envelope_json;
        Err(EngineError::Stopped.into())
    }

    /// A file lies in the folder: records it, keeps it for a while even if nothing refers to it, and wakes what waits for it.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn add_file(&self, hash: ItemHash, size: u64, kind: FileKind) -> Result<(), EngineError> {
        let _ = (hash, size, kind);
        Err(EngineError::Stopped)
    }

    /// What a message would cost; nothing is verified. None when messages of its type have no price.
    ///
    /// # Errors
    /// See [`PriceError`].
    pub async fn price(&self, message: PriceRequest) -> Result<Option<Costs>, PriceError> {
        let _ = message;
        Err(EngineError::Stopped.into())
    }

    /// What happens.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.events
    }
}
