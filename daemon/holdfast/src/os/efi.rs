//! Kernel images on the EFI system partition: what systemd-boot finds there, and in which order it takes it.
//!
//! In: the directory of kernel images. Out: images, put there whole or taken away. systemd-boot takes the newest version that has tries left or
//! none to count; of versions without tries left it takes the newest, so that a box whose every version failed still starts something. It guarantees
//! that an image has its name only when it is whole on the disk, and that only files of Holdfast's own naming are touched.

use super::{error::Fault, pe::Image};
use holdfast_protocol::{Digest, document::is_os_version};
use nix::{
    fcntl::{PosixFadviseAdvice, posix_fadvise},
    unistd::syncfs,
};
use std::{
    cmp::Ordering,
    fs::{self, File},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

/// Times that a new version is tried before systemd-boot takes the other one.
pub const TRIES: u32 = 3;
const PREFIX: &str = "holdfast_";
const SUFFIX: &str = ".efi";
const PART_SUFFIX: &str = ".part";
/// Room that a file system of FAT needs beside the bytes of a file: its last cluster and its entry, in bytes.
pub const SLACK: u64 = 256 << 10;

/// How often a version may still be tried, as its file's name says (`+LEFT` or `+LEFT-DONE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tries {
    /// Tries left.
    pub left: u32,
    /// Tries made.
    pub done: u32,
}

/// What the name of a kernel image says of its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It came up once: no counting any more.
    Good,
    /// It is on trial, or was tried until no try was left.
    Trial(Tries),
    /// It is good, and stands back behind an older version on purpose: without tries left, and none was made.
    StandsBack,
}

/// A kernel image of Holdfast's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uki {
    /// The file.
    pub path: PathBuf,
    /// Its version.
    pub version: String,
    /// What its name says of it.
    pub state: State,
}

impl Uki {
    /// Takes a name apart; none where it is not one of ours.
    fn parse(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let rest = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        let (version, counter) = rest.split_once('+').map_or((rest, None), |(v, c)| (v, Some(c)));
        let state = match counter {
            None => State::Good,
            Some(counter) => {
                let (left, done) = counter.split_once('-').unwrap_or((counter, "0"));
                let number = |text: &str| {
                    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
                        .then(|| text.parse::<u32>().ok())
                        .flatten()
                };
                let tries = Tries {
                    left: number(left)?,
                    done: number(done)?,
                };
                match tries {
                    Tries { left: 0, done: 0 } => State::StandsBack,
                    tries => State::Trial(tries),
                }
            }
        };
        is_os_version(version).then(|| Self {
            path: path.to_owned(),
            version: version.to_owned(),
            state,
        })
    }

    /// Whether systemd-boot would take it, or would after its counter was set anew.
    pub const fn is_exhausted(&self) -> bool {
        matches!(self.state, State::Trial(Tries { left: 0, .. }))
    }
}

