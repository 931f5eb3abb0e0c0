//! How a release becomes the signed document of a node.
//!
//! In: a release and a node. Out: the envelope that is stored and published. Guarantees: a node whose document would say the same
//! again gets no new one; a value that is missing for a node is an error here, with node and place, never on the box; a release without
//! placeholders is not rendered at all.

use crate::{
    api::ApiError,
    authority::Authority,
    blobs::BlobFiles,
    codes as hub_codes,
    database::{self, Write, documents, nodes},
    hub::Hub,
    sealing,
};
use bytes::Bytes;
use holdfast_protocol::{
    Digest, Generation, MAX_ENVELOPE_BYTES, NodeId, Problem, SchemaVersion, codes,
    document::{BlobRef, DesiredState, ManifestSource, ReleaseRef},
    envelope::DESIRED_STATE_TYPE,
    operator::{ReleaseContent, ReleaseInfo},
};
use holdfast_release::{render, variables::Scope};
use http::StatusCode;
use serde_json::{Map, Value};
use std::{borrow::Cow, collections::BTreeMap};

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
        os: content.os.clone(),
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

/// What a document names that the node may fetch from the hub: blobs of manifests, and artifacts as far as they are here.
pub fn blobs(document: &DesiredState) -> Vec<Digest> {
    let sources = document.apps.iter().flat_map(|app| &app.manifests);
    sources
        .filter_map(|source| match source {
            ManifestSource::Blob(blob) => Some(blob.digest),
            ManifestSource::Inline(_) => None,
        })
        .chain(document.artifacts().map(|artifact| artifact.digest))
        .collect()
}

/// A release that is given to nodes: what is the same for all of them is found out once.
pub struct Renderer<'a> {
    hub: &'a Hub,
    release: &'a ReleaseInfo,
    content: &'a ReleaseContent,
    /// Whether each node gets something else.
    differs: bool,
    /// Objects of the blobs that hold placeholders.
    templates: BTreeMap<Digest, Vec<Value>>,
}

impl<'a> Renderer<'a> {
    /// Prepares a release, and reads what must be filled in for each node.
    pub async fn new(hub: &'a Hub, release: &'a ReleaseInfo) -> Result<Self, ApiError> {
        let content = release
            .content
            .as_ref()
            .ok_or_else(|| ApiError::internal(&"a release has no content"))?;
        let files = BlobFiles::new(&hub.config.data_dir);
        let mut templates = BTreeMap::new();
        for digest in &content.templates {
            if hub.blob_size(digest).await?.is_none() {
                return Err(unrenderable(Problem::new(
                    codes::BLOB_UNKNOWN,
                    format!(
                        "the blob {digest}, which release {} names, is not at the hub",
                        release.name
                    ),
                    "upload it again: create the release from its sources once more",
                )));
            }
            let bytes = files
                .read(digest)
                .await
                .map_err(|error| ApiError::internal(&error))?;
            let objects = render::objects(&bytes).map_err(|error| ApiError::internal(&error))?;
            templates.insert(*digest, objects);
        }
        Ok(Self {
            hub,
            release,
            content,
            differs: render::differs(content) || sealing::differs(content),
            templates,
        })
    }

    /// Whether the release says something else for each node, and so must be rendered again when a node's labels change.
    pub const fn differs(&self) -> bool {
        self.differs
    }

    /// Gives the release to a node within a transaction, and says which generation the node runs then.
    ///
    /// Where the node's newest document says the same already, there is no new one: nothing is touched on the box.
    pub async fn assign(&self, tx: &mut Write, node: &NodeId) -> Result<Generation, ApiError> {
        nodes::set_release(tx, node, &self.release.name).await?;
        let (content, digest) = if self.differs {
            let content = self.fill_in(tx, node).await?;
            let digest = database::releases::content_digest(&content)?;
            (Cow::Owned(content), digest)
        } else {
            (Cow::Borrowed(self.content), self.release.digest)
        };
        if let Some(current) = documents::current(tx, node).await?
            && current.content_digest == digest
        {
            return Ok(current.generation);
        }
        let generation = documents::next_generation(tx, node).await?;
        let document = document(
            node,
            generation,
            &self.release.name,
            self.release.digest,
            &content,
        );
        let envelope = sign(&self.hub.authority, &document).map_err(|error| ApiError::internal(&error))?;
        if self.differs {
            check(node, &document, envelope.len())?;
        }
        let current = documents::Current {
            generation,
            content_digest: digest,
        };
        let blobs = blobs(&document);
        documents::store(tx, node, &current, &envelope, &blobs, document.issued_at).await?;
        Ok(generation)
    }

    /// The content with the values of a node; blobs that it needs are stored, equal ones of several nodes once.
    async fn fill_in(&self, tx: &mut Write, node: &NodeId) -> Result<ReleaseContent, ApiError> {
        let labels = nodes::labels(tx, node).await?.unwrap_or_default();
        let scope = Scope::of(self.content, node, &labels).map_err(unrenderable)?;
        let mut made = render::Blobs::new();
        let read = |digest: &Digest| {
            let missing = || {
                Problem::new(
                    codes::NOT_FOUND,
                    format!("there is no blob {digest} at the hub"),
                    "upload it",
                )
            };
            self.templates.get(digest).cloned().ok_or_else(missing)
        };
        let mut content = render::render(self.content, &scope, read, &mut made).map_err(unrenderable)?;
        sealing::fill(self.hub, tx, node, &mut content).await?;
        let files = BlobFiles::new(&self.hub.config.data_dir);
        for (digest, bytes) in made {
            let size = bytes.len() as u64;
            let known = database::blobs::size_for_update(tx, &digest).await?.is_some();
            if !known || !files.holds(&digest, size).await {
                let whole = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(bytes))]);
                files.store(&digest, size, whole).await?;
                let blob = BlobRef { digest, size };
                database::blobs::insert(tx, &blob, "hub", database::now()).await?;
            }
        }
        Ok(content)
    }
}

/// Renders a node's release anew where labels are part of it, after they changed; an error where the node could not be given it with them.
pub async fn again(hub: &Hub, tx: &mut Write, node: &NodeId) -> Result<(), ApiError> {
    let Some(name) = nodes::release(tx, node).await? else {
        return Ok(());
    };
    let Some(release) = database::releases::get(hub.database.read(), &name).await? else {
        return Ok(());
    };
    let renderer = Renderer::new(hub, &release).await?;
    if renderer.differs() {
        renderer.assign(tx, node).await?;
    }
    Ok(())
}

/// The release cannot be given to this node as it is.
fn unrenderable(problem: Problem) -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, problem)
}

/// Holds the document of one node against the rules, now that all values are known.
fn check(node: &NodeId, document: &DesiredState, bytes: usize) -> Result<(), ApiError> {
    let broken = document.validate().map_err(|error| error.to_string()).and_then(|()| {
        if bytes <= MAX_ENVELOPE_BYTES {
            return Ok(());
        }
        Err(format!(
            "the signed document has {bytes} bytes; at most {MAX_ENVELOPE_BYTES}: move manifests into blobs"
        ))
    });
    broken.map_err(|reason| {
        unrenderable(Problem::new(
            hub_codes::RELEASE_INVALID,
            format!("node {node}: {reason}"),
            "correct the values of this node, or the release at this place",
        ))
    })
}
