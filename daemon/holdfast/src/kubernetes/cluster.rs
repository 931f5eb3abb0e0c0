//! A Kubernetes that answers: every request that the node makes of it.
//!
//! In: object keys and prepared objects. Out: metadata, objects as JSON, or a [`KubernetesError`]. It guarantees that each request has a
//! time limit, that a request which gets no answer raises doubt about Kubernetes as a whole, that one which comes at a bad time ("too many
//! requests") is sent again when the API server says, and that answers are kept small: writes are answered by metadata alone, lists come in
//! pages.

pub use super::metadata::ObjectVersion;
use super::{
    KubernetesError,
    answers::{found, refusal, unusable, wait_before_next},
    discovery::{Discovery, ServedKind},
    error::from_kube,
    load::Load,
    metadata::{Described, Page},
};
use crate::quiet;
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use holdfast_core::object::{MANAGED_BY_LABEL, MANAGER, ObjectKey, PreparedObject};
use http::{HeaderMap, Method, Request, StatusCode, header};
use kube::{
    Api, Client, Resource as _,
    client::Body,
    core::{DynamicObject, WatchEvent},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Write as _, future::Future, sync::Arc, time::Duration};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

/// Asks for the metadata of an object alone; see "Metadata-only fetches" of the Kubernetes API concepts.
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
/// Asks for a list of the metadata of objects.
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
/// For how long one watch request goes on before the API server ends it in good order, in seconds; it begins again where it ended.
const WATCH_SECONDS: u64 = 290;
/// Tries of a request that comes at a bad time; after them it is a failure like any other.
const TRIES: u32 = 8;
/// Media type of server-side apply. JSON is YAML.
const APPLY: &str = "application/apply-patch+yaml";
/// Objects of one page where whole ones are asked for.
const PAGE: u32 = 50;
/// Pods looked at for the cause of one workload's trouble.
const MOST_PODS: usize = 20;

/// Whether a write is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is.
    Real,
    /// The API server does everything but keep it.
    DryRun,
}

/// How much of each object a list gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// All of it.
    Whole,
    /// Metadata.
    Metadata,
}

/// A Kubernetes that answered at least once.
pub struct Cluster {
    client: Client,
    discovery: Discovery,
    request_timeout: Duration,
    doubt: Arc<Notify>,
    load: Load,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

impl Cluster {
    /// Wraps a client; `doubt` is told when a request gets no answer.
    pub fn new(client: Client, request_timeout: Duration, doubt: Arc<Notify>) -> Self {
        Self {
            client,
            discovery: Discovery::default(),
            request_timeout,
            doubt,
            load: Load::default(),
        }
    }

    /// How many requests at once it bears.
    pub const fn load(&self) -> &Load {
        &self.load
    }

    /// Whether the API server says that it is ready.
    pub async fn ready(&self) -> Result<(), KubernetesError> {
        let what = "/readyz";
        let request = Request::get(what).body(Vec::new());
        let request = request.map_err(|error| unusable(what, &error))?;
        self.limited(what, self.client.request_text(request))
            .await
            .map(drop)
    }

    /// Version of the API server.
    pub async fn version(&self) -> Result<String, KubernetesError> {
        let answer = self.limited("/version", self.client.apiserver_version()).await?;
        Ok(answer.git_version)
    }

    /// The kind of an object, as served.
    pub async fn kind(&self, api_version: &str, kind: &str) -> Result<ServedKind, KubernetesError> {
        let find = self.discovery.find(&self.client, api_version, kind);
        let found = tokio::time::timeout(self.request_timeout, find).await;
        found.unwrap_or_else(|_| Err(self.no_answer(&format!("the kinds of {api_version}"))))
    }

    /// Forgets what was known of one kind: nothing was found where it was.
    pub fn forget_kind(&self, api_version: &str, kind: &str) {
        self.discovery.forget(api_version, kind);
    }

    /// Forgets what was known of kinds: a definition came or went.
    pub fn forget_kinds(&self) {
        self.discovery.clear();
    }

    /// Writes an object by server-side apply; fields that others own are taken over.
    pub async fn apply(&self, object: &PreparedObject, mode: Mode) -> Result<ObjectVersion, KubernetesError> {
        let key = &object.key;
        let dry = if mode == Mode::DryRun { "&dryRun=All" } else { "" };
        let query = format!("?fieldManager={MANAGER}&force=true{dry}");
        let send = async || {
            let request = Request::builder()
                .method(Method::PATCH)
                .uri(self.path(key).await? + &query)
                .header(header::CONTENT_TYPE, APPLY)
                .header(header::ACCEPT, METADATA_ONLY);
            self.send::<Described>(key, request, object.json.clone().into_bytes())
                .await
        };
        let answer = match send().await {
            // The kind's path may be an old one, from before its definition was replaced.
            Err(error) if error.is_not_found() => {
                self.discovery.forget(&key.api_version, &key.kind);
                send().await
            }
            other => other,
        };
        Ok(answer?.metadata.version)
    }

