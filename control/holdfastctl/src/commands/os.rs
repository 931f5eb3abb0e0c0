//! Images of the operating system.

use crate::{
    cli::OsCommand,
    client::Client,
    codes,
    failure::{Failure, Result},
    output::{self, Format},
    upload::upload,
};
use holdfast_protocol::document::{Artifact, OsSection};
use holdfast_release::os::{self, Image};
use serde_json::Map;
use std::{collections::BTreeMap, fmt::Write as _, path::Path};

/// Runs a command about images.
pub async fn run(client: &Client, command: OsCommand, format: Format) -> Result<()> {
    let OsCommand::Push { path, os_keys } = command;
    let sections = sections(&path, os_keys.as_deref())?;
    for image in sections.values().flatten() {
        let pack = &image.manifest.pack;
        upload(client, &pack.digest, &image.pack, pack.size).await?;
        // The manifest goes last: where it is, the pack is.
        upload(client, &image.artifact.digest, &image.file, image.artifact.size).await?;
    }
    let shown: Vec<OsSection> = sections
        .iter()
        .map(|(version, images)| section(version, images))
        .collect();
    format.show(&shown, |_| shown.iter().map(paste).collect::<Vec<_>>().join("\n"))
}

/// All images of a path, by version; an architecture stands once below each.
fn sections(path: &Path, os_keys: Option<&Path>) -> Result<BTreeMap<String, Vec<Image>>> {
    let keys = os_keys.map(os::keys).transpose()?;
    let mut sections: BTreeMap<String, Vec<Image>> = BTreeMap::new();
    for file in os::manifests(path)? {
        let image = os::image(&file, keys.as_ref())?;
        let others = sections.entry(image.manifest.version.clone()).or_default();
        if let Some(other) = others
            .iter()
            .find(|other| other.manifest.architecture == image.manifest.architecture)
        {
            return Err(Failure::new(
                codes::USAGE,
                format!(
                    "{} and {} are both version {} for {}",
                    other.file.display(),
                    file.display(),
                    image.manifest.version,
                    image.manifest.architecture
                ),
                "name the manifest that is meant",
            ));
        }
        others.push(image);
    }
    Ok(sections)
}

fn section(version: &str, images: &[Image]) -> OsSection {
    OsSection {
        version: version.to_owned(),
        images: images
            .iter()
            .map(|image| {
                let architecture = image.manifest.architecture.name().to_owned();
                (architecture, image.artifact.clone())
            })
            .collect(),
        max_bytes_per_second: None,
        extra: Map::new(),
    }
}

/// The section as it stands in `release.yaml`.
fn paste(section: &OsSection) -> String {
    let mut text = format!("os:\n  version: {:?}\n  images:\n", section.version);
    for (
        architecture,
        Artifact {
            digest, size, name, ..
        },
    ) in &section.images
    {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "    {architecture}: {{digest: \"{digest}\", size: {size}, name: {:?}}}",
            output::printable(name)
        );
    }
    text
}
