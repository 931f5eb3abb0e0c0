//! How answers look to a person: the point first, causes beside what they are the cause of.

use crate::{
    doctor::{Examination, Outcome},
    local_api::view::{LinkView, LocalStatus, NodeDetails},
};
use holdfast_core::{
    object::ObjectKey,
    plan::{Plan, PlannedObject},
    reconcile::JournalStep,
};
use holdfast_protocol::{
    Generation, Problem,
    report::{FlashFacts, FlashRate, Health, OsStatus, Phase, StatusReport},
};
use holdfast_store::HistoryEntry;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::fmt::{self, Write as _};

/// Text that grows line by line; writing to it cannot fail. What others wrote neither breaks a line nor steers the terminal.
#[derive(Default)]
pub(super) struct Text(pub(super) String);

impl Text {
    pub(super) fn line(&mut self, arguments: fmt::Arguments<'_>) {
        self.0.push_str(&printable(&arguments.to_string()));
        self.0.push('\n');
    }

    fn field(&mut self, name: &str, value: impl fmt::Display) {
        self.line(format_args!("{name:<12} {value}"));
    }

    fn problem(&mut self, problem: &Problem) {
        self.line(format_args!(
            "{:<12} why: {} [{}]",
            "", problem.message, problem.code
        ));
        if !problem.action.is_empty() {
            self.line(format_args!("{:<12} do:  {}", "", problem.action));
        }
    }
}

/// Text of others, without what would steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect()
}

pub(crate) fn time(time: Timestamp) -> impl fmt::Display {
    time.strftime("%Y-%m-%d %H:%M:%S UTC")
}

pub(crate) fn health(health: Health) -> &'static str {
    match health {
        Health::Healthy => "healthy",
        Health::Progressing => "progressing",
        Health::Degraded => "degraded",
        Health::Unknown => "unknown",
    }
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Idle => "no document yet",
        Phase::Fetching => "fetching",
        Phase::Preflight => "preflight",
        Phase::WaitingForWindow => "waiting for its maintenance window",
        Phase::StagingOs => "writing the new operating system",
        Phase::SwitchingOs => "restarting into the new operating system",
        Phase::SwitchingKubernetes => "switching k3s",
        Phase::WaitingForKubernetes => "waiting for Kubernetes",
        Phase::Applying => "applying",
        Phase::Verifying => "applied, waiting for readiness",
        Phase::Committed => "applied and ready",
        Phase::Failed => "failed",
        Phase::RollingBack => "rolling back",
        Phase::RolledBack => "rolled back",
    }
}

pub(super) fn status(status: &LocalStatus) -> String {
    let mut text = Text::default();
    match &status.node {
        Some(node) => text.field("node", node),
        None => text.field("node", "not enrolled; run: holdfast enrol TOKEN"),
    }
    if let Some(problem) = &status.enrolment_problem {
        text.problem(problem);
    }
    if let Some(problem) = &status.factory_reset {
        text.field("reset", "ordered, not done yet");
        text.problem(problem);
    }
    if let Some(report) = &status.report {
        whole(&mut text, report, &status.details);
    }
    if let Some(url) = &status.hub_url {
        text.field("hub", url);
    }
    if let Some(view) = &status.link {
        link(&mut text, view);
    }
    if let Some(until) = status.certificate_until {
        text.field("certificate", format_args!("until {}", time(until)));
    }
    text.field("version", &status.version);
    if let Some(report) = &status.report {
        apps(&mut text, report);
    }
    text.0
}

/// What reaches the flash, by day where that is known yet.
fn flash(text: &mut Text, facts: &FlashFacts) {
    let amount = |rate: Option<FlashRate>| {
        let Some(rate) = rate else {
            return "unknown".to_owned();
        };
        rate.bytes_per_day.map_or_else(
            || format!("{} since boot", bytes(rate.bytes)),
            |a_day| format!("{} a day", bytes(a_day)),
        )
    };
    let device = facts.device.as_deref().unwrap_or("no device of its own");
    let mut line = format!(
        "{device}: {}; by k3s {}, by holdfast {}",
        amount(facts.written),
        amount(facts.by_kubernetes),
        amount(facts.by_holdfast)
    );
    if let Some(used) = facts.life_used_percent {
        // Writing to a string cannot fail.
        let _ = write!(line, "; {used} % of its life used");
    }
    if let Some(days) = facts.days_left {
        let _ = write!(line, ", about {days} days left");
    }
    text.field("flash", line);
}

