//! A node of one plugin, for tests: messages come in any order, wait for each other, and change the state of a [`MemoryView`].

use crate::{Effects, Handler, ItemHash, MemoryView, Message, Outcome, StoredMessage};
use ccn_message::{FormatError, ItemHash as Hash, envelope::ContentHeader};
use std::{collections::BTreeMap, marker::PhantomData};

/// A message of that kind with that content, as its owner would have signed it for the chain `ETH`, at the content's own time.
///
/// # Errors
/// The content is no object with `address` and `time`.
pub fn message(kind: &str, content: &str) -> Result<Message, FormatError> {
    let header = ContentHeader::parse(content)?;
    Ok(Message {
        item_hash: Hash::sha256_of(content.as_bytes()).to_string(),
        kind: kind.to_owned(),
        sender: header.address.clone(),
        chain: "ETH".to_owned(),
        channel: None,
        address: header.address,
        time: header.time,
        envelope_time: header.time,
        content: content.as_bytes().to_vec(),
    })
}

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its effects are applied.
    Processed,
    /// Something is missing; the code that it would end with.
    Waiting(i32),
    /// Refused with that code.
    Rejected(i32),
}

/// A node of one plugin.
#[derive(Debug)]
pub struct Simulation<H> {
    /// What the plugin sees; tests put files, settings and other plugins' state into it.
    pub view: MemoryView,
    /// What the accepted messages did, by hash.
    pub effects: BTreeMap<ItemHash, Effects>,
    standings: BTreeMap<ItemHash, Standing>,
    waiting: Vec<Message>,
    handler: PhantomData<H>,
}

impl<H: Handler> Simulation<H> {
    /// A node whose plugin owns that namespace.
    #[must_use]
    pub fn new(namespace: &str) -> Self {
        Self {
            view: MemoryView::new(namespace),
            effects: BTreeMap::new(),
            standings: BTreeMap::new(),
            waiting: Vec::new(),
            handler: PhantomData,
        }
    }

    /// Takes a message in, and whatever waited for it. Returns how it stands now.
    pub fn submit(&mut self, message: &Message) -> Standing {
        let hash = message.item_hash.clone();
        self.waiting.push(message.clone());
        self.settle();
        self.standings[&hash]
    }

    /// How a message stands, if it ever came.
    #[must_use]
    pub fn standing(&self, hash: &str) -> Option<Standing> {
        self.standings.get(hash).copied()
    }

    /// Tries what waits until nothing moves any more.
    pub fn settle(&mut self) {
        loop {
            let before = self.waiting.len();
            for message in std::mem::take(&mut self.waiting) {
                let standing = self.judge(&message);
                self.standings.insert(message.item_hash.clone(), standing);
                if matches!(standing, Standing::Waiting(_)) {
                    self.waiting.push(message);
                }
            }
            if self.waiting.len() == before {
                return;
            }
        }
    }

    fn judge(&mut self, message: &Message) -> Standing {
        let plan = match H::validate(message) {
            Ok(plan) => plan,
            Err(rejection) => return Standing::Rejected(rejection.code),
        };
        match H::process(message, &self.view) {
            Outcome::Rejected(rejection) => Standing::Rejected(rejection.code),
            Outcome::Waiting(wait) => Standing::Waiting(wait.otherwise.code),
            Outcome::Accepted(effects) => {
                self.view.apply(&effects);
                let stored = StoredMessage {
                    message: message.clone(),
                    signature: Some("0x".to_owned()),
                    item_type: "inline".to_owned(),
                    size: message.content.len() as u64,
                    labels: plan.labels,
                    confirmations: "[]".to_owned(),
                };
                self.view.messages.insert(message.item_hash.clone(), stored);
                self.effects.insert(message.item_hash.clone(), effects);
                Standing::Processed
            }
        }
    }
}
