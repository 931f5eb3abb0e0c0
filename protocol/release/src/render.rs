//! The content of a release becomes that of one node.
//!
//! In: the content as it was made, and what holds for the node. Out: content without variables and placeholders. Guarantees: what cannot be
//! filled in is an error with node, app and place; an app that grows beyond what a document may hold inline becomes a blob.

use crate::{
    Result, codes,
    os::unknown_architecture,
    template::{self, Fault, Name, Values as _, concerns_value, exactly_one},
    variables::Scope,
};
use holdfast_protocol::{
    Digest, MAX_INLINE_BYTES, Problem,
    document::{App, BlobRef, K3sSection, MAX_MANIFEST_BLOB_BYTES, ManifestSource, OsSection, Policy},
    operator::ReleaseContent,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Blobs by digest.
pub type Blobs = BTreeMap<Digest, Vec<u8>>;

/// Whether the content is another one for each node. What is not costs nothing to render.
pub fn differs(content: &ReleaseContent) -> bool {
    !content.templates.is_empty()
        || !content.fields.is_empty()
        || serde_json::to_value((&content.k3s, &content.os, &content.apps, &content.policy))
            .is_ok_and(|value| concerns_value(&value))
}

/// Whether what stands at a place of the content, `policy.windows[0].start`, is another value for each node. What a rule says of it can only be
/// known when it is filled in.
pub fn depends(content: &ReleaseContent, place: &str) -> bool {
    let Ok(value) = serde_json::to_value(content) else {
        return false;
    };
    let pointer = place.split(['.', '[']).fold(String::new(), |mut pointer, part| {
        pointer.push('/');
        pointer.push_str(part.trim_end_matches(']'));
        pointer
    });
    content.fields.contains_key(&pointer) || value.pointer(&pointer).is_some_and(concerns_value)
}

/// Takes a blob of manifests apart.
pub fn objects(bytes: &[u8]) -> std::result::Result<Vec<Value>, String> {
    serde_json::from_slice(bytes)
        .map_err(|error| format!("its content is not a JSON array of objects: {error}"))
}

/// Objects as they go into a document: inline while small, else as a blob.
pub fn source(app: &str, objects: Vec<Value>, blobs: &mut Blobs) -> Result<ManifestSource> {
    let size: usize = objects.iter().map(|object| object.to_string().len()).sum();
    if size <= MAX_INLINE_BYTES {
        return Ok(ManifestSource::Inline(objects));
    }
    as_blob(app, objects, blobs)
}

fn as_blob(app: &str, objects: Vec<Value>, blobs: &mut Blobs) -> Result<ManifestSource> {
    let content = Value::Array(objects).to_string().into_bytes();
    let size = content.len() as u64;
    if size > MAX_MANIFEST_BLOB_BYTES {
        return Err(Problem::new(
            codes::RELEASE_INVALID,
            format!("app {app}: {size} bytes of JSON; at most {MAX_MANIFEST_BLOB_BYTES}"),
            "split it into several apps, or take large data out of ConfigMaps",
        ));
    }
    let digest = Digest::of(&content);
    blobs.insert(digest, content);
    Ok(ManifestSource::Blob(BlobRef { digest, size }))
}

/// Fills in everything. `read` gives the objects of a blob that the content lists as a template; blobs that are new are put into `blobs`.
pub fn render(
    content: &ReleaseContent,
    scope: &Scope,
    read: impl Fn(&Digest) -> Result<Vec<Value>>,
    blobs: &mut Blobs,
) -> Result<ReleaseContent> {
    let mut fields: BTreeMap<&str, Value> = BTreeMap::new();
    for (pointer, text) in &content.fields {
        let place = pointer.trim_start_matches('/').replace('/', ".");
        let name = exactly_one(text).ok_or_else(|| {
            let reason = format!("{text:?} is not one placeholder");
            let place = place.clone();
            refuse(scope, "", &Fault { place, reason })
        })?;
        let value = scope
            .value(&name)
            .map_err(|reason| refuse(scope, "", &Fault { place, reason }))?;
        fields.insert(pointer, value);
    }
    let fields_of = |section: &str| {
        let prefix = format!("/{section}/");
        let of: Vec<(String, Value)> = fields
            .iter()
            .filter_map(|(pointer, value)| Some((pointer.strip_prefix(&prefix)?.to_owned(), value.clone())))
            .collect();
        of
    };
    let k3s: Option<K3sSection> = match &content.k3s {
        Some(k3s) => Some(section("k3s", k3s, fields_of("k3s"), scope)?),
        None => None,
    };
    let os: Option<OsSection> = match &content.os {
        Some(os) => Some(section("os", os, fields_of("os"), scope)?),
        None => None,
    };
    let policy: Policy = section("policy", &content.policy, fields_of("policy"), scope)?;
    zones(&policy).map_err(|(place, reason)| refuse(scope, "", &Fault { place, reason }))?;
    let apps = content
        .apps
        .iter()
        .map(|app| self::app(app, content, scope, &read, blobs))
        .collect::<Result<Vec<App>>>()?;
    Ok(ReleaseContent {
        k3s,
        os,
        apps,
        policy,
        ..ReleaseContent::default()
    })
}

fn refuse(scope: &Scope, part: &str, fault: &Fault) -> Problem {
    let node = scope.node();
    let separator = if part.is_empty() { "" } else { ": " };
    Problem::new(
        codes::VARIABLE_MISSING,
        format!("node {node}: {part}{separator}{}: {}", fault.place, fault.reason),
        "give the node what is missing, or give the release to other nodes",
    )
}

fn section<T: Serialize + DeserializeOwned>(
    name: &str,
    typed: &T,
    fields: Vec<(String, Value)>,
    scope: &Scope,
) -> Result<T> {
    let place = name;
    let broken = |reason: String| {
        let place = place.to_owned();
        refuse(scope, "", &Fault { place, reason })
    };
    let mut value = serde_json::to_value(typed).map_err(|error| broken(error.to_string()))?;
    template::fill(&mut value, place, scope).map_err(|fault| refuse(scope, "", &fault))?;
    if let Value::Object(map) = &mut value {
        map.extend(fields);
    }
    serde_json::from_value(value).map_err(|error| broken(format!("with the values of this node: {error}")))
}

fn app(
    app: &App,
    content: &ReleaseContent,
    scope: &Scope,
    read: impl Fn(&Digest) -> Result<Vec<Value>>,
    blobs: &mut Blobs,
) -> Result<App> {
    let place = format!("app {}", app.name);
    let without_manifests = App {
        manifests: Vec::new(),
        ..app.clone()
    };
    let mut rendered: App = section(&place, &without_manifests, Vec::new(), scope)?;
    let mut inline = Vec::new();
    for source in &app.manifests {
        match source {
            ManifestSource::Inline(objects) => {
                let mut objects = objects.clone();
                fill_objects(&mut objects, &place, scope)?;
                inline.extend(objects);
            }
            ManifestSource::Blob(blob) if content.templates.contains(&blob.digest) => {
                let mut objects = read(&blob.digest)?;
                fill_objects(&mut objects, &place, scope)?;
                rendered.manifests.push(as_blob(&app.name, objects, blobs)?);
            }
            ManifestSource::Blob(blob) => rendered.manifests.push(ManifestSource::Blob(blob.clone())),
        }
    }
    if !inline.is_empty() {
        rendered.manifests.insert(0, source(&app.name, inline, blobs)?);
    }
    Ok(rendered)
}

fn fill_objects(objects: &mut [Value], app: &str, scope: &Scope) -> Result<()> {
    for object in objects {
        let part = |pointer: &str| {
            object
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let place = format!("{app}, {} {}", part("/kind"), part("/metadata/name"));
        template::fill(object, "", scope).map_err(|fault| refuse(scope, &place, &fault))?;
    }
    Ok(())
}

/// Looks the time zones of the windows up, but for those that are filled in for each node.
fn zones(policy: &Policy) -> std::result::Result<(), (String, String)> {
    for (index, window) in policy.windows.iter().enumerate() {
        let zone = &window.time_zone;
        if !zone.contains("${") && jiff::tz::TimeZone::get(zone).is_err() {
            let reason = format!(
                "there is no time zone {zone:?}: write its IANA name, Europe/Zurich, Asia/Shanghai or UTC"
            );
            return Err((format!("policy.windows[{index}].timeZone"), reason));
        }
    }
    Ok(())
}

/// Checks that everything is for an architecture that boxes have: a box takes what is for its own and passes over the rest, so that it would never
/// say that a name is mistyped.
fn architectures(content: &ReleaseContent) -> std::result::Result<(), (String, String)> {
    let k3s = content.k3s.iter().flat_map(|k3s| {
        let binaries = k3s.binaries.keys().map(|name| ("k3s.binaries".to_owned(), name));
        binaries.chain(k3s.images.keys().map(|name| ("k3s.images".to_owned(), name)))
    });
    let os = content.os.iter().flat_map(|os| os.images.keys());
    let os = os.map(|name| ("os.images".to_owned(), name));
    let apps = content.apps.iter().enumerate().flat_map(|(index, app)| {
        let names = app.images.keys();
        names.map(move |name| (format!("apps[{index}].images"), name))
    });
    k3s.chain(os)
        .chain(apps)
        .find_map(|(place, name)| Some((format!("{place}.{name}"), unknown_architecture(name)?)))
        .map_or(Ok(()), Err)
}

/// Finds placeholders that no node could fill in: mistyped ones, and variables that are not declared. Gives the blobs that hold any.
pub fn check(
    content: &ReleaseContent,
    read: impl Fn(&Digest) -> Result<Vec<Value>>,
) -> Result<BTreeSet<Digest>> {
    let invalid = |place: &str, reason: &str| {
        Problem::new(
            codes::RELEASE_INVALID,
            format!("{place}: {reason}"),
            "correct the release at this place",
        )
    };
    crate::variables::check(content)
        .and_then(|()| zones(&content.policy))
        .and_then(|()| architectures(content))
        .map_err(|(place, reason)| invalid(&place, &reason))?;
    let mut names = Vec::new();
    let mut templates = BTreeSet::new();
    let see = |value: &Value, place: &str, names: &mut Vec<(Name, String)>| {
        template::names(value, place, names).map_err(|fault| invalid(&fault.place, &fault.reason))
    };
    for (pointer, text) in &content.fields {
        let place = pointer.trim_start_matches('/').replace('/', ".");
        see(&Value::String(text.clone()), &place, &mut names)?;
    }
    let json =
        |value: serde_json::Result<Value>| value.map_err(|error| invalid("content", &error.to_string()));
    see(&json(serde_json::to_value(&content.k3s))?, "k3s", &mut names)?;
    see(&json(serde_json::to_value(&content.os))?, "os", &mut names)?;
    see(
        &json(serde_json::to_value(&content.policy))?,
        "policy",
        &mut names,
    )?;
    for app in &content.apps {
        let place = format!("app {}", app.name);
        see(&json(serde_json::to_value(app))?, &place, &mut names)?;
        for source in &app.manifests {
            let ManifestSource::Blob(blob) = source else {
                continue;
            };
            let before = names.len();
            let objects = Value::Array(read(&blob.digest)?);
            see(&objects, &place, &mut names)?;
            if names.len() > before || concerns_value(&objects) {
                templates.insert(blob.digest);
            }
        }
    }
    for (name, place) in names {
        if let Name::Variable(name) = name
            && !content.variables.contains_key(&name)
        {
            let hint = crate::nearest(&name, content.variables.keys().map(String::as_str))
                .map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
            return Err(invalid(
                &place,
                &format!("the variable {name} is not declared{hint}"),
            ));
        }
    }
    Ok(templates)
}
