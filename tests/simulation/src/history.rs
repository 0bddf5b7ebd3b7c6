//! A history: at least two hundred messages of all types, drawn from a seed, whose meaning depends on each other in every way that the rules know.
//!
//! Funds checks are local by rule (they look at a moment), so wallets that run things are rich from the beginning, which comes first in every order, and
//! others stay poor for ever. What the ledger derives by position, transfers that are covered or not, is drawn among wallets that run nothing.

use ccn_message::{
    ItemHash,
    sign::{Account, Draft, to_json},
};
use fastrand::Rng;
use serde_json::{Value, json};

/// Messages of a history, at least.
pub(crate) const MESSAGES: usize = 220;
/// Content times begin here, seconds: under today's payment rules.
const BEGINNING: u64 = 1_780_000_000;
/// Content times are drawn from so many seconds: several messages share each.
const SECONDS: u64 = 90;
/// The channel in which credits move.
const CREDITS: &str = "ALEPH_CREDIT";
/// The accounts of the network, all of them one.
const TREASURY: u8 = 99;
/// More than everything here costs.
const RICH: u64 = 1_000_000_000_000_000;

/// Something that reaches a node.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// What it is, for people.
    pub(crate) label: String,
    pub(crate) what: What,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    /// An envelope as JSON, and its hash.
    Message(Value, ItemHash),
    /// A file.
    File(Vec<u8>),
}

/// Messages and files; what comes first in every order is apart.
#[derive(Debug, Clone)]
pub(crate) struct History {
    pub(crate) beginning: Vec<Item>,
    pub(crate) items: Vec<Item>,
    /// Everybody who has messages, funds or delegations here.
    pub(crate) addresses: Vec<String>,
}

/// The address of the network's own accounts.
pub(crate) fn treasury() -> Account {
    account(TREASURY)
}

fn account(number: u8) -> Account {
    Account::ethereum([number; 32]).expect("a key: not zero, and below the order of the curve")
}

/// A message that others can refer to.
#[derive(Debug, Clone)]
struct Made {
    hash: ItemHash,
    kind: &'static str,
    /// Index of the wallet that owns it.
    owner: usize,
}

struct Writer {
    rng: Rng,
    /// Rich, except for the last one, and bankers after those.
    wallets: Vec<Account>,
    rich: usize,
    made: Vec<Made>,
    files: Vec<Vec<u8>>,
    items: Vec<Item>,
}

impl History {
    /// The history of a seed.
    pub(crate) fn of(seed: u64) -> Self {
        let mut wallets: Vec<Account> = (1..=5).map(account).collect();
        wallets.push(Account::solana([6; 32]));
        let rich = wallets.len();
        // One that is poor, and three that only move credits.
        wallets.extend((7..=10).map(account));
        let mut rng = Rng::with_seed(seed);
        let files = (0..7).map(|_| (0..rng.usize(10..3000)).map(|_| rng.u8(..)).collect()).collect();
        let mut writer = Writer { rng, wallets, rich, made: Vec::new(), files, items: Vec::new() };
        let beginning = writer.beginning();
        // The last file never comes.
        for (number, bytes) in writer.files.clone().into_iter().enumerate().take(writer.files.len() - 1) {
            writer.items.push(Item { label: format!("file {number}"), what: What::File(bytes) });
        }
        while writer.items.len() < MESSAGES {
            writer.draw();
        }
        let mut addresses: Vec<String> = writer.wallets.iter().map(|wallet| wallet.address().to_owned()).collect();
        addresses.push(treasury().address().to_owned());
        Self { beginning, items: writer.items, addresses }
    }
}

impl Writer {
    fn beginning(&mut self) -> Vec<Item> {
        let rich: Vec<String> = self.wallets[..self.rich].iter().map(|wallet| wallet.address().to_owned()).collect();
        let grants: Vec<Value> = rich.iter().map(|address| grant(address, RICH)).collect();
        let balances: serde_json::Map<String, Value> =
            rich.iter().map(|address| (address.clone(), 1_000_000_000.into())).collect();
        let contents = [
            json!({"type": "aleph_credit_distribution",
                "content": {"distribution": {"token": "T", "chain": "ETH", "credits": grants}}}),
            json!({"type": "balances-update", "content": {"chain": "ETH", "main_height": 1, "balances": balances}}),
        ];
        let draft =
            |content: Value| Draft::new("POST", &content.to_string()).channel(CREDITS).time((BEGINNING - 1000) as f64);
        let sign = |content: Value| {
            let envelope = draft(content).sign(&treasury());
            let value = serde_json::from_str(&to_json(&envelope)).expect("an envelope is JSON");
            Item { label: "funds".to_owned(), what: What::Message(value, envelope.item_hash) }
        };
        contents.into_iter().map(sign).collect()
    }

