//! Releases.

use super::wait;
use crate::{
    cli::{ReleaseCommand, ReleaseSource},
    client::{Client, encoded},
    codes,
    failure::{Failure, Result},
    output::{self, Format, Table, age},
    stream::Stream,
    upload::upload,
};
use holdfast_protocol::{
    NodeId,
    document::{FailurePolicy, ManifestSource},
    operator::{AssignRelease, Assigned, CreateRelease, Labels, NodeInfo, ReleaseInfo, RenderedRelease},
};
use holdfast_release::directory::{Options, Release};
use jiff::Timestamp;
use reqwest::Method;
use std::{fmt::Write as _, path::Path};

/// Runs a command about releases.
pub async fn run(client: &Client, command: ReleaseCommand, format: Format) -> Result<()> {
    match command {
        ReleaseCommand::Create {
            name,
            source,
            k3s_version,
            dry_run,
        } => {
            let mut loaded = load(&source)?;
            if let Some(version) = k3s_version {
                loaded.content.k3s.get_or_insert_default().version = Some(version);
            }
            let request = CreateRelease {
                name: name.to_string(),
                content: loaded.content,
            };
            if dry_run {
                return format.show(&request, |_| {
                    describe(&request.name, &request.content.apps, loaded.objects)
                });
            }
            for (digest, content) in loaded.blobs {
                client.put(&format!("api/v1/blobs/{digest}"), content).await?;
            }
            for (digest, file) in loaded.files {
                let size = std::fs::metadata(&file).map_or(0, |found| found.len());
                upload(client, &digest, &file, size).await?;
            }
            let made: ReleaseInfo = client.call(Method::POST, "api/v1/releases", &request).await?;
            format.show(&made, |_| {
                format!(
                    "{}Give it to nodes: holdfastctl release assign {name} --node NODE --wait\n",
                    describe(&request.name, &request.content.apps, loaded.objects)
                )
            })
        }
        ReleaseCommand::Render {
            source, node, labels, ..
        } => {
            let mut labels: Labels = labels.into_iter().collect();
            if let Some(node) = node.as_ref().filter(|_| labels.is_empty()) {
                let known: NodeInfo = client.get(&format!("api/v1/nodes/{node}")).await?;
                labels = known.labels;
            }
            render(&source, node, &labels, format)
        }
        ReleaseCommand::Delete { name, yes } => {
            let shown = output::printable(&name);
            super::confirm(
                &format!("Delete release {shown}? It cannot be given to nodes any more."),
                yes,
            )?;
            client
                .delete(&format!("api/v1/releases/{}", encoded(&name)))
                .await?;
            output::note(&format!("Release {shown} is deleted."));
            Ok(())
        }
        ReleaseCommand::List => {
            let mut releases: Vec<ReleaseInfo> = client.get("api/v1/releases").await?;
            releases.sort_by_key(|release| std::cmp::Reverse(release.created_at));
            format.show(&releases, |wide| list(&releases, wide))
        }
        ReleaseCommand::Show { name } => {
            let release: ReleaseInfo = client.get(&format!("api/v1/releases/{}", encoded(&name))).await?;
            format.show(&release, |_| show(&release))
        }
        ReleaseCommand::Assign {
            name,
            nodes,
            selector,
            all,
            wait,
        } => {
            let selector = if all { Some(String::new()) } else { selector };
            // Opened before the assignment, so that nothing that follows from it can be missed.
            let stream = match wait {
                Some(_) => Some(Stream::open(client).await?),
                None => None,
            };
            let path = format!("api/v1/releases/{}/assign", encoded(&name));
            let assigned: Assigned = client
                .call(Method::POST, &path, &AssignRelease { nodes, selector })
                .await?;
            if let (Some(timeout), Some(stream)) = (wait, stream) {
                wait::until_proven(client, stream, &assigned, timeout).await?;
            }
            format.show(&assigned, |_| sent(&assigned))
        }
    }
}

/// Shows what a node would get of a release directory.
pub fn render(source: &ReleaseSource, node: Option<NodeId>, labels: &Labels, format: Format) -> Result<()> {
    let loaded = load(source)?;
    let node = match node {
        Some(node) => node,
        None => "node"
            .parse()
            .map_err(|error| Failure::new(codes::USAGE, format!("{error}"), "name a node: --node"))?,
    };
    let rendered = loaded.render(&node, labels)?;
    format.show(&rendered, |_| manifests(&rendered))
}

/// Writes a release directory as the seed of an image.
pub fn seed(source: &ReleaseSource, labels: &Labels, out: &Path, format: Format) -> Result<()> {
    let written = holdfast_release::seed::write(&load(source)?, labels, out)?;
    format.show(&written, |_| {
        let mut text = format!(
            "The seed is in {}, with {} bytes of manifests and artifacts.\n",
            written.directory.display(),
            written.bytes
        );
        for note in &written.notes {
            let _ = writeln!(text, "note: {}", output::printable(note));
        }
        text
    })
}

/// All objects as YAML, each with its app.
fn manifests(rendered: &RenderedRelease) -> String {
    let mut text = String::new();
    for (name, value) in &rendered.variables {
        let _ = writeln!(text, "# {name} = {value}");
    }
    for app in &rendered.content.apps {
        for source in &app.manifests {
            let objects = match source {
                ManifestSource::Inline(objects) => objects,
                ManifestSource::Blob(blob) => match rendered.blobs.get(&blob.digest) {
                    Some(objects) => objects,
                    None => continue,
                },
            };
            for object in objects {
                let object = output::yaml(object).unwrap_or_else(|error| error);
                let _ = writeln!(
                    text,
                    "---\n# app {}\n{}",
                    output::printable(&app.name),
                    object.trim_end()
                );
            }
        }
    }
    text
}

