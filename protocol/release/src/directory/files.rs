//! Which files a release directory has, and which app each belongs to.

use super::{helm, invalid, kustomize, settings};
use crate::{Result, codes, os};
use holdfast_protocol::{NodeId, Problem};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// How deep directories of an app are looked into; a symbolic link that leads in a circle ends there.
const MAX_DEPTH: usize = 16;

/// The files of one app, in the order of their names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AppFiles {
    /// Name of the app.
    pub name: String,
    /// Its manifests.
    pub files: Vec<PathBuf>,
    /// Its `helm.yaml`, where it has one.
    pub helm: Option<PathBuf>,
    /// Its directory, where kustomize renders it; then there are no other files.
    pub kustomize: Option<PathBuf>,
}

/// What was found: `release.yaml` if there is one, and the apps.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// The release's settings.
    pub settings: Option<PathBuf>,
    /// The apps, by name.
    pub apps: Vec<AppFiles>,
}

pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> Problem {
    Problem::new(
        codes::FILE_UNREADABLE,
        format!("{} cannot be read: {error}", path.display()),
        "check the path and its permissions",
    )
}

/// Refuses what is neither a file nor a directory: opening a named pipe would wait for a writer for ever, and a device has no end.
fn readable(path: &Path, metadata: &fs::Metadata) -> Result<()> {
    if metadata.is_file() || metadata.is_dir() {
        return Ok(());
    }
    Err(invalid(
        &path.display().to_string(),
        "is no regular file, but a named pipe, a socket or a device",
        "remove it from the release, or put a file in its place",
    ))
}

/// Refuses what is not there, and what is neither a file nor a directory.
pub(crate) fn require_readable(path: &Path) -> Result<()> {
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    readable(path, &metadata)
}

/// Reads a file as text.
pub fn read(path: &Path) -> Result<String> {
    require_readable(path)?;
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
                ..AppFiles::default()
            }],
        });
    }
    readable(path, &metadata)?;
    let (mut directories, files) = list(path)?;
    let settings = files
        .iter()
        .find(|file| file.file_name().is_some_and(|name| name == settings::FILE))
        .cloned();
    if let Some(old) = files
        .iter()
        .find(|file| file.file_name().is_some_and(|name| name == settings::OLD_FILE))
    {
        return Err(check(old).err().unwrap_or_else(|| no_manifests(old)));
    }
    // Directories that hold what release.yaml names, such as archives of images, and no manifest, are no apps.
    if settings.is_some() {
        directories.retain(|directory| !holds_system(directory) && holds_manifests(directory, 0));
    }
    let whole = kustomize::file_in(path).is_some() || path.join(helm::FILE).is_file();
    if directories.is_empty() || whole {
        let real = fs::canonicalize(path).map_err(|error| unreadable(path, &error))?;
        let app = app(path, name_of(path, real.file_name())?, settings.as_deref())?;
        return Ok(Found {
            settings,
            apps: vec![app],
        });
    }
    let files: Vec<PathBuf> = files
        .into_iter()
        .filter(|file| Some(file) != settings.as_ref() && is_manifest(file))
        .collect();
    if let Some(file) = files.first() {
        return Err(invalid(
            &file.display().to_string(),
            "stands beside directories, so it belongs to no app",
            "move it into one of the directories: each of them is an app",
        ));
    }
    let mut apps = Vec::new();
    for directory in directories {
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        let name: NodeId = name.parse().map_err(|error| {
            invalid(
                &directory.display().to_string(),
                &format!("cannot be the name of an app: {error}"),
                "rename the directory",
            )
        })?;
        apps.push(app(&directory, name.to_string(), None)?);
    }
    Ok(Found { settings, apps })
}

