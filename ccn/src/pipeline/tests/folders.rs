//! Folders of IPFS between nodes.

use crate::{
    config::Config,
    dag::building::{self, Blocks},
    node::Node,
    testing::{TestNode, account, config},
};
use ccn_message::{MessageStatus, sign::Draft};
use std::time::Duration;

/// Nodes of this kind give each other folders, without any IPFS node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_go_from_node_to_node() {
    let folder = tempfile::tempdir().expect("a folder");
    let peer = Node::start(Config { listen: ([127, 0, 0, 1], 0).into(), ..config(&folder) }).await.expect("a peer");
    let mut blocks = Blocks::default();
    let page = blocks.raw(b"<h1>hi</h1>");
    let root = blocks.directory(&[("index.html", &page, 11)]);
    let service = peer.service();
    let (hash, followed) = building::follow(&service.files, &blocks.archive(&root)).await;
    let (size, kind) = (followed.size, followed.kind);
    followed.publish(&service.files).await.expect("a name");
    service.pipeline.add_file(hash.clone(), size, kind).await.expect("a record");

    let url = format!("http://{}", peer.address());
    let node = TestNode::with(|config| config.peers = vec![url]).await;
    let content = serde_json::json!({"item_type": "ipfs", "item_hash": root.to_string()}).to_string();
    let receipt = node.send(&account(1), Draft::new("STORE", &content).time(1000.0)).await;
    for _ in 0..500 {
        if node.status(&receipt.item_hash) == Some((MessageStatus::Processed, None)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(node.status(&receipt.item_hash), Some((MessageStatus::Processed, None)));
    assert!(node.service.files.has_archive(&hash).expect("no error"));
    node.service.pipeline.stop().await;
    peer.stop().await;
}
