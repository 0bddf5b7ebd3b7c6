//! What the tables hold.

use ccn_message::{Amount, Chain, Envelope, ItemHash, ItemType, MessageStatus};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A record that cannot be read: the store is damaged, or of another version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a {record} record of the store cannot be read: {problem}")]
pub struct DamagedRecord {
    record: &'static str,
    problem: String,
}

impl DamagedRecord {
    /// A row that is not what its table holds.
    pub(super) fn of(record: &'static str) -> Self {
        Self { record, problem: "it has another form".into() }
    }

    pub(super) fn of_journal(problem: String) -> Self {
        Self { record: "journal", problem }
    }
}

/// Something that is kept as postcard.
pub trait Record: Serialize + DeserializeOwned {
    /// What it is called in errors.
    const NAME: &'static str;

    /// As bytes.
    #[must_use]
    fn to_bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("records hold nothing that postcard refuses")
    }

    /// From bytes.
    ///
    /// # Errors
    /// They are of something else.
    fn read(bytes: &[u8]) -> Result<Self, DamagedRecord> {
        postcard::from_bytes(bytes).map_err(|error| DamagedRecord { record: Self::NAME, problem: error.to_string() })
    }
}

macro_rules! records {
    ($($record:ty = $name:literal,)*) => {
        $(impl Record for $record { const NAME: &'static str = $name; })*
    };
}

records! {
    MessageRecord = "message",
    StatusRecord = "status",
    PendingRecord = "pending message",
    NeedRecord = "need",
    FileRecord = "file",
    PinRecord = "pin",
    DelegationRecord = "delegation",
    ForgottenRecord = "forgotten message",
    BasisRecord = "basis",
    CostRecord = "cost",
    WorkloadRecord = "workload",
    BalanceRecord = "balance",
    CreditRecord = "credit",
    LotRecord = "lot",
    QuarantineRecord = "quarantine",
    NamespaceRecord = "namespace",
    RebuildRecord = "rebuild",
    SuspensionRecord = "suspension",
    TotalsRecord = "totals",
    HistoryRecord = "history",
    RemovedRecord = "removed message",
    RemovingRecord = "announced removal",
}

/// An envelope whose words are checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnvelopeRecord {
    /// Who signed.
    pub sender: String,
    chain: String,
    /// Message type.
    pub kind: String,
    /// Channel.
    pub channel: Option<String>,
    /// Seconds since 1970.
    pub time: f64,
    item_type: String,
    /// Inline content.
    pub item_content: Option<String>,
    item_hash: String,
    /// Signature.
    pub signature: Option<String>,
}

impl From<&Envelope> for EnvelopeRecord {
    fn from(envelope: &Envelope) -> Self {
        Self {
            sender: envelope.sender.clone(),
            chain: envelope.chain.name().to_owned(),
            kind: envelope.kind.clone(),
            channel: envelope.channel.clone(),
            time: envelope.time,
            item_type: envelope.item_type.name().to_owned(),
            item_content: envelope.item_content.clone(),
            item_hash: envelope.item_hash.to_string(),
            signature: envelope.signature.clone(),
        }
    }
}

impl EnvelopeRecord {
    /// The chain's name.
    #[must_use]
    pub fn chain(&self) -> &str {
        &self.chain
    }

    /// Where the content is: `inline`, `storage` or `ipfs`.
    #[must_use]
    pub fn item_type(&self) -> &str {
        &self.item_type
    }

    /// The hash, as text.
    #[must_use]
    pub fn item_hash(&self) -> &str {
        &self.item_hash
    }

    /// The envelope.
    ///
    /// # Errors
    /// A word is unknown.
    pub fn envelope(self) -> Result<Envelope, DamagedRecord> {
        let damaged = |problem: String| DamagedRecord { record: "envelope", problem };
        Ok(Envelope {
            chain: self.chain.parse::<Chain>().map_err(|error| damaged(error.to_string()))?,
            item_type: ItemType::from_name(&self.item_type).ok_or_else(|| damaged(self.item_type.clone()))?,
            item_hash: ItemHash::parse(&self.item_hash).map_err(|error| damaged(error.to_string()))?,
            sender: self.sender,
            kind: self.kind,
            channel: self.channel,
            time: self.time,
            item_content: self.item_content,
            signature: self.signature,
        })
    }
}

/// A processed message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MessageRecord {
    /// Its envelope.
    pub envelope: EnvelopeRecord,
    /// The content's JSON when it is not inline.
    pub content: Option<String>,
    /// Length of the content as received: characters when inline, bytes otherwise.
    pub size: u64,
    /// The content's address.
    pub owner: String,
    /// The content's time, seconds.
    pub content_time: f64,
    /// What it is indexed by: name and value.
    pub labels: Vec<(String, String)>,
    /// Milliseconds since 1970.
    pub reception_time: u64,
}

