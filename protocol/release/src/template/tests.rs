use super::*;
use proptest::prelude::*;
use serde_json::json;

struct Node;

impl Values for Node {
    fn value(&self, name: &Name) -> Result<Value, String> {
        match name {
            Name::NodeName => Ok(json!("shop-17")),
            Name::Label(key) if key == "example.com/site" => Ok(json!("Zürich \"West\"")),
            Name::Variable(name) if name == "replicas" => Ok(json!(3)),
            Name::Variable(name) if name == "on" => Ok(json!(true)),
            other => Err(format!("{other:?} has no value")),
        }
    }
}

fn filled(value: Value) -> Result<Value, Fault> {
    let mut value = value;
    fill(&mut value, "", &Node)?;
    Ok(value)
}

#[test]
fn a_text_that_is_one_placeholder_becomes_the_typed_value() {
    for (text, expected) in [
        ("${variables.replicas}", json!(3)),
        ("${ variables.on }", json!(true)),
        ("${node.name}", json!("shop-17")),
        ("n=${variables.replicas}", json!("n=3")),
        ("${variables.replicas}${variables.on}", json!("3true")),
        ("${variables.on | json}", json!("true")),
        (
            "{\"a\": ${node.labels.example.com/site | json}}",
            json!("{\"a\": \"Zürich \\\"West\\\"\"}"),
        ),
        (
            "\"${node.labels.example.com/site|json-text}\"",
            json!("\"Zürich \\\"West\\\"\""),
        ),
    ] {
        assert_eq!(
            filled(json!({"a": [text]})).unwrap(),
            json!({"a": [expected]}),
            "{text}"
        );
    }
}

#[test]
fn what_is_not_ours_is_left_byte_for_byte() {
    for text in [
        "${HOME}",
        "${HOME:-/root}",
        "$${HOME}",
        "$(NAME)",
        "${spring.datasource.url}",
        "${",
        "$",
        "${}",
        "a ${b c",
        "${nodename}",
        "${node}",
        "${variables}",
        "{{ .Values.x }}",
    ] {
        assert_eq!(filled(json!(text)).unwrap(), json!(text));
        assert!(!concerns_value(&json!(text)), "{text}");
    }
}

#[test]
fn a_doubled_dollar_gives_the_text() {
    for (text, expected) in [
        ("$${variables.replicas}", "${variables.replicas}"),
        ("$${var.region}", "${var.region}"),
        ("a $${node.name} ${node.name} b", "a ${node.name} shop-17 b"),
        ("$$${node.name}", "$${node.name}"),
    ] {
        assert!(concerns_value(&json!(text)));
        assert_eq!(filled(json!(text)).unwrap(), json!(expected), "{text}");
    }
}

#[test]
fn mistakes_name_their_place() {
    for (value, place, word) in [
        (
            json!({"spec": {"replicas": "${variables.missing}"}}),
            "spec.replicas",
            "no value",
        ),
        (json!({"a": [1, "${variables.replicas"]}), "a[1]", "closing brace"),
        (json!({"a": "${variable.replicas}"}), "a", "${variables.…}"),
        (json!({"a": "${node.label.x}"}), "a", "node.labels.KEY"),
        (json!({"a": "${variables.}"}), "a", "name of a variable"),
        (json!({"a": "${node.name | upper}"}), "a", "json-text"),
        (json!({"a": {"${node.name}": 1}}), "a", "key"),
    ] {
        let fault = filled(value.clone()).unwrap_err();
        assert_eq!(fault.place, place, "{value}");
        assert!(fault.reason.contains(word), "{value}: {}", fault.reason);
    }
}

#[test]
fn names_are_found_with_their_places() {
    let mut found = Vec::new();
    names(
        &json!({"a": "${node.name} ${variables.x}", "b": "$${variables.y}"}),
        "web",
        &mut found,
    )
    .unwrap();
    assert_eq!(
        found,
        [
            (Name::NodeName, "web.a".to_owned()),
            (Name::Variable("x".into()), "web.a".to_owned())
        ]
    );
}

#[test]
fn json_in_a_text_keeps_types_and_cannot_be_broken_out_of() {
    let values = json!({
        "replicas": "${variables.replicas}",
        "title": "till at ${node.labels.example.com/site}",
        "list": ["$${variables.replicas}", "${HOME}", 1, null],
    });
    let text = filled(json!(as_json_text(&values))).unwrap();
    let read: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
    assert_eq!(
        read,
        json!({
            "replicas": 3,
            "title": "till at Zürich \"West\"",
            "list": ["${variables.replicas}", "${HOME}", 1, null],
        })
    );
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[${}a-z. |]{0,40}") {
        let _ = filled(json!(text.clone()));
        let _ = as_json_text(&json!(text));
    }

    #[test]
    fn a_text_without_placeholders_stays_as_it_is(text in "[a-z $.{}]{0,40}") {
        prop_assume!(!concerns_value(&json!(text.clone())));
        prop_assert_eq!(filled(json!(text.clone())).unwrap(), json!(text));
    }
}
