//! Sealed values at a whole node with a real Kubernetes: opened in memory only, kept right like any other object, refused by name.

// Fixtures may be written plainly, and a test may end by its panic.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod engine_support;

use anyhow::{Context as _, Result};
use engine_support::{app, broker::Hub, config_map, node::Node};
use holdfast::{codes, identity::Identity};
use holdfast_harness::wait;
use holdfast_protocol::{
    report::{Health, Phase},
    seal::{SealingKey, seal},
    sealing::{SealingPublicKey, secret_name},
};
use serde_json::{Value, json};
use std::{fs, path::Path};

const VALUE: &str = "hunter2-in-the-clear";
/// The same in base64, as Kubernetes has it.
const ENCODED: &str = "aHVudGVyMi1pbi10aGUtY2xlYXI=";

fn key(node: &Node) -> Result<SealingPublicKey> {
    Ok(Identity::load_or_make_sealing(&node.settings.identity_dir())?.public())
}

fn with_secret(namespace: &str, sealed: &Value) -> Value {
    let mut app = app("till", namespace, &[config_map("settings", "1")]);
    app["secrets"] =
        json!([{"name": "till", "data": {"password": {"source": "till-password", "sealed": sealed}}}]);
    app
}

fn sealed(key: &SealingPublicKey, name: &str) -> Value {
    serde_json::to_value(seal(key, name, VALUE.as_bytes()).unwrap()).unwrap()
}

/// Files below `directory` that hold `text`.
fn holding(directory: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(holding(&path, text));
        } else if fs::read(&path)
            .is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
        {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test]
async fn a_sealed_secret_is_applied_kept_right_pruned_and_nowhere_at_rest() -> Result<()> {
    let hub = Hub::start().await?;
    let node = Node::start(&hub, "sealed").await?;
    let name = secret_name("till-password");
    let value = sealed(&key(&node)?, &name);
    node.publish(&hub, 1, &[with_secret("default", &value)]).await?;
    node.until_proven(1).await?;
    let there = node
        .object("default", "secret", "till")
        .await?
        .context("the Secret is there")?;
    assert_eq!(there["data"]["password"], ENCODED);
    assert_eq!(there["type"], "Opaque");

    // Somebody changes it: it is put back, from what is sealed in the store.
    node.kubectl
        .run(&[
            "patch",
            "secret",
            "till",
            "-n",
            "default",
            "-p",
            r#"{"data":{"password":"b3RoZXI="}}"#,
        ])
        .await?;
    wait::until("the value is put back", engine_support::PATIENCE, async || {
        let now = node
            .object("default", "secret", "till")
            .await?
            .context("the Secret is there")?;
        Ok((now["data"]["password"] == ENCODED).then_some(()))
    })
    .await?;

    for text in [VALUE, ENCODED] {
        let found = holding(node.directory.path(), text);
        assert!(found.is_empty(), "{text} is in {found:?}");
    }
    assert!(!serde_json::to_string(&node.status()?)?.contains("hunter2"));
    assert!(!format!("{:?}", hub.heard()).contains("hunter2"));

    node.publish(&hub, 2, &[app("till", "default", &[config_map("settings", "1")])])
        .await?;
    node.until_proven(2).await?;
    assert!(node.object("default", "secret", "till").await?.is_none());
    Ok(())
}

#[tokio::test]
async fn a_value_that_does_not_open_fails_the_document_before_anything_is_touched() -> Result<()> {
    let hub = Hub::start().await?;
    let node = Node::start(&hub, "refusing").await?;
    let own = key(&node)?;
    let good = sealed(&own, &secret_name("till-password"));
    node.publish(
        &hub,
        1,
        &[
            with_secret("refusing", &good),
            app("ns", "default", &[engine_support::namespace("refusing")]),
        ],
    )
    .await?;
    node.until_proven(1).await?;

    let moved = sealed(&own, &secret_name("another-place"));
    let mut tampered = good.clone();
    let text = tampered["ciphertext"].as_str().unwrap();
    let flipped = if text.starts_with('A') { "B" } else { "A" };
    tampered["ciphertext"] = format!("{flipped}{}", &text[1..]).into();
    let foreign = sealed(&SealingKey::generate().public(), &secret_name("till-password"));
    for (counter, value, code) in [
        (2, moved, codes::SEALED_VALUE_UNUSABLE),
        (3, tampered, codes::SEALED_VALUE_UNUSABLE),
        (4, foreign, codes::SEALED_TO_OTHER_KEY),
        (5, Value::Null, codes::SEALED_VALUE_UNUSABLE),
    ] {
        let mut apps = vec![with_secret("refusing", &value)];
        apps.push(app("other", "default", &[config_map("never", "1")]));
        node.publish(&hub, counter, &apps).await?;
        let status = node
            .until("the document failed", |status| {
                status
                    .generation
                    .accepted
                    .is_some_and(|generation| generation.counter == counter)
                    && status.generation.phase == Phase::Failed
            })
            .await?;
        let cause = status.generation.cause.context("it says why")?;
        assert_eq!(cause.code, code, "{cause}");
        assert!(
            cause
                .message
                .contains("secrets[0] (till).data.password (till-password)"),
            "{cause}"
        );
        assert!(!cause.message.contains("hunter2"));
        assert!(
            node.object("default", "configmap", "never").await?.is_none(),
            "something was touched"
        );
        let there = node
            .object("refusing", "secret", "till")
            .await?
            .context("it stays")?;
        assert_eq!(there["data"]["password"], ENCODED);
    }
    // Sealed again, it goes on.
    let again = sealed(&own, &secret_name("till-password"));
    node.publish(
        &hub,
        6,
        &[
            with_secret("refusing", &again),
            app("ns", "default", &[engine_support::namespace("refusing")]),
        ],
    )
    .await?;
    node.until_proven(6).await?;
    node.until("all is well", |status| status.health == Health::Healthy)
        .await?;
    Ok(())
}
