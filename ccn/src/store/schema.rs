//! Tables and keys, byte for byte.
//!
//! Every table maps bytes to bytes. A *position* is a time and a hash key ([`crate::store::standing::Position`]). Numbers in keys are big-endian, so that their order is that of the bytes; times are doubles under
//! [`time_key`]. A *hash key* is a mark and the 32 bytes of a sha256, or a mark and the *text* of a CID, and sorts as the text of the hash does. A
//! *text* in a key is followed by a zero byte; texts that hold one themselves (no message of the network's dialect does) are cut there.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | name | number, u64 |
//! | `meta` | `digest/`, name of a part | sum of its rows, 256 bytes ([`crate::store::digest`]) |
//! | `messages` | sequence number | [`crate::store::record::MessageRecord`] |
//! | `sequence` | hash key | sequence number |
//! | `index` | index id, text, time, 16 characters of the hash, sequence number | nothing |
//! | `counts` | index id, text | number, u64 |
//! | `status` | hash key | [`crate::store::record::StatusRecord`] |
//! | `pending` | hash key, 8 bytes of the candidate | [`crate::store::record::PendingRecord`] |
//! | `needs` | sha256 of a need or fact (its first byte: 1 for a key of state, 0 for others), pending key | nothing; of a state made anew, what it has of the message |
//! | `bases` | pending key | [`crate::store::record::BasisRecord`] |
//! | `wakes` | a need that has arrived, as in `needs` | nothing |
//! | `horizon` | milliseconds, pending key | nothing |
//! | `state` | namespace, key | the plugin's value |
//! | `files` | hash key | [`crate::store::record::FileRecord`] |
//! | `pins` | hash key of the file, hash key of the message | [`crate::store::record::PinRecord`] |
//! | `grace` | milliseconds, hash key of the file | nothing |
//! | `owned` | address, content time, hash key of the message, hash key of the file | bytes and kind of the file |
//! | `delegations` | address, position of the message | [`crate::store::record::DelegationRecord`] |
//! | `forgotten` | hash key | [`crate::store::record::ForgottenRecord`] |
//! | `forgets` | hash key of the target, position of the message that forgets it | nothing |
//! | `uses` | hash key of what is used, position of the user | until: a position, or nothing |
//! | `purge` | milliseconds, hash key | nothing |
//! | `costs` | hash key | [`crate::store::record::CostRecord`] |
//! | `spending` | address, payment | sum of costs, 16 bytes |
//! | `workloads` | hash key | [`crate::store::record::WorkloadRecord`] |
//! | `balances` | address, chain, dapp | [`crate::store::record::BalanceRecord`] |
//! | `credits` | time, hash key | [`crate::store::record::CreditRecord`] |
//! | `movers` | address, time, hash key | nothing |
//! | `lots` | address, time, hash key, number | [`crate::store::record::LotRecord`] |
//! | `quarantine` | hash key | [`crate::store::record::QuarantineRecord`] |
//! | `namespaces` | namespace | [`crate::store::record::NamespaceRecord`] |
//! | `rebuilds` | namespace | [`crate::store::record::RebuildRecord`] |
//! | `rebuilt` | namespace, key | what will be the plugin's value |
//! | `suspended` | sha256 of the plugin, hex | [`crate::store::record::SuspensionRecord`] |
//! | `confirmations` | hash key, chain, indexer, height, transaction | [`crate::store::confirmation::ConfirmationRecord`] |
//! | `chain_state` | namespace, key; the key begins with the chain | the indexer's value |
//! | `chain_progress` | chain, indexer | [`crate::chains::record::ProgressRecord`] |
//! | `chain_blocks` | chain, indexer, height | [`crate::chains::record::BlockRecord`] |
//! | `chain_work` | chain, indexer, height, number | [`crate::chains::record::WorkRecord`] |
//! | `chain_balances` | address, chain | [`crate::store::record::BalanceRecord`] |
//! | `ranks` | message type or nothing, number of messages of the sender, sender | nothing |
//! | `tallies` | a [`Tally`], text | number, u64 |
//! | `priced` | payment, address, hash key | nothing |
//! | `totals` | payment, address; of all addresses: payment | [`crate::store::record::TotalsRecord`] |
//! | `consumed` | hash key | credits that were used up for it, u128 |
//! | `history` | address | [`crate::store::record::HistoryRecord`] |
//! | `refunded` | hash key | [`crate::store::record::CostRecord`] |
//! | `removed` | hash key | [`crate::store::record::RemovedRecord`] |
//! | `removing` | owner, hash key | [`crate::store::record::RemovingRecord`] |
//! | `ipfs_pins` | hash key of a file; 0 | [`crate::pinning::record::IpfsPinRecord`]; the id of the IPFS node that they are of |
//! | `holdings` | address, chain | tokens, i128 |
//! | `chronicle` | first confirmation, seconds or all ones; then as in `index` | nothing |
//! | `ended` | an [`Ending`], as in `counts`, time of the end, hash key | nothing |
//! | `ended` | 0, hash key | the keys of its other rows |
//! | `arrivals` | a status, milliseconds, hash key | nothing |
//! | `grantees` | 1, address that may act, owner | nothing |
//! | `grantees` | 0, owner | addresses that may act for it |
//! | `own_counts` | `h`, chain or nothing: rows of `holdings`; [`Ending`], as in `counts`: rows of `ended`; `a`, a status: rows of `arrivals`; `f` or `b`, address: rows of `owned` or their bytes | number, u64 |
//!
//! `owned` and the last six follow from other tables, and are kept by every commit from what it changes ([`crate::store::derived`]).
//!
//! Records are postcard. The `meta` row `schema` holds [`SCHEMA_VERSION`]; a store of another version is refused.

