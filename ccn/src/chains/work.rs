//! What blocks have told and is still to be done, a few rows at a time.

use super::{
    archive::{self, Done, WorkError},
    commit::{Draft, Source},
    record::{self, Task, WorkRecord},
};
use crate::{
    chains::Tools,
    pipeline::EngineError,
    store::{
        Reader as _, Row, StoreError,
        record::Record as _,
        schema::{Table, end_of},
    },
};
use std::sync::Arc;

/// Rows that are looked at between two looks at the chain.
const ROWS_A_LOOK: usize = 32;

/// Goes round the open work.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Where the next look begins; empty: at the beginning.
    from: Vec<u8>,
}

/// What a look came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// Work that was done.
    pub(super) done: usize,
    /// Work that has to wait.
    pub(super) open: usize,
}

impl Round {
    /// Looks at some of the open work and does what can be done. Blocks below `settled` are final.
    pub(super) async fn look(&mut self, tools: &Tools, source: &Arc<Source>, settled: u64) -> Result<Look, WorkError> {
        let rows = self.rows(tools, source).map_err(EngineError::from)?;
        let mut look = Look { done: 0, open: 0 };
        for (key, row) in rows {
            let Some(height) = record::height_of(&source.prefix, &key) else { continue };
            let work = WorkRecord::read(&row).map_err(StoreError::from).map_err(EngineError::from)?;
            // A message without a signature must not stand on what may be taken back.
            let is_early = matches!(work.task, Task::Vouched { .. }) && height >= settled;
            let done = if is_early { Done::Lacking } else { archive::work(tools, source, height, &work).await? };
            let confirmed = match done {
                Done::Confirmed(messages) => messages,
                Done::Lacking => {
                    look.open += 1;
                    continue;
                }
                Done::Nothing(reason) => {
                    let transaction = hex::encode(work.transaction);
                    tracing::warn!("{}: 0x{transaction} tells of nothing that counts: {reason}", source.chain);
                    Vec::new()
                }
            };
            let (store, of) = (tools.store.clone(), source.clone());
            let finish = move || {
                let mut draft = Draft::new(&of, store.snapshot()?);
                draft.finish(key, &work, &confirmed)?;
                Ok::<_, StoreError>(draft.done())
            };
            let finished = tokio::task::spawn_blocking(finish).await;
            let changes = finished.map_err(|error| EngineError::Plugin(error.to_string()))?;
            tools.pipeline.keep_of_chain(changes.map_err(EngineError::from)?).await?;
            look.done += 1;
        }
        Ok(look)
    }

    /// The next rows; after the last ones come the first again.
    fn rows(&mut self, tools: &Tools, source: &Source) -> Result<Vec<Row>, StoreError> {
        let snapshot = tools.store.snapshot()?;
        let (start, end) = (source.block_key(0), end_of(&source.prefix));
        let from = if self.from.is_empty() { &start } else { &self.from };
        let rows = snapshot.range(Table::ChainWork, from, &end, ROWS_A_LOOK, false)?;
        self.from = match rows.last() {
            Some((last, _)) if rows.len() == ROWS_A_LOOK => [last.as_slice(), &[0]].concat(),
            _ => Vec::new(),
        };
        Ok(rows)
    }
}
