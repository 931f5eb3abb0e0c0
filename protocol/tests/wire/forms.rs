//! Reports, events, enrolment and renewal.

use crate::{document, envelope, golden};
use holdfast_protocol::{
    Digest, Generation, Problem, SchemaVersion, codes,
    enrol::{EnrolAnswer, EnrolRequest, HardwareFacts, RenewAnswer, RenewRequest},
    envelope::{DESIRED_STATE_TYPE, Envelope},
    event::{Event, EventKind, Severity},
    report::{
        AgentInfo, AppStatus, Condition, GenerationStatus, Health, KubernetesStatus, MachineFacts, Phase,
        Presence, StatusReport,
    },
};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

fn at() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn problem() -> Problem {
    Problem::new(
        "image-pull-failed",
        "image can't be pulled: registry.example/web:1: not found",
        "check the image's name",
    )
}

#[test]
fn a_status_report_has_its_golden_form() {
    let report = StatusReport {
        schema: SchemaVersion::CURRENT,
        node: "shop-17".parse().unwrap(),
        sequence: 1_007,
        reported_at: at(),
        clock_trusted: true,
        agent: AgentInfo {
            version: "0.1.0".into(),
            boot_id: "5f2c1d34-0000-4000-8000-000000000000".into(),
            architecture: "aarch64".into(),
            operating_system: "Debian GNU/Linux 12".into(),
        },
        generation: GenerationStatus {
            accepted: Some(Generation {
                epoch: 1,
                counter: 42,
            }),
            accepted_digest: Some(Digest::of(b"document")),
            applied: Some(Generation {
                epoch: 1,
                counter: 42,
            }),
            proven: Some(Generation {
                epoch: 1,
                counter: 41,
            }),
            phase: Phase::Verifying,
            cause: Some(problem()),
            ..GenerationStatus::default()
        },
        health: Health::Degraded,
        os: None,
        kubernetes: KubernetesStatus {
            health: Health::Healthy,
            version: Some("v1.36.3+k3s1".into()),
            restarts: 2,
            cause: None,
        },
        apps: vec![AppStatus {
            name: "web".into(),
            health: Health::Degraded,
            ready: 2,
            objects: 3,
            cause: Some(problem()),
        }],
        conditions: vec![Condition {
            problem: Problem::new(codes::GENERATION_OLDER, "generation 1.41 is older than 1.42", ""),
            since: at(),
        }],
        machine: MachineFacts {
            hostname: "shop-17".into(),
            cpus: 4,
            memory_bytes: 4_000_000_000,
            disk_bytes: 32_000_000_000,
            disk_free_bytes: 20_000_000_000,
            flash: None,
        },
        extra: Map::new(),
    };
    golden::check("status.json", &report);
    let mut newer: Value = serde_json::to_value(&report).unwrap();
    newer["wear"] = json!({"bytesPerDay": 12});
    let read: StatusReport = serde_json::from_value(newer.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), newer);
}

#[test]
fn an_event_has_its_golden_form() {
    let event = Event {
        schema: SchemaVersion::CURRENT,
        node: "shop-17".parse().unwrap(),
        sequence: 9,
        at: at(),
        kind: EventKind::DocumentRejected,
        severity: Severity::Alarm,
        message: "a document was refused".into(),
        generation: Some(Generation {
            epoch: 1,
            counter: 42,
        }),
        problem: Some(problem()),
        details: Map::from_iter([("digest".to_owned(), json!(Digest::of(b"document")))]),
    };
    golden::check("event.json", &event);
    let newer = Event {
        kind: EventKind::Other("slot-switched".into()),
        ..event
    };
    golden::check("event.newer-kind.json", &newer);
}