impl MessageRecord {
    /// The content's JSON.
    #[must_use]
    pub fn content(&self) -> &str {
        self.content.as_deref().or(self.envelope.item_content.as_deref()).unwrap_or("{}")
    }

    /// Without its content, wherever that is.
    pub fn drop_content(&mut self) {
        self.content = None;
        self.envelope.item_content = None;
    }
}

/// What became of a hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusRecord {
    status: u8,
    /// First seen, milliseconds since 1970.
    pub reception_time: u64,
    /// Of a rejected message: what it was and why it was refused.
    pub rejection: Option<RejectionRecord>,
}

impl StatusRecord {
    /// A status without more.
    #[must_use]
    pub fn new(status: MessageStatus, reception_time: u64, rejection: Option<RejectionRecord>) -> Self {
        let place = MessageStatus::ALL.iter().position(|each| *each == status).unwrap_or(0);
        Self { status: place as u8, reception_time, rejection }
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> MessageStatus {
        MessageStatus::ALL.get(usize::from(self.status)).copied().unwrap_or(MessageStatus::Pending)
    }
}

/// Why a message was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectionRecord {
    /// The public code.
    pub code: i32,
    /// JSON values as text.
    pub errors: Vec<String>,
    /// The message as JSON text.
    pub message: String,
}

/// A message that waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PendingRecord {
    /// Its envelope; the signature stands.
    pub envelope: EnvelopeRecord,
    /// Its rank among the copies of its hash (`pipeline::rank`).
    pub rank: (u8, [u8; 8]),
    /// Milliseconds since 1970.
    pub reception_time: u64,
    /// All that it lacks.
    pub needs: Vec<NeedRecord>,
    /// What it was decided on otherwise: a change of one of these makes it be decided again.
    pub facts: Vec<FactRecord>,
    /// True when it stood before: what depends on this node alone (funds) is not asked again.
    pub settled: bool,
    /// The verdict that shows after the horizon.
    pub otherwise: (i32, Vec<String>),
    /// Milliseconds since 1970; its key in `horizon`. None once it has passed.
    pub horizon: Option<u64>,
}

/// Something that a message lacks, whose arrival makes it be decided again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NeedRecord {
    /// A message, processed.
    Message(String),
    /// A file.
    File(String),
    /// A key of a namespace.
    State(String, Vec<u8>),
    /// Other delegations by that address.
    Delegation(String),
    /// Another answer of the ledger for that message's transfers.
    Covered(String),
    /// Another user of that message.
    InUse(String),
    /// Its own turn: what it was decided on has changed.
    Again(String),
    /// The fall of the copy of that message that stands.
    Outranked(String),
    /// Its own look at whether it is still hidden.
    Recheck(String),
    /// Time to put credits in order.
    Turn,
    /// A plugin for that message type.
    Handler(String),
    /// Time of the plugin of that name.
    PluginTurn(String),
    /// The state of that namespace made anew: its plugin says something else of this message than the one before.
    Rebuilt(String),
}

/// Something that a decision rests on, with the answer at that time (`pipeline::facts`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactRecord {
    /// The question.
    pub question: Question,
    /// The answer.
    pub answer: Vec<u8>,
}

