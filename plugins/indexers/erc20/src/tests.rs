//! Transfers as tokens emit them: held against a ledger of plain integers, taken back, listed.

use super::*;
use crate::transfers::{NOBODY, TRANSFER};
use alloy_primitives::U256;
use plugin_sdk::indexer::{Finding, MemoryChainView, hex};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const TOKEN: [u8; 20] = [0xaa; 20];
const DEPLOYER: [u8; 20] = [0xde; 20];

fn config(initial: u64) -> String {
    json!({"start": 1, "tokens": [{"contract": hex(&TOKEN), "symbol": "ALEPH", "decimals": 18, "ledger": true,
        "initial": [[hex(&DEPLOYER), initial.to_string()]]}]})
    .to_string()
}

fn block(height: u64) -> Block {
    Block { chain: "ETH".into(), height, hash: vec![1; 32], time: 1000 + height }
}

fn word(address: [u8; 20]) -> [u8; 32] {
    let mut word = [0; 32];
    word[12..].copy_from_slice(&address);
    word
}

/// A block of transfers.
fn apply(
    view: &mut MemoryChainView,
    config: &str,
    height: u64,
    transfers: &[([u8; 20], [u8; 20], U256)],
) -> Vec<RecordOf> {
    let data: Vec<[u8; 32]> = transfers.iter().map(|(_, _, value)| value.to_be_bytes()).collect();
    let events: Vec<Event<'_>> = transfers
        .iter()
        .zip(&data)
        .map(|((from, to, _), data)| Event {
            transaction: [1; 32],
            log_index: 0,
            contract: TOKEN,
            topics: vec![TRANSFER, word(*from), word(*to)],
            data,
        })
        .collect();
    let records = Erc20::decode(config, &block(height), &events, view).expect("records");
    view.apply(&records);
    records
}

fn ask(view: &MemoryChainView, route: &str, parts: &[(&str, &str)], parameters: &[(&str, &str)]) -> (u16, Value) {
    let owned = |list: &[(&str, &str)]| list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let mut path: Vec<(String, String)> = owned(parts);
    path.extend([("chain".to_owned(), "ETH".to_owned()), ("contract".to_owned(), hex(&TOKEN))]);
    let request = Request { route: format!("/api/v0/tokens/{{chain}}{route}"), path, parameters: owned(parameters) };
    let response = Erc20::query(&request, view);
    (response.status, serde_json::from_slice(&response.body).expect("JSON"))
}

fn units(view: &MemoryChainView, address: [u8; 20]) -> String {
    let (status, body) = ask(view, "/{contract}/balances/{address}", &[("address", &hex(&address))], &[]);
    assert_eq!(status, 200, "{body}");
    body["units"].as_str().expect("a text").to_owned()
}

