//! What a plugin answers, checked against its manifest and the bounds of the contract, in the words of the store.

use super::{
    contract,
    manifest::Limits,
    plugin::Granted,
    view::{MAX_KEY_BYTES, MAX_VALUE_BYTES},
};
use crate::store::record::{AuthorizationRecord, CostLineRecord, Movement, PaymentRecord};
use ccn_message::{Amount, ItemHash};
use std::time::Duration;

/// Most labels of a message.
const MAX_LABELS: usize = 256;
/// Most subjects, needs or pins of a message.
const MAX_HASHES: usize = 1000;
/// Most messages that one message forgets or uses.
const MAX_FORGETS: usize = 10_000;
/// Most delegations of an address.
const MAX_AUTHORIZATIONS: usize = 10_000;
/// Most rows of a price.
const MAX_COST_LINES: usize = 1000;
/// Most movements in the ledger of a message.
const MAX_MOVEMENTS: usize = 100_000;
/// Most errors of a rejection.
const MAX_ERRORS: usize = 1000;
/// Most text of a rejection, bytes.
const MAX_ERROR_BYTES: usize = 256 << 10;
/// Longest details of a movement, bytes.
const MAX_DETAILS_BYTES: usize = 16 << 10;
/// Largest body of an answer, bytes.
const MAX_BODY_BYTES: usize = 32 << 20;

/// A bound that was crossed, or a word that is none.
pub(super) type Overrun = String;

/// A verdict against a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The public code.
    pub code: i32,
    /// JSON values as text.
    pub errors: Vec<String>,
}

impl Rejection {
    /// With one sentence.
    pub fn sentence(code: i32, sentence: &str) -> Self {
        Self { code, errors: vec![serde_json::Value::from(sentence).to_string()] }
    }
}

/// Whose permission a message exercises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// To create this message.
    ThisMessage,
    /// To have created that one.
    OtherMessage(ItemHash),
}

/// What can be said of a message from its own bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Permissions.
    pub subjects: Vec<Subject>,
    /// Name and value of what it is indexed by.
    pub labels: Vec<(String, String)>,
}

/// Something that a message lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// A message, processed.
    Message(ItemHash),
    /// A file.
    File(ItemHash),
    /// A key of a namespace.
    State(String, Vec<u8>),
}

/// What a message costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// How it is paid.
    pub payment: PaymentRecord,
    /// Rows.
    pub lines: Vec<CostLineRecord>,
    /// False when it passes whatever its owner's funds.
    pub enforced: bool,
}

/// Something to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// The scheduler's word.
    pub kind: &'static str,
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
}

/// Tokens on one chain as of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBalances {
    /// Chain.
    pub chain: String,
    /// Where the tokens are locked, if they are.
    pub dapp: Option<String>,
    /// Block.
    pub height: u64,
    /// By address.
    pub balances: Vec<(String, Amount)>,
}

/// A key with its new value; none for a deletion.
pub type Write = (Vec<u8>, Option<Vec<u8>>);

/// Everything that accepting a message changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effects {
    /// Keys of the plugin's namespace.
    pub writes: Vec<Write>,
    /// Files that are kept, with the version that they are of.
    pub pins: Vec<(ItemHash, Option<String>)>,
    /// What it costs.
    pub costs: Option<Price>,
    /// What is to run.
    pub workload: Option<Workload>,
    /// All delegations of the address.
    pub authorizations: Option<Vec<AuthorizationRecord>>,
    /// Credits that move, in order.
    pub movements: Vec<Movement>,
    /// Tokens.
    pub balances: Vec<TokenBalances>,
    /// Messages that go.
    pub forgets: Vec<ItemHash>,
    /// Messages that must not go while this one stands.
    pub uses: Vec<ItemHash>,
    /// The message with which this one goes.
    pub follows: Option<ItemHash>,
    /// Namespace and key of state on whose change this message is decided anew.
    pub watches: Vec<(String, Vec<u8>)>,
}

/// What a plugin decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The message stands.
    Accepted(Box<Effects>),
    /// The message is refused.
    Rejected(Rejection),
    /// The message lacks something.
    Waiting {
        /// What it lacks, all of it.
        needs: Vec<Need>,
        /// The verdict should it never come.
        otherwise: Rejection,
    },
}

pub(super) fn at_most(what: &str, count: usize, most: usize) -> Result<(), Overrun> {
    if count > most { Err(format!("{count} {what}, more than {most}")) } else { Ok(()) }
}

pub(super) fn hash(text: &str) -> Result<ItemHash, Overrun> {
    ItemHash::parse(text).map_err(|error| error.to_string())
}

pub(super) fn amount(text: &str) -> Result<Amount, Overrun> {
    text.parse().map_err(|error: ccn_message::amount::InvalidAmount| error.to_string())
}

