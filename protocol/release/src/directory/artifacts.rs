//! Artifacts of a release: named by digest, or files beside `release.yaml` whose digest is taken here.

use super::files;
use crate::{Result, codes};
use holdfast_protocol::{Digest, Problem};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};

/// Files that the hub must have, by digest.
pub type Files = BTreeMap<Digest, PathBuf>;

/// Lists of artifacts by architecture; an error comes with the pointer below them.
pub(super) fn artifacts(
    directory: &Path,
    value: &mut Value,
    files: &mut Files,
) -> std::result::Result<(), (String, Problem)> {
    let Value::Object(map) = value else {
        return Ok(());
    };
    for (architecture, list) in map {
        for (index, item) in list.as_array_mut().into_iter().flatten().enumerate() {
            artifact(directory, item, files)
                .map_err(|problem| (format!("/{architecture}/{index}"), problem))?;
        }
    }
    Ok(())
}

/// An artifact as it stands in the file becomes one of the document.
pub(super) fn artifact(directory: &Path, value: &mut Value, files: &mut Files) -> Result<()> {
    let Value::Object(map) = value else {
        return Ok(());
    };
    let Some(Value::String(file)) = map.remove("file") else {
        let missing = ["digest", "size"].into_iter().find(|key| !map.contains_key(*key));
        return match missing {
            None => Ok(()),
            Some(key) => Err(Problem::new(
                codes::RELEASE_INVALID,
                format!("the artifact has no {key}"),
                "give it a file, or digest and size",
            )),
        };
    };
    let path = directory.join(&file);
    let (digest, size) = measure(&path)?;
    for (key, found) in [("digest", json!(digest)), ("size", json!(size))] {
        if map.get(key).is_some_and(|said| *said != found) {
            return Err(Problem::new(
                codes::RELEASE_INVALID,
                format!("{} has the {key} {found}, not the one beside it", path.display()),
                "get the right file, or take the key away",
            ));
        }
        map.insert(key.into(), found);
    }
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    map.entry("name").or_insert(Value::String(name));
    files.insert(digest, path);
    Ok(())
}

/// Digest and size of a file, read once.
pub(crate) fn measure(path: &Path) -> Result<(Digest, u64)> {
    files::require_readable(path)?;
    File::open(path)
        .and_then(Digest::of_reader)
        .map_err(|error| files::unreadable(path, &error))
}
