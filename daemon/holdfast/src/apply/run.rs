//! One run over a document: plan, write, prune, record.

use super::{
    Objects, Writer,
    write::{bounded, overtaken},
};
use crate::{
    failpoint, identity::clock::TimeFloor, kubernetes::Cluster, observe::Versions, report::ApplyProgress,
    telemetry::metrics::METRICS,
};
use holdfast_core::{
    failure::Failure,
    object::{ObjectKey, PreparedObject},
    plan::{InventoryEntry, Plan, PlanStep, plan},
    reconcile::DocumentRef,
};
use holdfast_store::{ApplyRecord, StoreError};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};
use tokio_util::sync::CancellationToken;

/// Everything that writing to Kubernetes needs.
#[derive(Clone)]
pub struct Run {
    /// Where documents are.
    pub objects: Objects,
    /// Where to write.
    pub cluster: Arc<Cluster>,
    /// Told of each write.
    pub versions: Arc<Versions>,
    /// Writes at the same time, at most.
    pub concurrency: usize,
    /// Counts the objects that are as they should be.
    pub progress: Arc<ApplyProgress>,
    /// The time, for the records.
    pub floor: Arc<TimeFloor>,
    /// Once it is cancelled, nothing more is begun. What is under way is waited for: a write that is cut off could reach the API server after
    /// one of a newer document.
    pub stop: CancellationToken,
}

impl Run {
    /// Makes the cluster as the document says: writes what differs from the inventory, then deletes what left. Answers with what could not
    /// be done.
    pub async fn document(&self, document: &DocumentRef) -> Vec<Failure> {
        self.try_document(document)
            .await
            .unwrap_or_else(|failure| vec![*failure])
    }

    async fn try_document(&self, document: &DocumentRef) -> Result<Vec<Failure>, Box<Failure>> {
        let verified = self.objects.document(document)?;
        let state = verified.state();
        let objects = self.objects.prepare(state, Some(&self.cluster)).await?;
        let inventory = self.objects.store.inventory().map_err(|error| of_store(&error))?;
        let plan = plan(document.generation, &objects, &inventory, state.policy.prune);
        let by_key: HashMap<_, _> = objects.iter().map(|object| (&object.key, object)).collect();
        let pick = |list: fn(&PlanStep) -> &Vec<holdfast_core::plan::PlannedObject>| {
            plan.steps
                .iter()
                .flat_map(list)
                .filter_map(|planned| by_key.get(&planned.key).copied())
                .collect::<Vec<_>>()
        };
        let new: Vec<_> = pick(|step| &step.create)
            .into_iter()
            .map(InventoryEntry::intent)
            .collect();
        tracing::info!(
            objects = objects.len(),
            new = new.len(),
            writes_and_deletes = plan.changes(),
            "applying"
        );
        failpoint::reach("before-intents");
        self.objects
            .store
            .begin_apply(document.digest, &new, self.floor.now())
            .map_err(|error| of_store(&error))?;
        failpoint::reach("after-intents");

        let mut changed: BTreeSet<_> = pick(|step| &step.create)
            .into_iter()
            .map(|object| &object.key)
            .collect();
        changed.extend(pick(|step| &step.update).into_iter().map(|object| &object.key));
        let to_write: Vec<_> = objects
            .iter()
            .filter(|object| changed.contains(&object.key))
            .collect();
        self.progress.begin(objects.len(), objects.len() - to_write.len());
        let mut failures = self.write(document, &to_write).await;
        // What an app that may fail alone could not write holds nothing up.
        let holds = |failures: &[Failure]| {
            failures.iter().any(|failure| {
                failure
                    .app
                    .as_ref()
                    .is_none_or(|app| !document.isolated.contains(app))
            })
        };
        if !holds(&failures) {
            failures.extend(self.prune(document, &plan).await);
        }
        if !holds(&failures) {
            failpoint::reach("before-applied");
            let record = ApplyRecord {
                complete: true,
                ..ApplyRecord::default()
            };
            self.record(document, &record)?;
            failpoint::reach("after-applied");
        }
        Ok(failures)
    }

    /// Writes these objects of the document again, whatever the inventory says. Answers with what could not be written.
    pub async fn some(&self, document: &DocumentRef, keys: &BTreeSet<ObjectKey>) -> Vec<Failure> {
        let objects = match self.objects.some(document, keys, &self.cluster).await {
            Ok(objects) => objects,
            Err(failure) => return vec![*failure],
        };
        let objects: Vec<_> = objects.iter().collect();
        self.write(document, &objects).await
    }

