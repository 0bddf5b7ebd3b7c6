//! What those who follow chains bring.

use super::{EngineError, Pipeline, Receipt, SubmitError, stage};
use crate::store::Changes;

impl Pipeline {
    /// Keeps what a chain has told, all of it or nothing: durable once this answers. Only rows that are those of chains alone may be changed so.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub(crate) async fn keep_of_chain(&self, changes: Changes) -> Result<(), EngineError> {
        self.keep_rows(changes).await
    }

    /// Takes a message in for whose sender a contract vouches: it is like any other but for the signature, which it has not.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub(crate) async fn submit_vouched(&self, envelope_json: String) -> Result<Receipt, SubmitError> {
        self.take_in(envelope_json, stage::vouched).await
    }
}
