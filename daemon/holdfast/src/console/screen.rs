//! Screens of the console, as lines.
//!
//! In: facts, a page, the size of the terminal. Out: exactly as many lines as the terminal has rows, none longer than it is wide, without
//! anything that steers a terminal.

use super::{CANCEL, facts::Facts, qr};
use crate::cli::{
    machine::{WORDS, consequences},
    render::{health, printable, time, way},
};
use holdfast_protocol::{
    Problem,
    report::{Health, StatusReport},
};

/// Size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// What is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// Who, what, and what is wrong.
    Main,
    /// Addresses, routers, name servers, the link.
    Network,
    /// The identity with its code to scan.
    Identity,
    /// The last lines of the log.
    Log(Vec<String>),
    /// The question before a factory reset, and what was typed so far.
    Reset {
        /// Whether the box stays who it is.
        keep_identity: bool,
        typed: String,
        /// What came of it.
        outcome: Option<String>,
    },
}

/// The whole screen.
pub(super) fn draw(page: &Page, facts: &Facts, size: Size) -> Vec<String> {
    let mut lines = head(facts, size);
    let room = size.rows.saturating_sub(lines.len() + 2);
    let mut body = match page {
        Page::Main => main(facts, size),
        Page::Network => network(facts),
        Page::Identity => identity(facts),
        Page::Log(log) => tail(log, size, room),
        Page::Reset {
            keep_identity,
            typed,
            outcome,
        } => reset(*keep_identity, typed, outcome.as_deref(), facts, size),
    };
    if body.len() > room {
        let more = body.len() - room.saturating_sub(1);
        body.truncate(room.saturating_sub(1));
        body.push(format!("... and {more} lines more: holdfast status, or the hub"));
    }
    lines.extend(body);
    lines.resize(size.rows.saturating_sub(2), String::new());
    lines.push("-".repeat(size.columns));
    lines.push(
        match page {
            Page::Reset { .. } => {
                "Enter goes on   Tab keeps the identity or not   Esc leaves everything as it is"
            }
            Page::Main => "n network   l log   i identity   f factory reset",
            _ => "Esc back   n network   l log   i identity   f factory reset",
        }
        .into(),
    );
    lines
        .into_iter()
        .map(|line| {
            printable(&line)
                .chars()
                .take(size.columns)
                .collect::<String>()
                .trim_end()
                .to_owned()
        })
        .collect()
}

fn head(facts: &Facts, size: Size) -> Vec<String> {
    let version = match &facts.status {
        Ok(status) => status.version.as_ref(),
        Err(_) => env!("CARGO_PKG_VERSION"),
    };
    let system = facts.system.version.as_deref().map_or_else(
        || format!("kernel {}", facts.system.kernel),
        |version| format!("system {version}"),
    );
    let slot = facts
        .system
        .slot
        .as_deref()
        .map(|slot| format!(" on {slot}"))
        .unwrap_or_default();
    let left = format!("HOLDFAST {version}   {system}{slot}");
    let right = time(facts.now).to_string();
    let gap = size
        .columns
        .saturating_sub(left.chars().count() + right.len())
        .max(1);
    vec![
        format!("{left}{}{right}", " ".repeat(gap)),
        "-".repeat(size.columns),
    ]
}

fn field(name: &str, value: impl std::fmt::Display) -> String {
    format!("{name:<11} {value}")
}

fn main(facts: &Facts, size: Size) -> Vec<String> {
    let mut lines = Vec::new();
    let report = match &facts.status {
        Ok(status) if status.enrolled => {
            lines.push(field(
                "box",
                status.node.as_ref().map_or("", |node| node.as_str()),
            ));
            let link = match &status.link {
                Some(link) if link.connected => "connected",
                Some(link) if !link.enabled => "link off by the settings",
                Some(_) => "no link; what runs keeps running",
                None => "starting",
            };
            lines.push(field(
                "hub",
                format_args!("{}, {link}", status.hub_url.as_deref().unwrap_or("none")),
            ));
            status.report.as_ref()
        }
        Ok(status) => {
            lines.extend(not_enrolled(facts));
            // A box without a hub runs the seed of its image.
            lines.extend(status.report.iter().flat_map(kubernetes_and_apps));
            None
        }
        Err(_) => {
            lines.push(field("box", format_args!("{} (host name)", facts.hostname)));
            None
        }
    };
    if !matches!(&facts.status, Ok(status) if !status.enrolled) {
        lines.push(field("address", short_addresses(facts)));
    }
    if let Some(report) = report {
        lines.extend(runs(facts, report));
    }
    let problems = problems(facts);
    lines.push(String::new());
    if problems.is_empty() {
        if report.is_some_and(|report| report.health == Health::Healthy) {
            lines.push("Nothing is wrong.".into());
        }
        return lines;
    }
    lines.push("WRONG, AND WHAT TO DO".into());
    for problem in problems {
        lines.extend(wrapped(
            "  ! ",
            &format!("{} [{}]", problem.message, problem.code),
            size.columns,
        ));
        if !problem.action.is_empty() {
            lines.extend(wrapped("    do: ", &problem.action, size.columns));
        }
    }
    lines
}