#[test]
fn each_kind_of_event_has_its_name() {
    let kinds = [
        (EventKind::Started, "started"),
        (EventKind::DocumentAccepted, "document-accepted"),
        (EventKind::DocumentRejected, "document-rejected"),
        (EventKind::DocumentApplied, "document-applied"),
        (EventKind::DocumentProven, "document-proven"),
        (EventKind::DocumentFailed, "document-failed"),
        (EventKind::DriftCorrected, "drift-corrected"),
        (EventKind::DriftSeen, "drift-seen"),
        (EventKind::KubernetesReady, "kubernetes-ready"),
        (EventKind::KubernetesLost, "kubernetes-lost"),
        (EventKind::CertificateRenewed, "certificate-renewed"),
        (EventKind::EventsDropped, "events-dropped"),
        (EventKind::StoreQuarantined, "store-quarantined"),
        (EventKind::Problem, "problem"),
        (EventKind::Other("new".into()), "new"),
    ];
    for (kind, name) in kinds {
        assert_eq!(serde_json::to_value(&kind).unwrap(), name);
        assert_eq!(serde_json::from_value::<EventKind>(name.into()).unwrap(), kind);
    }
}

#[test]
fn presence_has_its_golden_form() {
    golden::check(
        "presence.json",
        &Presence {
            schema: SchemaVersion::CURRENT,
            online: false,
        },
    );
}

#[test]
fn enrolment_has_its_golden_forms() {
    let request = EnrolRequest {
        schema: SchemaVersion::CURRENT,
        token_id: "t-7f3a".into(),
        token_secret: vec![7; 32],
        csr: "-----BEGIN CERTIFICATE REQUEST-----\n…\n-----END CERTIFICATE REQUEST-----\n".into(),
        requested_name: Some("shop-17".parse().unwrap()),
        hardware: HardwareFacts {
            serial: Some("ABC123".into()),
            model: Some("Pi 5".into()),
            architecture: "aarch64".into(),
            operating_system: "Debian GNU/Linux 12".into(),
            cpus: 4,
            memory_bytes: 4_000_000_000,
        },
        sealing_key: None,
        extra: Map::new(),
    };
    let read = golden::check_written("enrol-request.json", &request);
    assert_eq!(read.token_secret, request.token_secret);
    assert_eq!(read.hardware, request.hardware);

    let answer = EnrolAnswer {
        schema: SchemaVersion::CURRENT,
        node: "shop-17".parse().unwrap(),
        certificate: "-----BEGIN CERTIFICATE-----\n…\n-----END CERTIFICATE-----\n".into(),
        ca_certificates: "-----BEGIN CERTIFICATE-----\n…\n-----END CERTIFICATE-----\n".into(),
        hub_url: "https://hub.example:8443".into(),
        brokers: vec!["mqtts://hub.example:8883".into()],
        trust: envelope::trust(&[1], 1),
        signed_time: envelope::signed_time(),
        desired: Some(Envelope::sign(
            DESIRED_STATE_TYPE,
            serde_json::to_vec(&document::full()).unwrap(),
            &[&envelope::key(1)],
        )),
        extra: Map::new(),
    };
    let read = golden::check_written("enrol-answer.json", &answer);
    assert_eq!((read.trust, read.desired), (answer.trust, answer.desired));
}

#[test]
fn renewal_has_its_golden_forms() {
    let request = RenewRequest {
        schema: SchemaVersion::CURRENT,
        certificate: "old".into(),
        csr: "new".into(),
        at: at(),
        sealing_key: None,
        signature: vec![1, 2, 3],
    };
    let read = golden::check_written("renew-request.json", &request);
    assert_eq!(
        read.signed_bytes(),
        b"DSSEv1 38 application/vnd.holdfast.renew.v1+json 28 old\0new\x002026-01-02T03:04:05Z"
    );
    let answer = RenewAnswer {
        schema: SchemaVersion::CURRENT,
        certificate: "certificate".into(),
        ca_certificates: "ca".into(),
        brokers: vec!["mqtts://hub.example:8883".into()],
        trust: envelope::trust(&[1], 1),
        signed_time: envelope::signed_time(),
    };
    let read = golden::check_written("renew-answer.json", &answer);
    assert_eq!(read.signed_time, answer.signed_time);
}

#[test]
fn a_problem_has_its_golden_form_and_one_line_of_text() {
    golden::check("problem.json", &problem());
    assert_eq!(
        problem().to_string(),
        "image-pull-failed: image can't be pulled: registry.example/web:1: not found (check the image's name)"
    );
}

#[test]
fn names_of_problems_are_kebab_case_and_unique() {
    let mut seen = std::collections::BTreeSet::new();
    for code in codes::ALL {
        assert!(seen.insert(code), "{code} is there twice");
        assert!(
            code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'),
            "{code}"
        );
    }
}
