//! The plan: what would be written and deleted to make the cluster as the document says.
//!
//! In: the document's prepared objects, the inventory of what was applied before, the policy. Out: a serialisable [`Plan`],
//! which `holdfast plan` shows and the daemon carries out. Guarantees: an object that is in the document is never pruned,
//! whatever version or scope it was applied with before; a namespace or definition that still holds desired objects is kept.

#[cfg(test)]
mod tests;

use crate::object::{ObjectKey, PreparedObject, Wave};
use holdfast_protocol::{Digest, Generation};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// An object that Holdfast applied, as the inventory keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InventoryEntry {
    /// What names it.
    pub key: ObjectKey,
    /// App that it belongs to.
    pub app: String,
    /// Digest of the body that was applied last; none where it was about to be applied when the power went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Hash of what the API server said, after the last write, of the fields that Holdfast owns in it: by it, a list of metadata tells
    /// whether the object still is as it was applied. None where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<u64>,
    /// Whether it stays in the cluster when it leaves the document.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep: bool,
}

impl InventoryEntry {
    /// The entry to record before the first write of an object: it may exist from now on.
    pub fn intent(object: &PreparedObject) -> Self {
        Self {
            key: object.key.clone(),
            app: object.app.clone(),
            digest: None,
            fingerprint: None,
            keep: object.keep,
        }
    }

    /// The entry to record after the object was written, which left it with this fingerprint.
    pub fn applied(object: &PreparedObject, fingerprint: Option<u64>) -> Self {
        Self {
            digest: Some(object.digest),
            fingerprint,
            ..Self::intent(object)
        }
    }
}

/// One object of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedObject {
    /// What names it.
    #[serde(flatten)]
    pub key: ObjectKey,
    /// App that it belongs to.
    pub app: String,
}

/// What is written in one wave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanStep {
    /// The wave.
    pub wave: Wave,
    /// Objects that were not applied before.
    pub create: Vec<PlannedObject>,
    /// Objects whose content differs from what was applied.
    pub update: Vec<PlannedObject>,
    /// Objects that are as they were applied; no write.
    pub unchanged: Vec<PlannedObject>,
}

/// An object that left the document and stays in the cluster nevertheless.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptObject {
    /// The object.
    #[serde(flatten)]
    pub object: PlannedObject,
    /// Why it stays.
    pub reason: String,
}

/// What would be done, in the order of doing it: `steps` first, then `prune`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The document.
    pub generation: Generation,
    /// What is written, wave after wave; waves without objects are left out.
    pub steps: Vec<PlanStep>,
    /// What is deleted, in this order: the waves backwards.
    pub prune: Vec<PlannedObject>,
    /// What left the document but stays in the cluster: no longer looked after, but still in the inventory.
    pub kept: Vec<KeptObject>,
}

impl Plan {
    /// Number of writes and deletes.
    pub fn changes(&self) -> usize {
        self.prune.len()
            + self
                .steps
                .iter()
                .map(|step| step.create.len() + step.update.len())
                .sum::<usize>()
    }
}

/// Namespaces that Kubernetes makes by itself; it refuses to delete all but the last, and makes that one again.
const OWN_NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Compares the prepared objects of a document with the inventory.
///
/// An entry without a digest (an apply that was cut off) counts as changed. `prune` is the document's policy.
pub fn plan(
    generation: Generation,
    desired: &[PreparedObject],
    inventory: &[InventoryEntry],
    prune: bool,
) -> Plan {
    let before: BTreeMap<_, _> = inventory
        .iter()
        .map(|entry| (entry.key.identity(), entry))
        .collect();
    let mut steps: BTreeMap<Wave, PlanStep> = BTreeMap::new();
    for object in desired {
        let step = steps.entry(object.wave()).or_insert_with(|| PlanStep {
            wave: object.wave(),
            create: Vec::new(),
            update: Vec::new(),
            unchanged: Vec::new(),
        });
        let list = match before.get(&object.key.identity()) {
            None => &mut step.create,
            // An intent that never became an applied digest: whether the object exists is unknown, applying it is right anyway.
            Some(entry) if entry.digest == Some(object.digest) && entry.key == object.key => {
                &mut step.unchanged
            }
            Some(_) => &mut step.update,
        };
        list.push(PlannedObject {
            key: object.key.clone(),
            app: object.app.clone(),
        });
    }

    let claims = Claims::of(desired);
    let mut pruned = Vec::new();
    let mut kept = Vec::new();
    for entry in inventory {
        if claims.names(&entry.key) {
            continue;
        }
        let object = PlannedObject {
            key: entry.key.clone(),
            app: entry.app.clone(),
        };
        let reason = if entry.keep {
            Some("it is annotated to be kept".to_owned())
        } else if !prune {
            Some("the document's policy switches pruning off".to_owned())
        } else {
            claims.hold(&entry.key)
        };
        match reason {
            Some(reason) => kept.push(KeptObject { object, reason }),
            None => pruned.push(object),
        }
    }
    pruned.sort_by(|a, b| (b.key.wave(), &a.key).cmp(&(a.key.wave(), &b.key)));
    Plan {
        generation,
        steps: steps.into_values().collect(),
        prune: pruned,
        kept,
    }
}

/// What the desired objects lay claim to.
struct Claims<'a> {
    /// Group, kind and name, without the namespace: the scope of a kind may have been unknown when it was applied, and the
    /// same object must not be taken for two.
    anywhere: BTreeSet<(&'a str, &'a str, &'a str)>,
    exactly: BTreeSet<crate::object::Identity<'a>>,
    namespaces: BTreeSet<&'a str>,
    groups: BTreeSet<&'a str>,
}

impl<'a> Claims<'a> {
    fn of(desired: &'a [PreparedObject]) -> Self {
        let keys = || desired.iter().map(|object| &object.key);
        Self {
            anywhere: keys()
                .filter(|key| key.namespace.is_none())
                .map(|key| (key.group(), key.kind.as_str(), key.name.as_str()))
                .collect(),
            exactly: keys().map(ObjectKey::identity).collect(),
            namespaces: keys().filter_map(|key| key.namespace.as_deref()).collect(),
            groups: keys().map(ObjectKey::group).collect(),
        }
    }

    /// Whether the document names this object.
    fn names(&self, key: &ObjectKey) -> bool {
        self.exactly.contains(&key.identity())
            || self
                .anywhere
                .contains(&(key.group(), key.kind.as_str(), key.name.as_str()))
    }

    /// Why a namespace or definition must stay although the document does not name it: deleting it would delete desired objects.
    fn hold(&self, key: &ObjectKey) -> Option<String> {
        match key.wave() {
            Wave::Namespaces if OWN_NAMESPACES.contains(&key.name.as_str()) => {
                Some("Kubernetes itself needs it".into())
            }
            Wave::Namespaces if self.namespaces.contains(key.name.as_str()) => {
                Some("desired objects live in it".into())
            }
            Wave::Definitions => {
                // The name of a definition is "plural.group".
                let group = key.name.split_once('.').map(|(_, group)| group)?;
                self.groups
                    .contains(group)
                    .then(|| "desired objects are of its group".into())
            }
            _ => None,
        }
    }
}
