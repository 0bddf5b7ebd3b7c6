//! What a message was decided by: everything that it asked and that may change, with the answers.

use crate::{
    Fate, FileInfo, Handler, MemoryView, Message, Outcome, Page, Plan, Rejection, StoredMessage, View, Withdrawal,
    Write, layout::Moment,
};
use std::cell::RefCell;

/// A plugin of the node, its functions.
#[derive(Debug, Clone)]
pub(super) struct Plugin {
    pub(super) namespace: String,
    /// The types that it takes; none: all that no other one takes.
    pub(super) kinds: Vec<String>,
    pub(super) validate: fn(&Message) -> Result<Plan, Rejection>,
    pub(super) process: fn(&Message, &dyn View) -> Outcome,
    pub(super) withdraw: fn(&Message, Withdrawal, &dyn View) -> Vec<Write>,
}

impl Plugin {
    pub(super) fn of<H: Handler>(namespace: &str, kinds: &[&str]) -> Self {
        Self {
            namespace: namespace.to_owned(),
            kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
            validate: H::validate,
            process: H::process,
            withdraw: H::withdraw,
        }
    }
}

/// Something that a decision rests on.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fact {
    /// Whether a message is to be seen.
    Message(String),
    /// What became of it.
    Fate(String),
    /// Whether it is in use.
    InUse(String),
    /// Whether a file is here.
    File(String),
    /// A row of state.
    State(String, Vec<u8>),
}

/// The answer to a fact.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    Flag(bool),
    Fate(Fate),
    Row(Option<Vec<u8>>),
}

impl Fact {
    /// Asked as of a position.
    pub(super) fn ask(&self, view: &MemoryView, at: &Moment) -> Answer {
        match self {
            Self::Message(hash) => Answer::Flag(view.message_at(hash, Some(at)).is_some()),
            Self::Fate(hash) => Answer::Fate(view.fate_at(hash, Some(at))),
            Self::InUse(hash) => Answer::Flag(view.in_use_at(hash, Some(at))),
            Self::File(hash) => Answer::Flag(view.files.contains_key(hash)),
            Self::State(namespace, key) => Answer::Row(view.get_in(namespace, key)),
        }
    }
}

/// A view as a message of a namespace sees it, which notes what is asked.
pub(super) struct Seen<'a> {
    pub(super) view: &'a MemoryView,
    pub(super) own: &'a str,
    pub(super) at: &'a Moment,
    pub(super) facts: RefCell<Vec<Fact>>,
}

impl<'a> Seen<'a> {
    pub(super) fn new(view: &'a MemoryView, own: &'a str, at: &'a Moment) -> Self {
        Self { view, own, at, facts: RefCell::default() }
    }

    pub(super) fn note(&self, fact: Fact) {
        let mut facts = self.facts.borrow_mut();
        if !facts.contains(&fact) {
            facts.push(fact);
        }
    }
}

impl View for Seen<'_> {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.view.get_in(self.own, key)
    }
    fn scan(&self, start: &[u8], end: &[u8], limit: u32, reverse: bool) -> Page {
        self.view.page(self.own, start, end, limit, reverse)
    }
    fn get_in(&self, namespace: &str, key: &[u8]) -> Option<Vec<u8>> {
        self.view.get_in(namespace, key)
    }
    fn scan_in(&self, namespace: &str, start: &[u8], end: &[u8], limit: u32, reverse: bool) -> Page {
        self.view.page(namespace, start, end, limit, reverse)
    }
    fn message(&self, hash: &str) -> Option<StoredMessage> {
        self.note(Fact::Message(hash.to_owned()));
        self.view.message_at(hash, Some(self.at)).cloned()
    }
    fn kind_of(&self, hash: &str) -> Option<String> {
        self.note(Fact::Message(hash.to_owned()));
        self.view.message_at(hash, Some(self.at)).map(|stored| stored.message.kind.clone())
    }
    fn fate_of(&self, hash: &str) -> Fate {
        self.note(Fact::Fate(hash.to_owned()));
        self.view.fate_at(hash, Some(self.at))
    }
    fn in_use(&self, hash: &str) -> bool {
        self.note(Fact::InUse(hash.to_owned()));
        self.view.in_use_at(hash, Some(self.at))
    }
    fn file(&self, hash: &str) -> Option<FileInfo> {
        self.view.file(hash)
    }
    fn setting(&self, name: &str) -> Option<String> {
        self.view.setting(name)
    }
}
