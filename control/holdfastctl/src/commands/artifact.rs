//! Artifacts and blobs at the hub.

use super::confirm;
use crate::{
    cli::ArtifactCommand,
    client::Client,
    codes,
    failure::{Failure, Result},
    output::{self, Format, Table, age},
    upload::upload,
};
use holdfast_protocol::{
    Digest,
    operator::{BlobInfo, CollectBlobs, CollectedBlobs},
};
use jiff::Timestamp;
use reqwest::Method;
use serde::Serialize;
use std::{fmt::Write as _, fs::File, path::Path};

/// An artifact as a release names it.
#[derive(Serialize)]
struct Pushed {
    digest: Digest,
    size: u64,
    name: String,
}

/// Runs a command about artifacts.
pub async fn run(client: &Client, command: ArtifactCommand, format: Format) -> Result<()> {
    match command {
        ArtifactCommand::Push { files } => {
            let mut pushed = Vec::new();
            for file in &files {
                let artifact = look_at(file)?;
                upload(client, &artifact.digest, file, artifact.size).await?;
                pushed.push(artifact);
            }
            format.show(&pushed, |_| {
                let mut text = String::new();
                for artifact in &pushed {
                    // Writing to a string cannot fail.
                    let _ = writeln!(
                        text,
                        "{{digest: \"{}\", size: {}, name: {:?}}}",
                        artifact.digest, artifact.size, artifact.name
                    );
                }
                text
            })
        }
        ArtifactCommand::List => {
            let blobs: Vec<BlobInfo> = client.get("api/v1/blobs").await?;
            format.show(&blobs, |wide| list(&blobs, wide, "The hub holds no blobs."))
        }
        ArtifactCommand::Gc {
            older_than,
            dry_run,
            yes,
        } => {
            let mut request = CollectBlobs {
                older_than_seconds: older_than.as_secs(),
                dry_run: true,
            };
            let path = "api/v1/blobs/collect";
            let mut collected: CollectedBlobs = client.call(Method::POST, path, &request).await?;
            if !dry_run && !collected.blobs.is_empty() {
                confirm(
                    &format!(
                        "Remove {} blobs of {} bytes that no release and no node names?",
                        collected.blobs.len(),
                        collected.bytes
                    ),
                    yes,
                )?;
                request.dry_run = false;
                collected = client.call(Method::POST, path, &request).await?;
            }
            format.show(&collected, |wide| removed(&collected, dry_run, wide))
        }
    }
}

fn look_at(file: &Path) -> Result<Pushed> {
    let unreadable = |error: std::io::Error| {
        Failure::new(
            codes::FILE_UNREADABLE,
            format!("{} cannot be read: {error}", file.display()),
            "check the path and its permissions",
        )
    };
    let (digest, size) = File::open(file).and_then(Digest::of_reader).map_err(unreadable)?;
    if size == 0 {
        return Err(Failure::new(
            codes::FILE_UNREADABLE,
            format!("{} is empty", file.display()),
            "push it once it is whole",
        ));
    }
    Ok(Pushed {
        digest,
        size,
        name: file
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
    })
}

/// What was removed, or would be.
fn removed(collected: &CollectedBlobs, dry_run: bool, wide: bool) -> String {
    const NOTHING: &str = "No blob can be removed: each is named by a release or a node, or was uploaded more recently than --older-than says.";
    let list = list(&collected.blobs, wide, NOTHING);
    if collected.blobs.is_empty() {
        return list;
    }
    let what = if dry_run { "would be removed" } else { "removed" };
    format!(
        "{list}{} blobs, {} bytes {what}.\n",
        collected.blobs.len(),
        collected.bytes
    )
}

fn list(blobs: &[BlobInfo], wide: bool, empty: &str) -> String {
    let now = Timestamp::now();
    let mut table = Table::new(["DIGEST", "BYTES", "AGE", "BY", "NODES", "RELEASES"]);
    for blob in blobs {
        let digest = blob.digest.to_string();
        table.row([
            if wide {
                digest
            } else {
                digest.chars().take(19).collect()
            },
            blob.size.to_string(),
            age(blob.created_at, now),
            blob.created_by.clone(),
            blob.nodes.to_string(),
            output::printable(&blob.releases.join(",")),
        ]);
    }
    table.render(empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_can_be_removed_the_hub_is_not_said_to_be_empty() {
        for dry_run in [true, false] {
            let told = removed(&CollectedBlobs::default(), dry_run, false);
            assert!(told.starts_with("No blob can be removed"), "{told}");
            assert_eq!(told.lines().count(), 1, "{told}");
        }
        let blob = BlobInfo {
            digest: Digest::of(b"old"),
            size: 3,
            created_at: Timestamp::UNIX_EPOCH,
            created_by: "admin".to_owned(),
            releases: Vec::new(),
            nodes: 0,
        };
        let one = CollectedBlobs {
            bytes: 3,
            blobs: vec![blob],
        };
        let told = removed(&one, true, true);
        assert!(told.contains(&Digest::of(b"old").to_string()), "{told}");
        assert!(told.ends_with("1 blobs, 3 bytes would be removed.\n"), "{told}");
        assert!(removed(&one, false, true).ends_with("1 blobs, 3 bytes removed.\n"));
    }
}
