//! Every message of the shared fixtures, as far as this crate judges it: form, signature, schema.
//!
//! The fixtures are read from `../shared` beside the repository.
#![cfg(feature = "sign")]

use ccn_message::{
    Envelope, ErrorCode, FormatError,
    chain::Family,
    content::{aggregate::AggregateContent, post::PostContent, program::ProgramContent, store::StoreContent},
    signature,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures")
}

fn read(path: &str) -> Value {
    let path = folder().join(path);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("a fixture is JSON")
}

/// What this crate says of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Judgement {
    /// Form and schema are right, the signature stands.
    Good,
    /// Refused with that code.
    Refused(i32),
    /// Of a type or chain whose rules are elsewhere.
    OutOfScope(&'static str),
}

fn judge(message: &Value) -> Judgement {
    let Ok(envelope) = Envelope::parse(&message.to_string()) else {
        return Judgement::Refused(ErrorCode::InvalidFormat.number());
    };
    if let Some(content) = &envelope.item_content {
        let schema: Result<(), FormatError> = match envelope.kind.as_str() {
            "POST" => PostContent::parse(content).map(|_| ()),
            "AGGREGATE" => AggregateContent::parse(content).map(|_| ()),
            "STORE" => StoreContent::parse(content).map(|_| ()),
            "PROGRAM" => ProgramContent::parse(content).map(|_| ()),
            "FORGET" | "INSTANCE" | "V-PROGRAM" => return Judgement::OutOfScope("type"),
            _ => Err(FormatError::new("type", "unknown")),
        };
        if schema.is_err() {
            return Judgement::Refused(ErrorCode::InvalidFormat.number());
        }
    }
    match envelope.chain.family() {
        Family::Evm | Family::Ed25519 | Family::Unverifiable => {}
        _ => return Judgement::OutOfScope("chain"),
    }
    match signature::verify(&envelope) {
        Ok(()) => Judgement::Good,
        Err(error) => Judgement::Refused(error.code().number()),
    }
}

/// `serde_json` writes numbers as it read them only up to its own precision; the envelope's own fields have none that suffer.
#[test]
fn signed_messages() {
    let index = read("signed/index.json");
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for entry in index.as_array().expect("a list") {
        let name = entry["name"].as_str().expect("a name");
        let fixture = read(&format!("signed/{name}.json"));
        let expect = &fixture["expect"];
        let judgement = judge(&fixture["message"]);
        let code = expect["error_code"].as_i64();
        let expected = match code {
            // Later stages decide these; form and signature are right.
            Some(code) if code > 1 => Judgement::Good,
            Some(code) => Judgement::Refused(i32::try_from(code).expect("a code")),
            None => Judgement::Good,
        };
        if let Judgement::OutOfScope(why) = judgement {
            *counts.entry(format!("out of scope: {why}")).or_default() += 1;
            continue;
        }
        *counts.entry("checked".into()).or_default() += 1;
        assert_eq!(judgement, expected, "{name}: {}", fixture["description"]);
    }
    let expected = [("checked", 77), ("out of scope: chain", 7), ("out of scope: type", 26)];
    assert_eq!(counts, expected.map(|(key, count)| (key.to_owned(), count)).into());
}

#[test]
fn real_and_generated_messages() {
    let index = read("messages/index.json");
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for case in index["cases"].as_array().expect("a list") {
        let file = case["file"].as_str().expect("a file");
        let judgement = judge(&read(&format!("messages/{file}")));
        if let Judgement::OutOfScope(why) = judgement {
            *counts.entry(format!("out of scope: {why}")).or_default() += 1;
            continue;
        }
        *counts.entry("checked".into()).or_default() += 1;
        let expected = if case["format_valid"] == false {
            Judgement::Refused(0)
        } else if case["signature_valid"] == true {
            Judgement::Good
        } else {
            let code = case["expected"]["error_code"].as_i64().expect("a code");
            Judgement::Refused(i32::try_from(code).expect("a code"))
        };
        // What a later stage refuses for its format may be refused here already.
        let early = judgement == Judgement::Refused(0) && case["expected"]["error_code"] == 0;
        assert!(early || judgement == expected, "{file}: {judgement:?}, expected {expected:?}: {}", case["note"]);
    }
    let expected = [("checked", 84), ("out of scope: chain", 9), ("out of scope: type", 12)];
    assert_eq!(counts, expected.map(|(key, count)| (key.to_owned(), count)).into());
}
