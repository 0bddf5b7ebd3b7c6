//! Every message of the shared fixtures, as far as this crate judges it: form, signature, schema.
//!
//! The fixtures are read from `../shared` beside the repository.
#![cfg(feature = "sign")]

use ccn_message::{
    Envelope, ErrorCode, FormatError,
    content::{
        aggregate::AggregateContent, forget::ForgetContent, instance::InstanceContent, post::PostContent,
        program::ProgramContent, store::StoreContent, vprogram::VProgramContent,
    },
    signature::{self, SignatureError},
};
use proptest::{prelude::*, sample};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
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
            "FORGET" => ForgetContent::parse(content).map(|_| ()),
            "INSTANCE" => InstanceContent::parse(content).map(|_| ()),
            "V-PROGRAM" => VProgramContent::parse(content).map(|_| ()),
            _ => Err(FormatError::new("type", "unknown")),
        };
        if schema.is_err() {
            return Judgement::Refused(ErrorCode::InvalidFormat.number());
        }
    }
    match signature::verify(&envelope) {
        Ok(()) => Judgement::Good,
        Err(error) => Judgement::Refused(error.code().number()),
    }
}

/// What an entry says of the signature. The one that is valid under the "original template only" is by a genuine NULS wallet: the program
/// whose verdicts the fixtures list refuses it by a mistake of its own, and the network's archives hold it as a good message (ccn spec 3.8).
fn signature_is_valid(stated: &Value) -> bool {
    *stated == true || stated == "original-template-only"
}

/// Every message of both collections whose form is right, with what is stated of its signature: by the index, or by the code.
fn stated() -> Vec<(String, Envelope, bool)> {
    let mut all = Vec::new();
    for entry in read("signed/index.json").as_array().expect("a list") {
        let name = entry["name"].as_str().expect("a name");
        let fixture = read(&format!("signed/{name}.json"));
        let Ok(envelope) = Envelope::parse(&fixture["message"].to_string()) else { continue };
        let unverifiable = name.starts_with("sig-chain-");
        all.push((name.to_owned(), envelope, fixture["expect"]["error_code"] != 1 && !unverifiable));
    }
    for case in read("messages/index.json")["cases"].as_array().expect("a list") {
        let file = case["file"].as_str().expect("a file");
        let Ok(envelope) = Envelope::parse(&read(&format!("messages/{file}")).to_string()) else { continue };
        all.push((file.to_owned(), envelope, signature_is_valid(&case["signature_valid"])));
    }
    all
}

#[test]
fn every_signature_is_judged_as_stated() {
    let mut counts: BTreeMap<(&str, bool), usize> = BTreeMap::new();
    for (name, envelope, valid) in stated() {
        let verdict = signature::verify(&envelope);
        assert_eq!(verdict.is_ok(), valid, "{name}: {verdict:?}");
        *counts.entry((envelope.chain.name(), valid)).or_default() += 1;
    }
    let total =
        |valid| counts.iter().filter(|((_, stated), _)| *stated == valid).map(|(_, count)| count).sum::<usize>();
    assert_eq!((total(true), total(false)), (190, 18), "{counts:?}");
}

/// The parts of a signature field that hold what was signed, however they are spelled.
fn essence(signature: &str) -> Vec<String> {
    match serde_json::from_str::<Value>(signature) {
        Ok(Value::Object(object)) => {
            let parts = ["signature", "data", "publicKey"].map(|key| object.get(key));
            let key = object.get("pub_key").and_then(|key| key.get("value"));
            let texts = parts.into_iter().chain([key]).flatten().map(|part| part.as_str().expect("a text"));
            texts.map(|text| text.strip_prefix("0x").map_or(text.to_owned(), str::to_lowercase)).collect()
        }
        // Hex in either case, with or without its prefix; the other spellings have one form.
        _ if signature.len() > 100 => vec![signature.trim_start_matches("0x").to_lowercase()],
        _ => vec![signature.to_owned()],
    }
}

/// Good messages that were not signed for an EVM chain: one family each, and some more.
static GOOD: LazyLock<Vec<(String, Envelope)>> = LazyLock::new(|| {
    let good = stated().into_iter().filter(|(_, envelope, valid)| *valid && envelope.chain.name() != "ETH");
    good.map(|(name, envelope, _)| (name, envelope)).collect()
});

proptest! {
    /// Whatever is done to a signature that somebody really made: it is refused with code 1, unless it still says the same.
    #[test]
    fn damaged_signatures_are_refused(
        at in any::<sample::Index>(),
        until in any::<sample::Index>(),
        replacement in ".{0,4}|[0-9a-zA-Z]{1,100}|\\PC{1,3}",
    ) {
        for (name, envelope) in &*GOOD {
            let original = envelope.signature.as_deref().expect("a signature");
            let letters: Vec<char> = original.chars().collect();
            let (a, b) = (at.index(letters.len()), until.index(letters.len()));
            let (before, after) = (&letters[..a.min(b)], &letters[a.max(b)..]);
            let damaged: String = before.iter().copied().chain(replacement.chars()).chain(after.iter().copied()).collect();
            match signature::verify(&Envelope { signature: Some(damaged.clone()), ..envelope.clone() }) {
                Ok(()) => prop_assert_eq!(essence(&damaged), essence(original), "{}", name),
                Err(SignatureError::Wrong | SignatureError::Malformed(_)) => prop_assert_ne!(damaged, original),
                Err(error) => prop_assert!(false, "{name}: {error}"),
            }
        }
    }
}

/// `serde_json` writes numbers as it read them only up to its own precision; the envelope's own fields have none that suffer.
#[test]
fn signed_messages() {
    let index = read("signed/index.json");
    let mut checked = 0;
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
        checked += 1;
        assert_eq!(judgement, expected, "{name}: {}", fixture["description"]);
    }
    assert_eq!(checked, 110);
}

#[test]
fn real_and_generated_messages() {
    let index = read("messages/index.json");
    let mut checked = 0;
    for case in index["cases"].as_array().expect("a list") {
        let file = case["file"].as_str().expect("a file");
        let judgement = judge(&read(&format!("messages/{file}")));
        checked += 1;
        let expected = if case["format_valid"] == false {
            Judgement::Refused(0)
        } else if signature_is_valid(&case["signature_valid"]) {
            Judgement::Good
        } else {
            let code = case["expected"]["error_code"].as_i64().expect("a code");
            Judgement::Refused(i32::try_from(code).expect("a code"))
        };
        // What a later stage refuses for its format may be refused here already.
        let early = judgement == Judgement::Refused(0) && case["expected"]["error_code"] == 0;
        assert!(early || judgement == expected, "{file}: {judgement:?}, expected {expected:?}: {}", case["note"]);
    }
    assert_eq!(checked, 105);
}
