//! What the driver does about the operating system: has it staged, switched to and gone back from.

use super::{Driver, work::Stop};
use crate::{failpoint, preflight::os};
use holdfast_core::{
    failure::Failure,
    reconcile::{DocumentRef, Event, JournalStep, Ticket},
};
use tokio_util::sync::CancellationToken;

impl Driver {
    pub(super) fn stage_os(&mut self, ticket: Ticket, document: &DocumentRef) {
        let system = self.parts.system.clone();
        self.spawn(ticket, document, Stop::Abort, async move |document| {
            failpoint::reach("before-stage-os");
            let staged = match system {
                Some(system) => system.stage(&document).await,
                None => Err(Failure::of_document(os::not_managed(&document), false)),
            };
            failpoint::reach("after-stage-os");
            Some(match staged {
                Ok(()) => Event::OsStaged { ticket },
                Err(failure) => Event::OsStageFailed { ticket, failure },
            })
        });
    }

    pub(super) fn switch_os(&mut self, ticket: Ticket, document: &DocumentRef) {
        let system = self.parts.system.clone();
        let recorder = self.parts.recorder.clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        self.spawn(ticket, document, Stop::Tell(stop), async move |document| {
            failpoint::reach("before-switch-os");
            let mark = || {
                // A document that came further before goes on from there after a restart.
                let marked = match recorder.store.step(document.digest) {
                    Ok(Some(JournalStep::Accepted)) => recorder.store.mark_step(
                        document.digest,
                        &JournalStep::SwitchingOs,
                        &[],
                        recorder.floor.now(),
                    ),
                    Ok(_) => Ok(()),
                    Err(error) => Err(error),
                };
                recorder.check(marked.as_ref().err());
            };
            let switched = match system {
                Some(system) => system.switch(&document, &stopped, mark).await,
                None => Err(Failure::of_document(os::not_managed(&document), false)),
            };
            failpoint::reach("after-switch-os");
            Some(match switched {
                Ok(()) => Event::OsSwitched { ticket },
                Err(failure) => Event::OsSwitchFailed { ticket, failure },
            })
        });
    }

    pub(super) fn restore_os(&mut self, ticket: Ticket, document: &DocumentRef) {
        let system = self.parts.system.clone();
        self.spawn(ticket, document, Stop::LeaveAlone, async move |document| {
            failpoint::reach("before-restore-os");
            let restored = match system {
                Some(system) => system.restore(&document).await,
                None => Ok(()),
            };
            failpoint::reach("after-restore-os");
            Some(match restored {
                Ok(()) => Event::OsSwitched { ticket },
                Err(failure) => Event::OsSwitchFailed { ticket, failure },
            })
        });
    }
}