fn whole(text: &mut Text, report: &StatusReport, details: &NodeDetails) {
    text.field("health", health(report.health));
    let generation = &report.generation;
    let or_none = |value: Option<Generation>| value.map_or_else(|| "none".into(), |value| value.to_string());
    text.field(
        "generation",
        format_args!(
            "wanted {}, running {}, proven {}",
            or_none(generation.accepted),
            or_none(generation.running),
            or_none(generation.proven)
        ),
    );
    text.field("phase", way(report, details));
    if let Some(cause) = &generation.cause {
        text.problem(cause);
    }
    if let Some(until) = generation.paused_until {
        let why = details.pause_reason.as_ref();
        let why = why.map(|reason| format!(": {reason}")).unwrap_or_default();
        text.field(
            "paused",
            format_args!("until {}{why}; holdfast resume ends it", time(until)),
        );
    }
    let kubernetes = &report.kubernetes;
    let version = kubernetes.version.as_deref().unwrap_or("version unknown");
    text.field(
        "kubernetes",
        format_args!(
            "{}, {version}, starts by this daemon: {}",
            health(kubernetes.health),
            kubernetes.restarts
        ),
    );
    if let Some(cause) = &kubernetes.cause {
        text.problem(cause);
    }
    if let Some(os) = &report.os {
        text.field("os", os_slots(os));
    }
    if !report.clock_trusted {
        text.field("clock", "behind the hub's signed time; the hub's time is used");
    }
    if let Some(facts) = &report.machine.flash {
        flash(text, facts);
    }
    for condition in &report.conditions {
        text.field("condition", format_args!("since {}", time(condition.since)));
        text.problem(&condition.problem);
    }
}

/// The operating system in a line: `version 2 from slot b, good; version 1 in the other slot; no good: 3`.
pub(crate) fn os_slots(os: &OsStatus) -> String {
    let judged = if os.good { "good" } else { "not found good yet" };
    let mut line = format!("version {} from slot {}, {judged}; ", os.version, os.slot);
    match &os.other {
        Some(other) => {
            let _ = write!(line, "version {other} in the other slot");
        }
        None => line.push_str("nothing to start in the other slot"),
    }
    if !os.bad.is_empty() {
        let _ = write!(
            line,
            "; did not come up and not tried again: {}",
            os.bad.join(", ")
        );
    }
    line
}

/// The phase in a line: `applying 412 of 1,000 objects, 7 min left; else back to 1.41`.
pub(crate) fn way(report: &StatusReport, details: &NodeDetails) -> String {
    let generation = &report.generation;
    let mut line = phase(generation.phase).to_owned();
    if let (Phase::RollingBack, Some(to)) = (generation.phase, details.fallback) {
        let _ = write!(line, " to {to}");
    }
    if let (Phase::RolledBack, Some(to)) = (generation.phase, generation.running) {
        let _ = write!(line, " to {to}");
    }
    if let Some(progress) = &generation.progress {
        let (done, total) = (progress.done, progress.total);
        let counted = match progress.unit.as_str() {
            "bytes" => format!("{} of {}", bytes(done), bytes(total)),
            "apps" => format!("{} of {} apps ready", grouped(done), grouped(total)),
            unit => format!("{} of {} {unit}", grouped(done), grouped(total)),
        };
        let _ = write!(line, ", {counted}");
    }
    if let Some(until) = generation.until {
        let left = left(until.duration_since(report.reported_at));
        match generation.phase {
            Phase::WaitingForWindow if generation.paused_until == Some(until) => {
                let _ = write!(line, ", paused for {left} more");
            }
            Phase::WaitingForWindow => {
                let _ = write!(line, ", which opens in {left}, at {}", time(until));
            }
            _ => {
                let _ = write!(line, ", {left} left");
            }
        }
    }
    match (generation.phase, details.fallback) {
        (Phase::RollingBack, _) | (_, None) => {}
        (_, Some(fallback)) => {
            let _ = write!(line, "; else back to {fallback}");
        }
    }
    line
}

