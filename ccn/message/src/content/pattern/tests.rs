use super::*;
use proptest::prelude::*;

/// What Python said: written by `vectors.py`, which lies beside it.
#[test]
fn the_answer_is_that_of_python() {
    let vectors: Vec<(String, bool)> = serde_json::from_str(include_str!("vectors.json")).expect("JSON");
    assert!(vectors.len() > 600);
    let wrong = vectors.iter().filter(|(text, is_good)| check(text).is_ok() != *is_good);
    let wrong: Vec<String> =
        wrong.map(|(text, is_good)| format!("{text:?}: {:?}, Python: {is_good}", check(text))).collect();
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn length_and_depth_are_bounded() {
    assert_eq!(check(&"(".repeat(MAX_CHARS)), Err("unterminated subpattern"));
    assert_eq!(check(&format!("{}{}", "(".repeat(MAX_CHARS / 2), ")".repeat(MAX_CHARS / 2))), Ok(()));
    assert_eq!(check(&"é".repeat(MAX_CHARS)), Ok(()));
    assert_eq!(check(&"a".repeat(MAX_CHARS + 1)), Err("too long"));
    assert_eq!(check(&format!("(?<=a{{{}}})", "9".repeat(200))), Err("the number is too large"));
    let wide = (0..5).fold("a".to_owned(), |inner, _| format!("(?:{inner}){{99999999}}"));
    assert_eq!(check(&format!("(?<={wide})")), Err("look-behind requires fixed-width pattern"));
}

/// Expressions by construction: whatever is put together of parts as Python's manual says is one.
fn expression() -> impl Strategy<Value = String> {
    let atom = prop_oneof![
        "[a-z0-9é ]",
        Just(".".to_owned()),
        Just(r"\d".to_owned()),
        Just(r"\.".to_owned()),
        Just(r"\x7e".to_owned()),
        "\\[\\^?[a-f][f-k]-[l-z]\\]",
    ];
    atom.prop_recursive(6, 60, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|parts| parts.concat()),
            proptest::collection::vec(inner.clone(), 1..4).prop_map(|parts| format!("(?:{})", parts.join("|"))),
            (inner.clone(), "[*+?]|\\{[0-9]\\}|\\{[0-4],[5-9]\\}|\\{,3\\}", "[?+]?")
                .prop_map(|(inner, times, how)| format!("(?>{inner}){times}{how}")),
            (inner.clone(), "[=!]").prop_map(|(inner, sign)| format!("^(?{sign}{inner})$")),
            (inner, "(:|i:|-s:|mx-i:)?").prop_map(|(inner, flags)| match flags.as_str() {
                "" => format!("({inner})"),
                flags => format!("(?{flags}{inner})"),
            }),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_made_of_parts_is_an_expression(text in expression()) {
        prop_assume!(text.chars().count() <= MAX_CHARS);
        prop_assert_eq!(check(&text), Ok(()), "{}", text);
        // Whatever is left open is none.
        prop_assume!(text.chars().count() <= MAX_CHARS - 4);
        for open in [["(", ""], ["", ")"], ["", "**"], ["", "["]].map(|[before, after]| [before, &text, after].concat()) {
            prop_assert!(check(&open).is_err(), "{}", open);
        }
    }

    #[test]
    fn whatever_a_stranger_writes_is_judged(text in ".{0,300}", signs in r"[(){}\[\]\\?*+|^$:=!<>P#a1-9,\-xi]{0,256}") {
        let _ = check(&text);
        let _ = check(&signs);
    }
}
