//! What becomes of what is under way: it ends well, for now or for good badly, or tells something and goes on.

use super::*;
use crate::failure::Failure;

impl Caller {
    /// Answers a ticket in a way that `kind` chooses.
    pub(super) fn answer(&mut self, ticket: Ticket, kind: u8) {
        let Some(under) = self.under_way.get(&ticket).copied() else {
            return;
        };
        let ends = match under {
            Under::Observe => kind >= 240,
            Under::Gate => kind < 128,
            _ => true,
        };
        if ends {
            self.under_way.remove(&ticket);
            self.ended.push(ticket);
        }
        let event = match under {
            Under::Fetch if kind < 128 => Event::BlobsReady { ticket },
            Under::Fetch => Event::BlobsFailed {
                ticket,
                failure: failure(kind < 250),
            },
            Under::Preflight if kind < 128 => Event::PreflightPassed { ticket },
            Under::Preflight => Event::PreflightFailed {
                ticket,
                failure: failure(kind < 230),
            },
            Under::Gate if ends => Event::GateOpened { ticket },
            Under::Gate => Event::GateClosed {
                ticket,
                problem: failure(true).problem,
            },
            Under::StageOs if kind < 128 => Event::OsStaged { ticket },
            Under::StageOs => Event::OsStageFailed {
                ticket,
                failure: failure(kind < 230),
            },
            Under::SwitchOs if kind < 128 => {
                self.os.clone_from(&self.next_os);
                Event::OsSwitched { ticket }
            }
            Under::RestoreOs if kind < 128 => Event::OsSwitched { ticket },
            Under::SwitchOs | Under::RestoreOs => Event::OsSwitchFailed {
                ticket,
                failure: failure(kind < 230),
            },
            Under::Switch if kind < 128 => Event::KubernetesSwitched { ticket },
            Under::Switch => Event::KubernetesSwitchFailed {
                ticket,
                failure: failure(kind < 230),
            },
            Under::Apply | Under::Correct => {
                let alone = |document: &DocumentRef| document.isolated.contains("alone");
                let failures = match kind {
                    1..40 if under == Under::Apply && self.applying.as_ref().is_some_and(alone) => {
                        vec![failure(kind.is_multiple_of(2)).in_app("alone")]
                    }
                    0..128 => vec![],
                    128..240 => vec![failure_of(under, true)],
                    _ => vec![failure_of(under, false)],
                };
                if under == Under::Apply && failures.iter().all(|failure| failure.app.is_some()) {
                    self.applied.clone_from(&self.applying);
                    if let Some(document) = self.applying.clone() {
                        self.went(&document, JournalStep::Applied);
                    }
                }
                if under == Under::Correct && failures.is_empty() {
                    for key in &self.correcting {
                        self.drifted.remove(key);
                    }
                }
                Event::ApplyFinished { ticket, failures }
            }
            Under::Observe if ends => Event::ObservationFailed {
                ticket,
                failure: failure(kind < 250),
            },
            Under::Observe => Event::ReadinessChanged {
                ticket,
                summary: summary(match kind {
                    0..128 => Health::Healthy,
                    128..200 => Health::Progressing,
                    _ => Health::Degraded,
                }),
            },
            Under::Stability => Event::StabilityReached { ticket },
            Under::Retry => Event::RetryDue { ticket },
            Under::Deadline => Event::DeadlineReached { ticket },
        };
        self.send(event);
    }
}

/// A failure of one object, or, of a correction, of all its objects.
fn failure_of(under: Under, retryable: bool) -> Failure {
    match under {
        Under::Correct => Failure::of_document(failure(retryable).problem, retryable),
        _ => failure(retryable),
    }
}
