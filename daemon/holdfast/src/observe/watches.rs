//! The watches: one for each kind of object that is looked after, of metadata alone, and of our own objects alone.
//!
//! In: the kinds. Out: what happens to their objects. It guarantees that a broken watch begins again by itself, paced, with a list of what
//! is there; that a list costs one request for each page and no page is in memory longer than it takes to read it; and that what is told
//! waits in a bounded queue, so that a storm of changes is the API server's to keep, not ours.

use crate::{
    kubernetes::{
        Cluster, KubernetesError,
        cluster::View,
        discovery::ServedKind,
        metadata::{Described, Metadata},
    },
    pace::Pace,
};
use futures::StreamExt as _;
use kube::core::WatchEvent;
use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::mpsc,
    task::AbortHandle,
    time::{sleep, timeout},
};
use tracing::Instrument as _;

/// Objects in one page of a list. More would be memory for a moment that comes with every start, fewer more requests.
const PAGE: u32 = 100;
/// What may wait to be taken in, of all watches together.
const WAITING: usize = 64;
/// The first pause after a watch broke, at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest one.
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// A watch that says nothing for so long is dead: the API server ends each after 290 s, and sends a bookmark every minute.
const SILENCE: Duration = Duration::from_secs(300);
/// The state from which a watch is to go on is no longer known; see "410 Gone responses" of the Kubernetes API concepts.
const GONE: u16 = 410;

/// A kind as manifests name it: `apiVersion` and `kind`.
pub(super) type KindName = (String, String);

/// What happened to objects of one kind.
#[derive(Debug)]
pub(super) enum Seen {
    /// A list of all objects begins.
    ListBegins,
    /// One of them.
    Listed(Metadata),
    /// The list is whole.
    ListEnds,
    /// An object was made or changed.
    Changed(Metadata),
    /// An object is gone.
    Gone(Metadata),
    /// The watch broke; it begins again.
    Broken(String),
}

struct Told {
    kind: Arc<KindName>,
    /// Which of the watches of this kind says it: one that was ended may have left something in the queue.
    number: u64,
    seen: Seen,
}

/// All watches.
pub(super) struct Watches {
    sender: mpsc::Sender<Told>,
    queue: mpsc::Receiver<Told>,
    running: BTreeMap<KindName, (u64, AbortHandle)>,
    started: u64,
}

