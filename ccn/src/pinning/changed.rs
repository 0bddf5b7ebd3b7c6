//! Files of IPFS that a commit has changed, told to the one who pins.

use crate::store::{
    Changes,
    schema::{CID_MARKS, Table, split_hash},
};
use ccn_message::ItemHash;
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::Notify;

/// Files that are remembered until they are looked at; of more it is remembered that they were more.
const MAX_CHANGED: usize = 10_000;

/// Where they are told. Nothing is remembered before somebody listens. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChangedFiles(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    is_heard: AtomicBool,
    news: Mutex<News>,
    come: Notify,
}

/// What has changed since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) files: BTreeSet<ItemHash>,
    /// There were more: everything is to be looked at.
    pub(crate) more: bool,
}

impl ChangedFiles {
    /// Tells of what was committed.
    pub(crate) fn tell(&self, changes: &Changes) {
        if !self.0.is_heard.load(Ordering::Relaxed) {
            return;
        }
        let marks = CID_MARKS.into_iter();
        let rows = marks.flat_map(|mark| changes.range((Table::Files, vec![mark])..(Table::Files, vec![mark + 1])));
        let mut files = rows.filter_map(|((_, key), _)| Some(split_hash(key)?.0)).peekable();
        if files.peek().is_none() {
            return;
        }
        {
            let mut news = self.0.news.lock().unwrap_or_else(PoisonError::into_inner);
            news.files.extend(files);
            if news.files.len() > MAX_CHANGED {
                *news = News { files: BTreeSet::new(), more: true };
            }
        }
        self.0.come.notify_one();
    }

    /// Listens from now on.
    pub(super) fn listen(&self) {
        self.0.is_heard.store(true, Ordering::Relaxed);
    }

    /// Waits until there is something new.
    pub(super) async fn come(&self) {
        self.0.come.notified().await;
    }

    /// What is new.
    pub(super) fn take(&self) -> News {
        std::mem::take(&mut *self.0.news.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema::hash_key;

    const CIDS: [&str; 2] = [
        "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o",
        "bafybeicg2rebjoofv4kbyovkw7af3rpiitvnl6i7ckcywaq6xjcxnc2mby",
    ];

    fn changes(hashes: impl IntoIterator<Item = ItemHash>) -> Changes {
        hashes.into_iter().map(|hash| ((Table::Files, hash_key(&hash)), None)).collect()
    }

    #[test]
    fn files_of_ipfs_are_told_to_who_listens() {
        let (changed, cids) = (ChangedFiles::default(), CIDS.map(|cid| ItemHash::parse(cid).expect("a CID")));
        changed.tell(&changes(cids.clone()));
        assert_eq!(changed.take(), News::default());
        changed.listen();
        let others = (0..=255).map(|byte| ItemHash::from_sha256([byte; 32]));
        let mut all = changes(others.chain(cids.clone()));
        all.insert((Table::Pins, hash_key(&cids[0])), None);
        changed.tell(&all);
        assert_eq!(changed.take(), News { files: cids.into(), more: false });
        assert_eq!(changed.take(), News::default());
    }

    #[test]
    fn of_very_many_it_is_told_that_they_are_many() {
        let changed = ChangedFiles::default();
        changed.listen();
        let cid = |number: usize| {
            let digest = [&[0x12, 0x20][..], &[0; 24], &(number as u64).to_be_bytes()].concat();
            ItemHash::parse(&bs58::encode(digest).into_string()).expect("a CID")
        };
        changed.tell(&changes((0..MAX_CHANGED).map(cid)));
        changed.tell(&changes([cid(MAX_CHANGED)]));
        assert_eq!(changed.take(), News { files: BTreeSet::new(), more: true });
    }
}
