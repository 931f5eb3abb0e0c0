//! The partition table of a disk: reading it, and naming partitions anew.
//!
//! In: a disk. Out: its partitions; names and PARTUUIDs of some of them changed. It guarantees that nothing else of the table changes, and
//! that at every moment one of its two copies is whole: the backup is on the disk before the primary is touched, and the primary's
//! head and first entries share a page, which a disk writes at once. Format: UEFI specification 2.10, chapter 5.3.

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom},
    os::unix::fs::FileExt as _,
};

const SIGNATURE: &[u8; 8] = b"EFI PART";
const HEAD_BYTES: usize = 92;
/// The largest head that is read: one sector of the smallest kind.
const MAX_HEAD_BYTES: usize = 512;
/// The most entries that are read. Tables have 128.
const MAX_ENTRIES: usize = 1024;
/// Bytes of a label: 36 UTF-16 units.
const LABEL_BYTES: usize = 72;
const LABEL_AT: usize = 56;
const UNIQUE_AT: usize = 16;

/// A GUID as it stands in the table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Guid([u8; 16]);

impl Guid {
    /// From 32 hex digits, as a UUID is written without its dashes.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
        if digits.len() != 32 {
            return None;
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        // The first three fields are little-endian in the table.
        bytes[..4].reverse();
        bytes[4..6].reverse();
        bytes[6..8].reverse();
        Some(Self(bytes))
    }

    /// A random one (RFC 9562, version 4).
    pub fn random() -> io::Result<Self> {
        use ring::rand::SecureRandom as _;
        let mut bytes = [0; 16];
        ring::rand::SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| io::Error::other("the system gives no random bytes"))?;
        bytes[7] = bytes[7] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(Self(bytes))
    }
}

impl std::fmt::Debug for Guid {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
        for (index, at) in order.into_iter().enumerate() {
            if [4, 6, 8, 10].contains(&index) {
                formatter.write_str("-")?;
            }
            write!(formatter, "{:02x}", self.0[at])?;
        }
        Ok(())
    }
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its place in the table, from 0.
    pub index: usize,
    /// What it is for.
    pub kind: Guid,
    /// Its PARTUUID.
    pub unique: Guid,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Its label.
    pub label: String,
}

/// A partition table.
#[derive(Clone)]
pub struct Table {
    sector: u64,
    /// The head of the primary copy.
    head: Vec<u8>,
    entries: Vec<u8>,
    entry_size: usize,
}

impl Table {
    /// Reads the table of a disk: the primary copy, or the backup where that is damaged.
    pub fn read(disk: &File) -> io::Result<Self> {
        let size = (&*disk).seek(SeekFrom::End(0))?;
        let mut why = None;
        for sector in [512, 4096] {
            match Self::read_copy(disk, sector, 1) {
                Ok(table) => return Ok(table),
                Err(error) => why = why.or(Some(error)),
            }
        }
        for sector in [512, 4096] {
            if let Ok(backup) = Self::read_copy(disk, sector, (size / sector).saturating_sub(1)) {
                return Ok(backup.into_primary());
            }
        }
        Err(why.unwrap_or_else(|| invalid("there is none")))
    }

    fn read_copy(disk: &File, sector: u64, at: u64) -> io::Result<Self> {
        let mut head = vec![0; MAX_HEAD_BYTES];
        disk.read_exact_at(&mut head, at * sector)?;
        if &head[..8] != SIGNATURE {
            return Err(invalid("it has no signature"));
        }
        let head_size = u32_at(&head, 12) as usize;
        if !(HEAD_BYTES..=MAX_HEAD_BYTES).contains(&head_size) {
            return Err(invalid("its head has an unknown size"));
        }
        head.truncate(head_size);
        let told = u32_at(&head, 16);
        put_u32(&mut head, 16, 0);
        if crc32fast::hash(&head) != told || u64_at(&head, 24) != at {
            return Err(invalid("its head is damaged"));
        }
        let (count, entry_size) = (u32_at(&head, 80) as usize, u32_at(&head, 84) as usize);
        if count == 0 || count > MAX_ENTRIES || !(128..=4096).contains(&entry_size) {
            return Err(invalid("its list of partitions has an unknown size"));
        }
        let mut entries = vec![0; count * entry_size];
        disk.read_exact_at(&mut entries, u64_at(&head, 72) * sector)?;
        if crc32fast::hash(&entries) != u32_at(&head, 88) {
            return Err(invalid("its list of partitions is damaged"));
        }
        Ok(Self {
            sector,
            head,
            entries,
            entry_size,
        })
    }

