//! Labels and label selectors, as Kubernetes has them: `site=berlin,tier!=test,!old,zone in (a,b)`.

use holdfast_protocol::operator::Labels;
use std::{collections::BTreeSet, str::FromStr};

/// Which nodes are meant. The empty selector means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    Exists(String),
    Missing(String),
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
}

/// A selector that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("selector {text:?}: {reason}")]
pub struct InvalidSelector {
    text: String,
    reason: String,
}

impl Selector {
    /// Whether a node with these labels is meant.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::Missing(key) => !labels.contains_key(key),
            Requirement::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => !labels.get(key).is_some_and(|value| values.contains(value)),
        })
    }
}

impl FromStr for Selector {
    type Err = InvalidSelector;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        // An empty part is refused, as kubectl does: "," would mean all nodes.
        split_outside_parentheses(text)
            .map(str::trim)
            .map(requirement)
            .collect::<Result<_, _>>()
            .map(Self)
            .map_err(|reason| InvalidSelector {
                text: text.chars().take(200).collect(),
                reason,
            })
    }
}

fn split_outside_parentheses(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    text.split(move |character| {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        character == ',' && depth == 0
    })
}

fn requirement(part: &str) -> Result<Requirement, String> {
    let key = |text: &str| check_key(text.trim()).map(|()| text.trim().to_owned());
    let value = |text: &str| check_value(text.trim()).map(|()| text.trim().to_owned());
    if let Some(rest) = part.strip_prefix('!') {
        return Ok(Requirement::Missing(key(rest)?));
    }
    if let Some(inner) = part.strip_suffix(')') {
        let (head, values) = inner
            .split_once('(')
            .ok_or_else(|| format!("{part:?} has no opening parenthesis"))?;
        let values = values.split(',').map(value).collect::<Result<_, _>>()?;
        let words: Vec<_> = head.split_whitespace().collect();
        return match words[..] {
            [name, "in"] => Ok(Requirement::In(key(name)?, values)),
            [name, "notin"] => Ok(Requirement::NotIn(key(name)?, values)),
            _ => Err(format!(
                "{part:?} is neither `KEY in (VALUES)` nor `KEY notin (VALUES)`"
            )),
        };
    }
    if let Some((left, right)) = part.split_once("!=") {
        return Ok(Requirement::NotIn(key(left)?, BTreeSet::from([value(right)?])));
    }
    if let Some((left, right)) = part.split_once('=') {
        let right = right.strip_prefix('=').unwrap_or(right);
        return Ok(Requirement::In(key(left)?, BTreeSet::from([value(right)?])));
    }
    Ok(Requirement::Exists(key(part)?))
}

/// Checks a label's key: `[prefix/]name`.
pub fn check_key(key: &str) -> Result<(), String> {
    let (prefix, name) = key
        .split_once('/')
        .map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let prefix_fits = prefix.is_none_or(|prefix| {
        (1..=253).contains(&prefix.len())
            && prefix
                .split('.')
                .all(|part| part.parse::<holdfast_protocol::NodeId>().is_ok())
    });
    if prefix_fits && !name.is_empty() && fits(name) {
        Ok(())
    } else {
        Err(format!(
            "{:?} is not a label key: use up to 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends, and an optional DNS prefix with '/'",
            key.chars().take(80).collect::<String>()
        ))
    }
}

/// Checks a label's value.
pub fn check_value(value: &str) -> Result<(), String> {
    if value.is_empty() || fits(value) {
        Ok(())
    } else {
        Err(format!(
            "{:?} is not a label value: use up to 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends",
            value.chars().take(80).collect::<String>()
        ))
    }
}

fn fits(text: &str) -> bool {
    let end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    text.len() <= 63
        && end(text.as_bytes().first())
        && end(text.as_bytes().last())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Labels {
        text.split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn a_selector_means_what_kubectl_means() {
        let node = labels("site=berlin,tier=prod");
        for (text, expected) in [
            ("", true),
            ("site=berlin", true),
            ("site==berlin,tier=prod", true),
            ("site=hamburg", false),
            ("tier!=test", true),
            ("missing!=x", true),
            ("site", true),
            ("!site", false),
            ("!old", true),
            ("site in (hamburg, berlin)", true),
            ("site notin (hamburg,berlin)", false),
            ("site in (berlin),tier in (test)", false),
        ] {
            assert_eq!(
                text.parse::<Selector>().unwrap().matches(&node),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn a_selector_that_cannot_be_read_is_refused() {
        for text in [
            "=x",
            "a=b c",
            "a in b)",
            "a like (b)",
            "-a",
            "a=-b",
            "a/b/c=d",
            "!",
            ",",
            " , ",
            "site=berlin,",
        ] {
            assert!(text.parse::<Selector>().is_err(), "{text}");
        }
    }
}
