//! Commands about the machine itself: its record of boots, its personal settings, the factory reset.

use super::{
    BootMoment, Common, Exit, PersonaliseArguments, ResetArguments, complain, exit::say, query::Done,
};
use crate::{
    boots::{BootLog, Note, RebootReason},
    codes,
    personal::{self, Targets},
    reset::{self, Order, Outcome},
};
use holdfast_protocol::Problem;
use holdfast_store::StateLock;
use jiff::Timestamp;
use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::Path,
    process::{Command, Stdio},
};

/// What must be typed for a factory reset.
pub(crate) const WORDS: &str = "erase this box";

pub(super) fn boot_record(moment: BootMoment, common: &Common) -> Done {
    let log = BootLog::new(&common.settings()?.state_dir);
    match moment {
        BootMoment::Start => log.begin(),
        BootMoment::End => log.note(Note::ShutDown),
    }
    .map_err(|error| error.problem())?;
    Ok(Exit::Done)
}

pub(super) fn personalise(arguments: &PersonaliseArguments, common: &Common) -> Done {
    let applied = personal::apply(&arguments.from, &Targets::below(&arguments.root));
    for line in &applied.done {
        say(&format!("{line}\n"))?;
    }
    for problem in &applied.problems {
        complain(problem, common.output);
    }
    Ok(if applied.problems.is_empty() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

pub(super) fn factory_reset(arguments: &ResetArguments, common: &Common) -> Done {
    let settings = common.settings()?;
    let boots = BootLog::new(&settings.state_dir);
    if arguments.carry_out {
        if reset::ordered(&settings.state_dir)?.is_none() {
            return Ok(Exit::Done);
        }
        let lock = StateLock::acquire(&settings.state_dir).map_err(|error| error.problem())?;
        let personal = arguments
            .personal
            .as_deref()
            .unwrap_or(Path::new(personal::SOURCE));
        match reset::carry_out(&settings, personal, &boots, &lock)? {
            Outcome::None => {}
            Outcome::NotYet => {
                say("a factory reset is ordered; the next start of the machine carries it out\n")?;
            }
            Outcome::Done(lines) => {
                for line in lines {
                    say(&format!("{line}\n"))?;
                }
            }
        }
        return Ok(Exit::Done);
    }
    reset::require_state(&settings.state_dir)?;
    if arguments.cancel {
        say(cancel(&settings.state_dir, &boots)?)?;
        return say("\n").map(|()| Exit::Done);
    }
    if !arguments.yes {
        confirm(arguments.keep_identity)?;
    }
    order(&settings.state_dir, &boots, arguments.keep_identity)?;
    if arguments.no_restart {
        say("the factory reset is ordered; the next start of the machine carries it out\n")?;
    } else {
        restart(&boots)?;
        say("the machine restarts and erases itself\n")?;
    }
    Ok(Exit::Done)
}

/// Takes the order of a factory reset back, and says what became of it.
pub(crate) fn cancel(state_dir: &Path, boots: &BootLog) -> Result<&'static str, Problem> {
    Ok(if reset::cancel(state_dir, boots)? {
        "The factory reset is taken back; nothing was erased."
    } else {
        "No factory reset is ordered."
    })
}

/// Leaves the order of a factory reset.
pub(crate) fn order(state_dir: &Path, boots: &BootLog, keep_identity: bool) -> Result<(), Problem> {
    let order = Order {
        keep_identity,
        ordered_at: Timestamp::now(),
        boot: boots.boot().clone(),
    };
    reset::require_state(state_dir)?;
    // One that was begun goes on as it was ordered. One that cannot be read is replaced.
    match reset::not_begun(state_dir, boots) {
        Err(problem) if problem.code == codes::RESET_BEGUN => return Err(problem),
        _ => {}
    }
    reset::order(state_dir, &order).map_err(|error| error.problem())
}

/// Restarts the machine in good order, for a factory reset.
pub(crate) fn restart(boots: &BootLog) -> Result<(), Problem> {
    // Only where it is asked for: this boot may end otherwise, long after an order that waits, or was taken back.
    boots.note_or_log(Note::RebootAsked {
        reason: RebootReason::FactoryReset,
    });
    let failed = |reason: String| {
        Problem::new(
            codes::RESTART_FAILED,
            format!("the machine cannot be restarted: {reason}"),
            "restart it by hand: the factory reset is ordered and carried out then; holdfast factory-reset --cancel takes it back",
        )
    };
    let done = Command::new("systemctl")
        .args(["--no-block", "reboot"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(format!("systemctl: {error}")))?;
    if done.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&done.stderr).trim().to_owned()))
}

/// What a factory reset does, for whoever is about to order one.
pub(crate) fn consequences(keep_identity: bool) -> &'static [&'static str] {
    if keep_identity {
        &[
            "All apps, their volumes, images and data on this box are erased.",
            "The box stays enrolled and fetches its state again: it needs its link.",
        ]
    } else {
        &[
            "All apps, their volumes, images and data on this box are erased, and its keys",
            "and personal settings (name, network, wireless) with them.",
            "The box belongs to no hub any more: it needs a new token.",
            "Flash memory may keep old blocks until it reuses them; they are discarded (TRIM)",
            "where the device can, but only destroying the device is certain.",
        ]
    }
}

fn confirm(keep_identity: bool) -> Result<(), Problem> {
    let refused = |message: &str| {
        Problem::new(
            codes::RESET_NOT_CONFIRMED,
            message,
            "type the words on a terminal, or give --yes",
        )
    };
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(refused(
            "nobody can confirm the factory reset: standard input is no terminal",
        ));
    }
    for line in consequences(keep_identity) {
        say(&format!("{line}\n"))?;
    }
    say(&format!("Type \"{WORDS}\" to go on: "))?;
    // With the terminal gone there is nobody to ask.
    let _ = io::stdout().flush();
    let mut typed = String::new();
    if stdin.lock().read_line(&mut typed).is_ok() && typed.trim() == WORDS {
        Ok(())
    } else {
        Err(refused("the factory reset was not confirmed; nothing was done"))
    }
}
