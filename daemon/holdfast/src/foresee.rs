//! What a document that nobody sent yet would change here.
//!
//! In: a document, what was applied before, and Kubernetes where it answers. Out: a [`Foresight`]: the plan, what the API server would refuse, and
//! how far all of it can be believed. Guarantees: nothing is changed, stored or admitted; no value of a Secret is part of the answer.

use crate::{
    apply::Objects,
    kubernetes::{Cluster, KubernetesError, cluster::Mode},
};
use futures::{StreamExt as _, future::BoxFuture, stream};
use holdfast_core::{
    object::{ObjectKey, PreparedObject},
    plan::{InventoryEntry, Plan, PlannedObject, plan},
};
use holdfast_protocol::{
    Problem,
    document::{DesiredState, ManifestSource},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

/// Dry runs that are under way at the same time.
const DRY_RUNS: usize = 8;

/// What is known about the place that a plan is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// What was applied before, and the API server itself.
    Cluster,
    /// What was applied before; the API server does not answer.
    Inventory,
    /// Nothing: the plan is that of an empty box.
    Nothing,
}

/// An object that the API server would refuse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// The object.
    #[serde(flatten)]
    pub object: PlannedObject,
    /// Why.
    pub problem: Problem,
}

/// What a document would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Foresight {
    /// What would be written and deleted.
    #[serde(flatten)]
    pub plan: Plan,
    /// What it was compared with.
    pub basis: Basis,
    /// What the API server would refuse; known with a cluster only.
    pub refused: Vec<Refusal>,
    /// What could not be known, in words.
    pub notes: Vec<String>,
}

/// What a document would change on a node that runs.
pub async fn foresee(
    objects: &Objects,
    cluster: Option<&Cluster>,
    document: &DesiredState,
) -> Result<Foresight, Problem> {
    let prepared = objects
        .prepare(document, cluster)
        .await
        .map_err(|failure| failure.problem)?;
    let inventory = objects.store.inventory().map_err(|error| error.problem())?;
    let mut foresight = compare(document, &prepared, &inventory, Basis::Inventory);
    let Some(cluster) = cluster else {
        return Ok(foresight);
    };
    foresight.basis = Basis::Cluster;
    foresight.notes.clear();
    let changed: BTreeSet<&ObjectKey> = foresight
        .plan
        .steps
        .iter()
        .flat_map(|step| step.create.iter().chain(&step.update))
        .map(|object| &object.key)
        .collect();
    let brought = Brought::of(&prepared);
    let tried: Vec<&PreparedObject> = prepared
        .iter()
        .filter(|object| changed.contains(&object.key))
        .collect();
    let mut dry_runs: Vec<BoxFuture<'_, _>> = Vec::with_capacity(tried.len());
    for object in &tried {
        dry_runs.push(Box::pin(cluster.apply(object, Mode::DryRun)));
    }
    let answers: Vec<_> = stream::iter(dry_runs).buffered(DRY_RUNS).collect().await;
    let mut refused = Vec::new();
    let mut unknown = 0;
    for (object, answer) in tried.into_iter().zip(answers) {
        let Err(error) = answer else {
            continue;
        };
        if error.is_unreachable() || brought.may_change(object, &error) {
            unknown += 1;
            continue;
        }
        let mut problem = error.failure(&object.key).problem;
        if object.key.kind == "Secret" {
            // The API server's words may quote the value.
            problem.message = format!("{}: the API server would refuse it", object.key);
        }
        refused.push(Refusal {
            object: PlannedObject {
                key: object.key.clone(),
                app: object.app.clone(),
            },
            problem,
        });
    }
    if unknown > 0 {
        foresight.notes.push(format!(
            "{unknown} objects cannot be tried before others of the document are there"
        ));
    }
    foresight.refused = refused;
    Ok(foresight)
}

/// Compares a document's objects with what was applied before.
pub fn compare(
    document: &DesiredState,
    prepared: &[PreparedObject],
    inventory: &[InventoryEntry],
    basis: Basis,
) -> Foresight {
    let prune = document.policy.prune;
    let plan = plan(document.generation, prepared, inventory, prune);
    Foresight {
        plan,
        basis,
        refused: Vec::new(),
        notes: guessed(document, prepared),
    }
}

/// Kinds of which nobody here knows whether they live in a namespace.
fn guessed(document: &DesiredState, prepared: &[PreparedObject]) -> Vec<String> {
    let mut defined = BTreeSet::new();
    for source in document.apps.iter().flat_map(|app| &app.manifests) {
        let ManifestSource::Inline(objects) = source else {
            continue;
        };
        for object in objects {
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
            if text("/kind") == Some("CustomResourceDefinition")
                && text("/apiVersion").is_some_and(|version| version.starts_with("apiextensions.k8s.io/"))
                && let (Some(group), Some(kind)) = (text("/spec/group"), text("/spec/names/kind"))
            {
                defined.insert((group, kind));
            }
        }
    }
    let mut told = BTreeSet::new();
    prepared
        .iter()
        .map(|object| (object.key.group(), object.key.kind.as_str()))
        .filter(|(group, kind)| is_foreign(group) && !defined.contains(&(*group, *kind)))
        .filter(|kind| told.insert(*kind))
        .map(|(group, kind)| {
            format!("{kind}.{group} is taken to live in a namespace; without Kubernetes nobody knows")
        })
        .collect()
}

/// Whether a group is none of Kubernetes itself, nor one that k3s brings.
fn is_foreign(group: &str) -> bool {
    group.contains('.')
        && !group.ends_with(".k8s.io")
        && group != "helm.cattle.io"
        && group != "k3s.cattle.io"
}

/// What a document brings that its other objects may need first.
struct Brought {
    namespaces: BTreeSet<String>,
    definitions: bool,
}

impl Brought {
    fn of(prepared: &[PreparedObject]) -> Self {
        Self {
            namespaces: prepared
                .iter()
                .filter(|object| object.key.kind == "Namespace")
                .map(|object| object.key.name.clone())
                .collect(),
            definitions: prepared
                .iter()
                .any(|object| object.key.kind == "CustomResourceDefinition"),
        }
    }

    /// Whether the answer may be another one once the rest of the document is there.
    fn may_change(&self, object: &PreparedObject, error: &KubernetesError) -> bool {
        let namespace = object.key.namespace.as_deref();
        match error {
            KubernetesError::KindUnknown { .. } => self.definitions,
            KubernetesError::Answered {
                status: 403 | 404, ..
            } => namespace.is_some_and(|namespace| self.namespaces.contains(namespace)),
            _ => false,
        }
    }
}