fn load(source: &ReleaseSource) -> Result<Release> {
    let options = Options {
        kustomize: source.kustomize.clone(),
        allow_remote: source.allow_remote,
        os_keys: source.os_keys.clone(),
    };
    Ok(holdfast_release::directory::load(&source.file, &options)?)
}

fn sent(assigned: &Assigned) -> String {
    if assigned.generations.is_empty() {
        return format!("No node fits; {} was given to none.\n", assigned.release);
    }
    let mut table = Table::new(["NODE", "RELEASE", "GENERATION"]);
    for (node, generation) in &assigned.generations {
        table.row([node.to_string(), assigned.release.clone(), generation.to_string()]);
    }
    table.render("")
}

fn describe(name: &str, apps: &[holdfast_protocol::document::App], objects: usize) -> String {
    let names: Vec<&str> = apps.iter().map(|app| app.name.as_str()).collect();
    format!(
        "Release {name}: {} {} ({}), {objects} objects.\n",
        apps.len(),
        if apps.len() == 1 { "app" } else { "apps" },
        names.join(", ")
    )
}

fn list(releases: &[ReleaseInfo], wide: bool) -> String {
    let now = Timestamp::now();
    let mut table = Table::new(if wide {
        ["NAME", "APPS", "NODES", "AGE", "CREATED BY", "DIGEST"]
    } else {
        ["NAME", "APPS", "NODES", "AGE", "CREATED BY", ""]
    });
    for release in releases {
        table.row([
            release.name.clone(),
            release.apps.join(","),
            release.nodes.to_string(),
            age(release.created_at, now),
            release.created_by.clone(),
            if wide {
                release.digest.to_string()
            } else {
                String::new()
            },
        ]);
    }
    table.render("No releases. Make one: holdfastctl release create hello-1 -f examples/hello")
}

fn show(release: &ReleaseInfo) -> String {
    let mut text = format!(
        "{:<10}{}\n{:<10}{}\n{:<10}{} by {}\n{:<10}{}\n",
        "Release",
        release.name,
        "Digest",
        release.digest,
        "Created",
        release.created_at,
        release.created_by,
        "Nodes",
        release.nodes
    );
    let Some(content) = &release.content else {
        return text;
    };
    if let Some(version) = content.k3s.as_ref().and_then(|k3s| k3s.version.as_ref()) {
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(text, "{:<10}{version}", "k3s");
    }
    if let Some(os) = &content.os {
        let architectures: Vec<&str> = os.images.keys().map(String::as_str).collect();
        let limit = os.max_bytes_per_second.map_or_else(String::new, |limit| {
            format!(", fetched with at most {limit} bytes a second")
        });
        let _ = writeln!(
            text,
            "{:<10}{} for {}{limit}",
            "OS",
            output::printable(&os.version),
            output::printable(&architectures.join(", "))
        );
    }
    let policy = &content.policy;
    for window in &policy.windows {
        let days: Vec<String> = window
            .days
            .iter()
            .map(|day| format!("{day:?}").to_lowercase())
            .collect();
        let days = if days.is_empty() {
            "every day".to_owned()
        } else {
            days.join(",")
        };
        let zone = output::printable(&window.time_zone);
        let _ = writeln!(
            text,
            "{:<10}{days} {} to {}, {zone}",
            "Window", window.start, window.end
        );
    }
    if policy.urgent {
        let _ = writeln!(text, "{:<10}waits for no window", "Urgent");
    }
    for (name, variable) in &content.variables {
        let kind = format!("{:?}", variable.kind).to_lowercase();
        let from = variable
            .from
            .as_ref()
            .map_or_else(String::new, |from| format!(", from {from}"));
        let default = variable.default.as_ref().map_or_else(String::new, |value| {
            format!(
                ", {} where nothing says it",
                output::printable(&value.to_string())
            )
        });
        let _ = writeln!(text, "{:<10}{name}: {kind}{from}{default}", "Variable");
    }
    for app in &content.apps {
        let _ = writeln!(text, "\nApp {}", output::printable(&app.name));
        if app.on_failure == FailurePolicy::Isolate {
            text.push_str("  fails alone\n");
        }
        for probe in &app.probes {
            let _ = writeln!(text, "  probe {}", output::printable(&probe.name));
        }
        for secret in &app.secrets {
            let _ = writeln!(text, "  sealed Secret {}", output::printable(&secret.name));
        }
        for source in &app.manifests {
            match source {
                ManifestSource::Inline(objects) => {
                    for object in objects {
                        let part = |pointer: &str| {
                            object
                                .pointer(pointer)
                                .and_then(|value| value.as_str())
                                .map(output::printable)
                        };
                        let namespace = part("/metadata/namespace").or_else(|| app.namespace.clone());
                        let _ = writeln!(
                            text,
                            "  {} {}{}",
                            part("/kind").unwrap_or_default(),
                            namespace.map_or_else(String::new, |namespace| format!("{namespace}/")),
                            part("/metadata/name").unwrap_or_default()
                        );
                    }
                }
                ManifestSource::Blob(blob) => {
                    let _ = writeln!(text, "  {} bytes of manifests, {}", blob.size, blob.digest);
                }
            }
        }
    }
    text
}
