//! A directory of manifests becomes the content of a release.
//!
//! In: a directory or a file. Out: the content, and the blobs that must be uploaded before it is sent. Each sub-directory is one app
//! named after it; a directory without sub-directories, or a file, is one app. Lists are split; objects that two places define
//! are refused with both places; an app above 16 KiB becomes a blob.

mod files;
mod settings;
mod yaml;

use crate::{
    codes,
    failure::{Failure, Result},
};
use holdfast_protocol::{
    Digest, Generation, MAX_INLINE_BYTES, SchemaVersion,
    document::{App, BlobRef, DesiredState, MAX_MANIFEST_BLOB_BYTES, ManifestSource, check_object},
    operator::ReleaseContent,
};
use jiff::Timestamp;
use serde_json::{Map, Value};
use settings::Settings;
use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::Path,
};

/// A release as it was found on this machine.
#[derive(Debug)]
pub struct Release {
    /// What the hub is asked to keep.
    pub content: ReleaseContent,
    /// What must be uploaded before, by digest.
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    /// Number of Kubernetes objects in all.
    pub objects: usize,
}

fn invalid(place: &str, what: &str, action: &str) -> Failure {
    Failure::new(codes::RELEASE_INVALID, format!("{place}: {what}"), action)
}

/// What makes an object the same object: group, kind, namespace and name.
type Identity = (String, String, String, String);

/// Kinds without a namespace; for these, the app's own says nothing.
const CLUSTER_WIDE: &[&str] = &[
    "APIService",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "IngressClass",
    "MutatingWebhookConfiguration",
    "Namespace",
    "Node",
    "PersistentVolume",
    "PriorityClass",
    "RuntimeClass",
    "StorageClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
];