    fn writer(&self) -> Writer<'_> {
        Writer {
            cluster: &self.cluster,
            concurrency: self.concurrency,
            versions: &self.versions,
            progress: &self.progress,
            stop: &self.stop,
        }
    }

    async fn write(&self, document: &DocumentRef, objects: &[&PreparedObject]) -> Vec<Failure> {
        self.writer()
            .write(objects, |written| {
                failpoint::reach("before-record");
                let record = ApplyRecord {
                    written: written
                        .iter()
                        .map(|(object, version)| InventoryEntry::applied(object, Some(version.owned)))
                        .collect(),
                    ..ApplyRecord::default()
                };
                self.record(document, &record)?;
                failpoint::reach("after-record");
                Ok(())
            })
            .await
    }

    /// Deletes what left the document: wave after wave, backwards, so that nothing loses what it stands on before it is gone itself.
    async fn prune(&self, document: &DocumentRef, plan: &Plan) -> Vec<Failure> {
        let mut failures = Vec::new();
        for wave in plan.prune.chunk_by(|a, b| a.key.wave() == b.key.wave()) {
            failpoint::reach("before-prune");
            let mut removed = Vec::with_capacity(wave.len());
            for (key, answer) in bounded(
                || self.concurrency,
                self,
                wave,
                |this, object| Box::pin(this.delete(&object.key)),
            )
            .await
            {
                match answer {
                    Ok(()) => removed.push(key.clone()),
                    Err(failure) => failures.push(failure),
                }
            }
            METRICS.objects_pruned.add(removed.len() as u64);
            let record = ApplyRecord {
                removed,
                ..ApplyRecord::default()
            };
            if let Err(failure) = self.record(document, &record) {
                failures.push(*failure);
            }
            failpoint::reach("after-prune");
            if !failures.is_empty() {
                break;
            }
        }
        failures
    }

    async fn delete<'k>(&self, key: &'k ObjectKey) -> (&'k ObjectKey, Result<(), Failure>) {
        if self.stop.is_cancelled() {
            return (key, Err(overtaken(key)));
        }
        // The document before is still watched: without this, our own delete would be told as somebody else's.
        let writing = self.versions.begin(key);
        let answer = self.cluster.delete(key).await;
        if answer.is_ok() {
            writing.deleted();
        }
        (key, answer.map_err(|error| error.failure(key)))
    }

    fn record(&self, document: &DocumentRef, record: &ApplyRecord) -> Result<(), Box<Failure>> {
        self.objects
            .store
            .record_apply(document.digest, record, &[], self.floor.now())
            .map_err(|error| of_store(&error).into())
    }
}

/// What is recorded of a document's objects.
#[derive(Debug, Default)]
pub struct Records {
    /// Fingerprints of those that were written as the document says.
    pub known: Vec<(ObjectKey, u64)>,
    /// Those of which no write is known, or one of another content: they are to be written.
    pub unknown: Vec<ObjectKey>,
}

/// Of each object, how it should be: as its last write left it, which the inventory knows. By this the observer's lists of metadata say
/// what changed while nobody watched, at the cost of one request for each kind and hundred objects.
///
/// What is missed: a change that leaves every field that Holdfast owns with its owner, its value and its second. Kubernetes has no such
/// change: whoever changes a value becomes its owner, whoever deletes and makes anew leaves no field with Holdfast, and a datastore that was
/// set back has an older time in the field's owner, unless two contents were applied within one second and it was set back to between them.
pub fn records(run: &Run, objects: &[PreparedObject]) -> Result<Records, Box<Failure>> {
    let inventory = run.objects.store.inventory().map_err(|error| of_store(&error))?;
    let recorded: HashMap<_, _> = inventory
        .iter()
        .filter_map(|entry| Some((&entry.key, (entry.digest?, entry.fingerprint?))))
        .collect();
    let mut records = Records::default();
    for object in objects {
        match recorded.get(&object.key) {
            Some((digest, fingerprint)) if *digest == object.digest => {
                records.known.push((object.key.clone(), *fingerprint));
            }
            _ => records.unknown.push(object.key.clone()),
        }
    }
    Ok(records)
}

fn of_store(error: &StoreError) -> Failure {
    // A disk that is full or read-only may be mended; the document is not at fault.
    Failure::of_document(error.problem(), true)
}
