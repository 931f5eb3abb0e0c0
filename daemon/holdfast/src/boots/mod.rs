//! The flight recorder: each start of the machine, how the one before it ended, and what was decided.
//!
//! ```text
//! holdfast boot-record start ─┐                                       ┌─▶ holdfast history --boots
//! daemon, health, OS switch  ─┼─▶ boots/log (append-only, bounded) ───┼─▶ causes of a failed OS switch
//! holdfast boot-record end   ─┘                                       └─▶ events of kind `booted`, once each
//! ```
//!
//! In: the machine's own facts ([`Evidence`]) and notes of all parts. Out: [`Boot`]s, oldest first. Guarantees: an entry a boot id, however
//! often it is begun; nothing that was noted is lost to a power cut; the file stays below 256 KiB; a disk that takes no write is named, and
//! never keeps a machine from starting: every caller goes on without.

mod ending;
mod entry;
mod evidence;
mod log;
mod tell;
#[cfg(test)]
mod tests;

pub use entry::{Boot, BootId, Ending, MAX_KERNEL_LINES, Note, Noted, OsStep, RebootReason, System};
pub use evidence::Evidence;
pub use log::{MAX_BOOTS, MAX_BYTES, MAX_NOTES};
pub use tell::tell;

use crate::codes;
use entry::{Began, Record, bounded_lines};
use holdfast_protocol::Problem;
use holdfast_store::StoreError;
use jiff::Timestamp;
use log::Log;
use std::path::{Path, PathBuf};

/// The record of all boots, and which of them is the present one.
#[derive(Clone, Debug)]
pub struct BootLog {
    directory: PathBuf,
    evidence: Evidence,
    boot: BootId,
}

impl BootLog {
    /// The record below the state directory of this machine.
    pub fn new(state_dir: &Path) -> Self {
        Self::with(state_dir, Evidence::below("/"))
    }

    /// The same with facts from elsewhere.
    pub fn with(state_dir: &Path, evidence: Evidence) -> Self {
        Self {
            directory: state_dir.join("boots"),
            boot: evidence.boot(),
            evidence,
        }
    }

    /// Id of the present boot.
    pub const fn boot(&self) -> &BootId {
        &self.boot
    }

    /// Where the facts come from.
    pub const fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Notes the present boot down, with how the one before it ended. Does nothing where it is there already.
    pub fn begin(&self) -> Result<(), StoreError> {
        let mut log = Log::open(&self.directory)?;
        self.begin_in(&mut log)
    }

    fn begin_in(&self, log: &mut Log) -> Result<(), StoreError> {
        if log.has_begun(&self.boot) {
            return Ok(());
        }
        let boots = assemble(&log.content.records);
        let last = log.content.records.iter().rev().find_map(|record| match record {
            Record::Began(began) => Some(began),
            Record::Noted { .. } => None,
        });
        let dumps = self.evidence.dumps();
        let known = last.map(|began| began.dumps.as_slice()).unwrap_or_default();
        let before = boots
            .last()
            .map(|boot| ending::of(boot, &dumps, known, self.evidence.watchdog_reset()));
        let appliance = self.evidence.system().version.is_some();
        let in_firmware: Vec<_> = dumps.iter().filter_map(evidence::Dump::in_firmware).collect();
        let damaged = log.content.damaged + log.content.torn;
        let mut records = vec![Record::Began(Began {
            number: last.map_or(1, |began| began.number.saturating_add(1)),
            id: self.boot.clone(),
            started_at: self.evidence.started_at(),
            system: self.evidence.system(),
            before,
            dumps: dumps.into_iter().map(|dump| dump.name).collect(),
        })];
        if damaged > 0 {
            tracing::warn!(
                bytes = damaged,
                "the record of boots had a damaged part, which is left out"
            );
            records.push(self.record(Note::Damaged { bytes: damaged }));
        }
        log.append(records)?;
        if appliance {
            // Firmware has room for few dumps. Nothing else of the image takes them away; elsewhere systemd-pstore does.
            for path in in_firmware {
                let _ = std::fs::remove_file(path);
            }
        }
        Ok(())
    }

