//! A server-side dry run of what would be written: kinds, schemas, admission.
//!
//! Passed over is what cannot be judged yet: objects in a namespace or of a kind that the document itself brings, and answers that may be
//! another one once the rest of the document is there.

use super::Look;
use crate::{
    apply::bounded,
    kubernetes::{KubernetesError, cluster::Mode},
};
use holdfast_core::{
    codes as core_codes,
    failure::Failure,
    object::{ObjectKey, PreparedObject},
};
use holdfast_protocol::Problem;
use serde_json::Value;
use std::collections::HashSet;

/// Checks all objects that would be written. What is wrong with the first of them, in the order of applying, is the answer.
pub(super) async fn check(look: &Look<'_>) -> Result<(), Failure> {
    // One write alone needs no rehearsal: it is taken or refused as a whole, and the way of a small change is to stay short.
    if look.changed.len() == 1 {
        return Ok(());
    }
    let run = DryRun {
        look,
        brought: Brought::of(look),
    };
    let objects: Vec<_> = look
        .changed()
        .filter(|object| run.brought.can_judge(object))
        .enumerate()
        .collect();
    let limit = || look.cluster.load().limit(look.concurrency);
    let answers = bounded(limit, &run, &objects, |run, (place, object)| {
        Box::pin(async move {
            let failure = run.one(object).await?;
            Some((*place, failure.in_app(&object.app)))
        })
    })
    .await;
    let mut refusals: Vec<(usize, Failure)> = answers.into_iter().flatten().collect();
    // One that is certain tells more than a Kubernetes that did not answer.
    refusals.sort_by_key(|(place, failure)| (failure.retryable, *place));
    let others = refusals.len().saturating_sub(1);
    let Some((_, mut failure)) = refusals.into_iter().next() else {
        return Ok(());
    };
    if others > 0 && !failure.retryable {
        failure.problem.message = format!("{} (and {others} more)", failure.problem.message);
    }
    Err(failure)
}

struct DryRun<'a> {
    look: &'a Look<'a>,
    brought: Brought,
}

impl DryRun<'_> {
    async fn one(&self, object: &PreparedObject) -> Option<Failure> {
        let error = self.look.cluster.apply(object, Mode::DryRun).await.err()?;
        if error.is_unreachable() {
            return Some(error.failure(&object.key));
        }
        if let KubernetesError::KindUnknown { api_version, kind } = &error {
            return self.kind_unknown(&object.key, api_version, kind);
        }
        let failure = error.failure(&object.key);
        // A webhook with side effects is not asked in a dry run: the API server refuses instead.
        let not_asked = failure.problem.message.contains("does not support dry run");
        // A bare pod needs its service account and priority class, which may come with the document.
        let too_early =
            object.key.kind == "Pod" && matches!(&error, KubernetesError::Answered { status: 403, .. });
        (!failure.retryable && !not_asked && !too_early).then_some(failure)
    }

    /// A kind that nobody serves. One of Kubernetes itself never comes, but with another version of it. One of somebody else's may be registered
    /// by a controller or a chart of the document.
    fn kind_unknown(&self, key: &ObjectKey, api_version: &str, kind: &str) -> Option<Failure> {
        let group = key.group();
        let is_own = !group.contains('.') || group.ends_with(".k8s.io");
        if (is_own && self.look.changes_kubernetes) || (!is_own && self.brought.controllers) {
            return None;
        }
        let problem = Problem::new(
            core_codes::KIND_UNKNOWN,
            format!("{key}: the API server knows no {kind} in {api_version}"),
            "name a version of the kind that is served, or add its definition to the release",
        );
        Some(Failure {
            key: Some(key.clone()),
            ..Failure::of_document(problem, false)
        })
    }
}

/// What the document brings that its other objects may need.
struct Brought {
    /// Namespaces that are not there yet.
    namespaces: HashSet<String>,
    /// Group and kind that its definitions define.
    kinds: HashSet<(String, String)>,
    /// Whether it brings programs or charts, which may register kinds.
    controllers: bool,
}

impl Brought {
    fn of(look: &Look<'_>) -> Self {
        let mut brought = Self {
            namespaces: HashSet::new(),
            kinds: HashSet::new(),
            controllers: false,
        };
        let changed = look
            .objects
            .iter()
            .filter(|object| look.changed.contains(&object.key));
        for object in changed {
            let key = &object.key;
            match key.kind.as_str() {
                "Namespace" if !look.owned.contains(key) => {
                    brought.namespaces.insert(key.name.clone());
                }
                "CustomResourceDefinition" => {
                    let body: Value = serde_json::from_str(&object.json).unwrap_or_default();
                    let text = |pointer| {
                        body.pointer(pointer)
                            .and_then(Value::as_str)
                            .unwrap_or_default()
                            .to_owned()
                    };
                    brought
                        .kinds
                        .insert((text("/spec/group"), text("/spec/names/kind")));
                }
                "Deployment" | "StatefulSet" | "DaemonSet" | "Job" | "Pod" | "HelmChart" => {
                    brought.controllers = true;
                }
                _ => {}
            }
        }
        brought
    }

    fn can_judge(&self, object: &PreparedObject) -> bool {
        let key = &object.key;
        let in_new_namespace = key
            .namespace
            .as_ref()
            .is_some_and(|namespace| self.namespaces.contains(namespace));
        !in_new_namespace && !self.kinds.contains(&(key.group().to_owned(), key.kind.clone()))
    }
}
