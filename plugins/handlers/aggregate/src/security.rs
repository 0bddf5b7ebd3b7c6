//! The aggregate `security`: who may act for an address (messages spec 9).

use plugin_sdk::{
    Authorization,
    message::json::{FormatError, Value},
};

/// The aggregate.
pub(crate) const KEY: &str = "security";
/// Its subkey.
pub(crate) const SUBKEY: &str = "authorizations";
/// Most delegations of an address, and most values of one filter; what exceeds them delegates nothing.
const MAX_ENTRIES: usize = 1000;

/// Reads delegations. An entry that is none delegates nothing and does not harm the others.
pub(crate) fn read(value: Value<'_>) -> Vec<Authorization> {
    let entries = value.list(MAX_ENTRIES).unwrap_or_default();
    entries.into_iter().filter_map(|entry| read_entry(entry).ok()).collect()
}

fn read_entry(value: Value<'_>) -> Result<Authorization, FormatError> {
    let texts = |value: Value<'_>| value.list_of(MAX_ENTRIES, Value::string);
    let mut object = value.object()?;
    let address = object.required("address", Value::string)?;
    let chain = object.optional("chain", Value::string)?.filter(|chain| !chain.is_empty());
    let channels = object.optional("channels", texts)?.unwrap_or_default();
    let kinds = object.optional("types", texts)?.unwrap_or_default();
    let mut labels = Vec::new();
    for (field, label) in [("post_types", "content-type"), ("aggregate_keys", "content-key")] {
        let values = object.optional(field, texts)?.unwrap_or_default();
        if !values.is_empty() {
            labels.push((label.to_owned(), values));
        }
    }
    Ok(Authorization { address, chain, channels, kinds, labels })
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_sdk::message::json::Object;

    fn check(json: &str, expect: &[Authorization]) {
        let text = format!(r#"{{"value":{json}}}"#);
        let value = Object::parse(&text).expect("JSON").take_raw("value").expect("it is there");
        assert_eq!(read(value), expect, "{json}");
    }

    fn entry(address: &str) -> Authorization {
        Authorization { address: address.into(), chain: None, channels: vec![], kinds: vec![], labels: vec![] }
    }

    #[test]
    fn delegations_are_read_one_by_one() {
        check("null", &[]);
        check(r#"{"address":"0xB"}"#, &[]);
        check(
            r#"[{"address":"0xB"},{"address":"0xC","types":[],"chain":"","channels":null}]"#,
            &[entry("0xB"), entry("0xC")],
        );
        let full = Authorization {
            chain: Some("SOL".into()),
            channels: vec!["X".into()],
            kinds: vec!["POST".into(), "AGGREGATE".into()],
            labels: vec![
                ("content-type".into(), vec!["blog".into()]),
                ("content-key".into(), vec!["a".into(), "b".into()]),
            ],
            ..entry("0xB")
        };
        let json = r#"[{"address":"0xB","chain":"SOL","channels":["X"],"types":["POST","AGGREGATE"],
            "post_types":["blog"],"aggregate_keys":["a","b"],"alias":"my phone"}]"#;
        check(json, &[full]);
    }

    /// A filter that cannot be read must not become no filter.
    #[test]
    fn what_is_no_delegation_delegates_nothing() {
        check(r#"[1,{},{"address":5},{"address":"0xB","types":"POST"},{"address":"0xC"}]"#, &[entry("0xC")]);
    }
}