    fn time(&mut self) -> f64 {
        (BEGINNING + self.rng.u64(0..SECONDS)) as f64
    }

    fn wallet(&mut self) -> usize {
        // Rich ones mostly, and the poor one.
        self.rng.usize(0..=self.rich)
    }

    fn banker(&mut self) -> usize {
        self.rng.usize(self.rich + 1..self.wallets.len())
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.u32(0..100) < percent
    }

    fn address(&self, wallet: usize) -> String {
        self.wallets[wallet].address().to_owned()
    }

    /// A message of those kinds; now and then a hash that nobody ever sends.
    fn one_of(&mut self, kinds: &[&str]) -> Option<Made> {
        if self.chance(6) {
            let hash = ItemHash::sha256_of(&self.rng.u64(..).to_be_bytes());
            return Some(Made { hash, kind: "never", owner: 0 });
        }
        let found: Vec<&Made> =
            self.made.iter().filter(|made| kinds.is_empty() || kinds.contains(&made.kind)).collect();
        self.rng.choice(found).cloned()
    }

    /// Who signs for an owner: mostly itself.
    fn signer(&mut self, owner: usize) -> usize {
        if self.chance(75) { owner } else { self.wallet() }
    }

    /// Adds a message. `meaning` says what it is to those who refer to it.
    fn add(&mut self, kind: &'static str, meaning: &'static str, owner: usize, content: Value) {
        let signer = self.signer(owner);
        let channel = self.rng.choice([None, Some("A"), Some("B")]).flatten();
        self.add_by(kind, meaning, owner, signer, channel, content);
    }

    fn add_by(
        &mut self,
        kind: &'static str,
        meaning: &'static str,
        owner: usize,
        signer: usize,
        channel: Option<&str>,
        content: Value,
    ) {
        let time = self.time();
        let account = self.wallets[signer].clone();
        let draft = |account: &Account| {
            let mut draft = Draft::new(kind, &content.to_string()).time(time).address(&self.address(owner));
            if let Some(channel) = channel {
                draft = draft.channel(channel);
            }
            draft.sign(account)
        };
        let envelope = draft(&account);
        let hash = envelope.item_hash.clone();
        let json: Value = serde_json::from_str(&to_json(&envelope)).expect("an envelope is JSON");
        let place = self.items.len();
        let what = if signer == owner { String::new() } else { format!(" signed by {signer}") };
        let label = format!("{place} {meaning} of {owner}{what} at {}", time as u64 - BEGINNING);
        // Copies of one hash that compete.
        let stranger = draft(&self.wallets[(signer + 1) % self.wallets.len()]);
        self.items.push(Item { label: label.clone(), what: What::Message(json.clone(), hash.clone()) });
        self.made.push(Made { hash: hash.clone(), kind: meaning, owner });
        if self.rng.u32(0..16) == 0 {
            let label = format!("{} copy of {place} by a stranger", self.items.len());
            let json = serde_json::from_str(&to_json(&stranger)).expect("an envelope is JSON");
            self.items.push(Item { label, what: What::Message(json, hash) });
        }
    }

    fn draw(&mut self) {
        match self.rng.u32(0..100) {
            0..20 => self.post(),
            20..33 => self.amend(),
            33..46 => self.aggregate(),
            46..53 => self.security(),
            53..64 => self.store(),
            64..70 => self.program(),
            70..74 => self.instance(),
            74..76 => self.vprogram(),
            76..90 => self.forget(),
            _ => self.ledger(),
        }
    }

    fn post(&mut self) {
        let (owner, tags) = (self.wallet(), self.rng.choice([json!(["x"]), json!(["x", "y"]), json!([])]));
        let mut content = json!({"type": self.rng.choice(["blog", "news"]),
            "content": {"body": self.rng.u32(..), "tags": tags}});
        if self.chance(30) {
            content["ref"] = self.rng.choice(["topic", "other"]).into();
        }
        self.add("POST", "post", owner, content);
    }

    fn amend(&mut self) {
        let Some(original) = self.one_of(&["post", "post", "post", "amend"]) else { return };
        let owner = if self.chance(90) { original.owner } else { self.wallet() };
        let tags = self.rng.choice([json!(["x"]), json!(["z"])]);
        let content = json!({"type": "amend", "ref": original.hash.to_string(),
            "content": {"body": self.rng.u32(..), "tags": tags}});
        self.add("POST", "amend", owner, content);
    }

    fn aggregate(&mut self) {
        let owner = self.wallet();
        let hash_shaped = ItemHash::sha256_of(b"a key").to_string();
        let key = self.rng.choice(["profile", "settings", hash_shaped.as_str()]).unwrap_or_default().to_owned();
        let mut values = serde_json::Map::new();
        for subkey in ["a", "b", "c"] {
            if self.chance(50) {
                let value = if self.chance(20) { Value::Null } else { self.rng.u32(..).into() };
                values.insert(subkey.to_owned(), value);
            }
        }
        self.add("AGGREGATE", "aggregate", owner, json!({"key": key, "content": values}));
    }

