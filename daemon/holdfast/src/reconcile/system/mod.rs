//! The operating system of the box, exchanged together with what runs on it.
//!
//! ```text
//! there: slot written → window → trial written down → k3s stopped, its datastore kept → boot entry with its counter → restart
//!        → (up to three starts) → good: written down, on with k3s and the apps
//!                               → not good: the boot loader starts the earlier one → datastore back, image remembered as bad
//! back:  entry of the other slot chosen → restart
//! ```
//!
//! In: what documents want, and what this start of the machine came up with. Out: a machine that restarted, and why. It guarantees that a
//! system which did not come up is not tried again; that one document restarts the box a bounded number of times; that nothing is written
//! to a slot that may be needed while the present start is not known to be good; and that what a trial did to the datastore goes with it.

mod power;
mod record;
mod slots;
mod trial;

pub use record::{Bad, MOST_RESTARTS, Outcome, Record, Records, Return, Switch, Trial};
pub use slots::{Running, Slots};

use crate::{
    boots::{BootLog, Note, OsStep, RebootReason},
    codes, failpoint,
    kubernetes::switch::Switcher,
    report::Recorder,
    settings::Settings,
};
use holdfast_core::{
    failure::Failure,
    reconcile::{DocumentRef, OsRef},
};
use holdfast_protocol::{Generation, Problem, report::OsStatus};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

/// How often it is looked whether a start on trial was marked good. The ESP is mounted only while somebody looks at it, so there is nothing
/// that would tell; and this lasts minutes, once an exchange.
const LOOK: Duration = Duration::from_secs(2);
/// How long a restart that was asked for may take to end this process.
const RESTART_PATIENCE: Duration = Duration::from_mins(5);

/// What the exchange needs of its surroundings.
pub struct Surroundings {
    /// Where records are, and the bus.
    pub settings: Arc<Settings>,
    /// Tells what happened.
    pub recorder: Recorder,
    /// Stops k3s, and has its datastore.
    pub switcher: Arc<Switcher>,
    /// The record of starts of the machine.
    pub boots: BootLog,
    /// The disk and the boot loader.
    pub slots: Arc<dyn Slots>,
}

/// The operating system of a box that runs an image.
pub struct System {
    parts: Surroundings,
    records: Records,
    record: Mutex<Record>,
    /// Whether this start of the machine still has to be marked good before anything else is begun.
    on_trial: watch::Sender<bool>,
    status: watch::Sender<Option<OsStatus>>,
}

impl System {
    /// Takes up what is written down, and what became of a trial. Must come before k3s is taken up.
    pub fn new(parts: Surroundings, status: watch::Sender<Option<OsStatus>>) -> Arc<Self> {
        let records = Records::new(&parts.settings.state_dir);
        let record = records.read();
        let tries = record.tries(&parts.slots.running().version);
        let system = Self {
            record: Mutex::new(record),
            records,
            on_trial: watch::Sender::new(parts.slots.is_on_trial(tries)),
            status,
            parts,
        };
        system.take_up();
        system.show();
        Arc::new(system)
    }

    /// Version that runs.
    pub fn version(&self) -> &str {
        &self.parts.slots.running().version
    }

