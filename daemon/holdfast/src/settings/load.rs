//! Reading of the settings: which files, in which order, and what is wrong with them.
//!
//! Every fault of every file is found in one run, so that a person mends them all at once. A fault names file, line and key.

use super::{Settings, schema::Section, value};
use crate::codes;
use holdfast_protocol::Problem;
use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};
use toml::de::{DeTable, DeValue};

/// Directories of fragments, from the weakest to the strongest.
pub const DIRECTORIES: [&str; 3] = ["/usr/lib/holdfast", "/run/holdfast", "/etc/holdfast"];

/// The largest file that is read; the settings with every key set have some kilobytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Where settings come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sources {
    /// All `*.toml` of these directories; a missing directory is fine.
    Directories(Vec<PathBuf>),
    /// Exactly these files; a missing file is an error.
    Files(Vec<PathBuf>),
}

impl Default for Sources {
    fn default() -> Self {
        Self::Directories(DIRECTORIES.map(PathBuf::from).to_vec())
    }
}

/// One thing that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file; none for a default.
    pub file: Option<PathBuf>,
    /// Line, from 1; none where it is not known.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}", file.display())?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.message)
    }
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file or directory cannot be read.
    #[error("cannot read the settings in {}: {source}", path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something in the files is wrong.
    #[error("{}", .0.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Fault>),
}

impl From<&SettingsError> for Problem {
    fn from(error: &SettingsError) -> Self {
        match error {
            SettingsError::Unreadable { .. } => Self::new(
                codes::SETTINGS_UNREADABLE,
                error.to_string(),
                "check the path and its permissions; it must be a regular file of at most 1 MiB",
            ),
            SettingsError::Invalid(_) => Self::new(
                codes::SETTINGS_INVALID,
                error.to_string(),
                "correct the named lines; docs/configuration.md lists all keys",
            ),
        }
    }
}

impl Sources {
    /// The files in the order in which they are merged.
    pub fn files(&self) -> Result<Vec<PathBuf>, SettingsError> {
        let directories = match self {
            Self::Files(files) => return Ok(files.clone()),
            Self::Directories(directories) => directories,
        };
        let mut files = Vec::new();
        for directory in directories {
            let unreadable = |source| SettingsError::Unreadable {
                path: directory.clone(),
                source,
            };
            let entries = match fs::read_dir(directory) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(unreadable(error)),
            };
            let first = files.len();
            for entry in entries {
                let path = entry.map_err(unreadable)?.path();
                if is_fragment(&path) {
                    files.push(path);
                }
            }
            files[first..].sort();
        }
        Ok(files)
    }

    /// Reads, merges and checks the settings.
    pub fn load(&self) -> Result<Settings, SettingsError> {
        let mut merge = Merge::default();
        for file in self.files()? {
            let text = read(&file).map_err(|source| SettingsError::Unreadable {
                path: file.clone(),
                source,
            })?;
            merge.file(&file, &text);
        }
        merge.finish()
    }
}

/// Reads a file that must have an end, and a near one: a device or a pipe would be read, or waited for, without end.
fn read(file: &Path) -> io::Result<String> {
    if !fs::metadata(file)?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file; only regular files are read",
        ));
    }
    let mut text = String::new();
    fs::File::open(file)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!(
                "it is larger than {}, the most that a file of settings may have",
                value::format_size(MAX_FILE_BYTES)
            ),
        ));
    }
    Ok(text)
}

fn is_fragment(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().is_some_and(|extension| extension == "toml") && path.is_file()
}

#[derive(Default)]
struct Merge {
    settings: Settings,
    faults: Vec<Fault>,
    /// Where each key was set last.
    origins: BTreeMap<String, (PathBuf, usize)>,
}

impl Merge {
    fn file(&mut self, file: &Path, text: &str) {
        let line_of = |offset: usize| 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
        let table = match DeTable::parse(text) {
            Ok(table) => table,
            Err(error) => {
                let line = error.span().map(|span| line_of(span.start));
                self.fault(file, line, error.message().to_owned());
                return;
            }
        };
        for (key, value) in table.get_ref() {
            let (name, line) = (key.get_ref().as_ref(), line_of(key.span().start));
            let section = Settings::names_of(name);
            match (section, value.get_ref()) {
                (Some(_), DeValue::Table(section)) => {
                    for (key, value) in section {
                        let key_name = key.get_ref().as_ref();
                        let done = self.settings.assign_in(name, key_name, value.get_ref());
                        let path = format!("{name}.{key_name}");
                        self.assigned(file, line_of(key.span().start), path, done);
                    }
                }
                (Some(_), _) => self.fault(file, Some(line), format!("{name} is a section: write [{name}]")),
                (None, value) => {
                    let done = self.settings.assign(name, value);
                    self.assigned(file, line, name.to_owned(), done);
                }
            }
        }
    }

    fn assigned(&mut self, file: &Path, line: usize, path: String, done: Option<Result<(), String>>) {
        match done {
            Some(Ok(())) => {
                self.origins.insert(path, (file.to_owned(), line));
            }
            Some(Err(reason)) => self.fault(file, Some(line), format!("{path}: {reason}")),
            None => self.fault(file, Some(line), unknown(&path)),
        }
    }

    fn fault(&mut self, file: &Path, line: Option<usize>, message: String) {
        self.faults.push(Fault {
            file: Some(file.to_owned()),
            line,
            message,
        });
    }

    fn finish(mut self) -> Result<Settings, SettingsError> {
        if self.faults.is_empty()
            && let Err((key, reason)) = self.settings.validate()
        {
            let origin = self.origins.remove(key);
            self.faults.push(Fault {
                file: origin.as_ref().map(|(file, _)| file.clone()),
                line: origin.map(|(_, line)| line),
                message: format!("{key}: {reason}"),
            });
        }
        if self.faults.is_empty() {
            Ok(self.settings)
        } else {
            Err(SettingsError::Invalid(self.faults))
        }
    }
}

fn unknown(path: &str) -> String {
    let known = known_paths();
    let own_name = path.rsplit('.').next().unwrap_or(path);
    // A key in the wrong section is found by its own name, a mistyped one by likeness.
    let moved = known
        .iter()
        .find(|known| known.rsplit('.').next() == Some(own_name));
    let nearest = moved.or_else(|| {
        known
            .iter()
            .map(|known| (strsim::jaro_winkler(path, known), known))
            .filter(|(likeness, _)| *likeness > 0.8)
            .max_by(|(a, _), (b, _)| a.total_cmp(b))
            .map(|(_, known)| known)
    });
    match nearest {
        Some(nearest) => format!("unknown key {path}; did you mean {nearest}?"),
        None => format!("unknown key {path}; docs/configuration.md lists all keys"),
    }
}

fn known_paths() -> Vec<String> {
    let sections = Settings::sections()
        .into_iter()
        .flat_map(|(section, _, keys)| keys.into_iter().map(move |key| format!("{section}.{}", key.name)));
    let sections_themselves = Settings::sections()
        .into_iter()
        .map(|(section, ..)| section.to_owned());
    Settings::NAMES
        .iter()
        .map(|name| (*name).to_owned())
        .chain(sections)
        .chain(sections_themselves)
        .collect()
}
