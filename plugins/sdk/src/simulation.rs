//! The test kit: a node of one plugin or several, in memory. Messages come in any order, wait for each other, use and forget each other, and are
//! decided anew when what they rest on has changed, as a node does it.
//!
//! It holds a plugin against its contract by itself, and panics with a sentence when it breaks it: `process` gives the same answer twice, `withdraw`
//! takes out exactly what `process` added, keys and values are within bounds. [`Simulation::every_order`] plays messages in twenty orders, with
//! some of them taken out and put back in between, and compares where each ends.

mod check;
mod decide;
mod facts;
mod orders;

use crate::{Effects, Handler, ItemHash, MemoryView, Message, Rejection, layout::Moment};
use ccn_message::{FormatError, ItemHash as Hash, envelope::ContentHeader};
use decide::Known;
use facts::Plugin;
pub use orders::{ORDERS, shuffled};
use serde_json::Value;
use std::{collections::BTreeMap, marker::PhantomData};

/// The shapes that a manifest gives to the query parameter of that name: one for each of its operations that has it.
///
/// # Panics
/// It is no manifest with operations.
#[must_use]
pub fn described(manifest: &str, parameter: &str) -> Vec<Value> {
    let manifest: Value = serde_json::from_str(manifest).expect("a manifest is JSON");
    let operations = manifest["operations"].as_array().expect("a list of operations").iter();
    let query = operations.flat_map(|operation| operation["query"].as_array().into_iter().flatten());
    query.filter(|one| one["name"] == parameter).map(|one| one["schema"].clone()).collect()
}

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
    /// It was, and is forgotten.
    Forgotten,
    /// Something is missing; the code that it would end with.
    Waiting(i32),
    /// Refused with that code.
    Rejected(i32),
}

/// Who may create which message, or have it forgotten: the one that asks, and the message that is meant.
pub type Permission = fn(by: &Message, act: &Message) -> bool;

/// A node. `H` is the plugin that a test is about; it takes every type that no other one takes.
#[derive(Debug)]
pub struct Simulation<H> {
    /// What queries of `H` see; tests put files, settings and other plugins' state into it.
    pub view: MemoryView,
    /// What the messages that stand did, by hash.
    pub effects: BTreeMap<ItemHash, Effects>,
    plugins: Vec<Plugin>,
    permission: Permission,
    known: BTreeMap<ItemHash, Known>,
    /// Positions at which the test itself forgets messages.
    forgotten_by_hand: BTreeMap<ItemHash, Vec<Moment>>,
    handler: PhantomData<H>,
}

impl<H> Clone for Simulation<H> {
    fn clone(&self) -> Self {
        Self {
            view: self.view.clone(),
            effects: self.effects.clone(),
            plugins: self.plugins.clone(),
            permission: self.permission,
            known: self.known.clone(),
            forgotten_by_hand: self.forgotten_by_hand.clone(),
            handler: PhantomData,
        }
    }
}

impl<H: Handler> Simulation<H> {
    /// A node whose plugin owns that namespace. Everybody may do everything.
    #[must_use]
    pub fn new(namespace: &str) -> Self {
        Self {
            view: MemoryView::new(namespace),
            effects: BTreeMap::new(),
            plugins: vec![Plugin::of::<H>(namespace, &[])],
            permission: |_, _| true,
            known: BTreeMap::new(),
            forgotten_by_hand: BTreeMap::new(),
            handler: PhantomData,
        }
    }

    /// With another plugin, which owns that namespace and takes those types.
    #[must_use]
    pub fn with<P: Handler>(mut self, namespace: &str, kinds: &[&str]) -> Self {
        self.plugins.push(Plugin::of::<P>(namespace, kinds));
        self
    }

    /// With a rule of who may do what; who may not is refused with code 2.
    #[must_use]
    pub fn permitting(mut self, permission: Permission) -> Self {
        self.permission = permission;
        self
    }

    /// Only owners may do anything with their messages.
    #[must_use]
    pub fn owners_only(self) -> Self {
        self.permitting(|by, act| by.sender.eq_ignore_ascii_case(&act.address))
    }

    /// Takes a message in; whatever rests on it is decided anew. Returns how it stands now. One that is known is not taken twice.
    pub fn submit(&mut self, message: &Message) -> Standing {
        let known = self.known.entry(message.item_hash.clone()).or_insert_with(|| Known::new(message.clone()));
        known.comes();
        self.settle();
        self.known[&message.item_hash].standing()
    }

    /// Takes a message out as if it had never come, which is what happens to one whose sender loses the right to it. [`Simulation::submit`] brings
    /// it back.
    pub fn void(&mut self, hash: &str) {
        self.take_out(hash);
        self.known.remove(hash);
        self.settle();
    }

    /// Forgets a message at that time, as a FORGET of its owner would.
    pub fn forget(&mut self, hash: &str, time: f64) {
        let by = Moment { time, item_hash: "forgotten by hand".to_owned() };
        self.forgotten_by_hand.entry(hash.to_owned()).or_default().push(by);
        self.settle();
    }

    /// Takes back whatever [`Simulation::forget`] did to a message.
    pub fn remember(&mut self, hash: &str) {
        self.forgotten_by_hand.remove(hash);
        self.settle();
    }

    /// How a message stands, if it ever came.
    #[must_use]
    pub fn standing(&self, hash: &str) -> Option<Standing> {
        self.known.get(hash).map(Known::standing)
    }

    /// What was said to a message that waits or was refused.
    #[must_use]
    pub fn rejection(&self, hash: &str) -> Option<&Rejection> {
        self.known.get(hash)?.rejection()
    }

    /// How every message stands.
    #[must_use]
    pub fn standings(&self) -> BTreeMap<&str, Standing> {
        self.known.iter().map(|(hash, known)| (hash.as_str(), known.standing())).collect()
    }
}

#[cfg(test)]
mod tests;
