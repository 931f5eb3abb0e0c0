//! What the caller does with each effect: it puts it into its book, checks that it may be asked for at this time, and keeps what a store
//! would keep.

use super::*;

impl Caller {
    pub(super) fn carry_out(&mut self, effect: Effect) {
        let (ticket, kind) = match effect {
            Effect::FetchBlobs { ticket, .. } => (ticket, Under::Fetch),
            Effect::Preflight { ticket, .. } => (ticket, Under::Preflight),
            Effect::AwaitGate { ticket, document } => {
                assert!(!self.paused, "the gate is awaited during a pause");
                assert_ne!(self.begun, Some(document.digest));
                (ticket, Under::Gate)
            }
            Effect::StageOs { ticket, document } => {
                self.wants_another(&document);
                (ticket, Under::StageOs)
            }
            Effect::SwitchOs { ticket, document } => {
                assert!(
                    !self.failed.contains(&document.digest),
                    "the box restarts for a failed document"
                );
                if self.begun.replace(document.digest) != Some(document.digest) {
                    assert!(
                        !self.paused,
                        "the box restarts for a newer document during a pause"
                    );
                }
                self.went(&document, JournalStep::SwitchingOs);
                self.next_os = document.os.map(|os| os.version);
                (ticket, Under::SwitchOs)
            }
            Effect::RestoreOs {
                ticket,
                document,
                undo,
            } => {
                assert!(document.generation < undo.generation);
                assert!(self.os.is_some(), "a box without an image is to go back to one");
                self.keep_up(&document);
                (ticket, Under::RestoreOs)
            }
            Effect::SwitchKubernetes { ticket, document } => {
                assert!(
                    document.os.is_none()
                        || self.proven.contains(&document)
                        || self.os == document.os.as_ref().map(|os| os.version.clone()),
                    "the document goes on without its operating system"
                );
                assert!(
                    !self.failed.contains(&document.digest),
                    "k3s becomes that of a failed document"
                );
                if self.begun.replace(document.digest) != Some(document.digest) {
                    assert!(!self.paused, "a newer document is begun during a pause");
                }
                // As a real switch does; where k3s is as wanted, nothing is written down.
                if document.generation.counter % 2 == 1 {
                    self.went(&document, JournalStep::Switching);
                }
                (ticket, Under::Switch)
            }
            Effect::RestoreKubernetes {
                ticket,
                document,
                undo,
            } => {
                assert!(document.generation < undo.generation);
                self.keep_up(&document);
                (ticket, Under::Switch)
            }
            Effect::Apply { ticket, document } => {
                assert!(
                    !self.failed.contains(&document.digest),
                    "a failed document is applied again"
                );
                self.keep_up(&document);
                self.went(&document, JournalStep::Applying);
                self.applying = Some(document);
                (ticket, Under::Apply)
            }
            Effect::ApplyObjects {
                ticket,
                keys,
                document,
            } => {
                assert!(!keys.is_empty());
                assert!(!self.paused, "something is put back during a pause");
                assert!(
                    !self.gone_back.contains(&document.digest),
                    "objects of a document that was gone back from are put back"
                );
                self.correcting = keys;
                (ticket, Under::Correct)
            }
            Effect::Verify { ticket, .. } => {
                // It takes the place of the one before.
                let before = self
                    .under_way
                    .iter()
                    .find(|(_, kind)| matches!(kind, Under::Observe));
                if let Some(before) = before.map(|(ticket, _)| *ticket) {
                    self.under_way.remove(&before);
                    self.ended.push(before);
                }
                (ticket, Under::Observe)
            }
            Effect::ScheduleRetry { ticket, .. } => (ticket, Under::Retry),
            Effect::ScheduleDeadline { ticket, .. } => (ticket, Under::Deadline),
            Effect::ScheduleStability { ticket, .. } => (ticket, Under::Stability),
            Effect::Cancel { ticket } => {
                self.under_way.remove(&ticket);
                self.ended.push(ticket);
                return;
            }
            Effect::Journal { document, step } => {
                assert_eq!(self.newest.as_ref().map(|newest| &newest.0), Some(&document));
                self.failed.push(document.digest);
                if !matches!(step, JournalStep::Failed { .. }) {
                    self.gone_back.push(document.digest);
                    self.proven.retain(|proven| proven.digest != document.digest);
                }
                self.newest = Some((document, step));
                return;
            }
            Effect::Commit { document } => {
                assert_eq!(self.newest.as_ref().map(|newest| &newest.0), Some(&document));
                assert!(
                    !self.failed.contains(&document.digest),
                    "a failed document is proven"
                );
                self.proven.push(document.clone());
                self.newest = Some((document, JournalStep::Proven));
                return;
            }
            Effect::Report(_) => return,
        };
        assert_eq!(
            self.under_way.insert(ticket, kind),
            None,
            "a ticket is given out twice"
        );
    }

    /// Another document than before is kept up: it is written as a whole.
    fn keep_up(&mut self, document: &DocumentRef) {
        if self.kept_up.replace(document.digest) != Some(document.digest) {
            self.drifted.clear();
        }
    }

    fn wants_another(&self, document: &DocumentRef) {
        let wanted = document.os.as_ref().map(|os| &os.version);
        assert!(wanted.is_some() && wanted != self.os.as_ref());
    }

    /// Writes a step of the way forward down.
    pub(super) fn went(&mut self, document: &DocumentRef, to: JournalStep) {
        if let Some((newest, step)) = &mut self.newest
            && newest == document
            && matches!(
                step,
                JournalStep::Accepted
                    | JournalStep::SwitchingOs
                    | JournalStep::Switching
                    | JournalStep::Applying
            )
        {
            *step = to;
        }
    }
}
