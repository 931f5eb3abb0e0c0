//! The order in which objects are applied.

use serde::{Deserialize, Serialize};

/// One step of applying; all objects of a wave may be written at the same time. Deleting goes the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wave {
    /// Namespaces, since most objects live in one.
    Namespaces,
    /// Custom resource definitions; the next wave waits until they are established.
    Definitions,
    /// What workloads refer to: accounts, roles, config maps, secrets, volumes, quotas, classes.
    Configuration,
    /// Services, so that their addresses are in the environment of the pods.
    Services,
    /// What runs pods.
    Workloads,
    /// Everything else, custom resources above all: their controllers are among the workloads.
    Others,
    /// Webhooks and aggregated APIs: they stand in the way of all other writes as soon as they exist.
    Webhooks,
}

impl Wave {
    /// All waves in the order of applying.
    pub const ALL: [Self; 7] = [
        Self::Namespaces,
        Self::Definitions,
        Self::Configuration,
        Self::Services,
        Self::Workloads,
        Self::Others,
        Self::Webhooks,
    ];

    /// The wave of a kind; `group` is empty for the core group.
    pub fn of(group: &str, kind: &str) -> Self {
        match group {
            "" => match kind {
                "Namespace" => Self::Namespaces,
                "ServiceAccount"
                | "ConfigMap"
                | "Secret"
                | "PersistentVolume"
                | "PersistentVolumeClaim"
                | "LimitRange"
                | "ResourceQuota" => Self::Configuration,
                "Service" | "Endpoints" => Self::Services,
                "Pod" | "ReplicationController" => Self::Workloads,
                _ => Self::Others,
            },
            "apiextensions.k8s.io" => Self::Definitions,
            "rbac.authorization.k8s.io" | "storage.k8s.io" | "scheduling.k8s.io" | "node.k8s.io" => {
                Self::Configuration
            }
            "networking.k8s.io" if matches!(kind, "NetworkPolicy" | "IngressClass") => Self::Configuration,
            "discovery.k8s.io" => Self::Services,
            "apps" | "batch" => Self::Workloads,
            "admissionregistration.k8s.io" | "apiregistration.k8s.io" => Self::Webhooks,
            _ => Self::Others,
        }
    }
}
