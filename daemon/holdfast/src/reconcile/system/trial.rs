//! What became of an exchange, as the start of the machine after it shows: it runs, or the boot loader came back from it.
//!
//! In: what is written down, what runs, the record of starts. Out: a trial that is over, the datastore as it was where the system fell back,
//! and why in words.

use super::{Bad, Outcome, Record, System};
use crate::{
    boots::{Note, OsStep},
    codes, failpoint,
    report::News,
};
use holdfast_protocol::{
    Digest, Generation, Problem,
    event::{EventKind, Severity},
};

impl System {
    /// What the present start of the machine says of a trial.
    pub(super) fn take_up(&self) {
        let boot = &self.parts.boots.boot().0;
        let outcome = self.record().outcome(self.version(), boot);
        match outcome {
            Outcome::None => self.left(),
            Outcome::NotYet => {}
            Outcome::Runs if self.is_on_trial() => {
                // Should it fall back, this start is the proof that the boot loader knew of it.
                let armed = self.write_down(|record| {
                    if let Some(trial) = &mut record.trial {
                        trial.armed = true;
                    }
                });
                self.tell_unwritten(armed);
            }
            Outcome::Runs => self.proved(),
            Outcome::FellBack => self.fell_back(),
        }
    }

    fn tell_unwritten(&self, written: Result<(), Problem>) {
        if let Err(problem) = written {
            tracing::error!(%problem, "the state of the operating system cannot be written down");
            let now = self.parts.recorder.floor.now();
            self.parts.recorder.conditions.set("os-record", problem, now);
        }
    }

    /// The trial came to a good end.
    pub(super) fn proved(&self) {
        match self.write_down(Record::proved) {
            Ok(Some(trial)) => self.parts.boots.note_or_log(Note::Os {
                step: OsStep::Switched,
                version: trial.version,
                detail: String::new(),
            }),
            Ok(None) => {}
            Err(problem) => self.tell_unwritten(Err(problem)),
        }
    }

    /// The boot loader came back from the trial: the datastore goes with it, and the image is not tried again.
    fn fell_back(&self) {
        let Some(trial) = self.record().trial.clone() else {
            return;
        };
        match self.parts.switcher.put_back_after_restart(trial.generation) {
            Ok(put_back) => tracing::warn!(
                version = trial.version,
                put_back,
                "the operating system fell back"
            ),
            Err(problem) => {
                tracing::error!(%problem, "the datastore cannot be put back; it stays as it is");
            }
        }
        failpoint::reach("os-fell-back");
        self.give_up(&trial.version, Some(trial.manifest), Some(trial.generation));
    }

    /// The boot loader left a version that was good before, and whose starts came to nothing one after the other.
    fn left(&self) {
        let Some(version) = self.parts.slots.spent() else {
            return;
        };
        let known = {
            let record = self.record();
            record.returning.is_some() || record.refusal(&version, None).is_some()
        };
        if !known {
            self.give_up(&version, None, None);
        }
    }

    fn give_up(&self, version: &str, manifest: Option<Digest>, generation: Option<Generation>) {
        let problem = Problem::new(
            codes::OS_FELL_BACK,
            format!(
                "version {version} of the operating system did not come up, and {} runs again: {}",
                self.version(),
                self.why(version)
            ),
            "build another version of the image; this one is not tried again on this box",
        );
        let bad = Bad {
            version: version.to_owned(),
            manifest,
            problem: problem.clone(),
            at: self.parts.recorder.floor.now(),
        };
        self.tell_unwritten(self.write_down(|record| record.give_up(bad)));
        self.parts.boots.note_or_log(Note::Os {
            step: OsStep::FellBack,
            version: version.to_owned(),
            detail: problem.message.clone(),
        });
        // What the disk does not take is in the log and in the conditions already.
        let _ = self.parts.recorder.tell(News {
            kind: EventKind::OsRolledBack,
            severity: Severity::Alarm,
            message: problem.message.clone(),
            generation,
            problem: Some(problem),
        });
    }

    /// Why the starts of this version were no good, as far as they left word. How one ended that was found good says nothing of those after it.
    fn why(&self, version: &str) -> String {
        let boots = self.parts.boots.read().unwrap_or_default();
        let tried: Vec<_> = boots
            .iter()
            .rev()
            .skip_while(|boot| boot.id == *self.parts.boots.boot())
            .take_while(|boot| {
                boot.system.version.as_deref() == Some(version) && boot.verdict() != Some(Ok(()))
            })
            .collect();
        let verdict = tried.iter().find_map(|boot| match boot.verdict() {
            Some(Err(problem)) => Some(problem.message.clone()),
            _ => None,
        });
        let kernel = tried
            .iter()
            .flat_map(|boot| &boot.notes)
            .find_map(|noted| match &noted.note {
                Note::Bad { kernel, .. } if !kernel.is_empty() => kernel.last().cloned(),
                _ => None,
            });
        // How the last start of it ended, the present one knows.
        let ending = boots
            .last()
            .and_then(|boot| boot.before.as_ref())
            .filter(|_| !tried.is_empty())
            .map(crate::boots::Ending::words);
        match (verdict, ending) {
            (Some(verdict), _) => match kernel {
                Some(line) => format!("{verdict} (last word of the kernel: {line})"),
                None => verdict,
            },
            (None, Some(ending)) => format!("it was not found good, and its last start ended so: {ending}"),
            (None, None) => "none of its last starts came as far as to write anything down; the kernel or its disk did not come up".into(),
        }
    }
}