    /// Grants and revocations: each replaces all that its owner said before.
    fn security(&mut self) {
        let owner = self.wallet();
        let mut entries = Vec::new();
        for delegate in 0..=self.rich {
            if delegate != owner && self.chance(40) {
                let mut entry = json!({"address": self.address(delegate)});
                if self.chance(30) {
                    entry["types"] = self
                        .rng
                        .choice([json!(["POST"]), json!(["POST", "FORGET"]), json!(["AGGREGATE", "STORE"])])
                        .into();
                }
                if self.chance(15) {
                    entry["channels"] = json!(["A"]);
                }
                if self.chance(15) {
                    entry["post_types"] = json!(["blog"]);
                }
                if self.chance(15) {
                    entry["aggregate_keys"] = json!(["profile"]);
                }
                entries.push(entry);
            }
        }
        let content = json!({"key": "security", "content": {"authorizations": entries}});
        let signer = if self.chance(90) { owner } else { self.wallet() };
        self.add_by("AGGREGATE", "security", owner, signer, None, content);
    }

    fn store(&mut self) {
        let owner = self.wallet();
        let file = self.rng.usize(0..self.files.len());
        let mut content =
            json!({"item_type": "storage", "item_hash": ItemHash::sha256_of(&self.files[file]).to_string()});
        match self.rng.u32(0..10) {
            0..2 => content["ref"] = self.rng.choice(["doc", "picture"]).into(),
            2..6 => {
                if let Some(first) = self.one_of(&["store"]) {
                    content["ref"] = first.hash.to_string().into();
                }
            }
            _ => {}
        }
        if self.chance(40) {
            content["payment"] = json!({"type": "credit"});
        }
        self.add("STORE", "store", owner, content);
    }

    fn reference(&mut self) -> Option<String> {
        self.one_of(&["store"]).map(|store| store.hash.to_string())
    }

    fn volumes(&mut self) -> Vec<Value> {
        let mut volumes = vec![json!({"ephemeral": true, "size_mib": 5, "mount": "/tmp"})];
        if self.chance(50)
            && let Some(reference) = self.reference()
        {
            volumes.push(json!({"ref": reference, "use_latest": self.rng.bool(), "mount": "/data"}));
        }
        if self.chance(20)
            && let Some(reference) = self.reference()
        {
            volumes.push(json!({"size_mib": 100, "persistence": "host", "name": "d", "mount": "/d",
                "parent": {"ref": reference, "use_latest": self.rng.bool()}}));
        }
        volumes
    }

    fn replaced(&mut self, kinds: &[&str], owner: &mut usize) -> Option<String> {
        let replaced = if self.chance(35) { self.one_of(kinds)? } else { return None };
        if self.chance(90) {
            *owner = replaced.owner;
        }
        Some(replaced.hash.to_string())
    }

    fn program(&mut self) {
        let mut owner = self.wallet();
        let replaces = self.replaced(&["program"], &mut owner);
        let (Some(code), Some(runtime)) = (self.reference(), self.reference()) else { return };
        let persistent = self.chance(20);
        let payment = if persistent || self.chance(50) { "credit" } else { "hold" };
        let mut content = json!({"type": "vm-function", "allow_amend": self.chance(80), "environment": {}, "resources": {},
            "code": {"encoding": "zip", "entrypoint": "main:app", "ref": code, "use_latest": self.rng.bool()},
            "runtime": {"ref": runtime, "use_latest": self.rng.bool(), "comment": ""},
            "payment": {"type": payment}, "volumes": self.volumes(), "on": {"http": true, "persistent": persistent}});
        if let Some(replaces) = replaces {
            content["replaces"] = replaces.into();
        }
        self.add("PROGRAM", "program", owner, content);
    }

    fn instance(&mut self) {
        let mut owner = self.wallet();
        let replaces = self.replaced(&["instance"], &mut owner);
        let Some(parent) = self.reference() else { return };
        let mut content = json!({"allow_amend": self.chance(80), "authorized_keys": ["ssh-ed25519 AAAA"],
            "environment": {"hypervisor": "qemu"}, "resources": {"vcpus": 1, "memory": 2048, "seconds": 30},
            "payment": {"chain": "ETH", "type": "credit"}, "volumes": self.volumes(),
            "rootfs": {"parent": {"ref": parent, "use_latest": self.rng.bool()}, "persistence": "host", "size_mib": 20480}});
        if let Some(replaces) = replaces {
            content["replaces"] = replaces.into();
        }
        self.add("INSTANCE", "instance", owner, content);
    }

