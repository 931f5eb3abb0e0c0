//! Where the EFI system partition is, by the table of partitions (GPT; UEFI specification, 5.3) of an image or a disk.
//!
//! In: an open image. Out: begin and length of the partition. Guarantees: a table whose checksums are wrong, and an image that is shorter than its table says,
//! are refused; no number of a table leads beyond the end.

use super::esp::{SECTOR, TYPE};
use anyhow::{Context as _, Result, bail};
use std::{fs::File, os::unix::fs::FileExt as _};

/// How the names of the partitions begin that have a box's operating system.
const NAME: &str = "holdfast_";
/// The largest EFI system partition that is copied, in bytes; that of an image has 384 MiB.
const MAX_BYTES: u64 = 4 << 30;
/// The longest list of partitions that is read, in bytes; that of an image has 16 KiB.
const MAX_LIST_BYTES: u32 = 1 << 20;
/// Length of the header, in bytes, up to the fields that later versions of the specification may add.
const HEADER: u32 = 92;

/// Where the EFI system partition begins in an image of `length` bytes, and how long it is, in bytes.
pub(super) fn find(image: &File, length: u64) -> Result<(u64, u64)> {
    let mut sector = [0; SECTOR as usize];
    image
        .read_exact_at(&mut sector, SECTOR)
        .context("it is too short for a partition table")?;
    if &sector[..8] != b"EFI PART" {
        bail!(
            "it has no partition table (is it still compressed, or a partition instead of the whole disk?)"
        );
    }
    check_header(sector)?;
    // What lies beyond the end is no place, however large the number.
    let within = |sector: u64, what: &str| {
        sector
            .checked_mul(SECTOR)
            .filter(|offset| *offset < length)
            .with_context(|| format!("its {what} beyond its end (was it copied whole?)"))
    };
    let table = within(u64_at(&sector, 72)?, "table of partitions begins")?;
    let entries = entries(image, &sector, table)?;
    let mut found = None;
    let mut is_of_box = false;
    // The copy of the table is what comes last.
    let mut end = u64_at(&sector, 32)?;
    for entry in &entries {
        let last = u64_at(entry, 40)?;
        if entry[..16] != [0; 16] {
            end = end.max(last);
        }
        is_of_box |= entry[56..128]
            .chunks(2)
            .zip(NAME.bytes())
            .all(|(unit, letter)| unit == [letter, 0]);
        if entry[..16] == TYPE && found.is_none() {
            let begin = within(u64_at(entry, 32)?, "EFI system partition begins")?;
            found = Some((begin, within(last, "EFI system partition ends")?));
        }
    }
    let (begin, last) = found.context("it has no EFI system partition")?;
    if !is_of_box {
        bail!("no partition of it is named {NAME}…: it belongs to something else");
    }
    let end = end.saturating_add(1).saturating_mul(SECTOR);
    if end > length {
        bail!(
            "it is cut off: it has {length} bytes, and by its table of partitions {end}; copy it whole, and compare its sum with SHA256SUMS"
        );
    }
    let size = (last + SECTOR)
        .checked_sub(begin)
        .filter(|size| *size <= MAX_BYTES && last + SECTOR <= length)
        .context("its EFI system partition is of a size that no image has")?;
    Ok((begin, size))
}

/// Refuses a header that is not what was written.
fn check_header(mut sector: [u8; SECTOR as usize]) -> Result<()> {
    let size = u32_at(&sector, 12)?;
    let wanted = u32_at(&sector, 16)?;
    // The sum is over the header as if it were not in it.
    sector[16..20].fill(0);
    let header = usize::try_from(size).ok().and_then(|size| sector.get(..size));
    match header {
        Some(header) if size >= HEADER && crc32fast::hash(header) == wanted => Ok(()),
        _ => Err(damaged("header", SECTOR)),
    }
}

/// The entries of the table, each with at least the 128 bytes of the specification.
fn entries(image: &File, header: &[u8], table: u64) -> Result<Vec<Vec<u8>>> {
    let (count, size) = (u32_at(header, 80)?, u32_at(header, 84)?);
    if !(128..=4096).contains(&size) {
        bail!("its partition table has entries of {size} bytes");
    }
    let bytes = count
        .checked_mul(size)
        .filter(|bytes| *bytes <= MAX_LIST_BYTES)
        .with_context(|| format!("its partition table has {count} entries"))?;
    let mut list = vec![0; usize::try_from(bytes)?];
    image
        .read_exact_at(&mut list, table)
        .context("its table of partitions is cut off")?;
    if crc32fast::hash(&list) != u32_at(header, 88)? {
        return Err(damaged("list", table));
    }
    let size = usize::try_from(size)?;
    Ok(list.chunks_exact(size).map(<[u8]>::to_vec).collect())
}

fn damaged(what: &str, at: u64) -> anyhow::Error {
    anyhow::anyhow!(
        "its table of partitions is damaged: the checksum of the {what} at byte {at} is wrong; start from a fresh copy of the image, and compare its sum with SHA256SUMS"
    )
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    let field = bytes.get(at..at + 8).context("a field beyond the end")?;
    Ok(u64::from_le_bytes(field.try_into()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    let field = bytes.get(at..at + 4).context("a field beyond the end")?;
    Ok(u32::from_le_bytes(field.try_into()?))
}
