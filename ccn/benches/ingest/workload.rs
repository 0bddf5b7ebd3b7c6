//! A realistic mix of signed messages, the same for one seed.

use ccn_message::{
    Envelope, ItemHash,
    sign::{Account, Draft},
};
use serde_json::{Map, Value, json};

/// What the mix is.
pub(crate) const MIX: &str =
    "60 % POST, 12 % amends, 25 % AGGREGATE, 3 % FORGET; 1,000 senders; contents of 0.2 to 4 KB";
/// Addresses that sign.
const SENDERS: usize = 1000;
/// The same where reading is measured.
const MANY_SENDERS: usize = 10_000;
/// When the first message is of, seconds since 1970.
const START: f64 = 1_780_000_000.0;

/// Where messages come from.
pub(crate) struct Workload {
    random: u64,
    accounts: Vec<Account>,
    /// Latest posts: who, and the hash.
    posts: Vec<(usize, ItemHash)>,
    made: usize,
}

impl Workload {
    pub(crate) fn new(seed: u64) -> Self {
        Self::of(seed, SENDERS)
    }

    /// Of more addresses.
    pub(crate) fn of_many(seed: u64) -> Self {
        Self::of(seed, MANY_SENDERS)
    }

    fn of(seed: u64, senders: usize) -> Self {
        let account = |number: usize| {
            let mut key = [1; 32];
            key[..8].copy_from_slice(&(number as u64 + 1).to_be_bytes());
            Account::ethereum(key).expect("a key")
        };
        Self { random: seed, accounts: (0..senders).map(account).collect(), posts: Vec::new(), made: 0 }
    }

    /// What follows refers to nothing before it: it is for another node.
    pub(crate) fn for_another_node(&mut self) {
        self.posts.clear();
    }

    /// The next number of a generator (splitmix64): a mix needs no better one.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap_or(0)
    }

    fn text(&mut self, bytes: usize) -> String {
        const WORDS: [&str; 8] = ["aleph", "message", "channel", "node", "signed", "aggregate", "network", "file"];
        let mut text = String::with_capacity(bytes + 16);
        while text.len() < bytes {
            text.push_str(WORDS[self.below(WORDS.len())]);
            text.push(' ');
        }
        text
    }

    /// The next messages, in an order in which each finds what it refers to.
    pub(crate) fn take(&mut self, count: usize) -> Vec<Envelope> {
        // What one batch refers to is in an earlier part of it: those in flight at once may overtake each other, and wait for each other then.
        (0..count).map(|_| self.message()).collect()
    }

    fn message(&mut self) -> Envelope {
        self.made += 1;
        let time = START + self.made as f64;
        let sender = self.below(self.accounts.len());
        // Most are short, some long.
        let bytes = match self.below(10) {
            0 => 200 + self.below(3800),
            _ => 200 + self.below(600),
        };
        match self.below(100) {
            0..60 => self.post(sender, time, bytes),
            60..72 if !self.posts.is_empty() => {
                let place = self.below(self.posts.len());
                let (owner, original) = self.posts[place].clone();
                let content = json!({"type": "amend", "ref": original, "content": {"body": self.text(bytes)}});
                self.sign(owner, "POST", &content, time)
            }
            72..75 if !self.posts.is_empty() => {
                let place = self.below(self.posts.len());
                let (owner, target) = self.posts.swap_remove(place);
                self.sign(owner, "FORGET", &json!({"hashes": [target], "reason": "no longer wanted"}), time)
            }
            75..100 => {
                let key = format!("profile-{}", self.below(4));
                let subkey = format!("field-{}", self.below(20));
                let value = self.text(bytes / 2);
                self.sign(sender, "AGGREGATE", &json!({"key": key, "content": {subkey: value, "n": self.made}}), time)
            }
            _ => self.post(sender, time, bytes),
        }
    }

    fn post(&mut self, sender: usize, time: f64, bytes: usize) -> Envelope {
        const KEPT: usize = 1000;
        let content = json!({"type": "note", "content": {"body": self.text(bytes), "tags": ["bench"]}});
        let post = self.sign(sender, "POST", &content, time);
        let entry = (sender, post.item_hash.clone());
        if self.posts.len() < KEPT {
            self.posts.push(entry);
        } else {
            let place = self.below(KEPT);
            self.posts[place] = entry;
        }
        post
    }

    fn sign(&self, sender: usize, kind: &str, content: &Value, time: f64) -> Envelope {
        Draft::new(kind, &content.to_string()).channel("BENCH").time(time).sign(&self.accounts[sender])
    }

    /// Elements that give one aggregate that many subkeys.
    pub(crate) fn aggregate(&mut self, subkeys: usize) -> Vec<Envelope> {
        const OF_ONE_ELEMENT: usize = 500;
        let names: Vec<String> = (0..subkeys).map(|number| format!("subkey-{number}")).collect();
        let element = |names: &[String]| names.iter().map(|name| (name.clone(), json!({"value": name}))).collect();
        let elements: Vec<Map<String, Value>> = names.chunks(OF_ONE_ELEMENT).map(element).collect();
        elements.into_iter().map(|content| self.element(content)).collect()
    }

    /// Updates of one subkey each.
    pub(crate) fn updates(&mut self, subkeys: usize, count: usize) -> Vec<Envelope> {
        let update = |workload: &mut Self| {
            let name = format!("subkey-{}", workload.below(subkeys));
            let value = json!({"value": workload.made});
            workload.element(Map::from_iter([(name, value)]))
        };
        (0..count).map(|_| update(self)).collect()
    }

    fn element(&mut self, content: Map<String, Value>) -> Envelope {
        self.made += 1;
        let time = START + self.made as f64;
        self.sign(0, "AGGREGATE", &json!({"key": "large", "content": content}), time)
    }
}
