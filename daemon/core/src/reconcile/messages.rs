//! What goes into the machine and what comes out of it.

use super::document::DocumentRef;
use crate::{failure::Failure, object::ObjectKey, readiness::Summary};
use holdfast_protocol::{
    Generation, Problem,
    event::{EventKind, Severity},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Name of one piece of work or one timer. Each is given out once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(crate) u64);

/// How far a document was when it was written down last; what a restart goes on from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "step")]
pub enum JournalStep {
    /// Stored, in the same transaction as the document itself. Writes of objects that were applied before may have begun.
    Accepted,
    /// The operating system may be on its way to another version: the box may restart at any time, into the new one or the old one.
    SwitchingOs,
    /// k3s may be on its way to another version or configuration; a snapshot of what was before is kept.
    Switching,
    /// Writes may have begun, of new objects too; the inventory names them.
    Applying,
    /// All objects were written, all that left were deleted, the inventory is up to date.
    Applied,
    /// It was seen ready.
    Proven,
    /// It failed for good.
    Failed {
        /// Why.
        problem: Problem,
        /// Whether writes had begun.
        applying: bool,
    },
    /// It failed, or a person asked for it: the way back to an earlier document has begun.
    RollingBack {
        /// Why.
        problem: Problem,
        /// The document to go back to.
        to: Generation,
    },
    /// The earlier document is applied in its place and was seen ready.
    RolledBack {
        /// Why.
        problem: Problem,
        /// The document that runs.
        to: Generation,
    },
}

/// Something that happened.
// The large one comes once, at the start.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The daemon started; always the first event, also on a new node.
    Restarted {
        /// The newest accepted document and how far it was.
        newest: Option<(DocumentRef, JournalStep)>,
        /// The document whose objects were all written last, where it is another one than the newest: after a way back, the one that
        /// was gone back to, never one that was gone back from.
        applied: Option<DocumentRef>,
        /// Generation of the newest document that was seen ready.
        proven: Option<Generation>,
        /// The document that a rollback would go back to, or is going back to: the newest proven one before the newest, or the one of a
        /// rollback that had begun or ended. A document that was gone back from is none.
        fallback: Option<DocumentRef>,
        /// Whether a person paused changes.
        paused: bool,
        /// Version of the operating system that runs, where it is an image whose version documents decide.
        os: Option<String>,
        /// Seconds that a newest document which was begun, and not gone back from, still has: [`super::deadline_after_restarts`]. The
        /// whole of its deadline where absent; with 0 it is too late already.
        deadline_seconds: Option<u32>,
    },
    /// A newer document passed admission and is stored.
    DocumentAccepted(DocumentRef),
    /// All blobs and artifacts of the document are here, verified.
    BlobsReady {
        /// From [`Effect::FetchBlobs`].
        ticket: Ticket,
    },
    /// A blob or an artifact could not be had.
    BlobsFailed {
        /// From [`Effect::FetchBlobs`].
        ticket: Ticket,
        /// Why.
        failure: Failure,
    },
    /// The document can work on this box as far as can be known before.
    PreflightPassed {
        /// From [`Effect::Preflight`].
        ticket: Ticket,
    },
    /// It cannot. Nothing was touched.
    PreflightFailed {
        /// From [`Effect::Preflight`].
        ticket: Ticket,
        /// Why. Retryable: it is asked again later.
        failure: Failure,
    },
    /// The operating system of the document is whole in the slot that does not run.
    OsStaged {
        /// From [`Effect::StageOs`].
        ticket: Ticket,
    },
    /// It could not be brought there. What runs was not touched.
    OsStageFailed {
        /// From [`Effect::StageOs`].
        ticket: Ticket,
        /// Why.
        failure: Failure,
    },
    /// The operating system is the wanted one, and this boot of it was found good. Or the one to go back to runs; or there was nothing to do.
    OsSwitched {
        /// From [`Effect::SwitchOs`] or [`Effect::RestoreOs`].
        ticket: Ticket,
    },
    /// The operating system could not be switched, or the box came back from it by itself.
    OsSwitchFailed {
        /// From [`Effect::SwitchOs`] or [`Effect::RestoreOs`].
        ticket: Ticket,
        /// Why.
        failure: Failure,
    },
    /// Changes may begin now.
    GateOpened {
        /// From [`Effect::AwaitGate`].
        ticket: Ticket,
    },
    /// Changes may not begin yet. May come many times; the gate is still being awaited.
    GateClosed {
        /// From [`Effect::AwaitGate`].
        ticket: Ticket,
        /// Why not: outside the maintenance window, no trusted clock.
        problem: Problem,
    },
    /// A person at the box paused changes: nothing newer is begun, nothing is put back. What is being written is brought to its end.
    Paused,
    /// The pause is over.
    Resumed,
    /// A person asked for an earlier generation; it holds until a newer document comes.
    RollBackRequested {
        /// The document to go back to, which is stored with all that it needs.
        to: DocumentRef,
        /// Who asked, in words for the report.
        problem: Problem,
    },
    /// k3s runs (or is on its way up) as the document says, or did so already. Where it was stopped for that, an
    /// [`Event::KubernetesLost`] came before.
    KubernetesSwitched {
        /// From [`Effect::SwitchKubernetes`] or [`Effect::RestoreKubernetes`].
        ticket: Ticket,
    },
    /// k3s could not be brought there.
    KubernetesSwitchFailed {
        /// From [`Effect::SwitchKubernetes`] or [`Effect::RestoreKubernetes`].
        ticket: Ticket,
        /// Why.
        failure: Failure,
    },
    /// The timer of an [`Effect::ScheduleStability`] rang.
    StabilityReached {
        /// From the effect.
        ticket: Ticket,
    },
    /// Kubernetes answers and is ready.
    KubernetesReady,
    /// Kubernetes ended or answers no more.
    KubernetesLost {
        /// Why.
        problem: Problem,
    },
    /// An [`Effect::Apply`] or [`Effect::ApplyObjects`] ended; what it wrote is recorded in the inventory.
    ApplyFinished {
        /// From the effect.
        ticket: Ticket,
        /// What went wrong; empty where all went well.
        failures: Vec<Failure>,
    },
    /// The observed objects' readiness is another than before.
    ReadinessChanged {
        /// From [`Effect::Verify`].
        ticket: Ticket,
        /// Readiness of all of them together.
        summary: Summary,
    },
    /// An observation could not begin, or ended by itself.
    ObservationFailed {
        /// From [`Effect::Verify`].
        ticket: Ticket,
        /// Why. It is tried again, retryable or not: what runs must be known.
        failure: Failure,
    },
    /// The timer of an [`Effect::ScheduleDeadline`] rang.
    DeadlineReached {
        /// From the effect.
        ticket: Ticket,
    },
    /// The timer of an [`Effect::ScheduleRetry`] rang.
    RetryDue {
        /// From the effect.
        ticket: Ticket,
    },
    /// Someone else changed or deleted applied objects.
    DriftDetected {
        /// Which.
        keys: Vec<ObjectKey>,
    },
}

