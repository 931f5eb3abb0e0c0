//! Variables of a release: whether they are declared well, and what they are for one node.
//!
//! In: declarations, rules, and a node's name and labels. Out: a typed value for each variable, or none where nothing gives one. Order of
//! what gives a value: the last rule that fits the node, then `from`, then `default`.

use crate::{
    Result, codes,
    selector::Selector,
    template::{Name, Values, is_variable},
};
use holdfast_protocol::{
    NodeId, Problem,
    operator::{Labels, ReleaseContent},
    variable::{MAX_VALUE_RULES, MAX_VARIABLES, ValueRule, Variable, VariableKind},
};
use regex_lite::Regex;
use serde_json::{Number, Value};
use std::collections::BTreeMap;

/// The longest value of a variable, in bytes.
const MAX_VALUE_BYTES: usize = 64 * 1024;
/// The greatest whole number that every JSON reader holds exactly, 2^53.
const MAX_INTEGER: u64 = 1 << 53;

/// What can be filled in for one node.
#[derive(Clone, Debug)]
pub struct Scope {
    node: NodeId,
    labels: Labels,
    /// None where nothing gives a value: an error only where it is asked for.
    variables: BTreeMap<String, Option<Value>>,
}

impl Scope {
    /// What holds for a node. A value that breaks its declaration is refused, whether it is used or not.
    pub fn of(content: &ReleaseContent, node: &NodeId, labels: &Labels) -> Result<Self> {
        let mut variables = BTreeMap::new();
        for (name, variable) in &content.variables {
            let value = value_for(name, variable, &content.values, node, labels).map_err(|reason| {
                Problem::new(
                    codes::VARIABLE_INVALID,
                    format!("node {node}: the variable {name}: {reason}"),
                    "correct the node's label or the value in release.yaml",
                )
            })?;
            variables.insert(name.clone(), value);
        }
        Ok(Self {
            node: node.clone(),
            labels: labels.clone(),
            variables,
        })
    }

    /// What a release can be checked with before any node is known: variables have their default or the first value that fits, and every
    /// label is `x`.
    pub fn sample(content: &ReleaseContent, node: &NodeId) -> Self {
        let variables = content.variables.iter().map(|(name, variable)| {
            let given = content.values.iter().find_map(|rule| rule.set.get(name)).cloned();
            let value = variable
                .default
                .clone()
                .or(given)
                .unwrap_or_else(|| sample(variable));
            (name.clone(), Some(value))
        });
        Self {
            node: node.clone(),
            labels: Labels::from([(ANY.to_owned(), "x".to_owned())]),
            variables: variables.collect(),
        }
    }

    /// Value of each variable that has one.
    pub fn variables(&self) -> BTreeMap<String, Value> {
        self.variables
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), value.clone()?)))
            .collect()
    }

    /// The node.
    pub const fn node(&self) -> &NodeId {
        &self.node
    }
}

/// A key that no label can have: every label has the value that is kept under it.
const ANY: &str = "*";

fn sample(variable: &Variable) -> Value {
    match variable.kind {
        VariableKind::Boolean => Value::Bool(false),
        VariableKind::Integer => Value::from(variable.min.unwrap_or(1.0) as i64),
        VariableKind::Number => {
            Number::from_f64(variable.min.unwrap_or(1.0)).map_or(Value::Null, Value::Number)
        }
        VariableKind::Enum => variable.options.first().cloned().unwrap_or_default().into(),
        VariableKind::String => "x".into(),
    }
}

impl Values for Scope {
    fn value(&self, name: &Name) -> std::result::Result<Value, String> {
        match name {
            Name::NodeName => Ok(self.node.as_str().into()),
            Name::Label(key) => self
                .labels
                .get(key)
                .or_else(|| self.labels.get(ANY))
                .map(|value| value.as_str().into())
                .ok_or_else(|| {
                    format!(
                        "the node has no label {key}: holdfastctl node label {} {key}=…",
                        self.node
                    )
                }),
            Name::Variable(name) => match self.variables.get(name) {
                Some(Some(value)) => Ok(value.clone()),
                Some(None) => Err(format!(
                    "the variable {name} has no value: give it a default, a rule below values, or the label that it is from"
                )),
                None => Err(format!("the variable {name} is not declared")),
            },
        }
    }
}