impl Default for Watches {
    fn default() -> Self {
        let (sender, queue) = mpsc::channel(WAITING);
        Self {
            sender,
            queue,
            running: BTreeMap::new(),
            started: 0,
        }
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Watches {
    /// Watches these kinds and no others; those already watched go on. Answers with the kinds that cannot be watched now.
    pub(super) async fn set(
        &mut self,
        cluster: &Arc<Cluster>,
        kinds: &BTreeSet<KindName>,
    ) -> Vec<(KindName, KubernetesError)> {
        self.running.retain(|kind, (_, handle)| {
            let wanted = kinds.contains(kind);
            if !wanted {
                handle.abort();
            }
            wanted
        });
        let mut failed = Vec::new();
        for kind in kinds {
            if self.running.contains_key(kind) {
                continue;
            }
            match cluster.kind(&kind.0, &kind.1).await {
                Ok(served) => self.add(kind.clone(), served, cluster.clone()),
                Err(error) => failed.push((kind.clone(), error)),
            }
        }
        failed
    }

    fn add(&mut self, kind: KindName, served: ServedKind, cluster: Arc<Cluster>) {
        self.started += 1;
        let teller = Teller {
            kind: Arc::new(kind.clone()),
            number: self.started,
            sender: self.sender.clone(),
        };
        let task = tokio::spawn(keep(cluster, served, teller).in_current_span());
        self.running.insert(kind, (self.started, task.abort_handle()));
    }

    /// Ends those of these kinds.
    pub(super) fn end(&mut self, kinds: &BTreeSet<KindName>) {
        for kind in kinds {
            if let Some((_, handle)) = self.running.remove(kind) {
                handle.abort();
            }
        }
    }

    /// Ends all of them.
    pub(super) fn clear(&mut self) {
        for (_, handle) in std::mem::take(&mut self.running).into_values() {
            handle.abort();
        }
    }

    /// The next thing that happens; waits for ever where nothing is watched. Cancel safe.
    pub(super) async fn next(&mut self) -> (Arc<KindName>, Seen) {
        loop {
            match self.queue.recv().await {
                Some(told) if self.is_current(&told) => return (told.kind, told.seen),
                Some(_) => {}
                // Cannot happen, for a sender is kept here.
                None => std::future::pending().await,
            }
        }
    }

    /// As [`Self::next`], but only what is here already.
    pub(super) fn at_once(&mut self) -> Option<(Arc<KindName>, Seen)> {
        while let Ok(told) = self.queue.try_recv() {
            if self.is_current(&told) {
                return Some((told.kind, told.seen));
            }
        }
        None
    }

    fn is_current(&self, told: &Told) -> bool {
        self.running
            .get(&*told.kind)
            .is_some_and(|(number, _)| *number == told.number)
    }
}

/// Where one watch tells what it sees.
struct Teller {
    kind: Arc<KindName>,
    number: u64,
    sender: mpsc::Sender<Told>,
}

impl Teller {
    async fn tell(&self, seen: Seen) {
        let told = Told {
            kind: self.kind.clone(),
            number: self.number,
            seen,
        };
        // The observer outlives its watches.
        let _ = self.sender.send(told).await;
    }
}

/// Watches a kind for ever.
async fn keep(cluster: Arc<Cluster>, mut kind: ServedKind, teller: Teller) {
    let mut pace = Pace::new(FIRST_PAUSE, LAST_PAUSE);
    loop {
        let error = follow(&cluster, &kind, &teller, &mut pace).await;
        let mut is_served = true;
        if error.is_not_found() {
            // Its definition went, or was replaced by one with another path.
            let (api_version, name) = &*teller.kind;
            cluster.forget_kind(api_version, name);
            match cluster.kind(api_version, name).await {
                Ok(served) => kind = served,
                Err(_) => is_served = false,
            }
        }
        match error {
            // Not a failure: so much happened that the API server no longer knows where we were.
            KubernetesError::Answered { status: GONE, .. } if pace.attempts() == 0 => {}
            // An API server without the kind answers as it should.
            _ if !is_served => {}
            error => teller.tell(Seen::Broken(error.to_string())).await,
        }
        sleep(pace.next_wait()).await;
    }
}

/// Lists what is there and follows what becomes of it, until something goes wrong. After that nothing may be taken for known: the state may
/// have been set back to an earlier one, whose numbers come a second time.
async fn follow(cluster: &Cluster, kind: &ServedKind, teller: &Teller, pace: &mut Pace) -> KubernetesError {
    let mut version = match list(cluster, kind, teller).await {
        Ok(version) => version,
        Err(error) => return error,
    };
    pace.reset();
    loop {
        let events = match cluster.watch(kind, &version).await {
            Ok(events) => events,
            Err(error) => return error,
        };
        let mut events = pin!(events);
        loop {
            let event = match timeout(SILENCE, events.next()).await {
                Ok(Some(Ok(event))) => event,
                Ok(Some(Err(error))) => return error,
                // The end that was agreed on.
                Ok(None) => break,
                Err(_) => {
                    return KubernetesError::Unreachable {
                        what: format!("the watch of {}", kind.resource.plural),
                        reason: format!("silent for {} s", SILENCE.as_secs()),
                    };
                }
            };
            let mut step = |object: Described| {
                version = object.metadata.version.resource_version.to_string();
                object.metadata
            };
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    let metadata = step(object);
                    teller.tell(Seen::Changed(metadata)).await;
                }
                WatchEvent::Deleted(object) => {
                    let metadata = step(object);
                    teller.tell(Seen::Gone(metadata)).await;
                }
                WatchEvent::Bookmark(bookmark) => version = bookmark.metadata.resource_version,
                WatchEvent::Error(status) => {
                    return KubernetesError::Answered {
                        what: format!("the watch of {}", kind.resource.plural),
                        status: status.code,
                        message: status.message,
                        reason: status.reason,
                    };
                }
            }
        }
    }
}

/// Tells of all objects there are; answers with the version from which to follow.
async fn list(cluster: &Cluster, kind: &ServedKind, teller: &Teller) -> Result<String, KubernetesError> {
    teller.tell(Seen::ListBegins).await;
    let mut next = String::new();
    loop {
        let page = cluster
            .list::<Described>(kind, View::Metadata, PAGE, &next)
            .await?;
        for object in page.items {
            teller.tell(Seen::Listed(object.metadata)).await;
        }
        next = page.metadata.next;
        if next.is_empty() {
            teller.tell(Seen::ListEnds).await;
            return Ok(page.metadata.resource_version);
        }
    }
}