/// 1234567 as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn bytes(number: u64) -> String {
    match number {
        0..1_024 => format!("{number} B"),
        1_024..1_048_576 => format!("{} KiB", number >> 10),
        _ => format!("{} MiB", grouped(number >> 20)),
    }
}

fn left(span: SignedDuration) -> String {
    match span.as_secs().max(0) {
        seconds @ 0..100 => format!("{seconds} s"),
        seconds @ 100..6_000 => format!("{} min", (seconds + 30) / 60),
        seconds => format!("{} h", (seconds + 1_800) / 3_600),
    }
}

fn link(text: &mut Text, link: &LinkView) {
    let broker = link.broker.as_deref().unwrap_or("no broker yet");
    match (link.enabled, link.connected) {
        (false, _) => text.field("link", "off by the settings (sync.enabled = false)"),
        (true, true) => text.field("link", format_args!("connected to {broker}")),
        (true, false) => text.field(
            "link",
            format_args!(
                "none ({broker}); what runs keeps running, {} events wait",
                link.waiting_events
            ),
        ),
    }
    if let Some(cause) = link.cause.as_ref().filter(|_| !link.connected) {
        text.problem(cause);
    }
}

fn apps(text: &mut Text, report: &StatusReport) {
    if report.apps.is_empty() {
        return;
    }
    text.line(format_args!(""));
    let width = report
        .apps
        .iter()
        .map(|app| app.name.len())
        .max()
        .unwrap_or(0)
        .max(3);
    text.line(format_args!(
        "{:<width$}  {:<11}  {:>9}  CAUSE",
        "APP", "HEALTH", "READY"
    ));
    for app in &report.apps {
        let cause = app.cause.as_ref().map_or("", |cause| cause.message.as_str());
        let ready = format!("{}/{}", app.ready, app.objects);
        let line = format!(
            "{:<width$}  {:<11}  {ready:>9}  {cause}",
            app.name,
            health(app.health)
        );
        text.line(format_args!("{}", line.trim_end()));
    }
}

/// A key as kubectl takes it: `Deployment.apps shop/web`, `ConfigMap shop/web`. Two groups may have kinds of the same name.
fn with_group(key: &ObjectKey) -> String {
    let group = key.group();
    let dot = if group.is_empty() { "" } else { "." };
    let slash = key.namespace.as_ref().map_or("", |_| "/");
    let namespace = key.namespace.as_deref().unwrap_or_default();
    format!("{}{dot}{group} {namespace}{slash}{}", key.kind, key.name)
}

pub(super) fn plan(plan: &Plan) -> String {
    let mut text = Text::default();
    let mut changes = 0;
    let mut unchanged = 0;
    text.line(format_args!("to reach generation {}:", plan.generation));
    let mut list = |text: &mut Text, sign: &str, objects: &[PlannedObject]| {
        for object in objects {
            changes += 1;
            text.line(format_args!(
                "  {sign} {} ({})",
                with_group(&object.key),
                object.app
            ));
        }
    };
    for step in &plan.steps {
        list(&mut text, "create", &step.create);
        list(&mut text, "update", &step.update);
        unchanged += step.unchanged.len();
    }
    list(&mut text, "delete", &plan.prune);
    for kept in &plan.kept {
        text.line(format_args!(
            "  keep   {} ({}): {}",
            with_group(&kept.object.key),
            kept.object.app,
            kept.reason
        ));
    }
    match changes {
        0 => text.line(format_args!(
            "nothing would change; {unchanged} objects are as they should be"
        )),
        _ => text.line(format_args!(
            "{changes} objects would change, {unchanged} are as they should be; nothing was changed"
        )),
    }
    text.0
}