/// Reads a release from `path`.
pub fn load(path: &Path) -> Result<Release> {
    let found = files::find(path)?;
    let settings = match &found.settings {
        Some(file) => read_settings(file)?,
        None => Settings::default(),
    };
    if let Some(name) = settings
        .apps
        .keys()
        .find(|name| !found.apps.iter().any(|app| app.name == **name))
    {
        return Err(invalid(
            &found.settings.as_deref().unwrap_or(path).display().to_string(),
            &format!("apps.{name}: there is no app of that name"),
            &format!(
                "the apps are: {}",
                found
                    .apps
                    .iter()
                    .map(|app| app.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        ));
    }

    let mut release = Release {
        content: ReleaseContent {
            k3s: settings.k3s,
            apps: Vec::new(),
            policy: settings.policy.unwrap_or_default(),
        },
        blobs: BTreeMap::new(),
        objects: 0,
    };
    let mut places: BTreeMap<Identity, String> = BTreeMap::new();
    for app in found.apps {
        let namespace = settings
            .apps
            .get(&app.name)
            .and_then(|app| app.namespace.clone())
            .or_else(|| settings.namespace.clone());
        let mut objects = Vec::new();
        for file in &app.files {
            for (place, object) in read_objects(file)? {
                match places.entry(identity(&object, namespace.as_deref())) {
                    Entry::Occupied(first) => {
                        let (_, kind, namespace, name) = first.key();
                        let slash = if namespace.is_empty() { "" } else { "/" };
                        return Err(invalid(
                            &place,
                            &format!(
                                "{kind} {namespace}{slash}{name} is defined in {} already",
                                first.get()
                            ),
                            "remove one of the two: an object can belong to one app only",
                        ));
                    }
                    Entry::Vacant(vacant) => {
                        vacant.insert(place);
                    }
                }
                objects.push(object);
            }
        }
        if objects.is_empty() {
            return Err(invalid(
                &app.name,
                "the app holds no object",
                "put manifests there, or remove the directory",
            ));
        }
        release.objects += objects.len();
        let source = source(&app.name, objects, &mut release.blobs)?;
        release.content.apps.push(App {
            name: app.name,
            namespace,
            manifests: vec![source],
            ..App::default()
        });
    }
    check_whole(path, &release.content)?;
    Ok(release)
}

fn read_settings(file: &Path) -> Result<Settings> {
    let place = file.display().to_string();
    let mend = "see the command's help for what it may hold";
    let mut documents = yaml::parse(&files::read(file)?).map_err(|error| {
        invalid(
            &format!("{place}:{}:{}", error.line, error.column),
            &error.reason,
            mend,
        )
    })?;
    match documents.len() {
        0 => Ok(Settings::default()),
        1 => Settings::from_value(documents.remove(0).value).map_err(|reason| invalid(&place, &reason, mend)),
        more => Err(invalid(
            &place,
            &format!("holds {more} documents instead of one"),
            mend,
        )),
    }
}

/// The objects of a file, each with its place.
fn read_objects(file: &Path) -> Result<Vec<(String, Value)>> {
    let text = files::read(file)?;
    let name = file.display();
    let documents = if file.extension().is_some_and(|extension| extension == "json") {
        let value = serde_json::from_str(&text).map_err(|error| {
            invalid(
                &format!("{name}:{}:{}", error.line(), error.column()),
                &error.to_string(),
                "mend the JSON",
            )
        })?;
        vec![yaml::Document {
            value,
            line: 1,
            number: 1,
        }]
    } else {
        yaml::parse(&text).map_err(|error| {
            invalid(
                &format!("{name}:{}:{}", error.line, error.column),
                &error.reason,
                "mend the YAML",
            )
        })?
    };
    let several = documents.len() > 1;
    let mut objects = Vec::new();
    for document in documents {
        let place = if several {
            format!("{name}:{} (document {})", document.line, document.number)
        } else {
            format!("{name}:{}", document.line)
        };
        split(place, document.value, &mut objects)?;
    }
    Ok(objects)
}

/// Splits lists, as `kubectl get -o yaml` writes them, into their items.
fn split(place: String, value: Value, into: &mut Vec<(String, Value)>) -> Result<()> {
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
    if kind.ends_with("List") && value.get("items").is_some_and(Value::is_array) {
        let Some(Value::Array(items)) = value.get("items").cloned() else {
            return Ok(());
        };
        return items
            .into_iter()
            .enumerate()
            .try_for_each(|(index, item)| split(format!("{place}, item {}", index + 1), item, into));
    }
    if !value.is_object() {
        return Err(invalid(
            &place,
            "is no Kubernetes object",
            "a manifest is a map with apiVersion, kind and metadata",
        ));
    }
    check_object(&value).map_err(|reason| {
        invalid(
            &place,
            &reason,
            "give each object an apiVersion, a kind and a metadata.name",
        )
    })?;
    into.push((place, value));
    Ok(())
}

fn identity(object: &Value, app_namespace: Option<&str>) -> Identity {
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let version = text("/apiVersion");
    let group = version.split_once('/').map_or("", |(group, _)| group).to_owned();
    let kind = text("/kind");
    let namespace = match text("/metadata/namespace") {
        _ if CLUSTER_WIDE.contains(&kind.as_str()) => String::new(),
        own if own.is_empty() => app_namespace.unwrap_or("default").to_owned(),
        own => own,
    };
    (group, kind, namespace, text("/metadata/name"))
}

/// Inline while small, else a blob.
fn source(app: &str, objects: Vec<Value>, blobs: &mut BTreeMap<Digest, Vec<u8>>) -> Result<ManifestSource> {
    let size: usize = objects.iter().map(|object| object.to_string().len()).sum();
    if size <= MAX_INLINE_BYTES {
        return Ok(ManifestSource::Inline(objects));
    }
    let content = Value::Array(objects).to_string().into_bytes();
    let size = content.len() as u64;
    if size > MAX_MANIFEST_BLOB_BYTES {
        return Err(invalid(
            app,
            &format!("the app is {size} bytes of JSON; at most {MAX_MANIFEST_BLOB_BYTES}"),
            "split it into several apps, or take large data out of ConfigMaps",
        ));
    }
    let digest = Digest::of(&content);
    blobs.insert(digest, content);
    Ok(ManifestSource::Blob(BlobRef { digest, size }))
}

/// Holds the content against the rules of the document that nodes will get.
fn check_whole(path: &Path, content: &ReleaseContent) -> Result<()> {
    let place = path.display().to_string();
    let document = DesiredState {
        schema: SchemaVersion::CURRENT,
        node: "any"
            .parse()
            .map_err(|_| invalid(&place, "cannot be checked", "report this as a bug"))?,
        generation: Generation { epoch: 1, counter: 1 },
        issued_at: Timestamp::UNIX_EPOCH,
        release: None,
        k3s: content.k3s.clone(),
        apps: content.apps.clone(),
        policy: content.policy.clone(),
        extra: Map::new(),
    };
    document
        .validate()
        .map_err(|error| invalid(&place, &error.to_string(), "mend that and try again"))
}

#[cfg(test)]
mod tests;
