//! One who follows one chain for one indexer: asks, has decoded, keeps, and begins again where it was, however it ended.

use super::{
    Tools,
    archive::WorkError,
    check::Wanted,
    commit::{Block, Draft, MAX_ROWS, Source},
    endpoint::EndpointError,
    fork::ForkSearch,
    plan::{self, Pauses, Step},
    provider::{Header, Provider},
    record::{self, BlockRecord, ProgressRecord},
    span::Span,
    status::{Board, FollowerState},
    work::Round,
};
use crate::{
    config,
    host::{FailureClass, HostError, Indexer, IndexerError, IndexerSubscription},
    pipeline::EngineError,
    store::{
        Changes, Reader as _, Snapshot, StoreError, confirmation,
        record::Record as _,
        schema::{Table, end_of, split_text},
    },
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// Pause after the first failure.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Blocks that are asked for at once, for their times.
const HEADERS_AT_ONCE: usize = 8;
/// Rows that are deleted in one commit where other settings begin anew.
const CLEARED_AT_ONCE: usize = 5_000;

/// One who follows a chain.
#[derive(Debug)]
pub(super) struct Follower {
    source: Arc<Source>,
    wanted: Wanted,
    start: u64,
    identity: [u8; 32],
    depth: Option<u64>,
    poll: Duration,
    span: Span,
    provider: Arc<Provider>,
    tools: Tools,
    board: Arc<Board>,
    round: Round,
}

/// Why it does not get on.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the provider: {0}")]
    Provider(#[from] EndpointError),
    #[error(transparent)]
    Indexer(#[from] IndexerError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Work(#[from] WorkError),
    /// The provider takes back what was final.
    #[error("the provider has another block at the height {0}, which was final")]
    Contradiction(u64),
    /// The chain changes while it is looked at.
    #[error("the block {0} does not follow the one before it: the chain is changing")]
    Changing(u64),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Engine(error.into())
    }
}

impl Trouble {
    /// True when another attempt would end like this one.
    fn is_final(&self) -> bool {
        let indexer = |error: &IndexerError| match error {
            IndexerError::Says { .. } => true,
            IndexerError::Host(error) => {
                error.class() != FailureClass::Node || matches!(error, HostError::Suspended { .. })
            }
        };
        match self {
            Self::Indexer(error) | Self::Work(WorkError::Indexer(error)) => indexer(error),
            Self::Contradiction(_) => true,
            Self::Provider(_) | Self::Engine(_) | Self::Work(_) | Self::Changing(_) => false,
        }
    }

    /// How long the provider wants to be left alone.
    fn asked_pause(&self) -> Option<Duration> {
        match self {
            Self::Provider(EndpointError::Busy { after, .. }) => *after,
            _ => None,
        }
    }

    fn is_the_end(&self) -> bool {
        matches!(self, Self::Engine(EngineError::Stopped) | Self::Work(WorkError::Engine(EngineError::Stopped)))
    }
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moved {
    /// There is more to do.
    On,
    /// Nothing is new.
    Idle,
}

impl Follower {
    pub(super) fn new(
        chain: &config::Chain,
        indexer: Arc<Indexer>,
        config: String,
        subscription: IndexerSubscription,
        provider: Arc<Provider>,
        tools: Tools,
        board: Arc<Board>,
    ) -> Self {
        let start = chain.start.max(subscription.start);
        let prefix = record::prefix(&chain.name, &indexer.manifest().name);
        let version = indexer.manifest().state_version();
        let identity = Sha256::new()
            .chain_update(version.to_be_bytes())
            .chain_update(start.to_be_bytes())
            .chain_update(&config)
            .finalize();
        Self {
            source: Arc::new(Source { chain: chain.name.clone(), indexer, config, prefix }),
            wanted: subscription.into(),
            start,
            identity: identity.into(),
            depth: chain.finality,
            poll: Duration::from_secs_f64(chain.poll_seconds),
            span: Span::new(chain.batch),
            provider,
            tools,
            board,
            round: Round::default(),
        }
    }

    /// Follows until it is told to stop. Whatever is cut off was not kept, or was kept as a whole.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let (chain, name) = (self.source.chain.clone(), self.source.name().to_owned());
        tracing::info!("chain {chain} is followed for the indexer {name} from the block {}", self.start);
        let mut pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            let step = tokio::select! {
                () = stop.cancelled() => return,
                step = self.step() => step,
            };
            let pause = match step {
                Ok(moved) => {
                    pauses.reset();
                    let state = if moved == Moved::On { FollowerState::Following } else { FollowerState::Current };
                    if self.board.recover(state) {
                        tracing::info!("chain {chain} is followed again for {name}");
                    }
                    if moved == Moved::On {
                        continue;
                    }
                    self.poll
                }
                Err(trouble) if trouble.is_the_end() => return,
                Err(trouble) if trouble.is_final() => {
                    let sentence = trouble.to_string();
                    tracing::error!("chain {chain} is not followed any further for {name}: {sentence}");
                    self.board.fail(FollowerState::Stopped, &sentence);
                    return;
                }
                Err(trouble) => {
                    let pause = pauses.next(trouble.asked_pause());
                    if self.board.fail(FollowerState::Retrying, &trouble.to_string()) {
                        tracing::warn!("chain {chain} for {name}: {trouble}; another attempt in {pause:?}");
                    }
                    pause
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One step: looks whether what is remembered still stands, does what blocks have told, and follows some more.
    async fn step(&mut self) -> Result<Moved, Trouble> {
        let Some(mut progress) = self.progress().await? else { return Ok(Moved::On) };
        let head = self.provider.head().await?;
        let finalized = match self.depth {
            Some(_) => None,
            None => self.provider.finalized().await?.map(|header| header.height),
        };
        self.board.write(|status| status.target = Some(head.height));
        let settled = plan::settled(progress.settled, head.height, finalized, self.depth);
        if let Some(moved) = self.look_back(&progress, &head).await? {
            return Ok(moved);
        }
        self.settle(&mut progress, settled).await?;
        self.show(&progress);
        let look = self.round.look(&self.tools, &self.source, progress.settled).await?;
        self.board.write(|status| status.open = look.open as u64);
        let moved = match plan::step(progress.next, settled, head.height, self.span.width()) {
            Step::Range { from, to } => self.follow_range(progress, from, to).await?,
            Step::Blocks { from, to } => self.follow_blocks(progress, from, to).await?,
            Step::Wait => Moved::Idle,
        };
        Ok(if look.done > 0 { Moved::On } else { moved })
    }

    fn show(&self, progress: &ProgressRecord) {
        let (start, width) = (self.start, self.span.width());
        self.board.write(|status| {
            status.height = progress.next.checked_sub(1).filter(|_| progress.next > start);
            let below = progress.settled.min(progress.next);
            status.final_height = below.checked_sub(1).filter(|_| below > start);
            status.batch = width;
        });
    }

    /// How far it has come; none while what other settings have left is being deleted.
    async fn progress(&self) -> Result<Option<ProgressRecord>, Trouble> {
        let row = self.tools.store.snapshot()?.get(Table::ChainProgress, &self.source.prefix)?;
        let known = row.map(|row| ProgressRecord::read(&row)).transpose().map_err(StoreError::from)?;
        let (identity, next) = (self.identity, self.start);
        let begun = |clearing| ProgressRecord { identity, clearing, next, settled: 0, anchor: None };
        match known {
            Some(progress) if progress.identity == identity && !progress.clearing => Ok(Some(progress)),
            Some(progress) if progress.identity == identity => {
                self.board.write(|status| status.state = FollowerState::Clearing);
                self.clear().await?;
                self.keep_progress(&begun(false)).await?;
                Ok(None)
            }
            Some(_) => {
                let (chain, name) = (&self.source.chain, self.source.name());
                tracing::warn!(
                    "chain {chain} is followed anew for {name}: its settings, or the version of its state, are others"
                );
                self.keep_progress(&begun(true)).await?;
                Ok(None)
            }
            None => {
                self.keep_progress(&begun(false)).await?;
                Ok(None)
            }
        }
    }

    async fn keep_progress(&self, progress: &ProgressRecord) -> Result<(), Trouble> {
        let row = ((Table::ChainProgress, self.source.prefix.clone()), Some(progress.to_bytes()));
        Ok(self.tools.pipeline.keep_of_chain(Changes::from([row])).await?)
    }

    /// Deletes everything that was written for this chain and indexer, in steps: whatever is cut off goes on at the next start.
    async fn clear(&self) -> Result<(), Trouble> {
        let (chain, name) = (self.source.chain.as_str(), self.source.name());
        let of_state = self.source.indexer.state_of(chain);
        let all = |_: &[u8]| true;
        self.clear_table(Table::ChainState, &of_state, all).await?;
        self.clear_table(Table::ChainBlocks, &self.source.prefix, all).await?;
        self.clear_table(Table::ChainWork, &self.source.prefix, all).await?;
        self.clear_table(Table::Confirmations, &[], |key| confirmation::source_of(key) == Some((chain, name))).await?;
        let is_ours = |key: &[u8]| {
            let of = split_text(key).and_then(|(_, rest)| split_text(rest));
            of.is_some_and(|(of, _)| of == chain)
        };
        if self.source.indexer.publishes_balances() {
            self.clear_table(Table::ChainBalances, &[], is_ours).await?;
        }
        Ok(())
    }

    async fn clear_table(&self, table: Table, prefix: &[u8], goes: impl Fn(&[u8]) -> bool) -> Result<(), Trouble> {
        let (mut from, end) = (prefix.to_vec(), end_of(prefix));
        loop {
            let rows = self.tools.store.snapshot()?.range(table, &from, &end, CLEARED_AT_ONCE, false)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            from = [last.as_slice(), &[0]].concat();
            let gone = rows.into_iter().filter(|(key, _)| goes(key));
            let changes: Changes = gone.map(|(key, _)| ((table, key), None)).collect();
            if !changes.is_empty() {
                self.tools.pipeline.keep_of_chain(changes).await?;
            }
        }
    }

    /// The remembered hashes of blocks that may yet be taken back, by height: what is looked at when they are held against the chain.
    fn remembered(&self, snapshot: &Snapshot) -> Result<BTreeMap<u64, [u8; 32]>, StoreError> {
        let mut remembered = BTreeMap::new();
        for (key, row) in snapshot.prefixed(Table::ChainBlocks, &self.source.prefix)? {
            if let Some(height) = record::height_of(&self.source.prefix, &key) {
                remembered.insert(height, BlockRecord::read(&row)?.hash);
            }
        }
        Ok(remembered)
    }

    /// The last of those blocks.
    fn last_remembered(&self) -> Result<Option<(u64, [u8; 32])>, StoreError> {
        let (start, end) = (&self.source.prefix, end_of(&self.source.prefix));
        let rows = self.tools.store.snapshot()?.range(Table::ChainBlocks, start, &end, 1, true)?;
        let Some((key, row)) = rows.first() else { return Ok(None) };
        let height = record::height_of(&self.source.prefix, key);
        Ok(height.zip(Some(BlockRecord::read(row)?.hash)))
    }

    /// Holds what is remembered against the chain. None when it stands; otherwise what was done about it.
    async fn look_back(&mut self, progress: &ProgressRecord, head: &Header) -> Result<Option<Moved>, Trouble> {
        let Some((height, hash)) = self.last_remembered()? else { return Ok(None) };
        if head.height >= height {
            match self.stands(height, &hash).await? {
                Some(true) => return Ok(None),
                Some(false) => {}
                None => return Ok(Some(Moved::Idle)),
            }
        }
        let remembered = self.remembered(&self.tools.store.snapshot()?)?;
        // A provider that is behind has no opinion about what it does not have.
        let known = remembered.range(..=head.height.min(height)).next_back().map(|(height, hash)| (*height, *hash));
        let lowest = remembered.first_key_value().map_or(height, |(height, _)| *height);
        let Some((top, top_hash)) = known else { return self.is_behind(lowest, progress).await };
        if top < height && self.stands(top, &top_hash).await? != Some(false) {
            return Ok(Some(Moved::Idle));
        }
        let mut search = ForkSearch::new(lowest, top);
        while let Some(height) = search.question() {
            let stands = match remembered.get(&height) {
                Some(hash) => self.stands(height, hash).await?,
                None => Some(false),
            };
            let Some(stands) = stands else { return Ok(Some(Moved::Idle)) };
            search.answer(height, stands);
        }
        let gone = search.gone_from();
        if gone == lowest {
            self.check_anchor(progress).await?;
        }
        self.take_back(progress, gone).await?;
        Ok(Some(Moved::On))
    }

    /// The provider has none of the blocks that are remembered.
    async fn is_behind(&self, lowest: u64, progress: &ProgressRecord) -> Result<Option<Moved>, Trouble> {
        tracing::debug!("the provider of {} has not even the block {lowest}", self.source.chain);
        self.check_anchor(progress).await?;
        Ok(Some(Moved::Idle))
    }

    /// Whether a block is still that of its height. None: the provider has none there; who answers may be another machine than a moment ago, and
    /// behind.
    async fn stands(&self, height: u64, hash: &[u8; 32]) -> Result<Option<bool>, Trouble> {
        Ok(self.provider.header(height).await?.map(|header| header.hash.0 == *hash))
    }

    /// What was final has to be there as it was, if the provider has that height at all.
    async fn check_anchor(&self, progress: &ProgressRecord) -> Result<(), Trouble> {
        let Some((height, hash)) = progress.anchor else { return Ok(()) };
        match self.provider.header(height).await? {
            Some(header) if header.hash.0 != hash => Err(Trouble::Contradiction(height)),
            _ => Ok(()),
        }
    }

    /// Takes blocks back, from the newest on: cut off in between, it goes on.
    async fn take_back(&self, progress: &ProgressRecord, gone: u64) -> Result<(), Trouble> {
        let chain = &self.source.chain;
        tracing::warn!("chain {chain}: the blocks {gone} to {} are taken back", progress.next.saturating_sub(1));
        self.board.write(|status| status.reorganisations += 1);
        let mut progress = progress.clone();
        loop {
            let mut draft = Draft::new(&self.source, self.tools.store.snapshot()?);
            let Some(lowest) = draft.take_back(gone)? else { return Ok(()) };
            progress.next = lowest;
            self.tools.pipeline.keep_of_chain(draft.with(&progress)).await?;
        }
    }

    /// Blocks below this height are final from now on.
    async fn settle(&self, progress: &mut ProgressRecord, settled: u64) -> Result<(), Trouble> {
        // What is not followed yet is not settled by that.
        let settled = settled.min(progress.next);
        if settled <= progress.settled {
            return Ok(());
        }
        let mut draft = Draft::new(&self.source, self.tools.store.snapshot()?);
        if let Some(last) = draft.settle(settled)? {
            progress.anchor = Some(last);
        }
        progress.settled = settled;
        Ok(self.tools.pipeline.keep_of_chain(draft.with(progress)).await?)
    }

    /// Follows blocks that are final.
    async fn follow_range(&mut self, progress: ProgressRecord, from: u64, to: u64) -> Result<Moved, Trouble> {
        let events = match self.provider.events(&self.wanted, from, to).await {
            Ok(events) => events,
            Err(EndpointError::TooMuch(reason)) if self.span.shrink(to - from + 1) => {
                let width = self.span.width();
                tracing::info!("chain {}: {width} blocks are asked for at once: {reason}", self.source.chain);
                return Ok(Moved::On);
            }
            Err(error) => return Err(error.into()),
        };
        let Some(last) = self.provider.header(to).await? else {
            return Err(EndpointError::Nonsense(format!("it does not have the final block {to}")).into());
        };
        let mut of_block: BTreeMap<u64, Block> = BTreeMap::new();
        let mut lacking = Vec::new();
        for event in events {
            let height = event.height;
            let block = of_block.entry(height).or_insert_with(|| {
                let header = match event.time {
                    // The parent is not asked for: what is final is followed by height.
                    Some(time) if height != to => Header { height, hash: event.block, parent: event.block, time },
                    _ if height == to => last,
                    _ => {
                        lacking.push(height);
                        Header { height, hash: event.block, parent: event.block, time: 0 }
                    }
                };
                Block { header, events: Vec::new() }
            });
            block.events.push(event);
        }
        for header in self.headers(&lacking).await? {
            if let Some(block) = of_block.get_mut(&header.height) {
                block.header = header;
            }
        }
        let strays = |block: &&Block| block.events.iter().any(|event| event.block != block.header.hash);
        if let Some(block) = of_block.values().find(strays) {
            return Err(Trouble::Changing(block.header.height));
        }
        self.span.grow();
        self.keep(progress, of_block.into_values().collect(), Some((to, last.hash.0)), true).await?;
        Ok(Moved::On)
    }

    async fn headers(&self, heights: &[u64]) -> Result<Vec<Header>, Trouble> {
        let ask = |height: u64| async move {
            let header = self.provider.header(height).await?;
            header.ok_or_else(|| EndpointError::Nonsense(format!("it does not have the final block {height}")))
        };
        let asked = stream::iter(heights.to_vec()).map(ask).buffered(HEADERS_AT_ONCE);
        Ok(asked.try_collect().await?)
    }

    /// Follows blocks that may yet be taken back: each has to follow the one before.
    async fn follow_blocks(&mut self, progress: ProgressRecord, from: u64, to: u64) -> Result<Moved, Trouble> {
        let remembered = self.last_remembered()?;
        let mut before = match remembered {
            Some((height, hash)) if height + 1 == from => Some(hash),
            _ => progress.anchor.filter(|(height, _)| height + 1 == from).map(|(_, hash)| hash),
        };
        let is_on_anchor = remembered.is_none() && before.is_some();
        let mut blocks = Vec::new();
        for height in from..=to {
            let Some(header) = self.provider.header(height).await? else { break };
            if before.is_some_and(|before| before != header.parent.0) {
                if is_on_anchor && height == from {
                    self.check_anchor(&progress).await?;
                }
                return Err(Trouble::Changing(height));
            }
            let events = self.provider.events_of(&self.wanted, &header).await?;
            before = Some(header.hash.0);
            blocks.push(Block { header, events });
        }
        if blocks.is_empty() {
            return Ok(Moved::Idle);
        }
        self.keep(progress, blocks, None, false).await?;
        Ok(Moved::On)
    }

    /// Has blocks decoded and keeps what they mean, in as many commits as it takes; `end` is the last block of a range that is followed with them.
    async fn keep(
        &self,
        mut progress: ProgressRecord,
        blocks: Vec<Block>,
        end: Option<(u64, [u8; 32])>,
        is_final: bool,
    ) -> Result<(), Trouble> {
        let events: usize = blocks.iter().map(|block| block.events.len()).sum();
        let mut blocks = blocks;
        loop {
            let (store, source) = (self.tools.store.clone(), self.source.clone());
            let work = move || {
                let mut draft = Draft::new(&source, store.snapshot()?);
                let mut rest = blocks.into_iter();
                let mut last = None;
                while draft.rows() < MAX_ROWS {
                    let Some(block) = rest.next() else { break };
                    draft.add(&block, is_final)?;
                    last = Some((block.header.height, block.header.hash.0));
                }
                let rest: Vec<Block> = rest.collect();
                let end = if rest.is_empty() { end.or(last) } else { last };
                if let Some((height, hash)) = end {
                    progress.next = height + 1;
                    if is_final {
                        (progress.settled, progress.anchor) = (progress.next, Some((height, hash)));
                    }
                }
                Ok::<_, Trouble>((draft.with(&progress), progress, rest))
            };
            let worked = tokio::task::spawn_blocking(work).await;
            let (changes, made, rest) = worked.map_err(|error| EngineError::Plugin(error.to_string()))??;
            self.tools.pipeline.keep_of_chain(changes).await?;
            (progress, blocks) = (made, rest);
            if blocks.is_empty() {
                self.board.write(|status| status.events += events as u64);
                self.show(&progress);
                return Ok(());
            }
        }
    }
}
