//! From a document's apps to objects that are ready to apply.

use super::{
    APP_LABEL, MANAGED_BY_LABEL, MANAGER, ObjectKey, PRUNE_ANNOTATION, PRUNE_NEVER, Scope, Scopes, Wave,
    group_of, sealed,
};
use crate::codes;
use holdfast_protocol::{
    Digest, Problem, codes as protocol_codes,
    document::{
        App, BlobRef, DesiredState, MAX_OBJECTS, ManifestSource, SealedSecret, SealedValue, check_object,
    },
};
use serde::de::{Deserializer as _, Error as _, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, fmt};

/// What the server sets by itself; manifests that were copied out of a cluster carry it, and server-side apply refuses some of it.
const SERVER_SIDE_METADATA: [&str; 6] = [
    "managedFields",
    "resourceVersion",
    "uid",
    "creationTimestamp",
    "generation",
    "selfLink",
];

/// An object that is ready to apply.
#[derive(Clone, PartialEq, Eq)]
pub struct PreparedObject {
    /// What names it.
    pub key: ObjectKey,
    /// App of the document that it belongs to.
    pub app: String,
    /// Digest of [`Self::json`]; of a Secret whose values are sealed, digest of the sealed form.
    pub digest: Digest,
    /// Whether it stays in the cluster when it leaves the document.
    pub keep: bool,
    /// The body to apply: compact JSON with sorted keys.
    pub json: String,
}

/// Shows which object it is; its body may hold secrets.
impl fmt::Debug for PreparedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreparedObject")
            .field("key", &self.key)
            .field("app", &self.app)
            .field("digest", &self.digest)
            .field("keep", &self.keep)
            .finish_non_exhaustive()
    }
}

impl PreparedObject {
    /// When it is applied.
    pub fn wave(&self) -> Wave {
        self.key.wave()
    }
}

/// Why a document's objects cannot be made ready.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError<E> {
    /// A blob could not be read; whether that can be mended is for the reader to say.
    #[error("{0}")]
    Blob(E),
    /// The document itself is at fault; trying again cannot help.
    #[error("{0}")]
    Refused(Problem),
}

/// Makes all objects of a document ready, in the order of applying.
///
/// `read_blob` gives the whole content of a blob. `scopes` is what discovery knows; definitions within the document are added to it.
/// Sealed Secrets keep their values sealed: enough to compare and to show, not to apply.
pub fn prepare_document<E>(
    state: &DesiredState,
    scopes: &Scopes,
    read_blob: impl FnMut(&BlobRef) -> Result<Vec<u8>, E>,
) -> Result<Vec<PreparedObject>, PrepareError<E>> {
    prepare_all(state, scopes, read_blob, None)
}

/// As [`prepare_document`], and opens the values of sealed Secrets: `open` gets the place of a value for its messages, and gives the
/// value in base64.
pub fn prepare_document_opened<E>(
    state: &DesiredState,
    scopes: &Scopes,
    read_blob: impl FnMut(&BlobRef) -> Result<Vec<u8>, E>,
    mut open: impl FnMut(&str, &SealedValue) -> Result<String, Problem>,
) -> Result<Vec<PreparedObject>, PrepareError<E>> {
    prepare_all(state, scopes, read_blob, Some(&mut open))
}

type Open<'a> = &'a mut dyn FnMut(&str, &SealedValue) -> Result<String, Problem>;

