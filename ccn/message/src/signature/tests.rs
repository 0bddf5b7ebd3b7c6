use super::{tezos::Curve, *};
use crate::{
    Chain,
    json::Object,
    sign::{Account, Draft, to_json},
};
use proptest::{prelude::*, sample};

/// One account of every family, on Tezos of every curve.
fn accounts() -> Vec<Account> {
    let chains = ["ETH", "BASE", "SOL", "ES", "AVAX", "CSDK", "DOT", "TEZOS", "NULS", "NULS2"];
    let on = |chain: &str| Account::on(chain.parse().expect("a chain"), [7; 32]).expect("a key");
    let curves = [Curve::Secp256k1, Curve::P256];
    let tezos = curves.map(|curve| Account::tezos(curve, [7; 32]).expect("a key"));
    chains.into_iter().map(on).chain(tezos).collect()
}

fn signed(account: &Account) -> Envelope {
    Draft::new("POST", r#"{"type":"note","content":{"body":"hi"}}"#).time(1_788_220_801.0).sign(account)
}

fn of(chain: &str) -> Envelope {
    signed(&Account::on(chain.parse().expect("a chain"), [7; 32]).expect("a key"))
}

fn with(envelope: &Envelope, signature: &str) -> Result<(), SignatureError> {
    verify(&Envelope { signature: Some(signature.to_owned()), ..envelope.clone() })
}

fn signature_of(envelope: &Envelope) -> String {
    envelope.signature.clone().expect("a signature")
}

#[test]
fn what_is_signed_verifies() {
    for account in accounts() {
        let envelope = signed(&account);
        assert_eq!(verify(&envelope), Ok(()), "{envelope:?}");
        let parsed = Envelope::parse(&to_json(&envelope)).expect("an envelope");
        assert_eq!(verify(&parsed), Ok(()));
    }
}

#[test]
fn any_change_of_what_is_signed_is_noticed() {
    let others = accounts();
    for account in accounts() {
        let check = |change: &dyn Fn(&mut Envelope)| {
            let mut envelope = signed(&account);
            change(&mut envelope);
            assert_eq!(verify(&envelope), Err(SignatureError::Wrong), "{envelope:?}");
        };
        check(&|envelope| envelope.kind = "STORE".into());
        check(&|envelope| envelope.item_hash = crate::ItemHash::sha256_of(b"other"));
        check(&|envelope| envelope.sender = "0x0000000000000000000000000000000000000000".into());
        check(&|envelope| envelope.sender.clear());
        check(&|envelope| envelope.sender.push('a'));
        check(&|envelope| envelope.sender = "a".repeat(1 << 20));
        let upper = account.address().to_uppercase();
        check(&|envelope| envelope.sender.clone_from(&upper));
        // Nobody signs for another, whatever his own chain.
        for other in others.iter().filter(|other| other.address() != account.address()) {
            check(&|envelope| other.address().clone_into(&mut envelope.sender));
        }
        // Channel and time are not signed: whoever relays a message can change them.
        let mut envelope = signed(&account);
        envelope.time = 5.0;
        envelope.channel = Some("other".into());
        assert_eq!(verify(&envelope), Ok(()));
    }
}

#[test]
fn a_signature_of_one_chain_is_none_of_another() {
    for account in accounts() {
        let envelope = signed(&account);
        for chain in ["ETH", "BASE", "SOL", "ES", "AVAX", "CSDK", "DOT", "TEZOS", "NULS", "NULS2"] {
            let chain: Chain = chain.parse().expect("a chain");
            if chain != envelope.chain {
                let error = verify(&Envelope { chain, ..envelope.clone() }).expect_err("another chain");
                assert_eq!(error.code(), ErrorCode::InvalidSignature, "{chain}: {error}");
            }
        }
    }
}

#[test]
fn the_forms_that_ethereum_wallets_use() {
    let envelope = of("ETH");
    let signature = signature_of(&envelope);
    let v = u8::from_str_radix(&signature[130..], 16).expect("hex");
    assert_eq!(with(&envelope, &signature[2..]), Ok(()));
    assert_eq!(with(&envelope, &signature.to_uppercase().replace("0X", "0x")), Ok(()));
    assert_eq!(with(&envelope, &format!("{}{:02x}", &signature[..130], v - 27)), Ok(()));
    assert_eq!(with(&envelope, &format!("{}{:02x}", &signature[..130], v - 27 + 37)), Ok(()));
    let zeros = "00".repeat(65);
    for malformed in ["0x", "zz", &signature[..130], &format!("{}{:02x}", &signature[..130], 5), &"ff".repeat(65)] {
        assert!(matches!(with(&envelope, malformed), Err(SignatureError::Malformed(_))), "{malformed}");
    }
    assert!(with(&envelope, &zeros).is_err());
    let sender = envelope.sender.to_lowercase();
    // The text is signed as it is spelled, so another spelling is another text.
    assert_eq!(verify(&Envelope { sender, ..envelope.clone() }), Err(SignatureError::Wrong));
    assert_eq!(verify(&Envelope { signature: None, ..envelope }), Err(SignatureError::Missing));
}

/// Some clients send the object that the text should hold.
#[test]
fn an_object_in_the_place_of_its_text_is_that_signature() {
    for chain in ["SOL", "ES", "CSDK", "DOT", "TEZOS"] {
        let envelope = of(chain);
        let mut json: serde_json::Value = serde_json::from_str(&to_json(&envelope)).expect("JSON");
        json["signature"] = serde_json::from_str(&signature_of(&envelope)).expect("an object");
        assert!(json["signature"].is_object());
        let parsed = Envelope::parse(&json.to_string()).expect("an envelope");
        assert_eq!(verify(&parsed), Ok(()), "{chain}");
        // It is a signature like any other from here on.
        assert!(Object::parse(&signature_of(&parsed)).is_ok());
    }
}

#[test]
fn every_malformed_field_is_named() {
    let refused = |chain: &str, change: &dyn Fn(&str) -> String, problem: &str| {
        let envelope = of(chain);
        let error = with(&envelope, &change(&signature_of(&envelope))).expect_err("malformed");
        assert_eq!(error, SignatureError::Malformed(problem.into()), "{chain}");
    };
    let json = |change: &'static dyn Fn(&mut serde_json::Value)| {
        move |signature: &str| {
            let mut object = serde_json::from_str(signature).expect("an object");
            change(&mut object);
            object.to_string()
        }
    };
    for chain in ["SOL", "CSDK", "DOT", "TEZOS"] {
        refused(chain, &|_| "[]".into(), "an object was expected");
        refused(
            chain,
            &|signature| format!("{signature}}}"),
            &format!("not JSON: something follows the JSON value (byte {})", signature_of(&of(chain)).len()),
        );
    }
    refused("SOL", &json(&|object| object["version"] = 2.into()), "version: 2 is not between 1 and 1");
    refused("SOL", &json(&|object| object["signature"] = "0".into()), "signature is not base58 of the right length");
    refused("AVAX", &|signature| signature[2..].into(), "69 bytes in base58 were expected");
    refused(
        "AVAX",
        &|signature| {
            // How long it is depends on the signature itself.
            let (rest, last) = signature.split_at(signature.len() - 1);
            format!("{rest}{}", if last == "1" { '2' } else { '1' })
        },
        "its checksum does not fit",
    );
    refused(
        "CSDK",
        &json(&|object| object["pub_key"]["type"] = "x".into()),
        "pub_key.type: only tendermint/PubKeySecp256k1 is known",
    );
    refused(
        "CSDK",
        &json(&|object| object["pub_key"]["value"] = "AAAA".into()),
        "pub_key.value is not 33 bytes in base64",
    );
    refused("CSDK", &json(&|object| object["pub_key"] = 5.into()), "pub_key: an object was expected");
    refused(
        "CSDK",
        &json(&|object| object["pub_key"]["value"] = "A".repeat(44).into()),
        "the public key is not a point of the curve",
    );
    refused("CSDK", &json(&|object| object["signature"] = "x".into()), "signature is not 64 bytes in base64");
    refused("DOT", &json(&|object| object["curve"] = "ed25519".into()), "curve: only sr25519 is known");
    refused("DOT", &json(&|object| object["data"] = "ff".repeat(64).into()), "data is not 0x and 64 bytes in hex");
    refused(
        "DOT",
        &json(&|object| object["data"] = format!("0x{}", "00".repeat(64)).into()),
        "data is not a signature over sr25519",
    );
    refused(
        "TEZOS",
        &json(&|object| object["signingType"] = "other".into()),
        "signingType: `other` is none of: raw, micheline",
    );
    refused("TEZOS", &json(&|object| object["publicKey"] = "edpk".into()), "publicKey is none of edpk, sppk and p2pk");
    refused(
        "TEZOS",
        &json(&|object| object["signature"] = object["publicKey"].clone()),
        "signature is none of the kind of its key",
    );
    refused("NULS", &|signature| format!("x{signature}"), "hex was expected");
    refused("NULS", &|signature| signature[..signature.len() - 2].into(), "it ends too early");
    refused("NULS", &|_| String::from("00"), "it ends too early");
    refused("NULS", &|signature| format!("{signature}00"), "something follows it");
    refused(
        "NULS",
        &|signature| format!("{}01{}", &signature[..68], &signature[70..]),
        "1 is not an algorithm that is known",
    );
    refused(
        "NULS",
        &|signature| format!("2102{}{}", "ff".repeat(32), &signature[68..]),
        "the public key is not a point of the curve",
    );
    refused("NULS", &|signature| format!("{}0400000000", &signature[..70]), "the signature is not DER of r and s");
    refused("NULS2", &|signature| signature[..84].into(), "65 bytes in base64 were expected");
    refused(
        "NULS2",
        &|signature| format!("AA{}", &signature[2..]),
        "its first byte is 0, and a compressed key has 27 to 30",
    );
}

