//! Indexers that are files of the operator's own.

use super::fake::{FakeProvider, Manners, tokens, transfer};
use crate::{
    chains::FollowerState,
    host::{Refusal, Source, inspect, inspect_indexer},
    testing::TestNode,
};
use ccn_message::ItemHash;
use std::{collections::BTreeMap, fs, path::Path};

/// The node's own indexer of tokens under another name.
fn renamed() -> Vec<u8> {
    let own = plugin_bundle::INDEXERS.iter().find(|plugin| plugin.name == "erc20").expect("it is there");
    let mut bytes = own.bytes.to_vec();
    let name = br#""name": "erc20""#;
    // The manifest is a section of the file, and a constant of its code.
    let places = bytes.windows(name.len()).enumerate().filter(|(_, window)| window == name);
    let places: Vec<usize> = places.map(|(place, _)| place).collect();
    places.iter().for_each(|place| bytes[place + name.len() - 2] = b'X');
    bytes
}

async fn node_with(provider: &FakeProvider, grants: &[&str]) -> TestNode {
    let bytes = renamed();
    let sha256 = ItemHash::sha256_of(&bytes).to_string();
    let chain = provider.chain(Some(2), &[("erc2X", tokens().1)]);
    TestNode::with(|config| {
        let folder = config.plugin_folder();
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("tokens.wasm"), &bytes).expect("a file");
        config.chains = vec![chain];
        config.plugin_grants.insert(sha256, grants.iter().map(|grant| (*grant).to_owned()).collect());
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_the_folder_is_loaded_by_its_name_and_does_what_it_was_granted() {
    let provider = FakeProvider::start(Manners::default()).await;
    provider.mine(vec![transfer(0, 1, 5)]);
    let node = node_with(&provider, &["ledger"]).await;
    provider.followed_by(&node).await;
    let shown = node.service.chains.plugins();
    let names: Vec<_> = shown.iter().map(|plugin| (plugin.name.as_deref(), plugin.file.as_deref())).collect();
    assert_eq!(names, [(Some("erc2X"), Some("tokens.wasm"))]);
    assert_eq!(shown[0].grants, ["ledger"]);

    // Without the grant it may say nothing of balances: it is stopped, and the node is not.
    let node = node_with(&provider, &[]).await;
    let status = provider.status_of(&node, |status| status.state == FollowerState::Stopped).await;
    let sentence = status.last_error.expect("an error").sentence;
    assert!(sentence.contains("was not granted `ledger`"), "{sentence}");
    assert_eq!(status.height, None);
    node.fund("0xA", 1, 1).await;
}

fn source(folder: &Path) -> Source {
    Source {
        folder: folder.join("plugins"),
        cache: std::env::temp_dir().join("beth-tests-compiled-plugins"),
        compiler: crate::host::Compiler::default(),
        grants: BTreeMap::new(),
        pins: BTreeMap::new(),
        settings: BTreeMap::new(),
        queries: 1,
    }
}

#[test]
fn an_indexer_is_no_message_type_and_is_looked_at_all_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tokens.wasm");
    fs::write(&file, renamed()).expect("a file");
    assert!(matches!(inspect(source(folder.path()), &file), Err(Refusal::Indexer)));
    let indexer = inspect_indexer(source(folder.path()), &file).expect("an indexer");
    assert_eq!(indexer.manifest().name, "erc2X");
}
