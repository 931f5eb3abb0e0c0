//! A Kubernetes that answers: every request that the node makes of it.
//!
//! In: object keys and prepared objects. Out: metadata, objects as JSON, or a [`KubernetesError`]. It guarantees that each request has a
//! time limit, that a request which gets no answer raises doubt about Kubernetes as a whole, and that answers are kept
//! small: writes are answered by metadata alone.

use super::{
    KubernetesError,
    discovery::{Discovery, ServedKind},
    error::from_kube,
};
use holdfast_core::object::{MANAGER, ObjectKey, PreparedObject};
use http::{Method, Request, header};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, Resource as _,
    core::{DynamicObject, PartialObjectMeta},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    future::Future,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};
use tokio::sync::Notify;

/// Asks for the metadata of an object alone; see "Metadata-only fetches" of the Kubernetes API concepts.
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
/// Media type of server-side apply. JSON is YAML.
const APPLY: &str = "application/apply-patch+yaml";
/// Pods looked at for the cause of one workload's trouble.
const MOST_PODS: usize = 20;

/// What an object's metadata says of its place in time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectVersion {
    /// Identity over deletion and creation.
    pub uid: String,
    /// Rises with every change; opaque in old Kubernetes versions, a number in fact.
    pub resource_version: String,
    /// Hash of the fields that Holdfast owns in it. Whoever changes or removes one of them takes it out of this set, so the hash stays the
    /// same exactly as long as everything that Holdfast wrote is as Holdfast wrote it, whatever else happens to the object.
    pub owned: u64,
}

impl ObjectVersion {
    /// What the metadata says.
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            owned: owned(metadata),
        }
    }

    /// Whether this state of the object comes after `other`.
    pub fn is_after(&self, other: &Self) -> bool {
        match (
            self.resource_version.parse::<u64>(),
            other.resource_version.parse::<u64>(),
        ) {
            (Ok(this), Ok(other)) => this > other,
            _ => false,
        }
    }
}

fn owned(metadata: &ObjectMeta) -> u64 {
    let mut hasher = DefaultHasher::new();
    for entry in metadata.managed_fields.iter().flatten() {
        let ours = entry.manager.as_deref() == Some(MANAGER)
            && entry.operation.as_deref() == Some("Apply")
            && entry.subresource.as_deref().unwrap_or_default().is_empty();
        if let (true, Some(fields)) = (ours, &entry.fields_v1) {
            entry.api_version.hash(&mut hasher);
            fields.0.to_string().hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// Whether a write is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is.
    Real,
    /// The API server does everything but keep it.
    DryRun,
}

/// A Kubernetes that answered at least once.
pub struct Cluster {
    client: Client,
    discovery: Discovery,
    request_timeout: Duration,
    doubt: Arc<Notify>,
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
        }
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

    /// Forgets what was known of kinds: a definition came or went.
    pub fn forget_kinds(&self) {
        self.discovery.clear();
    }

    /// Writes an object by server-side apply; fields that others own are taken over.
    pub async fn apply(&self, object: &PreparedObject, mode: Mode) -> Result<ObjectMeta, KubernetesError> {
        let key = &object.key;
        let dry = if mode == Mode::DryRun { "&dryRun=All" } else { "" };
        let query = format!("?fieldManager={MANAGER}&force=true{dry}");
        let send = async || {
            let request = Request::builder()
                .method(Method::PATCH)
                .uri(self.path(key).await? + &query)
                .header(header::CONTENT_TYPE, APPLY)
                .header(header::ACCEPT, METADATA_ONLY);
            self.send::<PartialObjectMeta<DynamicObject>>(key, request, object.json.clone().into_bytes())
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
        Ok(answer?.metadata)
    }

    /// Metadata of an object; none where it is not there.
    pub async fn metadata(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, KubernetesError> {
        let Some(path) = found(self.path(key).await)? else {
            return Ok(None);
        };
        let request = Request::get(path).header(header::ACCEPT, METADATA_ONLY);
        let answer = self
            .send::<PartialObjectMeta<DynamicObject>>(key, request, Vec::new())
            .await;
        found(answer.map(|object| object.metadata))
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
            .map(|(name, value)| format!("{}%3D{value}", name.replace('/', "%2F")))
            .collect();
        let path = format!(
            "/api/v1/namespaces/{namespace}/pods?limit={MOST_PODS}&labelSelector={}",
            selector.join("%2C")
        );
        let request = Request::get(path).body(Vec::new());
        let request = request.map_err(|error| unusable(&what, &error))?;
        let mut answer: Value = self.limited(&what, self.client.request(request)).await?;
        match answer.get_mut("items").map(Value::take) {
            Some(Value::Array(pods)) => Ok(pods),
            _ => Ok(Vec::new()),
        }
    }

    /// All objects of a kind, for a watch of their metadata.
    pub fn metadata_api(&self, kind: &ServedKind) -> Api<PartialObjectMeta<DynamicObject>> {
        Api::all_with(self.client.clone(), &kind.resource)
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
        let what = key.to_string();
        let request = request.body(body).map_err(|error| unusable(&what, &error))?;
        self.limited(&what, self.client.request(request)).await
    }

    async fn limited<T>(
        &self,
        what: &str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, KubernetesError> {
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

fn found<T>(answer: Result<T, KubernetesError>) -> Result<Option<T>, KubernetesError> {
    match answer {
        Ok(object) => Ok(Some(object)),
        // A kind that is not served has no objects.
        Err(KubernetesError::KindUnknown { .. }) => Ok(None),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// A name that no path can hold: the API server would refuse it too.
fn unusable(what: &str, error: &http::Error) -> KubernetesError {
    KubernetesError::Answered {
        what: what.to_owned(),
        status: 400,
        reason: "BadRequest".into(),
        message: format!("its name cannot be part of a request: {error}"),
    }
}
