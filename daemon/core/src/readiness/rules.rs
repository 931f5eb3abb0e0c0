//! The rules by kind, after kstatus's `core.go` and `generic.go`; where they differ, the rule says why.

use super::Readiness;
use crate::{codes, object::group_of};
use holdfast_protocol::Problem;
use serde_json::Value;

/// Readiness of an object as the API server gives it.
pub fn readiness(object: &Value) -> Readiness {
    let object = Object(object);
    if let Some(verdict) = object.generic() {
        return verdict;
    }
    match (group_of(object.text("/apiVersion")), object.text("/kind")) {
        ("apps", "Deployment") => object.deployment(),
        ("apps", "StatefulSet") => object.stateful_set(),
        ("apps", "DaemonSet") => object.daemon_set(),
        ("apps", "ReplicaSet") => object.replica_set(),
        ("batch", "Job") => object.job(),
        ("", "Pod") => object.pod(),
        ("", "PersistentVolumeClaim") => object.volume_claim(),
        ("", "Service") => object.service(),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => object.definition(),
        ("helm.cattle.io", "HelmChart") => object.chart(None),
        ("apiregistration.k8s.io", "APIService") => object.by_condition("Available"),
        _ => object.by_condition("Ready"),
    }
}

/// Readiness of a chart that k3s's controller installs, with the job that does so, as far as it is there.
///
/// The chart's own status only tells that a job was made, and whether it failed for good; that it is done stands at the job
/// (k3s-io/helm-controller, `pkg/controllers/chart/chart.go`).
pub fn chart_readiness(chart: &Value, job: Option<&Value>) -> Readiness {
    let object = Object(chart);
    object.generic().unwrap_or_else(|| object.chart(job))
}

/// Name of the job that installs a chart, which is in the chart's own namespace.
pub fn chart_job(chart: &Value) -> String {
    let object = Object(chart);
    match object.text("/status/jobName") {
        "" => format!("helm-install-{}", object.text("/metadata/name")),
        name => name.to_owned(),
    }
}

/// A condition of an object's status.
struct Condition<'a> {
    status: &'a str,
    reason: &'a str,
    message: &'a str,
}

impl Condition<'_> {
    /// "reason: message", or whichever of them there is.
    fn words(&self) -> String {
        match (self.reason, self.message) {
            ("", "") => "no reason is given".to_owned(),
            ("", text) | (text, "") => text.to_owned(),
            (reason, message) => format!("{reason}: {message}"),
        }
    }
}

#[derive(Clone, Copy)]
struct Object<'a>(&'a Value);

impl<'a> Object<'a> {
    fn text(self, pointer: &str) -> &'a str {
        self.0
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    fn number(self, pointer: &str) -> Option<i64> {
        self.0.pointer(pointer).and_then(Value::as_i64)
    }

    fn count(self, field: &str) -> i64 {
        self.number(&format!("/status/{field}")).unwrap_or(0)
    }