    /// Notes something down in the present boot, which is begun where it was not.
    ///
    /// What is noted already is not noted again, but for restarts that are asked for and verdicts that change.
    pub fn note(&self, note: Note) -> Result<(), StoreError> {
        let note = note.bounded();
        let mut log = Log::open(&self.directory)?;
        self.begin_in(&mut log)?;
        let mut count = 0;
        let mut known = false;
        let mut verdict = None;
        for noted in log.notes_of(&self.boot) {
            count += 1;
            known |= noted.note == note;
            if is_verdict(&noted.note) {
                verdict = Some(&noted.note);
            }
        }
        let known = if is_verdict(&note) {
            verdict == Some(&note)
        } else {
            known
        };
        // How a boot ends must never be left out.
        let matters = matches!(note, Note::ShutDown | Note::RebootAsked { .. } | Note::Told);
        if known || (count >= MAX_NOTES && !matters) {
            return Ok(());
        }
        log.append(vec![self.record(note)])
    }

    /// As [`Self::note`], where nobody could do anything about a failure: it is in the log of the process.
    pub fn note_or_log(&self, note: Note) {
        if let Err(error) = self.note(note) {
            tracing::warn!(%error, "the record of boots does not take a note");
        }
    }

    fn record(&self, note: Note) -> Record {
        Record::Noted {
            boot: self.boot.clone(),
            noted: Noted {
                at: Timestamp::now(),
                up: self.evidence.up(),
                note,
            },
        }
    }

    /// All boots that are known, oldest first. Writes nothing.
    pub fn read(&self) -> Result<Vec<Boot>, StoreError> {
        Ok(assemble(&log::read(&self.directory)?.records))
    }

    /// All boots that can be read, oldest first, and what is wrong with the record where something is. Writes nothing.
    pub fn examine(&self) -> (Vec<Boot>, Option<Problem>) {
        let path = log::path_in(&self.directory);
        let damaged = |what: &str| {
            Problem::new(
                codes::BOOT_RECORD_DAMAGED,
                format!("{} is damaged: {what}", path.display()),
                "the box goes on, and notes its next starts; look at the kernel log for errors of the disk; to begin a new record, remove what has that name",
            )
        };
        match log::read(&self.directory) {
            Ok(content) => {
                // After whole records, a torn end may be one that is being written.
                let torn = u64::from(content.records.is_empty()) * content.torn;
                let bytes = content.damaged + torn;
                let problem =
                    (bytes > 0).then(|| damaged(&format!("{bytes} bytes of it are no record of a start")));
                (assemble(&content.records), problem)
            }
            Err(_) if path.exists() && !path.is_file() => (Vec::new(), Some(damaged("it is no file"))),
            Err(error) => (Vec::new(), Some(error.problem())),
        }
    }

    /// The present boot, and the one before it, as far as they are known. Writes nothing.
    pub fn last_two(&self) -> Result<(Option<Boot>, Option<Boot>), StoreError> {
        let mut boots = self.read()?;
        let present = match boots.last() {
            Some(boot) if boot.id == self.boot => boots.pop(),
            _ => None,
        };
        Ok((present, boots.pop()))
    }
}

fn is_verdict(note: &Note) -> bool {
    matches!(note, Note::Good | Note::Bad { .. })
}

/// Boots from records. Notes of a boot whose beginning is lost are left out.
fn assemble(records: &[Record]) -> Vec<Boot> {
    let mut boots: Vec<Boot> = Vec::new();
    for record in records {
        match record {
            Record::Began(began) if boots.iter().any(|boot| boot.id == began.id) => {}
            Record::Began(began) => boots.push(Boot {
                number: began.number,
                id: began.id.clone(),
                started_at: began.started_at,
                clock_trusted: None,
                system: began.system.clone(),
                generation: None,
                before: began.before.clone(),
                notes: Vec::new(),
            }),
            Record::Noted { boot, noted } => {
                let Some(boot) = boots.iter_mut().rev().find(|known| known.id == *boot) else {
                    continue;
                };
                if let Note::Daemon {
                    generation,
                    clock_trusted,
                } = &noted.note
                {
                    boot.generation = boot.generation.or(*generation);
                    boot.clock_trusted = boot.clock_trusted.or(Some(*clock_trusted));
                }
                boot.notes.push(noted.clone());
            }
        }
    }
    boots
}