/// Something to do. All of it may be done twice without harm.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Have all blobs and artifacts of the document in the store, then answer with [`Event::BlobsReady`] or [`Event::BlobsFailed`]. What is in
    /// the store already must not need a network.
    FetchBlobs {
        /// For the answer.
        ticket: Ticket,
        /// The document.
        document: DocumentRef,
    },
    /// Check that the document can work, without touching anything: space, memory, a dry run of all objects, images, version skew.
    /// Answer with [`Event::PreflightPassed`] or [`Event::PreflightFailed`].
    Preflight {
        /// For the answer.
        ticket: Ticket,
        /// The document.
        document: DocumentRef,
    },
    /// Have the operating system of the document whole in the slot that does not run, then answer with [`Event::OsStaged`] or
    /// [`Event::OsStageFailed`]. What runs is not touched, and what is there already is not fetched again. It may be cancelled at any time.
    StageOs {
        /// For the answer.
        ticket: Ticket,
        /// The document.
        document: DocumentRef,
    },
    /// Bring the box to the operating system of the document: write down [`JournalStep::SwitchingOs`], snapshot the datastore, and restart
    /// into it. Asked again after each start: where it runs, wait until its boot was found good and answer with [`Event::OsSwitched`]; where the box
    /// came back from it, answer with [`Event::OsSwitchFailed`] for good. Cancelled, it may restart the box all the same; what runs then decides
    /// for itself whether it is good.
    SwitchOs {
        /// For the answer.
        ticket: Ticket,
        /// The document.
        document: DocumentRef,
    },
    /// Bring the box back to the operating system that `document` ran on, where another one runs now and that one is still whole. Asked
    /// again after each start. Answers as for [`Effect::SwitchOs`]; nothing to do is [`Event::OsSwitched`]. A failure for good does not end
    /// the way back.
    RestoreOs {
        /// For the answer.
        ticket: Ticket,
        /// The document to go back to.
        document: DocumentRef,
        /// The document whose change is undone.
        undo: DocumentRef,
    },
    /// Wait for the document's maintenance window: answer with [`Event::GateOpened`], before that with [`Event::GateClosed`] as often as
    /// there is something to say.
    AwaitGate {
        /// For the answer.
        ticket: Ticket,
        /// The document.
        document: DocumentRef,
    },
    /// Bring k3s to what the document says, where it is not there already: write down [`JournalStep::Switching`], snapshot the
    /// datastore, switch the binary, and start it. Answer with [`Event::KubernetesSwitched`] once it was started (its readiness comes
    /// as [`Event::KubernetesReady`]) or with [`Event::KubernetesSwitchFailed`]. Asked after each start too, for what runs already.
    /// Cancelled, it leaves a k3s that runs: as before, or as the document says.
    SwitchKubernetes {
        /// For the answer.
        ticket: Ticket,
        /// The document.
        document: DocumentRef,
    },
    /// Bring k3s back to what `document` says: where `undo` had switched it to another version, the binary and the datastore's
    /// snapshot return as a pair; nothing where k3s is as `document` says. Answers and cancellation as for [`Effect::SwitchKubernetes`].
    RestoreKubernetes {
        /// For the answer.
        ticket: Ticket,
        /// The document to go back to.
        document: DocumentRef,
        /// The document whose change is undone.
        undo: DocumentRef,
    },
    /// Plan against the inventory, record new objects as intents, write what differs, prune (only when all writes went well, but for
    /// those of apps in [`DocumentRef::isolated`]), record, and answer with [`Event::ApplyFinished`].
    Apply {
        /// For the answer.
        ticket: Ticket,
        /// The document.
        document: DocumentRef,
    },
    /// Write these objects of the document again, whatever the inventory says, and answer with [`Event::ApplyFinished`]. Objects
    /// that the document does not name are passed over.
    ApplyObjects {
        /// For the answer.
        ticket: Ticket,
        /// The document.
        document: DocumentRef,
        /// Which objects.
        keys: BTreeSet<ObjectKey>,
    },
    /// Observe the document's objects in place of those observed before, and send [`Event::ReadinessChanged`] with what is seen
    /// first and on each change, [`Event::DriftDetected`], and [`Event::ObservationFailed`] where nothing can be seen (any more).
    Verify {
        /// For the answers; there may be many.
        ticket: Ticket,
        /// The document.
        document: DocumentRef,
        /// Whether nothing is known of what happened to the objects in the meantime (after a start of the daemon, where Kubernetes was
        /// away, or where writing them was cut off): each object of the document is compared with what is in the cluster, and those that are missing or
        /// differ come as [`Event::DriftDetected`]. It is asked for until the first [`Event::ReadinessChanged`].
        recheck: bool,
    },
    /// Ring with [`Event::RetryDue`] after the backoff's delay for this attempt.
    ScheduleRetry {
        /// For the answer.
        ticket: Ticket,
        /// Number of the attempt, from 0.
        attempt: u32,
    },
    /// Ring with [`Event::DeadlineReached`] after this many seconds.
    ScheduleDeadline {
        /// For the answer.
        ticket: Ticket,
        /// Seconds from now.
        after_seconds: u32,
    },
    /// Ring with [`Event::StabilityReached`] after this many seconds.
    ScheduleStability {
        /// For the answer.
        ticket: Ticket,
        /// Seconds from now.
        after_seconds: u32,
    },
    /// Stop this work, observation or timer, and go on with the next effect when it has stopped.
    Cancel {
        /// Which.
        ticket: Ticket,
    },
    /// Write down that the document is this far. (The other steps are written down with the work itself.)
    Journal {
        /// The document.
        document: DocumentRef,
        /// How far.
        step: JournalStep,
    },
    /// Write down that the document was seen ready.
    Commit {
        /// The document.
        document: DocumentRef,
    },
    /// Tell the hub and the log.
    Report(Report),
}

/// What an event for the hub says; node, time and sequence are added by the caller.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What kind.
    pub kind: EventKind,
    /// How much it matters.
    pub severity: Severity,
    /// What happened, in one line.
    pub message: String,
    /// The document it is about.
    pub generation: Option<Generation>,
    /// What is wrong, where something is.
    pub problem: Option<Problem>,
    /// More of it.
    pub details: Map<String, Value>,
}

/// An event that cannot follow what was before: a fault of the caller. The state is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IllegalTransition {
    /// An event before [`Event::Restarted`].
    #[error("{event} came before the machine was started")]
    NotStarted {
        /// Name of the event.
        event: &'static str,
    },
    /// A second [`Event::Restarted`].
    #[error("the machine is started already")]
    AlreadyStarted,
    /// A document that is not newer than the newest.
    #[error("document {found} was handed in as newer than {newest}")]
    NotNewer {
        /// Generation that came.
        found: Generation,
        /// Newest generation known.
        newest: Generation,
    },
    /// A ticket that was never given out.
    #[error("{event} names ticket {ticket}, which was never given out")]
    UnknownTicket {
        /// Name of the event.
        event: &'static str,
        /// The ticket.
        ticket: u64,
    },
}
