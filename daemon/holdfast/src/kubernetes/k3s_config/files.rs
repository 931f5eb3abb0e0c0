//! The files beside `config.yaml`: credentials of registries, the join secret, the kubelet's own settings, the audit policy.
//!
//! What holds a secret goes to `kubernetes.secrets_dir`, which is in memory unless the box says otherwise.

use super::{FileContent, to_json};
use crate::settings::Settings;
use holdfast_protocol::document::{K3sRole, K3sSection};
use serde_json::{Map, Value};
use std::path::PathBuf;

const HEADER: &str = "# Written by holdfast; changes are overwritten.\n";

/// File of the join secret.
pub(super) fn token(settings: &Settings) -> PathBuf {
    settings.kubernetes.secrets_dir.join("token")
}

/// File of mirrors and credentials of registries: <https://docs.k3s.io/installation/private-registry>.
pub(super) fn registries(settings: &Settings) -> PathBuf {
    settings.kubernetes.secrets_dir.join("registries.yaml")
}

/// File of the audit policy.
pub(super) fn audit_policy(settings: &Settings) -> PathBuf {
    settings
        .kubernetes_config_file()
        .with_file_name("audit-policy.yaml")
}

/// File of the kubelet's settings, in the directory that k3s (from 1.32 on) gives to its kubelet. k3s copies files that are elsewhere
/// to there and never removes the copies, so this one is written there by us.
fn kubelet(settings: &Settings) -> PathBuf {
    settings
        .kubernetes
        .data_dir
        .join("agent/etc/kubelet.conf.d/90-holdfast.conf")
}

pub(super) fn has_registries(settings: &Settings, section: &K3sSection) -> bool {
    !settings.kubernetes.registries.is_empty() || section.registries.is_some()
}

pub(super) fn has_audit_policy(settings: &Settings, section: &K3sSection) -> bool {
    !settings.kubernetes.audit_policy.is_empty() || !section.audit_policy.is_empty()
}

/// Every file that there can be, with its content, or none where there must be none.
pub(super) fn all(settings: &Settings, section: &K3sSection) -> Vec<(PathBuf, Option<FileContent>)> {
    let kubernetes = &settings.kubernetes;
    let join = section.join.as_ref();
    let own_kubelet = over(&kubernetes.kubelet, &section.kubelet);
    // A policy is one whole: rules of two do not add up to a third.
    let policy = if section.audit_policy.is_empty() {
        &kubernetes.audit_policy
    } else {
        &section.audit_policy
    };
    vec![
        (
            audit_policy(settings),
            (section.role == K3sRole::Server)
                .then(|| object("audit.k8s.io/v1", "Policy", policy))
                .flatten(),
        ),
        (
            kubelet(settings),
            object(
                "kubelet.config.k8s.io/v1beta1",
                "KubeletConfiguration",
                &own_kubelet,
            ),
        ),
        (
            registries(settings),
            has_registries(settings, section).then(|| registries_content(settings, section)),
        ),
        (
            token(settings),
            join.map(|join| FileContent::Token(Box::new(join.token.clone()))),
        ),
    ]
}

fn over(below: &Map<String, Value>, above: &Map<String, Value>) -> Map<String, Value> {
    let mut all = below.clone();
    all.extend(above.iter().map(|(key, value)| (key.clone(), value.clone())));
    all
}

/// An object of that kind with these fields; none where there are no fields.
fn object(api_version: &str, kind: &str, fields: &Map<String, Value>) -> Option<FileContent> {
    if fields.is_empty() {
        return None;
    }
    let mut all = fields.clone();
    all.insert("apiVersion".into(), api_version.into());
    all.insert("kind".into(), kind.into());
    Some(FileContent::Plain(yaml(&all)))
}

/// JSON is YAML, one top-level key on each line.
pub(super) fn yaml(fields: &Map<String, Value>) -> String {
    let mut names: Vec<_> = fields.keys().collect();
    names.sort_unstable();
    names.into_iter().fold(HEADER.to_owned(), |text, name| {
        text + name + ": " + &to_json(&fields[name]) + "\n"
    })
}

fn registries_content(settings: &Settings, section: &K3sSection) -> FileContent {
    let own = &settings.kubernetes.registries;
    let mut plain = own.clone();
    let mut credentials = std::collections::BTreeMap::new();
    if let Some(wanted) = &section.registries {
        for (name, above) in [("mirrors", &wanted.mirrors), ("configs", &wanted.configs)] {
            let below = own
                .get(name)
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default();
            let both = over(&below, above);
            if !both.is_empty() {
                plain.insert(name.into(), both.into());
            }
        }
        credentials.clone_from(&wanted.credentials);
    }
    FileContent::Registries { plain, credentials }
}
