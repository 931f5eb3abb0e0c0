//! The starts of the machine as a table: when, what ran, why the one before it ended, and whether it was found good.

use super::render::{Text, time};
use crate::boots::{Boot, Note, OsStep};

/// The table, in the order of `boots`.
pub(super) fn boots(boots: &[Boot]) -> String {
    let mut text = Text::default();
    if boots.is_empty() {
        text.line(format_args!("no start of this machine is known"));
        return text.0;
    }
    text.line(format_args!(
        "{:>5}  {:<24}  {:<14}  {:<10}  {:<10}  BEFORE IT",
        "BOOT", "STARTED", "SYSTEM", "DOCUMENT", "STATE"
    ));
    for boot in boots {
        let system = boot.system.version.as_deref().unwrap_or(&boot.system.kernel);
        let system: String = system.chars().take(14).collect();
        let doubtful = if boot.clock_trusted == Some(false) {
            "?"
        } else {
            ""
        };
        let started = format!("{}{doubtful}", time(boot.started_at));
        let document = boot
            .generation
            .map_or_else(|| "-".into(), |generation| generation.to_string());
        let state = match boot.verdict() {
            Some(Ok(())) => "good",
            Some(Err(_)) => "bad",
            None => "-",
        };
        let before = boot
            .before
            .as_ref()
            .map_or_else(|| "-".into(), crate::boots::Ending::words);
        text.line(format_args!(
            "{:>5}  {started:<24}  {system:<14}  {document:<10}  {state:<10}  {before}",
            boot.number
        ));
        for noted in &boot.notes {
            note(&mut text, &noted.note);
        }
    }
    text.0
}

fn note(text: &mut Text, note: &Note) {
    match note {
        Note::Bad {
            check,
            problem,
            kernel,
        } => {
            text.line(format_args!(
                "       bad: {check}: {} [{}]",
                problem.message, problem.code
            ));
            for line in kernel {
                text.line(format_args!("       kernel: {line}"));
            }
        }
        Note::Os {
            step,
            version,
            detail,
        } => {
            let step = match step {
                OsStep::Staged => "staged",
                OsStep::Installed => "installed, to be tried by the next start",
                OsStep::Switched => "switched to",
                OsStep::FellBack => "did not come up",
                OsStep::Restored => "gone back to",
            };
            let colon = if detail.is_empty() { "" } else { ": " };
            text.line(format_args!("       system {version}: {step}{colon}{detail}"));
        }
        Note::RebootAsked { reason } => text.line(format_args!("       {}", reason.words())),
        Note::FactoryReset { kept_identity } => {
            let kept = if *kept_identity { ", identity kept" } else { "" };
            text.line(format_args!("       set back to how it left the factory{kept}"));
        }
        Note::Damaged { bytes } => {
            text.line(format_args!(
                "       {bytes} bytes of this record were damaged and left out"
            ));
        }
        Note::Daemon { .. } | Note::Good | Note::ShutDown | Note::Told | Note::Unknown => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by it")]

    use super::*;

    #[test]
    fn a_table_says_why_and_what_without_steering_the_terminal() {
        let boot: Boot = serde_json::from_value(serde_json::json!({
            "number": 12, "id": "x", "startedAt": "2026-01-01T10:00:00Z", "clockTrusted": false, "generation": "1.7",
            "system": {"version": "8", "kernel": "6.12"},
            "before": {"kind": "asked", "reason": {"reason": "os-switch", "version": "8"}, "clean": true},
            "notes": [
                {"at": "2026-01-01T10:00:00Z", "up": 3, "note": {"kind": "bad", "check": "apps", "problem":
                    {"code": "probe-failed", "message": "till\u{1b}[2J is not ready", "action": ""}, "kernel": ["oops"]}},
            ],
        }))
        .unwrap();
        let text = boots(&[boot]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                " BOOT  STARTED                   SYSTEM          DOCUMENT    STATE       BEFORE IT",
                "   12  2026-01-01 10:00:00 UTC?  8               1.7         bad         restarted into system 8",
                "       bad: apps: till [2J is not ready [probe-failed]",
                "       kernel: oops",
            ]
        );
        assert!(boots(&[]).contains("no start"));
    }
}
