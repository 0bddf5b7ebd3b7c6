//! What moved credits, who has them, what they were used up for; and tokens.

use super::*;

async fn move_credits(sender: &Account, kind: &str, payload: Value) -> String {
    let content = json!({"type": kind, "content": payload});
    processed(&draft("POST", &content).channel("ALEPH_CREDIT").sign(sender)).await
}

async fn transfer(sender: &Account, recipient: &Account, amount: u64) -> String {
    let credits = json!([{"address": recipient.address(), "amount": amount}]);
    move_credits(sender, "aleph_credit_transfer", json!({"transfer": {"credits": credits}})).await
}

async fn spend(owner: &Account, amounts: &[u64], origin: &str) -> String {
    let entry = |amount: &u64| json!({"address": owner.address(), "amount": amount, "execution_id": origin, "node_id": "a node", "count": 2, "size": "1.5"});
    let credits: Vec<Value> = amounts.iter().map(entry).collect();
    move_credits(&account("treasury"), "aleph_credit_expense", json!({"expense": {"credits": credits}})).await
}

fn amounts(found: &Value) -> Vec<i64> {
    let entries = found["credit_history"].as_array().unwrap_or_else(|| panic!("{found}"));
    entries.iter().map(|entry| entry["amount"].as_i64().expect("a number")).collect()
}