#[test]
fn nothing_long_is_looked_at() {
    for account in accounts() {
        let envelope = signed(&account);
        for long in ["1".repeat(MAX_SIGNATURE_BYTES + 1), "[".repeat(1 << 20)] {
            let problem = format!("it has {} bytes, and none has more than 4096", long.len());
            assert_eq!(with(&envelope, &long), Err(SignatureError::Malformed(problem)));
        }
        // As long as it may be, and nothing but digits of any of the spellings.
        for digit in ["1", "A", "z", "0"] {
            assert!(matches!(with(&envelope, &digit.repeat(MAX_SIGNATURE_BYTES)), Err(SignatureError::Malformed(_))));
        }
    }
}

#[test]
fn chains_without_verifier_are_of_invalid_format() {
    let envelope = of("ETH");
    for chain in ["AURORA", "STT"] {
        let chain = chain.parse().expect("a chain");
        let error = verify(&Envelope { chain, signature: None, ..envelope.clone() }).expect_err("no verifier");
        assert_eq!((error.code(), error), (ErrorCode::InvalidFormat, SignatureError::Unverifiable(chain.name())));
    }
}

/// Tezos wallets in browsers sign what they show, with the time of the message in it.
#[test]
fn the_micheline_form_covers_the_time() {
    for curve in [Curve::Ed25519, Curve::Secp256k1, Curve::P256] {
        let account = Account::tezos(curve, [7; 32]).expect("a key");
        for application in [None, Some("example.org/a b")] {
            let mut envelope = signed(&account);
            let text = envelope.verification_buffer();
            let shown =
                tezos::micheline(text.as_bytes(), application.unwrap_or("aleph.im"), envelope.time).expect("a date");
            let mut object: serde_json::Value = serde_json::from_str(&account.sign_bytes(&shown)).expect("an object");
            assert_eq!(with(&envelope, &object.to_string()), Err(SignatureError::Wrong), "it is not of the raw form");
            object["signingType"] = "micheline".into();
            object["dAppUrl"] = application.into();
            assert_eq!(with(&envelope, &object.to_string()), Ok(()));
            object["dAppUrl"] = "other".into();
            assert_eq!(with(&envelope, &object.to_string()), Err(SignatureError::Wrong));
            envelope.time += 1.0;
            object["dAppUrl"] = application.into();
            assert_eq!(with(&envelope, &object.to_string()), Err(SignatureError::Wrong));
        }
    }
}

