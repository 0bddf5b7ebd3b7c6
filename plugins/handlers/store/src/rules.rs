//! The rules of STORE.
//!
//! A file has versions: the tag of a version is the hash of the first STORE, or `<owner>/<name>` for names of the owner's own. Each version is a
//! row, and the newest by (time, hash) is repeated where other plugins look, so that whatever comes first, the state is the same.

use plugin_sdk::{
    CostLine, Costs, Effects, Label, Message, Need, Outcome, Payment, Pin, Plan, Rejection, Subject, View, Wait, Write,
    decimal::Decimal,
    layout::{Key, Moment, store},
    message::{
        ErrorCode, ItemHash,
        content::{payment::PaymentType, store::StoreContent},
    },
    price::{self, Cost, Product, cutoff},
    rejected, text_of,
};

/// Table of all versions: (tag, time, hash) to the file. A version that goes leaves the one before it to be found here.
const VERSIONS: u8 = b'v';
/// Files up to this size need no funds when they are paid by holding, bytes (ccn spec 6.6).
const FREE_BYTES: u64 = 25 << 20;
/// Credits pay for at least that much, MiB (ccn spec 6.3).
const CREDIT_MINIMUM_MIB: u64 = 25;
/// Kind and name of the one row of the price.
const COST: &str = "STORAGE";

pub(crate) fn validate(message: &Message) -> Result<Plan, Rejection> {
    let content = StoreContent::parse(text_of(message)?)?;
    let label = |name: &str, value: String| Label { name: name.to_owned(), value };
    let mut labels = vec![
        label("content-hash", content.item_hash.to_string()),
        label("payment-type", payment_type(&content).name().to_owned()),
    ];
    labels.extend(content.reference.map(|reference| label("content-ref", reference)));
    labels.extend(content.tags.into_iter().map(|tag| label("tag", tag)));
    Ok(Plan { subjects: vec![Subject::ThisMessage], labels })
}

pub(crate) fn process(message: &Message, view: &dyn View) -> Outcome {
    match effects(message, view) {
        Ok(effects) => Outcome::Accepted(effects),
        Err(Refusal::Rejected(rejection)) => Outcome::Rejected(rejection),
        Err(Refusal::Waiting(wait)) => Outcome::Waiting(wait),
    }
}

/// The price of keeping the file, or one of the size that an estimate names.
pub(crate) fn price(message: &Message, view: &dyn View) -> Result<Costs, Rejection> {
    let content = StoreContent::parse(text_of(message)?)?;
    let payment = payment(&content);
    let size_mib = match content.estimated_size_mib {
        Some(size_mib) => Some(estimated(size_mib)?),
        None => view.file(&content.item_hash.to_string()).map(|file| price::mib(file.size)),
    };
    let lines = size_mib.map(|size_mib| line(size_mib, payment, view)).into_iter().collect();
    Ok(price::costs(payment, lines, true))
}

