//! The seed: a release that is baked into an image, for boxes that start before any hub has said anything.
//!
//! ```text
//! OUT/release.json            what the box shall run, rendered
//! OUT/artifacts/sha256/HEX    manifests above 16 KiB, k3s, archives of images
//! ```
//!
//! In: a release directory. Out: a directory that needs nothing beside it. Guarantees: what a box could not make of it alone is refused here:
//! values that only a hub knows, names of nodes, other machines of a site.

use crate::{Result, codes, directory::Release, os::some_of, render::Blobs};
use holdfast_protocol::{
    Digest, Generation, NodeId, Problem, SchemaVersion,
    document::{App, DesiredState, K3sRole, ManifestSource},
    operator::{Labels, ReleaseContent},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

/// Name of the file that says what shall run.
pub const FILE: &str = "release.json";
/// The largest such file, in bytes (16 MiB): as for a blob of manifests.
const MAX_BYTES: usize = 16 << 20;
/// Where the files are that it names, by digest.
pub const ARTIFACTS: &str = "artifacts/sha256";

/// What the file holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seed {
    /// Version of this form.
    pub schema: SchemaVersion,
    /// What shall run, with all values filled in.
    pub content: ReleaseContent,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Written {
    /// Where.
    pub directory: PathBuf,
    /// Bytes of all files beside the first.
    pub bytes: u64,
    /// What the box must know of, in words.
    pub notes: Vec<String>,
}

fn refused(what: &str, action: &str) -> Problem {
    Problem::new(
        codes::RELEASE_INVALID,
        format!("a seed cannot hold {what}"),
        action,
    )
}

/// Writes a release as a seed to `out`, which must be empty or not there. The labels are those that values are chosen by.
pub fn write(release: &Release, labels: &Labels, out: &Path) -> Result<Written> {
    let mut notes = Vec::new();
    let (mut content, blobs) = same_everywhere(release, labels)?;
    check(&content)?;
    if content.os.take().is_some() {
        notes.push("the operating system is left out: a box runs the image that the seed is in".to_owned());
    }
    let artifacts = out.join(ARTIFACTS);
    prepare(out, &artifacts)?;
    let mut bytes = 0;
    let named: BTreeSet<Digest> = artifacts_of(&content).map(|(digest, _)| digest).collect();
    for (digest, text) in blobs {
        bytes += text.len() as u64;
        write_file(&artifacts.join(digest.hex()), &text)?;
    }
    for (digest, file) in release.files.iter().filter(|(digest, _)| named.contains(*digest)) {
        let target = artifacts.join(digest.hex());
        bytes += fs::copy(file, &target).map_err(|error| unwritable(&target, &error))?;
    }
    for (digest, name) in artifacts_of(&content).filter(|(digest, _)| !release.files.contains_key(digest)) {
        notes.push(format!(
            "{name} ({digest}) is not on this machine: bake it into the image's artifacts, or boxes fetch it from its sources"
        ));
    }
    let seed = Seed {
        schema: SchemaVersion::CURRENT,
        content,
    };
    let json = serde_json::to_vec_pretty(&seed)
        .map_err(|error| unwritable(&out.join(FILE), &io::Error::other(error)))?;
    write_file(&out.join(FILE), &json)?;
    Ok(Written {
        directory: out.to_owned(),
        bytes,
        notes,
    })
}

/// Reads the seed of a directory; none where there is no such file.
pub fn read(directory: &Path) -> Result<Option<Seed>> {
    let file = directory.join(FILE);
    if fs::metadata(&file).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(None);
    }
    let bytes = some_of(&file, MAX_BYTES)?;
    let invalid = |reason: String| {
        Problem::new(
            codes::RELEASE_INVALID,
            format!("{}: {reason}", file.display()),
            "write it anew: holdfastctl release render --file DIR --seed OUT",
        )
    };
    if bytes.len() > MAX_BYTES {
        return Err(invalid(format!("it has more than {MAX_BYTES} bytes")));
    }
    let seed: Seed = serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
    seed.schema
        .check_supported()
        .map_err(|error| invalid(error.to_string()))?;
    Ok(Some(seed))
}

