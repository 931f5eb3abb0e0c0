//! What is written down of the operating systems of a box: the one that is being tried, those that were switched to, and those that are no good.
//!
//! In: decisions. Out: `<state>/os/record.json`, written in one step, beside the database, so that a damaged database does not make the box
//! try a bad system again. Guarantees: bounded; a file that cannot be read is told of and taken for an empty one, as the boot counter
//! bounds what can happen then.

use crate::codes;
use holdfast_protocol::{Digest, Generation, Problem};
use holdfast_store::fs as durable;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Restarts that one document may cause: as many as the boot counter has tries, and one that a power cut took.
pub const MOST_RESTARTS: u32 = 4;
/// Switches that are remembered: more than there are documents to go back to.
const KEPT_SWITCHES: usize = 8;
/// Images that are remembered as bad.
const KEPT_BAD: usize = 16;

/// A system that is being tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trial {
    /// The document that wants it.
    pub generation: Generation,
    /// Its version.
    pub version: String,
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Version that ran before.
    pub from: String,
    /// The kernel's id of the start of the machine in which this was written.
    pub boot: String,
    /// Whether the boot loader was told of it.
    pub armed: bool,
    /// Restarts that were asked for up to now.
    pub restarts: u32,
}

/// A way back to another slot that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Return {
    /// The document that is gone back to.
    pub generation: Generation,
    /// Version that is gone back to.
    pub version: String,
    /// Restarts that were asked for up to now.
    pub restarts: u32,
}

/// A switch that was found good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Switch {
    /// The document that wanted it.
    pub generation: Generation,
    /// Version before.
    pub from: String,
    /// Version after.
    pub to: String,
}

/// An image that is no good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bad {
    /// Its version.
    pub version: String,
    /// Digest of its manifest; absent where it was not known any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// What was wrong.
    pub problem: Problem,
    /// When it was given up, by the node's clock.
    pub at: Timestamp,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Being tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
    /// On the way back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returning: Option<Return>,
    /// Switched to, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub switches: Vec<Switch>,
    /// No good, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bad: Vec<Bad>,
}

/// What became of a trial, seen at a start of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is being tried.
    None,
    /// The machine has not restarted for it yet.
    NotYet,
    /// It runs. Whether it is good is seen in this boot.
    Runs,
    /// The machine came back from it by itself.
    FellBack,
}

impl Record {
    /// What became of the trial, where `running` is the version that runs in the start of the machine named `boot`.
    pub fn outcome(&self, running: &str, boot: &str) -> Outcome {
        match &self.trial {
            None => Outcome::None,
            Some(trial) if trial.version == running => Outcome::Runs,
            // One that was cut off before the boot loader knew of it is begun again.
            Some(trial) if trial.boot == boot || !trial.armed => Outcome::NotYet,
            Some(_) => Outcome::FellBack,
        }
    }

    /// Whether this version is being tried, there or back.
    pub fn tries(&self, version: &str) -> bool {
        self.trial.as_ref().is_some_and(|trial| trial.version == version)
            || (self.returning.as_ref()).is_some_and(|returning| returning.version == version)
    }

    /// The version that a document of this generation ran on, where another one was switched to since.
    pub fn before(&self, generation: Generation) -> Option<&str> {
        self.switches
            .iter()
            .find(|switch| switch.generation > generation)
            .map(|switch| switch.from.as_str())
    }

    /// Why this image is not tried again.
    pub fn refusal(&self, version: &str, manifest: Option<Digest>) -> Option<&Problem> {
        self.bad
            .iter()
            .rev()
            .find(|bad| match (bad.manifest, manifest) {
                (Some(bad), Some(wanted)) => bad == wanted,
                _ => bad.version == version,
            })
            .map(|bad| &bad.problem)
    }

    /// The trial came to a good end.
    pub fn proved(&mut self) -> Option<Trial> {
        let trial = self.trial.take()?;
        self.switches.push(Switch {
            generation: trial.generation,
            from: trial.from.clone(),
            to: trial.version.clone(),
        });
        let surplus = self.switches.len().saturating_sub(KEPT_SWITCHES);
        self.switches.drain(..surplus);
        self.bad.retain(|bad| bad.manifest != Some(trial.manifest));
        Some(trial)
    }

    /// The image is given up.
    pub fn give_up(&mut self, bad: Bad) {
        if (self.trial.as_ref()).is_some_and(|trial| trial.version == bad.version) {
            self.trial = None;
        }
        self.bad
            .retain(|known| known.version != bad.version || known.manifest != bad.manifest);
        self.bad.push(bad);
        let surplus = self.bad.len().saturating_sub(KEPT_BAD);
        self.bad.drain(..surplus);
    }

    /// The system that a document of this generation ran on runs again.
    pub fn went_back(&mut self, generation: Generation) {
        self.returning = None;
        self.switches.retain(|switch| switch.generation <= generation);
    }

