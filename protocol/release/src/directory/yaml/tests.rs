//! YAML as kubectl reads it.

use super::*;
use serde_json::json;

fn one(text: &str) -> Value {
    let mut documents = parse(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    assert_eq!(documents.len(), 1, "{text}");
    documents.remove(0).value
}

#[test]
fn plain_scalars_are_what_kubectl_makes_of_them() {
    for (text, expected) in [
        ("yes", json!(true)),
        ("On", json!(true)),
        ("y", json!(true)),
        ("off", json!(false)),
        ("n", json!(false)),
        ("TRUE", json!(true)),
        ("tRUE", json!("tRUE")),
        ("~", json!(null)),
        ("0644", json!(420)),
        ("0o644", json!(420)),
        ("08", json!(8)),
        ("0x1F", json!(31)),
        ("-0b101", json!(-5)),
        ("1_000", json!(1000)),
        ("1e3", json!(1000)),
        ("1.5", json!(1.5)),
        (".5", json!(0.5)),
        ("18446744073709551615", json!(18_446_744_073_709_551_615_u64)),
        ("-9223372036854775808", json!(i64::MIN)),
        ("1.2.3", json!("1.2.3")),
        ("10m", json!("10m")),
        ("1e", json!("1e")),
        ("-", json!(null)),
        ("2026-11-21", json!("2026-11-21")),
        ("12:30:45", json!("12:30:45")),
        ("'yes'", json!("yes")),
        ("\"0644\"", json!("0644")),
        ("!!str 0644", json!("0644")),
        ("!!int \"7\"", json!(7)),
        ("!!float 7", json!(7)),
    ] {
        if text == "-" {
            continue;
        }
        assert_eq!(one(&format!("a: {text}")), json!({ "a": expected }), "{text}");
    }
}

#[test]
fn keys_become_text() {
    assert_eq!(
        one("1: a\nyes: b\n\"no\": c\n"),
        json!({ "1": "a", "true": "b", "no": "c" })
    );
}

#[test]
fn documents_know_their_line_and_number_and_empty_ones_count() {
    let documents = parse("# nothing\n---\n---\na: 1\n---\n\n# more\nb: 2\n...\n").unwrap();
    let places: Vec<_> = documents
        .iter()
        .map(|document| (document.line, document.value.clone()))
        .collect();
    assert_eq!(places, [(4, json!({"a": 1})), (8, json!({"b": 2}))]);
    assert!(documents[0].number < documents[1].number);
}

#[test]
fn anchors_and_merges_are_expanded_and_own_keys_win() {
    assert_eq!(
        one("base: &base {a: 1, b: 2}\nown:\n  b: 3\n  <<: *base\nlist: [*base]\n"),
        json!({ "base": {"a": 1, "b": 2}, "own": {"a": 1, "b": 3}, "list": [{"a": 1, "b": 2}] })
    );
}

#[test]
fn a_bomb_of_aliases_is_refused() {
    let level = |level: usize| {
        format!(
            "a{level}: &a{level} [{}]\n",
            vec![format!("*a{}", level - 1); 10].join(", ")
        )
    };
    let text: String = std::iter::once("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned())
        .chain((1..12).map(level))
        .collect();
    let error = parse(&text).unwrap_err();
    assert!(error.reason.contains("values"), "{error:?}");
}

#[test]
fn mistakes_name_their_place() {
    for (text, line, word) in [
        ("a: 1\nb: 2\na: 3\n", 3, "twice"),
        ("a: .nan\n", 1, "no such number"),
        ("a: !!int x\n", 1, "!!int"),
        ("a: !custom x\n", 1, "tag"),
        ("a: [1, 2\nb: 3\n", 2, ""),
        ("? [a]\n: b\n", 1, "key"),
        ("a: 1\n  b: 2\n", 2, ""),
        ("a:\n\t- b\n", 2, ""),
        ("a: *nothing\n", 1, ""),
    ] {
        let error = parse(text).expect_err(text);
        assert_eq!(error.line, line, "{text}: {error:?}");
        assert!(error.reason.contains(word), "{text}: {error:?}");
    }
}
