//! Placeholders in text: `${variables.NAME}`, `${node.name}`, `${node.labels.KEY}`.
//!
//! In: any JSON value, and the values of one node. Out: the value with the placeholders filled in. Guarantees:
//! - Only these names are placeholders. `${HOME}` of a script, `${spring.port}` of a configuration and everything else is left byte
//!   for byte; `$${variables.x}` gives the text `${variables.x}`.
//! - A text that is exactly one placeholder becomes the value with its type: a number stays a number. Within a longer text it is
//!   written out.
//! - `${variables.x | json}` writes the value as JSON, `${variables.x | json-text}` as the inside of a JSON string: for texts that are JSON or YAML
//!   themselves.
//! - What cannot be filled in is an error that names the place, never an empty text.

use crate::selector::check_key;
use serde_json::{Map, Value};

/// How a value is written into a longer text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    /// As it is.
    Plain,
    /// As JSON.
    Json,
    /// As the inside of a JSON string.
    JsonText,
}

/// What a placeholder names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// `variables.NAME`
    Variable(String),
    /// `node.name`
    NodeName,
    /// `node.labels.KEY`
    Label(String),
}

impl Name {
    /// Reads what stands within the braces, or beside `from:`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "node.name" {
            return Ok(Self::NodeName);
        }
        if let Some(key) = text.strip_prefix("node.labels.") {
            return check_key(key).map(|()| Self::Label(key.to_owned()));
        }
        if let Some(name) = text.strip_prefix("variables.") {
            return is_variable(name)
                .then(|| Self::Variable(name.to_owned()))
                .ok_or_else(|| {
                    format!("{name:?} cannot be the name of a variable: use letters, digits, '-' and '_'")
                });
        }
        Err(format!(
            "{text:?} is nothing that can be filled in: there are variables.NAME, node.name and node.labels.KEY"
        ))
    }
}

/// Whether a variable may have this name: a letter, then letters, digits, `-` and `_`, 63 in all.
pub fn is_variable(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

enum Part<'text> {
    Text(&'text str),
    Placeholder(Name, Filter),
}

/// Where values come from: gives the value of a name, or says why there is none.
pub trait Values {
    /// The value.
    fn value(&self, name: &Name) -> Result<Value, String>;
}

/// What is wrong at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Path to the text, `spec.replicas`.
    pub place: String,
    /// What is wrong.
    pub reason: String,
}

/// Splits a text into what stays and what is filled in.
fn split(text: &str) -> Result<Vec<Part<'_>>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    let mut from = 0;
    while let Some(found) = rest[from..].find("${") {
        let start = from + found;
        let inner = &rest[start + 2..];
        let ours = is_ours(inner);
        if ours == Ok(false) {
            from = start + 2;
            continue;
        }
        if rest[..start].ends_with('$') {
            // The first `$` only says that this is no placeholder, nor a mistyped one.
            parts.push(Part::Text(&rest[..start - 1]));
            parts.push(Part::Text("${"));
            rest = inner;
            from = 0;
            continue;
        }
        ours?;
        let Some(end) = inner.find('}') else {
            let shown: String = inner.chars().take(40).collect();
            return Err(format!("\"${{{shown}\" has no closing brace"));
        };
        let (name, filter) = match inner[..end].split_once('|') {
            None => (inner[..end].trim(), Filter::Plain),
            Some((name, "json")) => (name.trim(), Filter::Json),
            Some((name, filter)) => match filter.trim() {
                "json" => (name.trim(), Filter::Json),
                "json-text" => (name.trim(), Filter::JsonText),
                other => {
                    return Err(format!(
                        "{other:?} is no way to write a value: there are json and json-text"
                    ));
                }
            },
        };
        parts.push(Part::Text(&rest[..start]));
        parts.push(Part::Placeholder(Name::parse(name)?, filter));
        rest = &inner[end + 1..];
        from = 0;
    }
    parts.push(Part::Text(rest));
    parts.retain(|part| !matches!(part, Part::Text("")));
    Ok(parts)
}

/// Whether what follows `${` is meant for us; a name that is only nearly right is refused, for it would go to the boxes as it is.
fn is_ours(inner: &str) -> Result<bool, String> {
    let inner = inner.trim_start();
    if inner.starts_with("variables.") || inner.starts_with("node.") {
        return Ok(true);
    }
    for (near, right) in [
        ("variable.", "variables."),
        ("vars.", "variables."),
        ("var.", "variables."),
        ("values.", "variables."),
        ("nodes.", "node."),
        ("labels.", "node.labels."),
        ("label.", "node.labels."),
    ] {
        if inner.starts_with(near) {
            return Err(format!(
                "\"${{{near}…}}\" is no placeholder: write \"${{{right}…}}\", or \"$${{\" where it is meant as text"
            ));
        }
    }
    Ok(false)
}

/// Whether a text holds a placeholder, or an escaped one.
fn concerns(text: &str) -> bool {
    text.match_indices("${")
        .any(|(at, _)| is_ours(&text[at + 2..]) != Ok(false))
}

