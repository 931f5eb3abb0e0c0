//! A directory with a `kustomization.yaml` is rendered by kustomize itself, when the release is made.
//!
//! In: the directory and which command to use. Out: its objects as YAML text. Guarantees: what is outside of this machine is not read
//! unless it was allowed, so that the same directory gives the same release tomorrow.

use super::{Options, files, settings::one_document};
use crate::{Result, codes};
use holdfast_protocol::Problem;
use serde_json::Value;
use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Names that kustomize looks for.
const NAMES: &[&str] = &["kustomization.yaml", "kustomization.yml", "Kustomization"];
/// How deep directories are looked through for what is remote.
const MAX_DEPTH: usize = 16;

/// The file that makes a directory one of kustomize.
pub(super) fn file_in(directory: &Path) -> Option<PathBuf> {
    NAMES
        .iter()
        .map(|name| directory.join(name))
        .find(|path| path.is_file())
}

/// Whether a file is one of kustomize's.
pub(super) fn is_file_name(name: &str) -> bool {
    NAMES.contains(&name)
}

/// The objects of a directory, as YAML.
pub(super) fn render(directory: &Path, options: &Options) -> Result<String> {
    if !options.allow_remote {
        refuse_remote(directory, 0)?;
    }
    let commands: Vec<String> = match &options.kustomize {
        Some(command) => vec![command.clone()],
        None => vec!["kustomize build".into(), "kubectl kustomize".into()],
    };
    for command in &commands {
        match run(command, directory) {
            Ok(output) => return finished(directory, command, output),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(failed(directory, &format!("{command} cannot be run: {error}")));
            }
        }
    }
    Err(Problem::new(
        codes::KUSTOMIZE_MISSING,
        format!(
            "{}: there is no {} on this machine to render it",
            directory.display(),
            commands.join(" and no ")
        ),
        "install kustomize or kubectl, or say what to use: --kustomize 'k3s kubectl kustomize'",
    ))
}

fn run(command: &str, directory: &Path) -> io::Result<Output> {
    let mut words = command.split_whitespace();
    let program = words.next().unwrap_or_default();
    Command::new(program).args(words).arg(directory).output()
}

fn failed(directory: &Path, what: &str) -> Problem {
    Problem::new(
        codes::KUSTOMIZE_FAILED,
        format!("{}: {what}", directory.display()),
        "mend the directory until the command works on it",
    )
}

fn finished(directory: &Path, command: &str, output: Output) -> Result<String> {
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let words: String = words.trim().chars().take(2_000).collect();
        return Err(failed(directory, &format!("{command}: {words}")));
    }
    String::from_utf8(output.stdout).map_err(|_| failed(directory, &format!("{command} wrote no text")))
}

/// Refuses addresses among what a kustomization reads, here and in the directories it names.
fn refuse_remote(directory: &Path, depth: usize) -> Result<()> {
    let Some(file) = file_in(directory) else {
        return Ok(());
    };
    if depth > MAX_DEPTH {
        return Err(failed(directory, "its bases are nested too deep, or in a circle"));
    }
    let (kustomization, _) = one_document(&file)?;
    if kustomization.get("helmCharts").is_some() {
        return Err(Problem::new(
            codes::KUSTOMIZE_FAILED,
            format!("{}: helmCharts fetches charts while it renders", file.display()),
            "put the chart beside it with a helm.yaml, or allow it: --allow-remote",
        ));
    }
    for list in ["resources", "bases", "components", "crds"] {
        let items = kustomization.get(list).and_then(Value::as_array);
        for item in items.into_iter().flatten().filter_map(Value::as_str) {
            let path = directory.join(item);
            if path.is_dir() {
                refuse_remote(&path, depth + 1)?;
            } else if !path.exists() && is_remote(item) {
                return Err(Problem::new(
                    codes::KUSTOMIZE_FAILED,
                    format!(
                        "{}: {list}: {item} is not on this machine, and may be another one tomorrow",
                        file.display()
                    ),
                    "copy it into the release, or allow it: --allow-remote",
                ));
            }
        }
    }
    Ok(())
}

/// Whether kustomize would fetch this: an address, a repository in the form of scp, or a host name.
fn is_remote(item: &str) -> bool {
    item.contains("://")
        || item.contains("?ref=")
        || item.starts_with("git@")
        || item
            .split('/')
            .next()
            .is_some_and(|host| !host.starts_with('.') && host.contains('.') && item.contains('/'))
}

/// The path for messages about a rendered object.
pub(super) fn place(directory: &Path) -> String {
    format!("{} (rendered by kustomize)", directory.display())
}

/// Whether the file can be read at all; kustomize's own message would name a temporary directory.
pub(super) fn readable(file: &Path) -> Result<()> {
    files::read(file).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kustomize_would_fetch_is_seen() {
        for remote in [
            "https://github.com/example/app//deploy?ref=v1",
            "github.com/example/app/deploy",
            "git@github.com:example/app.git",
            "ssh://git@example.com/app",
        ] {
            assert!(is_remote(remote), "{remote}");
        }
        for local in ["../base", "./base", "base", "deployment.yaml", "a/b.yaml"] {
            assert!(!is_remote(local), "{local}");
        }
    }
}
