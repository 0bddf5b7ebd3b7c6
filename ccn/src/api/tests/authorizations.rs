//! Who may act for whom.

use super::*;

#[tokio::test]
async fn grants_are_found_from_both_sides() {
    let [owner, other, agent, helper] =
        ["owner", "other", "agent", "helper"].map(|name| account(&format!("authorizations: {name}")));
    let grant = |account: &Account, authorizations: &Value| {
        let content = json!({"key": "security", "content": {"authorizations": authorizations}});
        draft("AGGREGATE", &content).sign(account)
    };
    let of_agent = json!({"chain": "ETH", "channels": ["X"], "types": ["POST"], "post_types": ["blog"]});
    let mut entry = of_agent.clone();
    entry["address"] = agent.address().into();
    processed(&grant(&owner, &json!([entry, {"address": helper.address(), "aggregate_keys": ["k"], "alias": "me"}])))
        .await;
    processed(&grant(&other, &json!([{"address": agent.address()}, {"address": agent.address(), "types": ["STORE"]}])))
        .await;

    let granted =
        async |more: &str| get_json(&format!("/api/v0/authorizations/granted/{}.json{more}", owner.address())).await;
    let found = granted("").await;
    let fields =
        ["authorizations", "address", "pagination_page", "pagination_total", "pagination_per_page", "pagination_item"];
    assert_fields(&found, &fields);
    assert_eq!((&found["address"], &found["pagination_item"]), (&json!(owner.address()), &json!("authorizations")));
    let both = json!({agent.address(): [of_agent], helper.address(): [{"aggregate_keys": ["k"]}]});
    assert_eq!((&found["authorizations"], &found["pagination_total"]), (&both, &json!(2)));
    // What is not restricted matches whatever is asked for.
    let only_helper = json!({helper.address(): [{"aggregate_keys": ["k"]}]});
    for more in ["?types=STORE", "?channels=Y", "?chains=SOL", "?postTypes=note,other", "?post_types=note"] {
        assert_eq!(granted(more).await["authorizations"], only_helper, "{more}");
    }
    assert_eq!(granted(&format!("?grantee={}", helper.address())).await["authorizations"], only_helper);
    assert_eq!(granted("?aggregateKeys=other").await["pagination_total"], 1);

    let received =
        async |more: &str| get_json(&format!("/api/v0/authorizations/received/{}.json{more}", agent.address())).await;
    let found = received("").await;
    assert_eq!(
        found["authorizations"],
        json!({owner.address(): [of_agent], other.address(): [{}, {"types": ["STORE"]}]})
    );
    assert_eq!(received("?types=AGGREGATE").await["authorizations"], json!({other.address(): [{}]}));
    assert_eq!(received(&format!("?granter={}", owner.address())).await["pagination_total"], 1);
    let first = received("?pagination=1").await;
    let second = received("?pagination=1&page=2").await;
    let names =
        |page: &Value| page["authorizations"].as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!([names(&first), names(&second)].concat().len(), 2);
    assert_ne!(names(&first), names(&second));

    // What is taken back is gone from both sides.
    processed(&grant(&owner, &json!([]))).await;
    assert_eq!(granted("").await["authorizations"], json!({}));
    assert_eq!(received("").await["pagination_total"], 1);
    get("/api/v0/authorizations/granted/0xA").await.refused(404, "ADDRESS.json");
    get("/api/v0/authorizations/granted/0xA.json?pagination=501").await.refused(422, "1 to 500");
}
