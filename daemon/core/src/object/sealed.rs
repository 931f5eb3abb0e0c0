//! Kubernetes Secrets of a document whose values are sealed to the box.
//!
//! In: a sealed Secret, and how to open one value. Out: an object like any other. Guarantees: its digest is that of the sealed form, so
//! that nobody can try values against what is kept of it; a value is opened only into the body that is sent to Kubernetes.

use super::{PreparedObject, prepare::write_canonical};
use holdfast_protocol::{
    Problem,
    document::{SealedSecret, SealedValue},
};
use serde_json::{Map, Value, json};

/// The object with its values as they are sealed.
pub(super) fn object(secret: &SealedSecret, namespace: Option<&str>) -> Value {
    let data: Map<String, Value> = secret
        .data
        .iter()
        .map(|(key, value)| {
            (
                key.clone(),
                serde_json::to_string(value).unwrap_or_default().into(),
            )
        })
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret.name, "namespace": secret.namespace.as_deref().or(namespace).unwrap_or("default")},
        "type": secret.kind.as_deref().unwrap_or("Opaque"),
        "data": data,
    })
}

/// Puts the opened values, in base64, into the body of a prepared Secret; its digest stays that of the sealed form.
pub(super) fn open(
    prepared: &mut PreparedObject,
    secret: &SealedSecret,
    place: &str,
    mut open: impl FnMut(&str, &SealedValue) -> Result<String, Problem>,
) -> Result<(), Problem> {
    let mut data = Map::new();
    for (key, value) in &secret.data {
        let place = format!("{place}.data.{key} ({})", value.source);
        data.insert(key.clone(), open(&place, value)?.into());
    }
    let mut body: Value = serde_json::from_str(&prepared.json).unwrap_or_default();
    if let Some(body) = body.as_object_mut() {
        body.insert("data".into(), data.into());
    }
    prepared.json.clear();
    write_canonical(&body, &mut prepared.json);
    Ok(())
}
