//! A directory of manifests becomes the content of a release.
//!
//! In: a directory or a file. Out: the content, and what must be uploaded before it is sent. Each sub-directory is one app named after it;
//! a directory without sub-directories, or a file, is one app. An app is made of manifests, of a chart (`helm.yaml`), or of what kustomize makes
//! of it (`kustomization.yaml`). Lists are split; objects that two places define are refused with both places; an app above 16 KiB becomes a blob.

mod artifacts;
mod culprit;
mod files;
mod helm;
mod kustomize;
mod lock;
mod os;
mod settings;
mod shape;
mod yaml;

pub use artifacts::Files;
pub(crate) use artifacts::measure;
pub(crate) use files::{require_readable, unreadable};
pub use settings::FILE as SETTINGS_FILE;

use crate::{Result, codes, render, variables::Scope};
use holdfast_protocol::{
    Digest, Generation, NodeId, Problem, SchemaVersion,
    document::{App, DesiredState, check_object},
    operator::ReleaseContent,
};
use jiff::Timestamp;
use serde_json::{Map, Value};
use settings::Settings;
use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::{Path, PathBuf},
};

/// A release as it was found on this machine.
#[derive(Debug)]
pub struct Release {
    /// What the hub is asked to keep.
    pub content: ReleaseContent,
    /// Manifests that must be uploaded before, by digest.
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    /// Files that must be uploaded before, by digest: archives of images, binaries.
    pub files: Files,
    /// Number of Kubernetes objects in all.
    pub objects: usize,
}

/// How a directory is read.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The command that renders a kustomization, to which the directory is added; `kustomize build` or `kubectl kustomize` where absent.
    pub kustomize: Option<String>,
    /// Whether kustomize may read what is not on this machine.
    pub allow_remote: bool,
    /// The builder's public keys, which images of the operating system must be signed by; their signers are not asked for where absent.
    pub os_keys: Option<PathBuf>,
}

