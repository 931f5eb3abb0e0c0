//! Work that takes time, and timers: started, found by their tickets, and ended.

use super::Driver;
use holdfast_core::reconcile::{DocumentRef, Event, Ticket};
use jiff::{SignedDuration, Timestamp};
use std::{future::Future, time::Duration};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// How long writes that are under way are waited for when they are overtaken.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// How work is ended when it is overtaken.
pub(super) enum Stop {
    /// At once.
    Abort,
    /// It is asked to stop and waited for.
    Ask(CancellationToken),
    /// It is told, and ends where nothing is lost by that; its answer is passed over.
    Tell(CancellationToken),
    /// It is left to come to its end by itself, and its answer is passed over.
    LeaveAlone,
}

/// Work under way, or a timer.
pub(super) struct Task {
    handle: JoinHandle<()>,
    stop: Stop,
}

impl Task {
    pub(super) fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// For the end of the daemon.
    pub(super) fn abort(&self) {
        self.handle.abort();
    }

    /// Ends work for good: whoever goes on after this is alone.
    pub(super) async fn end(mut self) {
        match self.stop {
            Stop::LeaveAlone => return,
            Stop::Tell(stop) => return stop.cancel(),
            Stop::Ask(stop) => {
                stop.cancel();
                if timeout(STOP_PATIENCE, &mut self.handle).await.is_ok() {
                    return;
                }
            }
            Stop::Abort => {}
        }
        self.handle.abort();
        // The error only says that it was aborted.
        let _ = self.handle.await;
    }
}

impl Driver {
    pub(super) fn spawn<W, F>(&mut self, ticket: Ticket, document: &DocumentRef, stop: Stop, work: W)
    where
        W: FnOnce(DocumentRef) -> F,
        F: Future<Output = Option<Event>> + Send + 'static,
    {
        let span = tracing::info_span!("document", generation = %document.generation);
        let events = self.parts.event_sender.clone();
        let work = work(document.clone());
        let task = async move {
            if let Some(event) = work.await {
                let _ = events.send(event);
            }
        };
        let handle = tokio::spawn(task.instrument(span));
        self.tasks.insert(ticket, Task { handle, stop });
    }

    pub(super) fn ring(&mut self, ticket: Ticket, wait: Duration, event: Event) {
        let events = self.parts.event_sender.clone();
        let handle = tokio::spawn(async move {
            sleep(wait).await;
            let _ = events.send(event);
        });
        let stop = Stop::Abort;
        self.tasks.insert(ticket, Task { handle, stop });
    }

    /// As [`Self::ring`], for a timer whose end is shown.
    pub(super) fn ring_until(&mut self, ticket: Ticket, after_seconds: u32, event: Event) {
        self.ring(ticket, Duration::from_secs(after_seconds.into()), event);
        let until = self.after(SignedDuration::from_secs(after_seconds.into()));
        self.until.insert(ticket, watch::channel(Some(until)).1);
    }

    /// The time then, by the node's clock.
    pub(super) fn after(&self, wait: SignedDuration) -> Timestamp {
        let now = self.parts.recorder.floor.now();
        let then = now.checked_add(wait).unwrap_or(Timestamp::MAX);
        // People read it.
        Timestamp::from_second(then.as_second()).unwrap_or(then)
    }
}
