//! Nodes.

use super::state::{State, cause, health_word, phase_words};
use crate::{
    cli::NodeCommand,
    client::{Client, encoded},
    failure::Result,
    output::{self, Format, Table, age, labels, or_dash, printable},
};
use holdfast_protocol::{
    Problem,
    event::{Event, EventKind, Severity},
    operator::{NodeInfo, PatchLabels},
    report::{Health, OsStatus},
};
use jiff::Timestamp;
use reqwest::Method;
use std::fmt::Write as _;

/// Runs a command about nodes.
pub async fn run(client: &Client, command: NodeCommand, format: Format) -> Result<()> {
    match command {
        NodeCommand::List { selector } => {
            let query = selector.map_or_else(String::new, |selector| {
                format!("?selector={}", encoded(&selector))
            });
            let mut nodes: Vec<NodeInfo> = client.get_pages("api/v1/nodes", &query).await?;
            nodes.sort_by(|a, b| State::of(a).cmp(&State::of(b)).then_with(|| a.id.cmp(&b.id)));
            format.show(&nodes, |wide| list(&nodes, wide, Timestamp::now()))
        }
        NodeCommand::Show { node } => {
            let node: NodeInfo = client.get(&format!("api/v1/nodes/{node}")).await?;
            format.show(&node, |_| show(&node, Timestamp::now()))
        }
        NodeCommand::Label { node, changes } => {
            let request = PatchLabels {
                labels: changes.into_iter().collect(),
            };
            let path = format!("api/v1/nodes/{node}/labels");
            let _: serde_json::Value = client.call(Method::PATCH, &path, &request).await?;
            let node: NodeInfo = client.get(&format!("api/v1/nodes/{node}")).await?;
            format.show(&node.labels, |_| {
                format!("{}: {}\n", node.id, labels(&node.labels))
            })
        }
        NodeCommand::Delete { node, yes } => {
            super::confirm(
                &format!("Take {node} out of the fleet and revoke its certificate?"),
                yes,
            )?;
            client.delete(&format!("api/v1/nodes/{node}")).await?;
            output::note(&format!(
                "{node} is out of the fleet. What runs on it keeps running; to come back it needs a new token."
            ));
            Ok(())
        }
        NodeCommand::Events { node } => {
            let mut events: Vec<Event> = client.get(&format!("api/v1/nodes/{node}/events")).await?;
            events.sort_by_key(|event| std::cmp::Reverse(event.sequence));
            format.show(&events, |wide| list_events(&events, wide, Timestamp::now()))
        }
    }
}

/// The generation that is proven, and the one that is wanted if it is another.
fn generations(node: &NodeInfo) -> String {
    match (node.proven, node.wanted) {
        (proven, Some(wanted)) if proven != Some(wanted) => {
            format!(
                "{} → {wanted}",
                proven.map_or_else(|| "none".to_owned(), |it| it.to_string())
            )
        }
        (proven, _) => or_dash(proven),
    }
}

fn list(nodes: &[NodeInfo], wide: bool, now: Timestamp) -> String {
    let mut table = Table::new(if wide {
        [
            "NAME",
            "STATE",
            "RELEASE",
            "PROVEN",
            "HEARD",
            "APPS",
            "KUBERNETES",
            "OS",
            "HOLDFAST",
            "LABELS",
            "CAUSE",
        ]
    } else {
        [
            "NAME", "STATE", "RELEASE", "PROVEN", "HEARD", "CAUSE", "", "", "", "", "",
        ]
    });
    for node in nodes {
        let state = State::of(node);
        let cause = match state {
            State::Offline => format!("must be running {}", or_dash(node.accepted)),
            State::Healthy => "-".to_owned(),
            _ => or_dash(cause(node).map(|problem| problem.message.as_str())),
        };
        let first = [
            node.id.to_string(),
            state.word().to_owned(),
            or_dash(node.release.as_deref()),
            generations(node),
            node.last_heard_at
                .map_or_else(|| "never".to_owned(), |at| format!("{} ago", age(at, now))),
        ];
        let [name, state, release, proven, heard] = first;
        if wide {
            let status = node.status.as_ref();
            let ready = |apps: &[_]| {
                let ready = apps
                    .iter()
                    .filter(|app: &&holdfast_protocol::report::AppStatus| app.health == Health::Healthy)
                    .count();
                format!("{ready}/{}", apps.len())
            };
            table.row([
                name,
                state,
                release,
                proven,
                heard,
                or_dash(status.map(|status| ready(&status.apps))),
                or_dash(status.and_then(|status| status.kubernetes.version.as_deref())),
                or_dash(status.and_then(|status| Some(status.os.as_ref()?.version.as_str()))),
                or_dash(status.map(|status| status.agent.version.as_str())),
                labels(&node.labels),
                cause,
            ]);
        } else {
            let none = String::new;
            table.row([
                name,
                state,
                release,
                proven,
                heard,
                cause,
                none(),
                none(),
                none(),
                none(),
                none(),
            ]);
        }
    }
    table.render("No nodes. A box joins with a token: holdfastctl token create --name my-first-node")
}

fn problem_lines(text: &mut String, indent: &str, problem: &Problem) {
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(
        text,
        "{indent}{} ({})",
        printable(&problem.message),
        printable(&problem.code)
    );
    if !problem.action.is_empty() {
        let _ = writeln!(text, "{indent}  → {}", printable(&problem.action));
    }
}

