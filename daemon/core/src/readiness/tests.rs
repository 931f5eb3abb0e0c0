//! Objects as API servers give them, and what is said of them.

mod pods;

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn object(api_version: &str, kind: &str, spec: &Value, status: &Value) -> Value {
    json!({
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": "web", "namespace": "shop", "generation": 2, "uid": "u1"},
        "spec": spec,
        "status": status
    })
}

fn apps(kind: &str, spec: &Value, status: &Value) -> Value {
    let mut status = status.clone();
    if status.get("observedGeneration").is_none() {
        status["observedGeneration"] = 2.into();
    }
    object("apps/v1", kind, spec, &status)
}

fn code(readiness: &Readiness) -> Option<&str> {
    readiness.cause.as_ref().map(|cause| cause.code.as_ref())
}

#[track_caller]
fn expect(object: &Value, health: Health, cause: Option<&str>) {
    let readiness = readiness(object);
    assert_eq!(
        (readiness.health, code(&readiness)),
        (health, cause),
        "{object}: {readiness:?}"
    );
}

#[track_caller]
fn healthy(object: &Value) {
    expect(object, Health::Healthy, None);
}

#[track_caller]
fn progressing(object: &Value, cause: &str) {
    expect(object, Health::Progressing, Some(cause));
}

#[track_caller]
fn degraded(object: &Value, cause: &str) {
    expect(object, Health::Degraded, Some(cause));
}

#[test]
fn a_deployment_is_ready_when_all_its_replicas_are_of_the_newest_revision() {
    let spec = json!({"replicas": 2});
    let full = json!({"replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2,
        "conditions": [{"type": "Available", "status": "True"}]});
    healthy(&apps("Deployment", &spec, &full));
    healthy(&apps("Deployment", &json!({"replicas": 0}), &json!({})));
    for field in [
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
    ] {
        let mut fewer = full.clone();
        fewer[field] = 1.into();
        progressing(&apps("Deployment", &spec, &fewer), codes::ROLLOUT_PROGRESSING);
    }
    let mut more = full.clone();
    more["replicas"] = 3.into();
    progressing(&apps("Deployment", &spec, &more), codes::ROLLOUT_PROGRESSING);
    // Not one without a status: no controller has seen it yet.
    progressing(
        &object("apps/v1", "Deployment", &json!({"replicas": 0}), &json!({})),
        codes::ROLLOUT_PROGRESSING,
    );
}

