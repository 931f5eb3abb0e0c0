//! The little that must be known of a unified kernel image: that it is whole, and which `/usr` it demands.
//!
//! In: a PE file. Out: the end of its last section, and the kernel command line in it. Format: Microsoft PE/COFF specification, chapters 2 and 4.

use std::{fs::File, os::unix::fs::FileExt as _, path::Path};

/// The most sections that are looked at.
const MAX_SECTIONS: u16 = 96;
/// The longest kernel command line, in bytes.
const MAX_COMMAND_LINE: u32 = 64 << 10;

/// A kernel image that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Root hash of `/usr` that it demands: `usrhash=` of its command line.
    pub usr_hash: Option<String>,
}

impl Image {
    /// Reads an image; says why where it is none, or cut off.
    pub fn read(path: &Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let size = file.metadata().map_err(|error| error.to_string())?.len();
        let read = |offset: u64, length: usize| {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, offset)
                .map(|()| bytes)
                .map_err(|_| "it is cut off".to_owned())
        };
        let begin = read(0, 64)?;
        if &begin[..2] != b"MZ" {
            return Err("it is no PE file".into());
        }
        let at = u64::from(u32_at(&begin, 60));
        let head = read(at, 24)?;
        if &head[..4] != b"PE\0\0" {
            return Err("it is no PE file".into());
        }
        let sections = u16_at(&head, 6);
        if sections == 0 || sections > MAX_SECTIONS {
            return Err(format!("it has {sections} sections"));
        }
        let first = at + 24 + u64::from(u16_at(&head, 20));
        let mut usr_hash = None;
        for index in 0..u64::from(sections) {
            let section = read(first + index * 40, 40)?;
            let (length, stored, offset) = (u32_at(&section, 8), u32_at(&section, 16), u32_at(&section, 20));
            if u64::from(offset) + u64::from(stored) > size {
                return Err("it is cut off".into());
            }
            if section.starts_with(b".cmdline") {
                let line = read(
                    u64::from(offset),
                    length.min(stored).min(MAX_COMMAND_LINE) as usize,
                )?;
                usr_hash = usr_hash_of(&String::from_utf8_lossy(&line));
            }
        }
        Ok(Self { usr_hash })
    }
}

/// `usrhash=` of a kernel command line.
pub fn usr_hash_of(command_line: &str) -> Option<String> {
    command_line
        .split([' ', '\t', '\n', '\0'])
        .filter_map(|word| word.strip_prefix("usrhash="))
        .rfind(|hash| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .map(str::to_ascii_lowercase)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