    /// Where an object is in time; none where it is not there.
    pub async fn version_of(&self, key: &ObjectKey) -> Result<Option<ObjectVersion>, KubernetesError> {
        let Some(path) = found(self.path(key).await)? else {
            return Ok(None);
        };
        let request = Request::get(path).header(header::ACCEPT, METADATA_ONLY);
        let answer = self.send::<Described>(key, request, Vec::new()).await;
        found(answer.map(|object| object.metadata.version))
    }

    /// The whole object; none where it is not there.
    pub async fn get(&self, key: &ObjectKey) -> Result<Option<Value>, KubernetesError> {
        let Some(path) = found(self.path(key).await)? else {
            return Ok(None);
        };
        found(self.send(key, Request::get(path), Vec::new()).await)
    }

    /// Deletes an object; what belongs to it is deleted in the background. One that is not there is no error.
    pub async fn delete(&self, key: &ObjectKey) -> Result<(), KubernetesError> {
        // An object of a kind that nobody serves is not there: a release that misspelt a kind must not be in the way of the next one.
        let Some(path) = found(self.path(key).await)? else {
            return Ok(());
        };
        let request =
            Request::delete(path + "?propagationPolicy=Background").header(header::ACCEPT, METADATA_ONLY);
        found(self.send::<Value>(key, request, Vec::new()).await).map(drop)
    }

    /// Some pods of a workload, by the labels that its selector demands.
    pub async fn pods(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<Value>, KubernetesError> {
        let what = format!("the pods in {namespace}");
        let selector: Vec<_> = labels
            .iter()
            .map(|(name, value)| format!("{}%3D{}", escaped(name), escaped(value)))
            .collect();
        let path = format!(
            "/api/v1/namespaces/{namespace}/pods?limit={MOST_PODS}&labelSelector={}",
            selector.join("%2C")
        );
        let answer: Page<Value> = self.send_to(&what, Request::get(path), Vec::new()).await?;
        Ok(answer.items)
    }

    /// Sends a request that asks for no object, and gives the head of the answer, whatever its status; the body is not read.
    pub async fn raw(
        &self,
        what: &str,
        request: http::request::Builder,
    ) -> Result<http::Response<Body>, KubernetesError> {
        let request = request
            .body(Body::empty())
            .map_err(|error| unusable(what, &error))?;
        self.limited(what, self.client.send(request)).await
    }

    /// Shows each object of a collection to `see`, page after page, whoever it belongs to; `path` is that of the collection.
    pub async fn all<T: DeserializeOwned>(
        &self,
        path: &str,
        mut see: impl FnMut(T),
    ) -> Result<(), KubernetesError> {
        let mut next = String::new();
        loop {
            let page = format!("{path}?limit={PAGE}&continue={}", escaped(&next));
            let answer: Page<T> = self.send_to(path, Request::get(page), Vec::new()).await?;
            answer.items.into_iter().for_each(&mut see);
            next = answer.metadata.next;
            if next.is_empty() {
                return Ok(());
            }
        }
    }

    /// A page of our own objects of a kind, whole or their metadata alone ([`Described`]); `next` is what the page before said.
    pub async fn list<T: DeserializeOwned>(
        &self,
        kind: &ServedKind,
        view: View,
        limit: u32,
        next: &str,
    ) -> Result<Page<T>, KubernetesError> {
        let what = format!("the list of {}", kind.resource.plural);
        let mut path = ours(kind) + &format!("&limit={limit}");
        if !next.is_empty() {
            let _ = write!(path, "&continue={}", escaped(next));
        }
        let request = Request::get(path);
        let request = match view {
            View::Whole => request,
            View::Metadata => request.header(header::ACCEPT, METADATA_LIST),
        };
        self.send_to(&what, request, Vec::new()).await
    }

    /// What happens to the metadata of our own objects of a kind after `version`, until the API server ends the request in good order.
    pub async fn watch(
        &self,
        kind: &ServedKind,
        version: &str,
    ) -> Result<
        impl Stream<Item = Result<WatchEvent<Described>, KubernetesError>> + Send + use<>,
        KubernetesError,
    > {
        let what = format!("the watch of {}", kind.resource.plural);
        let request = Request::get(watching(&ours(kind), version)).header(header::ACCEPT, METADATA_ONLY);
        self.events(what, request).await
    }

    /// The object of a collection with this name, where there is one, and from where a watch of it goes on.
    pub(super) async fn named<T: DeserializeOwned>(
        &self,
        collection: &str,
        name: &str,
    ) -> Result<(String, Option<T>), KubernetesError> {
        let request = Request::get(only(collection, name));
        let mut page: Page<T> = self.send_to(collection, request, Vec::new()).await?;
        Ok((page.metadata.resource_version, page.items.pop()))
    }

    /// What happens after `version` to the object with this name, as for [`Self::watch`].
    pub(super) async fn watch_named<T: Clone + DeserializeOwned + Send + 'static>(
        &self,
        collection: &str,
        name: &str,
        version: &str,
    ) -> Result<impl Stream<Item = Result<WatchEvent<T>, KubernetesError>> + Send + use<T>, KubernetesError>
    {
        let request = Request::get(watching(&only(collection, name), version));
        self.events(format!("the watch of {name}"), request).await
    }