#[test]
fn a_status_of_an_older_specification_never_counts() {
    let mut old = apps(
        "Deployment",
        &json!({}),
        &json!({"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1}),
    );
    healthy(&old);
    old["status"]["observedGeneration"] = 1.into();
    progressing(&old, codes::ROLLOUT_PROGRESSING);
}

#[test]
fn pain_13_a_stalled_rollout_is_told_with_its_reason() {
    let status = json!({"conditions": [{"type": "Progressing", "status": "False",
        "reason": "ProgressDeadlineExceeded", "message": "ReplicaSet \"web-1\" has timed out progressing."}]});
    let stalled = apps("Deployment", &json!({}), &status);
    degraded(&stalled, codes::ROLLOUT_STALLED);
    assert_eq!(
        readiness(&stalled).cause.map(|cause| cause.message),
        Some(
            "Deployment shop/web: the rollout stalls: ReplicaSet \"web-1\" has timed out progressing.".into()
        )
    );
}

#[test]
fn pods_that_a_quota_refuses_are_told() {
    let status = json!({"conditions": [{"type": "ReplicaFailure", "status": "True",
        "reason": "FailedCreate", "message": "exceeded quota"}]});
    degraded(&apps("Deployment", &json!({}), &status), codes::PODS_REFUSED);
    degraded(&apps("ReplicaSet", &json!({}), &status), codes::PODS_REFUSED);
}

#[test]
fn a_stateful_set_is_ready_when_its_revision_is_the_current_one() {
    let spec = json!({"replicas": 2});
    let full = json!({"replicas": 2, "readyReplicas": 2, "updatedReplicas": 2, "currentReplicas": 2,
        "currentRevision": "a", "updateRevision": "a"});
    healthy(&apps("StatefulSet", &spec, &full));
    let mut rolling = full.clone();
    rolling["updateRevision"] = "b".into();
    progressing(&apps("StatefulSet", &spec, &rolling), codes::ROLLOUT_PROGRESSING);
    let mut fewer = full.clone();
    fewer["readyReplicas"] = 1.into();
    progressing(&apps("StatefulSet", &spec, &fewer), codes::ROLLOUT_PROGRESSING);
    // A partition holds the rest back on purpose.
    let partition = json!({"replicas": 2, "updateStrategy": {"rollingUpdate": {"partition": 1}}});
    rolling["updatedReplicas"] = 1.into();
    healthy(&apps("StatefulSet", &partition, &rolling));
    rolling["updatedReplicas"] = 0.into();
    progressing(
        &apps("StatefulSet", &partition, &rolling),
        codes::ROLLOUT_PROGRESSING,
    );
    let on_delete = json!({"replicas": 2, "updateStrategy": {"type": "OnDelete"}});
    healthy(&apps("StatefulSet", &on_delete, &rolling));
}

#[test]
fn a_daemon_set_is_ready_when_every_wanted_pod_is() {
    let full = json!({"desiredNumberScheduled": 1, "currentNumberScheduled": 1, "updatedNumberScheduled": 1,
        "numberReady": 1, "numberAvailable": 1});
    healthy(&apps("DaemonSet", &json!({}), &full));
    for field in [
        "currentNumberScheduled",
        "updatedNumberScheduled",
        "numberReady",
        "numberAvailable",
    ] {
        let mut fewer = full.clone();
        fewer[field] = 0.into();
        progressing(&apps("DaemonSet", &json!({}), &fewer), codes::ROLLOUT_PROGRESSING);
    }
    progressing(
        &apps("DaemonSet", &json!({}), &json!({})),
        codes::ROLLOUT_PROGRESSING,
    );
}

#[test]
fn a_replica_set_is_ready_when_its_replicas_are() {
    let full = json!({"replicas": 1, "fullyLabeledReplicas": 1, "readyReplicas": 1, "availableReplicas": 1});
    healthy(&apps("ReplicaSet", &json!({}), &full));
    let mut fewer = full.clone();
    fewer["availableReplicas"] = 0.into();
    progressing(
        &apps("ReplicaSet", &json!({}), &fewer),
        codes::ROLLOUT_PROGRESSING,
    );
}

#[test]
fn a_job_is_ready_when_it_is_done_or_does_its_work() {
    let job = |status: Value| object("batch/v1", "Job", &json!({}), &status);
    let with = |kind: &str| job(json!({"conditions": [{"type": kind, "status": "True", "reason": "X"}]}));
    healthy(&with("Complete"));
    healthy(&with("Suspended"));
    degraded(&with("Failed"), codes::JOB_FAILED);
    progressing(&job(json!({})), codes::ROLLOUT_PROGRESSING);
    progressing(
        &job(json!({"startTime": "2026-01-01T00:00:00Z", "active": 1, "ready": 0})),
        codes::ROLLOUT_PROGRESSING,
    );
    healthy(&job(
        json!({"startTime": "2026-01-01T00:00:00Z", "active": 1, "ready": 1}),
    ));
}

#[test]
fn a_volume_claim_is_ready_when_it_is_bound() {
    let claim = |phase: &str| {
        object(
            "v1",
            "PersistentVolumeClaim",
            &json!({}),
            &json!({"phase": phase}),
        )
    };
    healthy(&claim("Bound"));
    progressing(&claim("Pending"), codes::VOLUME_UNBOUND);
    degraded(&claim("Lost"), codes::VOLUME_UNBOUND);
}

#[test]
fn a_definition_is_ready_when_it_is_established() {
    let definition = |conditions: Value| {
        object(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            &json!({}),
            &json!({"conditions": conditions}),
        )
    };
    progressing(&definition(json!([])), codes::CONDITION_NOT_READY);
    progressing(
        &definition(json!([{"type": "Established", "status": "False", "reason": "Installing"}])),
        codes::CONDITION_NOT_READY,
    );
    healthy(&definition(
        json!([{"type": "NamesAccepted", "status": "True"}, {"type": "Established", "status": "True"}]),
    ));
    degraded(
        &definition(json!([{"type": "NamesAccepted", "status": "False", "message": "taken"}])),
        codes::DEFINITION_REFUSED,
    );
}

#[test]
fn a_service_is_ready_when_it_has_an_address() {
    let service = |spec: Value| object("v1", "Service", &spec, &json!({}));
    healthy(&service(json!({"type": "ClusterIP"})));
    healthy(&service(json!({"type": "LoadBalancer", "clusterIP": "10.0.0.1"})));
    progressing(
        &service(json!({"type": "LoadBalancer"})),
        codes::CONDITION_NOT_READY,
    );
}

#[test]
fn other_kinds_are_judged_by_their_standard_conditions() {
    let custom = |kind: &str, status: &str| {
        object(
            "grid.example/v1",
            "Pylon",
            &json!({}),
            &json!({"conditions": [{"type": kind, "status": status, "reason": "R", "message": "m"}]}),
        )
    };
    healthy(&custom("Ready", "True"));
    progressing(&custom("Ready", "False"), codes::CONDITION_NOT_READY);
    progressing(&custom("Ready", "Unknown"), codes::CONDITION_NOT_READY);
    progressing(&custom("Reconciling", "True"), codes::CONDITION_NOT_READY);
    degraded(&custom("Stalled", "True"), codes::CONDITION_STALLED);
    healthy(&custom("Stalled", "False"));
    healthy(&object("v1", "ConfigMap", &Value::Null, &Value::Null));
    assert_eq!(
        readiness(&custom("Ready", "False"))
            .cause
            .map(|cause| cause.message),
        Some("Pylon shop/web: R: m".into())
    );
}

#[test]
fn what_is_being_deleted_is_not_ready() {
    let mut object = object("v1", "ConfigMap", &Value::Null, &Value::Null);
    object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    progressing(&object, codes::OBJECT_TERMINATING);
}

#[test]
fn a_summary_tells_the_worst_with_its_cause() {
    let problem = |code: &'static str| Problem::new(code, "", "");
    let all = [
        Readiness::healthy(),
        Readiness::progressing(problem(codes::ROLLOUT_PROGRESSING)),
        Readiness::degraded(problem(codes::JOB_FAILED)),
        Readiness::degraded(problem(codes::POD_FAILED)),
    ];
    let summary = Summary::of(&all);
    assert_eq!(
        (summary.health, summary.ready, summary.objects),
        (Health::Degraded, 1, 4)
    );
    assert_eq!(summary.cause, Some(problem(codes::JOB_FAILED)));
    assert_eq!(Summary::of([]).health, Health::Healthy);
    let better = all[1].clone().because_of(Some(problem(codes::IMAGE_PULL_FAILED)));
    assert_eq!(code(&better), Some(codes::IMAGE_PULL_FAILED));
    assert_eq!(code(&all[0].clone().because_of(Some(problem("x")))), None);
}

/// JSON that has the right field names with any values.
fn statuses() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        Just(json!("True")),
        Just(json!("False")),
        Just(json!("Pending")),
        Just(json!("CrashLoopBackOff")),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        let names = prop_oneof![
            Just("conditions"),
            Just("type"),
            Just("status"),
            Just("reason"),
            Just("replicas"),
            Just("readyReplicas"),
            Just("observedGeneration"),
            Just("containerStatuses"),
            Just("state"),
            Just("waiting"),
            Just("terminated"),
            Just("lastState"),
            Just("exitCode"),
            Just("phase"),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((names, inner), 0..5).prop_map(|fields| fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect()),
        ]
    })
}

