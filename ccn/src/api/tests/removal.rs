//! What clients see of messages that nobody can pay for.

use super::*;
use crate::{
    clock::now_ms,
    store::{
        Changes,
        confirmation::{self, ConfirmationRecord, TRANSACTION_BYTES},
        record::Record as _,
        schema::Table,
    },
};

#[tokio::test]
async fn what_is_not_paid_is_shown_as_removing_then_as_removed() {
    let owner = account("removal");
    // Three days of the smallest file's credits: it counts as 25 MiB, and is spared while that is free.
    let file = post("/api/v0/storage/add_file", "application/octet-stream", vec![7; 100]).await.json()["hash"].clone();
    let content = json!({"item_type": "storage", "item_hash": file, "payment": {"type": "credit"}});
    let expiration = now_ms() + 3_600_000;
    let credits =
        [json!({"address": owner.address(), "amount": 1000, "price": "1", "tx_hash": "0x1", "provider": "TEST",
        "expiration": expiration})];
    let grant = json!({"type": "aleph_credit_distribution",
        "content": {"distribution": {"token": "TEST", "chain": "ETH", "credits": credits}}});
    processed(&draft("POST", &grant).channel("ALEPH_CREDIT").sign(&account("treasury"))).await;
    // From 2027 on it has to be paid.
    let envelope = Draft::new("STORE", &content.to_string()).time(1_798_761_601.0).channel("TEST").sign(&owner);
    let hash = processed(&envelope).await;
    let row = ConfirmationRecord { time: 1, publisher: "0xe".into() }.to_bytes();
    let key = confirmation::key(&envelope.item_hash, "ETH", "test", 30_000_000, &[7; TRANSACTION_BYTES]);
    let pipeline = &NODE._node.service().pipeline;
    pipeline.keep_of_chain(Changes::from([((Table::Confirmations, key), Some(row))])).await.expect("it is kept");

    pipeline.review(expiration).await.expect("a review");
    let shown = get_json(&format!("/api/v0/messages/{hash}")).await;
    assert_eq!((&shown["status"], &shown["reason"]), (&json!("removing"), &json!("credit_insufficient")));
    assert_eq!(shown["message"]["item_hash"], hash);
    let listed = async |statuses: &str| {
        let path = format!("/api/v0/messages.json?owners={}{statuses}", owner.address());
        get_json(&path).await["pagination_total"].clone()
    };
    assert_eq!(
        [listed("").await, listed("&msgStatuses=removing").await, listed("&msgStatuses=processed").await],
        [1, 1, 0]
    );
    assert_eq!(submit(&envelope).await.json()["message_status"], "removing");

    pipeline.review(expiration + 25 * 3_600_000).await.expect("a review");
    let shown = get_json(&format!("/api/v0/messages/{hash}")).await;
    assert_fields(&shown, &["status", "item_hash", "reception_time", "message", "reason", "removed_at", "size"]);
    assert_eq!((&shown["status"], &shown["size"]), (&json!("removed"), &json!(100)));
    assert_eq!([listed("").await, listed("&msgStatuses=removed").await], [0, 1]);
    get(&format!("/api/v0/messages/{hash}/content")).await.refused(422, "removed");
    get(&format!("/api/v0/addresses/{}/files", owner.address())).await.refused(404, "no files");
    assert_eq!(submit(&envelope).await.status, 410);
}
