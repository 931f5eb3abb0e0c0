//! `holdfast health`: whether this start of the machine is good.

use super::{Common, Exit, HealthArguments, Output, query};
use crate::{
    boots::{BootLog, Note, RebootReason},
    codes,
    health::{Check, Verdict, gate},
    local_api::client::ask,
    os,
    reconcile::system,
};
use holdfast_protocol::{Problem, codes as shared};
use http::Method;
use std::{fmt::Write as _, path::Path, time::Duration};
use tokio::time::{Instant, sleep, timeout_at};

/// Between two attempts to reach a daemon that does not answer: nothing tells of a socket that comes to be.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) async fn run(arguments: &HealthArguments, common: &Common) -> Result<Exit, Problem> {
    let settings = common.settings()?;
    let waits = arguments.wait || arguments.boot;
    let deadline = Instant::now() + if waits { arguments.deadline } else { Duration::ZERO };
    let verdict = judge(&settings.socket, waits, deadline).await;
    let exit = if arguments.boot {
        settle(&settings, &verdict).await
    } else if verdict.good {
        Exit::Done
    } else {
        Exit::Failed
    };
    query::show(common.output, &verdict, text)?;
    if exit == Exit::Failed
        && common.output == Output::Text
        && let Some(problem) = verdict.first_bad().and_then(|bad| bad.problem.as_ref())
    {
        super::complain(problem, common.output);
    }
    Ok(exit)
}

/// Asks the daemon, until it says good or the time is over.
async fn judge(socket: &Path, waits: bool, deadline: Instant) -> Verdict {
    // The first answer comes at once, so that a short deadline has one too.
    let mut path = "/v1/health";
    let mut last = gate::no_daemon(Problem::new(
        codes::DAEMON_UNREACHABLE,
        "the daemon did not answer in time",
        "look at its log: journalctl -u holdfast",
    ));
    loop {
        let asked = ask(socket, Method::GET, path, Vec::new());
        let answer = if waits {
            match timeout_at(deadline, asked).await {
                Ok(answer) => answer,
                Err(_) => return last,
            }
        } else {
            asked.await
        };
        match answer.map(|body| serde_json::from_slice::<Verdict>(&body)) {
            Ok(Ok(verdict)) if verdict.good || !waits => return verdict,
            // It answers when something changed, or after a while.
            Ok(Ok(verdict)) => {
                last = verdict;
                path = "/v1/health/wait";
                if Instant::now() >= deadline {
                    return last;
                }
                continue;
            }
            Ok(Err(error)) => {
                last = gate::no_daemon(Problem::new(
                    shared::INTERNAL,
                    format!("the daemon's answer cannot be read: {error}"),
                    "use the command of the same version as the daemon",
                ));
            }
            Err(error) => last = gate::no_daemon(Problem::from(&error)),
        }
        if Instant::now() + AGAIN >= deadline {
            return last;
        }
        sleep(AGAIN).await;
    }
}

/// Writes the verdict down and decides what the machine does. Nothing of this may keep a good machine from staying up.
async fn settle(settings: &crate::settings::Settings, verdict: &Verdict) -> Exit {
    let boots = BootLog::new(&settings.state_dir);
    let before = boots.read().unwrap_or_default();
    let before: Vec<_> = before
        .into_iter()
        .filter(|boot| boot.id != *boots.boot())
        .collect();
    let Some(bad) = verdict.first_bad() else {
        boots.note_or_log(Note::Good);
        // The daemon shows it; it is good without that too.
        let _ = ask(&settings.socket, Method::GET, "/v1/health", Vec::new()).await;
        return Exit::Done;
    };
    let problem = bad
        .problem
        .clone()
        .unwrap_or_else(|| Problem::new(codes::BOOT_NOT_GOOD, format!("the check {} failed", bad.name), ""));
    boots.note_or_log(Note::Bad {
        check: bad.name.to_string(),
        problem: problem.clone(),
        kernel: boots.evidence().kernel_lines(),
    });
    let slots = match os::open(settings, None) {
        Ok(slots) => slots,
        Err(problem) => {
            tracing::error!(%problem, "the slots of the operating system cannot be read");
            None
        }
    };
    let Some(slots) = slots else {
        return Exit::Done;
    };
    let running = slots.running().version.clone();
    let records = system::Records::new(&settings.state_dir);
    let mut record = records.read();
    let other = slots
        .other()
        .filter(|other| record.refusal(other, None).is_none());
    // A counter alone is no trial: a start that ended in the initrd gives one to a version that was good before.
    let was_good = before
        .iter()
        .any(|boot| boot.system.version.as_ref() == Some(&running) && matches!(boot.verdict(), Some(Ok(()))));
    let tries = record.tries(&running);
    let on_trial = slots.is_on_trial(tries) && (tries || !was_good);
    match gate::decide(verdict, on_trial, &running, &before, other.is_some()) {
        gate::Decision::Stay => Exit::Done,
        gate::Decision::Restart => {
            boots.note_or_log(Note::RebootAsked {
                reason: RebootReason::HealthFailed,
            });
            Exit::Failed
        }
        gate::Decision::GoBack => {
            let Some(other) = other else { return Exit::Done };
            if let Err(failure) = slots.return_to(&other).await {
                tracing::error!(problem = %failure.problem, "the other slot cannot be chosen");
                return Exit::Done;
            }
            record.give_up(system::Bad {
                version: running.clone(),
                manifest: None,
                problem: Problem::new(
                    codes::OS_FELL_BACK,
                    format!(
                        "version {running} of the operating system was good before and had {} bad starts in a row: {}",
                        gate::BAD_STARTS,
                        problem.message
                    ),
                    "look at the box's disk and memory; assign another version of the operating system",
                ),
                at: jiff::Timestamp::now(),
            });
            if let Err(problem) = records.write(&record) {
                tracing::error!(%problem, "it cannot be written down that this system is left");
            }
            boots.note_or_log(Note::RebootAsked {
                reason: RebootReason::OsRestore { version: other },
            });
            Exit::Failed
        }
    }
}

fn text(verdict: &Verdict) -> String {
    let mut text = String::new();
    for Check { name, good, problem } in &verdict.checks {
        let word = if *good { "good" } else { "bad " };
        let why = problem
            .as_ref()
            .map(|problem| format!("  {} [{}]", problem.message, problem.code))
            .unwrap_or_default();
        // A string takes everything.
        let _ = writeln!(text, "{word}  {name}{why}");
    }
    text
}
