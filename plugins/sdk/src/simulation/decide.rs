//! Deciding messages, taking them out and putting them back, until nothing that a message rests on has changed since it was decided.

use super::{
    Simulation, Standing, check,
    facts::{Answer, Fact, Plugin, Seen},
};
use crate::{
    Effects, Handler, ItemHash, Message, Need, Outcome, Rejection, Subject, Withdrawal,
    layout::Moment,
    rejected,
    view::{
        memory::{Position, Use, position},
        version::stored,
    },
};
use ccn_message::ErrorCode;
use std::collections::BTreeSet;

/// Decisions for each message until a node must be at rest. Messages that go round in circles are a plugin's mistake.
const MAX_DECISIONS: usize = 100;

/// A message that came.
#[derive(Debug, Clone)]
pub(super) struct Known {
    message: Message,
    /// As of when it is decided: its own time, or that of the latest message that it names. Content times may contradict the order in which messages
    /// were made; the hashes that they hold cannot.
    at: Moment,
    verdict: Verdict,
    /// What the verdict rests on.
    basis: Vec<(Fact, Answer)>,
    /// Those that forget it.
    forgetters: BTreeSet<Position>,
}

#[derive(Debug, Clone)]
enum Verdict {
    Undecided,
    Rejected(Rejection),
    Waiting(Rejection),
    Accepted(Box<Effects>),
}

impl Known {
    pub(super) fn new(message: Message) -> Self {
        let at = Moment::of(&message);
        Self { message, at, verdict: Verdict::Undecided, basis: Vec::new(), forgetters: BTreeSet::new() }
    }

    /// It is sent again: what was refused is tried again.
    pub(super) fn comes(&mut self) {
        if !matches!(self.verdict, Verdict::Accepted(_)) {
            self.verdict = Verdict::Undecided;
        }
    }

    pub(super) fn standing(&self) -> Standing {
        match &self.verdict {
            Verdict::Undecided => unreachable!("every message is decided when a node is at rest"),
            Verdict::Rejected(rejection) => Standing::Rejected(rejection.code),
            Verdict::Waiting(otherwise) => Standing::Waiting(otherwise.code),
            Verdict::Accepted(_) if self.forgetters.is_empty() => Standing::Processed,
            Verdict::Accepted(_) => Standing::Forgotten,
        }
    }

    pub(super) fn rejection(&self) -> Option<&Rejection> {
        match &self.verdict {
            Verdict::Rejected(rejection) | Verdict::Waiting(rejection) => Some(rejection),
            Verdict::Undecided | Verdict::Accepted(_) => None,
        }
    }

    fn effects(&self) -> Option<&Effects> {
        match &self.verdict {
            Verdict::Accepted(effects) => Some(effects),
            _ => None,
        }
    }
}

impl<H: Handler> Simulation<H> {
    /// Decides whatever is undecided or rests on what has changed, until nothing moves any more.
    ///
    /// # Panics
    /// A plugin breaks its contract.
    pub fn settle(&mut self) {
        for _ in 0..MAX_DECISIONS * (self.known.len() + 1) {
            if let Some(hash) = self.to_decide() {
                self.take_out(&hash);
                self.decide(&hash);
            } else if let Some((hash, forgetters)) = self.to_hide() {
                self.hide(&hash, forgetters);
            } else {
                return;
            }
        }
        panic!("the messages do not come to rest: a verdict depends on what it changes itself");
    }

    fn to_decide(&self) -> Option<ItemHash> {
        let has_changed =
            |known: &Known| known.basis.iter().any(|(fact, answer)| fact.ask(&self.view, &known.at) != *answer);
        let undecided = |known: &Known| matches!(known.verdict, Verdict::Undecided);
        self.known.iter().find(|(_, known)| undecided(known) || has_changed(known)).map(|(hash, _)| hash.clone())
    }

