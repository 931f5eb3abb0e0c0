//! What the driver does about Kubernetes itself: follows its state, has it switched and brought back.

use super::{Driver, VERSION, work::Stop};
use crate::{
    failpoint,
    kubernetes::{KubernetesError, switch::Wanted},
    telemetry::metrics::METRICS,
};
use holdfast_core::reconcile::{DocumentRef, Event, JournalStep, Ticket};
use std::sync::Arc;

impl Driver {
    /// Has k3s switched to what a document says.
    pub(super) fn switch(&mut self, ticket: Ticket, document: &DocumentRef) {
        let section = self.section(document.digest);
        self.wanted_version = section.as_ref().and_then(|section| section.version.clone());
        self.check_version();
        let switcher = self.parts.switcher.clone();
        let recorder = self.parts.recorder.clone();
        self.spawn(ticket, document, Stop::LeaveAlone, async move |document| {
            let wanted = Wanted {
                generation: document.generation,
                section: section.as_deref(),
            };
            if !switcher.is_as_wanted(wanted.section).await {
                failpoint::reach("before-switch");
                // A document that came further before goes on from there after a restart.
                let marked = match recorder.store.step(document.digest) {
                    Ok(Some(JournalStep::Accepted)) => recorder.store.mark_step(
                        document.digest,
                        &JournalStep::Switching,
                        &[],
                        recorder.floor.now(),
                    ),
                    Ok(_) => Ok(()),
                    Err(error) => Err(error),
                };
                recorder.check(marked.as_ref().err());
                failpoint::reach("after-switch-journal");
            }
            let switched = switcher.switch(wanted).await;
            failpoint::reach("after-switch");
            Some(match switched {
                Ok(_) => Event::KubernetesSwitched { ticket },
                Err(failure) => Event::KubernetesSwitchFailed { ticket, failure },
            })
        });
    }

    /// Has k3s brought back to what an earlier document says.
    pub(super) fn restore(&mut self, ticket: Ticket, document: &DocumentRef, undo: &DocumentRef) {
        let section = self.section(document.digest);
        self.wanted_version = section.as_ref().and_then(|section| section.version.clone());
        self.check_version();
        let switcher = self.parts.switcher.clone();
        let undo = undo.generation;
        self.spawn(ticket, document, Stop::LeaveAlone, async move |document| {
            let wanted = Wanted {
                generation: document.generation,
                section: section.as_deref(),
            };
            failpoint::reach("before-restore");
            let restored = switcher.restore(wanted, undo).await;
            failpoint::reach("after-restore");
            Some(match restored {
                Ok(_) => Event::KubernetesSwitched { ticket },
                Err(failure) => Event::KubernetesSwitchFailed { ticket, failure },
            })
        });
    }

    pub(super) fn check_version(&self) {
        let found = self.parts.kubernetes.borrow().version.clone();
        let conditions = &self.parts.recorder.conditions;
        match (&self.wanted_version, found) {
            (Some(wanted), Some(found)) if *wanted != found => {
                let error = KubernetesError::WrongVersion {
                    wanted: wanted.clone(),
                    found,
                };
                conditions.set(VERSION, error.problem(), self.parts.recorder.floor.now());
            }
            _ => conditions.clear(VERSION),
        }
    }

    pub(super) async fn follow_kubernetes(&mut self) {
        let (cluster, agent, cause) = {
            let state = self.parts.kubernetes.borrow_and_update();
            (state.cluster.clone(), state.agent, state.cause.clone())
        };
        let same = match (&self.cluster, &cluster) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => self.agent == agent,
            _ => false,
        };
        METRICS
            .kubernetes_ready
            .set(i64::from(cluster.is_some() || agent));
        if same {
            // The reason for waiting may be another one.
            if let (None, false, Some(problem)) = (&cluster, agent, cause) {
                self.step(Event::KubernetesLost { problem }).await;
            }
            return;
        }
        let was_agent = std::mem::replace(&mut self.agent, agent);
        let had_one = std::mem::replace(&mut self.cluster, cluster).is_some();
        let ready = self.agent || self.cluster.is_some();
        if had_one || was_agent || !ready {
            let problem = cause.unwrap_or_else(|| {
                KubernetesError::Unreachable {
                    what: "the API".into(),
                    reason: "it is being started".into(),
                }
                .problem()
            });
            self.step(Event::KubernetesLost { problem }).await;
        }
        if ready {
            self.check_version();
            self.step(Event::KubernetesReady).await;
        }
    }
}
