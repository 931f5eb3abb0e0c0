//! What the box runs now.
//!
//! In: the running system below a root directory. Out: version and root hash of its image, and the disk it runs from; or that it is none of ours.

use super::{error::Fault, pe::usr_hash_of};
use holdfast_protocol::{document::is_os_version, trust::TrustPolicy};
use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// Value of `IMAGE_ID` in the `os-release` of images.
const IMAGE_ID: &str = "holdfast";
/// Name of the device that dm-verity makes of the slot.
const VERITY_DEVICE: &str = "usr";

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Places {
    /// Root of the running system: `/`.
    pub root: PathBuf,
    /// Where the EFI system partition is mounted: `/efi`.
    pub esp: PathBuf,
    /// Where the node keeps what it must not lose about images.
    pub state: PathBuf,
    /// The disk that the image runs from, where it is not to be found by its device: a disk image in a file.
    pub disk: Option<PathBuf>,
}

impl Places {
    /// Those of a box, with this state directory.
    pub fn of_box(state_dir: &Path) -> Self {
        Self {
            root: "/".into(),
            esp: "/efi".into(),
            state: state_dir.join("os"),
            disk: None,
        }
    }

    /// The image that runs; none where it is not one of Holdfast's.
    pub fn image(&self) -> Result<Option<RunningImage>, Fault> {
        let release = self.root.join("usr/lib/os-release");
        let Some(text) = read(&release)? else {
            return Ok(None);
        };
        if value(&text, "IMAGE_ID").as_deref() != Some(IMAGE_ID) {
            return Ok(None);
        }
        let Some(version) = value(&text, "IMAGE_VERSION").filter(|version| is_os_version(version)) else {
            return Err(Fault::NoImage(format!("{} names no version", release.display())));
        };
        let line = read(&self.root.join("proc/cmdline"))?.unwrap_or_default();
        // Without it, the image was started otherwise than from a slot: in a container, or for a look at it.
        Ok(usr_hash_of(&line).map(|usr_hash| RunningImage { version, usr_hash }))
    }

    /// The keys that the running image was built with.
    pub fn keys(&self) -> Result<TrustPolicy, Fault> {
        let path = self.root.join("usr/lib/holdfast/os-keys.json");
        let wrong = |reason: String| Fault::Keys {
            path: path.display().to_string(),
            reason,
        };
        let text = fs::read(&path).map_err(|error| wrong(error.to_string()))?;
        serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))
    }

    /// The disk that the image runs from: that of the partitions below the device of dm-verity. Not by PARTUUID: a second disk with
    /// the same image, such as the stick that a box was flashed from, has the same ones.
    pub fn disk(&self) -> Result<PathBuf, Fault> {
        if let Some(disk) = &self.disk {
            return Ok(disk.clone());
        }
        let block = self.root.join("sys/class/block");
        let devices = fs::read_dir(&block).map_err(Fault::at(&block))?;
        for device in devices.flatten() {
            let path = device.path();
            let is_usr = read(&path.join("dm/name"))?.is_some_and(|name| name.trim() == VERITY_DEVICE);
            if !is_usr {
                continue;
            }
            let slaves = path.join("slaves");
            for slave in fs::read_dir(&slaves).map_err(Fault::at(&slaves))?.flatten() {
                let partition = fs::canonicalize(block.join(slave.file_name())).map_err(Fault::at(&block))?;
                if partition.join("partition").exists()
                    && let Some(disk) = partition.parent().and_then(Path::file_name)
                {
                    return Ok(self.root.join("dev").join(disk));
                }
            }
        }
        Err(Fault::NoImage(format!(
            "no device {VERITY_DEVICE:?} of dm-verity was found"
        )))
    }
}

/// The image that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningImage {
    /// Its version.
    pub version: String,
    /// Its root hash.
    pub usr_hash: String,
}

fn read(path: &Path) -> Result<Option<String>, Fault> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(Fault::at(path)(error)),
    }
}

/// A value of `os-release`, without its quotes.
fn value(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let value = line.trim().strip_prefix(name)?.strip_prefix('=')?;
        Some(value.trim_matches(['"', '\'']).to_owned())
    })
}