/// Order of versions as systemd-boot has it (UAPI.10, version format).
pub fn compare_versions(left: &str, right: &str) -> Ordering {
    let (mut a, mut b) = (left.as_bytes(), right.as_bytes());
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"~-^.".contains(byte);
    loop {
        while a.first().is_some_and(|byte| !is_part(byte)) {
            a = &a[1..];
        }
        while b.first().is_some_and(|byte| !is_part(byte)) {
            b = &b[1..];
        }
        // `~` comes before everything, even before the end.
        for sign in *b"~" {
            match (a.first() == Some(&sign), b.first() == Some(&sign)) {
                (true, true) => (a, b) = (&a[1..], &b[1..]),
                (true, false) => return Ordering::Less,
                (false, true) => return Ordering::Greater,
                (false, false) => {}
            }
        }
        if a.is_empty() || b.is_empty() {
            return a.len().cmp(&b.len());
        }
        let mut both = false;
        for sign in *b"-^." {
            match (a.first() == Some(&sign), b.first() == Some(&sign)) {
                (true, true) => {
                    (a, b) = (&a[1..], &b[1..]);
                    both = true;
                    break;
                }
                (true, false) => return Ordering::Less,
                (false, true) => return Ordering::Greater,
                (false, false) => {}
            }
        }
        if both {
            continue;
        }
        let digits = a[0].is_ascii_digit() || b[0].is_ascii_digit();
        let belongs = |byte: &u8| {
            if digits {
                byte.is_ascii_digit()
            } else {
                byte.is_ascii_alphabetic()
            }
        };
        let length = |text: &[u8]| text.iter().take_while(|byte| belongs(byte)).count();
        let ((one, rest_a), (two, rest_b)) = (a.split_at(length(a)), b.split_at(length(b)));
        let order = if digits {
            let trim = |text: &[u8]| {
                let zeros = text.iter().take_while(|byte| **byte == b'0').count();
                text[zeros..].to_vec()
            };
            // A number is newer than letters.
            match (one.is_empty(), two.is_empty()) {
                (true, false) => Ordering::Less,
                (false, true) => Ordering::Greater,
                _ => {
                    let (one, two) = (trim(one), trim(two));
                    one.len().cmp(&two.len()).then_with(|| one.cmp(&two))
                }
            }
        } else {
            one.cmp(two)
        };
        if order.is_ne() {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}

/// The directory of kernel images.
#[derive(Clone, Debug)]
pub struct Directory {
    esp: PathBuf,
    path: PathBuf,
}

impl Directory {
    /// That of the EFI system partition mounted at `esp`.
    pub fn of(esp: &Path) -> Self {
        Self {
            esp: esp.to_owned(),
            path: esp.join("EFI/Linux"),
        }
    }

    /// All kernel images of Holdfast's, the newest first.
    pub fn list(&self) -> Result<Vec<Uki>, Fault> {
        let mut found: Vec<_> = self.files()?.iter().filter_map(|path| Uki::parse(path)).collect();
        found.sort_by(|a, b| compare_versions(&b.version, &a.version).then_with(|| a.path.cmp(&b.path)));
        Ok(found)
    }

    fn files(&self) -> Result<Vec<PathBuf>, Fault> {
        fs::read_dir(&self.path)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
            .map_err(Fault::at(&self.path))
    }

    /// The image of a version that systemd-boot would take first.
    pub fn find(&self, version: &str) -> Result<Option<Uki>, Fault> {
        let mut found: Vec<_> = self
            .list()?
            .into_iter()
            .filter(|uki| uki.version == version)
            .collect();
        found.sort_by_key(|uki| match uki.state {
            State::Good => 0,
            State::Trial(Tries { left: 1.., .. }) => 1,
            State::StandsBack => 2,
            State::Trial(_) => 3,
        });
        Ok(found.into_iter().next())
    }

    /// Bytes that a new image may have when all that is not of `keep` is gone.
    pub fn room(&self, keep: &str) -> Result<u64, Fault> {
        let removable: u64 = self
            .leftovers(&[keep])?
            .iter()
            .filter_map(|path| fs::metadata(path).ok())
            .map(|metadata| metadata.len())
            .sum();
        let free =
            nix::sys::statvfs::statvfs(&self.path).map_err(|error| Fault::at(&self.path)(error.into()))?;
        Ok((free.blocks_available() as u64)
            .saturating_mul(free.fragment_size() as u64)
            .saturating_add(removable))
    }

    /// Files of ours that are of none of these versions: images, and what a cut left of one.
    fn leftovers(&self, keep: &[&str]) -> Result<Vec<PathBuf>, Fault> {
        Ok(self
            .files()?
            .into_iter()
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let is_part = name.starts_with(PREFIX) && name.ends_with(PART_SUFFIX);
                is_part || Uki::parse(path).is_some_and(|uki| !keep.contains(&uki.version.as_str()))
            })
            .collect())
    }

    /// Removes all files of ours but those of these versions.
    pub fn keep_only(&self, keep: &[&str]) -> Result<(), Fault> {
        let leftovers = self.leftovers(keep)?;
        for path in &leftovers {
            fs::remove_file(path).map_err(Fault::at(path))?;
        }
        if leftovers.is_empty() { Ok(()) } else { self.sync() }
    }

    /// Puts a kernel image here under its counter, in whole: written beside, read back, and named last. One that is here already, whole and with
    /// tries left, is left as it is.
    pub fn install(&self, version: &str, source: &Path, digest: Digest) -> Result<(), Fault> {
        if let Some(there) = self.find(version)?
            && !there.is_exhausted()
            && digest_of(&there.path)? == digest
        {
            return Ok(());
        }
        let part = self.path.join(format!("{PREFIX}{version}{PART_SUFFIX}"));
        let write = || -> std::io::Result<()> {
            let mut from = File::open(source)?;
            let mut to = File::create(&part)?;
            let mut buffer = vec![0; 256 << 10];
            loop {
                let size = from.read(&mut buffer)?;
                if size == 0 {
                    break;
                }
                to.write_all(&buffer[..size])?;
            }
            to.sync_all()?;
            forget_cached(&to, 0, 0);
            Ok(())
        };
        if let Err(error) = write() {
            let _ = fs::remove_file(&part);
            return Err(Fault::at(&part)(error));
        }
        if digest_of(&part)? != digest {
            let _ = fs::remove_file(&part);
            return Err(Fault::ReadBack {
                what: "the EFI system partition",
            });
        }
        crate::failpoint::reach("os-uki-written");
        // Exhausted ones of the same version would stand beside it.
        for old in self.list()?.into_iter().filter(|uki| uki.version == version) {
            fs::remove_file(&old.path).map_err(Fault::at(&old.path))?;
        }
        self.rename(&part, &self.name(version, &format!("+{TRIES}")))
    }

    /// Lets a version be tried: what is good or stands back gets a counter anew.
    pub fn arm(&self, uki: &Uki, tries: u32) -> Result<(), Fault> {
        self.rename(&uki.path, &self.name(&uki.version, &format!("+{tries}")))
    }

    /// Has a version stand back behind all others.
    pub fn stand_back(&self, uki: &Uki) -> Result<(), Fault> {
        self.rename(&uki.path, &self.name(&uki.version, "+0"))
    }

    /// Takes a version as good again.
    pub fn bless(&self, uki: &Uki) -> Result<(), Fault> {
        self.rename(&uki.path, &self.name(&uki.version, ""))
    }

    fn name(&self, version: &str, counter: &str) -> PathBuf {
        self.path.join(format!("{PREFIX}{version}{counter}{SUFFIX}"))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), Fault> {
        if from != to {
            fs::rename(from, to).map_err(Fault::at(to))?;
        }
        self.sync()
    }

    /// FAT has no journal: the directory and the tables of the whole file system must be down.
    fn sync(&self) -> Result<(), Fault> {
        let directory = File::open(&self.path).map_err(Fault::at(&self.path))?;
        directory.sync_all().map_err(Fault::at(&self.path))?;
        syncfs(&directory).map_err(|error| Fault::at(&self.esp)(error.into()))
    }
}

/// Whether the image is whole, and the digest of `/usr` that it demands.
pub fn inspect(uki: &Uki) -> Result<Image, String> {
    Image::read(&uki.path)
}

fn digest_of(path: &Path) -> Result<Digest, Fault> {
    let (digest, _) = File::open(path)
        .and_then(Digest::of_reader)
        .map_err(Fault::at(path))?;
    Ok(digest)
}

/// Has the kernel forget what it holds of a file in memory, so that reading asks the disk. A size of 0 means to the end.
pub fn forget_cached(file: &File, offset: u64, size: u64) {
    // Where a file system does not know this, the page cache answers; nothing else depends on it.
    let _ = posix_fadvise(
        file,
        offset.cast_signed(),
        size.cast_signed(),
        PosixFadviseAdvice::POSIX_FADV_DONTNEED,
    );
}