fn not_enrolled(facts: &Facts) -> Vec<String> {
    let mut text = vec![
        field("box", "NOT ENROLLED"),
        field("host name", &facts.hostname),
        field("serial", facts.serial.as_deref().unwrap_or("none")),
        String::new(),
        "It waits for a token: make one with".into(),
        "  holdfastctl token create".into(),
        "and put it on the EFI partition,".into(),
        "  holdfast/token".into(),
        "or run: holdfast enrol TOKEN".into(),
        String::new(),
        field("address", ""),
    ];
    text.extend(
        facts
            .addresses
            .iter()
            .map(|(name, address)| format!("  {name} {address}")),
    );
    if facts.addresses.is_empty() {
        text.push("  none: is the cable in?".into());
    }
    beside(qr::code(&identity_text(facts)), text)
}

fn runs(facts: &Facts, report: &StatusReport) -> Vec<String> {
    let mut lines = Vec::new();
    let details = facts
        .status
        .as_ref()
        .map(|status| status.details.clone())
        .unwrap_or_default();
    let generation = &report.generation;
    let running = generation.running.map_or_else(
        || "no document".to_owned(),
        |running| format!("document {running}"),
    );
    lines.push(field("health", health(report.health)));
    lines.push(field("runs", running));
    lines.push(field("phase", way(report, &details)));
    lines.extend(kubernetes_and_apps(report));
    lines
}

fn kubernetes_and_apps(report: &StatusReport) -> [String; 2] {
    let kubernetes = &report.kubernetes;
    let runs = field(
        "kubernetes",
        format_args!(
            "{}, {}",
            health(kubernetes.health),
            kubernetes.version.as_deref().unwrap_or("version unknown")
        ),
    );
    let ready = report
        .apps
        .iter()
        .filter(|app| app.health == Health::Healthy)
        .count();
    let names: Vec<_> = report
        .apps
        .iter()
        .map(|app| {
            let mark = if app.health == Health::Healthy { "" } else { "!" };
            format!("{mark}{}", app.name)
        })
        .collect();
    let apps = field(
        "apps",
        format_args!("{ready} of {} ready: {}", report.apps.len(), names.join(" ")),
    );
    [runs, apps]
}

/// All that is wrong, the nearest cause first, nothing twice.
fn problems(facts: &Facts) -> Vec<&Problem> {
    let mut found: Vec<&Problem> = facts.reset.iter().collect();
    match &facts.status {
        Err(problem) => found.push(problem),
        Ok(status) => {
            found.extend(&status.enrolment_problem);
            if let Some(report) = &status.report {
                found.extend(&report.generation.cause);
                found.extend(&report.kubernetes.cause);
                found.extend(report.apps.iter().filter_map(|app| app.cause.as_ref()));
                found.extend(report.conditions.iter().map(|condition| &condition.problem));
            }
            let link = status.link.as_ref().filter(|link| !link.connected);
            found.extend(link.and_then(|link| link.cause.as_ref()));
        }
    }
    found.extend(&facts.personal);
    let mut once: Vec<&Problem> = Vec::new();
    for problem in found {
        if !once.contains(&problem) {
            once.push(problem);
        }
    }
    once
}

fn short_addresses(facts: &Facts) -> String {
    if facts.addresses.is_empty() {
        return "none: is the cable in?".into();
    }
    let texts: Vec<_> = facts
        .addresses
        .iter()
        .map(|(name, address)| format!("{name} {address}"))
        .collect();
    texts.join(", ")
}

