//! The table of a FAT32 file system, looked at before anything is written by it.
//!
//! In: a copy of an EFI system partition. Out: nothing, or what is wrong with it. Guarantees: in a file system that passes, each chain of clusters has an end,
//! and no two meet: whoever follows one comes to its end, and what is written goes over no other file. Read: Microsoft's FAT specification of 2000.

use super::gpt::u32_at;
use anyhow::{Context as _, Result, bail};
use std::{fs::File, os::unix::fs::FileExt as _};

/// What an entry of the table has in its lower 28 bits from the mark of a bad cluster on: no next cluster.
const NO_NEXT: u32 = 0x0fff_fff7;

/// Refuses a file system in which a chain of clusters is damaged.
pub(super) fn check(partition: &File) -> Result<()> {
    let mut boot = [0; 512];
    partition.read_exact_at(&mut boot, 0).context("it is too short")?;
    let short = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
    let (sector, cluster, reserved) = (short(11), u64::from(boot[13]), short(14));
    let (copies, length) = (u64::from(boot[16]), u64::from(u32_at(&boot, 36)?));
    let total = match short(19) {
        0 => u64::from(u32_at(&boot, 32)?),
        sectors => sectors,
    };
    // That of FAT12 and FAT16 has its length elsewhere.
    let is_fat32 = matches!(sector, 512 | 1024 | 2048 | 4096)
        && cluster.is_power_of_two()
        && short(22) == 0
        && reserved > 0
        && copies > 0;
    let clusters = total
        .checked_sub(reserved + copies * length)
        .filter(|_| is_fat32)
        .map(|sectors| sectors / cluster)
        .context("it holds no FAT32 file system")?;
    let entries = clusters + 2;
    if total * sector > partition.metadata()?.len() || entries * 4 > length * sector {
        bail!("its file system is larger than the partition, or than its own table");
    }
    let mut bytes = vec![0; usize::try_from(entries * 4)?];
    partition
        .read_exact_at(&mut bytes, reserved * sector)
        .context("its table of clusters cannot be read")?;
    let next: Vec<u32> = bytes
        .chunks_exact(4)
        .map(|entry| u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3] & 0x0f]))
        .collect();
    chains(&next)
}

/// Looks at the chains of a table: `next` has for each cluster the one after it, or 0 where it is free.
fn chains(next: &[u32]) -> Result<()> {
    let follower = |cluster: usize| {
        let value = next.get(cluster).copied().unwrap_or_default();
        (value != 0 && value < NO_NEXT).then_some(value as usize)
    };
    let mut before = vec![0; next.len()];
    for cluster in 2..next.len() {
        let Some(after) = follower(cluster) else {
            continue;
        };
        let has_file = after >= 2 && next.get(after).is_some_and(|value| *value != 0);
        match before.get(after).copied().filter(|_| has_file) {
            None => bail!("cluster {cluster} of its table leads to cluster {after}, where no file is"),
            Some(0) => before[after] = cluster,
            Some(other) => bail!(
                "clusters {other} and {cluster} of its table both lead to cluster {after}: a file goes round in a circle, or into another"
            ),
        }
    }
    // None is led to twice: whoever begins at one that nothing leads to comes to an end, and what remains is circles.
    let mut ends = vec![false; next.len()];
    for first in (2..next.len()).filter(|cluster| before[*cluster] == 0) {
        let mut at = Some(first);
        while let Some(cluster) = at {
            ends[cluster] = true;
            at = follower(cluster);
        }
    }
    match (2..next.len()).find(|cluster| !ends[*cluster]) {
        Some(cluster) => {
            bail!("from cluster {cluster} of its table the way leads back to it: a file without an end")
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_with_ends_pass_and_all_others_are_told_apart() {
        const END: u32 = 0x0fff_ffff;
        // Two files, a free cluster, a bad one, and a file of one cluster.
        assert!(chains(&[0, 0, 3, END, 0, NO_NEXT, 7, 2 + 6, END, END]).is_ok());
        for (table, told) in [
            (&[0, 0, 2][..], "from cluster 2"),
            (&[0, 0, 3, 4, 2], "from cluster 2"),
            (&[0, 0, END, 4, 3], "from cluster 3"),
            (
                &[0, 0, 3, 4, 3],
                "clusters 2 and 4 of its table both lead to cluster 3",
            ),
            (
                &[0, 0, 4, 4, END],
                "clusters 2 and 3 of its table both lead to cluster 4",
            ),
            (&[0, 0, 3, 0], "leads to cluster 3, where no file is"),
            (&[0, 0, 9], "leads to cluster 9"),
            (&[0, 0, 1], "leads to cluster 1"),
        ] {
            let error = format!("{:#}", chains(table).unwrap_err());
            assert!(error.contains(told), "{told} is missing in {error}");
        }
    }
}
