use super::*;
use plugin_sdk::{MemoryView, simulation::message, text_of};
use proptest::prelude::*;

const LATE: f64 = 1_780_000_000.0;

fn view() -> MemoryView {
    let mut view = MemoryView::new("post");
    let settings = [(PUBLISHERS, "0xP, 0xQ"), (TREASURY, "0xT"), (CHANNEL, "ALEPH_CREDIT"), (WHITELIST, "0xW,0xV")];
    view.settings.extend(settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
    view
}

fn judge(
    address: &str,
    channel: Option<&str>,
    time: f64,
    kind: &str,
    payload: &str,
) -> Result<Option<LedgerEntry>, Rejection> {
    let text = format!(r#"{{"address":"{address}","time":{time},"type":"{kind}","content":{payload}}}"#);
    let mut message = message("POST", &text).expect("a message");
    message.channel = channel.map(str::to_owned);
    let content = PostContent::parse(text_of(&message).expect("text")).expect("a post");
    entry(&message, &content, &view())
}

/// In the channel of credits, of late.
fn credits_of(address: &str, kind: &str, payload: &str) -> Result<Option<LedgerEntry>, Rejection> {
    judge(address, Some("ALEPH_CREDIT"), LATE, kind, payload)
}

const GRANT: &str = r#"{"distribution":{"token":"ALEPH","chain":"ETH","credits":[
    {"address":"0xA","amount":100,"price":"0.5","tx_hash":"0x1","provider":"ALEPH","expiration":1800000000000},
    {"address":"0xB","amount":7,"price":0.25,"tx_hash":"0x2","provider":"WERT","origin":"o","ref":"r","payment_method":"card","bonus_amount":3}]}}"#;

#[test]
fn distributions_grant_credits() {
    let grants = |time: f64| match judge("0xT", Some("ALEPH_CREDIT"), time, DISTRIBUTION, GRANT) {
        Ok(Some(LedgerEntry::Grants(grants))) => grants,
        other => panic!("{other:?}"),
    };
    let found = grants(LATE);
    let first = r#"{"chain":"ETH","price":"0.5","provider":"ALEPH","token":"ALEPH","tx_hash":"0x1"}"#;
    let second = r#"{"bonus_amount":3,"chain":"ETH","origin":"o","origin_ref":"r","payment_method":"card","price":"0.25","provider":"WERT","token":"ALEPH","tx_hash":"0x2"}"#;
    assert_eq!(
        found,
        [
            CreditGrant {
                address: "0xA".into(),
                amount: 100,
                expiration: Some(1_800_000_000_000),
                details: first.into()
            },
            CreditGrant { address: "0xB".into(), amount: 7, expiration: None, details: second.into() },
        ]
    );
    assert_eq!(grants(NEW_UNIT_SINCE)[0].amount, 100);
    assert_eq!(grants(NEW_UNIT_SINCE - 1.0)[0].amount, 1_000_000, "the old unit");
}

#[test]
fn expenses_name_what_they_were_for() {
    let payload = r#"{"expense":{"credits":[{"address":"0xA","amount":5,"ref":"r","execution_id":"e","node_id":"n","price":"0.1","time":1,"count":2,"size":1.5}]}}"#;
    let Ok(Some(LedgerEntry::Expenses(expenses))) = credits_of("0xT", EXPENSE, payload) else { panic!("expenses") };
    let details = r#"{"expense_count":2,"expense_size_mib":"1.5","origin":"e","origin_ref":"r","payment_method":"credit_expense","price":"0.1","provider":"ALEPH","tx_hash":"n"}"#;
    assert_eq!(expenses, [CreditExpense { address: "0xA".into(), amount: 5, details: details.into() }]);
}

#[test]
fn transfers_are_anybodys() {
    let payload =
        r#"{"transfer":{"credits":[{"address":"0xB","amount":5,"expiration":9},{"address":"0xC","amount":"6"}]}}"#;
    let Ok(Some(LedgerEntry::Transfers(transfers))) = credits_of("0xA", TRANSFER, payload) else { panic!("transfers") };
    assert_eq!(
        transfers,
        [
            CreditTransfer { recipient: "0xB".into(), amount: 5, expiration: Some(9) },
            CreditTransfer { recipient: "0xC".into(), amount: 6, expiration: None },
        ]
    );
    let Ok(Some(LedgerEntry::Grants(minted))) = credits_of("0xV", TRANSFER, payload) else { panic!("grants") };
    let details = r#"{"origin":"0xV","payment_method":"credit_transfer"}"#;
    assert_eq!(
        minted[0],
        CreditGrant { address: "0xB".into(), amount: 5, expiration: Some(9), details: details.into() }
    );
}

