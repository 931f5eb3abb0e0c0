//! Has in the store what a document needs: blobs of manifests, k3s binaries, archives of images.
//!
//! ```text
//! the store → the image of the box → the hub → the sources that the document names, in its order
//! ```
//!
//! In: a document. Out: its content in the store, verified by SHA-256, each once and whole. It guarantees that what is here costs no network,
//! that a fetch which was cut off goes on where it stopped, from the same source or from the next, even after the process was killed;
//! that memory does not grow with what is fetched; and that a source with another content is told, remembered and passed over.

mod bandwidth;
mod http;
mod oci;
pub mod ranges;
pub mod registry;
mod source;
mod transfer;

use crate::{codes, identity::Identity, settings::Settings, telemetry::metrics::METRICS};
use bandwidth::Bandwidth;
use holdfast_core::{failure::Failure, reconcile::DocumentRef};
use holdfast_protocol::{
    Digest, Problem, codes as protocol_codes,
    document::{Artifact, ArtifactSource, BlobRef},
};
use holdfast_store::{BlobError, Blobs, StoreError};
use source::Source;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;
use transfer::{Outcome, Transfer};

/// Checks the address of a proxy, for the settings.
pub fn check_proxy(text: &str) -> Result<(), String> {
    http::Proxy::parse(text).map(|_| ())
}

/// How long a source that had another content is passed over. After that it may have been mended.
const WRONG_FOR: Duration = Duration::from_hours(1);

/// How far the fetching of a document is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchProgress {
    /// Bytes that are here, of all that was missing when the fetch began.
    pub done: u64,
    /// Bytes that were missing, and those of them that an earlier fetch had left.
    pub total: u64,
    /// What is being fetched now: its name, or its digest.
    pub name: String,
    /// Where it comes from: `the hub`, `harbor.example.com/edge/k3s`.
    pub source: String,
}

/// Content that is to be in the store.
#[derive(Clone, Debug)]
struct Item {
    digest: Digest,
    size: u64,
    name: String,
    sources: Vec<ArtifactSource>,
}

impl Item {
    fn of_artifact(artifact: &Artifact) -> Self {
        Self {
            digest: artifact.digest,
            size: artifact.size,
            name: artifact.name.clone(),
            sources: artifact.sources.clone(),
        }
    }

    fn of_blob(blob: &BlobRef) -> Self {
        Self {
            digest: blob.digest,
            size: blob.size,
            name: String::new(),
            sources: Vec::new(),
        }
    }

    fn title(&self) -> String {
        if self.name.is_empty() {
            format!("blob {}", self.digest)
        } else {
            format!("{} ({})", self.name, self.digest)
        }
    }
}

/// Fetches content. Clones share the limit, the progress and the memory of wrong sources.
#[derive(Clone)]
pub struct Fetcher {
    /// Where it goes.
    pub blobs: Blobs,
    /// The hub, and the certificate to show.
    identity: watch::Receiver<Arc<Identity>>,
    settings: Arc<Settings>,
    bandwidth: Bandwidth,
    progress: watch::Sender<FetchProgress>,
    /// Sources that had another content than they should, and when.
    wrong: Arc<Mutex<HashMap<(Digest, String), Instant>>>,
}

impl Fetcher {
    /// Fetches into `blobs`, for this identity.
    pub fn new(blobs: Blobs, identity: watch::Receiver<Arc<Identity>>, settings: Arc<Settings>) -> Self {
        Self {
            blobs,
            identity,
            bandwidth: Bandwidth::new(settings.artifacts.bandwidth.0),
            settings,
            progress: watch::Sender::new(FetchProgress::default()),
            wrong: Arc::default(),
        }
    }

    /// How far it is. Changes with each percent, and at least with each MiB.
    pub fn progress(&self) -> watch::Receiver<FetchProgress> {
        self.progress.subscribe()
    }

    /// Has all content of a document in the store. Fails with the first that cannot be had; what was fetched until then stays.
    pub async fn fetch_all(&self, document: &DocumentRef) -> Result<(), Failure> {
        let blobs = document.blobs.iter().map(Item::of_blob);
        let artifacts = document.artifacts.iter().map(Item::of_artifact);
        self.fetch_items(blobs.chain(artifacts).collect()).await
    }

    /// Has these artifacts in the store, as [`Self::fetch_all`].
    pub async fn fetch_artifacts(&self, artifacts: &[Artifact]) -> Result<(), Failure> {
        self.fetch_items(artifacts.iter().map(Item::of_artifact).collect())
            .await
    }

    async fn fetch_items(&self, items: Vec<Item>) -> Result<(), Failure> {
        let mut seen = BTreeSet::new();
        let missing: Vec<_> = items
            .into_iter()
            .filter(|item| seen.insert(item.digest) && !self.blobs.contains(item.digest, item.size))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let total = missing.iter().map(|item| item.size).sum();
        self.progress.send_replace(FetchProgress {
            total,
            ..FetchProgress::default()
        });
        let mut before = 0;
        for item in &missing {
            self.fetch(item, before)
                .await
                .inspect_err(|_| METRICS.blob_failures.add(1))?;
            before += item.size;
        }
        self.progress
            .send_modify(|progress| progress.done = progress.total);
        Ok(())
    }

