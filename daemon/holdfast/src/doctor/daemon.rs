//! What the running daemon knows that no look from outside finds: a failed document, a link that the hub refuses, a lasting condition.
//!
//! In: the answer of the local API, or why there is none. Out: checks. A daemon that does not run is a warning: the box keeps what it has.

use super::{Check, Outcome, PATIENCE};
use crate::{
    codes,
    local_api::{
        client::{LocalError, ask},
        view::LocalStatus,
    },
};
use holdfast_protocol::{
    Problem,
    report::{Health, Phase, StatusReport},
};
use http::Method;
use std::path::Path;
use tokio::time::timeout;

const NAME: &str = "daemon";

pub(super) async fn daemon(socket: &Path) -> Vec<Check> {
    let answer = match timeout(PATIENCE, ask(socket, Method::GET, "/v1/status", Vec::new())).await {
        Ok(answer) => answer,
        Err(_) => Err(LocalError::Broken {
            path: socket.to_owned(),
            reason: format!("nothing within {} s", PATIENCE.as_secs()),
        }),
    };
    match answer.map(|body| serde_json::from_slice::<LocalStatus>(&body)) {
        Ok(Ok(status)) => findings(&status),
        Ok(Err(error)) => vec![Check::warn(
            NAME,
            format!("the daemon's answer cannot be read: {error}"),
            "use the command of the same version as the daemon",
        )],
        Err(error) => {
            let outcome = match &error {
                LocalError::PathTooLong { .. } => Outcome::Fail,
                _ => Outcome::Warn,
            };
            vec![Check::problem(NAME, outcome, &(&error).into())]
        }
    }
}

/// What a status says, as checks.
fn findings(status: &LocalStatus) -> Vec<Check> {
    let mut checks = vec![Check::ok(NAME, format!("answers, version {}", status.version))];
    if let Some(problem) = &status.enrolment_problem {
        checks.push(Check::problem("enrolment", Outcome::Warn, problem));
    }
    if let Some(cause) = status.link.as_ref().and_then(|link| link.cause.as_ref()) {
        checks.push(Check::problem("link", link_outcome(cause), cause));
    }
    if let Some(report) = &status.report {
        checks.extend(of_report(report));
    }
    checks
}

/// What only costs the link is a warning, as everywhere here: a hub that restarts refuses too, and the box runs without it.
fn link_outcome(cause: &Problem) -> Outcome {
    if cause.code == codes::IDENTITY_UNUSABLE {
        Outcome::Fail
    } else {
        Outcome::Warn
    }
}