#[test]
fn the_topic_is_that_of_the_standard() {
    assert_eq!(hex(&TRANSFER), "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");
    let subscription = Erc20::subscribe("ETH", &config(0)).expect("a subscription");
    assert_eq!((subscription.start, subscription.filters.len()), (1, 1));
    for (wrong, expect) in [
        (r#"{"tokens":[]}"#, "0 tokens"),
        (r#"{"tokens":[{"contract":"0x1","symbol":"A","decimals":1}]}"#, "no address"),
        (r#"{"tokens":[{"contract":"0x1","symbol":"A","decimals":1,"x":1}]}"#, "unknown field"),
    ] {
        let refusal = Erc20::subscribe("ETH", wrong).expect_err("a refusal");
        assert!(refusal.contains(expect), "{refusal}");
    }
}

#[test]
fn amounts_are_exact_and_shown_as_decimals() {
    let check = |units: &str, decimals, most, expect: &str| {
        let units = U256::from_str_radix(units, 10).expect("a number");
        assert_eq!(state::decimal(units, decimals, most), expect);
    };
    let example = plugin_sdk::indexer::bytes_of_hex("0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed").expect("an address");
    assert_eq!(state::spelled(&example), "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed");
    check("0", 18, u8::MAX, "0");
    check("1", 18, u8::MAX, "0.000000000000000001");
    check("500000000000000000000000000", 18, u8::MAX, "500000000");
    check("1234500", 6, u8::MAX, "1.2345");
    check("12345", 0, u8::MAX, "12345");
    check("1999999999999999999999", 21, 18, "1.999999999999999999");
    let most = U256::MAX.to_string();
    check(&most, 18, u8::MAX, &format!("{}.{}", &most[..60], &most[60..]));
}

#[test]
fn tokens_move_and_holders_are_listed() {
    let (a, b) = ([0xa; 20], [0xb; 20]);
    let config = config(1000);
    let mut view = MemoryChainView::default();
    assert_eq!(ask(&view, "/{contract}", &[], &[]).0, 404);
    let records = apply(
        &mut view,
        &config,
        5,
        &[
            (DEPLOYER, a, U256::from(100)),
            (NOBODY, b, U256::from(7)),
            (a, b, U256::from(30)),
            (b, NOBODY, U256::from(1)),
        ],
    );
    let told: Vec<(String, String)> = records
        .iter()
        .filter_map(|record| match &record.what {
            Finding::Balance(balance) => Some((balance.address.clone(), balance.balance.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(told.len(), 3);
    assert!(told.contains(&(state::spelled(&a), "0.00000000000000007".to_owned())), "{told:?}");
    assert_eq!([units(&view, DEPLOYER), units(&view, a), units(&view, b)], ["900", "70", "36"]);
    let (_, token) = ask(&view, "/{contract}", &[], &[]);
    assert_eq!(
        (&token["supply_units"], &token["holders"], &token["transfers"], &token["height"], &token["exact"]),
        (&json!("1006"), &json!(3), &json!(4), &json!(5), &json!(true))
    );
    apply(&mut view, &config, 6, &[(a, b, U256::from(70)), (b, b, U256::from(5))]);
    let (_, holders) = ask(&view, "/{contract}/holders", &[], &[]);
    let listed: Vec<&str> =
        holders["holders"].as_array().expect("a list").iter().filter_map(|holder| holder["units"].as_str()).collect();
    assert_eq!((listed, &holders["total"]), (vec!["900", "106"], &json!(2)));
    assert_eq!(units(&view, a), "0");
    let (_, tokens) = ask(&view, "", &[], &[]);
    assert_eq!(tokens["tokens"].as_array().map(Vec::len), Some(1));
}

#[test]
fn what_does_not_add_up_is_said() {
    let mut view = MemoryChainView::default();
    apply(&mut view, &config(0), 5, &[(DEPLOYER, [1; 20], U256::from(5))]);
    let (_, token) = ask(&view, "/{contract}", &[], &[]);
    assert_eq!(token["exact"], false);
}

proptest! {
    /// Whatever moves, balances are those of a plain ledger, and the listing is theirs in order.
    #[test]
    fn balances_are_those_of_a_plain_ledger(
        blocks in proptest::collection::vec(proptest::collection::vec((0_u8..6, 0_u8..6, 0_u64..50), 0..6), 0..12),
        length in 1_usize..5,
    ) {
        let config = config(100);
        let mut view = MemoryChainView::default();
        let mut ledger: BTreeMap<[u8; 20], u64> = BTreeMap::from([(DEPLOYER, 100)]);
        let address = |number: u8| match number { 0 => NOBODY, 1 => DEPLOYER, other => [other; 20] };
        let mut any = false;
        for (height, block) in blocks.iter().enumerate() {
            let mut transfers = Vec::new();
            for (from, to, value) in block {
                let (from, to) = (address(*from), address(*to));
                let most = if from == NOBODY { 1000 } else { ledger.get(&from).copied().unwrap_or(0) };
                let value = (*value).min(most);
                if from != NOBODY { *ledger.entry(from).or_default() -= value; }
                if to != NOBODY { *ledger.entry(to).or_default() += value; }
                transfers.push((from, to, U256::from(value)));
            }
            any |= !transfers.is_empty();
            apply(&mut view, &config, height as u64, &transfers);
        }
        if !any { return Ok(()); }
        ledger.retain(|_, balance| *balance > 0);
        for (address, balance) in &ledger {
            prop_assert_eq!(units(&view, *address), balance.to_string());
        }
        let mut listed = Vec::new();
        let mut cursor = String::new();
        loop {
            let (_, page) = ask(&view, "/{contract}/holders", &[], &[("pagination", &length.to_string()), ("cursor", &cursor)]);
            prop_assert_eq!(&page["total"], &json!(ledger.len()));
            prop_assert_eq!(&page["supply_units"], &json!(ledger.values().sum::<u64>().to_string()));
            prop_assert_eq!(&page["exact"], &json!(true));
            listed.extend(page["holders"].as_array().expect("a list").iter().map(|holder| holder["units"].as_str().map(str::to_owned)));
            match page["next_cursor"].as_str() { Some(next) => cursor = next.to_owned(), None => break }
        }
        let mut expect: Vec<u64> = ledger.values().copied().collect();
        expect.sort_unstable_by(|a, b| b.cmp(a));
        prop_assert_eq!(listed, expect.iter().map(|balance| Some(balance.to_string())).collect::<Vec<_>>());
        // No row is left behind: a balance and a place per holder, and the token.
        prop_assert_eq!(view.state.len(), 2 * ledger.len() + 1);
    }

    #[test]
    fn arbitrary_events_do_no_harm(topics in proptest::collection::vec(any::<[u8; 32]>(), 0..5), data in proptest::collection::vec(any::<u8>(), 0..100)) {
        let mut topics = topics;
        if let Some(first) = topics.first_mut() { *first = TRANSFER; }
        let event = Event { transaction: [1; 32], log_index: 0, contract: TOKEN, topics, data: &data };
        let _ = transfers::Transfer::read(&event);
        let _ = config::Config::read(&String::from_utf8_lossy(&data));
    }
}