/// A question that a decision may rest on. Each is asked as of the position of the message that is decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// What became of that message.
    Fate(String),
    /// Who hides that message, from the asker's position on.
    Forgetters(String),
    /// Whether that message is used.
    InUse(String),
    /// Whether the sender may act for that address: by this message (none), or by having created that one.
    May(String, Option<String>),
    /// The value of a key of a namespace.
    State(String, Vec<u8>),
    /// Whether its own transfers are covered.
    Covered,
}

/// What a decided message rests on, and what it did that its other rows do not tell.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BasisRecord {
    /// What it rests on.
    pub facts: Vec<FactRecord>,
    /// Files that it keeps.
    pub pins: Vec<String>,
    /// Messages that it uses.
    pub uses: Vec<String>,
    /// Messages that it hides.
    pub forgets: Vec<String>,
    /// The message with which it goes.
    pub follows: Option<String>,
    /// Balances that it published: chain, dapp, addresses.
    pub balances: Vec<(String, String, Vec<String>)>,
}

/// A message that is hidden.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForgottenRecord {
    /// The message; its content is empty once it is deleted.
    pub message: MessageRecord,
    /// Positions of those that hide the message it follows.
    pub inherited: Vec<Vec<u8>>,
    /// True when the content is deleted: it cannot come back.
    pub purged: bool,
    /// When the content is deleted, milliseconds since 1970; its key in `purge`.
    pub purge_at: u64,
}

/// Delegations of an address from one of its messages on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegationRecord {
    /// All of them.
    pub entries: Vec<AuthorizationRecord>,
    /// The position at which the message was forgotten.
    pub until: Option<Vec<u8>>,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileKind {
    /// Bytes.
    File,
    /// A folder of files.
    Directory,
}

/// A file that is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Bytes.
    pub size: u64,
    /// What it is.
    pub kind: FileKind,
    /// Kept until then without a pin, milliseconds since 1970; its key in `grace`.
    pub grace: Option<u64>,
    /// Number of pins.
    pub pins: u64,
}

/// Why a file is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PinRecord {
    /// Who keeps it.
    pub owner: String,
    /// Version tag or message, as in the content.
    pub reference: Option<String>,
    /// Seconds since 1970.
    pub created: f64,
}

/// One delegation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationRecord {
    /// Who may act.
    pub address: String,
    /// Only with this chain.
    pub chain: Option<String>,
    /// Only in these channels, when there are any.
    pub channels: Vec<String>,
    /// Only these message types, when there are any.
    pub kinds: Vec<String>,
    /// Only these values of labels that the message has.
    pub labels: Vec<(String, Vec<String>)>,
}

/// How a message is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PaymentRecord {
    /// Tokens are held.
    Hold,
    /// Tokens flow.
    Superfluid,
    /// Credits are spent.
    Credit,
}

impl PaymentRecord {
    /// The network's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Superfluid => "superfluid",
            Self::Credit => "credit",
        }
    }
}

/// One row of a price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CostLineRecord {
    /// What it is for.
    pub kind: String,
    /// Which one.
    pub name: String,
    hold: i128,
    stream: i128,
    credit: i128,
    /// MiB, as decimal text.
    pub size_mib: Option<String>,
}

impl CostLineRecord {
    /// A row of three amounts: tokens to hold, tokens a second, credits a second.
    #[must_use]
    pub fn new(kind: String, name: String, amounts: [Amount; 3], size_mib: Option<String>) -> Self {
        let [hold, stream, credit] = amounts.map(Amount::units);
        Self { kind, name, hold, stream, credit, size_mib }
    }

    /// Tokens to hold.
    #[must_use]
    pub fn hold(&self) -> Amount {
        Amount::from_units(self.hold)
    }

    /// Tokens a second.
    #[must_use]
    pub fn stream(&self) -> Amount {
        Amount::from_units(self.stream)
    }

    /// Credits a second.
    #[must_use]
    pub fn credit(&self) -> Amount {
        Amount::from_units(self.credit)
    }

    /// What that way of paying costs.
    #[must_use]
    pub fn amount(&self, payment: PaymentRecord) -> Amount {
        match payment {
            PaymentRecord::Hold => self.hold(),
            PaymentRecord::Superfluid => self.stream(),
            PaymentRecord::Credit => self.credit(),
        }
    }
}

