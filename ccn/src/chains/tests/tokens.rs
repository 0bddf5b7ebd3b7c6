//! Tokens over whatever a chain and its provider do.

use super::fake::{FakeProvider, Log, Manners, asked, rows, tokens, transfer};
use crate::{chains::FollowerState, ledger, testing::TestNode};
use axum::http::StatusCode;
use fastrand::Rng;
use serde_json::json;

async fn balance(node: &TestNode, account: u8) -> serde_json::Value {
    let (token, account) = (hex::encode([0x70; 20]), hex::encode([account; 20]));
    let mut answer = asked(node, &format!("/api/v0/tokens/ETH/0x{token}/balances/0x{account}")).await;
    assert!(answer["balance"].is_string(), "{answer}");
    answer["balance"].take()
}

async fn node_of(provider: &FakeProvider, finality: Option<u64>) -> TestNode {
    let chain = provider.chain(finality, &[tokens()]);
    TestNode::with(|config| config.chains = vec![chain]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_found_and_what_comes_twice_counts_once() {
    let manners = Manners { limit: Some(7), muddled: true, ..Manners::default() };
    let provider = FakeProvider::start(manners).await;
    provider.mine(vec![transfer(0, 1, 1000)]);
    for _ in 0..150 {
        provider.mine(vec![transfer(1, 2, 1), transfer(2, 3, 1), transfer(1, 3, 1)]);
    }
    let node = node_of(&provider, Some(3)).await;
    provider.followed_by(&node).await;
    for (account, expect) in [(1, "700"), (2, "0"), (3, "300")] {
        assert_eq!(balance(&node, account).await, expect);
    }
    let status = node.service.chains.status()[0].indexers[0].clone();
    assert_eq!((status.height, status.target, status.lag), (Some(151), Some(151), Some(0)));
    assert_eq!((status.final_height, status.events), (Some(148), 451));
    assert!(status.batch < 50, "{status:?}");
    // This node's own view of the chain counts where funds are asked for.
    let snapshot = node.service.store.snapshot().expect("a snapshot");
    let address = alloy_primitives::Address::from([3; 20]).to_checksum(None);
    let held = ledger::balance(&snapshot, &address, 0).expect("a balance");
    assert_eq!(Ok(held.total), "300".parse());
    // What is final was asked for in ranges, what is not by its hash, once.
    let questions = provider.questions();
    assert_eq!(questions.iter().filter(|question| question.contains("blockHash")).count(), 3, "{questions:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_chain_takes_back_is_taken_back() {
    let provider = FakeProvider::start(Manners::default()).await;
    provider.mine(vec![transfer(0, 1, 100)]);
    provider.mine_empty(5);
    provider.mine(vec![transfer(1, 2, 30)]);
    provider.mine(vec![transfer(2, 3, 10)]);
    let node = node_of(&provider, Some(5)).await;
    provider.followed_by(&node).await;
    assert_eq!((balance(&node, 2).await, balance(&node, 3).await), (json!("20"), json!("10")));
    provider.take_back(2);
    provider.mine(vec![transfer(1, 3, 1)]);
    provider.mine_empty(1);
    provider.mine_empty(1);
    provider.followed_by(&node).await;
    for (account, expect) in [(1, "99"), (2, "0"), (3, "1")] {
        assert_eq!(balance(&node, account).await, expect);
    }
    // A chain that got shorter, and stays so for a while.
    provider.take_back(3);
    provider.mine_empty(1);
    provider.followed_by(&node).await;
    assert_eq!((balance(&node, 1).await, balance(&node, 3).await), (json!("100"), json!("0")));
    assert_eq!(node.service.chains.status()[0].indexers[0].reorganisations, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_fails_is_asked_again() {
    let provider = FakeProvider::start(Manners { finalized: Some(4), timely: true, ..Manners::default() }).await;
    provider.mine(vec![transfer(0, 1, 5)]);
    provider.mine_empty(20);
    let error = |code: i64, message: &str| {
        json!({"jsonrpc": "2.0", "id": 3, "error": {"code": code, "message": message}}).to_string()
    };
    provider.behave(|manners| {
        manners.faults.extend([
            (StatusCode::INTERNAL_SERVER_ERROR, "down".to_owned()),
            (StatusCode::OK, "<html>".to_owned()),
            (StatusCode::OK, json!({"jsonrpc": "2.0", "id": 0, "result": null}).to_string()),
            (StatusCode::OK, error(-32005, "daily request count exceeded, request rate limited")),
            (StatusCode::TOO_MANY_REQUESTS, String::new()),
            (StatusCode::OK, error(-32000, "header not found")),
        ]);
    });
    let node = node_of(&provider, None).await;
    let status = provider.status_of(&node, |status| status.last_error.is_some()).await;
    assert_eq!(status.state, FollowerState::Retrying);
    let sentence = status.last_error.expect("an error").sentence;
    assert!(!sentence.contains("127.0.0.1"), "{sentence}");
    provider.followed_by(&node).await;
    assert_eq!(balance(&node, 1).await, "5");
    assert_eq!(node.service.chains.status()[0].indexers[0].final_height, Some(17));
}

/// A provider, and a node that has followed it to the block 12, where an account has 11.
async fn followed() -> (FakeProvider, TestNode) {
    let provider = FakeProvider::start(Manners::default()).await;
    provider.mine_empty(10);
    provider.mine(vec![transfer(0, 1, 5)]);
    provider.mine(vec![transfer(0, 1, 6)]);
    let node = node_of(&provider, Some(8)).await;
    provider.followed_by(&node).await;
    (provider, node)
}

/// The provider has everything again: it is followed from where it was left, and nothing was taken back meanwhile.
async fn goes_on(provider: &FakeProvider, node: &TestNode) {
    provider.mine(vec![transfer(1, 2, 1)]);
    provider.followed_by(node).await;
    assert_eq!(balance(node, 1).await, "10");
    assert_eq!(node.service.chains.status()[0].indexers[0].reorganisations, 0);
}

/// One of several providers behind one name is often a little behind the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_behind_takes_nothing_back() {
    let (provider, node) = followed().await;
    for behind in [1, 6, 12] {
        provider.behave(|manners| manners.behind = behind);
        provider.status_of(&node, |status| status.target == Some(12 - behind as u64)).await;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert_eq!(balance(&node, 1).await, "11");
    }
    provider.behave(|manners| manners.behind = 0);
    goes_on(&provider, &node).await;
}

/// A block that the machine that answered did not have was taken for one that the chain had taken back.
#[tokio::test(flavor = "multi_thread")]
async fn machines_behind_one_name_that_know_less_than_others_take_nothing_back() {
    let (provider, node) = followed().await;
    for lacks in [1, 6, 12] {
        provider.behave(|manners| manners.lacks = lacks);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert_eq!(balance(&node, 1).await, "11");
    }
    provider.behave(|manners| manners.lacks = 0);
    goes_on(&provider, &node).await;
}

fn some_logs(random: &mut Rng) -> Vec<Log> {
    let count = random.u8(0..4);
    (0..count).map(|_| transfer(random.u8(0..6), random.u8(0..6), random.u64(0..50))).collect()
}

/// Whatever history a node has seen, and however often it was stopped in it, it holds what one holds that has seen the outcome alone.
#[tokio::test(flavor = "multi_thread")]
async fn every_history_ends_where_its_last_chain_does() {
    for seed in 0..6 {
        let mut random = Rng::with_seed(seed);
        let manners = Manners { muddled: seed % 2 == 0, timely: seed % 3 == 0, limit: Some(9), ..Manners::default() };
        let provider = FakeProvider::start(manners).await;
        let depth = 12;
        let mut node = node_of(&provider, Some(depth)).await;
        let mut highest = 0;
        for _ in 0..12 {
            for _ in 0..random.u8(0..10) {
                provider.mine(some_logs(&mut random));
            }
            // Blocks that a node may have taken for final stay.
            highest = provider.height().max(highest);
            let most = (provider.height() + depth).saturating_sub(highest).min(provider.height()) as usize;
            match random.u8(0..6) {
                0 | 1 if most > 1 => provider.take_back(random.usize(1..most)),
                2 => provider.followed_by(&node).await,
                3 => {
                    node.service.chains.stop().await;
                    node = node.restarted().await;
                }
                _ => tokio::time::sleep(std::time::Duration::from_millis(random.u64(0..80))).await,
            }
        }
        provider.mine(some_logs(&mut random));
        provider.followed_by(&node).await;
        let fresh = node_of(&provider, Some(0)).await;
        provider.followed_by(&fresh).await;
        assert_eq!(rows(&node), rows(&fresh), "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_settings_begin_anew() {
    let provider = FakeProvider::start(Manners::default()).await;
    for number in 0..30 {
        provider.mine(vec![transfer(0, number % 5 + 1, 5)]);
    }
    let mut node = node_of(&provider, Some(5)).await;
    provider.followed_by(&node).await;
    assert_eq!(balance(&node, 1).await, "30");
    node.service.chains.stop().await;
    node.service.config.chains[0].start = 26;
    let node = node.restarted().await;
    provider.status_of(&node, |status| status.state == FollowerState::Current).await;
    provider.followed_by(&node).await;
    assert_eq!(balance(&node, 1).await, "5");
    let mut fresh = provider.chain(Some(0), &[tokens()]);
    fresh.start = 26;
    let fresh = TestNode::with(|config| config.chains = vec![fresh]).await;
    provider.followed_by(&fresh).await;
    assert_eq!(rows(&node), rows(&fresh));
}
