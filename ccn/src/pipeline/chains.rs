//! What those who follow chains bring.

use super::{EngineError, Input, NoPlace, Pipeline, Receipt, Received, SubmitError, stage};
use crate::store::Changes;
use tokio::sync::oneshot;

impl Pipeline {
    /// Keeps what a chain has told, all of it or nothing: durable once this answers. Only rows that are those of chains alone may be changed so.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub(crate) async fn keep_of_chain(&self, changes: Changes) -> Result<(), EngineError> {
        self.done(|reply| Input::Chain { changes, reply }).await
    }

    /// Takes a message in for whose sender a contract vouches: it is like any other but for the signature, which it has not.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub(crate) async fn submit_vouched(&self, envelope_json: String) -> Result<Receipt, SubmitError> {
        let _place = self.place().map_err(|refusal| match refusal {
            NoPlace::Full => SubmitError::Overloaded,
            NoPlace::Stopped => EngineError::Stopped.into(),
        })?;
        let shared = self.shared.clone();
        let received = self.on_worker(move || shared.receive_by(&envelope_json, stage::vouched)).await??;
        let prepared = match received {
            Received::Known(receipt) => return Ok(receipt),
            Received::New(prepared) => prepared,
        };
        let (reply, receipt) = oneshot::channel();
        self.send(Input::Message { prepared, reply }).await?;
        receipt.await.map_err(|_| EngineError::Stopped)?
    }
}