/// Whether a value holds anything to fill in, in a text or in a key.
pub fn concerns_value(value: &Value) -> bool {
    match value {
        Value::String(text) => concerns(text),
        Value::Array(items) => items.iter().any(concerns_value),
        Value::Object(map) => map
            .iter()
            .any(|(key, value)| concerns(key) || concerns_value(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The name that a text is exactly one placeholder of.
pub fn exactly_one(text: &str) -> Option<Name> {
    match split(text).ok()?.as_slice() {
        [Part::Placeholder(name, Filter::Plain)] => Some(name.clone()),
        _ => None,
    }
}

/// Adds every name that is asked for in a value; finds what is mistyped.
pub fn names(value: &Value, place: &str, into: &mut Vec<(Name, String)>) -> Result<(), Fault> {
    walk(value, place, &mut |text, place| {
        let parts = split(text).map_err(|reason| fault(place, reason))?;
        into.extend(parts.into_iter().filter_map(|part| match part {
            Part::Placeholder(name, _) => Some((name, place.to_owned())),
            Part::Text(_) => None,
        }));
        Ok(())
    })
}

fn fault(place: &str, reason: impl Into<String>) -> Fault {
    Fault {
        place: place.to_owned(),
        reason: reason.into(),
    }
}

fn below(place: &str, key: &str) -> String {
    if place.is_empty() {
        key.to_owned()
    } else {
        format!("{place}.{key}")
    }
}

fn key_fault(place: &str, key: &str) -> Fault {
    fault(
        place,
        format!("the key {key:?} holds a placeholder; only values can be filled in"),
    )
}

fn walk(
    value: &Value,
    place: &str,
    see: &mut impl FnMut(&str, &str) -> Result<(), Fault>,
) -> Result<(), Fault> {
    match value {
        Value::String(text) if text.contains("${") => see(text, place),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .try_for_each(|(index, item)| walk(item, &format!("{place}[{index}]"), see)),
        Value::Object(map) => map.iter().try_for_each(|(key, value)| {
            if concerns(key) {
                return Err(key_fault(place, key));
            }
            walk(value, &below(place, key), see)
        }),
        _ => Ok(()),
    }
}

/// Fills in everything in a value.
pub fn fill(value: &mut Value, place: &str, values: &impl Values) -> Result<(), Fault> {
    match value {
        Value::String(text) if text.contains("${") => {
            if let Some(filled) = fill_text(text, place, values)? {
                *value = filled;
            }
            Ok(())
        }
        Value::Array(items) => items
            .iter_mut()
            .enumerate()
            .try_for_each(|(index, item)| fill(item, &format!("{place}[{index}]"), values)),
        Value::Object(map) => fill_map(map, place, values),
        _ => Ok(()),
    }
}

/// Fills in everything in a map.
pub fn fill_map(map: &mut Map<String, Value>, place: &str, values: &impl Values) -> Result<(), Fault> {
    map.iter_mut().try_for_each(|(key, value)| {
        if concerns(key) {
            return Err(key_fault(place, key));
        }
        fill(value, &below(place, key), values)
    })
}

fn fill_text(text: &str, place: &str, values: &impl Values) -> Result<Option<Value>, Fault> {
    let parts = split(text).map_err(|reason| fault(place, reason))?;
    let value = |name: &Name| values.value(name).map_err(|reason| fault(place, reason));
    match parts.as_slice() {
        [Part::Placeholder(name, Filter::Plain)] => return value(name).map(Some),
        [Part::Text(only)] if only.len() == text.len() => return Ok(None),
        _ => {}
    }
    let mut filled = String::with_capacity(text.len());
    for part in parts {
        match part {
            Part::Text(text) => filled.push_str(text),
            Part::Placeholder(name, filter) => {
                let value = value(&name)?;
                let plain = match &value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                match filter {
                    Filter::Plain => filled.push_str(&plain),
                    Filter::Json => filled.push_str(&value.to_string()),
                    Filter::JsonText => {
                        let quoted = Value::String(plain).to_string();
                        filled.push_str(&quoted[1..quoted.len() - 1]);
                    }
                }
            }
        }
    }
    Ok(Some(Value::String(filled)))
}

/// A value as JSON text in which placeholders are still filled in with their types, and cannot break out of the text they stand in.
pub fn as_json_text(value: &Value) -> String {
    match value {
        Value::String(text) if concerns(text) => match split(text) {
            Ok(parts) => match parts.as_slice() {
                [Part::Placeholder(name, Filter::Plain)] => written(name, Filter::Json),
                _ => {
                    let inner: String = parts
                        .iter()
                        .map(|part| match part {
                            // What was escaped stays escaped: this text is split once more.
                            Part::Text("${") => "$${".to_owned(),
                            Part::Text(text) => {
                                let quoted = Value::String((*text).to_owned()).to_string();
                                quoted[1..quoted.len() - 1].to_owned()
                            }
                            Part::Placeholder(name, Filter::Plain) => written(name, Filter::JsonText),
                            Part::Placeholder(name, filter) => written(name, *filter),
                        })
                        .collect();
                    format!("\"{inner}\"")
                }
            },
            // Kept as it is, so that the mistake is found where it stands.
            Err(_) => value.to_string(),
        },
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(as_json_text).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(map) => {
            let fields: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{}:{}", Value::String(key.clone()), as_json_text(value)))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
        other => other.to_string(),
    }
}

fn written(name: &Name, filter: Filter) -> String {
    let name = match name {
        Name::Variable(name) => format!("variables.{name}"),
        Name::NodeName => "node.name".to_owned(),
        Name::Label(key) => format!("node.labels.{key}"),
    };
    match filter {
        Filter::Plain => format!("${{{name}}}"),
        Filter::Json => format!("${{{name} | json}}"),
        Filter::JsonText => format!("${{{name} | json-text}}"),
    }
}

#[cfg(test)]
mod tests;
