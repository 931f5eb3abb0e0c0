//! What the driver does about the operating system: has it staged, switched to and gone back from.

use super::Driver;
use crate::preflight::os;
use holdfast_core::{
    failure::Failure,
    reconcile::{DocumentRef, Event, Ticket},
};

impl Driver {
    pub(super) fn stage_os(&mut self, ticket: Ticket, document: &DocumentRef) {
        let failure = Failure::of_document(os::not_managed(document), false);
        let _ = (self.parts.event_sender).send(Event::OsStageFailed { ticket, failure });
    }

    pub(super) fn switch_os(&mut self, ticket: Ticket, document: &DocumentRef) {
        let failure = Failure::of_document(os::not_managed(document), false);
        let _ = (self.parts.event_sender).send(Event::OsSwitchFailed { ticket, failure });
    }

    pub(super) fn restore_os(&mut self, ticket: Ticket, _document: &DocumentRef, _undo: &DocumentRef) {
        let _ = (self.parts.event_sender).send(Event::OsSwitched { ticket });
    }
}