/// A document of the past, as `holdfast history` tells of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Past {
    #[serde(flatten)]
    entry: HistoryEntry,
    /// The next document, which came before this one had ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    superseded_by: Option<Generation>,
}

/// Tells documents that are under way from those that a newer one came over. `entries`: newest first.
pub(super) fn past(entries: Vec<HistoryEntry>) -> Vec<Past> {
    let mut newer = None;
    entries
        .into_iter()
        .map(|entry| {
            let has_ended = matches!(
                entry.step,
                JournalStep::Proven | JournalStep::Failed { .. } | JournalStep::RolledBack { .. }
            );
            let superseded_by = newer.replace(entry.generation).filter(|_| !has_ended);
            Past { entry, superseded_by }
        })
        .collect()
}

pub(super) fn history(entries: &[Past]) -> String {
    let mut text = Text::default();
    if entries.is_empty() {
        text.line(format_args!("no documents yet"));
        return text.0;
    }
    text.line(format_args!("{:<12}  {:<24}  STATE", "GENERATION", "ACCEPTED"));
    for Past { entry, superseded_by } in entries {
        let (state, problem) = match &entry.step {
            JournalStep::Accepted => ("accepted".into(), None),
            JournalStep::SwitchingOs => ("switching the operating system".into(), None),
            JournalStep::Switching => ("switching k3s".into(), None),
            JournalStep::Applying => ("applying".into(), None),
            JournalStep::Applied => ("applied".into(), None),
            JournalStep::Proven => ("proven".into(), None),
            JournalStep::Failed { problem, .. } => ("failed".into(), Some(problem)),
            JournalStep::RollingBack { problem, to } => (format!("rolling back to {to}"), Some(problem)),
            JournalStep::RolledBack { problem, to } => (format!("rolled back to {to}"), Some(problem)),
        };
        let state = superseded_by.map_or(state, |newer| format!("superseded by {newer}"));
        text.line(format_args!(
            "{:<12}  {:<24}  {state}{}",
            entry.generation.to_string(),
            time(entry.accepted_at).to_string(),
            phases(entry),
        ));
        if let Some(problem) = problem {
            text.line(format_args!(
                "{:<12}  {:<24}  why: {} [{}]",
                "", "", problem.message, problem.code
            ));
        }
    }
    text.0
}

/// How long after its acceptance each phase was reached: ` (applied +2 s, proven +14 s)`.
fn phases(entry: &HistoryEntry) -> String {
    let reached: Vec<_> = [
        ("switching k3s", entry.switching_at),
        ("applying", entry.applying_at),
        ("applied", entry.applied_at),
        ("proven", entry.proven_at),
        ("failed", entry.failed_at),
        ("rolling back", entry.rolling_back_at),
        ("rolled back", entry.rolled_back_at),
    ]
    .into_iter()
    .filter_map(|(name, at)| {
        let after = at?.duration_since(entry.accepted_at);
        Some(format!("{name} +{}", left(after)))
    })
    .collect();
    if reached.is_empty() {
        String::new()
    } else {
        format!(" ({})", reached.join(", "))
    }
}

pub(super) fn examination(examination: &Examination) -> String {
    let mut text = Text::default();
    for check in &examination.checks {
        let outcome = match check.outcome {
            Outcome::Ok => "ok",
            Outcome::Warn => "warn",
            Outcome::Fail => "FAIL",
        };
        let mut lines = check.message.lines();
        text.line(format_args!(
            "{outcome:<5} {:<19} {}",
            check.name,
            lines.next().unwrap_or_default()
        ));
        for line in lines {
            text.line(format_args!("{:<25} {line}", ""));
        }
        if !check.action.is_empty() && check.outcome != Outcome::Ok {
            text.line(format_args!("{:<25} do: {}", "", check.action));
        }
    }
    text.line(format_args!(
        "{}",
        match examination.outcome {
            Outcome::Ok => "all is well",
            Outcome::Warn => "nothing failed; see the warnings",
            Outcome::Fail => "something failed; see above what to do",
        }
    ));
    text.0
}

#[cfg(test)]
mod tests;
