//! Events as the contract encodes them, and everything strangers can put into them.

use super::*;
use crate::events::{MESSAGE_EVENT, MessageEvent, SYNC_EVENT, SyncEvent};
use alloy_primitives::{Address, U256};
use alloy_sol_types::SolEvent as _;
use plugin_sdk::indexer::{ContractMessage, MemoryChainView};
use proptest::prelude::*;
use serde_json::json;

const CONTRACT: [u8; 20] = [0xc0; 20];
const EMITTER: [u8; 20] = [0xe1; 20];
const STRANGER: [u8; 20] = [0x5a; 20];
const CID: &str = "QmaMLRsvmDRCezZe2iebcKWtEzKNjBaQfwcu7mcpdm8eY2";

fn config() -> String {
    // Addresses may be spelled in any case.
    json!({"contract": hex(&CONTRACT).to_uppercase().replace("0X", "0x"), "emitters": [hex(&EMITTER)], "start": 7})
        .to_string()
}

fn block() -> Block {
    Block { chain: "ETH".into(), height: 9, hash: vec![1; 32], time: 1000 }
}

fn event(topic: [u8; 32], data: &[u8]) -> Event<'_> {
    Event { transaction: [7; 32], log_index: 3, contract: CONTRACT, topics: vec![topic], data }
}

fn sync_data(publisher: [u8; 20], message: &str) -> Vec<u8> {
    SyncEvent { timestamp: U256::from(1), addr: Address::from(publisher), message: message.into() }.encode_data()
}

fn message_data(timestamp: u64, kind: &str, content: &str) -> Vec<u8> {
    let addr = Address::from(STRANGER);
    MessageEvent { timestamp: U256::from(timestamp), addr, msgtype: kind.into(), msgcontent: content.into() }
        .encode_data()
}

fn decode(topic: [u8; 32], data: &[u8]) -> Vec<Finding> {
    let records = Ethereum::decode(&config(), &block(), &[event(topic, data)], &MemoryChainView::default());
    records.expect("no error").into_iter().map(|record| record.what).collect()
}

fn check_sync(publisher: [u8; 20], message: &str, expect: &[Finding]) {
    let mut found = decode(SYNC_EVENT, &sync_data(publisher, message));
    found.retain(|finding| !matches!(finding, Finding::Write(_)));
    assert_eq!(found, expect, "{message}");
}

#[test]
fn topics_are_those_of_the_network() {
    assert_eq!(hex(&SYNC_EVENT), "0x2cc768a3de0c950ea2a38e55a9b143cc6fd5a8eec27e36993b542fb16ab591e1");
    assert_eq!(hex(&MESSAGE_EVENT), "0x548eda6c65f4bd05085e450712b22cfb19c58816b453f69294a94e78db9ab32b");
    let subscription = Ethereum::subscribe("ETH", &config()).expect("a subscription");
    assert_eq!((subscription.start, subscription.filters[0].contract.as_slice()), (7, &CONTRACT[..]));
    assert_eq!(subscription.filters[0].topics, [SYNC_EVENT.to_vec(), MESSAGE_EVENT.to_vec()]);
}

