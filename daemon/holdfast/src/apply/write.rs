//! Writes objects wave after wave.

use super::established::established;
use crate::{
    kubernetes::{Cluster, cluster::Mode, metadata::ObjectVersion},
    observe::Versions,
    report::ApplyProgress,
    telemetry::metrics::METRICS,
};
use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use holdfast_core::{
    failure::Failure,
    object::{ObjectKey, PreparedObject, Wave},
};
use holdfast_protocol::Problem;
use std::collections::HashSet;
use tokio_util::sync::CancellationToken;

/// Writes objects.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    /// Where to.
    pub cluster: &'a Cluster,
    /// Writes at the same time, at most; a cluster that does not keep up gets fewer.
    pub concurrency: usize,
    /// Told of each write, so that its echo in a watch is not taken for somebody else's.
    pub versions: &'a Versions,
    /// Told of each write that went well.
    pub progress: &'a ApplyProgress,
    /// Once it is cancelled, no further write begins; those under way are waited for.
    pub stop: &'a CancellationToken,
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
        mut done: impl FnMut(&[(&'o PreparedObject, ObjectVersion)]) -> Result<(), Box<Failure>>,
    ) -> Vec<Failure> {
        let mut failures = Vec::new();
        let mut renewed_groups = HashSet::new();
        for wave in objects.chunk_by(|a, b| a.wave() == b.wave()) {
            let mut written = Vec::with_capacity(wave.len());
            let mut unreachable = false;
            for (object, answer) in bounded(
                || self.limit(),
                self,
                wave,
                |this, object| Box::pin(this.one(object)),
            )
            .await
            {
                match answer {
                    Ok(version) => written.push((object, version)),
                    Err(mut failure) => {
                        // The schema of a definition that was just written takes a moment to be the one that objects are held against.
                        failure.retryable |= renewed_groups.contains(object.key.group());
                        if failure.problem.code == holdfast_core::codes::KUBERNETES_UNREACHABLE {
                            // It ends the run, and is no app's own failure.
                            unreachable = true;
                            failures.push(failure);
                        } else {
                            failures.push(failure.in_app(&object.app));
                        }
                    }
                }
            }
            if let Err(failure) = done(&written) {
                failures.push(*failure);
                return failures;
            }
            if unreachable {
                return failures;
            }
            if wave
                .first()
                .is_some_and(|object| object.wave() == Wave::Definitions)
            {
                let answers = bounded(
                    || self.concurrency,
                    self,
                    &written,
                    |this, (object, _)| Box::pin(this.established(object)),
                );
                failures.extend(answers.await.into_iter().filter_map(Result::err));
                // The name of a definition is "plural.group".
                let groups = written
                    .iter()
                    .filter_map(|(object, _)| object.key.name.split_once('.'));
                renewed_groups.extend(groups.map(|(_, group)| group));
            }
        }
        failures
    }

    async fn established(&self, definition: &PreparedObject) -> Result<(), Failure> {
        tokio::select! {
            answer = established(self.cluster, definition) => answer,
            () = self.stop.cancelled() => Err(overtaken(&definition.key)),
        }
    }

    fn limit(&self) -> usize {
        self.cluster.load().limit(self.concurrency)
    }

    async fn one<'o>(
        &self,
        object: &'o PreparedObject,
    ) -> (&'o PreparedObject, Result<ObjectVersion, Failure>) {
        if self.stop.is_cancelled() {
            return (object, Err(overtaken(&object.key)));
        }
        let writing = self.versions.begin(&object.key);
        let answer = match self.cluster.apply(object, Mode::Real).await {
            Ok(version) => {
                writing.done(version);
                METRICS.objects_written.add(1);
                self.progress.advance();
                Ok(version)
            }
            Err(error) => Err(error.failure(&object.key)),
        };
        (object, answer)
    }
}

/// What is not begun any more because something newer is to be done.
pub(super) fn overtaken(key: &ObjectKey) -> Failure {
    let problem = Problem::new(
        holdfast_core::codes::APPLY_FAILED,
        format!("{key} is left to newer work"),
        "nothing: the newer work is under way",
    );
    Failure {
        key: Some(key.clone()),
        app: None,
        problem,
        retryable: true,
    }
}

/// Does `work` with each of `items`, with at most `limit` (asked each time) at the same time, each begun only when it has a place.
pub(crate) async fn bounded<'a, C, T, R>(
    limit: impl Fn() -> usize,
    context: &'a C,
    items: &'a [T],
    work: fn(&'a C, &'a T) -> BoxFuture<'a, R>,
) -> Vec<R> {
    let mut waiting = items.iter();
    let mut running = FuturesUnordered::new();
    let mut answers = Vec::with_capacity(items.len());
    loop {
        while running.len() < limit().max(1)
            && let Some(item) = waiting.next()
        {
            running.push(work(context, item));
        }
        match running.next().await {
            Some(answer) => answers.push(answer),
            None => return answers,
        }
    }
}
