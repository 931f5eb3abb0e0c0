//! Probes: what an app must answer, beside the readiness of its objects, to count as ready.

use serde::{Deserialize, Serialize};

/// A question that the node asks an app until it is answered well, and again during the stability period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Probe {
    /// Name, for messages; unique in its app.
    pub name: String,
    /// What is asked.
    pub check: ProbeCheck,
    /// Seconds between two questions, 1 to 3,600.
    #[serde(default = "period")]
    pub period_seconds: u32,
    /// Seconds that an answer may take, 1 to 300.
    #[serde(default = "timeout")]
    pub timeout_seconds: u32,
    /// Bad answers in a row after good ones that make the app not ready again; 1 to 100.
    #[serde(default = "failures")]
    pub failure_threshold: u32,
}

const fn period() -> u32 {
    5
}

const fn timeout() -> u32 {
    5
}

const fn failures() -> u32 {
    3
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProbeCheck {
    /// `GET`; good is a status from 200 to 399.
    #[serde(rename_all = "camelCase")]
    Http {
        /// Whom to ask.
        target: ProbeTarget,
        /// Path with query, `/healthz`.
        #[serde(default = "root")]
        path: String,
        /// Whether to speak TLS; the certificate is not verified, as kubelet's probes do.
        #[serde(default)]
        tls: bool,
    },
    /// Good is a connection.
    #[serde(rename_all = "camelCase")]
    Tcp {
        /// Whom to ask.
        target: ProbeTarget,
    },
    /// A command in a container; good is the exit status 0.
    #[serde(rename_all = "camelCase")]
    Exec {
        /// Namespace of the pod; that of the app where absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
        /// `Deployment/web`, `StatefulSet/db`, `DaemonSet/agent` or `Pod/one`: the first of its ready pods runs the command.
        workload: String,
        /// Its container; the first where absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        container: Option<String>,
        /// The command with its arguments.
        command: Vec<String>,
    },
}

fn root() -> String {
    "/".into()
}

/// Whom a probe asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProbeTarget {
    /// A Service: for HTTP through the API server, which needs no route into the cluster's network; for TCP at its cluster address.
    #[serde(rename_all = "camelCase")]
    Service {
        /// Its namespace; that of the app where absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
        /// Its name.
        name: String,
        /// Its port.
        port: u16,
    },
    /// An address as the box sees it, `127.0.0.1:8080`: a host port, a device beside the box.
    Address(String),
}