fn value_for(
    name: &str,
    variable: &Variable,
    rules: &[ValueRule],
    node: &NodeId,
    labels: &Labels,
) -> std::result::Result<Option<Value>, String> {
    for rule in rules.iter().rev() {
        if let Some(value) = rule.set.get(name)
            && fits(rule, node, labels)?
        {
            return checked(variable, value.clone()).map(Some);
        }
    }
    let from = match variable.from.as_deref().map(Name::parse).transpose()? {
        Some(Name::NodeName) => Some(node.to_string()),
        Some(Name::Label(key)) => labels.get(&key).cloned(),
        Some(Name::Variable(_)) | None => None,
    };
    if let Some(text) = from {
        return from_text(variable, &text)
            .and_then(|value| checked(variable, value))
            .map(Some)
            .map_err(|reason| {
                format!(
                    "{} is {text:?}: {reason}",
                    variable.from.as_deref().unwrap_or_default()
                )
            });
    }
    variable
        .default
        .clone()
        .map(|value| checked(variable, value))
        .transpose()
}

fn fits(rule: &ValueRule, node: &NodeId, labels: &Labels) -> std::result::Result<bool, String> {
    let by_name = rule.node.as_ref().is_none_or(|name| name == node);
    let Some(selector) = &rule.selector else {
        return Ok(by_name);
    };
    let selector: Selector = selector.parse().map_err(|error| format!("{error}"))?;
    Ok(by_name && selector.matches(labels))
}

/// A label's text as the type that is wanted.
fn from_text(variable: &Variable, text: &str) -> std::result::Result<Value, String> {
    let wrong = |what: &str| format!("it is no {what}");
    match variable.kind {
        VariableKind::String | VariableKind::Enum => Ok(text.into()),
        VariableKind::Boolean => text
            .parse::<bool>()
            .map(Value::Bool)
            .map_err(|_| wrong("boolean: use true or false")),
        VariableKind::Integer => text
            .parse::<i64>()
            .map(Value::from)
            .map_err(|_| wrong("whole number")),
        VariableKind::Number => text
            .parse()
            .ok()
            .and_then(Number::from_f64)
            .map(Value::Number)
            .ok_or_else(|| wrong("number")),
    }
}

/// Holds a value against its declaration.
fn checked(variable: &Variable, value: Value) -> std::result::Result<Value, String> {
    let wrong = |what: &str| Err(format!("{value} is no {what}"));
    let measure = match (variable.kind, &value) {
        (VariableKind::Boolean, Value::Bool(_)) => None,
        (VariableKind::Boolean, _) => return wrong("boolean: write true or false"),
        (VariableKind::Integer, Value::Number(number)) => {
            let whole = number
                .as_i64()
                .filter(|whole| whole.unsigned_abs() <= MAX_INTEGER);
            match whole {
                Some(whole) => Some(whole as f64),
                None => return wrong("whole number of at most 2^53"),
            }
        }
        (VariableKind::Integer, _) => return wrong("whole number"),
        (VariableKind::Number, Value::Number(number)) => number.as_f64(),
        (VariableKind::Number, _) => return wrong("number"),
        (VariableKind::Enum, Value::String(text)) => {
            if !variable.options.contains(text) {
                return Err(format!("{text:?} is none of {}", variable.options.join(", ")));
            }
            None
        }
        (VariableKind::String, Value::String(text)) => {
            if text.len() > MAX_VALUE_BYTES {
                return Err(format!("{} bytes; at most {MAX_VALUE_BYTES}", text.len()));
            }
            if let Some(pattern) = &variable.pattern
                && !whole(pattern)?.is_match(text)
            {
                return Err(format!("{text:?} does not match the pattern {pattern}"));
            }
            Some(text.chars().count() as f64)
        }
        (VariableKind::String | VariableKind::Enum, _) => return wrong("text: put it in quotes"),
    };
    if let Some(measure) = measure {
        let what = if variable.kind == VariableKind::String {
            format!("{measure} characters are")
        } else {
            format!("{value} is")
        };
        if let Some(min) = variable.min.filter(|min| measure < *min) {
            return Err(format!("{what} below the least, {min}"));
        }
        if let Some(max) = variable.max.filter(|max| measure > *max) {
            return Err(format!("{what} above the greatest, {max}"));
        }
    }
    Ok(value)
}