/// What one directory holds as an app.
fn app(directory: &Path, name: String, settings: Option<&Path>) -> Result<AppFiles> {
    if let Some(file) = kustomize::file_in(directory) {
        kustomize::readable(&file)?;
        return Ok(AppFiles {
            name,
            kustomize: Some(directory.to_owned()),
            ..AppFiles::default()
        });
    }
    let helm = Some(directory.join(helm::FILE)).filter(|file| file.is_file());
    let mut skipped: Vec<PathBuf> = helm.iter().filter_map(|file| helm::chart_path(file)).collect();
    for file in helm.iter().chain(settings.map(Path::to_owned).iter()) {
        skipped.push(fs::canonicalize(file).map_err(|error| unreadable(file, &error))?);
    }
    if let Some(values) = helm.as_deref().and_then(helm::values_path) {
        skipped.push(values);
    }
    let mut files = Vec::new();
    collect(directory, 0, &skipped, &mut files)?;
    if files.is_empty() && helm.is_none() {
        return Err(no_manifests(directory));
    }
    Ok(AppFiles {
        name,
        files,
        helm,
        kustomize: None,
    })
}

/// Whether a directory is what a build of the operating system left: images, their bills of materials, checksums.
fn holds_system(directory: &Path) -> bool {
    list(directory).is_ok_and(|(_, files)| {
        files.iter().any(|file| {
            let name = file.to_string_lossy();
            name.strip_suffix(os::MANIFEST_SUFFIX)
                .is_some_and(|stem| files.contains(&PathBuf::from(format!("{stem}{}", os::PACK_SUFFIX))))
        })
    })
}

fn holds_manifests(directory: &Path, depth: usize) -> bool {
    depth <= MAX_DEPTH
        // What cannot be looked through is kept, so that it is refused by its name.
        && list(directory).map_or(true, |(directories, files)| {
            files.is_empty() && directories.is_empty()
                || files.iter().any(|file| is_manifest(file) || is_text(file))
                || directories
                    .iter()
                    .any(|directory| holds_manifests(directory, depth + 1))
        })
}

/// A directory with a note in it and nothing else was meant as an app.
fn is_text(file: &Path) -> bool {
    file.extension()
        .is_some_and(|extension| extension == "md" || extension == "txt")
}

fn no_manifests(path: &Path) -> Problem {
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

/// Directories and regular files of a directory by name, without hidden ones; anything else is refused.
pub(super) fn list(path: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let mut directories = Vec::new();
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| unreadable(path, &error))? {
        let entry = entry.map_err(|error| unreadable(path, &error))?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let metadata = fs::metadata(entry.path()).map_err(|error| unreadable(&entry.path(), &error))?;
        readable(&entry.path(), &metadata)?;
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

fn collect(directory: &Path, depth: usize, skipped: &[PathBuf], into: &mut Vec<PathBuf>) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(invalid(
            &directory.display().to_string(),
            &format!("is nested deeper than {MAX_DEPTH} directories"),
            "remove the link that leads in a circle",
        ));
    }
    // Where there is a helm.yaml, what is below a chart belongs to it.
    let skips = |path: &Path| {
        !skipped.is_empty()
            && (path.join("Chart.yaml").is_file()
                || fs::canonicalize(path).is_ok_and(|real| skipped.contains(&real)))
    };
    let (directories, files) = list(directory)?;
    for file in files.into_iter().filter(|file| is_manifest(file) && !skips(file)) {
        check(&file)?;
        into.push(file);
    }
    directories
        .iter()
        .filter(|directory| !skips(directory) && !holds_system(directory))
        .try_for_each(|directory| collect(directory, depth + 1, skipped, into))
}

fn is_manifest(file: &Path) -> bool {
    file.extension()
        .is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json")
}

/// Refuses what is made for another tool and would only look like manifests.
fn check(file: &Path) -> Result<()> {
    let action = match file.file_name().and_then(|name| name.to_str()) {
        Some(name) if kustomize::is_file_name(name) => {
            "put it at the top of the app: the whole directory is rendered by kustomize then"
        }
        Some("Chart.yaml") => {
            "put a helm.yaml beside the chart's directory, with chart: and the directory's name"
        }
        Some(helm::FILE) => "put it at the top of the app; an app has one chart",
        Some(settings::OLD_FILE) => "rename it to release.yaml",
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
