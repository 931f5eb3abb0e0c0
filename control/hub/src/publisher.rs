//! Brings documents to the broker. In: the outbox of the database. Out: retained messages.
//!
//! Guarantee: what the outbox asks for is done at least once, over crashes of hub and broker; a row goes only after the broker took it.
//! Caveat: a crash between the two publishes the same document again, which nodes know by its digest.

use crate::{
    broker::{Broker, BrokerError},
    database::{
        Result,
        documents::{self, Action, Pending},
    },
    hub::Hub,
    metrics,
};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use holdfast_protocol::topic::{Down, Topic};
use std::{sync::Arc, time::Duration};

/// Rows read at once.
const BATCH: u32 = 256;
/// Publications under way at once.
const CONCURRENCY: usize = 16;
/// First pause after a failure; doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause between attempts.
const MAX_PAUSE: Duration = Duration::from_secs(15);

/// Runs until shutdown.
pub async fn run(hub: Arc<Hub>) {
    let mut pause = MIN_PAUSE;
    loop {
        let wait = match drain(&hub).await {
            Ok(true) => {
                pause = MIN_PAUSE;
                None
            }
            Ok(false) => Some(pause),
            Err(error) => {
                tracing::error!(%error, "the outbox cannot be read");
                Some(pause)
            }
        };
        let retry = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = hub.shutdown.cancelled() => return,
            () = hub.outbox.notified() => {}
            () = retry => pause = (pause * 2).min(MAX_PAUSE),
        }
    }
}

/// Does everything that the outbox asks for; false where something failed and must be tried again.
async fn drain(hub: &Arc<Hub>) -> Result<bool> {
    loop {
        let pending = documents::pending(hub.database.read(), BATCH).await?;
        if pending.is_empty() {
            return Ok(true);
        }
        let total = pending.len();
        let done: Vec<Pending> = stream::iter(pending)
            .map(|row| async move { perform(hub, &row).await.then_some(row) })
            .buffer_unordered(CONCURRENCY)
            .filter_map(std::future::ready)
            .collect()
            .await;
        let mut tx = hub.database.write().await?;
        for row in &done {
            documents::done(&mut tx, row).await?;
        }
        tx.commit().await?;
        if done.len() < total {
            return Ok(false);
        }
    }
}

async fn perform(hub: &Hub, row: &Pending) -> bool {
    let Some(broker) = hub.broker() else { return false };
    let result = match row.action {
        Action::Publish => publish(hub, broker.as_ref(), row).await,
        Action::Forget => match broker.clear_retained(&topic(row)).await {
            Ok(()) => broker.disconnect(&row.node).await,
            Err(error) => Err(error),
        },
        Action::Replace => match broker.disconnect(&row.node).await {
            Ok(()) => publish(hub, broker.as_ref(), row).await,
            Err(error) => Err(error),
        },
    };
    match result {
        Ok(()) => {
            hub.metrics.count(metrics::PUBLISHES, &["ok"]);
            tracing::debug!(node = %row.node, action = ?row.action, "the broker took it");
            true
        }
        Err(error) => {
            hub.metrics.count(metrics::PUBLISHES, &["failed"]);
            tracing::warn!(%error, node = %row.node, action = ?row.action, "the broker did not take it; trying again");
            false
        }
    }
}

fn topic(row: &Pending) -> Topic {
    Topic::down(&row.node, Down::Desired)
}

async fn publish(hub: &Hub, broker: &dyn Broker, row: &Pending) -> std::result::Result<(), BrokerError> {
    match documents::envelope(hub.database.read(), &row.node).await {
        Ok(Some(envelope)) => broker.publish_retained(&topic(row), Bytes::from(envelope)).await,
        Ok(None) => Ok(()),
        Err(error) => Err(BrokerError::Unavailable(format!(
            "the document cannot be read: {error}"
        ))),
    }
}
