//! Tells the hub of the starts of the machine, through the outbox.
//!
//! In: the record, and up to which start the store says the hub was told. Out: an event of kind `booted` for each start since, oldest first,
//! and one of kind `factory-reset` after the start that carried one out. Guarantees: exactly one event a start, whatever is cut off when:
//! events and mark are one transaction; where the store is lost, the record's own mark holds.

use super::{Boot, BootLog, Ending, Note};
use crate::report::Recorder;
use holdfast_core::reconcile::Report;
use holdfast_protocol::event::{EventKind, Severity};
use serde_json::{Map, Value};

/// Queues events of all starts that the hub was not told of.
///
/// What the disk does not take is in the log and in the conditions, and is told after the next start of the daemon.
pub fn tell(log: &BootLog, recorder: &Recorder) {
    let boots = match log.read() {
        Ok(boots) => boots,
        Err(error) => {
            tracing::warn!(%error, "the record of boots cannot be read; the hub is not told of them now");
            return;
        }
    };
    let told = match recorder.store.boot_told() {
        Ok(told) => told,
        Err(error) => return recorder.check(Some(&error)),
    };
    let untold = untold(&boots, told.as_deref());
    let Some(last) = untold.last() else { return };
    let reports = untold.iter().flat_map(reports).collect();
    let queued = recorder.note_with(reports, |events| recorder.store.tell_boots(events, &last.id.0));
    // A failure is in the log and in the conditions already.
    if queued.is_ok() && last.id == *log.boot() {
        log.note_or_log(Note::Told);
    }
}

/// The boots after the last one that was told of.
fn untold<'a>(boots: &'a [Boot], told: Option<&str>) -> &'a [Boot] {
    let known = boots.iter().rposition(|boot| {
        told == Some(boot.id.0.as_str()) || boot.notes.iter().any(|noted| noted.note == Note::Told)
    });
    boots
        .get(known.map_or(0, |index| index + 1)..)
        .unwrap_or_default()
}

fn reports(boot: &Boot) -> Vec<Report> {
    let mut reports = vec![booted(boot)];
    let reset = boot.notes.iter().find_map(|noted| match noted.note {
        Note::FactoryReset { kept_identity } => Some(kept_identity),
        _ => None,
    });
    if let Some(kept) = reset {
        let what = if kept {
            "all but its identity"
        } else {
            "everything"
        };
        reports.push(Report {
            kind: EventKind::FactoryReset,
            severity: Severity::Warning,
            message: format!("the box was set back to how it left the factory: {what} was erased"),
            generation: None,
            problem: None,
            details: [("keptIdentity".to_owned(), Value::Bool(kept))]
                .into_iter()
                .collect(),
        });
    }
    reports
}

fn booted(boot: &Boot) -> Report {
    let system = boot.system.version.as_deref();
    let system = system
        .map(|version| format!(", system {version}"))
        .unwrap_or_default();
    let before = boot
        .before
        .as_ref()
        .map(|ending| format!("; before that: {}", ending.words()))
        .unwrap_or_default();
    let mut details = match serde_json::to_value(boot) {
        Ok(Value::Object(details)) => details,
        _ => Map::new(),
    };
    // What was decided since has events of its own.
    details.remove("notes");
    let problem = match &boot.before {
        Some(Ending::HealthFailed { problem }) => Some(problem.clone()),
        _ => None,
    };
    Report {
        kind: EventKind::Booted,
        severity: if boot.before.as_ref().is_some_and(Ending::is_unexpected) {
            Severity::Warning
        } else {
            Severity::Info
        },
        message: format!("the machine was started (boot {}{system}){before}", boot.number),
        generation: boot.generation,
        problem,
        details,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

    use super::*;
    use crate::{boots::Evidence, identity::clock::TimeFloor, report::Conditions, sync::Signals};
    use holdfast_protocol::event::Event;
    use holdfast_store::{Options, Store};
    use std::{fs, path::Path, sync::Arc};

    fn booted(root: &Path, id: &str) -> BootLog {
        let path = root.join("proc/sys/kernel/random");
        fs::create_dir_all(&path).unwrap();
        holdfast_store::fs::write_atomic(&path.join("boot_id"), id.as_bytes(), 0o600).unwrap();
        let log = BootLog::with(&root.join("state"), Evidence::below(root));
        log.begin().unwrap();
        log
    }

    fn recorder(root: &Path, store: &str) -> Recorder {
        Recorder {
            node: "shop-17".parse().unwrap(),
            store: Arc::new(Store::open(&root.join(store), Options::default()).unwrap()),
            floor: Arc::new(TimeFloor::open(root).unwrap()),
            signals: Signals::default(),
            conditions: Arc::new(Conditions::default()),
        }
    }

    fn queued(recorder: &Recorder) -> Vec<Event> {
        let waiting = recorder.store.pending_events(100).unwrap();
        waiting
            .iter()
            .map(|event| serde_json::from_slice(&event.payload).unwrap())
            .collect()
    }

    #[test]
    fn each_boot_is_told_once_and_in_order_over_restarts_and_a_lost_store() {
        let root = tempfile::tempdir().unwrap();
        booted(root.path(), "one");
        let log = booted(root.path(), "two");
        let recorder = recorder(root.path(), "store-one");
        tell(&log, &recorder);
        tell(&log, &recorder);
        let log = booted(root.path(), "three");
        log.note(Note::FactoryReset { kept_identity: true }).unwrap();
        tell(&log, &recorder);
        tell(&log, &recorder);
        let events = queued(&recorder);
        let kinds: Vec<_> = events
            .iter()
            .map(|event| {
                (
                    event.kind.clone(),
                    event.details.get("number").and_then(Value::as_u64),
                )
            })
            .collect();
        assert_eq!(
            kinds,
            [
                (EventKind::Booted, Some(1)),
                (EventKind::Booted, Some(2)),
                (EventKind::Booted, Some(3)),
                (EventKind::FactoryReset, None),
            ]
        );
        assert!(events[1].message.contains("power lost"), "{}", events[1].message);
        assert_eq!(events[1].severity, Severity::Warning);

        // The database was damaged and set aside: the record knows what was told.
        let fresh = self::recorder(root.path(), "store-two");
        tell(&log, &fresh);
        assert!(queued(&fresh).is_empty());
        tell(&booted(root.path(), "four"), &fresh);
        assert_eq!(queued(&fresh).len(), 1);
    }

    #[test]
    fn a_boot_whose_mark_was_cut_off_is_not_told_again() {
        let root = tempfile::tempdir().unwrap();
        let log = booted(root.path(), "one");
        let recorder = recorder(root.path(), "store-one");
        // As after a power cut between the transaction and the mark.
        recorder.store.tell_boots(&[], "one").unwrap();
        tell(&log, &recorder);
        assert!(queued(&recorder).is_empty());
    }
}
