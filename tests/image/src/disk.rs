//! Disks of boxes: overlays over an image that is never written.

use crate::images;
use anyhow::{Result, bail};
use holdfast_harness::process::run;
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
};
use tokio::process::Command;

/// How much of a disk holds the table of its partitions at most, in bytes.
const TABLE: u64 = 1 << 20;
/// Where an erofs describes itself, in bytes from its beginning.
const SUPERBLOCK: u64 = 1024;

/// The disk of a box: a qcow2 file that holds only what differs from what is below it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// A disk of `bytes` at `path` that holds the raw image, as if that had been written to its beginning.
    pub async fn flashed(path: &Path, image: &Path, bytes: u64) -> Result<Self> {
        Self::over(path, image, "raw", Some(bytes)).await
    }

    /// A disk at `path` that starts as this one is now. This one must not be used any more, or only by other branches.
    pub async fn branch(&self, path: &Path) -> Result<Self> {
        Self::over(path, &self.path, "qcow2", None).await
    }

    async fn over(path: &Path, below: &Path, format: &str, bytes: Option<u64>) -> Result<Self> {
        let mut command = Command::new("qemu-img");
        command
            .args(["create", "-q", "-f", "qcow2", "-F", format, "-b"])
            .arg(below)
            .arg(path);
        if let Some(bytes) = bytes {
            command.arg(bytes.to_string());
        }
        run(command).await?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Copies bytes out of the disk; the machine must be off. `offset` and `length` are whole sectors of 512 bytes.
    pub async fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let directory = tempfile::tempdir()?;
        let out = directory.path().join("out");
        let mut command = Command::new("qemu-img");
        command
            .args(["dd", "-f", "qcow2", "-O", "raw", "bs=512"])
            .arg(format!("skip={}", offset / 512))
            // qemu-img counts the blocks from the beginning of the input, not from what is skipped.
            .arg(format!("count={}", (offset + length) / 512))
            .arg(format!("if={}", self.path.display()))
            .arg(format!("of={}", out.display()));
        run(command).await?;
        Ok(std::fs::read(out)?)
    }

    /// Turns one bit of the file system in the partition with this label, in its own description: that is read first, so that the damage shows
    /// in every boot. The machine must be off.
    pub async fn damage(&self, label: &str) -> Result<()> {
        self.damage_at(label, SUPERBLOCK, 40).await
    }

    /// Turns one bit of the partition with this label: of byte `byte` of the sector that begins `offset` bytes from the partition's beginning. The machine
    /// must be off.
    pub async fn damage_at(&self, label: &str, offset: u64, byte: usize) -> Result<()> {
        // As much as the table of partitions takes.
        let mut table = tempfile::NamedTempFile::new()?;
        table.write_all(&self.read(0, TABLE).await?)?;
        let place = images::labelled(table.path(), label)?.offset + offset;
        let mut block = self.read(place, 512).await?;
        block[byte] ^= 1;
        self.write(place, &block).await
    }

    /// Overwrites bytes of the disk; the machine must be off.
    pub async fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let directory = tempfile::tempdir()?;
        let pattern = directory.path().join("in");
        File::create(&pattern)?.write_all(bytes)?;
        let mut command = Command::new("qemu-io");
        command
            .args(["-f", "qcow2", "-c"])
            .arg(format!("write -s {} {offset} {}", pattern.display(), bytes.len()))
            .arg(&self.path);
        let said = run(command).await?;
        if !said.contains("wrote ") {
            bail!("qemu-io did not write: {said}")
        }
        Ok(())
    }
}
