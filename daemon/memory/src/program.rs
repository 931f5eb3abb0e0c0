//! The program's own pages.
//!
//! In: `/proc/self/smaps`. Out: fewer resident pages. It guarantees that only pages are let go that are exactly as in the program's file:
//! of mappings of this very file, private, not writable, and without one page that was ever changed. That leaves out what the loader
//! relocated, and a page with a debugger's breakpoint. The kernel brings each page back from its cache of the file when it is touched.
//!
//! The kernel counts a page of a program as the process's as long as it is mapped, and maps 16 pages around each that is touched. Most of
//! what a start and a first document run through, an idle node never runs through again. Not being mapped, it is the first that the kernel
//! uses for something else when memory gets scarce.

use rustix::mm::{Advice, madvise};
use std::{fs, path::Path, ptr::without_provenance_mut};

/// A mapping of the program's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapping {
    begin: usize,
    end: usize,
    /// Bytes that are resident.
    resident: usize,
    /// Bytes that are copies of our own and no more as in the file; `Dirty` would count what is not yet written back too.
    changed: usize,
}

/// Lets go of the program's pages; answers with how many bytes were resident. Where the kernel does not say what is mapped, nothing is done.
pub(crate) fn give_back() -> usize {
    let Ok(program) = fs::read_link("/proc/self/exe") else {
        return 0;
    };
    let Ok(text) = fs::read_to_string("/proc/self/smaps") else {
        return 0;
    };
    mappings(&text, &program)
        .into_iter()
        .filter(|mapping| mapping.changed == 0 && mapping.resident > 0)
        .filter(|mapping| {
            // SAFETY: the mapping is of a file, private, cannot be written and was not changed: whatever is read there afterwards is what is
            // read there now. It cannot go away meanwhile, for nobody unmaps the running program.
            unsafe {
                madvise(
                    without_provenance_mut(mapping.begin),
                    mapping.end - mapping.begin,
                    Advice::LinuxDontNeed,
                )
            }
            .is_ok()
        })
        .map(|mapping| mapping.resident)
        .sum()
}

/// The mappings of this file that are private and not writable, as `proc_pid_smaps(5)` describes them.
fn mappings(smaps: &str, program: &Path) -> Vec<Mapping> {
    let mut found: Vec<Mapping> = Vec::new();
    let mut ours = false;
    for line in smaps.lines() {
        if let Some((name, value)) = line.split_once(":  ") {
            let kib = value.trim().trim_end_matches(" kB").parse::<usize>();
            let (Some(mapping), true, Ok(kib)) = (found.last_mut(), ours, kib) else {
                continue;
            };
            match name {
                "Rss" => mapping.resident = kib << 10,
                "Anonymous" | "Swap" => mapping.changed += kib << 10,
                _ => {}
            }
            continue;
        }
        let Some(header) = header(line, program) else {
            // Another mapping's header, or a line of text.
            ours &= line.starts_with("VmFlags") || line.starts_with("THPeligible");
            continue;
        };
        found.push(header);
        ours = true;
    }
    found
}

/// Reads `begin-end perms offset device inode path`.
fn header(line: &str, program: &Path) -> Option<Mapping> {
    let mut fields = line.splitn(6, ' ');
    let (begin, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    let path = fields.nth(3)?.trim_start();
    if !matches!(permissions, "r-xp" | "r--p") || Path::new(path) != program {
        return None;
    }
    Some(Mapping {
        begin: usize::from_str_radix(begin, 16).ok()?,
        end: usize::from_str_radix(end, 16).ok()?,
        resident: 0,
        changed: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
01000000-01004000 r--p 00000000 fe:00 9978755                            /usr/bin/holdfast
Size:                 16 kB
Rss:                   8 kB
Private_Dirty:         0 kB
Anonymous:             0 kB
Swap:                  0 kB
THPeligible:           0
VmFlags: rd mr mw me
01004000-01008000 r-xp 00004000 fe:00 9978755                            /usr/bin/holdfast
Rss:                  16 kB
Private_Dirty:         4 kB
Anonymous:             4 kB
VmFlags: rd ex mr mw me
01008000-0100c000 rw-p 00008000 fe:00 9978755                            /usr/bin/holdfast
Rss:                  16 kB
Anonymous:            16 kB
0100c000-01010000 r-xp 00008000 fe:00 9978756                            /usr/lib/libc.so
Rss:                  12 kB
7fff00000000-7fff00001000 r-xp 00000000 00:00 0                          [vdso]
Rss:                   4 kB
";

    #[test]
    fn only_unwritable_mappings_of_the_program_are_found_and_their_changes_seen() {
        let found = mappings(SMAPS, Path::new("/usr/bin/holdfast"));
        let mapping = |begin, resident, changed| Mapping {
            begin,
            end: begin + 0x4000,
            resident,
            changed,
        };
        assert_eq!(
            found,
            [
                mapping(0x0100_0000, 8 << 10, 0),
                mapping(0x0100_4000, 16 << 10, 4 << 10)
            ]
        );
    }

    #[test]
    fn what_a_mapping_of_something_else_says_is_not_added_to_the_one_before() {
        let text = SMAPS.replace("0100c000-01010000 r-xp", "0100c000-01010000 rw-p");
        let found = mappings(&text, Path::new("/usr/bin/holdfast"));
        assert_eq!(found.len(), 2);
        assert!(mappings(SMAPS, Path::new("/usr/bin/other")).is_empty());
    }
}