    fn is_on_trial(&self) -> bool {
        let tries = self.record().tries(self.version());
        self.parts.slots.is_on_trial(tries)
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the record and has it on the disk.
    fn write_down<T>(&self, change: impl FnOnce(&mut Record) -> T) -> Result<T, Problem> {
        let mut record = self.record();
        let mut next = record.clone();
        let value = change(&mut next);
        if next != *record {
            self.records.write(&next)?;
            *record = next;
        }
        Ok(value)
    }

    /// Follows this start of the machine until it is marked good. Ends at once where it was before.
    pub async fn follow(self: Arc<Self>) {
        while self.is_on_trial() {
            sleep(LOOK).await;
        }
        if *self.on_trial.borrow() {
            if self.record().outcome(self.version(), &self.parts.boots.boot().0) == Outcome::Runs {
                self.proved();
            }
            self.on_trial.send_replace(false);
            self.show();
        }
    }

    /// Waits until this start of the machine is known to be good; where it is not, the machine restarts.
    async fn settled(&self) {
        // The sender lives as long as this.
        let _ = self.on_trial.subscribe().wait_for(|on_trial| !on_trial).await;
    }

    /// Tells the report what runs.
    fn show(&self) {
        let running = self.parts.slots.running();
        let verdict =
            self.parts.boots.last_two().ok().and_then(|(present, _)| {
                present.and_then(|boot| boot.verdict().map(|verdict| verdict.is_ok()))
            });
        let status = OsStatus {
            version: running.version.clone(),
            slot: running.slot.clone(),
            good: verdict == Some(true) && !*self.on_trial.borrow(),
            other: self.parts.slots.other(),
            bad: self.record().bad_versions(),
        };
        self.status.send_if_modified(|known| {
            let next = Some(status);
            let other = *known != next;
            *known = next;
            other
        });
    }

    /// This start of the machine was judged.
    pub fn judged(&self) {
        self.show();
    }

    /// Whether a document can come with the system that runs and the one that it wants. Waits for as long as this start is on trial: nothing
    /// newer may begin before it is known which system stays.
    ///
    /// # Errors
    /// Why not.
    pub async fn check(&self, document: &DocumentRef) -> Result<(), Failure> {
        self.settled().await;
        let Some(os) = &document.os else { return Ok(()) };
        self.refuse_bad(os).map_err(|failure| *failure)?;
        self.parts.slots.check(os).await
    }

    fn refuse_bad(&self, os: &OsRef) -> Result<(), Box<Failure>> {
        let manifest = os.manifest.as_ref().map(|manifest| manifest.digest);
        if os.version == self.version() {
            return Ok(());
        }
        match self.record().refusal(&os.version, manifest) {
            Some(problem) => Err(Box::new(Failure::of_document(problem.clone(), false))),
            None => Ok(()),
        }
    }

    /// Has the system of a document whole in the other slot.
    ///
    /// # Errors
    /// Why it is not.
    pub async fn stage(&self, document: &DocumentRef) -> Result<(), Failure> {
        self.settled().await;
        let Some(os) = &document.os else { return Ok(()) };
        self.refuse_bad(os).map_err(|failure| *failure)?;
        self.parts.slots.stage(os).await?;
        self.parts.boots.note_or_log(Note::Os {
            step: OsStep::Staged,
            version: os.version.clone(),
            detail: String::new(),
        });
        self.show();
        Ok(())
    }

    /// Brings the box to the system of a document, over a restart: then this does not return. `mark` writes down that it may happen from now on.
    ///
    /// # Errors
    /// Why it cannot be, or that the box came back from it.
    pub async fn switch(
        &self,
        document: &DocumentRef,
        stop: &CancellationToken,
        mark: impl FnOnce(),
    ) -> Result<(), Failure> {
        self.settled().await;
        let Some(os) = &document.os else { return Ok(()) };
        if os.version == self.version() {
            return Ok(());
        }
        self.refuse_bad(os).map_err(|failure| *failure)?;
        let Some(manifest) = &os.manifest else {
            return self.parts.slots.check(os).await;
        };
        let before = self.record().trial.clone();
        let restarts = before
            .filter(|trial| trial.generation == document.generation && trial.manifest == manifest.digest)
            .map_or(0, |trial| trial.restarts);
        if restarts >= MOST_RESTARTS {
            return Err(self.restarts_spent(&os.version));
        }
        // It may be long ago that it was written.
        self.parts.slots.stage(os).await?;
        if stop.is_cancelled() {
            return Ok(());
        }
        mark();
        failpoint::reach("os-journalled");
        self.write_down(|record| {
            record.trial = Some(Trial {
                generation: document.generation,
                version: os.version.clone(),
                manifest: manifest.digest,
                from: self.version().to_owned(),
                boot: self.parts.boots.boot().0.clone(),
                armed: false,
                restarts,
            });
        })
        .map_err(later)?;
        failpoint::reach("os-written-down");
        let restarted = self.leave(document.generation, os, stop).await;
        // Nothing of it happened, or the machine still stands.
        self.parts.switcher.go_on().await?;
        restarted
    }

    async fn leave(
        &self,
        generation: Generation,
        os: &OsRef,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        self.parts.switcher.keep_for_restart(generation).await?;
        failpoint::reach("os-kept");
        if stop.is_cancelled() {
            self.write_down(|record| record.trial = None).map_err(later)?;
            return Ok(());
        }
        self.parts.slots.arm(os).await?;
        failpoint::reach("os-armed");
        self.write_down(|record| {
            if let Some(trial) = &mut record.trial {
                trial.armed = true;
                trial.restarts += 1;
            }
        })
        .map_err(later)?;
        self.parts.boots.note_or_log(Note::Os {
            step: OsStep::Installed,
            version: os.version.clone(),
            detail: String::new(),
        });
        let version = os.version.clone();
        self.restart(RebootReason::OsSwitch { version }).await
    }

    /// Restarts the machine. Returns only where it did not.
    async fn restart(&self, reason: RebootReason) -> Result<(), Failure> {
        self.parts.boots.note_or_log(Note::RebootAsked { reason });
        failpoint::reach("os-restarting");
        power::restart(&self.parts.settings).await.map_err(later)?;
        sleep(RESTART_PATIENCE).await;
        let problem = Problem::new(
            codes::OS_NO_RESTART,
            format!(
                "the machine was to restart and still runs after {} s",
                RESTART_PATIENCE.as_secs()
            ),
            "look at `systemctl list-jobs` for what holds it up; it is tried again",
        );
        Err(Failure::of_document(problem, true))
    }

    fn restarts_spent(&self, version: &str) -> Failure {
        let problem = Problem::new(
            codes::OS_RESTARTS_SPENT,
            format!(
                "the box was restarted {MOST_RESTARTS} times for version {version} of the operating system, and {} still runs",
                self.version()
            ),
            "look at `holdfast history --boots` for how they ended",
        );
        Failure::of_document(problem, false)
    }

    /// Brings the box back to the system that an earlier document ran on, over a restart: then this does not return.
    ///
    /// # Errors
    /// Why it stays as it is.
    pub async fn restore(&self, to: &DocumentRef) -> Result<(), Failure> {
        let trial = self.record().trial.clone();
        let target = match &trial {
            // A trial that a person goes back from needs no verdict any more.
            Some(trial) if trial.version == self.version() => Some(trial.from.clone()),
            Some(trial) => {
                // It was not started; nothing of it may begin later.
                self.parts.slots.disarm(&trial.version).await?;
                self.record().before(to.generation).map(str::to_owned)
            }
            None => self.record().before(to.generation).map(str::to_owned),
        };
        let Some(target) = target.filter(|target| target != self.version()) else {
            return self
                .write_down(|record| {
                    record.trial = None;
                    record.went_back(to.generation);
                })
                .map_err(later);
        };
        let gone = |reason: String| {
            let problem = Problem::new(
                codes::OS_SLOT_GONE,
                format!(
                    "document {} ran on version {target} of the operating system: {reason}",
                    to.generation
                ),
                "nothing, if its apps work; else assign a release that names the operating system they need",
            );
            Failure::of_document(problem, false)
        };
        if self.parts.slots.other().as_ref() != Some(&target) {
            let found = self.parts.slots.other();
            return Err(gone(match found {
                Some(found) => format!("the other slot has version {found} by now"),
                None => "the other slot is empty by now".into(),
            }));
        }
        let restarts = self
            .record()
            .returning
            .as_ref()
            .filter(|returning| returning.generation == to.generation && returning.version == target)
            .map_or(0, |returning| returning.restarts);
        if restarts >= MOST_RESTARTS {
            return Err(gone(format!("it does not come up after {restarts} restarts")));
        }
        self.write_down(|record| {
            record.trial = None;
            record.returning = Some(Return {
                generation: to.generation,
                version: target.clone(),
                restarts: restarts + 1,
            });
        })
        .map_err(later)?;
        failpoint::reach("os-returning");
        self.parts.slots.return_to(&target).await?;
        failpoint::reach("os-returned");
        self.parts.boots.note_or_log(Note::Os {
            step: OsStep::Restored,
            version: target.clone(),
            detail: format!("for document {}", to.generation),
        });
        self.restart(RebootReason::OsRestore { version: target }).await
    }
}

/// It may be otherwise later: it is tried again.
const fn later(problem: Problem) -> Failure {
    Failure::of_document(problem, true)
}
