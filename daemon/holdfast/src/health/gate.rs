//! What a verdict means for the machine.
//!
//! In: the verdict, whether this start is one of the tries of a new system, and how the starts before it were judged. Out: whether the machine stays
//! up. It guarantees that a system which was good before is never left because of an app, of a power cut, or of fewer than three bad starts
//! in a row, and that it is left at most once.

use super::{APPS, Check, Verdict};
use crate::boots::{Boot, Note};

/// Bad starts in a row after which a system that was good before is left.
pub const BAD_STARTS: usize = 3;

/// What the machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It stays up: it is good, or there is nothing better to start.
    Stay,
    /// It restarts, and the boot loader counts: the new system is tried again, or the earlier one is started.
    Restart,
    /// It restarts into the system in the other slot.
    GoBack,
}

/// What a verdict means. `before` are the starts of the machine before this one, oldest first; `other` says that another system is whole and was not
/// given up.
pub fn decide(verdict: &Verdict, on_trial: bool, version: &str, before: &[Boot], other: bool) -> Decision {
    let Some(bad) = verdict.first_bad() else {
        return Decision::Stay;
    };
    if on_trial {
        return Decision::Restart;
    }
    if !counts(bad.name.as_ref()) || !other {
        return Decision::Stay;
    }
    // A start that was not judged, because the power went or a person restarted the machine, says nothing.
    let in_a_row = before
        .iter()
        .rev()
        .take_while(|boot| boot.system.version.as_deref() == Some(version))
        .filter_map(|boot| {
            boot.notes.iter().rev().find_map(|noted| match &noted.note {
                Note::Good => Some(false),
                Note::Bad { check, .. } => Some(counts(check)),
                _ => None,
            })
        })
        .take_while(|bad| *bad)
        .count();
    if in_a_row + 1 >= BAD_STARTS {
        Decision::GoBack
    } else {
        Decision::Stay
    }
}

/// Whether a failure of this check can be the fault of a system that was good before. An app has reasons of its own.
fn counts(check: &str) -> bool {
    check != APPS
}

/// The check of a daemon that does not answer.
pub fn no_daemon(problem: holdfast_protocol::Problem) -> Verdict {
    Verdict::of(vec![Check::of(super::DAEMON, Some(problem))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boots::{BootId, Noted, System};
    use holdfast_protocol::Problem;
    use jiff::Timestamp;

    fn bad(check: &'static str) -> Verdict {
        Verdict::of(vec![Check::of(check, Some(problem()))])
    }

    fn problem() -> Problem {
        Problem::new("boot-not-good", "it is not", "")
    }

    fn boot(version: &str, note: Option<Note>) -> Boot {
        let noted = |note| Noted {
            at: Timestamp::UNIX_EPOCH,
            up: 1,
            note,
        };
        Boot {
            number: 1,
            id: BootId("one".into()),
            started_at: Timestamp::UNIX_EPOCH,
            clock_trusted: None,
            system: System {
                version: Some(version.into()),
                ..System::default()
            },
            generation: None,
            before: None,
            notes: note.map(noted).into_iter().collect(),
        }
    }

    fn judged_bad(check: &str) -> Note {
        Note::Bad {
            check: check.into(),
            problem: problem(),
            kernel: Vec::new(),
        }
    }

    #[test]
    fn a_good_start_stays_and_a_bad_try_restarts() {
        let good = Verdict::of(vec![Check::of("store", None)]);
        assert_eq!(decide(&good, true, "2", &[], true), Decision::Stay);
        assert_eq!(decide(&bad("apps"), true, "2", &[], true), Decision::Restart);
        assert_eq!(decide(&bad("apps"), true, "2", &[], false), Decision::Restart);
    }

    #[test]
    fn a_system_that_was_good_is_left_after_three_bad_starts_in_a_row() {
        let two = [
            boot("2", Some(judged_bad("kubernetes"))),
            boot("2", Some(judged_bad("daemon"))),
        ];
        assert_eq!(
            decide(&bad("daemon"), false, "2", &two[1..], true),
            Decision::Stay
        );
        assert_eq!(decide(&bad("daemon"), false, "2", &two, true), Decision::GoBack);
        assert_eq!(decide(&bad("daemon"), false, "2", &two, false), Decision::Stay);
    }

    #[test]
    fn pain_15_power_cuts_apps_and_good_starts_in_between_never_lead_back() {
        let cut = || boot("2", None);
        let many = [cut(), cut(), cut(), cut(), cut()];
        assert_eq!(decide(&bad("daemon"), false, "2", &many, true), Decision::Stay);
        let apps = [
            boot("2", Some(judged_bad("apps"))),
            boot("2", Some(judged_bad("apps"))),
        ];
        assert_eq!(decide(&bad("apps"), false, "2", &apps, true), Decision::Stay);
        assert_eq!(decide(&bad("daemon"), false, "2", &apps, true), Decision::Stay);
        let good_between = [
            boot("2", Some(judged_bad("daemon"))),
            boot("2", Some(Note::Good)),
            boot("2", Some(judged_bad("daemon"))),
        ];
        assert_eq!(
            decide(&bad("daemon"), false, "2", &good_between, true),
            Decision::Stay
        );
        let of_another = [
            boot("1", Some(judged_bad("daemon"))),
            boot("1", Some(judged_bad("daemon"))),
        ];
        assert_eq!(
            decide(&bad("daemon"), false, "2", &of_another, true),
            Decision::Stay
        );
        // Cuts between bad starts do not hide them.
        let cuts_between = [
            boot("2", Some(judged_bad("daemon"))),
            cut(),
            boot("2", Some(judged_bad("daemon"))),
            cut(),
        ];
        assert_eq!(
            decide(&bad("daemon"), false, "2", &cuts_between, true),
            Decision::GoBack
        );
    }
}
