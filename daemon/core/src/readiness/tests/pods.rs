//! Pods, and what is said of the trouble of one.

use super::*;

fn pod(status: &Value) -> Value {
    object("v1", "Pod", &json!({}), status)
}

fn container(status: &Value) -> Value {
    let mut container = json!({"name": "app", "image": "registry.example/app:1", "ready": false});
    for (key, value) in status.as_object().into_iter().flatten() {
        container[key] = value.clone();
    }
    pod(&json!({"phase": "Pending", "containerStatuses": [container]}))
}

#[track_caller]
fn says(pods: &[Value], events: &[Value], code: &str, message: &str) {
    let cause = pod_cause(pods, events);
    let found = cause
        .as_ref()
        .map(|cause| (cause.code.as_ref(), cause.message.as_str()));
    assert_eq!(found, Some((code, message)));
}

#[test]
fn an_image_that_cannot_be_pulled_is_told_in_words() {
    says(
        &[container(
            &json!({"state": {"waiting": {"reason": "ImagePullBackOff",
            "message": "Back-off pulling image \"registry.example/app:1\": not found"}}}),
        )],
        &[],
        codes::IMAGE_PULL_FAILED,
        "image can't be pulled: Back-off pulling image \"registry.example/app:1\": not found",
    );
    says(
        &[container(
            &json!({"state": {"waiting": {"reason": "ErrImagePull", "message": "no route to host"}}}),
        )],
        &[],
        codes::IMAGE_PULL_FAILED,
        "image can't be pulled: registry.example/app:1: no route to host",
    );
    says(
        &[container(
            &json!({"state": {"waiting": {"reason": "InvalidImageName"}}}),
        )],
        &[],
        codes::IMAGE_PULL_FAILED,
        "image can't be pulled: registry.example/app:1 (InvalidImageName)",
    );
}

#[test]
fn a_crashing_container_is_told_with_its_exit_code_and_last_words() {
    let crash = |terminated: Value| {
        container(&json!({
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}},
            "lastState": {"terminated": terminated}
        }))
    };
    says(
        &[crash(json!({"exitCode": 1, "reason": "Error"}))],
        &[],
        codes::CONTAINER_CRASHES,
        "container app crashes (exit code 1)",
    );
    says(
        &[crash(
            json!({"exitCode": 2, "reason": "Error", "message": "start\nno such table: t\n"}),
        )],
        &[],
        codes::CONTAINER_CRASHES,
        "container app crashes (exit code 2): no such table: t",
    );
    says(
        &[crash(json!({"exitCode": 137, "reason": "OOMKilled"}))],
        &[],
        codes::OUT_OF_MEMORY,
        "container app is killed because it uses more memory than its limit",
    );
    says(
        &[container(
            &json!({"state": {"terminated": {"exitCode": 3, "reason": "Error"}}}),
        )],
        &[],
        codes::CONTAINER_CRASHES,
        "container app crashes (exit code 3)",
    );
    // One that crashed long ago and runs now is not the cause.
    let recovered = container(&json!({"state": {"running": {}}, "ready": true,
        "lastState": {"terminated": {"exitCode": 1}}}));
    assert_eq!(pod_cause(&[recovered], &[]), None);
}

#[test]
fn a_missing_config_map_is_told() {
    says(
        &[container(
            &json!({"state": {"waiting": {"reason": "CreateContainerConfigError",
            "message": "configmap \"web\" not found"}}}),
        )],
        &[],
        codes::CONTAINER_CONFIG_INVALID,
        "container app can't be made: configmap \"web\" not found",
    );
}

#[test]
fn a_pod_without_a_place_is_told() {
    says(
        &[pod(
            &json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient memory."}]}),
        )],
        &[],
        codes::POD_UNSCHEDULABLE,
        "can't be scheduled: 0/1 nodes are available: 1 Insufficient memory.",
    );
}

#[test]
fn an_evicted_or_failed_pod_is_told() {
    says(
        &[pod(
            &json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}),
        )],
        &[],
        codes::POD_EVICTED,
        "was evicted: The node was low on resource: memory.",
    );
    says(
        &[pod(&json!({"phase": "Failed", "reason": "DeadlineExceeded"}))],
        &[],
        codes::POD_FAILED,
        "pod failed: DeadlineExceeded",
    );
}

#[test]
fn warnings_tell_what_the_status_does_not() {
    let event = |uid: &str, reason: &str, message: &str| json!({"type": "Warning", "reason": reason, "message": message, "involvedObject": {"uid": uid}});
    let events = [
        event("u2", "FailedMount", "of another pod"),
        event("u1", "FailedMount", "secret \"web\" not found"),
    ];
    says(
        &[container(
            &json!({"state": {"waiting": {"reason": "ContainerCreating"}}}),
        )],
        &events,
        codes::POD_BLOCKED,
        "can't be started: secret \"web\" not found",
    );
    let running = pod(&json!({"phase": "Running", "containerStatuses": [
        {"name": "app", "ready": false, "state": {"running": {}}}]}));
    says(
        std::slice::from_ref(&running),
        &[event("u1", "Unhealthy", "Readiness probe failed: 503")],
        codes::CONTAINER_NOT_READY,
        "container app runs but is not ready: Readiness probe failed: 503",
    );
    says(
        &[running],
        &[],
        codes::CONTAINER_NOT_READY,
        "container app runs but is not ready",
    );
}

#[test]
fn the_most_telling_cause_of_many_pods_comes_first() {
    let unschedulable =
        pod(&json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False"}]}));
    let image = container(&json!({"state": {"waiting": {"reason": "ErrImagePull", "message": "x"}}}));
    let cause = pod_cause(&[unschedulable, image], &[]).map(|cause| cause.code);
    assert_eq!(cause.as_deref(), Some(codes::IMAGE_PULL_FAILED));
    assert_eq!(pod_cause(&[pod(&json!({"phase": "Succeeded"}))], &[]), None);
    assert_eq!(pod_cause(&[], &[]), None);
}

#[test]
fn a_pod_of_its_own_is_judged_by_its_phase() {
    healthy(&pod(&json!({"phase": "Succeeded"})));
    healthy(&pod(
        &json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}),
    ));
    progressing(&pod(&json!({"phase": "Pending"})), codes::ROLLOUT_PROGRESSING);
    degraded(&pod(&json!({"phase": "Failed"})), codes::POD_FAILED);
    degraded(
        &container(&json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1}}})),
        codes::CONTAINER_CRASHES,
    );
}
