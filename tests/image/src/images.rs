//! The built images that are tested, and what is written to one before it is flashed.
//!
//! `HOLDFAST_IMAGES` names a directory with one directory for each image: `<variant>/<architecture>`, as `cargo xtask test --image` builds them.

use crate::Architecture;
use anyhow::{Context as _, Result, bail};
use holdfast_harness::process::run;
use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
};
use tokio::process::Command;

/// A sector, in bytes: what GPT counts in.
const SECTOR: u64 = 512;

/// A directory of built images.
pub struct Images {
    directory: PathBuf,
}

impl Images {
    /// The images that `HOLDFAST_IMAGES` names.
    pub fn given() -> Result<Self> {
        let directory = env::var_os("HOLDFAST_IMAGES")
            .context("HOLDFAST_IMAGES names no directory of built images: run `cargo xtask test --image`")?;
        Ok(Self {
            directory: directory.into(),
        })
    }

    /// Those in this directory.
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// The directory of one image.
    pub fn of(&self, variant: &str, architecture: Architecture) -> Result<Image> {
        let name = format!("{variant}/{}", architecture.directory());
        let directory = self.directory.join(&name);
        if !directory.is_dir() {
            bail!(
                "no image {name} in {}: run `cargo xtask test --image`",
                self.directory.display()
            )
        }
        Ok(Image {
            directory,
            architecture,
        })
    }
}

/// One built image with what belongs to it.
pub struct Image {
    directory: PathBuf,
    architecture: Architecture,
}

impl Image {
    /// The raw image of a whole disk.
    pub fn raw(&self) -> Result<PathBuf> {
        self.only(".raw")
    }

    /// The file of the directory whose name ends so.
    pub fn only(&self, ending: &str) -> Result<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
        match found.as_slice() {
            [path] => Ok(path.clone()),
            _ => bail!(
                "{} holds {} files *{ending}, not one",
                self.directory.display(),
                found.len()
            ),
        }
    }

    /// The signed manifest of an update to it.
    pub fn manifest(&self) -> Result<PathBuf> {
        self.only(".manifest.json")
    }

    /// The chunks that the manifest names.
    pub fn pack(&self) -> Result<PathBuf> {
        self.only(".pack")
    }

    /// The processor that it is for.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// The ESP of a raw image, written with mtools: the image is a file, nothing is mounted.
pub struct Esp {
    drive: String,
}

impl Esp {
    /// The first EFI system partition of a raw image.
    pub fn of(raw: &Path) -> Result<Self> {
        let partition = labelled(raw, "esp")?;
        Ok(Self {
            drive: format!("{}@@{}", raw.display(), partition.offset),
        })
    }

    /// Writes a file; its directory is made where there is none.
    pub async fn write(&self, path: &str, content: &[u8]) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(content)?;
        if let Some((directory, _)) = path.rsplit_once('/') {
            // Its failure says that it is there already; if not, the copy fails.
            drop(self.tool("mmd", &["-D", "s", &format!("::{directory}")]).await);
        }
        self.tool(
            "mcopy",
            &["-o", &file.path().to_string_lossy(), &format!("::{path}")],
        )
        .await
        .map(drop)
    }

    /// Names of the files in a directory.
    pub async fn list(&self, directory: &str) -> Result<Vec<String>> {
        let text = self.tool("mdir", &["-b", &format!("::{directory}")]).await?;
        Ok(text
            .lines()
            .filter_map(|line| line.trim().rsplit('/').next())
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect())
    }

    /// Removes a file.
    pub async fn remove(&self, path: &str) -> Result<()> {
        self.tool("mdel", &[&format!("::{path}")]).await.map(drop)
    }

    /// Copies a file out.
    pub async fn read(&self, path: &str) -> Result<Vec<u8>> {
        let directory = tempfile::tempdir()?;
        let out = directory.path().join("out");
        self.tool("mcopy", &[&format!("::{path}"), &out.to_string_lossy()])
            .await?;
        Ok(fs::read(out)?)
    }

    async fn tool(&self, tool: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(tool);
        command
            .env("MTOOLS_SKIP_CHECK", "1")
            .arg("-i")
            .arg(&self.drive)
            .args(arguments);
        run(command).await
    }
}

/// A partition of a GPT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its label.
    pub label: String,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
}

/// The partition of a raw image with this label.
pub fn labelled(raw: &Path, label: &str) -> Result<Partition> {
    partitions(&fs::File::open(raw)?)?
        .into_iter()
        .find(|partition| partition.label == label)
        .with_context(|| format!("{} has no partition {label}", raw.display()))
}

/// The partitions of the GPT at the beginning of `disk`, as they are on the disk.
pub fn partitions(disk: &impl std::os::unix::fs::FileExt) -> Result<Vec<Partition>> {
    let mut header = [0; SECTOR as usize];
    disk.read_exact_at(&mut header, SECTOR)?;
    if &header[..8] != b"EFI PART" {
        bail!("the disk has no GPT")
    }
    let number = |bytes: &[u8], at: usize| -> u64 {
        bytes[at..at + 8]
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let half = |bytes: &[u8], at: usize| number(bytes, at) & 0xffff_ffff;
    let (first, count, size) = (number(&header, 72) * SECTOR, half(&header, 80), half(&header, 84));
    let mut partitions = Vec::new();
    for index in 0..count {
        let mut entry = vec![0; usize::try_from(size)?];
        disk.read_exact_at(&mut entry, first + index * size)?;
        if entry[..16].iter().all(|byte| *byte == 0) {
            continue;
        }
        let (begin, end) = (number(&entry, 32), number(&entry, 40));
        let label: Vec<u16> = entry[56..128]
            .chunks(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
            .take_while(|unit| *unit != 0)
            .collect();
        partitions.push(Partition {
            label: String::from_utf16_lossy(&label),
            offset: begin * SECTOR,
            length: (end + 1 - begin) * SECTOR,
        });
    }
    Ok(partitions)
}