    /// Versions that are no good, oldest first, each once.
    pub fn bad_versions(&self) -> Vec<String> {
        let mut versions: Vec<String> = Vec::new();
        for bad in &self.bad {
            if !versions.contains(&bad.version) {
                versions.push(bad.version.clone());
            }
        }
        versions
    }
}

/// The file.
#[derive(Clone, Debug)]
pub struct Records {
    path: PathBuf,
}

impl Records {
    /// That below the state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join("os/record.json"),
        }
    }

    /// What is written down. A file that cannot be read is in the log.
    pub fn read(&self) -> Record {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Record::default(),
            Err(error) => {
                tracing::error!(%error, path = %self.path.display(), "the record of the operating system cannot be read; going on without it");
                return Record::default();
            }
        };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::error!(%error, path = %self.path.display(), "the record of the operating system is damaged; going on without it");
            Record::default()
        })
    }

    /// Writes it down; it is on the disk when this returns.
    ///
    /// # Errors
    /// Why the disk does not take it.
    pub fn write(&self, record: &Record) -> Result<(), Problem> {
        let written = || {
            if let Some(directory) = self.path.parent() {
                durable::create_private_directory(directory)?;
            }
            let text = serde_json::to_vec(record).unwrap_or_default();
            durable::write_atomic(&self.path, &text, durable::PRIVATE_FILE)
        };
        written().map_err(|error| {
            Problem::new(
                codes::OS_RECORD,
                format!("{} cannot be written: {error}", self.path.display()),
                "make room on the disk; `holdfast doctor` says more",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(counter: u64) -> Generation {
        Generation { epoch: 1, counter }
    }

    fn trial(armed: bool) -> Record {
        Record {
            trial: Some(Trial {
                generation: generation(2),
                version: "2".into(),
                manifest: Digest::of(b"2"),
                from: "1".into(),
                boot: "one".into(),
                armed,
                restarts: 1,
            }),
            ..Record::default()
        }
    }

    fn bad(version: &str, manifest: &[u8]) -> Bad {
        Bad {
            version: version.into(),
            manifest: Some(Digest::of(manifest)),
            problem: Problem::new(codes::OS_FELL_BACK, "it did not come up", ""),
            at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_trial_has_failed_only_where_the_machine_restarted_and_another_version_runs() {
        assert_eq!(Record::default().outcome("1", "one"), Outcome::None);
        assert_eq!(trial(true).outcome("1", "one"), Outcome::NotYet);
        assert_eq!(trial(false).outcome("1", "two"), Outcome::NotYet);
        assert_eq!(trial(true).outcome("2", "two"), Outcome::Runs);
        // A power cut between the boot loader's entry and its record.
        assert_eq!(trial(false).outcome("2", "two"), Outcome::Runs);
        assert_eq!(trial(true).outcome("1", "two"), Outcome::FellBack);
    }

    #[test]
    fn a_document_ran_on_what_was_there_before_the_first_switch_after_it() {
        let mut record = trial(true);
        record.proved();
        record.trial = Some(Trial {
            generation: generation(5),
            version: "3".into(),
            from: "2".into(),
            ..trial(true).trial.expect("one")
        });
        record.proved();
        let before = |counter| record.before(generation(counter));
        assert_eq!([1, 2, 4, 5].map(before), [Some("1"), Some("2"), Some("2"), None]);
        record.went_back(generation(3));
        assert_eq!(record.before(generation(1)), Some("1"));
        assert_eq!(record.before(generation(3)), None);
    }

    #[test]
    fn an_image_is_refused_by_its_digest_until_it_was_good_and_the_list_is_bounded() {
        let mut record = trial(true);
        record.give_up(bad("2", b"2"));
        assert_eq!(record.trial, None);
        assert!(record.refusal("2", Some(Digest::of(b"2"))).is_some());
        assert_eq!(record.refusal("2", Some(Digest::of(b"rebuilt"))), None);
        assert!(record.refusal("2", None).is_some());
        for number in 0_u8..40 {
            record.give_up(bad(&number.to_string(), &[number]));
        }
        assert_eq!(record.bad.len(), KEPT_BAD);
        assert_eq!(record.bad_versions().last().map(String::as_str), Some("39"));
    }

    // The damage is what the product's own way of writing files prevents.
    #[allow(clippy::disallowed_methods)]
    #[test]
    fn a_damaged_file_is_an_empty_record() {
        let directory = tempfile::tempdir().expect("a directory");
        let records = Records::new(directory.path());
        assert_eq!(records.read(), Record::default());
        records.write(&trial(true)).expect("it is written");
        assert_eq!(records.read(), trial(true));
        fs::write(directory.path().join("os/record.json"), b"{\"trial\":").expect("damage");
        assert_eq!(records.read(), Record::default());
    }
}