/// Why a message is not accepted now.
enum Refusal {
    Rejected(Rejection),
    Waiting(Wait),
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

fn effects(message: &Message, view: &dyn View) -> Result<Effects, Refusal> {
    let content = StoreContent::parse(text_of(message)?).map_err(Rejection::from)?;
    let file_hash = content.item_hash.to_string();
    let Some(file) = view.file(&file_hash) else {
        let otherwise = rejected(ErrorCode::FileUnavailable, format!("the file {file_hash} was not found"));
        return Err(Refusal::Waiting(Wait { missing: vec![Need::File(file_hash)], otherwise }));
    };
    let tag = resolve_tag(message, content.reference.as_deref(), view)?;
    let payment = payment(&content);
    if payment != Payment::Credit && message.envelope_time >= cutoff::ALL_BY_CREDIT {
        let sentence = "files are paid by credits since 2027-01-01";
        return Err(rejected(ErrorCode::InvalidPaymentMethod, sentence).into());
    }

    let moment = Moment { time: message.time, item_hash: message.item_hash.clone() };
    let record =
        store::Record { file: file_hash.clone(), owner: message.address.clone(), reference: content.reference.clone() };
    let mut writes = vec![
        write(store::message(&message.item_hash), record.to_bytes()),
        write(Key::of(VERSIONS).text(&tag).time(moment.time).last(&moment.item_hash), file_hash.clone().into_bytes()),
    ];
    let newest = view.get(&store::latest(&tag)).and_then(|value| Some(store::read_latest(&value)?.0));
    if newest.is_none_or(|newest| newest < moment) {
        let mut value = moment.to_bytes();
        value.extend_from_slice(file_hash.as_bytes());
        writes.push(write(store::latest(&tag), value));
    }
    let free = message.envelope_time < cutoff::FREE_UNTIL || (payment == Payment::Hold && file.size <= FREE_BYTES);
    let lines = vec![line(price::mib(file.size), payment, view)];
    Ok(Effects {
        writes,
        pins: vec![Pin { file: file_hash, ref_: content.reference }],
        costs: Some(price::costs(payment, lines, !free)),
        ..plugin_sdk::no_effects()
    })
}

/// The tag that a STORE is a version of. A hash names the STORE that it updates, which must be here, be of the same owner and be no update itself.
fn resolve_tag(message: &Message, reference: Option<&str>, view: &dyn View) -> Result<String, Refusal> {
    let Some(reference) = reference else {
        return Ok(message.item_hash.clone());
    };
    if ItemHash::parse(reference).is_err() {
        return Ok(owned_tag(&message.address, reference));
    }
    let first = view.get(&store::message(reference)).and_then(|value| store::Record::read(&value));
    let Some(first) = first else {
        let otherwise = rejected(ErrorCode::StoreRefNotFound, format!("there is no STORE {reference} to update"));
        // A message that is here and of another type never becomes a STORE.
        return Err(match view.message(reference) {
            Some(_) => Refusal::Rejected(otherwise),
            None => Refusal::Waiting(Wait { missing: vec![Need::Message(reference.to_owned())], otherwise }),
        });
    };
    if first.reference.is_some() {
        let sentence = format!("{reference} is an update itself; name the first version");
        return Err(rejected(ErrorCode::StoreUpdateUpdate, sentence).into());
    }
    if first.owner != message.address {
        let sentence = format!("{reference} belongs to {}", first.owner);
        return Err(rejected(ErrorCode::PermissionDenied, sentence).into());
    }
    Ok(reference.to_owned())
}

/// The tag of a name of the owner's own.
pub(crate) fn owned_tag(owner: &str, name: &str) -> String {
    format!("{owner}/{name}")
}

fn payment_type(content: &StoreContent) -> PaymentType {
    content.payment.as_ref().map_or(PaymentType::Hold, |payment| payment.kind)
}

fn payment(content: &StoreContent) -> Payment {
    match payment_type(content) {
        PaymentType::Credit => Payment::Credit,
        PaymentType::Hold | PaymentType::Superfluid => Payment::Hold,
    }
}

fn line(size_mib: Decimal, payment: Payment, view: &dyn View) -> CostLine {
    let charged = match payment {
        Payment::Credit => size_mib.max(Decimal::from_integer(CREDIT_MINIMUM_MIB)),
        Payment::Hold | Payment::Superfluid => size_mib,
    };
    Cost::of(price::current(view, Product::Storage).storage, charged).line(COST, COST, Some(size_mib))
}

fn estimated(size_mib: f64) -> Result<Decimal, Rejection> {
    let refuse = || rejected(ErrorCode::InvalidFormat, format!("estimated_size_mib: {size_mib} is not a size"));
    // A double's shortest text is the number that the client wrote.
    if size_mib < 0.0 { Err(refuse()) } else { size_mib.to_string().parse().map_err(|_| refuse()) }
}

fn write(key: Vec<u8>, value: Vec<u8>) -> Write {
    Write { key, value: Some(value) }
}

/// PLACEHOLDER until the handlers learn to forget.
pub(crate) fn withdraw(_message: &Message, _why: plugin_sdk::Withdrawal, _view: &dyn View) -> Vec<plugin_sdk::Write> {
    Vec::new()
}

#[cfg(test)]
mod tests;
