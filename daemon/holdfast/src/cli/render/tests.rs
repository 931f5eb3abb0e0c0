//! What people read, word for word.

use super::*;

fn report(generation: &serde_json::Value) -> StatusReport {
    serde_json::from_value(serde_json::json!({
        "schema": "1.0", "node": "shop-17", "sequence": 1, "reportedAt": "2026-01-01T10:00:00Z", "clockTrusted": true,
        "agent": {"version": "", "bootId": "", "architecture": "", "operatingSystem": ""},
        "generation": generation,
        "health": "progressing", "kubernetes": {"health": "healthy", "version": null, "restarts": 0, "cause": null},
        "apps": [], "conditions": [],
        "machine": {"hostname": "", "cpus": 1, "memoryBytes": 0, "diskBytes": 0, "diskFreeBytes": 0},
    }))
    .unwrap()
}

#[test]
fn a_status_says_how_far_how_long_and_what_happens_else() {
    let line = |changes: serde_json::Value, fallback: &str| {
        let mut generation = serde_json::json!({
            "accepted": "1.42", "acceptedDigest": null, "applied": "1.41", "proven": "1.41", "running": "1.41", "cause": null,
        });
        for (key, value) in changes.as_object().unwrap() {
            generation[key] = value.clone();
        }
        let details = NodeDetails {
            fallback: fallback.parse().ok(),
            pause_reason: None,
        };
        way(&report(&generation), &details)
    };
    let applying = serde_json::json!({
        "phase": "applying", "until": "2026-01-01T10:07:00Z",
        "progress": {"done": 412, "total": 1_000, "unit": "objects"},
    });
    assert_eq!(
        line(applying, "1.41"),
        "applying, 412 of 1,000 objects, 7 min left; else back to 1.41"
    );
    let fetching = serde_json::json!({
        "phase": "fetching", "progress": {"done": 5_242_880, "total": 1_288_490_188, "unit": "bytes"},
    });
    assert_eq!(line(fetching, ""), "fetching, 5 MiB of 1,228 MiB");
    let waiting = serde_json::json!({"phase": "waiting-for-window", "until": "2026-01-01T22:00:00Z"});
    assert_eq!(
        line(waiting, ""),
        "waiting for its maintenance window, which opens in 12 h, at 2026-01-01 22:00:00 UTC"
    );
    let paused = serde_json::json!({
        "phase": "waiting-for-window", "until": "2026-01-01T10:30:00Z", "pausedUntil": "2026-01-01T10:30:00Z",
    });
    assert_eq!(
        line(paused, ""),
        "waiting for its maintenance window, paused for 30 min more"
    );
    assert_eq!(
        line(
            serde_json::json!({"phase": "rolling-back", "until": "2026-01-01T10:00:50Z"}),
            "1.41"
        ),
        "rolling back to 1.41, 50 s left"
    );
    assert_eq!(
        line(serde_json::json!({"phase": "rolled-back"}), ""),
        "rolled back to 1.41"
    );
}

#[test]
fn what_a_newer_document_came_over_is_not_shown_as_under_way() {
    let problem =
        serde_json::json!({"code": "probe-failed", "message": "red\u{1b}[31m\nand more", "action": ""});
    let entries = [
        ("1.6", serde_json::json!({"step": "applying"})),
        ("1.5", serde_json::json!({"step": "applied"})),
        (
            "1.4",
            serde_json::json!({"step": "rolled-back", "problem": problem, "to": "1.1"}),
        ),
        ("1.3", serde_json::json!({"step": "switching"})),
        ("1.2", serde_json::json!({"step": "accepted"})),
        ("1.1", serde_json::json!({"step": "proven"})),
    ]
    .map(|(generation, step)| HistoryEntry {
        generation: generation.parse().unwrap(),
        digest: holdfast_protocol::Digest::of(generation.as_bytes()),
        accepted_at: "2026-01-01T10:00:00Z".parse().unwrap(),
        switching_at: None,
        applying_at: None,
        applied_at: None,
        proven_at: None,
        failed_at: None,
        rolling_back_at: None,
        rolled_back_at: None,
        step: serde_json::from_value(step).unwrap(),
    });
    let entries = past(entries.to_vec());
    let text = history(&entries);
    let states: Vec<_> = text.lines().skip(1).map(|line| line.get(40..).unwrap()).collect();
    assert_eq!(
        states,
        [
            "applying",
            "superseded by 1.6",
            "rolled back to 1.1",
            "why: red [31m and more [probe-failed]",
            "superseded by 1.4",
            "superseded by 1.3",
            "proven",
        ]
    );
    let json = serde_json::to_value(&entries).unwrap();
    assert_eq!(json[1]["supersededBy"], "1.6");
    assert_eq!(json[1]["generation"], "1.5");
    assert!(json[0].get("supersededBy").is_none() && json[5].get("supersededBy").is_none());
}

#[test]
fn a_reason_for_a_pause_cannot_steer_the_terminal_or_add_a_line() {
    let mut told = report(&serde_json::json!({
        "accepted": null, "acceptedDigest": null, "applied": null, "proven": null, "running": null, "cause": null,
        "phase": "idle", "pausedUntil": "2026-01-01T10:30:00Z",
    }));
    told.kubernetes.version = Some("v1\u{9b}2J".into());
    let details = NodeDetails {
        fallback: None,
        pause_reason: Some("\u{1b}[2Jgone\nhealth       healthy".into()),
    };
    let mut text = Text::default();
    whole(&mut text, &told, &details);
    assert!(
        !text.0.contains(|c: char| c.is_control() && c != '\n'),
        "{:?}",
        text.0
    );
    assert_eq!(
        text.0.lines().filter(|line| line.starts_with("health")).count(),
        1
    );
    assert!(text.0.contains(":  [2Jgone health"), "{:?}", text.0);
}

#[test]
fn a_plan_tells_two_kinds_of_the_same_name_apart() {
    let object = |api_version: &str, kind: &str, namespace: Option<&str>| PlannedObject {
        key: ObjectKey {
            api_version: api_version.into(),
            kind: kind.into(),
            namespace: namespace.map(Into::into),
            name: "web".into(),
        },
        app: "shop".into(),
    };
    let planned = Plan {
        generation: "1.2".parse().unwrap(),
        steps: Vec::new(),
        prune: vec![
            object("v1", "Service", Some("shop")),
            object("serving.example/v1beta1", "Service", Some("shop")),
            object("rbac.authorization.k8s.io/v1", "ClusterRole", None),
        ],
        kept: Vec::new(),
    };
    let text = plan(&planned);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[1..4],
        [
            "  delete Service shop/web (shop)",
            "  delete Service.serving.example shop/web (shop)",
            "  delete ClusterRole.rbac.authorization.k8s.io web (shop)",
        ]
    );
}
