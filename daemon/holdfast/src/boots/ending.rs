//! How the boot before the present one ended, from what it noted itself and from what the machine kept of it.

use super::{
    bounded_lines,
    entry::{Boot, Ending, Note, RebootReason},
    evidence::Dump,
};

/// The ending of `boot`, the last one before the present. `known` are the crash dumps that were there when it began.
///
/// What the kernel left behind counts most: a machine may panic while it shuts down. Then what the boot said of itself, for a restart that
/// is asked for on purpose is forced and leaves no shutdown behind. Then the watchdog; a machine that left nothing lost its power.
pub(super) fn of(boot: &Boot, dumps: &[Dump], known: &[String], watchdog_reset: bool) -> Ending {
    let panic = dumps
        .iter()
        .filter(|dump| !known.contains(&dump.name))
        .find_map(Dump::panic);
    if let Some(lines) = panic {
        return Ending::Panic {
            lines: bounded_lines(&lines),
        };
    }
    let clean = boot.shut_down();
    let bad = boot.notes.iter().rev().find_map(|noted| match &noted.note {
        Note::Bad { problem, .. } => Some(problem),
        _ => None,
    });
    match (boot.asked(), boot.verdict()) {
        (Some(RebootReason::HealthFailed), _) => match bad {
            Some(problem) => Ending::HealthFailed {
                problem: problem.clone(),
            },
            None => Ending::Asked {
                reason: RebootReason::HealthFailed,
                clean,
            },
        },
        (Some(reason), _) => Ending::Asked {
            reason: reason.clone(),
            clean,
        },
        (None, Some(Err(problem))) if !clean => Ending::HealthFailed {
            problem: problem.clone(),
        },
        _ if clean => Ending::Clean,
        _ if watchdog_reset => Ending::Watchdog,
        _ => Ending::PowerLost,
    }
}