use ccn_message::ItemHash;
use redb::TableDefinition;

/// Version of everything above.
pub const SCHEMA_VERSION: u64 = 7;

macro_rules! tables {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Table {
            $($(#[$doc])* $variant,)*
        }

        impl Table {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name on the disk.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Its definition for the database.
            #[must_use]
            pub fn definition(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
                TableDefinition::new(self.name())
            }
        }
    };
}

tables! {
    /// Numbers of the store itself.
    Meta = "meta",
    /// Processed messages.
    Messages = "messages",
    /// Where a hash is in `messages`.
    Sequence = "sequence",
    /// Messages by property and time.
    Index = "index",
    /// How many messages an index entry has.
    Counts = "counts",
    /// What became of a hash.
    Status = "status",
    /// Messages that wait, and rejected ones that may yet be revived.
    Pending = "pending",
    /// What they wait for.
    Needs = "needs",
    /// What has arrived and is waited for: the next messages to decide.
    Wakes = "wakes",
    /// When waiting is shown as a rejection.
    Horizon = "horizon",
    /// State of plugins.
    State = "state",
    /// Files that are here.
    Files = "files",
    /// Who keeps a file.
    Pins = "pins",
    /// Until when a file is kept without a pin.
    Grace = "grace",
    /// Files by owner.
    Owned = "owned",
    /// What decided messages rest on, and what is to be undone when that changes.
    Bases = "bases",
    /// Delegations by owner and position.
    Delegations = "delegations",
    /// Messages that are hidden.
    Forgotten = "forgotten",
    /// Who hides a message.
    Forgets = "forgets",
    /// Who uses a message.
    Uses = "uses",
    /// When the content of a hidden message is deleted.
    Purge = "purge",
    /// Costs by message.
    Costs = "costs",
    /// Sums of costs by owner.
    Spending = "spending",
    /// What compute nodes are asked to run.
    Workloads = "workloads",
    /// Tokens by owner.
    Balances = "balances",
    /// Movements of credits, in the order in which they count.
    Credits = "credits",
    /// Movements of credits by address.
    Movers = "movers",
    /// Credits that are left, derived from the movements.
    Lots = "lots",
    /// Messages whose plugin failed.
    Quarantine = "quarantine",
    /// Whose the state of each namespace is.
    Namespaces = "namespaces",
    /// States that are being made anew.
    Rebuilds = "rebuilds",
    /// What they will be.
    Rebuilt = "rebuilt",
    /// Plugins that are not called any more.
    Suspended = "suspended",
    /// What chains say of messages, as this node sees them.
    Confirmations = "confirmations",
    /// State of indexers of chains.
    ChainState = "chain_state",
    /// How far chains are followed.
    ChainProgress = "chain_progress",
    /// Blocks that may yet be taken back, with what they changed.
    ChainBlocks = "chain_blocks",
    /// What blocks have told and is still to be done.
    ChainWork = "chain_work",
    /// Tokens by owner, as this node's own view of a chain has them.
    ChainBalances = "chain_balances",
    /// Senders by how many messages they have sent.
    Ranks = "ranks",
    /// How many rows other tables have of a kind.
    Tallies = "tallies",
    /// What has costs, by who pays.
    Priced = "priced",
    /// Sums of costs by who pays.
    Totals = "totals",
    /// Credits that were used up for a message.
    Consumed = "consumed",
    /// Sums over the movements of credits of an address.
    History = "history",
    /// What a message cost that costs nothing any more.
    Refunded = "refunded",
    /// Messages that were removed for want of funds.
    Removed = "removed",
    /// Messages that will be removed for want of funds.
    Removing = "removing",
    /// Tokens by owner and chain as they count here.
    Holdings = "holdings",
    /// Messages by their first confirmation.
    Chronicle = "chronicle",
    /// Messages that are hidden or removed, by when.
    Ended = "ended",
    /// Hashes by what became of their messages, and by when they came.
    Arrivals = "arrivals",
    /// Owners by those who may act for them.
    Grantees = "grantees",
    /// Files that an IPFS node was given to keep.
    IpfsPins = "ipfs_pins",
    /// How many rows tables of this node's own have of a kind.
    OwnCounts = "own_counts",
}

/// Properties that messages are indexed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum IndexId {
    /// Every message; the text is empty.
    All = 1,
    /// Envelope's sender.
    Sender = 2,
    /// Content's address.
    Owner = 3,
    /// Message type.
    Kind = 4,
    /// Channel.
    Channel = 5,
    /// Chain.
    Chain = 6,
    /// A label: name, `=`, value.
    Label = 7,
    /// Content's address and channel. Counted, without rows in the index.
    OwnerChannel = 8,
    /// Content's address, message type, and the value of [`COUNTED_LABEL`]. Counted, without rows in the index.
    OwnerLabel = 9,
    /// Envelope's sender and message type. Counted, without rows in the index.
    SenderKind = 10,
    /// Content's address and message type. Counted, without rows in the index.
    OwnerKind = 11,
    /// Channel and message type. Counted, without rows in the index.
    ChannelKind = 12,
}

