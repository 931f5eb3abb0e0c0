//! Whether this start of the machine is good.
//!
//! In: the disk, the store, Kubernetes, and the apps that ran before. Out: a [`Verdict`], which names the first check that fails. It guarantees that
//! neither the hub nor the network nor a clock is part of it: a box without a link is as good as any other.
//!
//! | check | good when |
//! |---|---|
//! | `daemon` | the daemon answers; a box that is enrolled runs its node |
//! | `state-partition` | a file can be written, and is on the disk |
//! | `store` | the store answers |
//! | `kubernetes` | Kubernetes is ready, where a document was applied on this box |
//! | `apps` | the apps of the document that runs are ready, where it was seen good before; those that may fail alone are not asked for |

pub mod gate;

use crate::codes;
use holdfast_protocol::{
    Problem,
    report::{Health, StatusReport},
};
use holdfast_store::{Store, fs as durable};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, path::Path};

/// Name of the check that the daemon answers.
pub const DAEMON: &str = "daemon";
/// Name of the check whether the disk takes a file.
pub const STATE_PARTITION: &str = "state-partition";
/// Name of the check whether the store answers.
pub const STORE: &str = "store";
const KUBERNETES: &str = "kubernetes";
/// Name of the check of the apps.
pub const APPS: &str = "apps";

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Its name.
    pub name: Cow<'static, str>,
    /// Whether it is good.
    pub good: bool,
    /// Why not, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

impl Check {
    /// One that is good, or is not for a reason.
    pub fn of(name: &'static str, problem: Option<Problem>) -> Self {
        Self {
            name: Cow::Borrowed(name),
            good: problem.is_none(),
            problem,
        }
    }
}

/// All checks, in the order in which one needs the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Whether all of them are good.
    pub good: bool,
    /// Each of them.
    pub checks: Vec<Check>,
}

impl Verdict {
    /// Of these checks.
    pub fn of(checks: Vec<Check>) -> Self {
        Self {
            good: checks.iter().all(|check| check.good),
            checks,
        }
    }

    /// The first check that is not good: what comes after it may not be good because of it.
    pub fn first_bad(&self) -> Option<&Check> {
        self.checks.iter().find(|check| !check.good)
    }
}

/// Whether the disk takes a file and the store answers.
pub fn of_disk(state_dir: &Path, store: &Store) -> Vec<Check> {
    let path = state_dir.join(".health");
    let written =
        durable::write_atomic(&path, b"", durable::PRIVATE_FILE).and_then(|()| durable::remove(&path));
    let stored = store.newest().map(drop);
    vec![
        Check::of(STATE_PARTITION, written.err().map(|error| error.problem())),
        Check::of(STORE, stored.err().map(|error| error.problem())),
    ]
}

/// Whether Kubernetes and the apps are as they were. `alone` are the apps that may fail alone.
pub fn of_node(report: &StatusReport, alone: &[String]) -> Vec<Check> {
    let generation = &report.generation;
    // Before the first document, and while the newest one is being brought up, it is that document which may be at fault.
    let Some(running) = generation.running else {
        return Vec::new();
    };
    let ready = report.kubernetes.health == Health::Healthy;
    let mut checks = vec![Check::of(
        KUBERNETES,
        (!ready).then(|| {
            report.kubernetes.cause.clone().unwrap_or_else(|| {
                Problem::new(
                    codes::KUBERNETES_STARTING,
                    "Kubernetes is not ready yet",
                    "wait, or look at the log of k3s",
                )
            })
        }),
    )];
    if generation.proven == Some(running) {
        let unready = report
            .apps
            .iter()
            .find(|app| app.health != Health::Healthy && !alone.contains(&app.name));
        checks.push(Check::of(
            APPS,
            unready.map(|app| {
                app.cause.clone().map_or_else(
                    || {
                        Problem::new(
                            codes::BOOT_NOT_GOOD,
                            format!("app {} is not ready", app.name),
                            "look at `holdfast status` for its cause",
                        )
                    },
                    |cause| Problem {
                        message: format!("app {} is not ready: {}", app.name, cause.message),
                        ..cause
                    },
                )
            }),
        ));
    }
    checks
}