#[tokio::test]
async fn the_history_tells_what_came_and_went() {
    let (owner, other) = (account("history: owner"), account("history: other"));
    let path = |more: &str| format!("/api/v0/addresses/{}/credit_history{more}", owner.address());
    get(&path("")).await.refused(404, "no credits of");
    let empty = json!({"address": owner.address(), "entry_count": 0, "total_amount": 0, "total_incoming": 0, "total_outgoing": 0});
    assert_eq!(get_json(&path("/summary")).await, empty);

    fund(&owner, 1_000).await;
    let origin = ItemHash::sha256_of(b"history: a resource").to_string();
    let expense = spend(&owner, &[10, 20], &origin).await;
    let handed = transfer(&owner, &other, 300).await;
    let found = get_json(&path("")).await;
    let page =
        ["address", "credit_history", "pagination_page", "pagination_total", "pagination_per_page", "pagination_item"];
    assert_fields(&found, &page);
    assert_eq!(amounts(&found), [-300, -20, -10, 1_000]);
    assert_eq!((&found["pagination_total"], &found["pagination_per_page"]), (&json!(4), &json!(0)));
    let [sent, used, .., granted] = found["credit_history"].as_array().expect("a list").as_slice() else { panic!() };
    let fields = [
        "amount",
        "price",
        "bonus_amount",
        "tx_hash",
        "token",
        "chain",
        "provider",
        "origin",
        "origin_ref",
        "payment_method",
        "credit_ref",
        "credit_index",
        "expiration_date",
        "message_timestamp",
        "expense_count",
        "expense_size_mib",
    ];
    for entry in found["credit_history"].as_array().expect("a list") {
        assert_fields(entry, &fields);
        assert!(entry["message_timestamp"].as_str().expect("text").ends_with("+00:00"));
    }
    assert_eq!(
        (&granted["price"], &granted["provider"], &granted["tx_hash"]),
        (&json!("1"), &json!("TEST"), &json!("0x1"))
    );
    assert_eq!(
        (&used["origin"], &used["credit_ref"], &used["credit_index"]),
        (&json!(origin), &json!(expense), &json!(1))
    );
    assert_eq!(
        (&used["payment_method"], &used["expense_count"], &used["expense_size_mib"]),
        (&json!("credit_expense"), &json!(2), &json!(1.5))
    );
    assert_eq!(
        (&sent["payment_method"], &sent["credit_ref"], &sent["origin"]),
        (&json!("credit_transfer"), &json!(handed), &json!(other.address()))
    );
    let summary = json!({"address": owner.address(), "entry_count": 4, "total_amount": 670, "total_incoming": 1_000, "total_outgoing": 330});
    assert_eq!(get_json(&path("/summary")).await, summary);
    // The other side of the transfer.
    let found = get_json(&format!("/api/v0/addresses/{}/credit_history", other.address())).await;
    assert_eq!((amounts(&found), &found["credit_history"][0]["origin"]), (vec![300], &json!(owner.address())));

    let check = async |parameters: &str, expect: &[i64]| {
        let found = get_json(&path(&format!("?{parameters}"))).await;
        assert_eq!(
            (amounts(&found), &found["pagination_total"]),
            (expect.to_vec(), &json!(expect.len())),
            "{parameters}"
        );
        let summary = get_json(&path(&format!("/summary?{parameters}"))).await;
        assert_eq!(summary["entry_count"], expect.len(), "{parameters}");
        assert_eq!(summary["total_amount"], expect.iter().sum::<i64>(), "{parameters}");
    };
    check("sort_order=1", &[1_000, -10, -20, -300]).await;
    check("direction=incoming", &[1_000]).await;
    check("direction=outgoing&exclude_payment_method=credit_transfer", &[-20, -10]).await;
    check("payment_method=credit_expense&sortOrder=1", &[-10, -20]).await;
    check(&format!("origin={origin}"), &[-20, -10]).await;
    check(&format!("resource={origin}&tx_hash=a%20node"), &[-20, -10]).await;
    check("provider=TEST&token=TEST&chain=ETH&has_expiration=false", &[1_000]).await;
    check("sort_by=amount", &[1_000, -10, -20, -300]).await;
    // What has no such field comes after all, or before all.
    check("sort_by=provider&sort_order=1&direction=outgoing", &[-10, -20, -300]).await;
    get(&path("?has_expiration=true")).await.refused(404, "no credits of");
    get(&path("?resourceTypes=INSTANCE")).await.refused(404, "no credits of");
    let page = get_json(&path("?pagination=3&page=2")).await;
    assert_eq!((amounts(&page), &page["pagination_total"]), (vec![1_000], &json!(4)));
    for order in ["-1", "1"] {
        let (mut visited, mut cursor) = (Vec::new(), String::new());
        loop {
            let found = get_json(&path(&format!("?pagination=1&sort_order={order}&cursor={cursor}"))).await;
            assert_fields(&found, &["address", "credit_history", "pagination_per_page", "next_cursor"]);
            visited.extend(amounts(&found));
            match found["next_cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
        if order == "1" {
            visited.reverse();
        }
        assert_eq!(visited, [-300, -20, -10, 1_000]);
    }
    get(&path("?sort_by=size")).await.refused(422, "sort_by");
    get(&path("?direction=up")).await.refused(422, "direction");
    get(&path("?cursor=&sort_by=amount")).await.refused(422, "with a cursor");
    get(&path("?cursor=x")).await.refused(422, "cursor");

    let used = get_json(&format!("/api/v0/messages/{origin}/consumed_credits")).await;
    assert_eq!(used, json!({"item_hash": origin, "consumed_credits": 30}));
}

#[tokio::test]
async fn those_who_have_credits_are_listed() {
    let owners = [account("credits: one"), account("credits: two")];
    for (owner, amount) in owners.iter().zip([5_000_000_001, 5_000_000_002_u64]) {
        fund(owner, amount).await;
    }
    // Others fund their accounts at the same time.
    let found = get_json("/api/v0/credit_balances?min_balance=5000000000&pagination=0").await;
    let mut expect: Vec<Value> = owners
        .iter()
        .zip([5_000_000_001, 5_000_000_002_u64])
        .map(|(owner, credits)| json!({"address": owner.address(), "credits": credits}))
        .collect();
    expect.sort_by_key(|entry| entry["address"].to_string());
    assert_eq!(found["credit_balances"], json!(expect));
    assert_eq!((&found["pagination_total"], &found["pagination_item"]), (&json!(2), &json!("credit_balances")));
    let first = get_json("/api/v0/credit_balances?min_balance=5000000000&pagination=1&cursor=").await;
    assert_fields(&first, &["credit_balances", "pagination_per_page", "next_cursor"]);
    let cursor = first["next_cursor"].as_str().expect("a cursor");
    let second =
        get_json(&format!("/api/v0/credit_balances?min_balance=5000000000&pagination=1&cursor={cursor}")).await;
    assert_eq!([&first["credit_balances"][0], &second["credit_balances"][0]], [&expect[0], &expect[1]]);
    let all = get_json("/api/v0/credit_balances?pagination=1").await;
    assert!(all["pagination_total"].as_u64().expect("a number") >= 2, "{all}");
}

#[tokio::test]
async fn tokens_are_listed_by_address_and_chain() {
    let publisher = account("publisher");
    let publish = async |chain: &str, height: u64, balances: Value| {
        let content = json!({"chain": chain, "main_height": height, "balances": balances});
        processed(&draft("POST", &json!({"type": "balances-update", "content": content})).sign(&publisher)).await;
    };
    publish("ETH", 1, json!({"0xA": 5.5, "0xB": 0, "0xC": 7})).await;
    publish("SOL", 1, json!({"0xA": 1000})).await;
    publish("ETH", 2, json!({"0xC": 8})).await;
    let check = async |parameters: &str, expect: &[(&str, &str, f64)]| {
        let found = get_json(&format!("/api/v0/balances?{parameters}")).await;
        let entries = expect
            .iter()
            .map(|(address, chain, balance)| json!({"address": address, "balance": balance, "chain": chain}));
        assert_eq!(found["balances"], json!(entries.collect::<Vec<_>>()), "{parameters}");
        assert_eq!((&found["pagination_total"], &found["pagination_item"]), (&json!(expect.len()), &json!("balances")));
    };
    check("", &[("0xA", "ETH", 5.5), ("0xA", "SOL", 1000.0), ("0xB", "ETH", 0.0), ("0xC", "ETH", 8.0)]).await;
    check("chains=SOL", &[("0xA", "SOL", 1000.0)]).await;
    check("chains=ETH,SOL&min_balance=6", &[("0xA", "SOL", 1000.0), ("0xC", "ETH", 8.0)]).await;
    let page = get_json("/api/v0/balances?pagination=1&page=3").await;
    assert_eq!((&page["balances"][0]["address"], &page["pagination_total"]), (&json!("0xB"), &json!(4)));
    let (mut visited, mut cursor) = (Vec::new(), String::new());
    loop {
        let found = get_json(&format!("/api/v0/balances?pagination=1&cursor={cursor}")).await;
        visited.extend(
            found["balances"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|entry| (entry["address"].clone(), entry["chain"].clone())),
        );
        match found["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(json!(visited), json!([["0xA", "ETH"], ["0xA", "SOL"], ["0xB", "ETH"], ["0xC", "ETH"]]));
    get("/api/v0/balances?chains=NOPE").await.refused(422, "`NOPE` is not a chain");
    get("/api/v0/balances?min_balance=-1").await.refused(422, "min_balance");
}
