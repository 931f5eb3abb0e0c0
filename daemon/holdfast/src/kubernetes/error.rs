//! What can go wrong with Kubernetes, told apart by what the node does about it.

use super::datastore::DatastoreError;
use crate::codes;
use holdfast_core::{
    codes as core_codes,
    failure::{Failure, api_refusal, no_answer},
    object::ObjectKey,
};
use holdfast_protocol::Problem;
use std::{error::Error as _, net::SocketAddr, path::PathBuf};

/// A failure of Kubernetes or of a request to it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KubernetesError {
    /// The kubeconfig cannot be read or used.
    #[error("{} cannot be used as a kubeconfig: {reason}", path.display())]
    KubeconfigUnusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Kubernetes was started, and has not come so far as to write its kubeconfig.
    #[error("Kubernetes is starting: it has not written {} yet", kubeconfig.display())]
    Starting {
        /// The file that it will write.
        kubeconfig: PathBuf,
    },
    /// An agent of k3s was started, and its kubelet does not say that it is healthy yet.
    #[error("the agent of k3s is starting: its kubelet at http://{kubelet}/healthz is not healthy: {reason}")]
    AgentStarting {
        /// Where it is asked.
        kubelet: SocketAddr,
        /// What comes instead.
        reason: String,
    },
    /// It stands still on purpose, for as long as its files are worked on.
    #[error("Kubernetes is being switched or repaired")]
    Switching,
    /// What must be done before a start could not be done.
    #[error("Kubernetes cannot be prepared for its start: {reason}")]
    Unprepared {
        /// Why.
        reason: String,
    },
    /// systemd does not do what it is asked to.
    #[error("systemd does not answer as it should for {unit}: {reason}")]
    Systemd {
        /// The unit.
        unit: String,
        /// What was asked, and what came.
        reason: String,
    },
    /// No answer, or none that makes sense: worth another try when Kubernetes is back.
    #[error("{what}: Kubernetes does not answer: {reason}")]
    Unreachable {
        /// What was asked.
        what: String,
        /// What the connection says.
        reason: String,
    },
    /// The API server answers with an error.
    #[error("{what}: the API server answers: {message}")]
    Answered {
        /// What was asked.
        what: String,
        /// HTTP status, such as 422.
        status: u16,
        /// Its reason in one word, such as `Invalid`.
        reason: String,
        /// Its reason in words.
        message: String,
    },
    /// No such kind.
    #[error("the API server knows no {kind} in {api_version}")]
    KindUnknown {
        /// As the object names it.
        api_version: String,
        /// As the object names it.
        kind: String,
    },
    /// A custom resource definition did not become established in time.
    #[error("{name} was not established by the API server within {seconds} s: {reason}")]
    NotEstablished {
        /// Name of the definition.
        name: String,
        /// How long it was waited for.
        seconds: u64,
        /// What its conditions say.
        reason: String,
    },
    /// The program is not there.
    #[error("{} cannot be started: {reason}", binary.display())]
    BinaryMissing {
        /// The program.
        binary: PathBuf,
        /// What the operating system says.
        reason: String,
    },
    /// k3s needs root.
    #[error("k3s ended because it is not run as root: {line}")]
    NeedsRoot {
        /// Its own words.
        line: String,
    },
    /// The program ended by itself.
    #[error("{} ended by itself ({status}); its last word: {line}", binary.display())]
    Exited {
        /// The program.
        binary: PathBuf,
        /// Exit code or signal.
        status: String,
        /// Last line of its log.
        line: String,
    },
    /// A file of the supervisor cannot be written or read.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        reason: String,
    },
    /// The datastore cannot be where it is wanted.
    #[error(transparent)]
    Datastore(DatastoreError),
    /// What k3s is started with cannot be put in place.
    #[error("{}", problem.message)]
    Config {
        /// Why, and what to do.
        problem: Box<Problem>,
    },
    /// The API answers, and has no Node of our name.
    #[error("Kubernetes has no node {node}: its kubelet has not registered")]
    NodeMissing {
        /// Its name.
        node: String,
    },
    /// Our Node is there, and no pod can run on it.
    #[error("node {node} is not ready: {reason}")]
    NodeNotReady {
        /// Its name.
        node: String,
        /// What its kubelet says, or what is said of a kubelet that says nothing any more.
        reason: String,
    },
    /// Another version runs than the document demands.
    #[error("k3s {wanted} is wanted, but {found} runs")]
    WrongVersion {
        /// Demanded version.
        wanted: String,
        /// Version that runs.
        found: String,
    },
}

