//! Room for a build, looked at before it begins: a disk that fills up in the middle of it ends in hundreds of lines that name other causes.

use anyhow::{Context as _, Result, bail};
use nix::sys::statvfs::statvfs;
use std::path::Path;

/// What a build from nothing takes, in bytes. Counted on x86_64 in GB: packages 0.7, tools 0.4, what is installed 0.7, the same as the tree of the image
/// 0.7, kernel image and file systems 0.6; and a fifth more.
const FROM_NOTHING: u64 = 4_000_000_000;
/// The same where packages and tools are left from an earlier build.
const AGAIN: u64 = 2_500_000_000;

/// Checks that a build fits on the disk.
///
/// # Errors
/// Less is free than it takes, or the disk cannot be asked.
pub fn check(directory: &Path, again: bool) -> Result<()> {
    let found =
        statvfs(directory).with_context(|| format!("cannot look for room in {}", directory.display()))?;
    let free = (found.blocks_available() as u64).saturating_mul(found.fragment_size() as u64);
    judge(directory, free, if again { AGAIN } else { FROM_NOTHING })
}

fn judge(directory: &Path, free: u64, needed: u64) -> Result<()> {
    if free < needed {
        bail!(
            "{} has {:.1} GB of free disk, and building an image takes {:.1} GB: free some, or make target/image a link to a larger disk",
            directory.display(),
            gigabytes(free),
            gigabytes(needed)
        );
    }
    Ok(())
}

fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_room_is_told_before_anything_is_built() {
        let place = Path::new("/somewhere");
        assert!(judge(place, AGAIN, AGAIN).is_ok());
        let error = judge(place, 300_000_000, FROM_NOTHING).unwrap_err().to_string();
        assert!(
            error.contains("/somewhere has 0.3 GB") && error.contains("takes 4.0 GB"),
            "{error}"
        );
        assert!(check(&std::env::temp_dir().join("no such directory"), false).is_err());
    }
}