/// All that a content names by digest for one architecture, with the size in bytes.
pub fn needed(content: &ReleaseContent, architecture: &str) -> Vec<(Digest, u64)> {
    let manifests = content.apps.iter().flat_map(|app| &app.manifests);
    let blobs = manifests.filter_map(|source| match source {
        ManifestSource::Blob(blob) => Some((blob.digest, blob.size)),
        ManifestSource::Inline(_) => None,
    });
    let k3s = content.k3s.iter().flat_map(|k3s| {
        let images = k3s.images.get(architecture).into_iter().flatten();
        k3s.binaries.get(architecture).into_iter().chain(images)
    });
    let apps = content
        .apps
        .iter()
        .flat_map(|app| app.images.get(architecture).into_iter().flatten());
    let artifacts = k3s.chain(apps).map(|artifact| (artifact.digest, artifact.size));
    blobs.chain(artifacts).collect()
}

impl Seed {
    /// What the box that calls itself `node` shall run. The same seed and name always give the same.
    pub fn document(&self, node: NodeId, generation: Generation) -> DesiredState {
        DesiredState {
            schema: SchemaVersion::CURRENT,
            node,
            generation,
            issued_at: Timestamp::UNIX_EPOCH,
            release: None,
            k3s: self.content.k3s.clone(),
            os: None,
            apps: self.content.apps.clone(),
            policy: self.content.policy.clone(),
            extra: Map::new(),
        }
    }
}

/// Every artifact that a content names, of all architectures, with its name.
fn artifacts_of(content: &ReleaseContent) -> impl Iterator<Item = (Digest, String)> {
    let k3s = content
        .k3s
        .iter()
        .flat_map(|k3s| k3s.binaries.values().chain(k3s.images.values().flatten()));
    let apps = content.apps.iter().flat_map(App::artifacts);
    k3s.chain(apps)
        .map(|artifact| (artifact.digest, artifact.name.clone()))
}

/// The content with all values filled in, which must be the same whatever the box is called.
fn same_everywhere(release: &Release, labels: &Labels) -> Result<(ReleaseContent, Blobs)> {
    let name = |text: &str| -> Result<NodeId> {
        text.parse()
            .map_err(|error| refused(&format!("the name {text}: {error}"), "report this as a bug"))
    };
    let one = release.render(&name("one")?, labels)?;
    let other = release.render(&name("other")?, labels)?;
    if one.content != other.content {
        return Err(refused(
            "values that differ between nodes",
            "take ${node.name} and values of single nodes out; a hub's release gives those later",
        ));
    }
    let blobs = one
        .blobs
        .into_iter()
        .map(|(digest, objects)| (digest, Value::Array(objects).to_string().into_bytes()))
        .collect();
    Ok((one.content, blobs))
}

/// Refuses what needs a hub.
fn check(content: &ReleaseContent) -> Result<()> {
    if let Some(app) = content.apps.iter().find(|app| !app.secrets.is_empty()) {
        return Err(refused(
            &format!("sealed secrets (app {})", app.name),
            "secrets are sealed to single boxes by a hub; leave the app to the first release of the hub",
        ));
    }
    let Some(k3s) = &content.k3s else {
        return Ok(());
    };
    if k3s.site.is_some() || k3s.role != K3sRole::default() {
        return Err(refused(
            "boxes that join others of their site",
            "leave k3s.site and k3s.role out; a hub's release gives them later",
        ));
    }
    if k3s
        .registries
        .as_ref()
        .is_some_and(|registries| !registries.credentials.is_empty())
    {
        return Err(refused(
            "credentials of registries",
            "bake the images of the seed in; a hub's release gives credentials later",
        ));
    }
    Ok(())
}

fn unwritable(path: &Path, error: &io::Error) -> Problem {
    Problem::new(
        codes::FILE_UNREADABLE,
        format!("{} cannot be written: {error}", path.display()),
        "check the path, its permissions and the room on its disk",
    )
}

fn prepare(out: &Path, artifacts: &Path) -> Result<()> {
    if fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Problem::new(
            codes::RELEASE_INVALID,
            format!("{} is not empty", out.display()),
            "name a new directory, or empty this one",
        ));
    }
    fs::create_dir_all(artifacts).map_err(|error| unwritable(artifacts, &error))
}

#[allow(
    clippy::disallowed_methods,
    reason = "a directory that is made anew, and thrown away where that fails"
)]
fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).map_err(|error| unwritable(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_or_a_file_without_end_in_place_of_a_seed_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert_eq!(read(path), Ok(None));
        nix::unistd::mkfifo(&path.join(FILE), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(read(path).unwrap_err().message.contains(FILE));
        fs::remove_file(path.join(FILE)).unwrap();
        fs::File::create(path.join(FILE))
            .unwrap()
            .set_len(MAX_BYTES as u64 + 1)
            .unwrap();
        assert!(read(path).unwrap_err().message.contains("more than"));
    }
}
