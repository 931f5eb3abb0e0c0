//! Releases: what is checked when one is made, and how one becomes the signed document of a node.
//!
//! Guarantees: a release that was taken can be given to every node; a node whose document would say the same again gets no new one.

use crate::{
    api::ApiError,
    authority::Authority,
    blobs::BlobFiles,
    codes as hub_codes,
    config::nearest,
    database::{self, Write, documents, nodes},
    hub::Hub,
};
use holdfast_protocol::{
    Digest, Generation, MAX_ENVELOPE_BYTES, NodeId, Problem, SchemaVersion,
    document::{DesiredState, MAX_OBJECTS, ManifestSource, ReleaseRef, check_object},
    envelope::DESIRED_STATE_TYPE,
    operator::{ReleaseContent, ReleaseInfo},
};
use http::StatusCode;
use serde_json::{Map, Value};

/// Checks everything about a release that would make a node refuse it.
pub async fn check(hub: &Hub, name: &str, content: &ReleaseContent) -> Result<(), ApiError> {
    refuse_unknown_keys(content)?;
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
    let document = document(&node, widest, name, digest, content);
    document
        .validate()
        .map_err(|error| invalid(&error.place, &error.reason))?;
    let bytes = sign(&hub.authority, &document)
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
    check_blobs(hub, content).await
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
        refuse("k3s", &k3s.extra, &["version", "config"])?;
    }
    refuse(
        "policy",
        &content.policy.extra,
        &["drift", "prune", "readyDeadlineSeconds"],
    )?;
    for (index, app) in content.apps.iter().enumerate() {
        refuse(
            &format!("apps[{index}]"),
            &app.extra,
            &["name", "namespace", "manifests"],
        )?;
    }
    Ok(())
}

async fn check_blobs(hub: &Hub, content: &ReleaseContent) -> Result<(), ApiError> {
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
            match database::blobs::size(hub.database.read(), &blob.digest).await? {
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
            let values: Vec<Value> = serde_json::from_slice(&bytes).map_err(|error| {
                invalid(
                    &place,
                    &format!("its content is not a JSON array of objects: {error}"),
                )
            })?;
            for (position, value) in values.iter().enumerate() {
                check_object(value).map_err(|reason| invalid(&format!("{place}[{position}]"), &reason))?;
            }
            objects += values.len();
        }
    }
    if objects > MAX_OBJECTS {
        return Err(invalid(
            "apps",
            &format!("{objects} objects; at most {MAX_OBJECTS}"),
        ));
    }
    Ok(())
}

fn document(
    node: &NodeId,
    generation: Generation,
    name: &str,
    digest: Digest,
    content: &ReleaseContent,
) -> DesiredState {
    DesiredState {
        schema: SchemaVersion::CURRENT,
        node: node.clone(),
        generation,
        issued_at: database::now(),
        release: Some(ReleaseRef {
            name: name.to_owned(),
            digest,
        }),
        k3s: content.k3s.clone(),
        apps: content.apps.clone(),
        policy: content.policy.clone(),
        extra: Map::new(),
    }
}

/// The signed envelope of a document, in JSON.
pub fn sign(authority: &Authority, document: &DesiredState) -> anyhow::Result<String> {
    let envelope = authority.sign_document(DESIRED_STATE_TYPE, serde_json::to_vec(document)?);
    Ok(String::from_utf8(envelope.to_json())?)
}

/// The blobs that a document names.
pub fn blobs(document: &DesiredState) -> Vec<Digest> {
    let sources = document.apps.iter().flat_map(|app| &app.manifests);
    sources
        .filter_map(|source| match source {
            ManifestSource::Blob(blob) => Some(blob.digest),
            ManifestSource::Inline(_) => None,
        })
        .collect()
}

/// Gives a release to a node within a transaction, and says which generation the node runs then.
///
/// Where the node's newest document says the same already, there is no new one: nothing is touched on the box.
pub async fn assign(
    hub: &Hub,
    tx: &mut Write,
    node: &NodeId,
    release: &ReleaseInfo,
    content: &ReleaseContent,
) -> Result<Generation, ApiError> {
    nodes::set_release(tx, node, &release.name).await?;
    if let Some(current) = documents::current(tx, node).await?
        && current.content_digest == release.digest
    {
        return Ok(current.generation);
    }
    let generation = documents::next_generation(tx, node).await?;
    let document = document(node, generation, &release.name, release.digest, content);
    let envelope = sign(&hub.authority, &document).map_err(|error| ApiError::internal(&error))?;
    let current = documents::Current {
        generation,
        content_digest: release.digest,
    };
    documents::store(
        tx,
        node,
        &current,
        &envelope,
        &blobs(&document),
        document.issued_at,
    )
    .await?;
    Ok(generation)
}
