//! Asks apps what their release says that they must answer to count as ready.
//!
//! In: the probes of a document's apps. Out: a [`Readiness`] of each, whenever it changes. It guarantees: an app is not ready before the first
//! good answer, one bad answer after a good one is forgiven as often as the probe says, no question waits longer than its limit, and
//! nothing is asked once the tasks are dropped.

mod exec;
mod frames;
mod http;

use crate::{codes, kubernetes::Cluster};
use holdfast_core::{object::ObjectKey, readiness::Readiness};
use holdfast_protocol::{
    Problem,
    document::{DesiredState, FailurePolicy, Probe, ProbeCheck, ProbeTarget},
};
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

/// A probe of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppProbe {
    /// The app.
    pub app: String,
    /// Namespace of the app.
    pub namespace: String,
    /// Whether the app may fail alone.
    pub alone: bool,
    /// What is asked.
    pub probe: Probe,
}

/// All probes of a document.
pub fn of_document(state: &DesiredState) -> Vec<AppProbe> {
    let of_app = |app: &holdfast_protocol::document::App| {
        let namespace = app.namespace.clone().unwrap_or_else(|| "default".into());
        let name = app.name.clone();
        let alone = app.on_failure == FailurePolicy::Isolate;
        app.probes.clone().into_iter().map(move |probe| AppProbe {
            app: name.clone(),
            namespace: namespace.clone(),
            alone,
            probe,
        })
    };
    state.apps.iter().flat_map(of_app).collect()
}

/// Readiness of one probe, by its place among those that were begun.
pub type Verdict = (usize, Readiness);

/// Asks until the task is dropped; tells whenever the verdict is another one.
pub fn begin(
    cluster: &Arc<Cluster>,
    place: usize,
    probe: AppProbe,
    verdicts: &mpsc::UnboundedSender<Verdict>,
) -> AbortOnDropHandle<()> {
    let (cluster, verdicts) = (cluster.clone(), verdicts.clone());
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut series = Series::default();
        let mut told = None;
        loop {
            let readiness = series.next(ask_in_time(&cluster, &probe).await, probe.probe.failure_threshold);
            if told.as_ref() != Some(&readiness) {
                told = Some(readiness.clone());
                if verdicts.send((place, readiness)).is_err() {
                    return;
                }
            }
            sleep(Duration::from_secs(probe.probe.period_seconds.max(1).into())).await;
        }
    }))
}

/// The answers up to now.
#[derive(Debug, Default)]
struct Series {
    was_good: bool,
    bad: u32,
}

impl Series {
    fn next(&mut self, answer: Result<(), Problem>, threshold: u32) -> Readiness {
        match answer {
            Ok(()) => {
                self.was_good = true;
                self.bad = 0;
                Readiness::healthy()
            }
            Err(problem) if !self.was_good => Readiness::progressing(problem),
            Err(problem) => {
                self.bad = self.bad.saturating_add(1);
                if self.bad < threshold {
                    Readiness::healthy()
                } else {
                    Readiness::degraded(problem)
                }
            }
        }
    }
}

async fn ask_in_time(cluster: &Cluster, probe: &AppProbe) -> Result<(), Problem> {
    let limit = Duration::from_secs(probe.probe.timeout_seconds.max(1).into());
    let answer = timeout(limit, ask(cluster, probe)).await;
    answer
        .unwrap_or_else(|_| Err(Bad::Answer(format!("no answer within {} s", limit.as_secs()))))
        .map_err(|bad| bad.problem(probe))
}

/// Why a probe is not answered well.
enum Bad {
    /// The app's doing.
    Answer(String),
    /// The release's.
    Probe(String),
}

impl Bad {
    fn problem(self, probe: &AppProbe) -> Problem {
        let name = format!("probe {} of app {}", probe.probe.name, probe.app);
        match self {
            Self::Answer(reason) => Problem::new(
                codes::PROBE_FAILED,
                format!("{name}: {reason}"),
                if probe.alone {
                    "look at the log of the app; it is asked on until it answers"
                } else {
                    "look at the log of the app; where the document's deadline passes without an answer, the node goes back to the last good document if it has one"
                },
            ),
            Self::Probe(reason) => Problem::new(
                codes::PROBE_INVALID,
                format!("{name}: {reason}"),
                "correct the probe and publish the release again",
            ),
        }
    }
}

async fn ask(cluster: &Cluster, probe: &AppProbe) -> Result<(), Bad> {
    match &probe.probe.check {
        ProbeCheck::Http { target, path, tls } => match target {
            ProbeTarget::Address(address) => http::address(address, path, *tls).await,
            ProbeTarget::Service {
                namespace,
                name,
                port,
            } => {
                let namespace = namespace.as_ref().unwrap_or(&probe.namespace);
                http::service(cluster, namespace, name, *port, path, *tls).await
            }
        },
        ProbeCheck::Tcp { target } => {
            let address = match target {
                ProbeTarget::Address(address) => address.clone(),
                ProbeTarget::Service {
                    namespace,
                    name,
                    port,
                } => {
                    let namespace = namespace.as_ref().unwrap_or(&probe.namespace);
                    cluster_address(cluster, namespace, name, *port).await?
                }
            };
            TcpStream::connect(&address)
                .await
                .map(drop)
                .map_err(|error| Bad::Answer(format!("no connection to {address}: {error}")))
        }
        ProbeCheck::Exec {
            namespace,
            workload,
            container,
            command,
        } => {
            let namespace = namespace.as_ref().unwrap_or(&probe.namespace);
            exec::run(cluster, namespace, workload, container.as_deref(), command).await
        }
    }
}

/// Where a Service is reached from the box.
async fn cluster_address(cluster: &Cluster, namespace: &str, name: &str, port: u16) -> Result<String, Bad> {
    let key = ObjectKey {
        api_version: "v1".into(),
        kind: "Service".into(),
        namespace: Some(namespace.to_owned()),
        name: name.to_owned(),
    };
    let service = cluster
        .get(&key)
        .await
        .map_err(|error| Bad::Answer(error.to_string()))?
        .ok_or_else(|| Bad::Answer(format!("{key} is not in the cluster")))?;
    match service.pointer("/spec/clusterIP").and_then(Value::as_str) {
        Some(ip) if ip.contains(':') => Ok(format!("[{ip}]:{port}")),
        Some(ip) if !ip.is_empty() && ip != "None" => Ok(format!("{ip}:{port}")),
        _ => Err(Bad::Probe(format!("{key} has no cluster address"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_protocol::report::Health;

    #[test]
    fn an_app_is_ready_from_its_first_good_answer_until_too_many_bad_ones_in_a_row() {
        let mut series = Series::default();
        let bad = || Err(Problem::new(codes::PROBE_FAILED, "503", ""));
        let mut health = |answer| series.next(answer, 2).health;
        assert_eq!(health(bad()), Health::Progressing);
        assert_eq!(health(bad()), Health::Progressing);
        assert_eq!(health(Ok(())), Health::Healthy);
        assert_eq!(health(bad()), Health::Healthy);
        assert_eq!(health(Ok(())), Health::Healthy);
        assert_eq!(health(bad()), Health::Healthy);
        assert_eq!(health(bad()), Health::Degraded);
        assert_eq!(health(Ok(())), Health::Healthy);
    }
}
