#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

use super::{facts::Facts, screen::*};
use crate::{boots::System, codes, local_api::view::LocalStatus};
use holdfast_protocol::Problem;
use serde_json::{Value, json};

const USUAL: Size = Size {
    columns: 80,
    rows: 25,
};

fn facts(status: Result<Value, Problem>) -> Facts {
    Facts {
        now: "2026-01-01T10:00:00Z".parse().unwrap(),
        status: status.map(|status| serde_json::from_value::<LocalStatus>(status).unwrap()),
        system: System {
            version: Some("7".into()),
            slot: Some("vda3".into()),
            ..System::default()
        },
        hostname: "shop-17".into(),
        serial: Some("C02-1234".into()),
        key: None,
        addresses: vec![("enp1s0".into(), "192.0.2.17".into())],
        routers: vec!["192.0.2.1 on enp1s0".into()],
        name_servers: vec!["192.0.2.53".into()],
        reset: None,
        personal: Vec::new(),
    }
}

fn enrolled(report: &Value) -> Value {
    json!({
        "version": "0.1.0", "enrolled": true, "node": "shop-17", "hubUrl": "https://hub.example:8443",
        "link": {"enabled": true, "connected": true, "broker": "mqtts://hub.example:8883", "waitingEvents": 0},
        "report": report,
    })
}

fn report(health: &str, apps: &Value, cause: &Value) -> Value {
    json!({
        "schema": "1.0", "node": "shop-17", "sequence": 1, "reportedAt": "2026-01-01T10:00:00Z", "clockTrusted": true,
        "agent": {"version": "0.1.0", "bootId": "", "architecture": "x86_64", "operatingSystem": "Holdfast 7"},
        "generation": {
            "accepted": "1.42", "acceptedDigest": null, "applied": "1.42", "proven": "1.41", "running": "1.42",
            "phase": if health == "healthy" { "committed" } else { "verifying" }, "cause": cause,
        },
        "health": health,
        "kubernetes": {"health": "healthy", "version": "v1.36.3+k3s1", "restarts": 1, "cause": null},
        "apps": apps, "conditions": [],
        "machine": {"hostname": "shop-17", "cpus": 4, "memoryBytes": 1, "diskBytes": 1, "diskFreeBytes": 1},
    })
}

/// Compares with the file of that name, which a person looked at.
fn is_golden(name: &str, page: &Page, facts: &Facts) {
    let lines = draw(page, facts, USUAL);
    assert_eq!(lines.len(), USUAL.rows);
    assert!(lines.iter().all(|line| line.chars().count() <= USUAL.columns));
    let shown = lines.join("\n") + "\n";
    let path = format!("{}/tests/console/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(shown == golden, "{path} should be:\n{shown}");
}

#[test]
fn a_box_that_is_not_enrolled() {
    is_golden(
        "not-enrolled",
        &Page::Main,
        &facts(Ok(json!({"version": "0.1.0", "enrolled": false}))),
    );
}

#[test]
fn a_box_that_is_not_enrolled_shows_what_it_runs_of_its_image() {
    let apps = json!([{"name": "till", "health": "healthy", "ready": 3, "objects": 3, "cause": null}]);
    let mut status = enrolled(&report("healthy", &apps, &Value::Null));
    status["enrolled"] = json!(false);
    let screen = draw(&Page::Main, &facts(Ok(status)), USUAL);
    assert!(
        screen
            .iter()
            .any(|line| line.starts_with("apps") && line.contains("1 of 1 ready: till")),
        "{screen:#?}"
    );
}

#[test]
fn a_healthy_box() {
    let apps = json!([
        {"name": "till", "health": "healthy", "ready": 3, "objects": 3, "cause": null},
        {"name": "scales", "health": "healthy", "ready": 2, "objects": 2, "cause": null},
    ]);
    let facts = facts(Ok(enrolled(&report("healthy", &apps, &Value::Null))));
    is_golden("healthy", &Page::Main, &facts);
    is_golden("network", &Page::Network, &facts);
}

#[test]
fn a_degraded_box_says_what_is_wrong_and_what_to_do() {
    let cause = json!({
        "code": "image-not-found",
        "message": "the image registry.example/till:7 of Deployment shop/till cannot be pulled: the registry has no such image\u{1b}[2J",
        "action": "push the image, or assign a release that names one that is there",
    });
    let apps = json!([
        {"name": "till", "health": "degraded", "ready": 2, "objects": 3, "cause": cause},
        {"name": "scales", "health": "healthy", "ready": 2, "objects": 2, "cause": null},
    ]);
    let mut facts = facts(Ok(enrolled(&report("degraded", &apps, &cause))));
    facts.personal.push(Problem::new(
        "personal-invalid",
        "network.address of the box's personal settings has no length of its network, as in 192.0.2.17/24",
        "write it as docs/image.md shows",
    ));
    is_golden("degraded", &Page::Main, &facts);
}

#[test]
fn a_box_without_a_daemon() {
    let problem = Problem::new(
        codes::DAEMON_UNREACHABLE,
        "no daemon answers at /run/holdfast/holdfast.sock: Connection refused",
        "start it: systemctl start holdfast",
    );
    is_golden("no-daemon", &Page::Main, &facts(Err(problem)));
}

#[test]
fn a_small_terminal_says_that_there_is_more() {
    let apps: Vec<_> = (0..30)
        .map(|number| {
            let cause = json!({"code": "probe-failed", "message": format!("app {number} is not ready"), "action": "wait"});
            json!({"name": format!("app-{number}"), "health": "degraded", "ready": 0, "objects": 1, "cause": cause})
        })
        .collect();
    let facts = facts(Ok(enrolled(&report("degraded", &json!(apps), &Value::Null))));
    for size in [
        USUAL,
        Size {
            columns: 40,
            rows: 12,
        },
        Size {
            columns: 132,
            rows: 43,
        },
    ] {
        let lines = draw(&Page::Main, &facts, size);
        assert_eq!(lines.len(), size.rows);
        assert!(lines.iter().all(|line| line.chars().count() <= size.columns));
        assert!(
            lines.iter().any(|line| line.starts_with("... and ")),
            "{lines:#?}"
        );
    }
}

#[test]
fn a_line_as_wide_as_the_terminal_keeps_its_last_character() {
    let lines = ["=".repeat(80), "short".into(), "=".repeat(80)];
    let text = super::terminal::frame(&lines);
    for (number, row) in text.split("\r\n").enumerate() {
        let (before, _) = row.split_once(&lines[number]).expect("each line is there");
        assert!(
            before.ends_with("\x1b[K") || before.ends_with("\x1b[J"),
            "{before:?}"
        );
        assert!(row.ends_with(&lines[number]), "something erases behind {row:?}");
    }
}
