//! The keeper: one look at what is needed and what is there, and what follows from it.

use super::{
    Needs,
    ctr::{Ctr, CtrError, OURS, PINNED},
    first_start,
};
use crate::{
    codes,
    identity::Identity,
    kubernetes::KubernetesState,
    pace::Pace,
    report::{Progress, Recorder},
    settings::Settings,
};
use holdfast_core::{codes as core_codes, failure::Failure};
use holdfast_protocol::{
    Digest, Problem,
    report::{AppStatus, Phase},
};
use holdfast_store::{Blobs, Store, fs};
use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::{Mutex, watch};

/// Finder of the keeper's condition.
const FINDER: &str = "images";
/// Waits before a failed look is repeated.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(10));

/// What a look did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Archives that were imported.
    pub imported: usize,
    /// Images that are pinned now and were not.
    pub pinned: usize,
    /// Images that are not pinned any more.
    pub unpinned: usize,
}

/// Keeps the images. Clones are the same keeper.
#[derive(Clone)]
pub struct Keeper {
    inner: Arc<Inner>,
}

struct Inner {
    ctr: Ctr,
    data_dir: PathBuf,
    supervise: bool,
    store: Arc<Store>,
    blobs: Blobs,
    identity: watch::Receiver<Arc<Identity>>,
    /// Directory of what each archive holds: a file by digest, a JSON list of names.
    contents: PathBuf,
    /// One look at a time.
    looking: Mutex<()>,
}

impl Keeper {
    /// Keeps the images of the documents of `store`.
    pub fn new(
        settings: &Settings,
        store: Arc<Store>,
        blobs: Blobs,
        identity: watch::Receiver<Arc<Identity>>,
    ) -> Self {
        let command = if settings.images.ctr.is_empty() {
            vec![settings.kubernetes.binary.clone(), "ctr".into()]
        } else {
            settings.images.ctr.clone()
        };
        let ctr = Ctr {
            command,
            socket: settings.images.containerd.clone(),
        };
        Self {
            inner: Arc::new(Inner {
                ctr,
                data_dir: settings.kubernetes.data_dir.clone(),
                supervise: settings.kubernetes.supervise,
                store,
                blobs,
                identity,
                contents: settings.state_dir.join("images"),
                looking: Mutex::new(()),
            }),
        }
    }

    /// Has the images of all documents that matter in containerd, pinned. Where there is no containerd yet, k3s is given them for its first
    /// start.
    pub async fn settle(&self) -> Result<Kept, Failure> {
        let _one = self.inner.looking.lock().await;
        let inner = self.inner.clone();
        let needs = tokio::task::spawn_blocking(move || {
            let identity = inner.identity.borrow().clone();
            Needs::of(&inner.store, &inner.blobs, &identity)
        })
        .await
        .map_err(|error| failure(codes::IMAGES_UNKEPT, &error.to_string()))?
        .map_err(|error| Failure::of_document(error.problem(), true))?;
        if !self.inner.ctr.is_there().await {
            if self.inner.supervise {
                let archives: Vec<_> = needs.archives.keys().copied().collect();
                first_start::place(&self.inner.data_dir, &self.inner.blobs, &archives)
                    .map_err(|error| Failure::of_document(error.problem(), true))?;
            }
            return Ok(Kept::default());
        }
        let kept = self.keep(&needs).await?;
        first_start::clear(&self.inner.data_dir)
            .map_err(|error| Failure::of_document(error.problem(), true))?;
        if kept != Kept::default() {
            tracing::info!(
                imported = kept.imported,
                pinned = kept.pinned,
                unpinned = kept.unpinned,
                "images are as the documents need them"
            );
        }
        Ok(kept)
    }