    async fn events<T: Clone + DeserializeOwned + Send + 'static>(
        &self,
        what: String,
        request: http::request::Builder,
    ) -> Result<impl Stream<Item = Result<WatchEvent<T>, KubernetesError>> + Send + use<T>, KubernetesError>
    {
        let request = request
            .body(Vec::new())
            .map_err(|error| unusable(&what, &error))?;
        let events = self
            .limited(&what, self.client.request_events::<T>(request))
            .await?;
        Ok(events.map(move |event| event.map_err(|error| from_kube(error, &what))))
    }

    /// All objects of a kind.
    pub fn object_api(&self, kind: &ServedKind) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &kind.resource)
    }

    /// Someone found that Kubernetes does not answer as it should; it is asked whether it is ready.
    pub fn raise_doubt(&self) {
        self.doubt.notify_one();
    }

    async fn path(&self, key: &ObjectKey) -> Result<String, KubernetesError> {
        let kind = self.kind(&key.api_version, &key.kind).await?;
        let namespace = if kind.namespaced {
            Some(key.namespace.as_deref().unwrap_or("default"))
        } else {
            None
        };
        let collection = DynamicObject::url_path(&kind.resource, namespace);
        Ok(format!("{collection}/{}", key.name))
    }

    async fn send<T: DeserializeOwned>(
        &self,
        key: &ObjectKey,
        request: http::request::Builder,
        body: Vec<u8>,
    ) -> Result<T, KubernetesError> {
        self.send_to(&key.to_string(), request, body).await
    }

    async fn send_to<T: DeserializeOwned>(
        &self,
        what: &str,
        request: http::request::Builder,
        body: Vec<u8>,
    ) -> Result<T, KubernetesError> {
        let request = request.body(body).map_err(|error| unusable(what, &error))?;
        let (parts, body) = request.into_parts();
        let body = Bytes::from(body);
        for attempt in 1.. {
            let request = Request::from_parts(parts.clone(), Body::from(body.clone()));
            let begun = Instant::now();
            let (status, headers, answer) = self.limited(what, self.exchange(request)).await?;
            let wait = wait_before_next(status, &headers);
            if let Some(wait) = wait.filter(|_| attempt < TRIES) {
                self.load.refused();
                tracing::debug!(
                    what,
                    seconds = wait.as_secs_f64(),
                    "the API server has too much to do"
                );
                sleep(wait).await;
                continue;
            }
            self.load.answered(begun.elapsed());
            if !status.is_success() {
                return Err(refusal(what, status, &answer));
            }
            return serde_json::from_slice(&answer).map_err(|error| KubernetesError::Unreachable {
                what: what.to_owned(),
                reason: format!("its answer makes no sense: {error}"),
            });
        }
        Err(self.no_answer(what))
    }

    async fn exchange(&self, request: Request<Body>) -> kube::Result<(StatusCode, HeaderMap, Bytes)> {
        let (parts, body) = self.client.send(request).await?.into_parts();
        Ok((parts.status, parts.headers, body.collect_bytes().await?))
    }

    async fn limited<T>(
        &self,
        what: &str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, KubernetesError> {
        quiet::stir();
        match tokio::time::timeout(self.request_timeout, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let error = from_kube(error, what);
                if error.is_unreachable() {
                    self.raise_doubt();
                }
                Err(error)
            }
            Err(_) => Err(self.no_answer(what)),
        }
    }

    fn no_answer(&self, what: &str) -> KubernetesError {
        self.raise_doubt();
        KubernetesError::Unreachable {
            what: what.to_owned(),
            reason: format!("no answer within {} s", self.request_timeout.as_secs()),
        }
    }
}

/// Path of all our own objects of a kind, in all namespaces.
fn ours(kind: &ServedKind) -> String {
    format!(
        "{}?labelSelector={}%3D{MANAGER}",
        DynamicObject::url_path(&kind.resource, None),
        escaped(MANAGED_BY_LABEL)
    )
}

/// Query for the one object of a collection with this name.
fn only(collection: &str, name: &str) -> String {
    format!("{collection}?fieldSelector=metadata.name%3D{}", escaped(name))
}

/// The same query as a watch of what happens after `version`.
fn watching(query: &str, version: &str) -> String {
    format!(
        "{query}&watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={}",
        escaped(version)
    )
}

/// Text as a value of a query.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}
