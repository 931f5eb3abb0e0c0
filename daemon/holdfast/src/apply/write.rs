//! Writes objects wave after wave.

use super::established::established;
use crate::{
    kubernetes::{
        Cluster,
        cluster::{Mode, ObjectVersion},
    },
    observe::Versions,
};
use futures::{StreamExt as _, stream};
use holdfast_core::{
    failure::Failure,
    object::{ObjectKey, PreparedObject, Wave},
};
use std::collections::BTreeSet;

/// Writes objects.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    /// Where to.
    pub cluster: &'a Cluster,
    /// Writes at the same time.
    pub concurrency: usize,
    /// Told of each write, so that its echo in a watch is not taken for somebody else's.
    pub versions: &'a Versions,
}

impl Writer<'_> {
    /// Writes `objects`, which are in the order of their waves. After each wave, `done` gets what was written in it, before anything of
    /// the next wave is. Answers with what could not be written.
    ///
    /// A wave with failures does not hold up the next one: apps that do not depend on it go on. Only an API server that does not answer
    /// ends the run.
    pub async fn write<'o>(
        &self,
        objects: &[&'o PreparedObject],
        mut done: impl FnMut(&[&'o PreparedObject]) -> Result<(), Failure>,
    ) -> Vec<Failure> {
        let mut failures = Vec::new();
        for wave in objects.chunk_by(|a, b| a.wave() == b.wave()) {
            let mut written = Vec::with_capacity(wave.len());
            let mut unreachable = false;
            let mut answers = stream::iter(wave.iter().copied())
                .map(|object| async move { (object, self.one(object).await) })
                .buffer_unordered(self.concurrency.max(1));
            while let Some((object, answer)) = answers.next().await {
                match answer {
                    Ok(()) => written.push(object),
                    Err(failure) => {
                        unreachable |=
                            failure.problem.code == holdfast_core::codes::KUBERNETES_UNREACHABLE;
                        failures.push(failure);
                    }
                }
            }
            drop(answers);
            if let Err(failure) = done(&written) {
                failures.push(failure);
                return failures;
            }
            if unreachable {
                return failures;
            }
            if wave.first().is_some_and(|object| object.wave() == Wave::Definitions) {
                let mut waits = stream::iter(written)
                      .map(|object| established(self.cluster, object))
                    .buffer_unordered(self.concurrency.max(1));
                while let Some(answer) = waits.next().await {
                    failures.extend(answer.err());
                }
            }
        }
        failures
    }

    async fn one(&self, object: &PreparedObject) -> Result<(), Failure> {
        let writing = self.versions.begin(&object.key);
        match self.cluster.apply(object, Mode::Real).await {
            Ok(metadata) => {
                writing.done(ObjectVersion::of(&metadata));
                Ok(())
            }
            Err(error) => Err(error.failure(&object.key)),
        }
    }
}

/// Those of `objects` that `keys` names, in the same order.
pub(super) fn select<'o>(objects: &'o [PreparedObject], keys: &BTreeSet<ObjectKey>) -> Vec<&'o PreparedObject> {
    objects.iter().filter(|object| keys.contains(&object.key)).collect()
}

