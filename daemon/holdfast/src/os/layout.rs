//! Which partitions an image of Holdfast runs from, and which are free for the next.
//!
//! In: a disk, and the root hash of what runs. Out: the two slots, told apart. It guarantees that the slot which runs is never the one that
//! is handed out for writing: where that is not certain, there is no layout.

use super::{
    error::Fault,
    gpt::{Guid, Partition, Table},
};
use holdfast_os::Architecture;
use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
};

/// Types of the partitions (UAPI.2, discoverable partitions): `/usr` and its hash tree.
const fn kinds(architecture: Architecture) -> (&'static str, &'static str) {
    match architecture {
        Architecture::Amd64 => (
            "8484680c-9521-48c6-9c11-b0720656f69e",
            "77ff5f63-e7b6-4633-acf4-1565b864c0e6",
        ),
        Architecture::Arm64 => (
            "b0e01050-ee5f-4390-949a-9101b17104e9",
            "6e11a4e7-fbca-4ded-b9e9-e1a512bb664e",
        ),
    }
}

/// Label of a slot that holds no whole image.
const EMPTY: &str = "_empty";
const PREFIX: &str = "holdfast_";

/// One of the two slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The first on the disk.
    A,
    /// The second.
    B,
}

impl Slot {
    /// Its name in a status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// The partitions of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The file system.
    pub data: Partition,
    /// Its hash tree.
    pub hash: Partition,
}

impl Pair {
    /// Version whose whole image it holds, by its label.
    pub fn version(&self) -> Option<&str> {
        let version = self.data.label.strip_prefix(PREFIX)?;
        (self.hash.label == format!("{PREFIX}{version}_verity")).then_some(version)
    }

    /// Whether it is that of the image with this root hash.
    pub fn is_of(&self, usr_hash: &str) -> bool {
        halves(usr_hash).is_some_and(|(data, hash)| self.data.unique == data && self.hash.unique == hash)
    }
}

/// PARTUUIDs of the two partitions of an image: the halves of its root hash.
fn halves(usr_hash: &str) -> Option<(Guid, Guid)> {
    if usr_hash.len() != 64 {
        return None;
    }
    let (first, last) = usr_hash.split_at_checked(32)?;
    Some((Guid::parse(first)?, Guid::parse(last)?))
}

/// The slots of the disk that an image runs from.
#[derive(Clone)]
pub struct Layout {
    disk: PathBuf,
    table: Table,
    /// The slot that runs.
    pub running: Slot,
    /// Its partitions.
    pub own: Pair,
    /// The partitions of the one that does not run.
    pub other: Pair,
}

impl Layout {
    /// Reads the layout of `disk`, from which the image with this root hash runs.
    pub fn read(disk: &Path, architecture: Architecture, usr_hash: &str) -> Result<Self, Fault> {
        let unusable = |reason: &str| Fault::NoImage(format!("{}: {reason}", disk.display()));
        let file = File::open(disk).map_err(Fault::at(disk))?;
        let table = Table::read(&file).map_err(Fault::at(disk))?;
        let (data, hash) = kinds(architecture);
        let of_kind = |kind: &str| {
            let kind = Guid::parse(kind);
            let mut found: Vec<_> = table
                .partitions()
                .into_iter()
                .filter(|partition| Some(partition.kind) == kind)
                .collect();
            found.sort_by_key(|partition| partition.offset);
            <[Partition; 2]>::try_from(found)
                .map_err(|found| unusable(&format!("it has {} partitions of a kind of two", found.len())))
        };
        let ([data_a, data_b], [hash_a, hash_b]) = (of_kind(data)?, of_kind(hash)?);
        let a = Pair {
            data: data_a,
            hash: hash_a,
        };
        let b = Pair {
            data: data_b,
            hash: hash_b,
        };
        let (running, own, other) = match (a.is_of(usr_hash), b.is_of(usr_hash)) {
            (true, false) => (Slot::A, a, b),
            (false, true) => (Slot::B, b, a),
            (true, true) => return Err(unusable("both slots have the same identity")),
            (false, false) => return Err(unusable("none of its slots is the one that runs")),
        };
        Ok(Self {
            disk: disk.to_owned(),
            table,
            running,
            own,
            other,
        })
    }

    /// The disk.
    pub fn disk(&self) -> &Path {
        &self.disk
    }

    /// The disk, to be written to.
    pub fn open(&self) -> Result<File, Fault> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.disk)
            .map_err(Fault::at(&self.disk))
    }

    /// Has the other slot be nobody's: called before its first byte is written.
    pub fn disown_other(&mut self) -> Result<(), Fault> {
        let random = || Guid::random().map_err(Fault::at(&self.disk));
        let (data, hash) = (random()?, random()?);
        self.rename_other((data, EMPTY.into()), (hash, EMPTY.into()))
    }

    /// Gives the other slot to an image that is in it as a whole.
    pub fn give_other(&mut self, version: &str, usr_hash: &str) -> Result<(), Fault> {
        let (data, hash) =
            halves(usr_hash).ok_or_else(|| Fault::Internal("a root hash of no 64 digits".into()))?;
        let label = format!("{PREFIX}{version}");
        let verity = format!("{label}_verity");
        self.rename_other((data, label), (hash, verity))
    }

    fn rename_other(&mut self, data: (Guid, String), hash: (Guid, String)) -> Result<(), Fault> {
        let file = self.open()?;
        for (partition, (unique, label)) in [(&mut self.other.data, data), (&mut self.other.hash, hash)] {
            self.table
                .rename(partition.index, unique, &label)
                .map_err(Fault::at(&self.disk))?;
            (partition.unique, partition.label) = (unique, label);
        }
        self.table.write(&file).map_err(Fault::at(&self.disk))
    }
}
