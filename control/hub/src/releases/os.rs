//! Images of the operating system in a release: their manifests are read here, for what they name must be there for the nodes too.
//!
//! In: the content of a new release. Out: by manifest, the pack that it names. Guarantees: a node that gets the release finds the manifest of its
//! architecture, of the version that the release says, and its pack. Who signed it is for the node to judge.

use super::invalid;
use crate::{api::ApiError, blobs::BlobFiles, hub::Hub};
use holdfast_os::{MAX_MANIFEST_BYTES, Manifest};
use holdfast_protocol::{Digest, document::Artifact, operator::ReleaseContent};
use holdfast_release::os;
use std::collections::BTreeMap;

/// The packs of the images that a release names, by manifest.
pub(super) async fn packs(hub: &Hub, content: &ReleaseContent) -> Result<BTreeMap<Digest, Digest>, ApiError> {
    let mut packs = BTreeMap::new();
    let Some(section) = &content.os else {
        return Ok(packs);
    };
    for (architecture, artifact) in &section.images {
        let place = format!("os.images.{architecture}");
        let manifest = read(hub, &place, artifact).await?;
        // What is filled in for each node is held against the manifest by the node.
        let version = if section.version.contains("${") {
            &manifest.version
        } else {
            &section.version
        };
        os::fits(&manifest, version, architecture).map_err(|reason| invalid(&place, &reason))?;
        let pack = &manifest.pack;
        match hub.blob_size(&pack.digest).await? {
            Some(size) if size == pack.size => {}
            Some(size) => {
                return Err(invalid(
                    &place,
                    &format!("its pack has {size} bytes, and the manifest says {}", pack.size),
                ));
            }
            None if pack.sources.is_empty() => {
                return Err(invalid(
                    &place,
                    &format!(
                        "its pack {} is not at the hub; send it with the manifest: holdfastctl os push",
                        pack.digest
                    ),
                ));
            }
            // It can be had elsewhere.
            None => {}
        }
        packs.insert(artifact.digest, pack.digest);
    }
    Ok(packs)
}

/// Reads a manifest that was uploaded.
async fn read(hub: &Hub, place: &str, artifact: &Artifact) -> Result<Manifest, ApiError> {
    let digest = &artifact.digest;
    match hub.blob_size(digest).await? {
        None => {
            return Err(invalid(
                &format!("{place}.digest"),
                &format!("there is no manifest {digest} at the hub; send it first: holdfastctl os push"),
            ));
        }
        Some(size) if size != artifact.size => {
            return Err(invalid(
                &format!("{place}.size"),
                &format!("{} bytes; the manifest at the hub has {size}", artifact.size),
            ));
        }
        Some(size) if size > MAX_MANIFEST_BYTES as u64 => {
            return Err(invalid(
                place,
                &format!("{size} bytes; a manifest has at most {MAX_MANIFEST_BYTES}"),
            ));
        }
        Some(_) => {}
    }
    let bytes = BlobFiles::new(&hub.config.data_dir)
        .read(digest)
        .await
        .map_err(|error| ApiError::internal(&error))?;
    os::peek(&bytes).map_err(|error| invalid(place, &error.to_string()))
}
