//! `os` of `release.yaml`: images that were pushed are named by their manifest, others by the path of one, and are pushed with the release.
//!
//! In: the section as it stands in the file. Out: the section as a document has it, and the files that the hub must have. An error comes with the
//! pointer below `/os`.

use super::artifacts::{Files, artifact};
use crate::{Result, codes, os, template::exactly_one};
use holdfast_os::Manifest;
use holdfast_protocol::{Problem, trust::TrustPolicy};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

type Placed<T> = std::result::Result<T, (String, Problem)>;

/// Makes each image an artifact, and sets the version where only the images say it.
pub(super) fn resolve(
    directory: &Path,
    section: &mut Map<String, Value>,
    keys: Option<&TrustPolicy>,
    files: &mut Files,
) -> Placed<()> {
    let version = section.get("version").and_then(Value::as_str).map(str::to_owned);
    let mut wanted = version.clone().filter(|version| exactly_one(version).is_none());
    let Some(Value::Object(images)) = section.get_mut("images") else {
        return Ok(());
    };
    for (architecture, value) in images.iter_mut() {
        let pointer = format!("/images/{architecture}");
        let placed = |problem| (pointer.clone(), problem);
        if let Some(reason) = os::unknown_architecture(architecture) {
            let action = "name the architecture that the image is for";
            return Err(placed(Problem::new(codes::RELEASE_INVALID, reason, action)));
        }
        let Some(path) = path_of(directory, value) else {
            artifact(directory, value, files).map_err(placed)?;
            continue;
        };
        let file = pick(&path, architecture, wanted.as_deref(), keys).map_err(placed)?;
        let image = os::image(&file, keys).map_err(placed)?;
        let version = wanted.get_or_insert_with(|| image.manifest.version.clone());
        os::fits(&image.manifest, version, architecture).map_err(|reason| placed(refused(&file, &reason)))?;
        files.insert(image.artifact.digest, image.file);
        files.insert(image.manifest.pack.digest, image.pack);
        let mut artifact = json!(image.artifact);
        if let Some(sources) = value.get("sources") {
            artifact["sources"] = sources.clone();
        }
        *value = artifact;
    }
    if version.is_none()
        && let Some(version) = wanted
    {
        section.insert("version".into(), Value::String(version));
    }
    Ok(())
}

fn refused(file: &Path, reason: &str) -> Problem {
    Problem::new(
        codes::RELEASE_INVALID,
        format!("{}: {reason}", file.display()),
        "name the image of this version and architecture",
    )
}

/// The path that an image is named by; none where it was pushed.
fn path_of(directory: &Path, value: &Value) -> Option<PathBuf> {
    let text = value
        .as_str()
        .or_else(|| value.get("file").and_then(Value::as_str))?;
    exactly_one(text).is_none().then(|| directory.join(text))
}

/// The manifest that is meant: the file, or that of the directory which fits.
fn pick(
    path: &Path,
    architecture: &str,
    version: Option<&str>,
    keys: Option<&TrustPolicy>,
) -> Result<PathBuf> {
    let mut manifests = os::manifests(path)?;
    if !path.is_dir() {
        return Ok(manifests.remove(0));
    }
    let mut fitting = Vec::new();
    for file in manifests {
        let (manifest, _) = os::read(&file, keys)?;
        if is_meant(&manifest, architecture, version) {
            fitting.push(file);
        }
    }
    let what = format!(
        "{architecture}{}",
        version.map_or_else(String::new, |version| format!(" of version {version}"))
    );
    match fitting.len() {
        1 => Ok(fitting.remove(0)),
        0 => Err(Problem::new(
            codes::RELEASE_INVALID,
            format!("{}: there is no image for {what}", path.display()),
            "build it: cargo xtask image",
        )),
        more => Err(Problem::new(
            codes::RELEASE_INVALID,
            format!("{}: there are {more} images for {what}", path.display()),
            "say the version, or name the manifest itself",
        )),
    }
}

fn is_meant(manifest: &Manifest, architecture: &str, version: Option<&str>) -> bool {
    manifest.architecture.name() == architecture && version.is_none_or(|version| manifest.version == version)
}
