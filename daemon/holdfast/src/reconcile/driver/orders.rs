//! Orders of a person at the box: pause, resume, roll back.

use super::Driver;
use crate::{
    codes,
    reconcile::orders::{LONGEST_PAUSE, Order, Paused, Resumed, RollingBack},
    report::News,
};
use holdfast_core::reconcile::{DocumentRef, Event, Stage};
use holdfast_protocol::{
    Generation, Problem, codes as shared,
    event::{EventKind, Severity},
};
use holdfast_store::{Pause, StoreError};
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;
use tokio::time::Instant;

impl Driver {
    pub(super) async fn obey(&mut self, order: Order) {
        match order {
            Order::Pause {
                length,
                reason,
                reply,
            } => {
                let _ = reply.send(self.make_pause(length, reason).await);
            }
            Order::Resume { reply } => {
                let _ = reply.send(self.resume("changes go on: a person ended the pause").await);
            }
            Order::RollBack { to, reply } => {
                let _ = reply.send(self.roll_back(to).await);
            }
        }
    }

    /// The pause of an earlier start, if it still lasts.
    pub(super) fn take_up_pause(&mut self) -> bool {
        let pause = match self.parts.objects.store.pause() {
            Ok(Some(pause)) => pause,
            Ok(None) => return false,
            Err(error) => {
                self.parts.recorder.check(Some(&error));
                return false;
            }
        };
        // A clock that was set back must not make it last longer than it was meant to.
        let left = pause
            .until
            .duration_since(self.parts.recorder.floor.now())
            .min(pause.until.duration_since(pause.since));
        if left <= SignedDuration::ZERO {
            let ended = self.write_pause(None, "changes go on: the pause is over");
            self.stored(ended);
            return false;
        }
        self.lasts(left);
        self.pause = Some(pause);
        true
    }

    async fn make_pause(&mut self, length: SignedDuration, reason: String) -> Result<Paused, Problem> {
        if length <= SignedDuration::ZERO || length > LONGEST_PAUSE {
            return Err(Problem::new(
                shared::BAD_REQUEST,
                "a pause lasts from one second to 30 days",
                "give another length: holdfast pause --for 2h",
            ));
        }
        let since = self.parts.recorder.floor.now();
        let until = self.after(length);
        let pause = Pause { since, until, reason };
        let why = if pause.reason.is_empty() {
            String::new()
        } else {
            format!(": {}", pause.reason)
        };
        // Who made it must be able to count on it.
        self.write_pause(
            Some(&pause),
            &format!("changes are paused at the box until {until}{why}"),
        )
        .map_err(|error| error.problem())?;
        self.lasts(length);
        let was_paused = self.pause.replace(pause).is_some();
        if was_paused {
            self.tell();
        } else {
            self.step(Event::Paused).await;
        }
        Ok(Paused { paused_until: until })
    }

    /// The pause ended by itself.
    pub(super) async fn end_pause(&mut self) {
        // What the disk does not take is in the log and in the conditions.
        let _ = self.resume("changes go on: the pause is over").await;
    }

    async fn resume(&mut self, message: &str) -> Result<Resumed, Problem> {
        self.pause_end = None;
        if self.pause.take().is_none() {
            return Ok(Resumed { was_paused: false });
        }
        let written = self.write_pause(None, message);
        self.step(Event::Resumed).await;
        written.map_err(|error| error.problem())?;
        Ok(Resumed { was_paused: true })
    }

    fn write_pause(&self, pause: Option<&Pause>, message: &str) -> Result<(), StoreError> {
        let news = News {
            kind: EventKind::Paused,
            severity: Severity::Info,
            message: message.to_owned(),
            generation: None,
            problem: None,
        };
        let recorder = &self.parts.recorder;
        recorder.note_with(vec![news.into()], |events| {
            recorder.store.set_pause(pause, events)
        })
    }

    fn lasts(&mut self, length: SignedDuration) {
        let length = Duration::try_from(length).unwrap_or_default();
        self.pause_end = Instant::now().checked_add(length);
    }

    async fn roll_back(&mut self, to: Option<Generation>) -> Result<RollingBack, Problem> {
        let refused =
            |message: String, action: &str| Err(Problem::new(codes::ROLLBACK_IMPOSSIBLE, message, action));
        let Some(newest) = self.state.newest().map(|newest| newest.generation) else {
            return refused(
                "this node has no document yet, so there is nothing to go back to".into(),
                "assign a release to it: holdfastctl release assign",
            );
        };
        let running = self.state.upkeep().map(|upkeep| upkeep.document.generation);
        let kept = self.kept_for_rollback()?;
        let earlier: Vec<_> = kept.into_iter().filter(|kept| kept.generation < newest).collect();
        let names = || {
            let names: Vec<_> = earlier.iter().map(|kept| kept.generation.to_string()).collect();
            names.join(", ")
        };
        let target = match to {
            Some(to) if running == Some(to) && self.is_at_rest() => {
                return Err(Problem::new(
                    codes::ALREADY_RUNNING,
                    format!("document {to} is what runs already"),
                    "nothing",
                ));
            }
            Some(to) if to == newest => {
                return refused(
                    format!("document {to} is the newest; a node goes back only to an earlier one"),
                    "publish it anew, under a new generation",
                );
            }
            Some(to) => earlier.iter().find(|kept| kept.generation == to),
            None => earlier
                .iter()
                .find(|kept| running.is_none_or(|running| kept.generation < running)),
        };
        match (target, to) {
            (Some(target), _) => {
                let to = target.clone();
                let generation = to.generation;
                let problem = Problem::new(
                    codes::ROLLED_BACK_BY_HAND,
                    format!("a person at the box asked for document {generation}"),
                    "publish a newer document; it takes the place of this one",
                );
                self.step(Event::RollBackRequested { to, problem }).await;
                Ok(RollingBack {
                    from: newest,
                    to: generation,
                })
            }
            (None, Some(to)) if !earlier.is_empty() => refused(
                format!("document {to} is not kept on this box; kept are {}", names()),
                "give one of those, or publish it anew",
            ),
            (None, _) => refused(
                "there is no earlier document that was good, so there is nothing to go back to".into(),
                "publish what should run, under a new generation",
            ),
        }
    }

    /// Documents that can be gone back to, the newest first.
    fn kept_for_rollback(&mut self) -> Result<Vec<DocumentRef>, Problem> {
        let store = self.parts.objects.store.clone();
        let mut stored = store.kept_proven().map_err(|error| error.problem())?;
        // What runs was good once, or it is not here.
        if let Some(running) = store.running().map_err(|error| error.problem())?
            && let Some(fallback) = self.state.fallback()
            && fallback.generation == running.generation
            && stored.iter().all(|kept| kept.generation != running.generation)
        {
            stored.push(running);
        }
        Ok(stored.iter().filter_map(|stored| self.recover(stored)).collect())
    }

    /// Whether nothing is on its way.
    const fn is_at_rest(&self) -> bool {
        matches!(
            self.state.stage(),
            Stage::Committed { .. } | Stage::RolledBack { .. } | Stage::Failed { .. } | Stage::Idle
        )
    }

    /// Until when changes are paused.
    pub(super) fn paused_until(&self) -> Option<Timestamp> {
        self.pause.as_ref().map(|pause| pause.until)
    }
}
