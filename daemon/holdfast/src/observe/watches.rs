//! The watches: one for each kind of object that is looked after, of metadata alone, and of our own objects alone.
//!
//! In: the kinds. Out: what happens to their objects. It guarantees that a broken watch begins again by itself, paced, with a list of what
//! is there.

use crate::kubernetes::{Cluster, KubernetesError};
use futures::{
    StreamExt as _,
    stream::{AbortHandle, BoxStream, SelectAll, abortable},
};
use holdfast_core::object::{MANAGED_BY_LABEL, MANAGER};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use std::collections::{BTreeMap, BTreeSet};

/// Objects in one answer of the first list; more would be memory for a moment that comes with every start.
const PAGE: u32 = 50;

/// A kind as manifests name it: `apiVersion` and `kind`.
pub(super) type KindName = (String, String);

/// What happened to objects of one kind.
#[derive(Debug)]
pub(super) enum Seen {
    /// A list of all objects begins.
    ListBegins,
    /// One of them.
    Listed(Box<ObjectMeta>),
    /// The list is whole.
    ListEnds,
    /// An object was made or changed.
    Changed(Box<ObjectMeta>),
    /// An object is gone.
    Gone(Box<ObjectMeta>),
    /// The watch broke; it begins again.
    Broken(String),
}

/// All watches.
#[derive(Default)]
pub(super) struct Watches {
    streams: SelectAll<BoxStream<'static, (KindName, Seen)>>,
    handles: BTreeMap<KindName, AbortHandle>,
}

impl Watches {
    /// Watches these kinds and no others; those already watched go on. Answers with the kinds that cannot be watched now.
    pub(super) async fn set(
        &mut self,
        cluster: &Cluster,
        kinds: &BTreeSet<KindName>,
    ) -> Vec<(KindName, KubernetesError)> {
        self.handles.retain(|kind, handle| {
            let wanted = kinds.contains(kind);
            if !wanted {
                handle.abort();
            }
            wanted
        });
        let mut failed = Vec::new();
        for kind in kinds {
            if self.handles.contains_key(kind) {
                continue;
            }
            match cluster.kind(&kind.0, &kind.1).await {
                Ok(served) => self.add(kind.clone(), cluster.metadata_api(&served)),
                Err(error) => failed.push((kind.clone(), error)),
            }
        }
        failed
    }

    fn add(
        &mut self,
        kind: KindName,
        api: kube::Api<kube::core::PartialObjectMeta<kube::core::DynamicObject>>,
    ) {
        let config = watcher::Config::default()
            .labels(&format!("{MANAGED_BY_LABEL}={MANAGER}"))
            .page_size(PAGE);
        let name = kind.clone();
        let stream = watcher(api, config).default_backoff().map(move |event| {
            let seen = match event {
                Ok(watcher::Event::Init) => Seen::ListBegins,
                Ok(watcher::Event::InitApply(object)) => Seen::Listed(Box::new(object.metadata)),
                Ok(watcher::Event::InitDone) => Seen::ListEnds,
                Ok(watcher::Event::Apply(object)) => Seen::Changed(Box::new(object.metadata)),
                Ok(watcher::Event::Delete(object)) => Seen::Gone(Box::new(object.metadata)),
                Err(error) => Seen::Broken(error.to_string()),
            };
            (name.clone(), seen)
        });
        let (stream, handle) = abortable(stream);
        self.streams.push(stream.boxed());
        self.handles.insert(kind, handle);
    }

    /// Ends all of them.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The next thing that happens; waits for ever where nothing is watched. Cancel safe.
    pub(super) async fn next(&mut self) -> (KindName, Seen) {
        match self.streams.next().await {
            Some(seen) => seen,
            None => std::future::pending().await,
        }
    }
}