fn invalid(place: &str, what: &str, action: &str) -> Problem {
    Problem::new(codes::RELEASE_INVALID, format!("{place}: {what}"), action)
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
pub fn load(path: &Path, options: &Options) -> Result<Release> {
    let found = files::find(path)?;
    let settings = match &found.settings {
        Some(file) => {
            let keys = options.os_keys.as_deref().map(crate::os::keys).transpose()?;
            Settings::read(file, keys.as_ref())?
        }
        None => Settings::none(),
    };
    let names: Vec<String> = found.apps.iter().map(|app| app.name.clone()).collect();
    if let Some(name) = settings.apps.keys().find(|name| !names.contains(name)) {
        return Err(settings.unknown_app(name, &names));
    }
    let mut release = Release {
        content: settings.content.clone(),
        blobs: BTreeMap::new(),
        files: settings.files.clone(),
        objects: 0,
    };
    let mut places: BTreeMap<Identity, String> = BTreeMap::new();
    for found in found.apps {
        let mut app = settings.apps.get(&found.name).cloned().unwrap_or_default();
        app.name.clone_from(&found.name);
        app.namespace = app.namespace.or_else(|| settings.namespace.clone());
        let mut objects = Vec::new();
        for (place, object) in objects_of(&found, app.namespace.as_deref(), options)? {
            match places.entry(identity(&object, app.namespace.as_deref())) {
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
        if objects.is_empty() && app.secrets.is_empty() {
            return Err(invalid(
                &app.name,
                "the app holds no object",
                "put manifests there, or remove the directory",
            ));
        }
        release.objects += objects.len();
        app.manifests = vec![render::source(&app.name, objects, &mut release.blobs)?];
        release.content.apps.push(app);
    }
    let blobs = &release.blobs;
    release.content.templates = render::check(&release.content, |digest| blob(blobs, digest))
        .map_err(|problem| placed(&settings, &release.content.apps, problem))?;
    check_whole(path, &settings, &release)?;
    Ok(release)
}

/// All objects of an app, each with its place.
fn objects_of(
    app: &files::AppFiles,
    namespace: Option<&str>,
    options: &Options,
) -> Result<Vec<(String, Value)>> {
    let mut objects = Vec::new();
    if let Some(directory) = &app.kustomize {
        let text = kustomize::render(directory, options)?;
        let place = kustomize::place(directory);
        let documents =
            yaml::parse(&text).map_err(|error| invalid(&place, &error.reason, "mend what it is made of"))?;
        for document in documents {
            split(place.clone(), document.value, &mut objects)?;
        }
    }
    for file in &app.files {
        objects.extend(read_objects(file)?);
    }
    if let Some(file) = &app.helm {
        objects.push((
            file.display().to_string(),
            helm::object(file, &app.name, namespace)?,
        ));
    }
    Ok(objects)
}

/// Objects of a blob that is not uploaded yet.
fn blob(blobs: &BTreeMap<Digest, Vec<u8>>, digest: &Digest) -> Result<Vec<Value>> {
    let bytes = blobs.get(digest).map(Vec::as_slice).unwrap_or_default();
    render::objects(bytes).map_err(|reason| invalid(&digest.to_string(), &reason, "report this as a bug"))
}

/// A problem of the content, as one of `release.yaml` where that is its place.
fn placed(settings: &Settings, apps: &[App], problem: Problem) -> Problem {
    problem
        .message
        .split_once(": ")
        .and_then(|(place, reason)| settings.at(place, reason, apps))
        .unwrap_or(problem)
}

impl Release {
    /// What a node of this name and with these labels would get: its content, and all its blobs.
    pub fn render(
        &self,
        node: &NodeId,
        labels: &holdfast_protocol::operator::Labels,
    ) -> Result<holdfast_protocol::operator::RenderedRelease> {
        let scope = Scope::of(&self.content, node, labels)?;
        let mut blobs = self.blobs.clone();
        let mut made = BTreeMap::new();
        let content = render::render(
            &self.content,
            &scope,
            |digest| blob(&self.blobs, digest),
            &mut made,
        )?;
        blobs.extend(made);
        let named: Vec<Digest> = content
            .apps
            .iter()
            .flat_map(|app| &app.manifests)
            .filter_map(|source| match source {
                holdfast_protocol::document::ManifestSource::Blob(blob) => Some(blob.digest),
                holdfast_protocol::document::ManifestSource::Inline(_) => None,
            })
            .collect();
        let blobs = named
            .into_iter()
            .map(|digest| blob(&blobs, &digest).map(|objects| (digest, objects)))
            .collect::<Result<_>>()?;
        Ok(holdfast_protocol::operator::RenderedRelease {
            node: node.clone(),
            variables: scope.variables(),
            content,
            blobs,
        })
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

/// Holds the content against the rules of the document that nodes will get.
fn check_whole(path: &Path, settings: &Settings, release: &Release) -> Result<()> {
    let place = path.display().to_string();
    let node: NodeId = "any"
        .parse()
        .map_err(|_| invalid(&place, "cannot be checked", "report this as a bug"))?;
    let content = &release.content;
    let rendered = if render::differs(content) {
        let scope = Scope::sample(content, &node);
        let mut made = BTreeMap::new();
        // What such a field may be is known with the node's value only.
        let sample = ReleaseContent {
            fields: BTreeMap::new(),
            ..content.clone()
        };
        render::render(&sample, &scope, |digest| blob(&release.blobs, digest), &mut made)?
    } else {
        content.clone()
    };
    let document = document(node, rendered);
    document.validate().or_else(|error| {
        if render::depends(content, &error.place) {
            return Ok(());
        }
        let place_in_file = settings.at(&error.place, &error.reason, &content.apps);
        Err(place_in_file.unwrap_or_else(|| invalid(&place, &error.to_string(), "mend that and try again")))
    })
}

/// A document that says what a content says, to be looked at and never to be sent.
pub fn document(node: NodeId, content: ReleaseContent) -> DesiredState {
    DesiredState {
        schema: SchemaVersion::CURRENT,
        node,
        generation: Generation { epoch: 1, counter: 1 },
        issued_at: Timestamp::UNIX_EPOCH,
        release: None,
        k3s: content.k3s,
        os: content.os,
        apps: content.apps,
        policy: content.policy,
        extra: Map::new(),
    }
}

#[cfg(test)]
mod tests;