/// What a message costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CostRecord {
    /// Who pays.
    pub address: String,
    /// How.
    pub payment: PaymentRecord,
    /// Rows.
    pub lines: Vec<CostLineRecord>,
}

impl CostRecord {
    /// What it costs in the way it is paid.
    #[must_use]
    pub fn total(&self) -> Amount {
        self.lines.iter().map(|line| line.amount(self.payment)).sum()
    }
}

/// Sums of what the messages of an address cost that are paid in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TotalsRecord {
    /// Messages.
    pub messages: u64,
    /// Credits that were used up for them.
    pub consumed: u128,
    hold: i128,
    stream: i128,
    credit: i128,
}

impl TotalsRecord {
    /// With the costs of one message more (`sign` 1) or less (-1), and of the credits used up for it.
    #[must_use]
    pub fn with(self, cost: &CostRecord, consumed: u128, sign: i8) -> Self {
        let sum = |amount: fn(&CostLineRecord) -> Amount| {
            i128::from(sign) * cost.lines.iter().map(amount).sum::<Amount>().units()
        };
        let messages = self.messages.saturating_add_signed(i64::from(sign));
        let used =
            if sign < 0 { self.consumed.saturating_sub(consumed) } else { self.consumed.saturating_add(consumed) };
        Self {
            messages,
            consumed: used,
            hold: self.hold + sum(CostLineRecord::hold),
            stream: self.stream + sum(CostLineRecord::stream),
            credit: self.credit + sum(CostLineRecord::credit),
        }
    }

    /// Tokens to hold, tokens a second, credits a second.
    #[must_use]
    pub fn amounts(&self) -> [Amount; 3] {
        [self.hold, self.stream, self.credit].map(Amount::from_units)
    }
}

/// Sums over what moved credits of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HistoryRecord {
    /// Entries.
    pub entries: u64,
    /// Credits that came.
    pub incoming: u128,
    /// Credits that went.
    pub outgoing: u128,
}

/// A message that was removed for want of funds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RemovedRecord {
    /// The message, without its content.
    pub message: MessageRecord,
    /// How it was paid.
    pub payment: PaymentRecord,
    /// Milliseconds since 1970.
    pub removed_at: u64,
    /// Of what it kept, bytes.
    pub size: u64,
}

/// A message that will be removed unless its owner can pay again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovingRecord {
    /// When, milliseconds since 1970.
    pub until_ms: u64,
    /// The row of `workloads` of what ran for it.
    pub workload: Option<Vec<u8>>,
}

/// Something a compute node is asked to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadRecord {
    /// The scheduler's word: `micro_vm`, `persistent_program`, `instance`.
    pub kind: String,
    /// Virtual processors.
    pub vcpus: u32,
    /// MiB.
    pub memory_mib: u64,
    /// MiB.
    pub disk_mib: u64,
    /// How it is paid.
    pub payment: PaymentRecord,
    /// The compute node that its owner chose.
    pub node: Option<String>,
    /// Its owner.
    pub owner: String,
    /// Accepted, milliseconds since 1970.
    pub accepted: u64,
}

/// Tokens of an address on a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalanceRecord {
    units: i128,
    /// As of this block.
    pub height: u64,
}

impl BalanceRecord {
    /// A balance as of a block.
    #[must_use]
    pub fn new(amount: Amount, height: u64) -> Self {
        Self { units: amount.units(), height }
    }

    /// Tokens.
    #[must_use]
    pub fn amount(&self) -> Amount {
        Amount::from_units(self.units)
    }
}

/// Movements of credits by one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreditRecord {
    /// In the order of the message.
    pub movements: Vec<Movement>,
    /// False when its transfers are not covered: then nothing of it counts.
    pub covered: bool,
}

