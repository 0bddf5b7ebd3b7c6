//! The rules of STORE.
//!
//! A file has versions: the tag of a version is the hash of the first STORE, or `<owner>/<name>` for names of the owner's own. Each version is a
//! row, and the newest by (time, hash) that stands is repeated where it is asked for. A version that is forgotten leaves a row without content:
//! a machine whose message is older still resolves the tag to it.

use plugin_sdk::{
    CostLine, Costs, Effects, Label, Message, Need, Outcome, Payment, Pin, Plan, Refusal, Rejection, Subject, View,
    Withdrawal, Write,
    decimal::Decimal,
    layout::{Moment, delete, end_of, put, store, tally::Tally},
    message::{
        ErrorCode, ItemHash,
        content::{payment::PaymentType, store::StoreContent},
    },
    price::{self, Cost, Product, cutoff},
    rejected, text_of,
};

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
    effects(message, view).into()
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

fn effects(message: &Message, view: &dyn View) -> Result<Effects, Refusal> {
    let content = StoreContent::parse(text_of(message)?)?;
    let file_hash = content.item_hash.to_string();
    let Some(file) = view.file(&file_hash) else {
        let otherwise = rejected(ErrorCode::FileUnavailable, format!("the file {file_hash} was not found"));
        return Err(Refusal::waiting(vec![Need::File(file_hash)], otherwise));
    };
    let tag = resolve_tag(message, content.reference.as_deref(), view)?;
    let payment = payment(&content);
    if payment != Payment::Credit && message.envelope_time >= cutoff::ALL_BY_CREDIT {
        let sentence = "files are paid by credits since 2027-01-01";
        return Err(rejected(ErrorCode::InvalidPaymentMethod, sentence).into());
    }

    let moment = Moment::of(message);
    let mut writes = vec![put(store::versions(&tag).moment(&moment), file_hash.clone().into_bytes())];
    let gone = store::gone(&tag).moment(&moment);
    writes.push(match view.get(&gone) {
        Some(_) => delete(gone),
        None => Tally::add(view, store::tally(&tag), &message.item_hash),
    });
    let newest = view.get(&store::latest(&tag)).and_then(|value| Some(store::read_latest(&value)?.0));
    if newest.is_none_or(|newest| newest < moment) {
        writes.push(put(store::latest(&tag), store::write_latest(&moment, &file_hash)));
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
    let tag = tag(message, reference);
    let Some(reference) = reference.filter(|reference| tag == **reference) else { return Ok(tag) };
    let unknown = || rejected(ErrorCode::StoreRefNotFound, format!("there is no STORE {reference} to update"));
    let Some(first) = view.message(reference) else {
        return Err(Refusal::waiting(vec![Need::Message(reference.to_owned())], unknown()));
    };
    // A message that is here and of another type never becomes a STORE.
    if first.message.kind != message.kind {
        return Err(unknown().into());
    }
    if StoreContent::parse(text_of(&first.message)?)?.reference.is_some() {
        let sentence = format!("{reference} is an update itself; name the first version");
        return Err(rejected(ErrorCode::StoreUpdateUpdate, sentence).into());
    }
    if first.message.address != message.address {
        let sentence = format!("{reference} belongs to {}", first.message.address);
        return Err(rejected(ErrorCode::PermissionDenied, sentence).into());
    }
    Ok(tag)
}

/// The tag that a STORE names, whether it may or not.
pub(crate) fn tag(message: &Message, reference: Option<&str>) -> String {
    match reference {
        None => message.item_hash.clone(),
        Some(reference) if ItemHash::parse(reference).is_ok() => reference.to_owned(),
        Some(name) => store::owned_tag(&message.address, name),
    }
}

/// Takes a version out, or the trace that it left when it was forgotten; the newest of those that remain is the latest again.
pub(crate) fn withdraw(message: &Message, why: Withdrawal, view: &dyn View) -> Vec<Write> {
    let Ok(text) = text_of(message) else { return Vec::new() };
    let Ok(content) = StoreContent::parse(text) else { return Vec::new() };
    let (tag, moment) = (tag(message, content.reference.as_deref()), Moment::of(message));
    let (standing, gone) = (store::versions(&tag).moment(&moment), store::gone(&tag).moment(&moment));
    let without = || Tally::remove(view, store::tally(&tag), &message.item_hash);
    if view.get(&standing).is_none() {
        let ends = why == Withdrawal::Void && view.get(&gone).is_some();
        return if ends { vec![delete(gone), without()] } else { Vec::new() };
    }
    let mut writes = vec![delete(standing)];
    writes.push(match why {
        Withdrawal::Forgotten => put(gone, Vec::new()),
        Withdrawal::Void => without(),
    });
    let latest = view.get(&store::latest(&tag)).and_then(|value| Some(store::read_latest(&value)?.0));
    if latest.as_ref() == Some(&moment) {
        let prefix = store::versions(&tag).done();
        let rows = view.scan(&prefix, &end_of(&prefix), 2, true).items;
        let rest = rows.iter().filter_map(|(row, file)| {
            let moment = Moment::of_key(&prefix, row)?;
            Some((moment, std::str::from_utf8(file).ok()?))
        });
        let value =
            rest.filter(|(other, _)| *other != moment).map(|(moment, file)| store::write_latest(&moment, file)).next();
        writes.push(Write { key: store::latest(&tag), value });
    }
    writes
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

#[cfg(test)]
mod tests;
