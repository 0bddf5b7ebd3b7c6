use super::*;
use proptest::prelude::*;

fn accepted(text: &str) {
    assert_eq!(check(text), Ok(()), "{text}");
}

fn refused(text: &str) {
    assert!(check(text).is_err(), "{text}");
}

#[test]
fn the_dialect() {
    accepted("{}");
    accepted(" {\"a\": [1, -2.5e+3, 0.1, true, false, null, \"x\"]} \n");
    accepted("{\"a\":1,\"a\":2}");
    accepted("123456789012345678901234567890");
    accepted("\"\\u00e9\\ud83d\\ude00 é 😀\"");
    refused("");
    refused("NaN");
    refused("Infinity");
    refused("-");
    refused("01");
    refused("1.");
    refused(".5");
    refused("1e");
    refused("1e400");
    refused("\"\\ud800\"");
    refused("\"\\udc00\\ud800\"");
    refused("\"\\u12\"");
    refused("\"\\u+123\"");
    refused("\"\\x\"");
    refused("\"a\nb\"");
    refused("\"\\u0000\"");
    refused("{} x");
    refused("[1,]");
    refused("[1 2]");
    refused("{\"a\":1,}");
    refused("{\"a\" 1}");
    refused("{a:1}");
    refused("[1}");
    refused("{\"a\":[}");
    refused("\u{feff}{}");
}

#[test]
fn nesting_is_bounded_and_costs_no_stack() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    accepted(&nested(MAX_DEPTH));
    refused(&nested(MAX_DEPTH + 1));
    let text = format!("{{\"deep\":{}}}", nested(MAX_DEPTH - 1));
    let mut object = Object::parse(&text).expect("an object");
    assert_eq!(object.require("deep").expect("a member").text().len(), 2 * (MAX_DEPTH - 1));
    refused(&"[".repeat(10_000_000));
}

fn value(text: &str) -> Value<'_> {
    check(text).expect("JSON");
    Value(serde_json::from_str(text).expect("a value"))
}

#[test]
fn numbers_and_booleans_are_lenient() {
    for (text, expect) in
        [("1", 1.0), ("2.5", 2.5), ("\"1788220800.5\"", 1_788_220_800.5), ("true", 1.0), ("1E3", 1000.0)]
    {
        assert_eq!(value(text).float(), Ok(expect), "{text}");
    }
    for text in ["\"x\"", "null", "[]", "{}", "\"NaN\"", "\"inf\"", "\"\""] {
        assert!(value(text).float().is_err(), "{text}");
    }
    for (text, expect) in [("2", 2), ("2.0", 2), ("\"2\"", 2), ("true", 1), ("2e0", 2)] {
        assert_eq!(value(text).integer(0..=10), Ok(expect), "{text}");
    }
    for text in ["2.5", "\"2.5\"", "null", "11", "-1", "\"x\"", "1e300"] {
        assert!(value(text).integer(0..=10).is_err(), "{text}");
    }
    for (text, expect) in [
        ("true", true),
        ("1", true),
        ("\"Yes\"", true),
        ("\"ON\"", true),
        ("0", false),
        ("\"f\"", false),
        ("1.0", true),
    ] {
        assert_eq!(value(text).boolean(), Ok(expect), "{text}");
    }
    for text in ["2", "null", "\"maybe\"", "[]"] {
        assert!(value(text).boolean().is_err(), "{text}");
    }
    assert!(value("5").string().is_err());
    assert!(value("\"5\"").strict_integer(0..=9).is_err());
    assert!(value("1").strict_boolean().is_err());
    assert!(value("\"1\"").strict_float().is_err());
}

#[test]
fn errors_name_the_field() {
    let text = r#"{"outer": {"list": [1, "two"]}, "extra": 1}"#;
    let mut object = Object::parse(text).expect("an object");
    let error = object
        .required("outer", |value| {
            value.object()?.required("list", |value| value.list_of(9, |value| value.strict_integer(0..=9)))
        })
        .expect_err("refused");
    assert_eq!(error.to_string(), "outer.list[1]: a whole number was expected, not \"two\"");
    assert_eq!(object.close().expect_err("refused").to_string(), "extra: is not a field of this object");
    let mut empty = Object::parse(r#"{"a": null}"#).expect("an object");
    assert_eq!(empty.require("a").expect_err("refused").to_string(), "a: is required");
}

#[test]
fn the_last_of_equal_keys_counts() {
    let mut object = Object::parse(r#"{"a": 1, "\u0061": 2}"#).expect("an object");
    assert_eq!(object.require("a").expect("a member").text(), "2");
    assert!(object.is_empty());
}

proptest! {
    /// The walk accepts what serde_json accepts, save for the rules that the network adds.
    #[test]
    fn agrees_with_the_parser_that_cuts(text in r#"[\[\]{}:,"0-9a-z\\u.eE+\- ]{0,30}"#) {
        let walked = check(&text).is_ok();
        let parsed = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        if walked {
            prop_assert!(parsed, "{}", text);
        } else if parsed {
            prop_assert!(text.contains("\\u0000"), "{}", text);
        }
    }

    #[test]
    fn arbitrary_text_does_no_harm(text in ".{0,200}") {
        if check(&text).is_ok() {
            prop_assert!(serde_json::from_str::<&RawValue>(text.trim()).is_ok());
        }
    }
}
