//! Releases: what is checked when one is made.
//!
//! In: the content of a new release. Out: nothing, or the first rule that it breaks with its place. Guarantees: a release that was
//! taken can be given to every node that has the values which it asks for.

mod os;

use crate::{
    api::ApiError, blobs::BlobFiles, codes as hub_codes, config::nearest, database, hub::Hub, render,
};
use holdfast_protocol::{
    Digest, Generation, MAX_ENVELOPE_BYTES, NodeId, Problem,
    document::{MAX_OBJECTS, ManifestSource, check_object},
    operator::ReleaseContent,
};
use holdfast_release::{render as rendering, variables::Scope};
use http::StatusCode;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

const K3S_KEYS: &[&str] = &[
    "version",
    "binaries",
    "images",
    "role",
    "site",
    "datastore",
    "nodeAddress",
    "registries",
    "kubelet",
    "auditPolicy",
    "config",
];
const POLICY_KEYS: &[&str] = &[
    "drift",
    "prune",
    "readyDeadlineSeconds",
    "stabilitySeconds",
    "onFailure",
    "windows",
    "windowsWithoutClock",
    "urgent",
];
const APP_KEYS: &[&str] = &[
    "name",
    "namespace",
    "manifests",
    "secrets",
    "images",
    "probes",
    "onFailure",
];
const OS_KEYS: &[&str] = &["version", "images", "maxBytesPerSecond"];
const ARTIFACT_KEYS: &[&str] = &["digest", "size", "name", "sources"];

/// Checks everything about a release that would make a node refuse it.
///
/// Notes in the content which of its blobs hold placeholders. Gives what is named inside its blobs: by manifest of an operating system, its pack.
pub async fn check(
    hub: &Hub,
    name: &str,
    content: &mut ReleaseContent,
) -> Result<BTreeMap<Digest, Digest>, ApiError> {
    refuse_unknown_keys(content)?;
    let blobs = read_blobs(hub, content).await?;
    let read = |digest: &Digest| Ok(blobs.get(digest).cloned().unwrap_or_default());
    let refused = |problem: Problem| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, problem);
    content.templates = rendering::check(content, read).map_err(refused)?;
    let content = &*content;
    let packs = os::packs(hub, content).await?;
    let digest = database::releases::content_digest(content)?;
    // The longest name and the widest generation: what fits here fits for every node.
    let node: NodeId = "n"
        .repeat(63)
        .parse()
        .map_err(|error| ApiError::internal(&error))?;
    let widest = Generation {
        epoch: u32::MAX,
        counter: i64::MAX.unsigned_abs(),
    };
    let sample = if rendering::differs(content) {
        // What such a field may be is known with a node's value only.
        let without_fields = ReleaseContent {
            fields: BTreeMap::new(),
            ..content.clone()
        };
        let scope = Scope::sample(content, &node);
        rendering::render(&without_fields, &scope, read, &mut BTreeMap::new()).map_err(refused)?
    } else {
        content.clone()
    };
    let document = render::document(&node, widest, name, digest, &sample);
    if let Err(error) = document.validate()
        && !rendering::depends(content, &error.place)
    {
        return Err(invalid(&error.place, &error.reason));
    }
    let bytes = render::sign(&hub.authority, &document)
        .map_err(|error| ApiError::internal(&error))?
        .len();
    if bytes > MAX_ENVELOPE_BYTES {
        return Err(invalid(
            "apps",
            &format!(
                "the signed document has {bytes} bytes; at most {MAX_ENVELOPE_BYTES}: move manifests into blobs"
            ),
        ));
    }
    Ok(packs)
}

fn invalid(place: &str, reason: &str) -> ApiError {
    ApiError::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        Problem::new(
            hub_codes::RELEASE_INVALID,
            format!("content.{place}: {reason}"),
            "correct the release at this place",
        ),
    )
}

/// Nodes keep and ignore fields of newer minor versions; what an operator writes for this version is a mistake.
fn refuse_unknown_keys(content: &ReleaseContent) -> Result<(), ApiError> {
    let refuse = |place: &str, extra: &Map<String, Value>, known: &[&str]| match extra.keys().next() {
        None => Ok(()),
        Some(key) => {
            let hint = nearest(key, known.iter().copied())
                .map_or_else(String::new, |name| format!("; did you mean {name:?}?"));
            Err(invalid(&format!("{place}.{key}"), &format!("unknown key{hint}")))
        }
    };
    if let Some(k3s) = &content.k3s {
        refuse("k3s", &k3s.extra, K3S_KEYS)?;
        for (architecture, binary) in &k3s.binaries {
            refuse(
                &format!("k3s.binaries.{architecture}"),
                &binary.extra,
                ARTIFACT_KEYS,
            )?;
        }
    }
    if let Some(os) = &content.os {
        refuse("os", &os.extra, OS_KEYS)?;
        for (architecture, manifest) in &os.images {
            refuse(
                &format!("os.images.{architecture}"),
                &manifest.extra,
                ARTIFACT_KEYS,
            )?;
        }
    }
    refuse("policy", &content.policy.extra, POLICY_KEYS)?;
    let of_k3s = content.k3s.iter().map(|k3s| ("k3s".to_owned(), &k3s.images));
    let of_apps = content.apps.iter().enumerate();
    let of_apps = of_apps.map(|(index, app)| (format!("apps[{index}]"), &app.images));
    for (place, images) in of_k3s.chain(of_apps) {
        for (architecture, artifacts) in images {
            for (number, artifact) in artifacts.iter().enumerate() {
                let place = format!("{place}.images.{architecture}[{number}]");
                refuse(&place, &artifact.extra, ARTIFACT_KEYS)?;
            }
        }
    }
    for (index, app) in content.apps.iter().enumerate() {
        refuse(&format!("apps[{index}]"), &app.extra, APP_KEYS)?;
    }
    Ok(())
}

/// Checks that all blobs are here and what they hold, and gives their objects.
async fn read_blobs(hub: &Hub, content: &ReleaseContent) -> Result<BTreeMap<Digest, Vec<Value>>, ApiError> {
    let mut found = BTreeMap::new();
    let files = BlobFiles::new(&hub.config.data_dir);
    let mut objects = 0;
    for (index, app) in content.apps.iter().enumerate() {
        for (number, source) in app.manifests.iter().enumerate() {
            let blob = match source {
                ManifestSource::Inline(values) => {
                    objects += values.len();
                    continue;
                }
                ManifestSource::Blob(blob) => blob,
            };
            let place = format!("apps[{index}].manifests[{number}].blob");
            match hub.blob_size(&blob.digest).await? {
                None => {
                    return Err(invalid(
                        &format!("{place}.digest"),
                        &format!("there is no blob {} at the hub; upload it first", blob.digest),
                    ));
                }
                Some(size) if size != blob.size => {
                    return Err(invalid(
                        &format!("{place}.size"),
                        &format!("{} bytes; the blob at the hub has {size}", blob.size),
                    ));
                }
                Some(_) => {}
            }
            let bytes = files
                .read(&blob.digest)
                .await
                .map_err(|error| ApiError::internal(&error))?;
            let values = rendering::objects(&bytes).map_err(|reason| invalid(&place, &reason))?;
            for (position, value) in values.iter().enumerate() {
                check_object(value).map_err(|reason| invalid(&format!("{place}[{position}]"), &reason))?;
            }
            objects += values.len();
            found.insert(blob.digest, values);
        }
    }
    if objects > MAX_OBJECTS {
        return Err(invalid(
            "apps",
            &format!("{objects} objects; at most {MAX_OBJECTS}"),
        ));
    }
    Ok(found)
}
