//! The running node, as the local API sees it: what it tells, and the orders that it takes.

use crate::{
    apply::Objects,
    codes,
    foresee::{Foresight, foresee},
    health::{self, Check},
    kubernetes::KubernetesState,
    local_api::view::{LinkView, NodeDetails, PauseOrder, RollbackOrder, RunningNode},
    reconcile::{
        orders::{Order, Paused, Reply, Resumed, RollingBack, reason_fault},
        system::System,
    },
    report::Reporter,
    sync::LinkState,
};
use futures::future::BoxFuture;
use holdfast_core::{
    plan::{Plan, plan},
    reconcile::DocumentRef,
};
use holdfast_protocol::{Problem, codes as protocol_codes, document::DesiredState, report::StatusReport};
use jiff::SignedDuration;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// The running node, as the local API sees it.
pub struct Handle {
    pub(super) reporter: Arc<Reporter>,
    pub(super) objects: Objects,
    pub(super) kubernetes: watch::Receiver<KubernetesState>,
    pub(super) link: watch::Receiver<LinkState>,
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) system: Option<Arc<System>>,
    pub(super) enabled: bool,
}

impl Handle {
    /// Gives an order to the driver and waits for its outcome.
    async fn order<T>(&self, order: impl FnOnce(Reply<T>) -> Order) -> Result<T, Problem> {
        let stopping = || {
            Problem::new(
                codes::NODE_STARTING,
                "the node takes no orders now",
                "try again in a moment",
            )
        };
        let (reply, outcome) = oneshot::channel();
        self.orders.send(order(reply)).await.map_err(|_| stopping())?;
        outcome.await.map_err(|_| stopping())?
    }

    async fn plan_newest(&self) -> Result<Plan, Problem> {
        let newest = self.objects.store.newest().map_err(|error| error.problem())?;
        let Some(newest) = newest else {
            return Err(Problem::new(
                protocol_codes::NOT_FOUND,
                "this node has no document yet",
                "assign a release to it: holdfastctl release assign",
            ));
        };
        let identity = self.objects.identity.borrow().clone();
        let document = identity
            .readmit(&newest.envelope)
            .map_err(|rejection| rejection.problem)?;
        let reference = DocumentRef::of(&document);
        let cluster = self.kubernetes.borrow().cluster.clone();
        let objects = self
            .objects
            .prepare(document.state(), cluster.as_deref())
            .await
            .map_err(|failure| failure.problem)?;
        let inventory = self.objects.store.inventory().map_err(|error| error.problem())?;
        Ok(plan(
            reference.generation,
            &objects,
            &inventory,
            document.state().policy.prune,
        ))
    }
}

impl RunningNode for Handle {
    fn status(&self) -> StatusReport {
        self.reporter.glance()
    }

    fn link(&self) -> LinkView {
        let waiting = self.objects.store.pending_count();
        LinkView::of(&self.link.borrow(), self.enabled, waiting)
    }

    fn health(&self) -> Vec<Check> {
        if let Some(system) = &self.system {
            system.judged();
        }
        health::of_node(&self.reporter.glance(), &self.reporter.progress().alone)
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        let reporter = self.reporter.clone();
        Box::pin(async move { reporter.changed().await })
    }

    fn details(&self) -> NodeDetails {
        let progress = self.reporter.progress();
        NodeDetails {
            fallback: progress.fallback,
            pause_reason: progress.pause_reason.filter(|reason| !reason.is_empty()),
        }
    }

    fn plan(&self) -> BoxFuture<'_, Result<Plan, Problem>> {
        Box::pin(self.plan_newest())
    }

    fn foresee(&self, document: DesiredState) -> BoxFuture<'_, Result<Foresight, Problem>> {
        Box::pin(async move {
            let cluster = self.kubernetes.borrow().cluster.clone();
            foresee(&self.objects, cluster.as_deref(), &document).await
        })
    }

    fn pause(&self, order: PauseOrder) -> BoxFuture<'_, Result<Paused, Problem>> {
        if let Some(fault) = reason_fault(&order.reason) {
            let problem = Problem::new(
                protocol_codes::BAD_REQUEST,
                format!("the reason of a pause cannot be taken: {fault}"),
                "write it on one short line of plain text",
            );
            return Box::pin(async { Err(problem) });
        }
        Box::pin(self.order(move |reply| Order::Pause {
            length: SignedDuration::from_secs(i64::try_from(order.seconds).unwrap_or(i64::MAX)),
            reason: order.reason,
            reply,
        }))
    }

    fn resume(&self) -> BoxFuture<'_, Result<Resumed, Problem>> {
        Box::pin(self.order(|reply| Order::Resume { reply }))
    }

    fn roll_back(&self, order: RollbackOrder) -> BoxFuture<'_, Result<RollingBack, Problem>> {
        Box::pin(self.order(move |reply| Order::RollBack {
            to: order.generation,
            reply,
        }))
    }
}