impl IndexId {
    /// True for properties whose entries are kept apart by message type: of one that many messages have, those of a type are found without the others.
    #[must_use]
    pub fn is_by_kind(self) -> bool {
        matches!(self, Self::Sender | Self::Owner | Self::Channel)
    }
}

/// The name in `meta` of the number of files that messages keep.
pub const KEPT_FILES: &[u8] = b"kept-files";

/// The label whose values are counted by owner.
pub const COUNTED_LABEL: &str = "content-type";

/// What is counted in `tallies`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Tally {
    /// Senders of messages of a type, or of any.
    Senders = 1,
    /// Addresses that have credits, expired ones included.
    Credited = 2,
}

/// The key of a tally.
#[must_use]
pub fn tally_key(tally: Tally, text: &str) -> Vec<u8> {
    Key::new().bytes(&[tally as u8]).text(text).done()
}

/// The key of a count by several properties.
#[must_use]
pub fn count_key(id: IndexId, texts: &[&str]) -> Vec<u8> {
    texts.iter().fold(Key::new().bytes(&[id as u8]), |key, text| key.bytes(&shortened(text))).done()
}

/// The place of a sender among those with as many messages of a type; the type is empty where all count.
#[must_use]
pub fn rank_key(kind: &str, messages: u64, sender: &str) -> Vec<u8> {
    Key::new().text(kind).number(messages).text(sender).done()
}

/// How a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Ending {
    /// It is hidden.
    Forgotten = 1,
    /// It was removed for want of funds.
    Removed = 2,
}