fn of_report(report: &StatusReport) -> impl Iterator<Item = Check> {
    let generation = report.generation.cause.as_ref().map(|cause| {
        let outcome = match report.generation.phase {
            Phase::Failed => Outcome::Fail,
            _ => Outcome::Warn,
        };
        Check::problem("document", outcome, cause)
    });
    let kubernetes = report.kubernetes.cause.as_ref().map(|cause| {
        let outcome = match report.kubernetes.health {
            Health::Degraded => Outcome::Fail,
            _ if cause.code == codes::KUBERNETES_STARTING => Outcome::Ok,
            _ => Outcome::Warn,
        };
        Check::problem("kubernetes", outcome, cause)
    });
    let conditions = report.conditions.iter().map(|condition| {
        // What Holdfast puts back again and again is as it should be most of the time.
        let outcome = if condition.problem.code == codes::DRIFT_FIGHT {
            Outcome::Warn
        } else {
            Outcome::Fail
        };
        Check::problem("condition", outcome, &condition.problem)
    });
    generation.into_iter().chain(kubernetes).chain(conditions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local_api::view::LinkView;
    use holdfast_protocol::{
        SchemaVersion,
        report::{AgentInfo, Condition, GenerationStatus, KubernetesStatus, MachineFacts},
    };
    use jiff::Timestamp;

    fn problem(code: &'static str) -> Problem {
        Problem::new(code, format!("{code} happened"), format!("mend {code}"))
    }

    fn status() -> LocalStatus {
        LocalStatus {
            version: "0.1.0".into(),
            enrolled: true,
            node: "shop-17".parse().ok(),
            hub_url: None,
            certificate_until: None,
            enrolment_problem: None,
            factory_reset: None,
            link: Some(LinkView::default()),
            details: crate::local_api::view::NodeDetails::default(),
            report: Some(StatusReport {
                schema: SchemaVersion::CURRENT,
                node: "shop-17".parse().unwrap(),
                sequence: 1,
                reported_at: Timestamp::UNIX_EPOCH,
                clock_trusted: true,
                agent: AgentInfo::default(),
                generation: GenerationStatus::default(),
                health: Health::Healthy,
                os: None,
                kubernetes: KubernetesStatus::default(),
                apps: Vec::new(),
                conditions: Vec::new(),
                machine: MachineFacts::default(),
                extra: serde_json::Map::new(),
            }),
        }
    }

    /// The finding beside the one that the daemon answers.
    fn found(status: &LocalStatus) -> Check {
        let mut checks = findings(status);
        assert_eq!(checks.len(), 2, "{checks:?}");
        assert_eq!(
            (checks[0].name.as_str(), checks[0].outcome),
            ("daemon", Outcome::Ok)
        );
        checks.remove(1)
    }

    fn expected(name: &str, outcome: Outcome, code: &'static str) -> Check {
        Check::problem(name, outcome, &problem(code))
    }

    #[test]
    fn a_daemon_without_a_cause_adds_nothing_but_that_it_answers() {
        assert_eq!(
            findings(&status()),
            [Check::ok("daemon", "answers, version 0.1.0")]
        );
    }

    #[test]
    fn a_hub_that_refuses_the_node_is_told() {
        for (code, outcome) in [
            (codes::BROKER_REFUSED, Outcome::Warn),
            (codes::BROKER_UNREACHABLE, Outcome::Warn),
            (codes::IDENTITY_UNUSABLE, Outcome::Fail),
        ] {
            let mut status = status();
            status.link.as_mut().unwrap().cause = Some(problem(code));
            assert_eq!(found(&status), expected("link", outcome, code));
        }
    }

    #[test]
    fn a_failed_document_fails_and_one_that_waits_warns() {
        for (phase, outcome) in [(Phase::Failed, Outcome::Fail), (Phase::Fetching, Outcome::Warn)] {
            let mut status = status();
            let generation = &mut status.report.as_mut().unwrap().generation;
            generation.phase = phase;
            generation.cause = Some(problem("object-refused"));
            assert_eq!(found(&status), expected("document", outcome, "object-refused"));
        }
    }

    #[test]
    fn degraded_kubernetes_fails_and_a_first_start_is_no_alarm() {
        for (health, code, outcome) in [
            (Health::Degraded, codes::KUBERNETES_EXITED, Outcome::Fail),
            (Health::Progressing, codes::KUBERNETES_EXITED, Outcome::Warn),
            (Health::Progressing, codes::KUBERNETES_STARTING, Outcome::Ok),
        ] {
            let mut status = status();
            let kubernetes = &mut status.report.as_mut().unwrap().kubernetes;
            kubernetes.health = health;
            kubernetes.cause = Some(problem(code));
            assert_eq!(found(&status), expected("kubernetes", outcome, code));
        }
    }

    #[test]
    fn a_lasting_condition_is_told() {
        for (code, outcome) in [("disk-full", Outcome::Fail), (codes::DRIFT_FIGHT, Outcome::Warn)] {
            let mut status = status();
            status.report.as_mut().unwrap().conditions.push(Condition {
                problem: problem(code),
                since: Timestamp::UNIX_EPOCH,
            });
            assert_eq!(found(&status), expected("condition", outcome, code));
        }
    }

    #[test]
    fn an_enrolment_that_was_refused_is_told() {
        let mut status = status();
        status.enrolment_problem = Some(problem("token-spent"));
        assert_eq!(
            found(&status),
            expected("enrolment", Outcome::Warn, "token-spent")
        );
    }
}
