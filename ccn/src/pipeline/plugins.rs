//! What the keeper of plugins and the operator ask of the one who decides.

use super::{EngineError, Input, Pipeline, Receipt, SubmitError, stage};
use crate::store::{
    Changes, Reader as _, StoreError,
    record::{QuarantineRecord, Record as _},
    schema::{Table, hash_key},
};
use ccn_message::ItemHash;
use tokio::sync::oneshot;

impl Pipeline {
    /// A plugin for this message type is active: whoever waited for one is decided, after and among what comes anew.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn handler_arrived(&self, kind: &str) -> Result<(), EngineError> {
        let kind = kind.to_owned();
        self.done(|reply| Input::Handler { kind, reply }).await
    }

    /// Writes down something about plugins; none deletes it.
    pub(crate) async fn note(&self, table: Table, key: Vec<u8>, value: Option<Vec<u8>>) -> Result<(), EngineError> {
        self.keep_rows(Changes::from([((table, key), value)])).await
    }

    /// Deletes keys of the state of a namespace that has no plugin.
    pub(crate) async fn drop_state(&self, namespace: String, keys: Vec<Vec<u8>>) -> Result<(), EngineError> {
        self.done(|reply| Input::DropState { namespace, keys, reply }).await
    }

    /// Keeps rows, all of them or none: durable once this answers.
    pub(crate) async fn keep_rows(&self, changes: Changes) -> Result<(), EngineError> {
        self.done(|reply| Input::Rows { changes, reply }).await
    }

    /// Has something done, and waits until that is durable.
    pub(super) async fn done(
        &self,
        input: impl FnOnce(oneshot::Sender<Result<(), EngineError>>) -> Input,
    ) -> Result<(), EngineError> {
        let (reply, done) = oneshot::channel();
        self.send(input(reply)).await?;
        done.await.map_err(|_| EngineError::Stopped)?
    }

    /// Decides a message anew that was put aside because its plugin failed. None when it is not there.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub async fn retry(&self, hash: &ItemHash) -> Result<Option<Receipt>, SubmitError> {
        let row = || {
            let row = self.shared.store.snapshot()?.get(Table::Quarantine, &hash_key(hash))?;
            let record = row.map(|row| QuarantineRecord::read(&row)).transpose()?;
            Ok::<_, StoreError>(record.map(|record| record.envelope.envelope()).transpose()?)
        };
        let Some(envelope) = row().map_err(EngineError::from)? else { return Ok(None) };
        self.note(Table::Quarantine, hash_key(hash), None).await?;
        let shared = self.shared.clone();
        // Its signature was checked when it came.
        let signed = stage::SignedMessage::known(envelope);
        let prepared = self.on_worker(move || stage::prepare(signed, Some(&shared.files), &shared.plugins)).await?;
        let prepared = Box::new(prepared.map_err(|error| EngineError::Store(error.to_string()))?);
        self.decided(prepared).await.map(Some)
    }
}
