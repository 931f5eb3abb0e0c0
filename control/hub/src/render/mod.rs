//! How a release becomes the signed document of a node.
//!
//! In: a release and a node. Out: the envelope that is stored and published. Guarantees: a node whose document would say the same
//! again gets no new one.

use crate::{
    api::ApiError,
    authority::Authority,
    database::{self, Write, documents, nodes},
    hub::Hub,
};
use holdfast_protocol::{
    Digest, Generation, NodeId, SchemaVersion,
    document::{DesiredState, ManifestSource, ReleaseRef},
    envelope::DESIRED_STATE_TYPE,
    operator::{ReleaseContent, ReleaseInfo},
};
use serde_json::Map;

/// The document of a node.
pub fn document(
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