fn network(facts: &Facts) -> Vec<String> {
    let listed = |items: &[String]| {
        if items.is_empty() {
            "none".to_owned()
        } else {
            items.join(", ")
        }
    };
    let mut lines = vec![
        "NETWORK".to_owned(),
        String::new(),
        field("host name", &facts.hostname),
    ];
    for (name, address) in &facts.addresses {
        lines.push(field("address", format_args!("{address} on {name}")));
    }
    if facts.addresses.is_empty() {
        lines.push(field("address", "none: is the cable in?"));
    }
    lines.push(field("router", listed(&facts.routers)));
    lines.push(field("name server", listed(&facts.name_servers)));
    if let Ok(status) = &facts.status {
        lines.push(field("hub", status.hub_url.as_deref().unwrap_or("not enrolled")));
        if let Some(link) = &status.link {
            let broker = link.broker.as_deref().unwrap_or("no broker yet");
            let state = if link.connected {
                "connected to"
            } else {
                "no link to"
            };
            lines.push(field(
                "link",
                format_args!("{state} {broker}; {} events wait", link.waiting_events),
            ));
        }
    }
    lines
}

/// What the code says: name where there is one, else host name, and key or serial number.
fn identity_text(facts: &Facts) -> String {
    let node = facts.status.as_ref().ok().and_then(|status| status.node.as_ref());
    let name = node.map_or(facts.hostname.as_str(), |node| node.as_str());
    let key = facts.key.as_deref().and_then(|key| key.get(..32));
    match (key, &facts.serial) {
        (Some(key), _) => format!("holdfast:{name}?key={key}"),
        (None, Some(serial)) => format!("holdfast:{name}?serial={serial}"),
        (None, None) => format!("holdfast:{name}"),
    }
}

fn identity(facts: &Facts) -> Vec<String> {
    let node = facts.status.as_ref().ok().and_then(|status| status.node.as_ref());
    let mut text = vec![
        field("box", node.map_or("not enrolled", |node| node.as_str())),
        field("host name", &facts.hostname),
        field("serial", facts.serial.as_deref().unwrap_or("none")),
        String::new(),
        "SHA-256 of its public key".into(),
    ];
    let key = facts.key.as_deref().unwrap_or("none yet");
    let digits: Vec<char> = key.chars().collect();
    text.extend(
        digits
            .chunks(32)
            .map(|part| format!("  {}", part.iter().collect::<String>())),
    );
    beside(qr::code(&identity_text(facts)), text)
}

/// A code with text at its right.
fn beside(code: Vec<String>, text: Vec<String>) -> Vec<String> {
    let width = code.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    let rows = code.len().max(text.len());
    let mut code = code.into_iter();
    let mut text = text.into_iter();
    (0..rows)
        .map(|_| {
            let left = code.next().unwrap_or_default();
            let gap = " ".repeat(width - left.chars().count());
            format!("{left}{gap}  {}", text.next().unwrap_or_default())
        })
        .collect()
}

fn tail(log: &[String], size: Size, room: usize) -> Vec<String> {
    let lines: Vec<_> = log
        .iter()
        .flat_map(|line| wrapped("", line, size.columns))
        .collect();
    lines
        .get(lines.len().saturating_sub(room)..)
        .unwrap_or_default()
        .to_vec()
}

fn reset(keep_identity: bool, typed: &str, outcome: Option<&str>, facts: &Facts, size: Size) -> Vec<String> {
    let mut lines = vec!["FACTORY RESET".to_owned(), String::new()];
    lines.extend(consequences(keep_identity).iter().map(|line| (*line).to_owned()));
    lines.push(String::new());
    let identity = if keep_identity { "is kept" } else { "is erased" };
    lines.push(format!("The identity of the box {identity} (Tab)."));
    lines.push(String::new());
    if facts.reset.is_some() {
        lines.push(format!(
            "It is ordered: type \"{CANCEL}\" and press Enter to take it back."
        ));
    }
    lines.push(format!("Type \"{WORDS}\" and press Enter: {typed}_"));
    lines.extend(
        outcome
            .iter()
            .flat_map(|outcome| wrapped("  ", outcome, size.columns)),
    );
    lines
}

/// `text` in lines of at most `columns`, the first after `head`, the others below its text.
fn wrapped(head: &str, text: &str, columns: usize) -> Vec<String> {
    let room = columns.saturating_sub(head.len()).max(10);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in printable(text).split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        while line.chars().count() + usize::from(!line.is_empty()) + word.len() > room {
            if line.is_empty() {
                line = word.drain(..room).collect();
            }
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word);
    }
    lines.push(line);
    let indent = " ".repeat(head.len());
    lines
        .into_iter()
        .enumerate()
        .map(|(index, line)| format!("{}{line}", if index == 0 { head } else { &indent }))
        .collect()
}
