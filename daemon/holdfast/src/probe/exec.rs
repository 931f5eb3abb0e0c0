//! A command in a container, over the API server's WebSocket (`v4.channel.k8s.io`, as `kubectl exec` speaks it:
//! <https://github.com/kubernetes/apimachinery/blob/master/pkg/util/remotecommand/constants.go>).
//!
//! What the command writes is thrown away; what counts is the status that Kubernetes sends at its end.

use super::{
    Bad,
    frames::{Frame, read},
};
use crate::{
    kubernetes::{Cluster, cluster::escaped},
    pace::random,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use holdfast_core::object::ObjectKey;
use http::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Write as _};

/// Channel of the status at the end.
const STATUS: u8 = 3;

pub(super) async fn run(
    cluster: &Cluster,
    namespace: &str,
    workload: &str,
    container: Option<&str>,
    command: &[String],
) -> Result<(), Bad> {
    let pod = pod_of(cluster, namespace, workload).await?;
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let name = text("/metadata/name");
    let container = container.unwrap_or_else(|| text("/spec/containers/0/name"));
    let mut path = format!(
        "/api/v1/namespaces/{namespace}/pods/{name}/exec?container={}&stdout=true&stderr=true",
        escaped(container)
    );
    for word in command {
        // Writing to a String cannot fail.
        let _ = write!(path, "&command={}", escaped(word));
    }
    let mut key = [0; 16];
    key[..8].copy_from_slice(&random().to_le_bytes());
    key[8..].copy_from_slice(&random().to_le_bytes());
    let request = Request::get(path)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, STANDARD.encode(key))
        .header(header::SEC_WEBSOCKET_PROTOCOL, "v4.channel.k8s.io");
    let what = format!("a command in pod {namespace}/{name}");
    let broken = |error: &dyn std::fmt::Display| Bad::Answer(format!("{what}: {error}"));
    let answer = cluster
        .raw(&what, request)
        .await
        .map_err(|error| broken(&error))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(broken(&format!("the API server answers {}", answer.status())));
    }
    let upgraded = hyper::upgrade::on(answer).await.map_err(|error| broken(&error))?;
    let mut stream = TokioIo::new(upgraded);
    loop {
        match read(&mut stream).await.map_err(|error| broken(&error))? {
            Frame::Data(bytes) if bytes.first() == Some(&STATUS) => return judge(&bytes[1..]),
            Frame::Data(_) | Frame::Other => {}
            Frame::Close => return Err(broken(&"the connection ended before the command did")),
        }
    }
}

/// What Kubernetes says at the end of a command.
fn judge(status: &[u8]) -> Result<(), Bad> {
    let status: Value = serde_json::from_slice(status).unwrap_or_default();
    if status["status"] == "Success" {
        return Ok(());
    }
    let message = status["message"].as_str().unwrap_or("the command failed");
    Err(Bad::Answer(message.to_owned()))
}

/// The first ready pod of `Deployment/web`, or the pod itself.
async fn pod_of(cluster: &Cluster, namespace: &str, workload: &str) -> Result<Value, Bad> {
    let (kind, name) = workload
        .split_once('/')
        .ok_or_else(|| Bad::Probe(format!("{workload:?} is no workload: write Deployment/web")))?;
    let api_version = match kind {
        "Pod" => "v1",
        "Deployment" | "StatefulSet" | "DaemonSet" => "apps/v1",
        _ => {
            return Err(Bad::Probe(format!(
                "{kind} is no kind of workload: use Deployment, StatefulSet, DaemonSet or Pod"
            )));
        }
    };
    let key = ObjectKey {
        api_version: api_version.into(),
        kind: kind.into(),
        namespace: Some(namespace.to_owned()),
        name: name.to_owned(),
    };
    let answer = cluster
        .get(&key)
        .await
        .map_err(|error| Bad::Answer(error.to_string()))?;
    let object = answer.ok_or_else(|| Bad::Answer(format!("{key} is not in the cluster")))?;
    if kind == "Pod" {
        return Ok(object);
    }
    let labels: BTreeMap<String, String> = object
        .pointer("/spec/selector/matchLabels")
        .and_then(|labels| serde_json::from_value(labels.clone()).ok())
        .unwrap_or_default();
    let pods = cluster
        .pods(namespace, &labels)
        .await
        .map_err(|error| Bad::Answer(error.to_string()))?;
    pods.into_iter()
        .find(is_ready)
        .ok_or_else(|| Bad::Answer(format!("{key} has no ready pod")))
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

#[cfg(test)]
mod tests {
    use super::{escaped, judge};

    #[test]
    fn the_status_of_kubernetes_decides() {
        assert!(judge(br#"{"metadata":{},"status":"Success"}"#).is_ok());
        let failed =
            br#"{"status":"Failure","message":"command terminated with non-zero exit code: exit status 3",
            "reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
        assert!(judge(failed).is_err());
        assert!(judge(b"").is_err());
    }

    #[test]
    fn a_command_is_one_word_of_the_query_each() {
        assert_eq!(escaped("a b&c=/%"), "a%20b%26c%3D%2F%25");
    }
}