/// A key under construction.
#[derive(Debug, Clone, Default)]
pub struct Key(Vec<u8>);

impl Key {
    /// An empty key.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With bytes of a fixed length.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// With a number.
    #[must_use]
    pub fn number(self, number: u64) -> Self {
        self.bytes(&number.to_be_bytes())
    }

    /// With a time in seconds.
    #[must_use]
    pub fn time(self, seconds: f64) -> Self {
        self.bytes(&time_key(seconds))
    }

    /// With a text.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.0.extend(text.bytes().take_while(|byte| *byte != 0));
        self.0.push(0);
        self
    }

    /// With a hash: bytes that sort as its text does, and of which none begins another's.
    #[must_use]
    pub fn hash(self, hash: &ItemHash) -> Self {
        match hash.sha256() {
            Some(digest) => self.bytes(&[sha256_mark(digest)]).bytes(digest),
            None => {
                let text = hash.to_string();
                let mark = if text.starts_with(CID_V0_BEGINNING) { CID_V0_MARK } else { CID_V1_MARK };
                self.bytes(&[mark]).text(&text)
            }
        }
    }

    /// The bytes.
    #[must_use]
    pub fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Marks of hashes in keys: a sha256 is kept as 32 bytes, and what kind a hash is sorts between those that its text sorts between.
const CID_V0_MARK: u8 = 1;
const CID_V1_MARK: u8 = 3;
/// What the keys of files of IPFS begin with, in their order.
pub(crate) const CID_MARKS: [u8; 2] = [CID_V0_MARK, CID_V1_MARK];
/// How the texts of the older CIDs begin: behind the digits, before the letters of a sha256.
const CID_V0_BEGINNING: &str = "Qm";

/// The mark of a sha256: 0 where its text begins with a digit, 2 up to `baf`, 4 beyond (`bafy…` is a CID).
fn sha256_mark(digest: &[u8; 32]) -> u8 {
    const BAF: [u8; 2] = [0xba, 0xff];
    match () {
        () if digest[0] < 0xa0 => 0,
        () if digest[..2] <= BAF[..] => 2,
        () => 4,
    }
}

/// The key of a hash alone.
#[must_use]
pub fn hash_key(hash: &ItemHash) -> Vec<u8> {
    Key::new().hash(hash).done()
}

/// Reads a hash from the front of a key; returns the rest.
#[must_use]
pub fn split_hash(key: &[u8]) -> Option<(ItemHash, &[u8])> {
    let (mark, rest) = key.split_first()?;
    if matches!(*mark, CID_V0_MARK | CID_V1_MARK) {
        let (text, rest) = split_text(rest)?;
        return Some((ItemHash::parse(text).ok()?, rest));
    }
    let (digest, rest) = rest.split_first_chunk::<32>()?;
    (*mark == sha256_mark(digest)).then(|| (ItemHash::from_sha256(*digest), rest))
}

/// Reads a text from the front of a key; returns the rest.
#[must_use]
pub fn split_text(key: &[u8]) -> Option<(&str, &[u8])> {
    let end = key.iter().position(|byte| *byte == 0)?;
    Some((std::str::from_utf8(&key[..end]).ok()?, &key[end + 1..]))
}

/// A time as bytes that sort as it does, negative ones included.
#[must_use]
pub fn time_key(seconds: f64) -> [u8; 8] {
    // Zero has two signs and must have one place.
    let bits = (seconds + 0.0).to_bits();
    let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    ordered.to_be_bytes()
}

/// The time of such bytes.
#[must_use]
pub fn time_of_key(key: [u8; 8]) -> f64 {
    let ordered = u64::from_be_bytes(key);
    f64::from_bits(if ordered >> 63 == 1 { ordered & !(1 << 63) } else { !ordered })
}

/// Characters of a hash that an index key carries: enough that messages of one second are in the order of their hashes.
pub const INDEX_HASH_CHARS: usize = 16;

/// Longest text that an index holds as it is, bytes; of a longer one its beginning and its sha256.
pub const MAX_INDEX_TEXT_BYTES: usize = 256;