    async fn keep(&self, needs: &Needs) -> Result<Kept, Failure> {
        let ctr = &self.inner.ctr;
        let mut kept = Kept::default();
        let mut present = ctr.names(None).await.map_err(|error| of_ctr(&error))?;
        let mut wanted = BTreeSet::new();
        for artifact in needs.archives.values() {
            let mut names = self.contents(artifact.digest);
            if !names.as_ref().is_some_and(|names| names.is_subset(&present)) {
                names = Some(self.import(artifact.digest, &artifact.name).await?);
                kept.imported += 1;
                present = ctr.names(None).await.map_err(|error| of_ctr(&error))?;
            }
            wanted.extend(names.unwrap_or_default());
        }
        self.forget_contents(needs);
        let pinned = ctr.names(Some(PINNED)).await.map_err(|error| of_ctr(&error))?;
        let ours = ctr.names(Some(OURS)).await.map_err(|error| of_ctr(&error))?;
        // What somebody else pinned, as containerd does with the sandbox's image, stays theirs.
        let named = needs.references.iter().filter(|name| present.contains(*name));
        let named: BTreeSet<_> = named
            .filter(|name| !pinned.contains(*name) || ours.contains(*name))
            .cloned()
            .collect();
        wanted.extend(named);
        let is_pinned = |name: &String| pinned.contains(name) && ours.contains(name);
        let to_pin: BTreeSet<_> = wanted
            .iter()
            .filter(|name| present.contains(*name) && !is_pinned(name))
            .cloned()
            .collect();
        let to_unpin: BTreeSet<_> = ours.difference(&wanted).cloned().collect();
        ctr.label(&to_pin, true).await.map_err(|error| of_ctr(&error))?;
        ctr.label(&to_unpin, false)
            .await
            .map_err(|error| of_ctr(&error))?;
        kept.pinned = to_pin.len();
        kept.unpinned = to_unpin.len();
        Ok(kept)
    }

    async fn import(&self, digest: Digest, title: &str) -> Result<BTreeSet<String>, Failure> {
        let blobs = self.inner.blobs.clone();
        let file = tokio::task::spawn_blocking(move || blobs.open_verified(digest))
            .await
            .map_err(|error| failure(codes::IMAGES_UNKEPT, &error.to_string()))?
            .map_err(|error| Failure::of_document(error.problem(), true))?;
        tracing::info!(archive = title, %digest, "importing images");
        let names = self.inner.ctr.import(file).await.map_err(|error| match error {
            // The content is what the document names, so it is wrong for good.
            CtrError::Archive(_) => Failure::of_document(
                Problem::new(
                    codes::IMAGE_ARCHIVE_INVALID,
                    format!("{title} ({digest}): {error}"),
                    "make the archive with docker save or ctr images export, plain or with gzip or zstd, and publish it anew",
                ),
                false,
            ),
            error => of_ctr(&error),
        })?;
        if names.is_empty() {
            tracing::warn!(archive = title, %digest, "the archive names no image; nothing of it can be pinned");
        }
        let file = self.inner.contents.join(digest.hex());
        let text = serde_json::to_vec(&names).unwrap_or_default();
        fs::create_private_directory(&self.inner.contents)
            .and_then(|()| fs::write_atomic(&file, &text, fs::PRIVATE_FILE))
            .map_err(|error| Failure::of_document(error.problem(), true))?;
        Ok(names)
    }

    /// What an archive holds, where it was imported before.
    fn contents(&self, digest: Digest) -> Option<BTreeSet<String>> {
        let text = std::fs::read(self.inner.contents.join(digest.hex())).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Forgets what archives hold that nothing needs.
    fn forget_contents(&self, needs: &Needs) {
        let Ok(entries) = std::fs::read_dir(&self.inner.contents) else {
            return;
        };
        let known: BTreeSet<_> = needs.archives.keys().map(Digest::hex).collect();
        for entry in entries.flatten() {
            if entry
                .file_name()
                .to_str()
                .is_some_and(|name| !known.contains(name))
                && let Err(error) = fs::remove(&entry.path())
            {
                tracing::debug!(%error, "a list of images stays behind");
            }
        }
    }

    /// Looks whenever something happened that images depend on.
    pub async fn run(self, looks: Looks, recorder: Recorder) {
        let Looks {
            mut progress,
            mut kubernetes,
            mut apps,
        } = looks;
        let mut pace = Pace::new(RETRY.0, RETRY.1);
        let mut seen = Seen::default();
        loop {
            let again = match self.settle().await {
                Ok(_) => {
                    recorder.conditions.clear(FINDER);
                    pace.reset();
                    None
                }
                Err(failure) => {
                    tracing::warn!(problem = %failure.problem, "images are not as the documents need them");
                    recorder
                        .conditions
                        .set(FINDER, failure.problem, recorder.floor.now());
                    Some(pace.next_wait())
                }
            };
            let retry = async {
                match again {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::pin!(retry);
            loop {
                let due = tokio::select! {
                    () = &mut retry => true,
                    changed = progress.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        seen.progress(&progress.borrow_and_update())
                    }
                    changed = kubernetes.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        seen.kubernetes(&kubernetes.borrow_and_update())
                    }
                    changed = apps.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        seen.apps(&apps.borrow_and_update())
                    }
                };
                if due {
                    break;
                }
            }
        }
    }
}

