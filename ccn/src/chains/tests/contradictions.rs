//! What no chain does: then a node would rather stop than believe it.

use super::fake::{FakeProvider, Manners, tokens, transfer};
use crate::{chains::FollowerState, node::NodeError, testing::TestNode};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_final_is_not_taken_back() {
    let provider = FakeProvider::start(Manners::default()).await;
    provider.mine(vec![transfer(0, 1, 100)]);
    provider.mine_empty(20);
    let chain = provider.chain(Some(3), &[tokens()]);
    let node = TestNode::with(|config| config.chains = vec![chain]).await;
    provider.followed_by(&node).await;
    provider.take_back(10);
    provider.mine_empty(15);
    let status = provider.status_of(&node, |status| status.state == FollowerState::Stopped).await;
    let sentence = status.last_error.expect("an error").sentence;
    assert!(sentence.contains("which was final"), "{sentence}");
    assert_eq!(status.reorganisations, 0);
    // The rest of the node goes on.
    node.fund("0xA", 1, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_an_indexer_refuses_stop_the_start() {
    let provider = FakeProvider::start(Manners::default()).await;
    let refused = |plugin: &'static str, config: serde_json::Value| {
        let chain = provider.chain(None, &[(plugin, config)]);
        async move {
            let folder = tempfile::tempdir().expect("a folder");
            let mut config = crate::testing::config(&folder);
            config.chains = vec![chain];
            match crate::node::Service::open(config).await {
                Err(NodeError::Chains(error)) => error.to_string(),
                other => panic!("{other:?}"),
            }
        }
    };
    let sentence = refused("erc20", json!({"tokens": []})).await;
    assert!(
        sentence.contains("the settings of the indexer erc20 on the chain ETH") && sentence.contains("0 tokens"),
        "{sentence}"
    );
    let sentence = refused("nobody", json!({})).await;
    assert!(sentence.contains("nobody") && sentence.contains("no indexer of that name"), "{sentence}");
}
