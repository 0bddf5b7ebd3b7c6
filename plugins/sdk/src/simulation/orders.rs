//! Every order of arrival gives one state: the promise of the contract, tried.

use super::{Simulation, Standing};
use crate::{Handler, Message};

/// Orders that [`Simulation::every_order`] plays.
pub const ORDERS: u64 = 20;

/// Messages in another order, the same for the same seed.
#[must_use]
pub fn shuffled(messages: &[Message], seed: u64) -> Vec<Message> {
    let mut dice = Dice(seed);
    let mut messages = messages.to_vec();
    for last in (1..messages.len()).rev() {
        messages.swap(last, dice.below(last + 1));
    }
    messages
}

/// Numbers that look random: splitmix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

impl<H: Handler> Simulation<H> {
    /// Plays messages on copies of this node in [`ORDERS`] orders, some of them twice, some taken out, forgotten and brought back in between; `check`
    /// looks at each end. Returns the node after the order that was given.
    ///
    /// # Panics
    /// Two orders end differently, or a plugin breaks its contract.
    pub fn every_order(&self, messages: &[Message], check: impl Fn(&Self)) -> Self {
        let mut first = self.clone();
        for message in messages {
            first.submit(message);
        }
        check(&first);
        for seed in 0..ORDERS {
            let mut node = self.clone();
            let order = shuffled(messages, seed);
            let mut dice = Dice(!seed);
            for (place, message) in order.iter().enumerate() {
                node.submit(message);
                let other = &order[dice.below(place + 1)];
                match dice.below(6) {
                    0 => node.void_and_submit(other),
                    1 => node.forget_and_remember(other, &order[dice.below(place + 1)]),
                    2 => {
                        node.submit(other);
                    }
                    _ => {}
                }
            }
            compare(&first, &node, seed);
            check(&node);
        }
        first
    }

    fn void_and_submit(&mut self, message: &Message) {
        self.void(&message.item_hash);
        self.submit(message);
    }

    /// What happens to a message must not show in the end either when others come while it is hidden.
    fn forget_and_remember(&mut self, message: &Message, other: &Message) {
        let was_hidden = self.standing(&message.item_hash) == Some(Standing::Forgotten);
        self.forget(&message.item_hash, message.time + 1.0);
        self.void(&other.item_hash);
        self.submit(other);
        self.remember(&message.item_hash);
        let is_hidden = self.standing(&message.item_hash) == Some(Standing::Forgotten);
        assert!(was_hidden || !is_hidden, "{} stays hidden", message.item_hash);
    }
}

fn compare<H: Handler>(expected: &Simulation<H>, found: &Simulation<H>, seed: u64) {
    let (left, right) = (expected.standings(), found.standings());
    for (hash, standing) in &left {
        assert_eq!(Some(standing), right.get(hash), "{hash} stands differently in order {seed}");
    }
    let (left, right) = (&expected.view.state, &found.view.state);
    let differs = left.keys().chain(right.keys()).find(|key| left.get(key) != right.get(key));
    if let Some((namespace, key)) = differs {
        panic!("order {seed} ends in another state: {namespace}: {:?}", String::from_utf8_lossy(key));
    }
}
