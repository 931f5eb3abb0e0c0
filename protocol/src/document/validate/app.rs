//! Rules of one app.

use super::{Checked, InvalidDocument, fail, images, is_subdomain, label, line, require, within};
use crate::{
    MAX_INLINE_BYTES, NodeId,
    document::{
        App, MAX_MANIFEST_BLOB_BYTES, ManifestSource, Probe, ProbeCheck, ProbeTarget, SealedSecret,
        check_object,
    },
};
use std::collections::BTreeSet;

/// The most probes of an app.
const MAX_PROBES: usize = 16;
/// The most sealed Secrets of an app.
const MAX_SECRETS: usize = 64;
/// The most values of a sealed Secret.
const MAX_SECRET_KEYS: usize = 64;
/// Kinds whose pods a probe can run a command in.
const WORKLOADS: &[&str] = &["Deployment", "StatefulSet", "DaemonSet", "Pod"];

/// Checks an app, and gives the number of its inline objects and Secrets.
pub(super) fn check(place: &str, app: &App) -> Result<usize, InvalidDocument> {
    if let Err(error) = app.name.parse::<NodeId>() {
        fail(format!("{place}.name"), error.to_string())?;
    }
    if let Some(Err(error)) = app.namespace.as_ref().map(|name| name.parse::<NodeId>()) {
        fail(format!("{place}.namespace"), error.to_string())?;
    }
    let objects = manifests(place, app)?;
    images(&format!("{place}.images"), &app.images)?;
    let count = app.probes.len();
    require(
        count <= MAX_PROBES,
        format!("{place}.probes"),
        format!("{count} probes; at most {MAX_PROBES}"),
    )?;
    let mut names = BTreeSet::new();
    for (index, probe) in app.probes.iter().enumerate() {
        let place = format!("{place}.probes[{index}]");
        require(
            names.insert(&probe.name),
            format!("{place}.name"),
            format!("{:?} is the name of an earlier probe too", probe.name),
        )?;
        self::probe(&place, probe)?;
    }
    let count = app.secrets.len();
    require(
        count <= MAX_SECRETS,
        format!("{place}.secrets"),
        format!("{count} Secrets; at most {MAX_SECRETS}"),
    )?;
    let mut names = BTreeSet::new();
    for (index, secret) in app.secrets.iter().enumerate() {
        let place = format!("{place}.secrets[{index}]");
        require(
            names.insert((&secret.namespace, &secret.name)),
            format!("{place}.name"),
            format!("{:?} is the name of an earlier Secret too", secret.name),
        )?;
        self::secret(&place, secret)?;
    }
    Ok(objects + app.secrets.len())
}

fn manifests(place: &str, app: &App) -> Result<usize, InvalidDocument> {
    let mut objects = 0;
    let mut inline_bytes = 0;
    for (number, source) in app.manifests.iter().enumerate() {
        match source {
            ManifestSource::Inline(values) => {
                objects += values.len();
                inline_bytes += values.iter().map(|value| value.to_string().len()).sum::<usize>();
                for (position, value) in values.iter().enumerate() {
                    if let Err(reason) = check_object(value) {
                        fail(format!("{place}.manifests[{number}].inline[{position}]"), reason)?;
                    }
                }
            }
            ManifestSource::Blob(blob) => require(
                blob.size <= MAX_MANIFEST_BLOB_BYTES,
                format!("{place}.manifests[{number}].blob.size"),
                format!("{} bytes; at most {MAX_MANIFEST_BLOB_BYTES}", blob.size),
            )?,
        }
    }
    require(
        inline_bytes <= MAX_INLINE_BYTES,
        format!("{place}.manifests"),
        format!("{inline_bytes} bytes inline; at most {MAX_INLINE_BYTES}: use a blob"),
    )?;
    Ok(objects)
}

fn probe(place: &str, probe: &Probe) -> Checked {
    label(format!("{place}.name"), &probe.name)?;
    within(format!("{place}.periodSeconds"), probe.period_seconds, 1, 3_600)?;
    within(format!("{place}.timeoutSeconds"), probe.timeout_seconds, 1, 300)?;
    within(
        format!("{place}.failureThreshold"),
        probe.failure_threshold,
        1,
        100,
    )?;
    match &probe.check {
        ProbeCheck::Http { target, path, .. } => {
            let place = format!("{place}.check.http");
            self::target(&place, target)?;
            require(
                path.starts_with('/')
                    && path.len() <= 1_024
                    && !path.contains(|c: char| c.is_whitespace() || c.is_control()),
                format!("{place}.path"),
                format!("{path:?}: write a path that starts with '/', without spaces"),
            )
        }
        ProbeCheck::Tcp { target } => self::target(&format!("{place}.check.tcp"), target),
        ProbeCheck::Exec {
            namespace,
            workload,
            command,
            ..
        } => {
            let place = format!("{place}.check.exec");
            if let Some(namespace) = namespace {
                label(format!("{place}.namespace"), namespace)?;
            }
            require(
                workload
                    .split_once('/')
                    .is_some_and(|(kind, name)| WORKLOADS.contains(&kind) && is_subdomain(name)),
                format!("{place}.workload"),
                format!(
                    "{workload:?}: write KIND/NAME with one of {}",
                    WORKLOADS.join(", ")
                ),
            )?;
            require(
                (1..=64).contains(&command.len()) && !command[0].is_empty(),
                format!("{place}.command"),
                "write the command and its arguments as a list of 1 to 64 texts",
            )
        }
    }
}

fn target(place: &str, target: &ProbeTarget) -> Checked {
    match target {
        ProbeTarget::Service {
            namespace,
            name,
            port,
        } => {
            let place = format!("{place}.target.service");
            if let Some(namespace) = namespace {
                label(format!("{place}.namespace"), namespace)?;
            }
            label(format!("{place}.name"), name)?;
            require(*port > 0, format!("{place}.port"), "0 is no port")
        }
        ProbeTarget::Address(address) => {
            let place = format!("{place}.target.address");
            line(&place, address, 300)?;
            require(
                address.rsplit_once(':').is_some_and(|(host, port)| {
                    !host.is_empty()
                        && !host.contains(|c: char| c.is_whitespace() || c == '/')
                        && port.parse::<u16>().is_ok_and(|port| port > 0)
                }),
                place,
                format!("{address:?}: write HOST:PORT, such as 127.0.0.1:8080"),
            )
        }
    }
}

fn secret(place: &str, secret: &SealedSecret) -> Checked {
    require(
        is_subdomain(&secret.name),
        format!("{place}.name"),
        format!("{:?} is no name of a Secret", secret.name),
    )?;
    if let Some(namespace) = &secret.namespace {
        label(format!("{place}.namespace"), namespace)?;
    }
    if let Some(kind) = &secret.kind {
        line(&format!("{place}.type"), kind, 253)?;
    }
    let count = secret.data.len();
    require(
        (1..=MAX_SECRET_KEYS).contains(&count),
        format!("{place}.data"),
        format!("{count} values; 1 to {MAX_SECRET_KEYS}"),
    )?;
    for (key, value) in &secret.data {
        let place = format!("{place}.data.{key}");
        require(
            key.len() <= 253
                && !key.is_empty()
                && key
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)),
            &place,
            format!("{key:?}: use up to 253 letters, digits, '-', '_' and '.'"),
        )?;
        line(&format!("{place}.source"), &value.source, 253)?;
    }
    Ok(())
}
