//! Which files a release directory has, and which app each belongs to.

use super::{invalid, settings};
use crate::{
    codes,
    failure::{Failure, Result},
};
use holdfast_protocol::NodeId;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// How deep directories of an app are looked into; a symbolic link that leads in a circle ends there.
const MAX_DEPTH: usize = 16;

/// The files of one app, in the order of their names.
#[derive(Debug, PartialEq, Eq)]
pub struct AppFiles {
    /// Name of the app.
    pub name: String,
    /// Its manifests.
    pub files: Vec<PathBuf>,
}

/// What was found: `holdfast.yaml` if there is one, and the apps.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// The release's settings.
    pub settings: Option<PathBuf>,
    /// The apps, by name.
    pub apps: Vec<AppFiles>,
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        codes::FILE_UNREADABLE,
        format!("{} cannot be read: {error}", path.display()),
        "check the path and its permissions",
    )
}

/// Reads a file as text.
pub fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| unreadable(path, &error))
}

/// Looks at a file or a directory.
pub fn find(path: &Path) -> Result<Found> {
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if metadata.is_file() {
        return Ok(Found {
            settings: None,
            apps: vec![AppFiles {
                name: name_of(path, path.file_stem())?,
                files: vec![path.to_owned()],
            }],
        });
    }
    let (directories, files) = list(path)?;
    let settings = files
        .iter()
        .find(|file| file.file_name().is_some_and(|name| name == settings::FILE))
        .cloned();
    let files: Vec<PathBuf> = files
        .into_iter()
        .filter(|file| Some(file) != settings.as_ref() && is_manifest(file))
        .collect();
    if directories.is_empty() {
        let whole = fs::canonicalize(path).map_err(|error| unreadable(path, &error))?;
        files.iter().try_for_each(|file| check(file))?;
        if files.is_empty() {
            return Err(no_manifests(path));
        }
        return Ok(Found {
            settings,
            apps: vec![AppFiles {
                name: name_of(path, whole.file_name())?,
                files,
            }],
        });
    }
    if let Some(file) = files.first() {
        return Err(invalid(
            &file.display().to_string(),
            "stands beside directories, so it belongs to no app",
            "move it into one of the directories: each of them is an app",
        ));
    }
    let mut apps = Vec::new();
    for directory in directories {
        let mut files = Vec::new();
        collect(&directory, 0, &mut files)?;
        if files.is_empty() {
            return Err(no_manifests(&directory));
        }
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        let name: NodeId = name.parse().map_err(|error| {
            invalid(
                &directory.display().to_string(),
                &format!("cannot be the name of an app: {error}"),
                "rename the directory",
            )
        })?;
        apps.push(AppFiles {
            name: name.to_string(),
            files,
        });
    }
    Ok(Found { settings, apps })
}

fn no_manifests(path: &Path) -> Failure {
    invalid(
        &path.display().to_string(),
        "holds no manifest (*.yaml, *.yml, *.json)",
        "put Kubernetes manifests there, or remove the directory",
    )
}

fn name_of(path: &Path, name: Option<&std::ffi::OsStr>) -> Result<String> {
    name.and_then(|name| NodeId::sanitised(&name.to_string_lossy()))
        .map(|name| name.to_string())
        .ok_or_else(|| {
            invalid(
                &path.display().to_string(),
                "gives no usable name for the app",
                "use letters and digits",
            )
        })
}

/// Directories and files of a directory by name, without hidden ones.
fn list(path: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let mut directories = Vec::new();
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| unreadable(path, &error))? {
        let entry = entry.map_err(|error| unreadable(path, &error))?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let metadata = fs::metadata(entry.path()).map_err(|error| unreadable(&entry.path(), &error))?;
        if metadata.is_dir() {
            directories.push(entry.path());
        } else {
            files.push(entry.path());
        }
    }
    directories.sort();
    files.sort();
    Ok((directories, files))
}

fn collect(directory: &Path, depth: usize, into: &mut Vec<PathBuf>) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(invalid(
            &directory.display().to_string(),
            &format!("is nested deeper than {MAX_DEPTH} directories"),
            "remove the link that leads in a circle",
        ));
    }
    let (directories, files) = list(directory)?;
    for file in files.into_iter().filter(|file| is_manifest(file)) {
        check(&file)?;
        into.push(file);
    }
    directories
        .iter()
        .try_for_each(|directory| collect(directory, depth + 1, into))
}

fn is_manifest(file: &Path) -> bool {
    file.extension()
        .is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json")
}

/// Refuses what is made for another tool and would only look like manifests.
fn check(file: &Path) -> Result<()> {
    let action = match file.file_name().and_then(|name| name.to_str()) {
        Some("kustomization.yaml" | "kustomization.yml") => {
            "render it first: kubectl kustomize DIR > app.yaml, and make the release of that"
        }
        Some("Chart.yaml") => {
            "render it first: helm template NAME DIR > app.yaml, and make the release of that"
        }
        Some(settings::FILE) => {
            "move it to the top of the release; there, apps.NAME.namespace sets the namespace of one app"
        }
        _ => return Ok(()),
    };
    Err(invalid(
        &file.display().to_string(),
        "is no Kubernetes manifest",
        action,
    ))
}
