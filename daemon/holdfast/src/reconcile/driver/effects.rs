//! Carrying out the machine's effects.

use super::{Driver, work::Stop};
use crate::{
    apply::{Records, Run, records},
    failpoint,
    observe::{Observation, Target},
    pace::random,
    probe,
    reconcile::gate,
    telemetry::metrics::METRICS,
};
use holdfast_core::{
    backoff::Backoff,
    failure::Failure,
    readiness::Summary,
    reconcile::{DocumentRef, Effect, Event, JournalStep, Report, Stage, Ticket},
};
use holdfast_protocol::event::{EventKind, Severity};
use tokio_util::sync::CancellationToken;

impl Driver {
    pub(super) async fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::FetchBlobs { ticket, document } => {
                let (fetcher, images) = (self.parts.fetcher.clone(), self.parts.images.clone());
                self.spawn(ticket, &document, Stop::Abort, async move |document| {
                    let fetched = async {
                        fetcher.fetch_all(&document).await?;
                        images.settle().await
                    };
                    let fetched = fetched.await;
                    failpoint::reach("after-fetch");
                    Some(match fetched {
                        Ok(_) => Event::BlobsReady { ticket },
                        Err(failure) => Event::BlobsFailed { ticket, failure },
                    })
                });
            }
            Effect::Preflight { ticket, document } => self.preflight(ticket, &document),
            Effect::StageOs { ticket, document } => self.stage_os(ticket, &document),
            Effect::SwitchOs { ticket, document } => self.switch_os(ticket, &document),
            Effect::RestoreOs { ticket, document, .. } => self.restore_os(ticket, &document),
            Effect::AwaitGate { ticket, document } => self.await_gate(ticket, &document),
            Effect::SwitchKubernetes { ticket, document } => self.switch(ticket, &document),
            Effect::RestoreKubernetes {
                ticket,
                document,
                undo,
            } => self.restore(ticket, &document, &undo),
            Effect::Apply { ticket, .. } | Effect::ApplyObjects { ticket, .. } if self.agent => {
                let failures = Vec::new();
                let _ = (self.parts.event_sender).send(Event::ApplyFinished { ticket, failures });
            }
            Effect::Verify { ticket, .. } if self.agent => {
                let summary = Summary::of([]);
                let _ = (self.parts.event_sender).send(Event::ReadinessChanged { ticket, summary });
            }
            Effect::Apply { ticket, document } => {
                let stop = CancellationToken::new();
                let Some(run) = self.write_run(&stop) else { return };
                self.spawn(ticket, &document, Stop::Ask(stop), async move |document| {
                    let failures = run.document(&document).await;
                    METRICS.object_failures.add(failures.len() as u64);
                    Some(Event::ApplyFinished { ticket, failures })
                });
            }
            Effect::ApplyObjects {
                ticket,
                document,
                keys,
            } => {
                let stop = CancellationToken::new();
                let Some(run) = self.write_run(&stop) else { return };
                self.spawn(ticket, &document, Stop::Ask(stop), async move |document| {
                    let failures = run.some(&document, &keys).await;
                    METRICS
                        .drift_corrected
                        .add(keys.len().saturating_sub(failures.len()) as u64);
                    Some(Event::ApplyFinished { ticket, failures })
                });
            }
            Effect::Verify {
                ticket,
                document,
                recheck,
            } => self.verify(ticket, &document, recheck).await,
            Effect::ScheduleRetry { ticket, attempt } => {
                let apply = &self.parts.settings.apply;
                let wait = Backoff::new(apply.retry_min, apply.retry_max).delay(attempt, random());
                self.ring(ticket, wait, Event::RetryDue { ticket });
            }
            Effect::ScheduleDeadline {
                ticket,
                after_seconds,
            } => self.ring_until(ticket, after_seconds, Event::DeadlineReached { ticket }),
            Effect::ScheduleStability {
                ticket,
                after_seconds,
            } => {
                failpoint::reach("before-stability");
                self.ring_until(ticket, after_seconds, Event::StabilityReached { ticket });
            }
            Effect::Cancel { ticket } => {
                if self.observation == Some(ticket) {
                    self.observation = None;
                    self.parts.observer.stop();
                }
                self.until.remove(&ticket);
                if let Some(task) = self.tasks.remove(&ticket) {
                    task.end().await;
                }
            }
            Effect::Journal { document, step } => self.journal(&document, &step, Vec::new()),
            Effect::Commit { document } => self.journal(&document, &JournalStep::Proven, Vec::new()),
            // One that the disk does not take is in the log and in the conditions.
            Effect::Report(report) => {
                count(&report);
                let _ = self.parts.recorder.note(report);
            }
        }
    }

    /// Writes a step down together with what is told of it.
    pub(super) fn journal(&mut self, document: &DocumentRef, step: &JournalStep, reports: Vec<Report>) {
        let (before, after) = match step {
            JournalStep::Proven => ("before-proven", "after-proven"),
            JournalStep::RollingBack { .. } => ("before-rolling-back", "after-rolling-back"),
            JournalStep::RolledBack { .. } => ("before-rolled-back", "after-rolled-back"),
            _ => ("before-failed", "after-failed"),
        };
        failpoint::reach(before);
        reports.iter().for_each(count);
        let now = self.parts.recorder.floor.now();
        let recorder = self.parts.recorder.clone();
        let written = recorder.note_with(reports, |events| {
            recorder.store.mark_step(document.digest, step, events, now)
        });
        // It is in the log and in the conditions.
        let _ = written;
        failpoint::reach(after);
        if matches!(step, JournalStep::Proven | JournalStep::RolledBack { .. }) {
            self.parts.observer.end_probes();
            self.collect_garbage();
        }
    }

    fn await_gate(&mut self, ticket: Ticket, document: &DocumentRef) {
        failpoint::reach("before-gate");
        // A document is remembered when it is accepted and when it is taken up.
        let known = self.known.get(&document.digest);
        let Some(policy) = known
            .map(|known| known.policy.clone())
            .filter(|policy| !policy.urgent && !policy.windows.is_empty())
        else {
            failpoint::reach("after-gate");
            let _ = self.parts.event_sender.send(Event::GateOpened { ticket });
            return;
        };
        let floor = self.parts.recorder.floor.clone();
        let events = self.parts.event_sender.clone();
        let (opens, shown) = tokio::sync::watch::channel(None);
        self.until.insert(ticket, shown);
        self.spawn(ticket, document, Stop::Abort, async move |_| {
            gate::opened(&policy, &floor, |closed| {
                opens.send_replace(closed.opens);
                let _ = events.send(Event::GateClosed {
                    ticket,
                    problem: closed.problem,
                });
            })
            .await;
            failpoint::reach("after-gate");
            Some(Event::GateOpened { ticket })
        });
    }

    async fn verify(&mut self, ticket: Ticket, document: &DocumentRef, recheck: bool) {
        // What was observed before goes on until this takes its place: watches that both need are not begun again.
        if let Some(before) = self.observation.replace(ticket)
            && let Some(task) = self.tasks.remove(&before)
        {
            task.end().await;
        }
        let Some(run) = self.write_run(&CancellationToken::new()) else {
            return;
        };
        let observer = self.parts.observer.clone();
        let events = self.parts.event_sender.clone();
        let apps = self
            .known
            .get(&document.digest)
            .map(|known| known.apps.clone())
            .unwrap_or_default();
        // Apps are asked until their document is good, and not again after a restart; those that may fail alone until they were good.
        let asks = matches!(self.state.stage(), Stage::Verifying { work, .. } if !work.proven);
        self.spawn(ticket, document, Stop::Abort, async move |document| {
            let mut probes = Vec::new();
            let prepared = async {
                let verified = run.objects.document(&document)?;
                probes = probe::of_document(verified.state());
                probes.retain(|probe| asks || probe.alone);
                let objects = run.objects.prepare(verified.state(), Some(&run.cluster)).await?;
                let records = if recheck {
                    records(&run, &objects)?
                } else {
                    Records::default()
                };
                Ok::<_, Box<Failure>>((objects, records))
            };
            let (objects, records) = match prepared.await {
                Ok(prepared) => prepared,
                Err(failure) => {
                    observer.stop();
                    return Some(Event::ObservationFailed {
                        ticket,
                        failure: *failure,
                    });
                }
            };
            let targets = objects
                .into_iter()
                .map(|object| Target {
                    key: object.key,
                    app: object.app,
                })
                .collect();
            observer.observe(Observation {
                ticket,
                targets,
                apps,
                isolated: document.isolated.clone(),
                probes,
                once: !asks,
                records: records.known,
                cluster: run.cluster.clone(),
            });
            if !records.unknown.is_empty() {
                let _ = events.send(Event::DriftDetected {
                    keys: records.unknown,
                });
            }
            None
        });
    }

    fn write_run(&self, stop: &CancellationToken) -> Option<Run> {
        // The machine asks for writes only while Kubernetes is ready.
        let cluster = self.cluster.clone()?;
        Some(Run {
            objects: self.parts.objects.clone(),
            cluster,
            versions: self.parts.versions.clone(),
            concurrency: self.parts.settings.apply.concurrency,
            progress: self.parts.live.apply.clone(),
            floor: self.parts.recorder.floor.clone(),
            stop: stop.clone(),
        })
    }
}

fn count(report: &Report) {
    if report.kind == EventKind::DocumentFailed && report.severity == Severity::Alarm {
        METRICS.documents_failed.add(1);
    }
}
