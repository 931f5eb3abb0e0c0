//! What a document says of the box's Kubernetes.

use super::{Artifact, Sealed, SealedValue};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, net::IpAddr};

/// What the document says of k3s. What is absent is left to the node's settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct K3sSection {
    /// The version that must run, as `k3s --version` prints it (`v1.36.3+k3s1`); any where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The binary, by architecture as k3s names it: `amd64`, `arm64`. The one on the box is used where absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub binaries: BTreeMap<String, Artifact>,
    /// Archives of container images that must be on the box, by architecture.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, Vec<Artifact>>,
    /// Whether the box has a control plane.
    #[serde(default, skip_serializing_if = "is_default")]
    pub role: K3sRole,
    /// The site that a box of several joins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<K3sJoin>,
    /// How the boxes of one site come together: said by a release; the hub makes `join` of it for each box, and takes it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<K3sSite>,
    /// Where the state of Kubernetes is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<Datastore>,
    /// An address of the node that no network can take away: it is put on a dummy interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_address: Option<IpAddr>,
    /// Mirrors and credentials of registries, as k3s's `registries.yaml` has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registries: Option<Registries>,
    /// Fields of a `KubeletConfiguration`, over those that the node sets for itself.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub kubelet: Map<String, Value>,
    /// An `audit.k8s.io/v1` policy; its log is bounded. No audit where absent.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub audit_policy: Map<String, Value>,
    /// Keys of k3s's own `config.yaml`, over those that the node sets for itself.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub config: Map<String, Value>,
    /// Fields of a newer minor version, kept as they came.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Whether a box has a control plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum K3sRole {
    /// `k3s server`.
    #[default]
    Server,
    /// `k3s agent`: needs `join`.
    Agent,
}

/// How a box comes together with the others of its site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct K3sJoin {
    /// Address of a server of the site, `https://10.7.0.1:6443`; absent on the first of three servers, which begins the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The secret of the site, sealed to this box under the name `k3s-token`.
    pub token: Sealed,
    /// Whether the servers of the site keep their state together in etcd, three of them; one alone keeps it as it likes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub etcd: bool,
}

/// How the boxes of one site come together, by labels of the nodes.
///
/// Nodes with the same value of the label [`Self::label`] are one site. Those of its nodes whose label [`Self::role_label`] is `server`
/// have a control plane; the first of them to be enrolled begins the cluster, and all others join it at its address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct K3sSite {
    /// Label that says to which site a node belongs.
    pub label: String,
    /// Label that says `server` or `agent`.
    pub role_label: String,
    /// Label that says the address of a node, which the others of its site reach it by. It becomes its `nodeAddress` where that is absent.
    pub address_label: String,
    /// How many servers a site has: one, or three with embedded etcd.
    pub servers: u8,
    /// Address that the others join at, `https://10.7.0.1:6443`; that of the first server where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
}

impl Default for K3sSite {
    fn default() -> Self {
        Self {
            label: "site".into(),
            role_label: "k3s-role".into(),
            address_label: "node-address".into(),
            servers: 1,
            server: None,
        }
    }
}

/// Where the state of Kubernetes is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Datastore {
    /// On the disk, as k3s does it by itself.
    #[default]
    Persistent,
    /// In memory, with snapshots on the disk: spares the flash.
    Ram,
}

/// Mirrors and credentials of registries. See <https://docs.k3s.io/installation/private-registry>.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Registries {
    /// By registry (`docker.io`, `*`): what k3s's file has below `mirrors`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub mirrors: Map<String, Value>,
    /// By registry: what k3s's file has below `configs`, without passwords.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub configs: Map<String, Value>,
    /// By registry: what goes into `configs.<registry>.auth`, a JSON object `{"username":…,"password":…}` that an operator stored as a
    /// secret; sealed to this box as the values of [`super::SealedSecret`] are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub credentials: BTreeMap<String, SealedValue>,
}
