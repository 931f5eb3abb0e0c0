//! Archives for the first start of k3s, before there is a containerd that could import them.
//!
//! k3s imports what lies in `DATA-DIR/agent/images` when it starts (<https://docs.k3s.io/installation/airgap>). The archives are linked there, not
//! copied, and the links are removed once containerd can be asked: else every start would import them anew, and pin them for good.

use super::archive::Form;
use holdfast_protocol::Digest;
use holdfast_store::{Blobs, StoreError, fs};
use std::{
    fs::File,
    path::{Path, PathBuf},
};

/// Begin of the names of our links.
const PREFIX: &str = "holdfast-";

fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("agent/images")
}

/// Links archives for a k3s that never ran. Does nothing for one that did.
pub fn place(data_dir: &Path, blobs: &Blobs, archives: &[Digest]) -> Result<(), StoreError> {
    if data_dir.join("agent/containerd").exists() {
        return Ok(());
    }
    let directory = directory(data_dir);
    for digest in archives {
        let archive = blobs.path(*digest);
        let form = File::open(&archive).and_then(|mut file| Form::of(&mut file));
        let form = match form {
            Ok(form) => form,
            Err(error) => return Err(StoreError::from_io(&archive, &error)),
        };
        fs::create_private_directory(&directory)?;
        let link = directory.join(format!("{PREFIX}{}.{}", &digest.hex()[..16], form.suffix()));
        fs::remove(&link)?;
        if std::fs::hard_link(&archive, &link).is_err() {
            std::os::unix::fs::symlink(&archive, &link)
                .map_err(|error| StoreError::from_io(&link, &error))?;
        }
    }
    Ok(())
}

/// Removes the links.
pub fn clear(data_dir: &Path) -> Result<(), StoreError> {
    let directory = directory(data_dir);
    let Ok(entries) = std::fs::read_dir(&directory) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        if entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(PREFIX))
        {
            fs::remove(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_linked_for_the_first_start_only_and_removed_after_it() {
        let directory = tempfile::TempDir::new().unwrap();
        let blobs = Blobs::open(&directory.path().join("state")).unwrap();
        let mut content = vec![0; 1_024];
        content[257..262].copy_from_slice(b"ustar");
        let digest = blobs.put(&content).unwrap();
        let data_dir = directory.path().join("k3s");
        let link = data_dir.join(format!("agent/images/holdfast-{}.tar", &digest.hex()[..16]));
        let other = data_dir.join("agent/images/other.tar");
        place(&data_dir, &blobs, &[digest]).unwrap();
        // Once more, as after a restart.
        place(&data_dir, &blobs, &[digest]).unwrap();
        assert_eq!(std::fs::read(&link).unwrap(), content);
        fs::write_atomic(&other, b"an operator's", fs::PRIVATE_FILE).unwrap();
        clear(&data_dir).unwrap();
        assert!(!link.exists() && other.exists());

        std::fs::create_dir_all(data_dir.join("agent/containerd")).unwrap();
        place(&data_dir, &blobs, &[digest]).unwrap();
        assert!(!link.exists(), "a k3s that ran is asked through its containerd");
    }
}