pub(super) fn rejection(rejection: contract::Rejection) -> Result<Rejection, Overrun> {
    at_most("errors", rejection.errors.len(), MAX_ERRORS)?;
    at_most("bytes of errors", rejection.errors.iter().map(String::len).sum(), MAX_ERROR_BYTES)?;
    let json = |text: String| match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(_) => text,
        Err(_) => serde_json::Value::from(text).to_string(),
    };
    Ok(Rejection { code: rejection.code, errors: rejection.errors.into_iter().map(json).collect() })
}

pub(super) fn plan(plan: contract::Plan) -> Result<Plan, Overrun> {
    at_most("labels", plan.labels.len(), MAX_LABELS)?;
    at_most("subjects", plan.subjects.len(), MAX_HASHES)?;
    let subject = |subject| match subject {
        contract::Subject::ThisMessage => Ok(Subject::ThisMessage),
        contract::Subject::OtherMessage(other) => Ok(Subject::OtherMessage(hash(&other)?)),
    };
    let subjects = plan.subjects.into_iter().map(subject).collect::<Result<_, Overrun>>()?;
    let mut labels: Vec<_> = plan.labels.into_iter().map(|label| (label.name, label.value)).collect();
    // Twice the same label would be counted twice.
    labels.sort();
    labels.dedup();
    Ok(Plan { subjects, labels })
}

fn payment(payment: contract::Payment) -> PaymentRecord {
    match payment {
        contract::Payment::Hold => PaymentRecord::Hold,
        contract::Payment::Superfluid => PaymentRecord::Superfluid,
        contract::Payment::Credit => PaymentRecord::Credit,
    }
}

pub(super) fn price(costs: contract::Costs) -> Result<Price, Overrun> {
    at_most("rows of a price", costs.lines.len(), MAX_COST_LINES)?;
    let line = |line: contract::CostLine| {
        let amounts = [amount(&line.hold)?, amount(&line.stream)?, amount(&line.credit)?];
        Ok(CostLineRecord::new(line.kind, line.name, amounts, line.size_mib))
    };
    let lines = costs.lines.into_iter().map(line).collect::<Result<_, Overrun>>()?;
    Ok(Price { payment: payment(costs.payment), lines, enforced: costs.enforced })
}

fn need(need: contract::Need) -> Result<Need, Overrun> {
    match need {
        contract::Need::Message(other) => Ok(Need::Message(hash(&other)?)),
        contract::Need::File(file) => Ok(Need::File(hash(&file)?)),
        contract::Need::State((namespace, key)) => {
            at_most("bytes in a key", key.len(), MAX_KEY_BYTES)?;
            at_most("bytes in a namespace", namespace.len(), MAX_KEY_BYTES)?;
            Ok(Need::State(namespace, key))
        }
    }
}

fn workload(workload: contract::Workload) -> Workload {
    Workload {
        kind: match workload.kind {
            contract::WorkloadKind::MicroVm => "micro_vm",
            contract::WorkloadKind::PersistentProgram => "persistent_program",
            contract::WorkloadKind::Instance => "instance",
        },
        vcpus: workload.vcpus,
        memory_mib: workload.memory_mib,
        disk_mib: workload.disk_mib,
        payment: payment(workload.payment),
        node: workload.node,
    }
}

pub(super) fn writes(writes: Vec<contract::Write>, limits: &Limits) -> Result<Vec<Write>, Overrun> {
    at_most("keys written", writes.len(), usize::try_from(limits.writes).unwrap_or(usize::MAX))?;
    let mut bytes = 0;
    for write in &writes {
        let value = write.value.as_ref().map_or(0, Vec::len);
        at_most("bytes in a key", write.key.len(), MAX_KEY_BYTES)?;
        at_most("bytes in a value", value, MAX_VALUE_BYTES)?;
        bytes += write.key.len() + value;
    }
    at_most("bytes written", bytes, usize::try_from(limits.write_kib << 10).unwrap_or(usize::MAX))?;
    Ok(writes.into_iter().map(|write| (write.key, write.value)).collect())
}

fn details(text: String) -> Result<String, Overrun> {
    at_most("bytes of details", text.len(), MAX_DETAILS_BYTES)?;
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(format!("the details of a movement are no JSON object: {error}")),
    }
}