    /// A table that was read from its backup, with the head that the primary has.
    fn into_primary(mut self) -> Self {
        let (own, other) = (u64_at(&self.head, 24), u64_at(&self.head, 32));
        put_u64(&mut self.head, 24, other);
        put_u64(&mut self.head, 32, own);
        put_u64(&mut self.head, 72, other + 1);
        self
    }

    /// All partitions, in the order of the table.
    pub fn partitions(&self) -> Vec<Partition> {
        self.entries
            .chunks_exact(self.entry_size)
            .enumerate()
            .filter(|(_, entry)| entry[..16] != [0; 16])
            .map(|(index, entry)| {
                let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
                Partition {
                    index,
                    kind: guid_at(entry, 0),
                    unique: guid_at(entry, UNIQUE_AT),
                    offset: first.saturating_mul(self.sector),
                    size: (last + 1).saturating_sub(first).saturating_mul(self.sector),
                    label: label_of(entry),
                }
            })
            .collect()
    }

    /// Gives a partition another PARTUUID and label, in memory. A label that is too long is refused.
    pub fn rename(&mut self, index: usize, unique: Guid, label: &str) -> io::Result<()> {
        let units: Vec<u8> = label.encode_utf16().flat_map(u16::to_le_bytes).collect();
        if units.len() > LABEL_BYTES {
            return Err(invalid("a label has at most 36 characters"));
        }
        let begin = index * self.entry_size;
        let entry = self
            .entries
            .get_mut(begin..begin + self.entry_size)
            .ok_or_else(|| invalid("it has no such partition"))?;
        entry[UNIQUE_AT..UNIQUE_AT + 16].copy_from_slice(&unique.0);
        entry[LABEL_AT..LABEL_AT + LABEL_BYTES].fill(0);
        entry[LABEL_AT..LABEL_AT + units.len()].copy_from_slice(&units);
        Ok(())
    }

    /// Writes both copies, the backup first, each down to the disk before the next.
    pub fn write(&self, disk: &File) -> io::Result<()> {
        let (own, backup) = (u64_at(&self.head, 24), u64_at(&self.head, 32));
        let sectors = (self.entries.len() as u64).div_ceil(self.sector);
        let mut head = self.head.clone();
        put_u64(&mut head, 24, backup);
        put_u64(&mut head, 32, own);
        let list = backup
            .checked_sub(sectors)
            .ok_or_else(|| invalid("it has no room for a backup"))?;
        put_u64(&mut head, 72, list);
        disk.write_all_at(&self.entries, list * self.sector)?;
        disk.write_all_at(&self.sealed(head), backup * self.sector)?;
        disk.sync_all()?;

        let list = u64_at(&self.head, 72);
        let head = self.sealed(self.head.clone());
        if list == own + 1 {
            // In one write, so that the page which holds the head and the first entries goes to the disk as one.
            let mut copy = head;
            copy.resize(self.sector as usize, 0);
            copy.extend_from_slice(&self.entries);
            disk.write_all_at(&copy, own * self.sector)?;
        } else {
            disk.write_all_at(&self.entries, list * self.sector)?;
            disk.write_all_at(&head, own * self.sector)?;
        }
        disk.sync_all()
    }

    fn sealed(&self, mut head: Vec<u8>) -> Vec<u8> {
        put_u32(&mut head, 88, crc32fast::hash(&self.entries));
        put_u32(&mut head, 16, 0);
        let sum = crc32fast::hash(&head);
        put_u32(&mut head, 16, sum);
        head
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the partition table: {what}"))
}

fn label_of(entry: &[u8]) -> String {
    let units: Vec<u16> = entry[LABEL_AT..LABEL_AT + LABEL_BYTES]
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .take_while(|unit| *unit != 0)
        .collect();
    String::from_utf16_lossy(&units)
}

fn guid_at(bytes: &[u8], at: usize) -> Guid {
    let mut guid = [0; 16];
    guid.copy_from_slice(&bytes[at..at + 16]);
    Guid(guid)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}