fn show(node: &NodeInfo, now: Timestamp) -> String {
    let mut text = String::new();
    let mut fact = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<14}{}", printable(&value));
    };
    let state = State::of(node);
    fact("Node", node.id.to_string());
    fact("State", state.word().to_owned());
    fact("Labels", labels(&node.labels));
    fact("Release", or_dash(node.release.as_deref()));
    fact("Wanted", or_dash(node.wanted));
    fact("Accepted", or_dash(node.accepted));
    let status = node.status.as_ref();
    fact(
        "Applied",
        or_dash(status.and_then(|status| status.generation.applied)),
    );
    fact("Proven", or_dash(node.proven));
    fact(
        "Last word",
        node.last_heard_at
            .map_or_else(|| "never".to_owned(), |at| format!("{} ago ({at})", age(at, now))),
    );
    if state == State::Offline {
        if let Some(accepted) = node.accepted {
            fact(
                "Meanwhile",
                format!("it must be running {accepted}, the newest that it was seen to accept"),
            );
        }
    } else if let Some(status) = status
        && node.wanted.is_some()
        && node.proven != node.wanted
    {
        let generation = &status.generation;
        let progress = generation.progress.as_ref().filter(|progress| progress.total > 0);
        let progress = progress.map_or_else(String::new, |progress| {
            format!(", {} of {} {}", progress.done, progress.total, progress.unit)
        });
        let until = generation
            .until
            .map_or_else(String::new, |until| format!(", until {until}"));
        fact(
            "Doing",
            format!("{}{progress}{until}", phase_words(generation.phase)),
        );
    }
    if let Some(generation) = status.map(|status| &status.generation) {
        if let Some(running) = generation
            .running
            .filter(|running| Some(*running) != generation.accepted)
        {
            fact(
                "Running",
                format!("{running} in place of {}", or_dash(generation.accepted)),
            );
        }
        if let Some(until) = generation.paused_until {
            fact("Paused", format!("by a person at the box, until {until}"));
        }
    }
    fact("Enrolled", node.enrolled_at.to_string());
    fact("Certificate", format!("until {}", node.certificate_expires_at));
    if let Some(os) = status.and_then(|status| status.os.as_ref()) {
        fact("OS", os_words(os));
        if !os.bad.is_empty() {
            fact(
                "Bad OS",
                format!("{} did not come up; not tried again", os.bad.join(", ")),
            );
        }
    }
    if let Some(status) = status {
        let kubernetes = &status.kubernetes;
        fact(
            "Kubernetes",
            format!(
                "{} {}, started {} by Holdfast",
                health_word(kubernetes.health),
                kubernetes.version.as_deref().unwrap_or(""),
                match kubernetes.restarts {
                    1 => "once".to_owned(),
                    times => format!("{times} times"),
                }
            ),
        );
        fact(
            "Software",
            format!(
                "holdfast {} on {}, {}",
                status.agent.version, status.agent.operating_system, status.agent.architecture
            ),
        );
        fact(
            "Machine",
            format!(
                "{}: {} processors, {} MiB of memory, {} of {} MiB of disk free",
                status.machine.hostname,
                status.machine.cpus,
                status.machine.memory_bytes >> 20,
                status.machine.disk_free_bytes >> 20,
                status.machine.disk_bytes >> 20
            ),
        );
        if !status.clock_trusted {
            fact("Clock", "not trusted: below the last signed time".to_owned());
        }
    }
    let mut problems: Vec<&Problem> = node.cause.iter().collect();
    if let Some(status) = status {
        problems.extend(&status.generation.cause);
        problems.extend(&status.kubernetes.cause);
        problems.extend(status.conditions.iter().map(|condition| &condition.problem));
    }
    let mut seen: Vec<&Problem> = Vec::new();
    for problem in problems {
        if seen.contains(&problem) {
            continue;
        }
        if seen.is_empty() {
            text.push_str("\nWhat is wrong\n");
        }
        problem_lines(&mut text, "  ", problem);
        seen.push(problem);
    }
    if let Some(status) = status.filter(|status| !status.apps.is_empty()) {
        text.push_str("\nApps\n");
        for app in &status.apps {
            let _ = writeln!(
                text,
                "  {:<20}{:<12} {}/{} objects ready",
                printable(&app.name),
                health_word(app.health),
                app.ready,
                app.objects
            );
            if let Some(cause) = &app.cause
                && !seen.contains(&cause)
            {
                problem_lines(&mut text, "    ", cause);
            }
        }
    }
    text
}

/// What runs, from where, and what there is to go back to.
fn os_words(os: &OsStatus) -> String {
    let good = if os.good {
        "found good"
    } else {
        "not found good yet"
    };
    let other = os.other.as_ref().map_or_else(
        || "nothing whole in the other".to_owned(),
        |other| format!("{other} in the other"),
    );
    format!("{} in slot {}, {good}; {other}", os.version, os.slot)
}

fn list_events(events: &[Event], wide: bool, now: Timestamp) -> String {
    let mut table = Table::new(["AGE", "SEVERITY", "KIND", "GENERATION", "MESSAGE"]);
    for event in events {
        let kind = match &event.kind {
            EventKind::Other(other) => other.clone(),
            known => serde_json::to_value(known)
                .ok()
                .and_then(|value| value.as_str().map(str::to_owned))
                .unwrap_or_default(),
        };
        let severity = match event.severity {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Alarm => "alarm",
        };
        let why = event
            .problem
            .as_ref()
            .filter(|problem| wide && problem.message != event.message)
            .map_or_else(String::new, |problem| format!(" · {problem}"));
        table.row([
            if wide {
                event.at.to_string()
            } else {
                age(event.at, now)
            },
            severity.to_owned(),
            kind,
            or_dash(event.generation),
            format!("{}{why}", event.message),
        ]);
    }
    table.render("Nothing was reported yet.")
}