fn ledger(entries: Vec<contract::LedgerEntry>, owner: &str, effects: &mut Effects) -> Result<(), Overrun> {
    for entry in entries {
        match entry {
            contract::LedgerEntry::Grants(grants) => {
                for grant in grants {
                    let (address, amount, expiration) = (grant.address, grant.amount, grant.expiration);
                    let details = details(grant.details)?;
                    effects.movements.push(Movement::Grant { address, amount, expiration, details });
                }
            }
            contract::LedgerEntry::Expenses(expenses) => {
                for expense in expenses {
                    let details = details(expense.details)?;
                    effects.movements.push(Movement::Expense {
                        address: expense.address,
                        amount: expense.amount,
                        details,
                    });
                }
            }
            contract::LedgerEntry::Transfers(transfers) => {
                effects.movements.extend(transfers.into_iter().map(|transfer| Movement::Transfer {
                    sender: owner.to_owned(),
                    recipient: transfer.recipient,
                    amount: transfer.amount,
                    expiration: transfer.expiration,
                }));
            }
            contract::LedgerEntry::Balances((chain, dapp, height, balances)) => {
                at_most("balances", balances.len(), MAX_MOVEMENTS)?;
                let balance = |balance: contract::TokenBalance| Ok((balance.address, amount(&balance.balance)?));
                let balances = balances.into_iter().map(balance).collect::<Result<_, Overrun>>()?;
                effects.balances.push(TokenBalances { chain, dapp, height, balances });
            }
        }
        at_most("movements", effects.movements.len(), MAX_MOVEMENTS)?;
        at_most("lists of balances", effects.balances.len(), MAX_HASHES)?;
    }
    Ok(())
}

fn hashes(what: &str, texts: &[String]) -> Result<Vec<ItemHash>, Overrun> {
    at_most(what, texts.len(), MAX_FORGETS)?;
    let mut hashes = texts.iter().map(|text| hash(text)).collect::<Result<Vec<_>, _>>()?;
    hashes.sort();
    hashes.dedup();
    Ok(hashes)
}

fn watches(found: Vec<(String, Vec<u8>)>) -> Result<Vec<(String, Vec<u8>)>, Overrun> {
    at_most("keys watched", found.len(), MAX_HASHES)?;
    for (namespace, key) in &found {
        at_most("bytes in a key", key.len(), MAX_KEY_BYTES)?;
        at_most("bytes in a namespace", namespace.len(), MAX_KEY_BYTES)?;
    }
    Ok(found)
}

fn effects(found: contract::Effects, limits: &Limits, owner: &str, granted: &Granted) -> Result<Effects, Overrun> {
    if !found.forgets.is_empty() && !granted.may_forget {
        return Err("it hides messages without the grant `hide`".into());
    }
    if !found.ledger.is_empty() && !granted.may_move {
        return Err("it moves credits or tokens without the grant `ledger`".into());
    }
    at_most("pins", found.pins.len(), MAX_HASHES)?;
    let pin = |pin: contract::Pin| Ok((hash(&pin.file)?, pin.ref_));
    let authorization = |entry: contract::Authorization| AuthorizationRecord {
        address: entry.address,
        chain: entry.chain,
        channels: entry.channels,
        kinds: entry.kinds,
        labels: entry.labels,
    };
    let authorizations = match found.authorizations {
        Some(list) => {
            at_most("delegations", list.len(), MAX_AUTHORIZATIONS)?;
            Some(list.into_iter().map(authorization).collect())
        }
        None => None,
    };
    let mut effects = Effects {
        writes: writes(found.writes, limits)?,
        pins: found.pins.into_iter().map(pin).collect::<Result<_, Overrun>>()?,
        costs: found.costs.map(price).transpose()?,
        workload: found.workload.map(workload),
        authorizations,
        movements: Vec::new(),
        balances: Vec::new(),
        forgets: hashes("messages to forget", &found.forgets)?,
        uses: hashes("messages in use", &found.uses)?,
        follows: found.follows.as_deref().map(hash).transpose()?,
        watches: watches(found.watches)?,
    };
    ledger(found.ledger, owner, &mut effects)?;
    Ok(effects)
}

/// Checks an outcome for a message of that owner.
pub(super) fn outcome(
    found: contract::Outcome,
    limits: &Limits,
    owner: &str,
    granted: &Granted,
) -> Result<Outcome, Overrun> {
    match found {
        contract::Outcome::Accepted(found) => Ok(Outcome::Accepted(Box::new(effects(found, limits, owner, granted)?))),
        contract::Outcome::Rejected(found) => Ok(Outcome::Rejected(rejection(found)?)),
        contract::Outcome::Waiting(wait) => {
            at_most("needs", wait.missing.len(), MAX_HASHES)?;
            if wait.missing.is_empty() {
                return Err("it waits for nothing".into());
            }
            let needs = wait.missing.into_iter().map(need).collect::<Result<_, Overrun>>()?;
            Ok(Outcome::Waiting { needs, otherwise: rejection(wait.otherwise)? })
        }
    }
}

pub(super) fn check_response(status: u16, content_type: &str, body: &[u8]) -> Result<(), Overrun> {
    at_most("bytes of an answer", body.len(), MAX_BODY_BYTES)?;
    if !(200..600).contains(&status) {
        return Err(format!("it answered with status {status}"));
    }
    let visible = content_type.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if content_type.is_empty() || !visible || content_type.len() > 256 {
        return Err("its answer has no content type".into());
    }
    Ok(())
}

/// How long something took, for statistics: microseconds.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