/// One movement of credits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Movement {
    /// New credits.
    Grant {
        /// Who gets them.
        address: String,
        /// Credits.
        amount: u64,
        /// Milliseconds since 1970.
        expiration: Option<u64>,
        /// The rest of the history row, JSON.
        details: String,
    },
    /// Credits used up.
    Expense {
        /// Who pays.
        address: String,
        /// Credits.
        amount: u64,
        /// The rest of the history row, JSON.
        details: String,
    },
    /// Credits handed on.
    Transfer {
        /// Who gives.
        sender: String,
        /// Who gets.
        recipient: String,
        /// Credits.
        amount: u64,
        /// Milliseconds since 1970.
        expiration: Option<u64>,
    },
}

/// Credits that are left of one grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LotRecord {
    /// Credits.
    pub remaining: u64,
    /// Milliseconds since 1970.
    pub expiration: Option<u64>,
}

/// A message whose plugin failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuarantineRecord {
    /// The plugin.
    pub plugin: String,
    /// The sha256 of its file, hex; empty when it is gone.
    pub sha256: String,
    /// Whose trouble it is: a name of [`crate::host::FailureClass`].
    pub class: String,
    /// What happened.
    pub reason: String,
    /// The message.
    pub envelope: EnvelopeRecord,
    /// Milliseconds since 1970.
    pub reception_time: u64,
}

/// Whose the state of a namespace is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceRecord {
    /// The namespace.
    pub namespace: String,
    /// Of the layout.
    pub version: u32,
    /// The name of the plugin that wrote it.
    pub plugin: String,
    /// Its version.
    pub release: String,
    /// The sha256 of its file, hex.
    pub sha256: String,
    /// The message types that it is made of.
    pub types: Vec<String>,
}

/// A state that is made anew, or has to be, and how far that has come (`pipeline::rebuild`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebuildRecord {
    /// The sha256 of the plugin that it is made for, hex; empty when it is not begun.
    pub sha256: String,
    /// What is being done.
    pub stage: RebuildStage,
    /// How far that has come: up to and including what begins with this, in the stage's own order.
    pub cursor: Vec<u8>,
    /// Messages that were looked at, of those that stand.
    pub replayed: u64,
    /// Passes over those that were not accepted at first.
    pub passes: u32,
    /// True when the pass at hand brought one in.
    pub progress: bool,
    /// True when a message came or went while the new state took the place of the old one: then it is to be made once more.
    pub is_wrong: bool,
}

impl RebuildRecord {
    /// It is begun for the plugin of that sha256.
    #[must_use]
    pub fn begun(sha256: &str) -> Self {
        Self {
            sha256: sha256.to_owned(),
            stage: RebuildStage::Clearing,
            cursor: Vec::new(),
            replayed: 0,
            passes: 0,
            progress: false,
            is_wrong: false,
        }
    }

    /// It has to be made anew, by whichever plugin comes.
    #[must_use]
    pub fn wanted() -> Self {
        Self::begun("")
    }
}

/// What is done to make a state anew, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RebuildStage {
    /// What an earlier attempt has left is deleted.
    Clearing,
    /// Hidden messages are replayed, and taken out again. The cursor is a key of `forgotten`.
    Hidden,
    /// Messages that stand are replayed. The cursor is the end of a key of `index`, without the sequence number.
    Standing,
    /// Those that were not accepted are tried again, as others that they refer to may have come since. The cursor is a key of `needs`.
    Again,
    /// The old state is deleted.
    Emptying,
    /// The new one takes its place.
    Moving,
}

/// A plugin that is not called any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuspensionRecord {
    /// Why.
    pub reason: String,
    /// Milliseconds since 1970.
    pub since: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = MessageRecord::read(&bytes);
            let _ = StatusRecord::read(&bytes);
            let _ = PendingRecord::read(&bytes);
            let _ = CostRecord::read(&bytes);
            let _ = CreditRecord::read(&bytes);
            let _ = NamespaceRecord::read(&bytes);
            let _ = RebuildRecord::read(&bytes);
        }
    }

    #[test]
    fn statuses_survive() {
        for status in MessageStatus::ALL {
            let record = StatusRecord::new(status, 7, None);
            assert_eq!(StatusRecord::read(&record.to_bytes()), Ok(record.clone()));
            assert_eq!(record.status(), status);
        }
    }
}
