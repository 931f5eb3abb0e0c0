//! Why pods are not ready, in words.

use crate::codes;
use holdfast_protocol::Problem;
use serde_json::Value;

/// Reasons of a waiting container that mean its image cannot be had (kubelet `pkg/kubelet/images/types.go`).
const IMAGE_REASONS: [&str; 7] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
];

/// Reasons of a waiting container that mean it cannot be made (kubelet `pkg/kubelet/kuberuntime/kuberuntime_container.go`).
const CONFIG_REASONS: [&str; 6] = [
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "PreCreateHookError",
    "PreStartHookError",
    "PostStartHookError",
];

/// The first cause that holds pods back: the most telling one, in the order image, configuration, memory, crash, scheduling,
/// eviction, failure, events, probe. `events` are the events about these pods, where the caller has them.
///
/// None where no pod says anything: they are all ready, or have just been made.
pub fn pod_cause(pods: &[Value], events: &[Value]) -> Option<Problem> {
    pods.iter()
        .filter_map(|pod| cause_of(pod, events))
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, problem)| problem)
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .trim()
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// "what: why", or only what where no reason is given.
fn because(what: &str, why: &str) -> String {
    if why.is_empty() {
        what.to_owned()
    } else {
        format!("{what}: {why}")
    }
}

/// The cause of one pod with its rank; the lowest is the most telling.
fn cause_of(pod: &Value, events: &[Value]) -> Option<(u8, Problem)> {
    if pod.pointer("/metadata/deletionTimestamp").is_some() || text(pod, "/status/phase") == "Succeeded" {
        return None;
    }
    let containers =
        || list(pod, "/status/initContainerStatuses").chain(list(pod, "/status/containerStatuses"));
    containers()
        .filter_map(container_cause)
        .min_by_key(|(rank, _)| *rank)
        .or_else(|| condition_cause(pod))
        .or_else(|| event_cause(pod, events))
        .or_else(|| {
            containers()
                .find(|status| {
                    status.pointer("/state/running").is_some()
                        && status.get("ready").and_then(Value::as_bool) == Some(false)
                })
                .map(|status| {
                    let probe = warnings(pod, events)
                        .find(|event| text(event, "/reason") == "Unhealthy")
                        .map(|event| text(event, "/message"))
                        .unwrap_or_default();
                    let what = format!("container {} runs but is not ready", text(status, "/name"));
                    (
                        8,
                        Problem::new(
                            codes::CONTAINER_NOT_READY,
                            because(&what, probe),
                            "see its log and its readiness and startup probes",
                        ),
                    )
                })
        })
}

fn container_cause(status: &Value) -> Option<(u8, Problem)> {
    let name = text(status, "/name");
    let reason = text(status, "/state/waiting/reason");
    let message = text(status, "/state/waiting/message");
    if IMAGE_REASONS.contains(&reason) {
        let image = text(status, "/image");
        // The message mostly names the image itself.
        let why = match (message.is_empty(), message.contains(image)) {
            (true, _) => format!("{image} ({reason})"),
            (false, true) => message.to_owned(),
            (false, false) => format!("{image}: {message}"),
        };
        return Some((
            0,
            Problem::new(
                codes::IMAGE_PULL_FAILED,
                because("image can't be pulled", &why),
                "check the image's name, the registry and its credentials; offline, the image must be on the box",
            ),
        ));
    }
    if CONFIG_REASONS.contains(&reason) {
        let why = if message.is_empty() { reason } else { message };
        return Some((
            1,
            Problem::new(
                codes::CONTAINER_CONFIG_INVALID,
                because(&format!("container {name} can't be made"), why),
                "add what it refers to, or correct its settings",
            ),
        ));
    }
    // It ended just now, or ended before and waits for its next start.
    let (ended, ends_again) = match status.pointer("/state/terminated") {
        Some(ended) => (ended, true),
        None => (
            status.pointer("/lastState/terminated")?,
            reason == "CrashLoopBackOff",
        ),
    };
    let code = ended.get("exitCode").and_then(Value::as_i64).unwrap_or(0);
    if !ends_again || (code == 0 && reason != "CrashLoopBackOff") {
        return None;
    }
    if text(ended, "/reason") == "OOMKilled" {
        return Some((
            2,
            Problem::new(
                codes::OUT_OF_MEMORY,
                format!("container {name} is killed because it uses more memory than its limit"),
                "raise its memory limit, or make it use less",
            ),
        ));
    }
    // The last line of what the container left is mostly the error.
    let said = text(ended, "/message").lines().last().unwrap_or_default().trim();
    let why = match (said, text(ended, "/reason")) {
        ("", "Error" | "Completed") => "",
        ("", reason) => reason,
        (said, _) => said,
    };
    Some((
        3,
        Problem::new(
            codes::CONTAINER_CRASHES,
            because(&format!("container {name} crashes (exit code {code})"), why),
            "see its log",
        ),
    ))
}

fn condition_cause(pod: &Value) -> Option<(u8, Problem)> {
    let scheduled = list(pod, "/status/conditions").find(|condition| {
        text(condition, "/type") == "PodScheduled" && text(condition, "/status") == "False"
    });
    if let Some(condition) = scheduled {
        // A scheduling gate is no fault of the box.
        let why = match text(condition, "/message") {
            "" => text(condition, "/reason"),
            message => message,
        };
        return Some((
            4,
            Problem::new(
                codes::POD_UNSCHEDULABLE,
                because("can't be scheduled", why),
                "lower its requests, or loosen its node selector, affinity or tolerations",
            ),
        ));
    }
    if text(pod, "/status/phase") != "Failed" {
        return None;
    }
    let message = text(pod, "/status/message");
    if text(pod, "/status/reason") == "Evicted" {
        return Some((
            5,
            Problem::new(
                codes::POD_EVICTED,
                because("was evicted", message),
                "free disk or memory of the box, or lower what the pod uses",
            ),
        ));
    }
    let why = if message.is_empty() {
        text(pod, "/status/reason")
    } else {
        message
    };
    Some((
        6,
        Problem::new(codes::POD_FAILED, because("pod failed", why), "see its log"),
    ))
}

/// Warnings about this pod, the newest first (the API server gives the oldest first).
fn warnings<'a>(pod: &'a Value, events: &'a [Value]) -> impl Iterator<Item = &'a Value> {
    let uid = text(pod, "/metadata/uid");
    events.iter().rev().filter(move |event| {
        text(event, "/type") == "Warning" && !uid.is_empty() && text(event, "/involvedObject/uid") == uid
    })
}

/// A pod that waits for its volumes or its network says so in events alone.
fn event_cause(pod: &Value, events: &[Value]) -> Option<(u8, Problem)> {
    if text(pod, "/status/phase") != "Pending" {
        return None;
    }
    let event = warnings(pod, events).find(|event| text(event, "/reason").starts_with("Failed"))?;
    Some((
        7,
        Problem::new(
            codes::POD_BLOCKED,
            because("can't be started", text(event, "/message")),
            "add what it waits for: a volume, a config map, a secret, the network",
        ),
    ))
}