proptest! {
    #[test]
    fn no_status_makes_it_panic_and_no_trouble_is_without_a_cause(status in statuses(), which in 0_usize..9) {
        let (api_version, kind) = [
            ("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"), ("apps/v1", "DaemonSet"), ("apps/v1", "ReplicaSet"),
            ("batch/v1", "Job"), ("v1", "Pod"), ("v1", "PersistentVolumeClaim"),
            ("apiextensions.k8s.io/v1", "CustomResourceDefinition"), ("x/v1", "Other"),
        ][which];
        let object = object(api_version, kind, &json!({}), &status);
        let readiness = readiness(&object);
        prop_assert_eq!(readiness.cause.is_none(), readiness.health == Health::Healthy);
        let _ = pod_cause(&[object], &[status]);
    }
}

#[test]
fn a_chart_is_ready_once_its_job_is_done() {
    let chart = |conditions: Value| {
        json!({
            "apiVersion": "helm.cattle.io/v1", "kind": "HelmChart",
            "metadata": {"name": "till", "namespace": "kube-system"},
            "status": {"conditions": conditions},
        })
    };
    let job = |status: Value| json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "helm-install-till"}, "status": status});
    let made = json!([{"type": "JobCreated", "status": "True"}, {"type": "Failed", "status": "False"}]);
    let aborted =
        json!([{"type": "Failed", "status": "True", "reason": "Job failed", "message": "too many retries"}]);
    let done = job(json!({"conditions": [{"type": "Complete", "status": "True"}]}));
    let suspended = job(json!({"conditions": [{"type": "Suspended", "status": "True"}]}));
    let trying = job(json!({"active": 1, "failed": 2}));
    let failed =
        job(json!({"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}));
    let mut ending = done.clone();
    ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    for (conditions, job, health, word) in [
        (json!([]), None, Health::Progressing, "not begun"),
        (
            made.clone(),
            Some(&suspended),
            Health::Progressing,
            "not done yet",
        ),
        (
            made.clone(),
            Some(&trying),
            Health::Progressing,
            "2 attempts failed",
        ),
        (made.clone(), Some(&ending), Health::Progressing, "not begun"),
        (
            made.clone(),
            Some(&failed),
            Health::Degraded,
            "BackoffLimitExceeded",
        ),
        (aborted, Some(&done), Health::Degraded, "too many retries"),
        (made, Some(&done), Health::Healthy, ""),
    ] {
        let chart = chart(conditions);
        let verdict = chart_readiness(&chart, job);
        assert_eq!(verdict.health, health, "{verdict:?}");
        let message = verdict.cause.map(|cause| cause.message).unwrap_or_default();
        assert!(message.contains(word), "{word}: {message}");
        assert_eq!(chart_job(&chart), "helm-install-till");
    }
}