    async fn fetch(&self, item: &Item, before: u64) -> Result<(), Failure> {
        if self.adopt_baked(item).await? {
            return Ok(());
        }
        let sources = self.sources(item);
        let mut transfer = Transfer::new(self, item, before);
        let mut told = self.try_all(&mut transfer, &sources).await?;
        if matches!(told, Tried::Mixed) {
            // Pieces of several sources do not fit together, and one of them is to blame: take the whole from one.
            transfer.keep_apart();
            told = self.try_all(&mut transfer, &sources).await?;
        }
        let told = match told {
            Tried::Done => return Ok(()),
            Tried::Failed(told) => told,
            Tried::Mixed => Vec::new(),
        };
        transfer.tidy();
        Err(failure(item, told))
    }

    /// One source after the other, until the content is here.
    async fn try_all(
        &self,
        transfer: &mut Transfer<'_>,
        sources: &[Result<Source, (String, String)>],
    ) -> Result<Tried, Failure> {
        let mut told = Vec::new();
        for source in sources {
            let source = match source {
                Ok(source) => source,
                Err((name, reason)) => {
                    told.push((name.clone(), Outcome::Unavailable(reason.clone())));
                    continue;
                }
            };
            let name = source.to_string();
            if self.is_wrong(transfer.digest(), &name) {
                told.push((name, Outcome::Wrong("it had another content before".into())));
                continue;
            }
            match transfer.from(source).await {
                Outcome::Done => return Ok(Tried::Done),
                Outcome::Mixed => return Ok(Tried::Mixed),
                // No other source can help with the disk.
                Outcome::Disk(error) => return Err(of_disk(&error)),
                outcome => {
                    if let Outcome::Wrong(reason) = &outcome {
                        tracing::warn!(
                            source = name,
                            reason,
                            "a source has another content than the document names"
                        );
                        self.remember_wrong(transfer.digest(), &name);
                    }
                    told.push((name, outcome));
                }
            }
        }
        Ok(Tried::Failed(told))
    }

    /// Takes the content from the image of the box, where it is there.
    async fn adopt_baked(&self, item: &Item) -> Result<bool, Failure> {
        let file = self
            .settings
            .artifacts
            .baked
            .join("sha256")
            .join(item.digest.hex());
        let (blobs, digest, size) = (self.blobs.clone(), item.digest, item.size);
        match blocking(move || blobs.adopt(digest, size, &file)).await? {
            Ok(()) => Ok(true),
            Err(BlobError::Missing { .. }) => Ok(false),
            Err(BlobError::Store(error)) => {
                tracing::warn!(%error, "an artifact of the image cannot be used; it is fetched");
                Ok(false)
            }
            Err(error) => {
                tracing::warn!(%error, "an artifact of the image is damaged; it is fetched");
                Ok(false)
            }
        }
    }

    fn is_wrong(&self, digest: Digest, source: &str) -> bool {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.retain(|_, since| since.elapsed() < WRONG_FOR);
        wrong.contains_key(&(digest, source.to_owned()))
    }

    fn remember_wrong(&self, digest: Digest, source: &str) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.insert((digest, source.to_owned()), Instant::now());
    }
}

enum Tried {
    Done,
    Mixed,
    /// What each source said.
    Failed(Vec<(String, Outcome)>),
}

/// Runs work that may wait for the disk beside everything else.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        let problem = Problem::new(
            protocol_codes::INTERNAL,
            format!("work on the store ended early: {error}"),
            "it is tried again; report this with the log of the same moment",
        );
        Failure::of_document(problem, true)
    })
}

fn of_disk(error: &StoreError) -> Failure {
    Failure::of_document(error.problem(), true)
}

/// Sums up what the sources said. Content that is wrong everywhere stays wrong; everything else may be mended.
fn failure(item: &Item, told: Vec<(String, Outcome)>) -> Failure {
    if let [(_, Outcome::Refused(problem))] = told.as_slice() {
        return Failure::of_document(problem.clone(), true);
    }
    let all_wrong = told
        .iter()
        .all(|(_, outcome)| matches!(outcome, Outcome::Wrong(_)));
    let said: Vec<_> = told
        .into_iter()
        .map(|(source, outcome)| format!("{source}: {}", outcome.reason()))
        .collect();
    let said = said.join("; ");
    let problem = if all_wrong {
        Problem::new(
            protocol_codes::BLOB_DIGEST_MISMATCH,
            format!(
                "{} has another content wherever it was found: {said}",
                item.title()
            ),
            "upload it again, or publish a release with the right digest",
        )
    } else {
        Problem::new(
            codes::BLOB_UNREACHABLE,
            format!("{} cannot be fetched: {said}", item.title()),
            "check the network between the box and these sources; the fetch goes on where it stopped",
        )
    };
    Failure::of_document(problem, !all_wrong)
}
