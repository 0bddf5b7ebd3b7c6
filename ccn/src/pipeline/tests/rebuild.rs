//! State that is made anew is the state that was.

use super::fixtures::state;
use crate::{
    pipeline::rebuild::namespace_key,
    store::{
        Reader as _, Row,
        record::{RebuildRecord, Record as _},
        schema::Table,
    },
    testing::TestNode,
};
use std::time::Duration;

/// Has every plugin's state be made anew from the messages; nothing is different after it.
pub(super) async fn check(node: &TestNode, before: &[(Table, Vec<Row>)]) {
    let sequence =
        |node: &TestNode| node.service.store.snapshot().expect("a snapshot").number(Table::Meta, b"sequence");
    let last = sequence(node).expect("a number");
    for plugin in node.service.plugins.all() {
        let key = namespace_key(plugin.manifest().namespace());
        let row = Some(RebuildRecord::wanted().to_bytes());
        node.service.pipeline.note(Table::Rebuilds, key, row).await.expect("it is written down");
    }
    let is_done = || {
        let snapshot = node.service.store.snapshot().expect("a snapshot");
        let rows = |table| snapshot.prefixed(table, &[]).expect("rows").len();
        rows(Table::Rebuilds) == 0 && rows(Table::Wakes) == 0
    };
    for _ in 0..1500 {
        if is_done() {
            for ((table, rows), (_, others)) in before.iter().zip(&state(node)) {
                assert_eq!(rows, others, "{table:?}, made anew");
            }
            // Whoever is decided anew gets another number.
            assert_eq!(sequence(node).expect("a number"), last, "messages were decided anew");
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the states are not made anew");
}
