//! Whether objects of a kind live in a namespace.

use super::group_of;
use serde_json::Value;
use std::collections::BTreeMap;

/// Where objects of a kind live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In the whole cluster; they have no namespace.
    Cluster,
    /// In a namespace.
    Namespaced,
}

/// What is known of the scope of kinds: those of Kubernetes itself, those that discovery found, those that custom resource
/// definitions of the same document bring.
#[derive(Clone, Debug, Default)]
pub struct Scopes {
    learnt: BTreeMap<(String, String), Scope>,
}

impl Scopes {
    /// Takes note of a kind that discovery found; `group` is empty for the core group.
    pub fn learn(&mut self, group: &str, kind: &str, scope: Scope) {
        self.learnt.insert((group.to_owned(), kind.to_owned()), scope);
    }

    /// Takes note of the kind that a custom resource definition brings; passes over all other objects.
    pub fn learn_from(&mut self, object: &Value) {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        if text("/kind") != Some("CustomResourceDefinition")
            || text("/apiVersion").map(group_of) != Some("apiextensions.k8s.io")
        {
            return;
        }
        if let (Some(group), Some(kind), Some(scope)) =
            (text("/spec/group"), text("/spec/names/kind"), text("/spec/scope"))
        {
            let scope = if scope == "Cluster" {
                Scope::Cluster
            } else {
                Scope::Namespaced
            };
            self.learn(group, kind, scope);
        }
    }

    /// Where objects of this kind live. An unknown kind is taken as namespaced, as nearly all custom resources are.
    pub fn of(&self, group: &str, kind: &str) -> Scope {
        if let Some(scope) = self.learnt.get(&(group.to_owned(), kind.to_owned())) {
            return *scope;
        }
        if is_cluster_wide(group, kind) {
            Scope::Cluster
        } else {
            Scope::Namespaced
        }
    }
}

/// The cluster-wide kinds of Kubernetes 1.36 (`kubectl api-resources --namespaced=false`).
fn is_cluster_wide(group: &str, kind: &str) -> bool {
    match group {
        "" => matches!(kind, "Namespace" | "Node" | "PersistentVolume"),
        "rbac.authorization.k8s.io" => matches!(kind, "ClusterRole" | "ClusterRoleBinding"),
        "storage.k8s.io" => kind != "CSIStorageCapacity",
        "networking.k8s.io" => matches!(kind, "IngressClass" | "IPAddress" | "ServiceCIDR"),
        "certificates.k8s.io" => kind != "PodCertificateRequest",
        "resource.k8s.io" => !matches!(kind, "ResourceClaim" | "ResourceClaimTemplate"),
        "apiextensions.k8s.io"
        | "apiregistration.k8s.io"
        | "admissionregistration.k8s.io"
        | "scheduling.k8s.io"
        | "node.k8s.io"
        | "flowcontrol.apiserver.k8s.io"
        | "storagemigration.k8s.io" => true,
        _ => false,
    }
}