#[test]
fn balances_are_exact() {
    let payload = r#"{"chain":"ETH","main_height":123,"balances":{"0xA":1234.5,"0xB":"0.000000000000000001","0xC":1e-7,"0xD":20000000}}"#;
    let Ok(Some(LedgerEntry::Balances((chain, dapp, height, balances)))) = judge("0xQ", None, LATE, BALANCES, payload)
    else {
        panic!("balances")
    };
    assert_eq!((chain.as_str(), dapp, height), ("ETH", None, 123));
    let found: Vec<(&str, &str)> = balances.iter().map(|row| (row.address.as_str(), row.balance.as_str())).collect();
    assert_eq!(found, [("0xA", "1234.5"), ("0xB", "0.000000000000000001"), ("0xC", "0.0000001"), ("0xD", "20000000")]);
}

#[test]
fn only_the_network_itself_moves_anything() {
    let ordinary = |address: &str, channel: Option<&str>, kind: &str, payload: &str| {
        assert_eq!(judge(address, channel, LATE, kind, payload), Ok(None), "{address} {channel:?} {kind}");
    };
    ordinary("0xA", Some("ALEPH_CREDIT"), DISTRIBUTION, GRANT);
    ordinary("0xt", Some("ALEPH_CREDIT"), DISTRIBUTION, GRANT);
    ordinary("0xT", Some("TEST"), DISTRIBUTION, GRANT);
    ordinary("0xT", None, DISTRIBUTION, GRANT);
    ordinary("0xT", Some("ALEPH_CREDIT"), "blog", GRANT);
    ordinary("0xA", None, TRANSFER, "{}");
    ordinary("0xT", None, BALANCES, "{}");
    let silent = MemoryView::new("post");
    let message = message("POST", r#"{"address":"","time":1,"type":"balances-update"}"#).expect("a message");
    let content = PostContent::parse(text_of(&message).expect("text")).expect("a post");
    assert_eq!(entry(&message, &content, &view()), Ok(None), "nobody is no publisher");
    let _ = entry(&message, &content, &silent);
}

#[test]
fn what_moves_nothing_in_the_right_form_is_refused() {
    let refused = |address: &str, kind: &str, payload: &str| {
        let found = credits_of(address, kind, payload);
        assert_eq!(found.expect_err(payload).code, 0, "{payload}");
    };
    refused("0xT", DISTRIBUTION, "null");
    refused("0xT", DISTRIBUTION, "[]");
    refused("0xT", DISTRIBUTION, r#"{"distribution":{"token":"ALEPH","chain":"ETH","credits":[]}}"#);
    refused("0xT", DISTRIBUTION, &GRANT.replace(":100", ":0"));
    refused("0xT", DISTRIBUTION, &GRANT.replace(":100", ":-5"));
    refused("0xT", DISTRIBUTION, &GRANT.replace(":100", ":1.5"));
    refused("0xT", DISTRIBUTION, &GRANT.replace(r#""tx_hash":"0x1","#, ""));
    refused("0xT", DISTRIBUTION, &GRANT.replace(r#""token":"ALEPH","#, ""));
    refused("0xT", EXPENSE, r#"{"expense":{"credits":[{"address":"0xA"}]}}"#);
    refused("0xA", TRANSFER, r#"{"transfer":{"credits":[{"address":"0xA","amount":5}]}}"#);
    refused("0xA", TRANSFER, r#"{"transfer":{"credits":[{"address":"0xB","amount":5},{"address":"0xB","amount":5}]}}"#);
    refused("0xA", TRANSFER, r#"{"transfer":{"credits":{"address":"0xB","amount":5}}}"#);
    refused("0xP", BALANCES, r#"{"main_height":1,"balances":{}}"#);
    refused("0xP", BALANCES, r#"{"chain":"ETH","balances":{}}"#);
    refused("0xP", BALANCES, r#"{"chain":"ETH","main_height":1,"balances":{"0xA":-1}}"#);
    refused("0xP", BALANCES, r#"{"chain":"ETH","main_height":1,"balances":{"0xA":"much"}}"#);
    let huge = GRANT.replace(":100", ":9000000000000000000");
    assert_eq!(judge("0xT", Some("ALEPH_CREDIT"), 1.0, DISTRIBUTION, &huge).expect_err("too large").code, 0);
}

proptest! {
    #[test]
    fn arbitrary_payloads_do_no_harm(text in r#"[\[\]{}:,"a-z0-9.e-]{0,80}"#, kind in 0_usize..4) {
        let kind = [BALANCES, DISTRIBUTION, EXPENSE, TRANSFER][kind];
        for address in ["0xT", "0xP"] {
            let content = format!(r#"{{"address":"{address}","time":1,"type":"{kind}","content":{text}}}"#);
            if let Ok(message) = message("POST", &content)
                && let Ok(parsed) = PostContent::parse(&content)
            {
                let _ = entry(&message, &parsed, &view());
            }
        }
    }
}