fn whole(pattern: &str) -> std::result::Result<Regex, String> {
    Regex::new(&format!("^(?:{pattern})$"))
        .map_err(|error| format!("the pattern {pattern:?} cannot be used: {error}"))
}

/// Checks the declarations and rules of a release; the error names the place below the release's content.
pub fn check(content: &ReleaseContent) -> std::result::Result<(), (String, String)> {
    let count = content.variables.len();
    if count > MAX_VARIABLES {
        return Err((
            "variables".into(),
            format!("{count} variables; at most {MAX_VARIABLES}"),
        ));
    }
    for (name, variable) in &content.variables {
        let place = format!("variables.{name}");
        if !is_variable(name) {
            let reason =
                format!("{name:?}: use up to 63 letters, digits, '-' and '_', beginning with a letter");
            return Err((place, reason));
        }
        declaration(variable).map_err(|(key, reason)| (format!("{place}.{key}"), reason))?;
    }
    let count = content.values.len();
    if count > MAX_VALUE_RULES {
        return Err((
            "values".into(),
            format!("{count} rules; at most {MAX_VALUE_RULES}"),
        ));
    }
    for (index, rule) in content.values.iter().enumerate() {
        let place = format!("values[{index}]");
        match (&rule.node, &rule.selector) {
            (None, None) => {
                return Err((place, "says for no node: give it a node or a selector".into()));
            }
            (_, Some(selector)) => {
                let parsed = selector.parse::<Selector>();
                parsed.map_err(|error| (format!("{place}.selector"), error.to_string()))?;
            }
            _ => {}
        }
        for (name, value) in &rule.set {
            let place = format!("{place}.set.{name}");
            let Some(variable) = content.variables.get(name) else {
                let hint = crate::nearest(name, content.variables.keys().map(String::as_str))
                    .map_or_else(String::new, |name| format!("; did you mean {name:?}?"));
                return Err((place, format!("no variable of this name is declared{hint}")));
            };
            checked(variable, value.clone()).map_err(|reason| (place, reason))?;
        }
    }
    Ok(())
}

