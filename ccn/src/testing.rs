//! A node without its HTTP interface, for tests: real store, real plugins, a treasury whose key is known.

use crate::{
    config::Config,
    dag::building,
    network::Network,
    node::Service,
    pipeline::{FileKind, Receipt, SubmitError},
    store::{
        Reader as _,
        record::{QuarantineRecord, Record as _},
        schema::{Table, hash_key},
    },
};
use ccn_message::{
    ItemHash, MessageStatus,
    sign::{Account, Draft, to_json},
};
use serde_json::{Value, json};
use std::{fs, path::PathBuf, time::Duration};

/// A node.
pub(crate) struct TestNode {
    pub(crate) service: Service,
    pub(crate) treasury: Account,
    folder: Option<tempfile::TempDir>,
}

/// A key that everybody knows.
pub(crate) fn account(number: u8) -> Account {
    Account::ethereum([number; 32]).expect("a key")
}

/// Settings of a node with an empty folder.
pub(crate) fn config(folder: &tempfile::TempDir) -> Config {
    let treasury = account(99).address().to_owned();
    let network = Network {
        credit_treasury: vec![treasury.clone()],
        credit_minters: vec![treasury.clone()],
        balance_publishers: vec![treasury],
        ..Network::default()
    };
    Config { data_dir: folder.path().to_owned(), network, ..Config::default() }
}

impl TestNode {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = config(&folder);
        change(&mut config);
        let service = Service::open(config).await.expect("a node");
        Self { service, treasury: account(99), folder: Some(folder) }
    }

    /// Stops it and starts it again in its folder.
    pub(crate) async fn restarted(mut self) -> Self {
        let folder = self.folder.take();
        let (config, treasury) = (self.service.config.clone(), self.treasury);
        self.service.pipeline.stop().await;
        drop(self.service);
        // Whoever holds the store last, such as a search for a file, lets go of it in a moment.
        for _ in 0..100 {
            match Service::open(config.clone()).await {
                Ok(service) => return Self { service, treasury, folder },
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        panic!("the node does not start again");
    }

    pub(crate) async fn submit(&self, message: &Value) -> Result<Receipt, SubmitError> {
        self.service.pipeline.submit(message.to_string()).await
    }

    /// Signs and submits.
    pub(crate) async fn send(&self, account: &Account, draft: Draft) -> Receipt {
        self.service.pipeline.submit(to_json(&draft.sign(account))).await.expect("a receipt")
    }

    /// Puts a file into the folder, under its names in storage and IPFS.
    pub(crate) async fn put_file(&self, bytes: &[u8]) -> ItemHash {
        let files = &self.service.files;
        let mut hashes = Vec::new();
        for place in 0..2 {
            let mut writer = files.writer().await.expect("a file");
            writer.write(bytes).await.expect("a write");
            let file = writer.finish().await.expect("a file");
            let hash = if place == 0 { file.sha256.clone() } else { file.cid_v0.clone() };
            files.publish(file, &hash).await.expect("a name");
            let size = bytes.len() as u64;
            self.service.pipeline.add_file(hash.clone(), size, FileKind::File).await.expect("a record");
            hashes.push(hash);
        }
        hashes.swap_remove(0)
    }

    /// Puts what is in an archive of blocks into the folder, under its name in IPFS.
    pub(crate) async fn put_archive(&self, archive: &[u8]) -> ItemHash {
        let files = &self.service.files;
        let (hash, followed) = building::follow(files, archive).await;
        let (size, kind) = (followed.size, followed.kind);
        followed.publish(files).await.expect("a name");
        self.service.pipeline.add_file(hash.clone(), size, kind).await.expect("a record");
        hash
    }

    /// Status and error code of a hash.
    pub(crate) fn status(&self, hash: &ItemHash) -> Option<(MessageStatus, Option<i32>)> {
        let record = self.service.store.snapshot().expect("a snapshot").status(hash).expect("no error")?;
        Some((record.status(), record.rejection.map(|rejection| rejection.code)))
    }

    /// Why a message was put aside.
    pub(crate) fn quarantined(&self, hash: &ItemHash) -> Option<QuarantineRecord> {
        let snapshot = self.service.store.snapshot().expect("a snapshot");
        let row = snapshot.get(Table::Quarantine, &hash_key(hash)).expect("no error")?;
        Some(QuarantineRecord::read(&row).expect("a record"))
    }

    /// Gives an address tokens and credits, the way the network does.
    pub(crate) async fn fund(&self, address: &str, tokens: u64, credits: u64) {
        // The same messages whenever this runs.
        let time = 1_780_000_000.0;
        let grant = json!({"address": address, "amount": credits, "price": "1", "tx_hash": "t", "provider": "p"});
        let distribution = json!({"type": "aleph_credit_distribution",
            "content": {"distribution": {"token": "T", "chain": "ETH", "credits": [grant]}}});
        let balances = json!({"type": "balances-update",
            "content": {"chain": "ETH", "main_height": 1, "balances": {address: tokens}}});
        for content in [distribution, balances] {
            let draft = Draft::new("POST", &content.to_string()).channel("ALEPH_CREDIT").time(time);
            let receipt = self.send(&self.treasury, draft).await;
            assert_eq!(receipt.status, MessageStatus::Processed, "{receipt:?}");
        }
    }
}

/// A file of the shared fixtures, beside the repository.
pub(crate) fn fixture(path: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures").join(path);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A JSON file of the shared fixtures.
pub(crate) fn fixture_json(path: &str) -> Value {
    serde_json::from_slice(&fixture(path)).expect("a fixture is JSON")
}
