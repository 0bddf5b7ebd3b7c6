use super::*;
use crate::sign::{Account, Draft};
use proptest::prelude::*;

fn signed(account: &Account) -> Envelope {
    Draft::new("POST", r#"{"type":"note","content":{"body":"hi"}}"#).time(1_788_220_801.0).sign(account)
}

#[test]
fn what_is_signed_verifies() {
    for account in [Account::ethereum([7; 32]).expect("a key"), Account::solana([7; 32])] {
        let envelope = signed(&account);
        assert_eq!(verify(&envelope), Ok(()), "{envelope:?}");
        let parsed = Envelope::parse(&crate::sign::to_json(&envelope)).expect("an envelope");
        assert_eq!(verify(&parsed), Ok(()));
    }
}

#[test]
fn any_change_of_what_is_signed_is_noticed() {
    for account in [Account::ethereum([7; 32]).expect("a key"), Account::solana([7; 32])] {
        let check = |change: fn(&mut Envelope)| {
            let mut envelope = signed(&account);
            change(&mut envelope);
            assert_eq!(verify(&envelope), Err(SignatureError::Wrong), "{envelope:?}");
        };
        check(|envelope| envelope.kind = "STORE".into());
        check(|envelope| envelope.item_hash = crate::ItemHash::sha256_of(b"other"));
        check(|envelope| envelope.sender = "0x0000000000000000000000000000000000000000".into());
        check(|envelope| envelope.sender.clear());
    }
    // Channel and time are not signed: whoever relays a message can change them.
    let account = Account::ethereum([7; 32]).expect("a key");
    let mut envelope = signed(&account);
    envelope.time = 5.0;
    envelope.channel = Some("other".into());
    assert_eq!(verify(&envelope), Ok(()));
}

#[test]
fn the_forms_that_wallets_use() {
    let account = Account::ethereum([7; 32]).expect("a key");
    let envelope = signed(&account);
    let signature = envelope.signature.clone().expect("a signature");
    let with = |signature: &str| verify(&Envelope { signature: Some(signature.to_owned()), ..envelope.clone() });
    let v = u8::from_str_radix(&signature[130..], 16).expect("hex");
    assert_eq!(with(&signature[2..]), Ok(()));
    assert_eq!(with(&signature.to_uppercase().replace("0X", "0x")), Ok(()));
    assert_eq!(with(&format!("{}{:02x}", &signature[..130], v - 27)), Ok(()));
    assert_eq!(with(&format!("{}{:02x}", &signature[..130], v - 27 + 37)), Ok(()));
    for malformed in ["0x", "zz", &signature[..130], &format!("{}{:02x}", &signature[..130], 5)] {
        assert!(matches!(with(malformed), Err(SignatureError::Malformed(_))), "{malformed}");
    }
    let sender = envelope.sender.to_lowercase();
    // The text is signed as it is spelled, so another spelling is another text.
    assert_eq!(verify(&Envelope { sender, ..envelope.clone() }), Err(SignatureError::Wrong));
    assert_eq!(verify(&Envelope { signature: None, ..envelope }), Err(SignatureError::Missing));
}

#[test]
fn chains_without_verifier_are_of_invalid_format() {
    let envelope = signed(&Account::ethereum([7; 32]).expect("a key"));
    let on = |chain: &str| verify(&Envelope { chain: chain.parse().expect("a chain"), ..envelope.clone() });
    assert_eq!(on("AURORA").map_err(|error| error.code()), Err(ErrorCode::InvalidFormat));
    assert_eq!(on("TEZOS").map_err(|error| error.code()), Err(ErrorCode::InvalidSignature));
    assert_eq!(on("BASE"), Err(SignatureError::Wrong));
}

proptest! {
    #[test]
    fn arbitrary_signatures_do_no_harm(text in ".{0,200}", hex in "(0x)?[0-9a-fA-F]{130}", json in r#"\{"(signature|publicKey)":"[1-9A-HJ-NP-Za-km-z]{0,90}","(signature|publicKey)":"[1-9A-HJ-NP-Za-km-z]{0,90}"\}"#) {
        for account in [Account::ethereum([7; 32]).expect("a key"), Account::solana([7; 32])] {
            for signature in [&text, &hex, &json] {
                let envelope = Envelope { signature: Some(signature.clone()), ..signed(&account) };
                prop_assert!(verify(&envelope).is_err());
            }
        }
    }
}
