//! The Kubernetes of the box: brought up, kept up, and reached.
//!
//! In: settings, the desired state's k3s section. Out: a [`runner::KubernetesState`] whose [`cluster::Cluster`] is how everything else
//! reads and writes objects. It guarantees that nothing else in the node knows which Kubernetes it is.

pub mod address;
pub mod agent;
mod answers;
pub mod care;
pub mod client;
pub mod cluster;
pub mod control;
pub mod datastore;
pub mod discovery;
mod error;
pub mod heal;
pub mod install;
pub mod k3s_config;
pub mod load;
pub mod metadata;
pub mod own_node;
pub mod process;
pub mod runner;
pub mod supervisor;
pub mod supervisor_systemd;
pub mod switch;
pub mod target;
pub mod version;

pub use cluster::Cluster;
pub use error::KubernetesError;
pub use runner::KubernetesState;