impl KubernetesError {
    /// Whether the API server did not even answer.
    pub const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Whether the API server answered that the thing is not there.
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::Answered { status: 404, .. })
    }

    /// What it means for the object that was asked about: tried again, or not.
    pub fn failure(&self, key: &ObjectKey) -> Failure {
        match self {
            Self::Answered {
                status,
                reason,
                message,
                ..
            } => api_refusal(key, *status, reason, message),
            Self::Unreachable { reason, .. } => no_answer(key, reason),
            // A definition may come with the next attempt, an API server with the next start.
            _ => Failure {
                key: Some(key.clone()),
                app: None,
                problem: self.problem(),
                retryable: true,
            },
        }
    }

    /// The form in which people see it.
    pub fn problem(&self) -> Problem {
        let (code, action) = match self {
            Self::Datastore(error) => return error.problem(),
            Self::Config { problem } => return (**problem).clone(),
            Self::KubeconfigUnusable { .. } => (
                codes::KUBECONFIG_UNUSABLE,
                "check kubernetes.kubeconfig in the configuration; k3s writes the file when it starts",
            ),
            Self::Starting { .. } | Self::AgentStarting { .. } => (codes::KUBERNETES_STARTING, ""),
            Self::Unprepared { .. } => (
                codes::KUBERNETES_FILE,
                "nothing: it is tried again; see the log of the daemon",
            ),
            Self::Systemd { .. } => (
                codes::KUBERNETES_SYSTEMD,
                "check that the unit is installed (systemctl cat) and that holdfast may reach the system bus",
            ),
            Self::Switching => (codes::KUBERNETES_SWITCHING, ""),
            Self::Unreachable { .. } => (
                core_codes::KUBERNETES_UNREACHABLE,
                "nothing while Kubernetes starts; else see its output in kubernetes.log_file, or in the log of the daemon",
            ),
            Self::Answered { .. } => (core_codes::APPLY_FAILED, "nothing: it is tried again"),
            Self::KindUnknown { .. } => (
                core_codes::KIND_UNKNOWN,
                "add the CustomResourceDefinition to the release, or correct apiVersion and kind",
            ),
            Self::NotEstablished { .. } => (
                codes::CRD_NOT_ESTABLISHED,
                "correct the CustomResourceDefinition and publish a new release",
            ),
            Self::BinaryMissing { .. } => (
                codes::KUBERNETES_BINARY_MISSING,
                "install k3s, or set kubernetes.binary to where it is",
            ),
            Self::NeedsRoot { .. } => (
                codes::KUBERNETES_NEEDS_ROOT,
                "run holdfast as root (the shipped systemd unit does), or give another kubernetes.binary",
            ),
            Self::Exited { .. } => (
                codes::KUBERNETES_EXITED,
                "see the output of k3s in kubernetes.log_file, or in the log of the daemon; it is started again by itself",
            ),
            Self::File { .. } => (codes::KUBERNETES_FILE, "check space, owner and mode of that path"),
            Self::NodeMissing { .. } => (
                codes::KUBERNETES_NODE_MISSING,
                "nothing while Kubernetes starts; else check kubernetes.node_name in the configuration and the output of k3s",
            ),
            Self::NodeNotReady { .. } => (
                codes::KUBERNETES_NODE_NOT_READY,
                "nothing while Kubernetes starts; else see what the kubelet writes in the output of k3s",
            ),
            Self::WrongVersion { .. } => (
                codes::KUBERNETES_WRONG_VERSION,
                "install the wanted k3s, or publish a document with the version that is installed",
            ),
        };
        Problem::new(code, self.to_string(), action)
    }
}

/// Sorts an error of the client by what it means for the request; `what` names the request's object for people.
pub(crate) fn from_kube(error: kube::Error, what: &str) -> KubernetesError {
    let what = what.to_owned();
    match error {
        kube::Error::Api(status) => KubernetesError::Answered {
            what,
            status: status.code,
            message: if status.message.is_empty() {
                status.reason.clone()
            } else {
                status.message.clone()
            },
            reason: status.reason,
        },
        other => {
            // The client wraps the real reason several times; the innermost says it in plain words.
            let mut reason = other.to_string();
            let mut source = other.source();
            while let Some(inner) = source {
                reason = inner.to_string();
                source = inner.source();
            }
            KubernetesError::Unreachable { what, reason }
        }
    }
}