fn prepare_all<E>(
    state: &DesiredState,
    scopes: &Scopes,
    mut read_blob: impl FnMut(&BlobRef) -> Result<Vec<u8>, E>,
    mut open: Option<Open<'_>>,
) -> Result<Vec<PreparedObject>, PrepareError<E>> {
    // Twice over the document, each time with one object in memory: a thousand of them at once would be some megabytes for a moment, and
    // leave the memory full of holes for good.
    let mut scopes = scopes.clone();
    let mut count = 0;
    each_object(state, &mut read_blob, |found| {
        scopes.learn_from(&found.value);
        count += 1;
        Ok(())
    })?;
    if count > MAX_OBJECTS {
        return Err(PrepareError::Refused(Problem::new(
            protocol_codes::DOCUMENT_INVALID,
            format!("{count} objects with those in blobs; at most {MAX_OBJECTS}"),
            "split the release",
        )));
    }

    let mut places = BTreeMap::new();
    let mut prepared = Vec::with_capacity(count);
    each_object(state, &mut read_blob, |found| {
        let Found {
            app,
            place,
            value,
            secret,
        } = found;
        let mut object = prepare(value, &app.name, app.namespace.as_deref(), &scopes).map_err(|reason| {
            Problem::new(
                codes::OBJECT_INVALID,
                format!("{place}: {reason}"),
                "correct the manifest and publish the release again",
            )
        })?;
        let key = &object.key;
        let identity = (
            key.group().to_owned(),
            key.kind.clone(),
            key.namespace.clone(),
            key.name.clone(),
        );
        if let Some(earlier) = places.insert(identity, place.clone()) {
            return Err(Problem::new(
                codes::OBJECT_DUPLICATE,
                format!("{place}: {key} is named before, by {earlier}"),
                "let one app alone own the object",
            ));
        }
        if let (Some(secret), Some(open)) = (secret, &mut open) {
            sealed::open(&mut object, secret, &place, open)?;
        }
        object.json.shrink_to_fit();
        prepared.push(object);
        Ok(())
    })?;
    prepared.sort_by(|a, b| (a.wave(), &a.key).cmp(&(b.wave(), &b.key)));
    Ok(prepared)
}

/// An object as the document has it.
struct Found<'a> {
    app: &'a App,
    /// For messages.
    place: String,
    value: Value,
    /// Where it was made of sealed values.
    secret: Option<&'a SealedSecret>,
}

/// Shows all objects of a document to `visit`, one after the other; the first problem ends it.
fn each_object<'a, E>(
    state: &'a DesiredState,
    read_blob: &mut impl FnMut(&BlobRef) -> Result<Vec<u8>, E>,
    mut visit: impl FnMut(Found<'a>) -> Result<(), Problem>,
) -> Result<(), PrepareError<E>> {
    for (index, app) in state.apps.iter().enumerate() {
        for (number, source) in app.manifests.iter().enumerate() {
            let place = format!("apps[{index}] ({}), manifests[{number}]", app.name);
            let mut one = |position: usize, value: Value| {
                visit(Found {
                    app,
                    place: format!("{place}[{position}]"),
                    value,
                    secret: None,
                })
            };
            match source {
                ManifestSource::Inline(values) => {
                    for (position, value) in values.iter().enumerate() {
                        one(position, value.clone()).map_err(PrepareError::Refused)?;
                    }
                }
                ManifestSource::Blob(blob) => {
                    let bytes = read_blob(blob).map_err(PrepareError::Blob)?;
                    each_element(&bytes, one)
                        .map_err(|error| {
                            Problem::new(
                                codes::MANIFESTS_MALFORMED,
                                format!(
                                    "{place}: blob {} is not a JSON array of objects: {error}",
                                    blob.digest
                                ),
                                "make the release anew with holdfastctl",
                            )
                        })
                        .flatten()
                        .map_err(PrepareError::Refused)?;
                }
            }
        }
        for (number, secret) in app.secrets.iter().enumerate() {
            visit(Found {
                app,
                place: format!(
                    "apps[{index}] ({}), secrets[{number}] ({})",
                    app.name, secret.name
                ),
                value: sealed::object(secret, app.namespace.as_deref()),
                secret: Some(secret),
            })
            .map_err(PrepareError::Refused)?;
        }
    }
    Ok(())
}