fn declaration(variable: &Variable) -> std::result::Result<(), (&'static str, String)> {
    if let Some(from) = &variable.from {
        match Name::parse(from) {
            Ok(Name::NodeName | Name::Label(_)) => {}
            Ok(Name::Variable(_)) | Err(_) => {
                return Err(("from", format!("{from:?}: write node.name or node.labels.KEY")));
            }
        }
    }
    if let Some(pattern) = &variable.pattern {
        if variable.kind != VariableKind::String {
            return Err(("pattern", "only a string can have one".into()));
        }
        whole(pattern).map_err(|reason| ("pattern", reason))?;
    }
    if (variable.kind == VariableKind::Enum) == variable.options.is_empty() {
        return Err(("options", "an enum, and only an enum, has options".into()));
    }
    let measured = matches!(
        variable.kind,
        VariableKind::String | VariableKind::Integer | VariableKind::Number
    );
    if !measured && (variable.min.is_some() || variable.max.is_some()) {
        return Err((
            "min",
            "only numbers and strings have a least and a greatest".into(),
        ));
    }
    if let (Some(min), Some(max)) = (variable.min, variable.max)
        && min > max
    {
        return Err(("min", format!("{min} is above max, {max}")));
    }
    match &variable.default {
        Some(value) => checked(variable, value.clone())
            .map(|_| ())
            .map_err(|reason| ("default", reason)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[allow(clippy::needless_pass_by_value, reason = "json! is written in place")]
    fn content(variables: Value, values: Value) -> ReleaseContent {
        serde_json::from_value(json!({"apps": [], "variables": variables, "values": values})).unwrap()
    }

    fn labels(text: &str) -> Labels {
        text.split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    fn value(content: &ReleaseContent, node: &str, given: &str) -> Result<Option<Value>> {
        let scope = Scope::of(content, &node.parse().unwrap(), &labels(given))?;
        Ok(scope.variables().get("v").cloned())
    }

    #[test]
    fn a_rule_wins_over_a_label_and_a_label_over_the_default() {
        let content = content(
            json!({"v": {"type": "integer", "default": 1, "from": "node.labels.size", "max": 9}}),
            json!([
                {"selector": "site=berlin", "set": {"v": 3}},
                {"node": "shop-17", "set": {"v": 4}},
                {"node": "shop-18", "selector": "site=berlin", "set": {"v": 5}},
            ]),
        );
        check(&content).unwrap();
        for (node, labels, expected) in [
            ("a", "", 1),
            ("a", "size=2", 2),
            ("a", "size=2,site=berlin", 3),
            ("shop-17", "site=berlin", 4),
            ("shop-18", "", 1),
            ("shop-18", "site=berlin", 5),
        ] {
            assert_eq!(
                value(&content, node, labels).unwrap(),
                Some(json!(expected)),
                "{node} {labels}"
            );
        }
        for (labels, word) in [
            ("size=x", "node.labels.size is \"x\": it is no whole number"),
            ("size=10", "above the greatest, 9"),
        ] {
            let problem = value(&content, "a", labels).unwrap_err();
            assert!(problem.message.contains(word), "{problem}");
            assert!(problem.message.contains("node a: the variable v"), "{problem}");
        }
    }

    #[test]
    fn a_variable_that_nothing_gives_is_missing_only_where_it_is_asked_for() {
        let content = content(json!({"v": {"from": "node.labels.site"}}), json!([]));
        let scope = Scope::of(&content, &"a".parse().unwrap(), &Labels::new()).unwrap();
        let reason = scope.value(&Name::Variable("v".into())).unwrap_err();
        assert!(reason.contains("the variable v has no value"), "{reason}");
        let reason = scope.value(&Name::Label("site".into())).unwrap_err();
        assert!(reason.contains("holdfastctl node label a site=…"), "{reason}");
    }

    #[test]
    fn types_are_what_they_say() {
        for (declared, good, bad) in [
            (json!({"type": "boolean"}), json!(true), json!("true")),
            (json!({"type": "integer"}), json!(-7), json!(1.5)),
            (
                json!({"type": "integer"}),
                json!(1_u64 << 53),
                json!((1_u64 << 53) + 1),
            ),
            (json!({"type": "number", "min": 0.5}), json!(0.5), json!(0.4)),
            (
                json!({"type": "enum", "options": ["gold", "silver"]}),
                json!("gold"),
                json!("bronze"),
            ),
            (json!({"pattern": "[a-z]+|x1"}), json!("abc"), json!("abc1")),
            (json!({"min": 2, "max": 3}), json!("äöü"), json!("a")),
            (json!({}), json!("7"), json!(7)),
        ] {
            let with = |default: &Value| {
                let mut declared = declared.clone();
                declared["default"] = default.clone();
                check(&content(json!({"v": declared}), json!([])))
            };
            with(&good).unwrap_or_else(|error| panic!("{declared} {good}: {error:?}"));
            let (place, _) = with(&bad).expect_err(&format!("{declared} {bad}"));
            assert_eq!(place, "variables.v.default");
        }
    }

    #[test]
    fn a_declaration_or_rule_that_cannot_work_is_refused_with_its_place() {
        for (variables, values, expected) in [
            (json!({"1x": {}}), json!([]), "variables.1x"),
            (json!({"v": {"from": "labels.x"}}), json!([]), "variables.v.from"),
            (
                json!({"v": {"from": "variables.w"}}),
                json!([]),
                "variables.v.from",
            ),
            (json!({"v": {"pattern": "("}}), json!([]), "variables.v.pattern"),
            (
                json!({"v": {"type": "integer", "pattern": "x"}}),
                json!([]),
                "variables.v.pattern",
            ),
            (json!({"v": {"type": "enum"}}), json!([]), "variables.v.options"),
            (json!({"v": {"options": ["a"]}}), json!([]), "variables.v.options"),
            (
                json!({"v": {"type": "boolean", "min": 1}}),
                json!([]),
                "variables.v.min",
            ),
            (json!({"v": {"min": 2, "max": 1}}), json!([]), "variables.v.min"),
            (json!({"v": {}}), json!([{"set": {"v": "x"}}]), "values[0]"),
            (
                json!({"v": {}}),
                json!([{"selector": "=", "set": {}}]),
                "values[0].selector",
            ),
            (
                json!({"v": {}}),
                json!([{"node": "a", "set": {"w": "x"}}]),
                "values[0].set.w",
            ),
            (
                json!({"v": {}}),
                json!([{"node": "a", "set": {"v": 1}}]),
                "values[0].set.v",
            ),
        ] {
            let (place, reason) = check(&content(variables, values)).unwrap_err();
            assert_eq!(place, expected, "{reason}");
        }
    }
}