/// Anything a stranger can do to a signature, from bytes changed in place to other JSON around the right fields.
fn mutated(signature: &str, how: u8, at: sample::Index, with: &str, times: usize) -> String {
    let mut letters: Vec<char> = signature.chars().collect();
    let place = at.index(letters.len());
    match how {
        0 => letters.truncate(place),
        1 => drop(letters.drain(..place)),
        2 => drop(letters.splice(place..=place, with.chars())),
        3 => drop(letters.splice(place..place, with.repeat(times).chars())),
        4 => letters.swap(place, 0),
        5 => letters[place] = letters[place].to_ascii_uppercase(),
        _ => letters.extend(with.repeat(times).chars()),
    }
    letters.into_iter().collect()
}

proptest! {
    #[test]
    fn arbitrary_signatures_do_no_harm(
        text in ".{0,200}",
        hex in "(0x)?[0-9a-fA-F]{130}",
        base64 in "[0-9a-zA-Z+/]{87}=",
        json in r#"\{"(signature|publicKey|data)":"(edpk|edsig|p2sig|0x)?[1-9A-HJ-NP-Za-km-z]{0,90}","(signature|publicKey|pub_key)":"[1-9A-HJ-NP-Za-km-z]{0,90}"\}"#,
    ) {
        for account in accounts() {
            for signature in [&text, &hex, &base64, &json] {
                let error = with(&signed(&account), signature).expect_err("nobody signed this");
                let missing = signature.is_empty();
                prop_assert!(missing || error.code() == ErrorCode::InvalidSignature);
            }
        }
    }

    #[test]
    fn mutated_signatures_do_no_harm(
        how in 0u8..7,
        at in any::<sample::Index>(),
        with_text in ".{0,3}|\\u{0}|[0-9a-f]{2}|[1-9A-HJ-NP-Za-km-z=]|[{}\"\\\\,:]",
        times in 1usize..2000,
    ) {
        for account in accounts() {
            let envelope = signed(&account);
            let original = signature_of(&envelope);
            let changed = mutated(&original, how, at, &with_text, times);
            let verdict = with(&envelope, &changed);
            // Spaces between the members of an object, hex in another case, or a member that nobody reads change nothing.
            if let Err(error) = verdict {
                prop_assert_eq!(error.code(), ErrorCode::InvalidSignature);
                prop_assert_ne!(changed, original);
            }
        }
    }

    #[test]
    fn bytes_changed_under_the_spelling_are_noticed(at in any::<sample::Index>(), bit in 0u8..8) {
        // What is left of a signature whose bits are not those that were signed, in the two spellings without a checksum.
        let envelope = of("ETH");
        let mut bytes = hex::decode(&signature_of(&envelope)[2..]).expect("hex");
        let place = at.index(64);
        bytes[place] ^= 1 << bit;
        prop_assert!(with(&envelope, &hex::encode(&bytes)).is_err());
        let envelope = of("NULS");
        let mut bytes = hex::decode(signature_of(&envelope)).expect("hex");
        let place = at.index(bytes.len());
        bytes[place] ^= 1 << bit;
        prop_assert!(with(&envelope, &hex::encode(&bytes)).is_err());
    }

    #[test]
    fn arbitrary_senders_match_nobody(sender in ".{0,130}|[1-9A-HJ-NP-Za-km-z]{20,60}|(X-)?avax1[02-9ac-hj-np-z]{38}|cosmos1[02-9ac-hj-np-z]{38}|tz[123][1-9A-HJ-NP-Za-km-z]{33}|t?NULS[de][1-9A-HJ-NP-Za-km-z]{30,33}") {
        for account in accounts() {
            let envelope = Envelope { sender: sender.clone(), ..signed(&account) };
            prop_assert_eq!(verify(&envelope), Err(SignatureError::Wrong));
        }
    }
}
