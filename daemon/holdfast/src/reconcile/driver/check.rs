//! Gathers what the checks before a document need to know of the box.

use super::{Driver, work::Stop};
use crate::{failpoint, preflight::Preflight};
use holdfast_core::reconcile::{DocumentRef, Event, Ticket};

impl Driver {
    pub(super) fn preflight(&mut self, ticket: Ticket, document: &DocumentRef) {
        let running = self.state.upkeep().map(|upkeep| &upkeep.document);
        let preflight = Preflight {
            objects: self.parts.objects.clone(),
            cluster: self.cluster.clone(),
            concurrency: self.parts.settings.apply.concurrency,
            version: self.parts.kubernetes.borrow().version.clone(),
            switcher: self.parts.switcher.clone(),
            system: self.parts.system.clone(),
            is_first: running.is_none(),
            unpacked: running
                .into_iter()
                .chain(self.state.fallback())
                .flat_map(|document| document.artifacts.iter().map(|artifact| artifact.digest))
                .collect(),
            data_dir: self.parts.settings.kubernetes.data_dir.clone(),
            registries: Some(self.parts.fetcher.clone()),
        };
        self.spawn(ticket, document, Stop::Abort, async move |document| {
            failpoint::reach("before-preflight");
            let checked = preflight.check(&document).await;
            failpoint::reach("after-preflight");
            Some(match checked {
                Ok(()) => Event::PreflightPassed { ticket },
                Err(failure) => Event::PreflightFailed { ticket, failure },
            })
        });
    }
}