#[test]
fn a_wrong_configuration_is_named() {
    for (config, expect) in [
        (r#"{"contract": "0x12"}"#, "no address"),
        (r#"{"contract": "0x12", "emiters": []}"#, "emiters"),
        ("{}", "contract"),
    ] {
        let refusal = Ethereum::subscribe("ETH", config).expect_err("a refusal");
        assert!(refusal.contains(expect), "{refusal}");
    }
}

#[test]
fn sync_events_count_when_an_authorised_one_emits_them() {
    let messages =
        r#"{"protocol":"aleph","version":1,"content":{"messages":[{"item_hash":"a"},{"item_hash": "\u0000"}]}}"#;
    let inline =
        [Finding::Message(r#"{"item_hash":"a"}"#.into()), Finding::Message(r#"{"item_hash": "\u0000"}"#.into())];
    check_sync(EMITTER, messages, &inline);
    check_sync(STRANGER, messages, &[]);
    let archive = format!(r#"{{"protocol":"aleph-offchain","version":1,"content":"{CID}"}}"#);
    check_sync(EMITTER, &archive, &[Finding::Archive(CID.into())]);
    check_sync(STRANGER, &archive, &[]);
    for nothing in [
        "",
        "[]",
        "no JSON",
        r#"{"protocol":"aleph","version":2,"content":{"messages":[]}}"#,
        r#"{"protocol":"other","version":1,"content":{"messages":[]}}"#,
        r#"{"protocol":"aleph","version":1,"content":{}}"#,
        r#"{"protocol":"aleph-offchain","version":1,"content":"../../etc/passwd"}"#,
    ] {
        check_sync(EMITTER, nothing, &[]);
    }
}

#[test]
fn sync_events_that_count_are_listed() {
    let archive = format!(r#"{{"protocol":"aleph-offchain","version":1,"content":"{CID}"}}"#);
    let data = sync_data(EMITTER, &archive);
    let mut view = MemoryChainView::default();
    for height in 1..=30 {
        let block = Block { height, ..block() };
        let events = [event(SYNC_EVENT, &data), Event { log_index: 4, ..event(SYNC_EVENT, &data) }];
        view.apply(&Ethereum::decode(&config(), &block, &events, &view).expect("records"));
    }
    let mut heights = Vec::new();
    let mut cursor = String::new();
    loop {
        let parameters = vec![("pagination".into(), "7".into()), ("cursor".into(), cursor)];
        let path = vec![("chain".into(), "ETH".into())];
        let request = Request { route: "/api/v0/syncs/{chain}".into(), path, parameters };
        let body: serde_json::Value = serde_json::from_slice(&Ethereum::query(&request, &view).body).expect("JSON");
        heights.extend(body["syncs"].as_array().expect("a list").iter().map(|sync| sync["height"].as_u64()));
        match body["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    let expect: Vec<Option<u64>> = (1..=30).rev().flat_map(|height| [Some(height), Some(height)]).collect();
    assert_eq!(heights, expect);
}

#[test]
fn contracts_write_messages() {
    let content = r#"{"address":"0xA","time":1,"type":"t","content":{}}"#;
    let message = |kind: &str, content: &str| ContractMessage {
        sender: hex(&STRANGER),
        kind: kind.into(),
        content: content.into(),
    };
    assert_eq!(
        decode(MESSAGE_EVENT, &message_data(5, "POST", content)),
        [Finding::ContractMessage(message("POST", content))]
    );
    let stored = format!(
        r#"{{"address": "{}", "time": 1668611900.0, "item_type": "ipfs", "item_hash": "{CID}"}}"#,
        hex(&STRANGER)
    );
    assert_eq!(
        decode(MESSAGE_EVENT, &message_data(1_668_611_900, "STORE_IPFS", CID)),
        [Finding::ContractMessage(message("STORE", &stored))]
    );
    assert_eq!(decode(MESSAGE_EVENT, &message_data(1, "STORE_IPFS", "\", \"x\": \"")), []);
    assert_eq!(decode(MESSAGE_EVENT, &message_data(u64::MAX, "STORE_IPFS", CID)), []);
}

/// The network's own vector, of another chain whose addresses are spelled otherwise.
#[test]
fn stored_files_have_the_hash_that_the_network_gives_them() {
    let message = payload::contract_message(
        "KT1VBeLD7hzKpj17aRJ3Kc6QQFeikCEXi7W6",
        Some(1_668_611_900),
        "STORE_IPFS".into(),
        CID.into(),
    );
    let hash = plugin_sdk::message::ItemHash::sha256_of(message.expect("a message").content.as_bytes());
    assert_eq!(hash.to_string(), "1eb440938336b13e7e4ad3f9ebea6de8dbf7fcbdba4c8861ea0a4f70e19e777d");
}

#[test]
fn archives_are_cut_into_messages() {
    let file = br#"{"protocol":"aleph","version":1,"content":{"messages":[{"a":1},2]}}"#;
    let found = Ethereum::unpack(&config(), &block(), file).expect("an archive");
    assert_eq!(found, [Finding::Message(r#"{"a":1}"#.into()), Finding::Message("2".into())]);
    assert!(Ethereum::unpack(&config(), &block(), b"\xff").is_err());
    let other = format!(r#"{{"protocol":"aleph-offchain","version":1,"content":"{CID}"}}"#);
    assert!(Ethereum::unpack(&config(), &block(), other.as_bytes()).is_err());
}

proptest! {
    #[test]
    fn arbitrary_events_do_no_harm(data in proptest::collection::vec(any::<u8>(), 0..300), sync: bool, count in 0_usize..3) {
        let topic = if sync { SYNC_EVENT } else { MESSAGE_EVENT };
        let event = Event { topics: vec![topic; count], ..event(topic, &data) };
        let _ = events::read(&event);
        let _ = payload::archive(&data);
    }

    #[test]
    fn arbitrary_payloads_do_no_harm(message in ".{0,200}", kind in ".{0,20}") {
        let _ = payload::sync(&message);
        if let Some(made) = payload::contract_message("0xA", Some(1), kind, message) {
            prop_assert!(made.kind != "STORE_IPFS");
        }
    }
}
