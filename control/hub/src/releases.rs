//! Releases: what is checked when one is made.
//!
//! In: the content of a new release. Out: nothing, or the first rule that it breaks with its place. Guarantees: a release that was
//! taken can be given to every node.

use crate::{
    api::ApiError, blobs::BlobFiles, codes as hub_codes, config::nearest, database, hub::Hub, render,
};
use holdfast_protocol::{
    Generation, MAX_ENVELOPE_BYTES, NodeId, Problem,
    document::{MAX_OBJECTS, ManifestSource, check_object},
    operator::ReleaseContent,
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
    let document = render::document(&node, widest, name, digest, content);
    document
        .validate()
        .map_err(|error| invalid(&error.place, &error.reason))?;
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