    /// A message whose forgetters are not those that it is hidden by.
    fn to_hide(&self) -> Option<(ItemHash, BTreeSet<Position>)> {
        let accepted = self.known.iter().filter_map(|(hash, known)| Some((hash, known, known.effects()?)));
        accepted
            .map(|(hash, known, effects)| {
                let own = self.forgetters_of(hash);
                let at = position(&known.at);
                let followed =
                    effects.follows.iter().flat_map(|hash| self.forgetters_of(hash)).filter(|by| by.0 >= at.0);
                (hash, known, own.into_iter().chain(followed).collect::<BTreeSet<Position>>())
            })
            .find(|(_, known, forgetters)| known.forgetters != *forgetters)
            .map(|(hash, _, forgetters)| (hash.clone(), forgetters))
    }

    fn forgetters_of(&self, hash: &str) -> Vec<Position> {
        let forgets =
            |known: &&Known| known.effects().is_some_and(|effects| effects.forgets.iter().any(|target| target == hash));
        let by_hand = self.forgotten_by_hand.get(hash).into_iter().flatten().map(position);
        self.known.values().filter(forgets).map(|known| position(&known.at)).chain(by_hand).collect()
    }

    fn hide(&mut self, hash: &str, forgetters: BTreeSet<Position>) {
        if forgetters.is_empty() {
            // It comes back: decided anew, for whatever happened meanwhile.
            self.take_out(hash);
            self.decide(hash);
            return;
        }
        let Some(known) = self.known.get_mut(hash) else { return };
        let (message, until) = (known.message.clone(), forgetters.first().cloned());
        known.forgetters = forgetters.clone();
        for used in self.view.uses.values_mut().flatten().filter(|used| used.by.1 == hash) {
            used.until.clone_from(&until);
        }
        if let Some(stored) = self.view.messages.remove(hash) {
            self.view.forgotten.insert(hash.to_owned(), (stored, forgetters));
            self.effects.remove(hash);
            self.withdraw(&message, Withdrawal::Forgotten);
        } else if let Some((_, positions)) = self.view.forgotten.get_mut(hash) {
            *positions = forgetters;
        }
    }

    /// Takes whatever a message added out again.
    pub(super) fn take_out(&mut self, hash: &str) {
        let Some(known) = self.known.get_mut(hash) else { return };
        known.forgetters.clear();
        known.basis.clear();
        let verdict = std::mem::replace(&mut known.verdict, Verdict::Undecided);
        if !matches!(verdict, Verdict::Accepted(_)) {
            return;
        }
        let message = known.message.clone();
        self.view.messages.remove(hash);
        self.view.forgotten.remove(hash);
        self.effects.remove(hash);
        for uses in self.view.uses.values_mut() {
            uses.retain(|used| used.by.1 != hash);
        }
        self.view.uses.retain(|_, uses| !uses.is_empty());
        self.withdraw(&message, Withdrawal::Void);
    }

    fn withdraw(&mut self, message: &Message, why: Withdrawal) {
        let plugin = self.plugin(&message.kind).clone();
        let at = Moment::of(message);
        let writes = (plugin.withdraw)(message, why, &Seen::new(&self.view, &plugin.namespace, &at));
        check::writes(message, &writes);
        self.view.write_in(&plugin.namespace, &writes);
    }

    fn plugin(&self, kind: &str) -> &Plugin {
        let takes = |plugin: &&Plugin| plugin.kinds.iter().any(|each| each == kind);
        self.plugins.iter().find(takes).unwrap_or(&self.plugins[0])
    }