    fn vprogram(&mut self) {
        let owner = self.wallet();
        let (Some(runtime), Some(workload), Some(tree)) = (self.reference(), self.reference(), self.reference()) else {
            return;
        };
        let content = json!({"allow_amend": false, "metadata": {"name": "vp"}, "environment": {"internet": true},
            "resources": {"vcpus": 2, "memory": 4096, "seconds": 30}, "payment": {"chain": "ETH", "type": "credit"},
            "runtime": {"ref": runtime, "comment": ""},
            "workload": {"ref": workload, "hash_tree": tree, "roothash": "cd".repeat(32)},
            "verification": {"backend": "sev_snp", "policy": 196_608, "measurements": [
                {"platform": "sev_snp", "registers": {"launch": "ab".repeat(48)}, "vcpu_type": "EPYC-v4"}]},
            "volumes": []});
        self.add("V-PROGRAM", "v-program", owner, content);
    }

    fn forget(&mut self) {
        let mut targets = Vec::new();
        let mut owner = self.wallet();
        for number in 0..self.rng.usize(1..=3) {
            // Anything, and often what others rest on.
            let kinds: &[&str] = self
                .rng
                .choice([&[][..], &["security"][..], &["store"][..], &["post"][..], &["forget"][..]])
                .unwrap_or_default();
            let Some(target) = self.one_of(kinds) else { continue };
            if number == 0 {
                owner = target.owner;
            }
            if number == 0 || target.owner == owner || self.chance(20) {
                targets.push(target.hash.to_string());
            }
        }
        let aggregates: Vec<String> =
            if self.chance(15) { vec![ItemHash::sha256_of(b"a key").to_string()] } else { Vec::new() };
        let content = json!({"hashes": targets, "aggregates": aggregates, "reason": "drawn"});
        self.add("FORGET", "forget", owner, content);
    }

    /// Grants and expenses by the network, transfers among bankers, balances by height.
    fn ledger(&mut self) {
        let (banker, other) = (self.banker(), self.banker());
        let amount = self.rng.u64(1..100);
        match self.rng.u32(0..10) {
            0..3 => {
                let content = json!({"type": "aleph_credit_distribution", "content": {"distribution":
                    {"token": "T", "chain": "ETH", "credits": [grant(&self.address(banker), amount)]}}});
                self.network("grant", content);
            }
            3..5 => {
                let credits = json!([{"address": self.address(banker), "amount": amount}]);
                self.network(
                    "expense",
                    json!({"type": "aleph_credit_expense", "content": {"expense": {"credits": credits}}}),
                );
            }
            5..6 => {
                let balances = json!({self.address(banker): amount});
                let height = self.rng.u32(2..5);
                self.network(
                    "balances",
                    json!({"type": "balances-update",
                    "content": {"chain": "ETH", "main_height": height, "balances": balances}}),
                );
            }
            _ if banker != other => {
                let credits = json!([{"address": self.address(other), "amount": amount}]);
                let content = json!({"type": "aleph_credit_transfer", "content": {"transfer": {"credits": credits}}});
                self.add_by("POST", "transfer", banker, banker, Some(CREDITS), content);
            }
            _ => {}
        }
    }

    /// A post of the network's own account.
    fn network(&mut self, meaning: &'static str, content: Value) {
        let time = self.time();
        let envelope = Draft::new("POST", &content.to_string()).channel(CREDITS).time(time).sign(&treasury());
        let json: Value = serde_json::from_str(&to_json(&envelope)).expect("an envelope is JSON");
        let label = format!("{} {meaning} at {}", self.items.len(), time as u64 - BEGINNING);
        self.items.push(Item { label, what: What::Message(json, envelope.item_hash) });
    }
}

fn grant(address: &str, amount: u64) -> Value {
    json!({"address": address, "amount": amount, "price": "1", "tx_hash": "t", "provider": "p"})
}

/// The same object with one field changed.
pub(crate) fn with(object: &Value, field: &str, value: Value) -> Value {
    let mut changed = object.clone();
    changed[field] = value;
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_seed_is_a_history_and_every_type_is_in_it() {
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for seed in 0..5 {
            let history = History::of(seed);
            assert_eq!(format!("{history:?}"), format!("{:?}", History::of(seed)));
            assert!(history.items.len() >= MESSAGES);
            for item in &history.items {
                if let What::Message(json, _) = &item.what {
                    *kinds.entry(json["type"].as_str().expect("a type").to_owned()).or_default() += 1;
                }
            }
        }
        for kind in ["POST", "AGGREGATE", "STORE", "PROGRAM", "INSTANCE", "V-PROGRAM", "FORGET"] {
            assert!(kinds.get(kind).is_some_and(|count| *count >= 5), "{kinds:?}");
        }
    }
}
