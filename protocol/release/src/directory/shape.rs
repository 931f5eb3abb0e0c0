//! What keys `release.yaml` may have, and of what type each is: a mistyped key is refused with its line and the nearest known one.

use super::yaml::Places;
use crate::{nearest, template::exactly_one};
use serde_json::Value;

/// What may stand at a place.
pub(super) enum Shape {
    /// Anything.
    Any,
    /// Text.
    Text,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// One of some words.
    OneOf(&'static [&'static str]),
    /// A map with these keys.
    Map(&'static [(&'static str, Shape)]),
    /// A map with any keys.
    Each(&'static Shape),
    /// A list.
    List(&'static Shape),
    /// Text, or another shape.
    TextOr(&'static Shape),
}

use Shape::{Any, Boolean, Each, List, Map, Number, OneOf, Text, TextOr};

const FAILURE: Shape = OneOf(&["roll-back", "isolate"]);

const ARTIFACT: Shape = Map(&[
    ("file", Text),
    ("digest", Text),
    ("size", Number),
    ("name", Text),
    ("sources", List(&Map(&[("url", Text), ("oci", Text)]))),
]);

const TARGET: Shape = Map(&[
    (
        "service",
        Map(&[("namespace", Text), ("name", Text), ("port", Number)]),
    ),
    ("address", Text),
]);

const PROBE: Shape = Map(&[
    ("name", Text),
    (
        "check",
        Map(&[
            (
                "http",
                Map(&[("target", TARGET), ("path", Text), ("tls", Boolean)]),
            ),
            ("tcp", Map(&[("target", TARGET)])),
            (
                "exec",
                Map(&[
                    ("namespace", Text),
                    ("workload", Text),
                    ("container", Text),
                    ("command", List(&Text)),
                ]),
            ),
        ]),
    ),
    ("periodSeconds", Number),
    ("timeoutSeconds", Number),
    ("failureThreshold", Number),
]);

const SECRET: Shape = Map(&[
    ("name", Text),
    ("namespace", Text),
    ("type", Text),
    ("data", Each(&STORED)),
]);

/// A value that operators stored: its name, or a map with its name.
const STORED: Shape = TextOr(&Map(&[("source", Text)]));

const APP: Shape = Map(&[
    ("namespace", Text),
    ("onFailure", FAILURE),
    ("probes", List(&PROBE)),
    ("secrets", List(&SECRET)),
    ("images", Each(&List(&ARTIFACT))),
]);

const POLICY: Shape = Map(&[
    ("drift", OneOf(&["correct", "report"])),
    ("prune", Boolean),
    ("readyDeadlineSeconds", Number),
    ("stabilitySeconds", Number),
    ("onFailure", FAILURE),
    (
        "windows",
        List(&Map(&[
            (
                "days",
                List(&OneOf(&["mon", "tue", "wed", "thu", "fri", "sat", "sun"])),
            ),
            ("start", Text),
            ("end", Text),
            ("timeZone", Text),
        ])),
    ),
    ("windowsWithoutClock", Boolean),
    ("urgent", Boolean),
]);

const K3S: Shape = Map(&[
    ("version", Text),
    ("lock", Text),
    ("binaries", Each(&ARTIFACT)),
    ("images", Each(&List(&ARTIFACT))),
    ("role", OneOf(&["server", "agent"])),
    (
        "site",
        Map(&[
            ("label", Text),
            ("roleLabel", Text),
            ("addressLabel", Text),
            ("servers", Number),
            ("server", Text),
        ]),
    ),
    ("datastore", OneOf(&["persistent", "ram"])),
    ("nodeAddress", Text),
    (
        "registries",
        Map(&[
            ("mirrors", Each(&Any)),
            ("configs", Each(&Any)),
            ("credentials", Each(&STORED)),
        ]),
    ),
    ("kubelet", Each(&Any)),
    ("auditPolicy", Each(&Any)),
    ("config", Each(&Any)),
]);

const OS: Shape = Map(&[
    ("version", Text),
    ("images", Each(&TextOr(&ARTIFACT))),
    ("maxBytesPerSecond", Number),
]);

const VARIABLE: Shape = Map(&[
    ("type", OneOf(&["string", "integer", "number", "boolean", "enum"])),
    ("description", Text),
    ("default", Any),
    ("from", Text),
    ("min", Number),
    ("max", Number),
    ("pattern", Text),
    ("options", List(&Text)),
]);

/// The whole file.
pub(super) const RELEASE: Shape = Map(&[
    ("namespace", Text),
    ("policy", POLICY),
    ("k3s", K3S),
    ("os", OS),
    ("apps", Each(&APP)),
    ("variables", Each(&VARIABLE)),
    (
        "values",
        List(&Map(&[("node", Text), ("selector", Text), ("set", Each(&Any))])),
    ),
]);

/// `helm.yaml` of an app.
pub(super) const HELM: Shape = Map(&[
    ("chart", Text),
    ("releaseName", Text),
    ("namespace", Text),
    ("createNamespace", Boolean),
    ("version", Text),
    ("values", Each(&Any)),
    ("valuesFile", Text),
    ("timeout", Text),
    ("failurePolicy", OneOf(&["abort", "reinstall", "retry"])),
]);

/// What is wrong, where, and what to do.
pub(super) struct Misfit {
    /// JSON pointer.
    pub pointer: String,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub action: String,
}

/// The line and column of a pointer, or of what is nearest above it.
pub(super) fn place_of(places: &Places, pointer: &str) -> Option<(usize, usize)> {
    let mut pointer = pointer;
    loop {
        if let Some(place) = places.get(pointer) {
            return Some(*place);
        }
        pointer = pointer.rsplit_once('/')?.0;
    }
}

/// Holds a value against its shape.
pub(super) fn check(shape: &Shape, value: &Value, pointer: &str) -> Result<(), Misfit> {
    let key = pointer.rsplit('/').next().unwrap_or_default();
    let misfit = |reason: String, action: String| {
        Err(Misfit {
            pointer: pointer.to_owned(),
            reason,
            action,
        })
    };
    let expected = |what: &str| misfit(format!("{key} is {}", kind_of(value)), format!("write {what}"));
    // What is filled in for each node is checked when it is.
    if value.as_str().and_then(exactly_one).is_some() {
        return Ok(());
    }
    match (shape, value) {
        // A key without a value is as good as none.
        (_, Value::Null)
        | (Any, _)
        | (Text | TextOr(_), Value::String(_))
        | (Number, Value::Number(_))
        | (Boolean, Value::Bool(_)) => Ok(()),
        (TextOr(other), value) => check(other, value, pointer),
        (OneOf(words), Value::String(word)) if words.contains(&word.as_str()) => Ok(()),
        (OneOf(words), Value::String(word)) => {
            let hint = nearest(word, words.iter().copied())
                .map_or_else(String::new, |near| format!("did you mean {near:?}? "));
            misfit(
                format!("{key} cannot be {word:?}"),
                format!("{hint}It may be {}", words.join(", ")),
            )
        }
        (Map(keys), Value::Object(map)) => map.iter().try_for_each(|(name, value)| {
            let below = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
            let Some((_, shape)) = keys.iter().find(|(known, _)| known == name) else {
                let known = keys.iter().map(|(known, _)| *known);
                let hint = nearest(name, known.clone())
                    .map_or_else(String::new, |near| format!("did you mean {near:?}? "));
                let known: Vec<&str> = known.collect();
                return Err(Misfit {
                    pointer: below,
                    reason: format!("unknown key {name:?}"),
                    action: format!("{hint}There may be {}", known.join(", ")),
                });
            };
            check(shape, value, &below)
        }),
        (Each(shape), Value::Object(map)) => map.iter().try_for_each(|(name, value)| {
            let below = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
            check(shape, value, &below)
        }),
        (List(shape), Value::Array(items)) => items
            .iter()
            .enumerate()
            .try_for_each(|(index, item)| check(shape, item, &format!("{pointer}/{index}"))),
        (Text, _) => expected("text; put it in quotes"),
        (Number, _) => expected("a number"),
        (Boolean, _) => expected("true or false"),
        (OneOf(words), _) => expected(&format!("one of {}", words.join(", "))),
        (Map(_) | Each(_), _) => expected("a map of keys and values"),
        (List(_), _) => expected("a list"),
    }
}

const fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}