    fn decide(&mut self, hash: &str) {
        let message = self.known[hash].message.clone();
        let plugin = self.plugin(&message.kind).clone();
        let mut at = Moment::of(&message);
        let (verdict, labels, basis) = loop {
            let seen = Seen::new(&self.view, &plugin.namespace, &at);
            let (verdict, labels) = match (plugin.validate)(&message) {
                Err(rejection) => (Verdict::Rejected(rejection), Vec::new()),
                Ok(plan) => (self.judge(&message, &plan.subjects, &plugin, &seen), plan.labels),
            };
            let facts = seen.facts.into_inner();
            let latest = facts.iter().filter_map(|fact| self.made(fact)).fold(at.time, f64::max);
            if latest <= at.time {
                let basis = facts.into_iter().map(|fact| (fact.clone(), fact.ask(&self.view, &at)));
                break (verdict, labels, basis.collect::<Vec<(Fact, Answer)>>());
            }
            // It names what is later than itself, and sees what was there then.
            at.time = latest;
        };
        if let Verdict::Accepted(effects) = &verdict {
            check::round_trip(&message, effects, &plugin, &self.view);
            self.view.write_in(&plugin.namespace, &effects.writes);
            self.view.messages.insert(hash.to_owned(), stored(message.clone(), labels));
            for used in &effects.uses {
                let by = position(&at);
                self.view.uses.entry(used.clone()).or_default().push(Use { by, until: None });
            }
            self.effects.insert(hash.to_owned(), (**effects).clone());
        }
        if let Some(known) = self.known.get_mut(hash) {
            (known.verdict, known.basis, known.at) = (verdict, basis, at);
        }
    }

    /// When a message that is asked about was made, if it is kept.
    fn made(&self, fact: &Fact) -> Option<f64> {
        let (Fact::Message(hash) | Fact::Fate(hash)) = fact else { return None };
        self.known.get(hash).filter(|known| known.effects().is_some()).map(|known| known.at.time)
    }

    fn judge(&self, message: &Message, subjects: &[Subject], plugin: &Plugin, seen: &Seen<'_>) -> Verdict {
        let denied = |hash: &str| {
            let sentence = format!("{} may not do this with {hash}", message.sender);
            Verdict::Rejected(rejected(ErrorCode::PermissionDenied, sentence))
        };
        let mut absent = None;
        for subject in subjects {
            let act = match subject {
                Subject::ThisMessage => Some(message),
                Subject::OtherMessage(other) => {
                    seen.note(Fact::Fate(other.clone()));
                    let found = self.view.messages.get(other);
                    let found = found.or_else(|| self.view.forgotten.get(other).map(|(stored, _)| stored));
                    found.map(|stored| &stored.message)
                }
            };
            match act {
                Some(act) if !(self.permission)(message, act) => return denied(&act.item_hash),
                Some(_) => {}
                // What is not here cannot be judged: the plugin says what that means for its message.
                None => absent = Some(subject.clone()),
            }
        }
        let outcome = (plugin.process)(message, seen);
        check::same_twice(message, &outcome, &(plugin.process)(message, seen));
        match outcome {
            Outcome::Rejected(rejection) => Verdict::Rejected(rejection),
            Outcome::Waiting(wait) => {
                assert!(!wait.missing.is_empty(), "{} waits for nothing", message.item_hash);
                for need in wait.missing {
                    seen.note(match need {
                        Need::Message(hash) => Fact::Message(hash),
                        Need::File(hash) => Fact::File(hash),
                        Need::State((namespace, key)) => Fact::State(namespace, key),
                    });
                }
                Verdict::Waiting(wait.otherwise)
            }
            Outcome::Accepted(_) if absent.is_some() => {
                let sentence = "whether this is permitted is not known".to_owned();
                Verdict::Waiting(rejected(ErrorCode::PermissionDenied, sentence))
            }
            Outcome::Accepted(effects) => {
                check::writes(message, &effects.writes);
                for (namespace, key) in &effects.watches {
                    seen.note(Fact::State(namespace.clone(), key.clone()));
                }
                for target in &effects.forgets {
                    seen.note(Fact::Fate(target.clone()));
                    let act = self.view.message_at(target, Some(seen.at)).map(|stored| &stored.message);
                    if act.is_none_or(|act| !(self.permission)(message, act)) {
                        return denied(target);
                    }
                }
                Verdict::Accepted(Box::new(effects))
            }
        }
    }
}