/// Shows the elements of a JSON array to `visit`, of which only one is in memory at a time. The outer error is one of the JSON, the inner one
/// of the visitor.
pub fn each_element<X>(
    bytes: &[u8],
    visit: impl FnMut(usize, Value) -> Result<(), X>,
) -> Result<Result<(), X>, serde_json::Error> {
    struct Elements<'v, F, X> {
        visit: F,
        stopped: &'v mut Option<X>,
    }

    impl<'de, X, F: FnMut(usize, Value) -> Result<(), X>> Visitor<'de> for Elements<'_, F, X> {
        type Value = ();

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
            let mut position = 0;
            while let Some(value) = elements.next_element()? {
                if let Err(problem) = (self.visit)(position, value) {
                    *self.stopped = Some(problem);
                    return Err(A::Error::custom("stopped"));
                }
                position += 1;
            }
            Ok(())
        }
    }

    let mut stopped = None;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let read = deserializer
        .deserialize_seq(Elements {
            visit,
            stopped: &mut stopped,
        })
        .and_then(|()| deserializer.end());
    match stopped {
        Some(problem) => Ok(Err(problem)),
        None => read.map(Ok),
    }
}

/// Makes one object ready: fills in its namespace, adds Holdfast's labels, drops what only the server may set.
///
/// The error says what is wrong with the object, without its place.
pub fn prepare(
    mut value: Value,
    app: &str,
    namespace: Option<&str>,
    scopes: &Scopes,
) -> Result<PreparedObject, String> {
    check_object(&value)?;
    let text = |value: &Value, pointer: &str| {
        value
            .pointer(pointer)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
            .map(ToOwned::to_owned)
    };
    let api_version = text(&value, "/apiVersion").unwrap_or_default();
    let kind = text(&value, "/kind").unwrap_or_default();
    let name = text(&value, "/metadata/name").unwrap_or_default();
    let namespace = match scopes.of(group_of(&api_version), &kind) {
        Scope::Cluster => None,
        Scope::Namespaced => Some(
            text(&value, "/metadata/namespace").unwrap_or_else(|| namespace.unwrap_or("default").to_owned()),
        ),
    };
    let key = ObjectKey {
        api_version,
        kind,
        namespace,
        name,
    };
    let wrong = |what: &str| format!("{key}: {what} is not an object");

    let body = value.as_object_mut().ok_or_else(|| wrong("the manifest"))?;
    body.remove("status");
    let metadata = body
        .get_mut("metadata")
        .and_then(Value::as_object_mut)
        .ok_or_else(|| wrong("metadata"))?;
    for field in SERVER_SIDE_METADATA {
        metadata.remove(field);
    }
    match &key.namespace {
        Some(namespace) => metadata.insert("namespace".into(), namespace.clone().into()),
        None => metadata.remove("namespace"),
    };
    let keep = match map_in(metadata, "annotations").ok_or_else(|| wrong("metadata.annotations"))? {
        annotations if annotations.is_empty() => {
            metadata.remove("annotations");
            false
        }
        annotations => match annotations.get(PRUNE_ANNOTATION) {
            None => false,
            Some(Value::String(text)) if text == PRUNE_NEVER => true,
            Some(other) => {
                return Err(format!(
                    "{key}: annotation {PRUNE_ANNOTATION} is {other}; the only value it knows is {PRUNE_NEVER:?}"
                ));
            }
        },
    };
    let labels = map_in(metadata, "labels").ok_or_else(|| wrong("metadata.labels"))?;
    labels.insert(MANAGED_BY_LABEL.into(), MANAGER.into());
    labels.insert(APP_LABEL.into(), app.into());

    let mut json = String::new();
    write_canonical(&value, &mut json);
    Ok(PreparedObject {
        digest: Digest::of(json.as_bytes()),
        app: app.to_owned(),
        key,
        keep,
        json,
    })
}

/// The map under `field`, made where it is absent or null; none where it is something else.
fn map_in<'a>(parent: &'a mut Map<String, Value>, field: &str) -> Option<&'a mut Map<String, Value>> {
    let value = parent.entry(field).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut()
}

/// Compact JSON with sorted keys: equal content gives equal bytes, whichever map type `serde_json` was built with.
pub(super) fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(values) => {
            out.push('[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(value, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}
