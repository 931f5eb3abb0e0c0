//! Waits until the API server serves the kind of a custom resource definition.

use crate::kubernetes::{Cluster, KubernetesError};
use futures::StreamExt as _;
use holdfast_core::{failure::Failure, object::PreparedObject};
use kube::{core::DynamicObject, runtime::watcher::watch_object};
use serde_json::Value;
use std::{pin::pin, time::Duration};

/// The API server needs well below a second; a definition that clashes with another is never established.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for one definition; the failure says what its conditions say.
pub(super) async fn established(cluster: &Cluster, definition: &PreparedObject) -> Result<(), Failure> {
    let key = &definition.key;
    let fail = |error: KubernetesError| error.failure(key);
    let kind = cluster.kind(&key.api_version, &key.kind).await.map_err(fail)?;
    let mut states = pin!(watch_object(cluster.object_api(&kind), &key.name));
    let mut last = "no condition yet".to_owned();
    let wait = async {
        while let Some(state) = states.next().await {
            match state {
                Ok(Some(object)) => match verdict(&object) {
                    Ok(()) => return true,
                    Err(reason) => last = reason,
                },
                Ok(None) => "it was deleted".clone_into(&mut last),
                // The watch begins again by itself; only its answer counts.
                Err(error) => last = error.to_string(),
            }
        }
        false
    };
    if tokio::time::timeout(PATIENCE, wait).await == Ok(true) {
        // The kinds of its group are other ones now.
        cluster.forget_kinds();
        return Ok(());
    }
    Err(fail(KubernetesError::NotEstablished {
        name: key.name.clone(),
        seconds: PATIENCE.as_secs(),
        reason: last,
    }))
}

fn verdict(object: &DynamicObject) -> Result<(), String> {
    let conditions = object
        .data
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    let conditions = conditions.map(Vec::as_slice).unwrap_or_default();
    let text = |condition: &Value, field: &str| {
        condition
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let is = |name: &str, status: &str| {
        conditions
            .iter()
            .find(|condition| text(condition, "type") == name && text(condition, "status") == status)
    };
    if is("Established", "True").is_some() {
        return Ok(());
    }
    Err(is("NamesAccepted", "False").map_or_else(
        || "it is not established yet".into(),
        |condition| text(condition, "message"),
    ))
}
