//! The kit held against plugins that break the contract, each in one way.

use super::*;
use crate::{
    Costs, Message, Need, Outcome, Plan, Rejection, Request, Response, Subject, View, Withdrawal, Write, answer,
    layout::{delete, put},
    no_effects, rejected,
};
use ccn_message::ErrorCode;
use std::{
    panic::catch_unwind,
    sync::atomic::{AtomicU32, Ordering},
};

/// What a plugin of these tests does wrong.
trait Wrong {
    fn effects(message: &Message, view: &dyn View, effects: Effects) -> Effects {
        let _ = (message, view);
        effects
    }
    fn withdraw(message: &Message, writes: Vec<Write>) -> Vec<Write> {
        let _ = message;
        writes
    }
}

/// Notes: a row each; one that says `after HASH` needs that message.
struct Note<W>(PhantomData<W>);

fn row(message: &Message) -> Vec<u8> {
    message.item_hash.clone().into_bytes()
}

impl<W: Wrong> Handler for Note<W> {
    fn validate(_message: &Message) -> Result<Plan, Rejection> {
        Ok(Plan { subjects: vec![Subject::ThisMessage], labels: vec![] })
    }
    fn process(message: &Message, view: &dyn View) -> Outcome {
        let text = String::from_utf8_lossy(&message.content);
        let needed = text.split("after ").nth(1).map(|rest| rest[..64].to_owned());
        if let Some(needed) = needed.filter(|needed| view.message(needed).is_none()) {
            let otherwise = rejected(ErrorCode::PostAmendTargetNotFound, "it comes after nothing");
            return Outcome::Waiting(crate::Wait { missing: vec![Need::Message(needed)], otherwise });
        }
        let effects = Effects { writes: vec![put(row(message), vec![1])], ..no_effects() };
        Outcome::Accepted(W::effects(message, view, effects))
    }
    fn withdraw(message: &Message, _why: Withdrawal, _view: &dyn View) -> Vec<Write> {
        W::withdraw(message, vec![delete(row(message))])
    }
    fn price(_message: &Message, _view: &dyn View) -> Result<Option<Costs>, Rejection> {
        Ok(None)
    }
    fn query(_request: &Request, _view: &dyn View) -> Response {
        answer::error(404, "no such route")
    }
}

fn note(time: u32, text: &str) -> Message {
    message("NOTE", &format!(r#"{{"address":"0xA","time":{time},"text":"{text}"}}"#)).expect("a message")
}

fn notes() -> Vec<Message> {
    let first = note(1, "first");
    let second = note(2, &format!("after {}", first.item_hash));
    let third = note(3, &format!("after {}", second.item_hash));
    vec![third, first, second, note(4, "alone")]
}

/// The sentence with which the kit ends a test of a plugin.
fn sentence<W: Wrong>() -> Option<String> {
    let run = || {
        Simulation::<Note<W>>::new("note").every_order(&notes(), |_| {});
    };
    let failure = catch_unwind(run).err()?;
    let text = failure.downcast_ref::<String>().cloned();
    text.or_else(|| failure.downcast_ref::<&str>().map(|text| (*text).to_owned()))
}

fn check<W: Wrong>(expect: &str) {
    let found = sentence::<W>().expect("the plugin is wrong");
    assert!(found.contains(expect), "{found}");
}

struct Right;
impl Wrong for Right {}

#[test]
fn a_plugin_that_keeps_the_contract_passes() {
    assert_eq!(sentence::<Right>(), None);
    let node = Simulation::<Note<Right>>::new("note").every_order(&notes(), |node| {
        assert!(node.standings().values().all(|standing| *standing == Standing::Processed));
    });
    assert_eq!(node.view.state.len(), 4);
}

struct KeepsRows;
impl Wrong for KeepsRows {
    fn withdraw(_message: &Message, _writes: Vec<Write>) -> Vec<Write> {
        Vec::new()
    }
}

/// The newest that came, not the newest: each order ends differently.
struct LastWins;
impl Wrong for LastWins {
    fn effects(message: &Message, view: &dyn View, mut effects: Effects) -> Effects {
        if view.get(b"last").is_none() {
            effects.writes.push(put(b"last".to_vec(), message.content.clone()));
        }
        effects
    }
    fn withdraw(message: &Message, mut writes: Vec<Write>) -> Vec<Write> {
        if message.time == 4.0 {
            writes.push(delete(b"last".to_vec()));
        }
        writes
    }
}

struct Counts;
static CALLS: AtomicU32 = AtomicU32::new(0);
impl Wrong for Counts {
    fn effects(message: &Message, _view: &dyn View, mut effects: Effects) -> Effects {
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        effects.writes = vec![put(row(message), call.to_be_bytes().to_vec())];
        effects
    }
}

struct LongKeys;
impl Wrong for LongKeys {
    fn effects(_message: &Message, _view: &dyn View, mut effects: Effects) -> Effects {
        effects.writes = vec![put(vec![b'x'; 513], Vec::new())];
        effects
    }
}

/// It watches what it writes itself.
struct Restless;
impl Wrong for Restless {
    fn effects(_message: &Message, view: &dyn View, mut effects: Effects) -> Effects {
        let number = view.get(b"n").map_or(0, |value| value[0]);
        effects.writes = vec![put(b"n".to_vec(), vec![number.wrapping_add(1)])];
        effects.watches = vec![("note".to_owned(), b"n".to_vec())];
        effects
    }
    fn withdraw(_message: &Message, _writes: Vec<Write>) -> Vec<Write> {
        vec![delete(b"n".to_vec())]
    }
}

#[test]
fn plugins_that_break_the_contract_are_told_how() {
    check::<KeepsRows>("`withdraw(void)` after `process` leaves another state");
    check::<LastWins>("another state");
    check::<Counts>("says something else the second time");
    check::<LongKeys>("writes a key of 513 bytes");
    check::<Restless>("do not come to rest");
}

#[test]
fn forgetting_by_hand_is_seen_by_who_comes_later() {
    let mut node = Simulation::<Note<Right>>::new("note");
    let (first, early) = (note(1, "first"), note(2, &format!("after {}", note(1, "first").item_hash)));
    let late = note(9, &format!("after {}", first.item_hash));
    for message in [&first, &early, &late] {
        assert_eq!(node.submit(message), Standing::Processed);
    }
    node.forget(&first.item_hash, 5.0);
    let standing = |node: &Simulation<Note<Right>>, message: &Message| node.standing(&message.item_hash);
    assert_eq!(standing(&node, &first), Some(Standing::Forgotten));
    assert_eq!(standing(&node, &early), Some(Standing::Processed));
    assert_eq!(standing(&node, &late), Some(Standing::Waiting(101)));
    assert_eq!(node.view.state.len(), 1);
    node.remember(&first.item_hash);
    assert_eq!(standing(&node, &late), Some(Standing::Processed));
    node.void(&first.item_hash);
    assert_eq!((standing(&node, &first), standing(&node, &early)), (None, Some(Standing::Waiting(101))));
}

#[test]
fn who_may_not_is_refused() {
    let mut node = Simulation::<Note<Right>>::new("note").owners_only();
    let mut theirs = note(1, "x");
    theirs.sender = "0xB".into();
    assert_eq!(node.submit(&theirs), Standing::Rejected(2));
    assert_eq!(node.submit(&note(2, "x")), Standing::Processed);
}
