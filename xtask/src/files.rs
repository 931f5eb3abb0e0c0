//! Reading and writing files of the repository, with errors that name the file.

use crate::shell;
use anyhow::{Context as _, Result};
use ring::digest;
use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

/// The text of a file; `path` is relative to the root.
pub fn read(path: &str) -> Result<String> {
    fs::read_to_string(shell::root().join(path)).with_context(|| format!("cannot read {path}"))
}

/// Replaces a file as a whole, so that an interrupted run leaves the old one; a path that is not absolute is relative to the root.
pub fn replace(path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<()> {
    let path = shell::root().join(path);
    let new = path.with_extension("new");
    File::create(&new)
        .and_then(|mut file| file.write_all(content.as_ref()))
        .and_then(|()| fs::rename(&new, &path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// SHA-256 of a file's content, hexadecimal.
pub fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file
            .read(&mut buffer)
            .with_context(|| format!("cannot read {}", path.display()))?;
        if read == 0 {
            break;
        }
        context.update(&buffer[..read]);
    }
    Ok(context
        .finish()
        .as_ref()
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }))
}

/// All files called `name` below `directory` (relative to the root), in a stable order.
pub fn named(directory: &str, name: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    collect(&shell::root().join(directory), name, &mut found)?;
    found.sort();
    Ok(found)
}

fn collect(directory: &Path, name: &str, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, name, found)?;
        } else if path.file_name().is_some_and(|file| file == name) {
            found.push(path);
        }
    }
    Ok(())
}