/// What images depend on.
pub struct Looks {
    /// How far documents are.
    pub progress: watch::Receiver<Progress>,
    /// Kubernetes, and containerd with it.
    pub kubernetes: watch::Receiver<KubernetesState>,
    /// State of each app.
    pub apps: watch::Receiver<Vec<AppStatus>>,
}

/// What was seen last of the things that images depend on.
#[derive(Default)]
struct Seen {
    phase: Option<(Option<holdfast_protocol::Generation>, Phase)>,
    ready: bool,
    without_image: BTreeSet<String>,
}

impl Seen {
    /// The documents that matter change when one is done, and when there is a way back.
    fn progress(&mut self, progress: &Progress) -> bool {
        let generation = &progress.generation;
        let phase = Some((generation.accepted, generation.phase));
        let other = self.phase != phase;
        self.phase = phase;
        other
            && matches!(
                generation.phase,
                Phase::Committed | Phase::RolledBack | Phase::RollingBack | Phase::Failed
            )
    }

    /// A containerd that was started may have lost its state.
    fn kubernetes(&mut self, state: &KubernetesState) -> bool {
        let ready = state.cluster.is_some();
        ready && !std::mem::replace(&mut self.ready, ready)
    }

    /// An app that has no image now and had one, or did not need one, before.
    fn apps(&mut self, apps: &[AppStatus]) -> bool {
        let without: BTreeSet<_> = apps
            .iter()
            .filter(|app| {
                app.cause
                    .as_ref()
                    .is_some_and(|cause| cause.code == core_codes::IMAGE_PULL_FAILED)
            })
            .map(|app| app.name.clone())
            .collect();
        let more = !without.is_subset(&self.without_image);
        self.without_image = without;
        more
    }
}

fn failure(code: &'static str, message: &str) -> Failure {
    let problem = Problem::new(
        code,
        format!("images cannot be kept: {message}"),
        "it is tried again; look at the log of k3s and its containerd",
    );
    Failure::of_document(problem, true)
}

fn of_ctr(error: &CtrError) -> Failure {
    failure(codes::IMAGES_UNKEPT, &error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_protocol::report::{GenerationStatus, Health};

    #[test]
    fn it_looks_when_something_changed_that_images_depend_on_and_not_otherwise() {
        let mut seen = Seen::default();
        let at = |phase| Progress {
            generation: GenerationStatus {
                phase,
                ..GenerationStatus::default()
            },
            ..Progress::default()
        };
        assert!(!seen.progress(&at(Phase::Applying)));
        assert!(seen.progress(&at(Phase::Committed)));
        assert!(!seen.progress(&at(Phase::Committed)), "nothing changed");
        assert!(seen.progress(&at(Phase::RollingBack)));

        let app = |name: &str, code: Option<&'static str>| AppStatus {
            name: name.into(),
            health: Health::Degraded,
            ready: 0,
            objects: 1,
            cause: code.map(|code| Problem::new(code, "m", "a")),
        };
        assert!(!seen.apps(&[app("a", None), app("b", Some(core_codes::APPLY_FAILED))]));
        assert!(seen.apps(&[app("a", Some(core_codes::IMAGE_PULL_FAILED)), app("b", None)]));
        assert!(!seen.apps(&[app("a", Some(core_codes::IMAGE_PULL_FAILED)), app("b", None)]));
        assert!(!seen.apps(&[app("a", None)]));
        assert!(
            seen.apps(&[app("a", Some(core_codes::IMAGE_PULL_FAILED))]),
            "once more"
        );
    }
}
