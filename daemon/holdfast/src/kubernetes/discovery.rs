//! What kinds the API server serves: asked once for each group version, remembered, asked again when something is missing.
//!
//! In: a kind as an object names it (`apiVersion`, `kind`). Out: its plural name and scope. It guarantees that a kind which
//! was just registered (by a CRD) is found, that a known kind costs no request, and that however many ask for an unknown one at the same time,
//! the API server is asked once. There is no timer: definitions that Holdfast writes, and requests that find nothing where a kind was, are
//! what makes it ask again.

use super::{KubernetesError, error::from_kube};
use kube::{Client, core::ApiResource};
use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

/// For how long a kind that is not served is taken for that without asking again: long enough for all objects of a document that name it,
/// short enough that a definition from elsewhere is not waited for.
const ABSENCE: Duration = Duration::from_secs(1);

/// A kind that the API server serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedKind {
    /// Group, version, kind and plural.
    pub resource: ApiResource,
    /// Whether its objects live in a namespace.
    pub namespaced: bool,
}

/// The kinds that are known so far.
#[derive(Debug, Default)]
pub struct Discovery {
    kinds: Mutex<HashMap<(String, String), ServedKind>>,
    /// When a group version was asked for last. Whoever asks holds the lock, and the next one looks what came of it first.
    asked: tokio::sync::Mutex<HashMap<String, Instant>>,
}

impl Discovery {
    /// The served kind, from memory or from the API server.
    ///
    /// Fails with [`KubernetesError::KindUnknown`] where the API server does not serve it (now).
    pub async fn find(
        &self,
        client: &Client,
        api_version: &str,
        kind: &str,
    ) -> Result<ServedKind, KubernetesError> {
        if let Some(known) = self.known(api_version, kind) {
            return Ok(known);
        }
        let mut asked = self.asked.lock().await;
        if let Some(known) = self.known(api_version, kind) {
            return Ok(known);
        }
        if asked.get(api_version).is_none_or(|at| at.elapsed() > ABSENCE) {
            self.ask(client, api_version).await?;
            asked.insert(api_version.to_owned(), Instant::now());
        }
        drop(asked);
        self.known(api_version, kind)
            .ok_or_else(|| KubernetesError::KindUnknown {
                api_version: api_version.to_owned(),
                kind: kind.to_owned(),
            })
    }

    /// The served kind, from memory only.
    pub fn known(&self, api_version: &str, kind: &str) -> Option<ServedKind> {
        self.locked()
            .get(&(api_version.to_owned(), kind.to_owned()))
            .cloned()
    }

    /// Forgets one kind, when a request with what was known of it found nothing there.
    pub fn forget(&self, api_version: &str, kind: &str) {
        self.locked().remove(&(api_version.to_owned(), kind.to_owned()));
        if let Ok(mut asked) = self.asked.try_lock() {
            asked.remove(api_version);
        }
    }

    /// Forgets everything: after another Kubernetes took the place of the one that was asked.
    pub fn clear(&self) {
        self.locked().clear();
        // Whoever asks right now may hear of the old state, and asks again after a second.
        if let Ok(mut asked) = self.asked.try_lock() {
            asked.clear();
        }
    }

    async fn ask(&self, client: &Client, api_version: &str) -> Result<(), KubernetesError> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let answer = if group.is_empty() {
            client.list_core_api_resources(version).await
        } else {
            client.list_api_group_resources(api_version).await
        };
        let list = match answer {
            Ok(list) => list,
            // The whole group version is not served.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(error) => return Err(from_kube(error, &format!("the kinds of {api_version}"))),
        };
        let mut kinds = self.locked();
        for served in list.resources {
            // `deployments/scale` and the like are no objects of their own.
            if served.name.contains('/') {
                continue;
            }
            let resource = ApiResource {
                group: group.to_owned(),
                version: version.to_owned(),
                api_version: api_version.to_owned(),
                kind: served.kind.clone(),
                plural: served.name,
            };
            kinds.insert(
                (api_version.to_owned(), served.kind),
                ServedKind {
                    resource,
                    namespaced: served.namespaced,
                },
            );
        }
        Ok(())
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), ServedKind>> {
        // A panic while the map is held cannot leave it half written: every change is one insert or remove.
        self.kinds
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