/// The part of an index key that all entries of one property share, and what they are counted under.
#[must_use]
pub fn index_prefix(id: IndexId, text: &str) -> Vec<u8> {
    Key::new().bytes(&[id as u8]).bytes(&shortened(text)).done()
}

/// What the entries of one property begin with in the index, of messages of one type.
#[must_use]
pub fn entry_prefix(id: IndexId, text: &str, kind: &str) -> Vec<u8> {
    let prefix = index_prefix(id, text);
    if id.is_by_kind() { [prefix, shortened(kind)].concat() } else { prefix }
}

/// A text as indexes hold it.
fn shortened(text: &str) -> Vec<u8> {
    if text.len() <= MAX_INDEX_TEXT_BYTES {
        return Key::new().text(text).done();
    }
    let beginning = &text[..text.floor_char_boundary(MAX_INDEX_TEXT_BYTES)];
    Key::new().text(beginning).bytes(ItemHash::sha256_of(text.as_bytes()).to_string().as_bytes()).done()
}

/// What follows the prefix: time, hash, sequence number.
pub const INDEX_SUFFIX_BYTES: usize = 8 + INDEX_HASH_CHARS + 8;

/// What follows the prefix of an index key.
#[must_use]
pub fn index_suffix(time: f64, hash: &ItemHash, sequence: u64) -> [u8; INDEX_SUFFIX_BYTES] {
    let mut suffix = [0; INDEX_SUFFIX_BYTES];
    suffix[..8].copy_from_slice(&time_key(time));
    let text = hash.to_string();
    for (to, from) in suffix[8..].iter_mut().zip(text.bytes().take(INDEX_HASH_CHARS)) {
        *to = from;
    }
    suffix[8 + INDEX_HASH_CHARS..].copy_from_slice(&sequence.to_be_bytes());
    suffix
}

/// The first key after all that start with `prefix`.
#[must_use]
pub fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![u8::MAX; 2048]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hashes_come_back_from_keys() {
        let hash = ItemHash::sha256_of(b"x");
        let key = Key::new().hash(&hash).number(7).done();
        let (read, rest) = split_hash(&key).expect("a hash");
        assert_eq!((read, rest), (hash, &7_u64.to_be_bytes()[..]));
        assert_eq!(split_hash(b"zz"), None);
        for cid in [
            "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o",
            "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",
        ] {
            let hash = ItemHash::parse(cid).expect("a CID");
            assert_eq!(split_hash(&Key::new().hash(&hash).number(7).done()), Some((hash, &7_u64.to_be_bytes()[..])));
        }
    }

    proptest! {
        #[test]
        fn times_sort_as_numbers(a in -1e12..1e12_f64, b in -1e12..1e12_f64) {
            prop_assert_eq!(time_key(a).cmp(&time_key(b)), a.partial_cmp(&b).expect("numbers"));
            prop_assert_eq!(time_of_key(time_key(a)), a);
        }

        #[test]
        fn keys_of_hashes_sort_as_their_texts(beginnings in any::<[[u8; 2]; 2]>(), near in any::<[bool; 2]>(), digest in any::<[u8; 30]>()) {
            let sha256 = |beginning: [u8; 2], near: bool| {
                let mut all = [0; 32];
                all[..2].copy_from_slice(&if near { [0xb9 + beginning[0] % 3, beginning[1]] } else { beginning });
                all[2..].copy_from_slice(&digest);
                ItemHash::from_sha256(all)
            };
            let mut hashes = [
                sha256(beginnings[0], near[0]),
                sha256(beginnings[1], near[1]),
                ItemHash::parse("QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o").expect("a CID"),
                ItemHash::parse("bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi").expect("a CID"),
            ];
            hashes.sort_by_key(ToString::to_string);
            prop_assert!(hashes.is_sorted_by_key(hash_key));
        }

        #[test]
        fn ends_come_after_prefixes(prefix in proptest::collection::vec(any::<u8>(), 1..8), more in proptest::collection::vec(any::<u8>(), 0..8)) {
            let mut key = prefix.clone();
            key.extend(more);
            prop_assert!(end_of(&prefix) > key);
        }
    }
}