    fn condition(self, kind: &str) -> Option<Condition<'a>> {
        let conditions = self.0.pointer("/status/conditions")?.as_array()?;
        let found = conditions
            .iter()
            .find(|condition| condition.get("type").and_then(Value::as_str) == Some(kind))?;
        let text = |field: &str| found.get(field).and_then(Value::as_str).unwrap_or_default();
        Some(Condition {
            status: text("status"),
            reason: text("reason"),
            message: text("message"),
        })
    }

    /// The condition, where it is true.
    fn holds(self, kind: &str) -> Option<Condition<'a>> {
        self.condition(kind)
            .filter(|condition| condition.status == "True")
    }

    /// "Deployment shop/web".
    fn name(self) -> String {
        let (kind, name) = (self.text("/kind"), self.text("/metadata/name"));
        match self.text("/metadata/namespace") {
            "" => format!("{kind} {name}"),
            namespace => format!("{kind} {namespace}/{name}"),
        }
    }

    fn problem(self, code: &'static str, what: &str, action: &str) -> Problem {
        Problem::new(code, format!("{}: {what}", self.name()), action)
    }

    fn rolling_out(self, what: &str) -> Readiness {
        Readiness::progressing(self.problem(codes::ROLLOUT_PROGRESSING, what, ""))
    }

    fn not_ready(self, what: &str) -> Readiness {
        Readiness::progressing(self.problem(codes::CONDITION_NOT_READY, what, ""))
    }

    /// What holds for every kind: deletion, a status of an older specification, the standard conditions.
    fn generic(self) -> Option<Readiness> {
        if self.0.pointer("/metadata/deletionTimestamp").is_some() {
            return Some(Readiness::progressing(self.problem(
                codes::OBJECT_TERMINATING,
                "is being deleted",
                "if it stays so, one of its finalizers is not taken off",
            )));
        }
        let observed = self.number("/status/observedGeneration");
        if let (Some(observed), Some(generation)) = (observed, self.number("/metadata/generation"))
            && observed != generation
        {
            return Some(self.rolling_out("its controller has not seen the newest change yet"));
        }
        if let Some(condition) = self.holds("Stalled") {
            return Some(Readiness::degraded(self.problem(
                codes::CONDITION_STALLED,
                &condition.words(),
                "see what its controller says",
            )));
        }
        self.holds("Reconciling")
            .map(|condition| self.not_ready(&condition.words()))
    }

    fn by_condition(self, kind: &str) -> Readiness {
        match self.condition(kind) {
            Some(condition) if condition.status != "True" => self.not_ready(&condition.words()),
            // Kinds without the condition have nothing to get ready for: config maps, roles.
            _ => Readiness::healthy(),
        }
    }

    /// Pods that the API server or a quota refuses.
    fn refused_pods(self) -> Option<Readiness> {
        self.holds("ReplicaFailure").map(|condition| {
            Readiness::degraded(self.problem(
                codes::PODS_REFUSED,
                &format!("its pods are refused: {}", condition.message),
                "correct the quota, policy or pod template that refuses them",
            ))
        })
    }

    /// Progressing with the first of these pairs whose count is too low.
    fn too_few(self, wanted: i64, counts: &[(i64, &str)]) -> Option<Readiness> {
        counts
            .iter()
            .find(|(count, _)| *count < wanted)
            .map(|(count, what)| self.rolling_out(&format!("{count} of {wanted} {what}")))
    }

    /// A workload whose controller has not written a status yet.
    fn unseen(self) -> Option<Readiness> {
        self.number("/status/observedGeneration")
            .is_none()
            .then(|| self.rolling_out("its controller has not seen it yet"))
    }

    fn deployment(self) -> Readiness {
        if let Some(condition) = self.condition("Progressing")
            && condition.reason == "ProgressDeadlineExceeded"
        {
            return Readiness::degraded(self.problem(
                codes::ROLLOUT_STALLED,
                &format!("the rollout stalls: {}", condition.message),
                "see the causes of its pods",
            ));
        }
        let wanted = self.number("/spec/replicas").unwrap_or(1);
        let (replicas, updated) = (self.count("replicas"), self.count("updatedReplicas"));
        self.refused_pods()
            .or_else(|| self.unseen())
            .or_else(|| {
                self.too_few(
                    wanted,
                    &[
                        (replicas, "replicas exist"),
                        (updated, "replicas are updated"),
                        (self.count("readyReplicas"), "replicas are ready"),
                        (self.count("availableReplicas"), "replicas are available"),
                    ],
                )
            })
            .or_else(|| (replicas > wanted).then(|| self.rolling_out("old replicas still end")))
            .or_else(|| {
                self.condition("Available")
                    .filter(|condition| condition.status != "True")
                    .map(|condition| self.rolling_out(&condition.words()))
            })
            .unwrap_or(Readiness::healthy())
    }

    fn stateful_set(self) -> Readiness {
        let wanted = self.number("/spec/replicas").unwrap_or(1);
        if let Some(unseen) = self.unseen() {
            return unseen;
        }
        let on_delete = self.text("/spec/updateStrategy/type") == "OnDelete";
        let partition = self
            .number("/spec/updateStrategy/rollingUpdate/partition")
            .unwrap_or(0);
        self.too_few(
            wanted,
            &[
                (self.count("replicas"), "replicas exist"),
                (self.count("readyReplicas"), "replicas are ready"),
            ],
        )
        .or_else(|| (self.count("replicas") > wanted).then(|| self.rolling_out("old replicas still end")))
        // With OnDelete, replicas are updated only when someone deletes them.
        .or_else(|| {
            (!on_delete)
                .then(|| {
                    self.too_few(
                        (wanted - partition).max(0),
                        &[(self.count("updatedReplicas"), "replicas are updated")],
                    )
                })
                .flatten()
        })
        .or_else(|| {
            let differs = self.text("/status/currentRevision") != self.text("/status/updateRevision");
            (!on_delete && partition == 0 && differs)
                .then(|| self.rolling_out("the new revision is not the current one yet"))
        })
        .unwrap_or(Readiness::healthy())
    }

    fn daemon_set(self) -> Readiness {
        if let Some(unseen) = self.unseen() {
            return unseen;
        }
        let Some(wanted) = self.number("/status/desiredNumberScheduled") else {
            return self.rolling_out("its controller has not seen it yet");
        };
        let on_delete = self.text("/spec/updateStrategy/type") == "OnDelete";
        let updated = if on_delete {
            wanted
        } else {
            self.count("updatedNumberScheduled")
        };
        self.too_few(
            wanted,
            &[
                (self.count("currentNumberScheduled"), "pods exist"),
                (updated, "pods are updated"),
                (self.count("numberReady"), "pods are ready"),
                (self.count("numberAvailable"), "pods are available"),
            ],
        )
        .unwrap_or(Readiness::healthy())
    }

    fn replica_set(self) -> Readiness {
        let wanted = self.number("/spec/replicas").unwrap_or(1);
        self.refused_pods()
            .or_else(|| self.unseen())
            .or_else(|| {
                self.too_few(
                    wanted,
                    &[
                        (self.count("fullyLabeledReplicas"), "replicas exist"),
                        (self.count("readyReplicas"), "replicas are ready"),
                        (self.count("availableReplicas"), "replicas are available"),
                    ],
                )
            })
            .or_else(|| (self.count("replicas") > wanted).then(|| self.rolling_out("old replicas still end")))
            .unwrap_or(Readiness::healthy())
    }

    /// kstatus counts a job as current once it has started. Here one of its pods must do its work too: an image that cannot be
    /// pulled would pass otherwise.
    fn job(self) -> Readiness {
        if let Some(condition) = self.holds("Failed").or_else(|| self.holds("FailureTarget")) {
            return Readiness::degraded(self.problem(
                codes::JOB_FAILED,
                &format!("failed: {}", condition.words()),
                "see the log of its pods; give the job another name to run it again",
            ));
        }
        if self.holds("Complete").is_some() || self.holds("Suspended").is_some() {
            return Readiness::healthy();
        }
        if self.text("/status/startTime").is_empty() {
            return self.rolling_out("has not started yet");
        }
        if self.count("ready") + self.count("succeeded") > 0 {
            return Readiness::healthy();
        }
        match self.count("failed") {
            0 => self.rolling_out("none of its pods runs yet"),
            failed => self.rolling_out(&format!("{failed} of its pods failed, none runs")),
        }
    }

    fn chart(self, job: Option<&'a Value>) -> Readiness {
        let failed = |words: &str| {
            let action = format!(
                "see its log: kubectl -n {} logs job/{}",
                self.text("/metadata/namespace"),
                chart_job(self.0)
            );
            Readiness::degraded(self.problem(codes::CHART_FAILED, words, &action))
        };
        if let Some(condition) = self.holds("Failed") {
            return failed(&format!("cannot be installed: {}", condition.words()));
        }
        let Some(job) = job
            .map(Object)
            .filter(|job| job.0.pointer("/metadata/deletionTimestamp").is_none())
        else {
            return self.rolling_out("k3s has not begun to install it yet");
        };
        if let Some(condition) = job.holds("Failed").or_else(|| job.holds("FailureTarget")) {
            return failed(&format!("its job failed: {}", condition.words()));
        }
        if job.holds("Complete").is_some() {
            return Readiness::healthy();
        }
        match job.count("failed") {
            0 => self.rolling_out("its job is not done yet"),
            attempts => self.rolling_out(&format!("its job is not done yet; {attempts} attempts failed")),
        }
    }

    fn pod(self) -> Readiness {
        let cause = || super::pod_cause(std::slice::from_ref(self.0), &[]);
        match self.text("/status/phase") {
            "Succeeded" => Readiness::healthy(),
            "Failed" => Readiness::degraded(cause().unwrap_or_else(|| {
                self.problem(codes::POD_FAILED, self.text("/status/message"), "see its log")
            })),
            _ if self.holds("Ready").is_some() => Readiness::healthy(),
            _ => {
                let crashes = cause().filter(|cause| cause.code == codes::CONTAINER_CRASHES);
                if let Some(crashes) = crashes {
                    return Readiness::degraded(crashes);
                }
                self.rolling_out("is not ready yet").because_of(cause())
            }
        }
    }

    fn volume_claim(self) -> Readiness {
        match self.text("/status/phase") {
            "Bound" => Readiness::healthy(),
            "Lost" => Readiness::degraded(self.problem(
                codes::VOLUME_UNBOUND,
                "its volume is lost",
                "bring the volume back, or delete the claim with its data",
            )),
            _ => Readiness::progressing(self.problem(
                codes::VOLUME_UNBOUND,
                "is not bound to a volume yet",
                "check its storage class; some bind only when a pod uses the claim",
            )),
        }
    }

    fn service(self) -> Readiness {
        if self.text("/spec/type") == "LoadBalancer" && self.text("/spec/clusterIP").is_empty() {
            return self.not_ready("has no address yet");
        }
        Readiness::healthy()
    }

    fn definition(self) -> Readiness {
        let refused = |condition: &Condition<'_>| {
            Readiness::degraded(self.problem(
                codes::DEFINITION_REFUSED,
                &condition.words(),
                "give the definition names that no other one has",
            ))
        };
        if let Some(condition) = self.condition("NamesAccepted")
            && condition.status == "False"
        {
            return refused(&condition);
        }
        match self.condition("Established") {
            Some(condition) if condition.status == "True" => Readiness::healthy(),
            Some(condition) if condition.status == "False" && condition.reason != "Installing" => {
                refused(&condition)
            }
            _ => self.not_ready("is not established yet"),
        }
    }
}
